"""Time and accuracy of slices against the box size: nearest, trilinear, and non-uniform transforms, in the same run.

    python -m benchmarks.projector_accuracy [--boxes 32 48 64 96] [--rank 10] [--images 512] [--repeats 3]

After figure 10 of the SOLVAR paper, with the accuracy beside the time. What is timed is one pass over a batch of
images that gives the value of an objective, maximum likelihood (ML) or least squares (LS), and its gradient with
respect to the factors; and, by itself, all that such a pass asks of a projector: transform mean and factors, slice
them with their inner products, back-project the combinations, and transform back. Times are CPU time of all threads
together, which other programs on the machine change little; the methods take turns besides.

Errors are relative to the definition of the Fourier transform, summed directly in float64. Slices are those of a
molecule, the phantom `static`; back-projections are those of white noise, compared where molecules are.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.common import cpu_seconds, provenance, publish, script_parser, table, use_threads
from solvar_engine.distributed.world import ALONE
from solvar_engine.estimation.model.bands import make_band
from solvar_engine.estimation.model.expectation import expectation_pass
from solvar_engine.estimation.model.objectives import OBJECTIVES
from solvar_engine.imaging.fourier import HalfDisk, nyquist_shell
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.imaging.types import Batch
from solvar_engine.projectors.base import Projector, images_per_call
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.simulation.phantoms import MOLECULE_RADIUS, make_phantom

METHODS = ("nearest", "trilinear", "nufft")
SLICES = "slices"
PASSES = (SLICES, "ml", "ls")
VIEWS = 3  # that the direct sum is evaluated for
PIXELS_TOGETHER = 256


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, rank=10, images=512, threads=1, repeats=3)
    parser.add_argument("--boxes", type=int, nargs="+", default=[32, 48, 64, 96], help="edges of the volumes, px")
    return parser.parse_args()


# --- time


class RandomImages:
    """Images of noise at random orientations, as a source for the estimators; see `BatchSource`."""

    pixel_size = 1.0

    def __init__(self, box_size: int, images: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.world = ALONE
        self.box_size = box_size
        self.disk = HalfDisk.create(box_size)
        pixels = len(self.disk)
        self._batch = Batch(
            images=torch.complex(*torch.randn(2, images, pixels, generator=generator)),
            ctf=torch.ones(images, pixels),
            rotation=random_rotations(images, generator),
            contrast=torch.ones(images),
            index=torch.arange(images),
        )

    def __len__(self) -> int:
        return len(self._batch)

    def batches(self, index: Tensor, disk: HalfDisk, batch_size: int) -> Iterator[Batch]:
        """Yield all images; the band is always the whole."""
        for first in range(0, len(index), batch_size):
            yield self._batch[index[first : first + batch_size]]


class Passes:
    """Passes of one method over a batch of random images, under the names of their columns."""

    def __init__(self, method: str, box_size: int, rank: int, images: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.source = RandomImages(box_size, images)
        self.projector = create_projector(box_size, self.source.disk, SliceOptions(method))
        self.volumes = torch.randn(rank + 1, box_size, box_size, box_size, generator=generator) / box_size
        self.coefficients = torch.randn(images, rank + 2, rank, generator=generator)
        self.index = torch.arange(images)
        self.band = make_band(
            nyquist_shell(box_size), self.source.disk, self.volumes[0], SliceOptions(method)
        )

    def run(self, name: str) -> None:
        """Do one pass: that of the projector alone, or of an objective."""
        if name == SLICES:
            self._slices()
        else:
            expectation_pass(self.source, self.index, self.band, self.volumes[1:], OBJECTIVES[name])

    def _slices(self) -> None:
        projector, rank = self.projector, self.coefficients.shape[-1]
        grid, accumulator = projector.to_grid(self.volumes), projector.new_accumulator(rank)
        for batch in self.source.batches(self.index, self.source.disk, images_per_call(projector, rank + 2)):
            slices, _ = projector.project_with_gram(grid, batch.rotation, batch.ctf, batch.images)
            projector.backproject_combination(
                slices, batch.images, self.coefficients[batch.index], batch.rotation, batch.ctf, accumulator
            )
        projector.to_volumes(accumulator)


def times(box_size: int, arguments: argparse.Namespace) -> dict[tuple[str, str], float]:
    """Median CPU milliseconds an image by method and pass; the first round, which may compile, does not count."""
    passes = {method: Passes(method, box_size, arguments.rank, arguments.images) for method in METHODS}
    taken: dict[tuple[str, str], list[float]] = {(method, name): [] for method in METHODS for name in PASSES}
    for repeat in range(arguments.repeats + 1):
        for method, name in taken:
            seconds = cpu_seconds(lambda method=method, name=name: passes[method].run(name))
            if repeat > 0:
                taken[method, name].append(1e3 * seconds / arguments.images)
    return {key: statistics.median(values) for key, values in taken.items()}


# --- accuracy


def direct_waves(disk: HalfDisk, rotation: Tensor, box_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Factors exp(-2 pi i k x / box) of every pixel of one view along x, y and z: each (pixels, box)."""
    position = torch.arange(box_size, dtype=torch.float64) - box_size // 2
    frequency = disk.pixels.double() @ rotation.double()[:, :2].T
    angle_rad = -2 * torch.pi / box_size * frequency.T[..., None] * position
    x, y, z = torch.polar(torch.ones_like(angle_rad), angle_rad)
    return x, y, z


def direct_slice(volume: Tensor, waves: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Evaluate one view, some pixels at a time."""
    values = []
    for x, y, z in zip(*(wave.split(PIXELS_TOGETHER) for wave in waves), strict=True):
        lines = torch.einsum("zyx,px->pzy", volume.to(x.dtype), x)
        values.append(torch.einsum("pzy,py,pz->p", lines, y, z))
    return torch.cat(values) / volume.shape[-1]


def direct_back_projection(values: Tensor, waves: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Evaluate the adjoint of :func:`direct_slice`."""
    box_size = waves[0].shape[-1]
    volume = torch.zeros((box_size,) * 3, dtype=torch.float64)
    parts = (part.split(PIXELS_TOGETHER) for part in (values, *waves))
    for value, x, y, z in zip(*parts, strict=True):
        volume += (torch.einsum("p,pz,py->zyp", value, z.conj(), y.conj()) @ x.conj()).real
    return volume / box_size


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


class Exact:
    """Slices and back-projections of one box, summed directly, and how far a projector is from them."""

    def __init__(self, box_size: int) -> None:
        generator = torch.Generator().manual_seed(1)
        disk = HalfDisk.create(box_size)
        self.rotation = random_rotations(VIEWS, generator)
        self.volume = make_phantom("static").volume(0, box_size)
        self.noise = torch.complex(*torch.randn(2, VIEWS, len(disk), generator=generator))
        self.ball = sphere_mask(box_size, MOLECULE_RADIUS * box_size, 0.0)
        waves = [direct_waves(disk, one, box_size) for one in self.rotation]
        pairs = zip(self.noise.to(torch.complex128), waves, strict=True)
        self.slices = torch.stack([direct_slice(self.volume, one) for one in waves])
        self.back = torch.stack([direct_back_projection(values, one) for values, one in pairs]).sum(dim=0)

    def errors(self, projector: Projector) -> tuple[float, float]:
        """Relative errors of slices and of back-projections."""
        slices = projector.project(projector.to_grid(self.volume[None]), self.rotation)[..., 0]
        accumulator = projector.new_accumulator(1)
        projector.backproject(self.noise[..., None], self.rotation, accumulator)
        back = projector.to_volumes(accumulator)[0]
        return relative_error(slices, self.slices), relative_error(back * self.ball, self.back * self.ball)


def rows_of(box_size: int, arguments: argparse.Namespace) -> list[list[object]]:
    """Rows of the table for one box."""
    taken, exact = times(box_size, arguments), Exact(box_size)
    rows: list[list[object]] = []
    for method in METHODS:
        projector = create_projector(box_size, HalfDisk.create(box_size), SliceOptions(method))
        slice_error, back_error = exact.errors(projector)
        milliseconds = [f"{taken[method, name]:.3f}" for name in PASSES]
        ratio = taken[method, "ml"] / taken["trilinear", "ml"]
        rows.append([box_size, method, *milliseconds, f"{ratio:.2f}", f"{slice_error:.1e}", f"{back_error:.1e}"])
    return rows


def main() -> None:
    arguments = parse_arguments()
    use_threads(arguments.threads)
    introduction = (
        f"{arguments.rank} factors and the mean, {arguments.images} images, median of {arguments.repeats}; "
        "oversampling 2 for nearest and trilinear. "
    )
    header = ["box", "method", "slices, CPU-ms an image", "ML", "LS", "ML over trilinear ML"]
    header += ["error of slices", "error of back-projections"]
    rows = []
    for box_size in arguments.boxes:
        rows += rows_of(box_size, arguments)
        text = f"{introduction}{provenance(arguments.threads)}\n\n{table(header, rows)}"
        if not arguments.print:
            publish("projector-accuracy", text)
        print(*rows[-len(METHODS) :], sep="\n", flush=True)
    print(f"\n{text}")


if __name__ == "__main__":
    main()

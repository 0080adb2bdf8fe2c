"""Volumes of states against the truth: kernel regression, the linear model, and plain averages of near particles.

    python benchmarks/states.py RUN DATA [--points 8] [--threads 2]

DATA is a folder of `solvar-engine simulate`, RUN a finished fit of it. The points are the average latent coordinates of
the particles of states spread evenly over the list of states. Resolution is where the FSC with the true volume of the
state falls below 0.5, inside the mask of the run and, in brackets, inside the region that moves. The plain averages are
reconstructions of the particles nearest to the point by Euclidean distance, as many as the kernels used on average.
The last three columns are the resolution that the half-maps predict at FSC 0.143, and that at which their unfiltered
average falls below 0.5 with the true mean moved to the point by the components (what the flat kernel converges to),
and with the true state.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numba  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from solvar_engine.contract.files import read_csv, write_csv  # noqa: E402
from solvar_engine.contract.params import ReconstructParams  # noqa: E402
from solvar_engine.contract.run import RunDir  # noqa: E402
from solvar_engine.data.particles import ParticleStack  # noqa: E402
from solvar_engine.data.preprocess import prepare_particles  # noqa: E402
from solvar_engine.data.volumes import read_volume  # noqa: E402
from solvar_engine.imaging.fourier import fourier_crop_volume  # noqa: E402
from solvar_engine.imaging.masks import soft_edge  # noqa: E402
from solvar_engine.imaging.shells import fsc, resolution_at  # noqa: E402
from solvar_engine.jobs import reconstruct  # noqa: E402
from solvar_engine.jobs.latent_space import LatentSpace, open_latent_space  # noqa: E402
from solvar_engine.jobs.state_files import StateFiles  # noqa: E402
from solvar_engine.reconstruction.mean import estimate_mean  # noqa: E402
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations  # noqa: E402


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


class Truth:
    """True volumes and states of the particles, and where they differ."""

    def __init__(self, data: Path, box_size: int) -> None:
        paths = sorted((data / "truth" / "volumes").glob("*.mrc"))
        self.volumes = torch.stack([fourier_crop_volume(read_volume(path).data, box_size) for path in paths])
        self.state = read_csv(data / "truth" / "states.csv")["state"].astype(int) - 1
        spread = self.volumes.std(dim=0, correction=0) if len(paths) > 1 else self.volumes[0].abs()
        self.moving = soft_edge(spread > 0.1 * float(spread.max()), 3.0)

    def average(self) -> Tensor:
        """Average over the particles."""
        return self.volumes[torch.from_numpy(self.state)].mean(dim=0)


def points_of(truth: Truth, space: LatentSpace, count: int) -> tuple[np.ndarray, np.ndarray]:
    """States spread evenly, and the average coordinates of their particles."""
    states = np.unique(np.linspace(0, len(truth.volumes) - 1, count).astype(int))
    points = np.stack([space.z[truth.state == state].mean(axis=0) for state in states])
    other = np.setdiff1d(np.arange(points.shape[1]), space.columns)
    points[:, other] = 0.0
    return states, points


class PlainAverages:
    """Regularised reconstructions of the particles nearest to a point."""

    def __init__(self, data: Path, space: LatentSpace, mask: Tensor, box_size: int) -> None:
        stack = ParticleStack.from_star(data / "particles.star")
        self._source = prepare_particles(stack, box_size, scratch=None)
        self._space, self._mask = space, mask

    def at(self, point: np.ndarray, count: int) -> Tensor:
        """Reconstruct the ``count`` particles nearest to a point."""
        distance = np.square(self._space.features - point[self._space.columns]).sum(axis=1)
        nearest = torch.from_numpy(np.argsort(distance)[:count].copy())
        halves = [accumulate_normal_equations(self._source, nearest[start::2].sort().values) for start in (0, 1)]
        return estimate_mean(halves[0], halves[1], self._mask).mean * self._mask


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    numba.set_num_threads(arguments.threads)
    run = RunDir(arguments.run)
    space = open_latent_space(run)
    mean, mask = read_volume(run.mean), read_volume(run.mask).data
    truth = Truth(arguments.data, mean.box_size)
    states, points = points_of(truth, space, arguments.points)
    plain = PlainAverages(arguments.data, space, mask, mean.box_size)
    eigenvolumes = torch.stack([read_volume(run.eigenvolume(int(c) + 1)).data for c in space.columns])

    def resolution(volume: Tensor, reference: Tensor, where: Tensor) -> float:
        return resolution_at(fsc(volume, reference, where), 0.5, mean.box_size, mean.pixel_size)

    def area(volume: Tensor, reference: Tensor) -> float:
        return float(fsc(volume, reference, mask)[1:].mean())

    with tempfile.TemporaryDirectory() as folder:
        files = StateFiles(Path(folder) / "states")
        table = Path(folder) / "points.csv"
        write_csv(table, {f"z_{axis}": column for axis, column in enumerate(points.T, start=1)})
        start = time.perf_counter()
        reconstruct.run(ReconstructParams(run=str(run.path), output=str(files.folder), points=str(table)))
        seconds = time.perf_counter() - start
        results = read_csv(files.table)
        for number, (state, point) in enumerate(zip(states, points, strict=True), start=1):
            reference = truth.volumes[state]
            used = int(results["images_used"][number - 1])
            volumes = {
                "kernel": read_volume(files.volume(number)).data,
                "linear": reconstruct.linear_state(mean, eigenvolumes, point[space.columns]).data,
                "nearest": plain.at(point, used),
            }
            halves = sum(read_volume(files.half(number, half)).data for half in (1, 2))
            step = torch.from_numpy(point - space.z.mean(axis=0))[space.columns].float()
            expected = truth.average() + torch.tensordot(step, eigenvolumes, 1)
            row = [str(number), str(state + 1), str(used)]
            row += [
                f"{resolution(volume, reference, mask):.2f} ({resolution(volume, reference, truth.moving):.2f}),"
                f" {area(volume, reference):.4f}"
                for volume in volumes.values()
            ]
            found = (results["resolution"][number - 1], *(resolution(halves, v, mask) for v in (expected, reference)))
            row += [f"{value:.2f}" for value in found]
            sys.stdout.write("| " + " | ".join(row) + " |\n")
    sys.stdout.write(f"{seconds:.0f} s for {len(points)} states\n")


if __name__ == "__main__":
    main()

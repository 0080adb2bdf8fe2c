"""From random spheres to a map of low resolution by stochastic gradient descent, and on to a structure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from solvar_engine.abinitio.mixture import LowImages, Mixture, low_box
from solvar_engine.abinitio.online_em import first_shift_std, of_one_map
from solvar_engine.abinitio.sgd.importance import ImportanceSampler, PoseSamples, Samples
from solvar_engine.abinitio.sgd.likelihood import Evaluation, evaluate, relative_error
from solvar_engine.abinitio.sgd.priors import make_prior
from solvar_engine.abinitio.sgd.quadrature import Quadrature
from solvar_engine.abinitio.sgd.stochastic_average import StochasticAverage
from solvar_engine.abinitio.structure import AbinitioOptions, Checkpoint, Report, Structure, find_structure
from solvar_engine.imaging.masks import sphere_mask
from solvar_engine.imaging.rotation import random_rotations
from solvar_engine.imaging.symmetry import symmetry_operators
from solvar_engine.imaging.types import ParticleSource
from solvar_engine.projectors.base import Projector
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import DEFAULT_OPTIONS, SliceOptions

_FIRST_RESOLUTION, _FIRST_SHELL = 40.0, 3  # Angstrom; not lower than that shell
_SPHERES, _SPHERE_RADII, _SPHERES_WITHIN = 20, (0.04, 0.12), 0.22  # of the box
_EDGE = 2.0  # voxels
_VIEWS = 100  # that tell the power of a map
_LEAST_POWER = 1e-3  # of the signal, over the noise
_TEST_SHARE = 0.1  # of few images
_PER_CALL = 500  # images


@dataclass(frozen=True)
class SgdOptions:
    """How the descent goes.

    Attributes
    ----------
    iterations : int
    batch_size : int
        Images.
    prior : {'exponential', 'car', 'uniform'}
    prior_scale : float
        Of its width; 1 is the mean density of the map that it starts from.
    sample_factor : float
        Draws over the effective sample size, s0.
    report_every : int
        Iterations.
    test_images : int
        That gradients are never taken of; a tenth of all at most.
    """

    iterations: int = 600
    batch_size: int = 200
    prior: str = "exponential"
    prior_scale: float = 1.0
    sample_factor: float = 10.0
    report_every: int = 20
    test_images: int = 100


@dataclass(frozen=True)
class Progress:
    """How far the descent is.

    Attributes
    ----------
    iteration : int
        Steps that were taken.
    shell : int
        Last one that counts, Fourier pixels.
    relative_error : float
        RREMSE of images that gradients are not taken of.
    evaluated : float
        Share of the quadrature's points that were looked at, mean since the last report.
    lipschitz : float
    volume : Tensor, shape (z, y, x)
        On the box of the last band.
    """

    iteration: int
    shell: int
    relative_error: float
    evaluated: float
    lipschitz: float
    volume: Tensor


@dataclass(frozen=True)
class _Level:
    """Images, slices and poses of one band."""

    shell: int
    images: LowImages
    projector: Projector
    quadrature: Quadrature

    @staticmethod
    def create(images: LowImages, shell: int, box_size: int, shift_std_px: float, slices: SliceOptions) -> _Level:
        low = images.cut(shell)
        quadrature = Quadrature.for_shell(shell, low.disk.box_size, shift_std_px)
        return _Level(shell, low, create_projector(box_size, low.disk, slices), quadrature)


class _BatchObjective:
    """Minus the log-likelihood of a batch, always over the same poses."""

    def __init__(self, level: _Level, rows: Tensor, samples: list[PoseSamples], operators: Tensor) -> None:
        self._level, self._images, self.samples, self._operators = level, level.images[rows], samples, operators
        self.at_start: Evaluation | None = None

    def value(self, volume: Tensor) -> float:
        return self._evaluated(volume, None).value

    def value_and_gradient(self, volume: Tensor) -> tuple[float, Tensor]:
        self.at_start = self._evaluated(volume, self._operators)
        assert self.at_start.gradient is not None
        return self.at_start.value, self.at_start.gradient

    def _evaluated(self, volume: Tensor, operators: Tensor | None) -> Evaluation:
        level = self._level
        return evaluate(level.projector, volume, self._images, level.quadrature, self.samples, operators)


def first_shell(box_size: int, pixel_size: float, last_shell: int) -> int:
    """Band to start with, 1/40 per Angstrom or the lowest that says anything.

    Examples
    --------
    >>> first_shell(64, 3.0, 8), first_shell(32, 2.0, 8)
    (5, 3)
    """
    return min(max(_FIRST_SHELL, round(box_size * pixel_size / _FIRST_RESOLUTION)), last_shell)


def random_spheres(images: LowImages, operators: Tensor, generator: torch.Generator, slices: SliceOptions) -> Tensor:
    """Sum of spheres at random places, as strong as the images ask for.

    Parameters
    ----------
    images : LowImages
        Whose power beyond the noise the map is to have.
    operators : Tensor, shape (g, 3, 3)
    generator : torch.Generator
    slices : SliceOptions

    Returns
    -------
    Tensor, shape (z, y, x), float32
        On the box of the band of the images.
    """
    box_size = low_box(images.disk)
    axis = torch.arange(box_size, dtype=torch.float64) - box_size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    places = torch.stack((x, y, z), dim=-1)
    least, most = _SPHERE_RADII
    direction = random_rotations(_SPHERES, generator)[:, :, 2].double()
    distance = _SPHERES_WITHIN * torch.rand(_SPHERES, dtype=torch.float64, generator=generator).pow(1 / 3)
    radius = least + (most - least) * torch.rand(_SPHERES, dtype=torch.float64, generator=generator)
    volume = torch.zeros(places.shape[:3], dtype=torch.float64)
    for centre, size in zip(box_size * distance[:, None] * direction, box_size * radius, strict=True):
        for operator in operators:
            volume += torch.sigmoid(size - (places - operator @ centre).norm(dim=-1))
    start = volume.float()
    projector = create_projector(box_size, images.disk, slices)
    seen = projector.project(projector.to_grid(start[None]), random_rotations(_VIEWS, generator))[:, :, 0]
    weight = images.disk.weight * (images.disk.shell > 0)  # hardly anything is known of the origin
    wanted = float((images.images.abs().square().mean(dim=0) - 1).clamp_min(_LEAST_POWER) @ weight)
    has = float((images.ctf.square().mean(dim=0) * seen.abs().square().mean(dim=0)) @ weight)
    return start * (wanted / has) ** 0.5


def descended(
    images: LowImages,
    shells: tuple[int, int],
    shift_std_px: float,
    operators: Tensor,
    generator: torch.Generator,
    slices: SliceOptions,
    options: SgdOptions,
    start: Tensor | None = None,
) -> Iterator[Progress]:
    """Yield a map on its way from random spheres, every so many iterations.

    Parameters
    ----------
    images : LowImages
        Up to the last shell at least; of a molecule that is bright.
    shells : tuple of two int
        First and last of the bands, which rise by a shell at equal intervals.
    shift_std_px : float
        Of the shifts' prior, px of the images' box.
    operators : Tensor, shape (g, 3, 3)
    generator : torch.Generator
        Of everything that is random.
    slices : SliceOptions
    options : SgdOptions
    start : Tensor, shape (z, y, x), optional
        Map in place of random spheres, on the box of the last band.

    Raises
    ------
    ValueError
        For an unknown prior.
    """
    first, last = shells
    images = images.cut(last)
    volume = random_spheres(images, operators, generator, slices) if start is None else start
    box_size = len(volume)
    support = sphere_mask(box_size, 0.5 * box_size - _EDGE, _EDGE, volume.device)
    scale = options.prior_scale * float((volume * support).sum() / support.sum())
    order = torch.randperm(len(images), generator=generator)
    held_out = min(options.test_images, max(1, int(_TEST_SHARE * len(images))))
    test, training = order[:held_out], order[held_out:]
    batches = training.tensor_split(max(1, len(training) // options.batch_size))
    average = StochasticAverage(volume, len(batches), make_prior(options.prior, scale), support)
    sampler = ImportanceSampler(len(images), options.sample_factor, generator)
    level = _Level.create(images, first, box_size, shift_std_px, slices)
    queue: list[int] = []
    evaluated: list[float] = []
    for iteration in range(options.iterations):
        shell = first + (last - first + 1) * iteration // options.iterations
        if shell != level.shell:
            level = _Level.create(images, shell, box_size, shift_std_px, slices)
        queue = queue or torch.randperm(len(batches), generator=generator).tolist()
        number = queue.pop()
        rows = batches[number]
        objective = _BatchObjective(level, rows, sampler.samples(rows, level.quadrature, shell), operators)
        average.step(number, objective)
        found = objective.at_start
        assert found is not None
        sampler.keep(rows, objective.samples, found.log_marginals, shell, iteration)
        evaluated.append(found.evaluated)
        if (iteration + 1) % options.report_every == 0 or iteration + 1 == options.iterations:
            samples = sampler.samples(test, level.quadrature, shell)
            of_test = evaluate(level.projector, average.volume, level.images[test], level.quadrature, samples)
            sampler.keep(test, samples, of_test.log_marginals, shell, iteration)
            error = relative_error(of_test, level.images[test])
            share, evaluated = sum(evaluated) / len(evaluated), []
            yield Progress(iteration + 1, shell, error, share, average.lipschitz, average.volume)


def best_poses(
    images: LowImages, volume: Tensor, shift_std_px: float, slices: SliceOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Most likely pose of each image at the points of the quadrature of its band, all of which are looked at.

    Parameters
    ----------
    images : LowImages
    volume : Tensor, shape (z, y, x)
    shift_std_px : float
    slices : SliceOptions

    Returns
    -------
    rotation : Tensor, shape (n, 3, 3), float32
    shift_px : Tensor, shape (n, 2), float32
        That centres the image.
    log_likelihood : Tensor, shape (n,), float64
        Poses integrated out.
    """
    level = _Level.create(images, images.disk.shell_max, len(volume), shift_std_px, slices)
    first, second, third = (Samples.all_of(size) for size in level.quadrature.sizes)
    found = []
    for rows in torch.arange(len(images)).split(_PER_CALL):
        everything = [(first, second, third)] * len(rows)
        found.append(evaluate(level.projector, volume, level.images[rows], level.quadrature, everything))
    direction, angle, shift = torch.cat([part.best for part in found]).unbind(1)
    rotation, shift_px = level.quadrature.rotation(direction, angle), level.quadrature.shift_px[shift].float()
    return rotation, shift_px, torch.cat([part.log_likelihood for part in found])


def find_structure_by_sgd(
    source: ParticleSource,
    options: AbinitioOptions,
    report: Report,
    checkpoint: Checkpoint | None = None,
    *,
    slices: SliceOptions = DEFAULT_OPTIONS,
    sgd: SgdOptions | None = None,
    is_usable: Tensor | None = None,
) -> Structure:
    """Find the structure that images show, starting by stochastic gradient descent.

    The map of low resolution goes on as that of `find_structure` does: a global search, the verdict, and marching.

    Parameters
    ----------
    source : ParticleSource
    options : AbinitioOptions
        One class only.
    report : callable
    checkpoint : Checkpoint, optional
    slices : SliceOptions
    sgd : SgdOptions, optional
    is_usable : Tensor, optional, shape (n,), bool

    Raises
    ------
    ValueError
        As `find_structure`, and for several classes or an unknown prior.
    """
    if options.classes != 1:
        raise ValueError(f"classes is {options.classes}, but stochastic gradient descent finds one structure only")
    chosen = SgdOptions() if sgd is None else sgd
    operators = symmetry_operators(options.symmetry)

    def low_search(images: LowImages, generator: torch.Generator, tell: Report) -> Mixture:
        disk = images.disk
        shift_std_px = first_shift_std(options.shift_std_px, disk.box_size)
        shells = first_shell(disk.box_size, source.pixel_size, disk.shell_max), disk.shell_max
        volume, shell = None, 0
        for progress in descended(images, shells, shift_std_px, operators, generator, slices, chosen):
            volume = progress.volume
            words = (
                f"Iteration {progress.iteration}, shell {progress.shell}: relative error {progress.relative_error:.4f},"
                f" {100 * progress.evaluated:.3g} % of the poses looked at"
            )
            share, shell_before, shell = progress.iteration / chosen.iterations, shell, progress.shell
            tell("search at low resolution", share, words, shell if shell != shell_before else None)
        if volume is None:
            raise ValueError(f"iterations is {chosen.iterations}, expected at least 1")
        return of_one_map(volume, shift_std_px, disk.shell_max, operators)

    return find_structure(
        source, options, report, checkpoint, slices=slices, low_search=low_search, is_usable=is_usable
    )

"""From images without poses to a structure, and the verdict whether there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from solvar_engine.abinitio.marching import (
    Fit,
    best_of_modes,
    masked,
    next_shell,
    reconstructed,
    refined,
    rotation_deviation,
)
from solvar_engine.abinitio.mixture import LowImages, Mixture, far_in_power, low_batches, read_low
from solvar_engine.abinitio.online_em import LEVELS, Level, contrast_sign, first_mixture, improved, recentred
from solvar_engine.abinitio.search import Modes, is_real, missing_views, search_all, views_suffice
from solvar_engine.estimation.model.bands import change_box
from solvar_engine.imaging.symmetry import symmetry_operators
from solvar_engine.imaging.types import ParticleSource, Pose
from solvar_engine.projectors.options import DEFAULT_OPTIONS, SliceOptions
from solvar_engine.reconstruction.mean import MeanEstimate

_LEAST_IMAGES = 50  # of each class
_LEAST_HELD_OUT, _MOST_HELD_OUT = 20, 500
_MOST_IMAGES = 20_000  # for the search at low resolution
_AFTER_LEVELS, _OF_SEARCH, _AFTER_MODES = 0.4, 0.2, 0.7  # of the work
_JUNK = 0.5  # probability of showing a map below which an image shows none
_LEAST_SHIFT_PX = 0.3
_FIRST_MAP = 0.3  # of the work at low resolution
_FIRST, _LOW, _MODES, _BETTER_MODES, _FIT = "first_map", "low_search", "modes", "better_modes", "poses"  # checkpoints

class Report(Protocol):
    """Is told how far a search is."""

    def __call__(
        self, stage: str, share: float, sentence: str, shell: int | None = None, is_caution: bool = False
    ) -> None:
        """Called with the stage, the share of the whole work that is done, a sentence, empty unless there is news, the
        last shell that is looked at from now on, where it has changed, and whether the sentence is to stay with the
        results.
        """
        ...


LowSearch = Callable[[LowImages, torch.Generator, Report], Mixture]
"""Finds maps of low resolution from images of a bright molecule; it reports shares of its own work."""

FirstMap = Callable[[ParticleSource, Tensor, torch.Generator, Report], Tensor]
"""Makes a map (z, y, x) that online expectation maximisation goes on from, of some particles (n,) of a source, in which
the molecule is bright; it reports shares of its own work."""


@dataclass(frozen=True)
class AbinitioOptions:
    """What is known beforehand.

    Attributes
    ----------
    max_shell : int or None
        Last shell that poses are refined to, Fourier pixels of the working box; None for all that half-maps agree on.
    shift_std_px : float or None
        Standard deviation per axis of the particles' offsets from the centre, px of the working box; None to estimate
        it.
    symmetry : str
        Point group, see `imaging.symmetry`.
    classes : int
        Number of structures.
    seed : int
        Of everything that is random.
    flip_hand : bool
        Return the other hand, which images do not tell apart.
    """

    max_shell: int | None = None
    shift_std_px: float | None = None
    symmetry: str = "C1"
    classes: int = 1
    seed: int = 0
    flip_hand: bool = False


@dataclass(frozen=True)
class Verdict:
    """Whether images that took no part in it prefer a map to its radially symmetric part.

    Attributes
    ----------
    gain, error : float
        Mean gain of the log-likelihood of a held-out image, poses integrated out, and its standard error.
    per_image : Tensor, shape (n_held_out,), float64
    found : bool
        There is a structure: the gain is real, and views are not all alike.
    missing_views : Tensor or None, shape (3,)
        Unit vector in the frame of the map: centre of the largest cap without views (a view and its opposite count as
        one); None if views cover the sphere.
    hole_deg : float
        Radius of that cap.
    """

    gain: float
    error: float
    per_image: Tensor
    found: bool
    missing_views: Tensor | None
    hole_deg: float

    @property
    def is_preferred(self) -> bool:
        """Whether most images gain by the map, wherever they are seen from."""
        return is_real(self.per_image)[2]


@dataclass(frozen=True)
class Structure:
    """What was found; of n particles, K classes.

    Attributes
    ----------
    pose : Pose
        Of all particles; the shift is from where the images are on disk.
    rotation_std_deg : Tensor, shape (n,)
        Standard deviation of the orientation, root mean square of three axes, degrees.
    class_of : Tensor, shape (n,), int64
    populations : Tensor, shape (K,)
        Shares of the classes, junk left out.
    volumes : Tensor, shape (K, z, y, x)
        In the units of the images, at the working box.
    half_volumes : list of K pairs of Tensors, shape (z, y, x)
        Of halves of the particles, which share the search for poses: their correlation flatters.
    log_likelihood : Tensor, shape (n,), float64
        Of each image at its pose, relative to an empty image.
    contrast_sign : int
        -1 if the molecule is dark in the images, else 1.
    shift_std_px : float
        As given or estimated.
    is_junk : Tensor, shape (n,), bool
        Images that the map explains no better than its radially symmetric part or nothing at all does.
    verdict : Verdict
    """

    pose: Pose
    rotation_std_deg: Tensor
    class_of: Tensor
    populations: Tensor
    volumes: Tensor
    half_volumes: list[tuple[Tensor, Tensor]]
    log_likelihood: Tensor
    contrast_sign: int
    shift_std_px: float
    is_junk: Tensor
    verdict: Verdict


class Checkpoint(Protocol):
    """Where a run keeps what it has done, so that a killed one goes on from there."""

    def load(self, name: str) -> Mapping[str, Tensor] | None:
        """Tensors that were saved under a name; None if there are none."""
        ...

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors under a name."""
        ...


def find_structure(
    source: ParticleSource,
    options: AbinitioOptions,
    report: Report,
    checkpoint: Checkpoint | None = None,
    *,
    slices: SliceOptions = DEFAULT_OPTIONS,
    low_search: LowSearch | None = None,
    first_map: FirstMap | None = None,
    is_usable: Tensor | None = None,
) -> Structure:
    """Find the structure that images show, whose poses are not looked at.

    If the verdict is that there is none, what is returned is what the verdict was given on: poses of a failed search.

    Parameters
    ----------
    source : ParticleSource
    options : AbinitioOptions
    report : callable
    checkpoint : Checkpoint, optional
    slices : SliceOptions
        How slices are taken, and where.
    low_search : callable, optional
        In place of online expectation maximisation.
    first_map : callable, optional
        In place of random maps that this starts from.
    is_usable : Tensor, optional, shape (n,), bool
        Without it, all; the others are junk that nothing is learnt from.

    Returns
    -------
    Structure

    Raises
    ------
    ValueError
        If the symmetry does not parse, there are too few images, the last shell is out of reach, or several processes
        share the images.
    """
    if source.world.size > 1:
        raise ValueError("several processes share the images, expected one")
    if options.classes < 1:
        raise ValueError(f"classes is {options.classes}, expected at least 1")
    usable = torch.arange(len(source)) if is_usable is None else torch.nonzero(is_usable).flatten()
    if len(usable) < _LEAST_IMAGES * options.classes:
        raise ValueError(f"there are {len(usable)} images, expected at least {_LEAST_IMAGES * options.classes}")
    limit = source.disk.shell_max if options.max_shell is None else options.max_shell
    if not LEVELS[0].shell <= limit <= source.disk.shell_max:
        raise ValueError(f"the last shell is {limit}, expected {LEVELS[0].shell} to {source.disk.shell_max}")
    operators = symmetry_operators(options.symmetry)
    work = _Work(source, usable, options, operators, limit, slices, report, checkpoint, low_search, first_map)
    return work.structure()


class _Work:
    """One search, step by step."""

    def __init__(
        self,
        source: ParticleSource,
        usable: Tensor,
        options: AbinitioOptions,
        operators: Tensor,
        limit: int,
        slices: SliceOptions,
        report: Report,
        checkpoint: Checkpoint | None,
        low_search: LowSearch | None,
        first_map: FirstMap | None,
    ) -> None:
        count = len(source)
        nowhere = Pose(torch.eye(3).expand(count, 3, 3).contiguous(), torch.zeros(count, 2))
        self.source, self.usable = source.with_pose(nowhere), usable
        self.options, self.operators, self.limit, self.slices = options, operators, limit, slices
        self.report, self.checkpoint, self.low_search, self.first_map = report, checkpoint, low_search, first_map
        self.levels = [level for level in LEVELS if level.shell <= limit]
        self.shell = self.levels[-1].shell
        order = usable[torch.randperm(len(usable), generator=self._generator(0))]
        held_out = min(_MOST_HELD_OUT, max(_LEAST_HELD_OUT, len(usable) // 10))
        self.held_out, self.training = order[:held_out], order[held_out:]

    def structure(self) -> Structure:
        """All steps."""
        options = self.options
        sign, mixture = self._low_resolution()
        self.source = self.source.with_sign(sign)
        self.report("global search", _AFTER_LEVELS, "Scoring all images at all poses")
        modes = self._modes(mixture)
        is_far = self._is_far()
        is_junk = (modes.not_junk < _JUNK) | is_far
        verdict = self._verdict(modes, is_far, is_junk)
        saved = self._load(_FIT)
        if saved is not None:
            fit, shift_std = Fit.of(saved), float(saved["shift_std"])
        else:
            fit = self._best(modes, mixture)
            if verdict.found:
                # the map of all images at these poses is better than that of batches: some find another mode under it
                means = reconstructed(
                    self.source, fit, self._halves(is_junk), options.classes, self.operators, self.slices
                )
                volumes = torch.stack([masked(mean, self.source.pixel_size) for mean in means])
                mixture = replace(mixture, volumes=change_box(volumes, mixture.volumes.shape[-1], self.shell))
                done = _AFTER_LEVELS + _OF_SEARCH
                modes = self._modes(mixture, _BETTER_MODES, (done, _AFTER_MODES - done))
                fit = self._best(modes, mixture)
            shift_std = self._shift_std(fit, is_junk)
        reached = (self.shell, 0) if saved is None else (int(saved["at"][0]), int(saved["at"][1]))
        if verdict.found:
            fit, means, shell = self._marched(fit, is_junk, shift_std, *reached)
        else:
            fit, means, shell = self._as_it_is(fit, is_junk)
        maps = [masked(mean, self.source.pixel_size) for mean in means]
        deviation = rotation_deviation(self.source, fit, maps, shell, self.slices)
        populations = torch.bincount(fit.map_of[~is_junk], minlength=len(means)).double()
        found = Structure(
            pose=fit.pose,
            rotation_std_deg=deviation,
            class_of=fit.map_of,
            populations=populations / populations.sum().clamp_min(1),
            volumes=torch.stack([mean.mean for mean in means]),
            half_volumes=[(mean.half1, mean.half2) for mean in means],
            log_likelihood=fit.log_likelihood,
            contrast_sign=sign,
            shift_std_px=self._shift_std(fit, is_junk),
            is_junk=is_junk,
            verdict=verdict,
        )
        return other_hand(found) if self.options.flip_hand else found

    def _generator(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(1_000 * self.options.seed + purpose)

    def _low_resolution(self) -> tuple[int, Mixture]:
        """Sign of the contrast and maps of low resolution, of images that are not held out."""
        options, slices, operators = self.options, self.slices, self.operators
        images = read_low(self.source, self.training[:_MOST_IMAGES], self.shell)
        images = images[~far_in_power(images.power())]
        sign = contrast_sign(images, self._generator(1), slices)
        images = images.with_sign(sign)
        if self.low_search is not None:
            return sign, self._found_by(self.low_search, images)
        mixture, begun = self._first_mixture(images, sign)
        steps, done = sum(level.steps for level in self.levels), 0
        for number, level in enumerate(self.levels):
            name = f"level_{level.shell}"
            saved = self._load(name)
            if saved is not None:
                mixture, done = _mixture_of(saved), done + level.steps
                continue
            generator = self._generator(10 + number)
            fits_shifts = options.shift_std_px is None
            steps_of_level = improved(mixture, images, level, operators, generator, slices, fits_shifts=fits_shifts)
            for better in steps_of_level:
                mixture, done = better, done + 1
                share = (begun + (1 - begun) * done / steps) * _AFTER_LEVELS
                self.report("search at low resolution", share, "")
            mixture = recentred(mixture, operators)
            self.report("search at low resolution", share, _words(level, mixture), level.shell)
            self._save(name, _tensors_of(mixture))
        return sign, mixture

    def _first_mixture(self, images: LowImages, sign: int) -> tuple[Mixture, float]:
        """What the first level starts from, and the share of the work at low resolution that is done then."""
        options = self.options
        mixture = first_mixture(
            images, options.classes, options.shift_std_px, self.operators, self._generator(2), self.slices
        )
        if self.first_map is None:
            return mixture, 0.0
        saved = self._load(_FIRST)
        if saved is None:
            report = self._reported(_FIRST_MAP * _AFTER_LEVELS)
            volume = self.first_map(self.source.with_sign(sign), self.training, self._generator(4), report)
            self._save(_FIRST, saved := {"volume": volume})
        return replace(mixture, volumes=saved["volume"][None].to(mixture.volumes)), _FIRST_MAP

    def _reported(self, work: float) -> Report:
        """Report of a part of the work, the first."""

        def report(
            stage: str, share: float, sentence: str, shell: int | None = None, is_caution: bool = False
        ) -> None:
            self.report(stage, share * work, sentence, shell, is_caution)

        return report

    def _best(self, modes: Modes, mixture: Mixture) -> Fit:
        return best_of_modes(self.source, modes, mixture.volumes, self.shell, mixture.shift_std_px, self.slices)

    def _modes(
        self, mixture: Mixture, name: str = _MODES, work: tuple[float, float] = (_AFTER_LEVELS, _OF_SEARCH)
    ) -> Modes:
        """The likeliest poses of all images."""
        saved = self._load(name)
        if saved is not None:
            return Modes(**saved)
        modes = search_all(
            self.source, mixture, self.shell, self.operators, self.slices,
            lambda share: self.report("global search", work[0] + share * work[1], ""),
        )  # fmt: skip
        self._save(name, vars(modes))
        return modes

    def _load(self, name: str) -> Mapping[str, Tensor] | None:
        return None if self.checkpoint is None else self.checkpoint.load(name)

    def _save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        if self.checkpoint is not None:
            self.checkpoint.save(name, tensors)

    def _found_by(self, search: LowSearch, images: LowImages) -> Mixture:
        saved = self._load(_LOW)
        if saved is not None:
            return _mixture_of(saved)
        mixture = search(images, self._generator(2), self._reported(_AFTER_LEVELS))
        self._save(_LOW, _tensors_of(mixture))
        return mixture

    def _is_far(self) -> Tensor:
        """Images of a power that decides alone, and those that cannot be used."""
        parts = [images.power().cpu() for _, images in low_batches(self.source, self.usable, self.shell)]
        is_far = torch.ones(len(self.source), dtype=torch.bool)
        is_far[self.usable] = far_in_power(torch.cat(parts))
        return is_far

    def _verdict(self, modes: Modes, is_far: Tensor, is_junk: Tensor) -> Verdict:
        """What held-out images say, but for those of a power that decides alone."""
        gain = modes.gain[self.held_out[~is_far[self.held_out]]]
        mean, error, is_more = is_real(gain)
        centre, hole_deg, unseen = missing_views(modes.rotation[~is_junk, 0], self.operators)
        found = is_more and views_suffice(unseen)
        self.report(
            "verdict",
            _AFTER_LEVELS + _OF_SEARCH,
            f"Held-out images prefer the map to its radially symmetric part by {mean:.2f} +- {error:.2f} in"
            f" log-likelihood each; views leave out a cap of {hole_deg:.0f} degrees and {100 * unseen:.0f} % of the"
            f" frequencies: {'there is a structure' if found else 'no structure'}",
        )
        return Verdict(mean, error, gain, found, centre, hole_deg)

    def _shift_std(self, fit: Fit, is_junk: Tensor) -> float:
        if self.options.shift_std_px is not None:
            return self.options.shift_std_px
        shift_px = fit.pose.shift[~is_junk] / self.source.pixel_size
        return max(float(shift_px.square().mean().sqrt()), _LEAST_SHIFT_PX) if len(shift_px) else _LEAST_SHIFT_PX

    def _halves(self, is_junk: Tensor) -> tuple[Tensor, Tensor]:
        order = self.usable[torch.randperm(len(self.usable), generator=self._generator(3))]
        good = order[~is_junk[order]]
        if len(good) < _LEAST_IMAGES:
            good = order
        return good[::2].sort().values, good[1::2].sort().values

    def _as_it_is(self, fit: Fit, is_junk: Tensor) -> tuple[Fit, list[MeanEstimate], int]:
        """Maps of a search that found nothing."""
        maps, halves = self.options.classes, self._halves(is_junk)
        return fit, reconstructed(self.source, fit, halves, maps, self.operators, self.slices), self.shell

    def _marched(
        self, fit: Fit, is_junk: Tensor, shift_std: float, shell: int, rounds: int
    ) -> tuple[Fit, list[MeanEstimate], int]:
        """Poses refined from band to band, on from a shell that was reached in so many rounds."""
        maps, halves = self.options.classes, self._halves(is_junk)
        while True:
            means = reconstructed(self.source, fit, halves, maps, self.operators, self.slices)
            higher = next_shell(shell, means, self.limit)
            if rounds and higher == shell:
                return fit, means, shell
            shell, rounds = higher, rounds + 1
            share = _AFTER_MODES + (1 - _AFTER_MODES) * (1 - 0.7**rounds)
            reach = self.source.box_size * self.source.pixel_size / shell
            self.report("refinement", share, f"Refining poses at {reach:.1f} Angstrom", shell)
            volumes = [masked(mean, self.source.pixel_size) for mean in means]
            fit = refined(self.source, fit, volumes, shell, shift_std, self.slices)
            of_shift = torch.tensor(shift_std, dtype=torch.float64)
            self._save(_FIT, {**fit.tensors(), "shift_std": of_shift, "at": torch.tensor([shell, rounds])})


def other_hand(structure: Structure) -> Structure:
    """The mirror image: V(-r), orientations turned by half about the beam, shifts as they are."""
    half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
    # the view axis is the third column, which the half turn leaves as it is
    return replace(
        structure,
        pose=Pose(structure.pose.rotation @ half_turn, structure.pose.shift),
        volumes=mirrored(structure.volumes),
        half_volumes=[(mirrored(first), mirrored(second)) for first, second in structure.half_volumes],
    )


def mirrored(volumes: Tensor) -> Tensor:
    """Volumes (..., z, y, x) at -r; the centre stays at index ``box_size // 2``."""
    flipped = volumes.flip(-3, -2, -1)
    return flipped if volumes.shape[-1] % 2 else flipped.roll((1, 1, 1), (-3, -2, -1))


def _words(level: Level, mixture: Mixture) -> str:
    *maps, radial, empty = (100 * float(share) for share in mixture.shares)
    classes = "" if len(maps) == 1 else f", classes of {', '.join(f'{share:.0f}' for share in maps)} %"
    junk = f", {radial + empty:.0f} % of the images show none" if level.knows_junk else ""
    return f"Shell {level.shell}: offsets of {mixture.shift_std_px:.1f} px{classes}{junk}"


def _tensors_of(mixture: Mixture) -> dict[str, Tensor]:
    shift = torch.tensor(mixture.shift_std_px, dtype=torch.float64)
    return {"volumes": mixture.volumes, "shares": mixture.shares, "noise": mixture.noise, "shift_std_px": shift}


def _mixture_of(saved: Mapping[str, Tensor]) -> Mixture:
    return Mixture(saved["volumes"], saved["shares"], saved["noise"], float(saved["shift_std_px"]))

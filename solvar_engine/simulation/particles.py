"""Simulated particles: what is drawn for each of them, and their images.

An image is contrast x ctf x (shifted projection of its state's volume) + noise of variance 1, so the truth's volumes
are in units of the noise's standard deviation. The noise is white, and there is nothing else, unless effects of
microscopes (:mod:`~.effects`) are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from solvar_engine.imaging.ctf import ctf_values
from solvar_engine.imaging.fourier import HalfDisk, disk_to_images, shift_phases
from solvar_engine.imaging.rotation import random_rotations, rotvec_to_rotation
from solvar_engine.imaging.types import Ctf, Pose
from solvar_engine.simulation.effects import NO_EFFECTS, MicroscopeEffects
from solvar_engine.simulation.junk import JunkKind, draw_junk
from solvar_engine.simulation.molecules import Molecule
from solvar_engine.simulation.noise import coloured
from solvar_engine.simulation.streams import Purpose, stream, torch_stream
from solvar_engine.simulation.views import with_preferred_views

VOLTAGE = 300.0
CS = 2.7
AMPLITUDE_CONTRAST = 0.1
DEFOCUS_RANGE = (1.0e4, 2.5e4)
"""Mean defocus of the images, Angstrom."""

ASTIGMATISM_MAX = 600.0
"""Largest difference between the two defoci, Angstrom."""

SHIFT_STD = 1.5 / 64.0
"""Standard deviation of the true shifts per axis, in fractions of the box."""

CONTRAST_MIN = 0.05
"""Contrasts are positive: draws below this are raised to it."""

_LARGER_ON_GPUS = 8  # batches: half a gigabyte or so

KEPT_BYTES = 500e6
"""Noise-free images that are kept in memory between the two passes."""


@dataclass(frozen=True)
class SimulatedParticles:
    """Everything that is drawn for n particles, noise aside.

    Attributes
    ----------
    state : Tensor, shape (n,), int64
        0-based state of the molecule.
    contrast : Tensor, shape (n,), float32
        Positive, mean 1.
    pose : Pose
        The truth.
    given_pose : Pose
        What a user would have: the truth with errors.
    ctf : Ctf
        The truth.
    given_ctf : Ctf
        What a user would have: the truth with errors.
    junk : Tensor, shape (n,), int64
        :class:`~.junk.JunkKind` of each image; junk has a state and a contrast too, but does not show them.
    """

    state: Tensor
    contrast: Tensor
    pose: Pose
    given_pose: Pose
    ctf: Ctf
    given_ctf: Ctf
    junk: Tensor

    @property
    def is_junk(self) -> Tensor:
        """Images that do not show the molecule: (n,) bool."""
        return self.junk != JunkKind.NONE

    def __len__(self) -> int:
        return int(self.state.shape[0])


def draw_particles(
    molecule: Molecule,
    count: int,
    box_size: int,
    pixel_size: float,
    seed: int,
    *,
    contrast_std: float = 0.0,
    rotation_error_deg: float = 0.0,
    shift_error_px: float = 0.0,
    effects: MicroscopeEffects = NO_EFFECTS,
) -> SimulatedParticles:
    """Draw states, poses, contrast transfer and contrast of particles.

    Parameters
    ----------
    molecule : Molecule
    count : int
        Number of particles.
    box_size : int
    pixel_size : float
        Angstrom.
    seed : int
        The same seed gives the same particles.
    contrast_std : float
        Standard deviation of the contrasts, which are normal, positive and rescaled to mean 1.
    rotation_error_deg : float
        Standard deviation per axis of the rotation vector, degrees, by which given orientations are wrong.
    shift_error_px : float
        Standard deviation per axis, px, by which given shifts are wrong.
    effects : MicroscopeEffects
        Of these, uneven views, junk and the error of the defocus are drawn here.

    Examples
    --------
    >>> from solvar_engine.simulation.phantoms import make_phantom
    >>> len(draw_particles(make_phantom("static"), 5, 32, 4.0, seed=0))
    5
    """
    rotation = random_rotations(count, torch_stream(seed, Purpose.ROTATION))
    if effects.uneven_views:
        rotation = with_preferred_views(rotation, effects.uneven_views, seed)
    shift_std = SHIFT_STD * box_size * pixel_size
    pose = Pose(rotation, _float32(shift_std * stream(seed, Purpose.SHIFT).standard_normal((count, 2))))
    errors = stream(seed, Purpose.POSE_ERROR).standard_normal((count, 5))
    turn = rotvec_to_rotation(torch.from_numpy(np.radians(rotation_error_deg) * errors[:, :3])).float()
    given = Pose(turn @ rotation, pose.shift + _float32(shift_error_px * pixel_size * errors[:, 3:]))
    ctf = _draw_ctf(count, stream(seed, Purpose.CTF))
    return SimulatedParticles(
        state=_draw_states(molecule.population, count, stream(seed, Purpose.STATE)),
        contrast=_draw_contrasts(count, contrast_std, stream(seed, Purpose.CONTRAST)),
        pose=pose,
        given_pose=given,
        ctf=ctf,
        given_ctf=_with_defocus_error(ctf, effects.defocus_error, stream(seed, Purpose.DEFOCUS_ERROR)),
        junk=draw_junk(count, effects.junk, seed),
    )


class ImageModel:
    """The noise-free images of particles, evaluated batch by batch.

    Parameters
    ----------
    molecule : Molecule
    particles : SimulatedParticles
    box_size : int
    pixel_size : float
        Angstrom.
    memory_bytes : float
        The first images are kept up to this size, so that a second pass over them costs nothing.
    """

    def __init__(
        self,
        molecule: Molecule,
        particles: SimulatedParticles,
        box_size: int,
        pixel_size: float,
        memory_bytes: float = KEPT_BYTES,
    ) -> None:
        self.molecule = molecule
        self.particles = particles
        self.box_size = box_size
        self.pixel_size = pixel_size
        # beyond the molecule's band there is no signal
        self.disk = HalfDisk.create(box_size, molecule.band(box_size)).to(molecule.device)
        # one tensor, not one per batch, which would scatter over the heap
        room = int(memory_bytes // (8 * len(self.disk)))
        size = min(room, len(particles)), len(self.disk)
        self._kept = torch.empty(size, dtype=torch.complex64, device=molecule.device)
        self._kept_count = 0

    @property
    def batch_size(self) -> int:
        """Images that are evaluated together."""
        larger = 1 if self.molecule.device.type == "cpu" else _LARGER_ON_GPUS
        return larger * self.molecule.images_per_batch(self.disk)

    def batches(self) -> Iterator[slice]:
        """Rows of the particles, batch by batch."""
        for start in range(0, len(self.particles), self.batch_size):
            yield slice(start, min(start + self.batch_size, len(self.particles)))

    def coefficients(self, rows: slice) -> Tensor:
        """Evaluate noise-free images in the units of the molecule.

        Returns
        -------
        Tensor, shape (m, pixels), complex64
            On :attr:`disk`, where the molecule is.
        """
        if rows.stop <= self._kept_count:
            return self._kept[rows]
        result = self._evaluate(rows)
        if rows.start == self._kept_count and rows.stop <= len(self._kept):
            self._kept[rows] = result
            self._kept_count = rows.stop
        return result

    def _evaluate(self, rows: slice) -> Tensor:
        """Contrast x ctf x shifted projection; nothing for junk."""
        device = self.molecule.device
        state, pose = self.particles.state[rows].to(device), self.particles.pose[rows].to(device)
        result = self.molecule.project(state, pose.rotation, self.disk)
        # the observed image is the centred one moved by -shift
        result *= shift_phases(self.disk, -pose.shift / self.pixel_size, self.box_size)
        result *= ctf_values(self.particles.ctf[rows].to(device), self.disk, self.pixel_size)
        visible = torch.where(self.particles.is_junk[rows], 0.0, self.particles.contrast[rows])
        return result * visible.to(device)[:, None]


def signal_variance(model: ImageModel, report: Callable[[int], object] = lambda count: None) -> float:
    """Variance of the noise-free pixels in the molecule's units, over the whole box, averaged over all images.

    Parameters
    ----------
    model : ImageModel
    report : callable
        Called with the number of images after every batch.

    Returns
    -------
    float
        By Parseval, the energy of all coefficients but the origin over the number of pixels.
    """
    weight = model.disk.weight.clone()
    weight[0] = 0.0  # the mean of an image is no part of its variance
    energy = 0.0
    for rows in model.batches():
        coefficients = model.coefficients(rows)
        energy += float((torch.view_as_real(coefficients).square().sum(-1) @ weight).double().sum())
        report(len(coefficients))
    showing = int((~model.particles.is_junk).sum())
    return energy / (showing * model.box_size**2)


def noisy_images(
    model: ImageModel,
    scale: float,
    seed: int,
    additions: Sequence[Callable[[slice], Tensor]] = (),
    noise_amplitude: Tensor | None = None,
) -> Iterator[np.ndarray]:
    """Generate the images: `scale` times the signal plus noise of variance 1, and what else they show.

    Parameters
    ----------
    model : ImageModel
    scale : float
        Unit of the molecule (the mass of an atom), in units of the noise's standard deviation: sqrt(snr / signal
        variance).
    seed : int
        The noise does not depend on the batch size.
    additions : sequence of functions
        Each returns what some rows show beside molecule and noise: (m, y, x), in units of the noise's standard
        deviation, on any device.
    noise_amplitude : Tensor, shape (y, x // 2 + 1), optional
        Of :func:`~.noise.noise_amplitude`, on the device that is to colour the noise; without it, the noise is white.

    Yields
    ------
    ndarray, shape (m, y, x), float32
        In the order of the particles.
    """
    rng = stream(seed, Purpose.NOISE)
    for rows in model.batches():
        signal = disk_to_images(scale * model.coefficients(rows), model.disk, model.box_size)
        # drawn on the CPU, so that a seed means the same images on every device, while a GPU computes the signal
        noise = rng.standard_normal(signal.shape, dtype=np.float32)
        images = signal.cpu().numpy() + (noise if noise_amplitude is None else coloured(noise, noise_amplitude))
        for addition in additions:
            images += addition(rows).cpu().numpy()
        yield images


def _float32(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _draw_states(population: np.ndarray, count: int, rng: np.random.Generator) -> Tensor:
    """Shuffle states whose numbers of particles follow the populations as closely as whole numbers can."""
    exact = population * count
    number = np.floor(exact).astype(np.int64)
    largest_remainder = np.argsort(number - exact, kind="stable")
    number[largest_remainder[: count - number.sum()]] += 1
    return torch.from_numpy(rng.permutation(np.repeat(np.arange(len(population)), number)))


def _draw_contrasts(count: int, contrast_std: float, rng: np.random.Generator) -> Tensor:
    """Draw normal contrasts, positive, with mean exactly 1."""
    contrast = np.maximum(1.0 + contrast_std * rng.standard_normal(count), CONTRAST_MIN)
    return _float32(contrast / contrast.mean())


def _draw_ctf(count: int, rng: np.random.Generator) -> Ctf:
    """Draw defocus and astigmatism; the microscope is fixed."""
    defocus, astigmatism, angle = rng.random((3, count))
    mean = DEFOCUS_RANGE[0] + (DEFOCUS_RANGE[1] - DEFOCUS_RANGE[0]) * defocus
    half = 0.5 * ASTIGMATISM_MAX * astigmatism
    constant = torch.ones(count)
    return Ctf(
        defocus_u=_float32(mean + half),
        defocus_v=_float32(mean - half),
        defocus_angle=_float32(180.0 * angle),
        voltage=VOLTAGE * constant,
        cs=CS * constant,
        amplitude_contrast=AMPLITUDE_CONTRAST * constant,
        phase_shift=0.0 * constant,
        b_factor=0.0 * constant,
        scale=constant,
        is_phase_flipped=torch.zeros(count, dtype=torch.bool),
    )


def _with_defocus_error(ctf: Ctf, error_std: float, rng: np.random.Generator) -> Ctf:
    """Move both defoci of each image by the same error, Angstrom."""
    error = _float32(error_std * rng.standard_normal(len(ctf)))
    return replace(ctf, defocus_u=ctf.defocus_u + error, defocus_v=ctf.defocus_v + error)

"""The information limit against closed forms, against projections, and against a dense linear estimate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solvar_engine.evaluation.information_limit import information_limit, seen_power
from solvar_engine.imaging.ctf import ctf_values
from solvar_engine.imaging.fourier import HalfDisk, ft_to_volume, volume_to_ft
from solvar_engine.imaging.shells import coefficients_per_shell, shells_to_volume
from solvar_engine.imaging.types import Ctf
from solvar_engine.projectors.torch_ref import TorchProjector
from tests.reconstruction.simulated import noise, random_rotations

BOX, IMAGES = 16, 50
DISK = HalfDisk.create(BOX)
SHELLS = DISK.shell_max + 1


def white_volume(seed: int = 0) -> torch.Tensor:
    """Of power one in all coefficients of the shells."""
    transform = volume_to_ft(noise(BOX, BOX, BOX, seed=seed, dtype=torch.float64))
    inside = shells_to_volume(torch.ones(SHELLS), BOX)
    return ft_to_volume(inside * transform / transform.abs(), BOX)


def states_of(volume: torch.Tensor) -> np.ndarray:
    return torch.stack((volume, -volume)).numpy() / 2**0.5


def test_one_white_component_has_the_closed_form() -> None:
    """Two states, plus and minus a volume of power t, seen by n images of noise variance v through no CTF."""
    power, variance, count = 0.03, 2.0, 400
    factor = states_of(power**0.5 * white_volume())
    seen = torch.full((count, SHELLS), 1 / variance, dtype=torch.float64)
    known = power / variance * float(DISK.weight.sum())
    of_image = np.array([float(DISK.weight[DISK.shell == s].sum()) for s in range(SHELLS)])
    of_volume = coefficients_per_shell(BOX).numpy()
    ratio = known / (1 + known) * count / variance * of_image / of_volume * power
    kept = (of_volume * ratio / (1 + ratio)).sum() / of_volume.sum()
    mask = np.ones((BOX, BOX, BOX))
    assert 0.1 < kept < 0.9
    assert information_limit(factor, mask, seen, DISK, 1) == pytest.approx(kept, rel=0.01)
    # a mask of half of the box: the same power in half as many coefficients; what lies outside is lost
    mask[: BOX // 2] = 0
    half = information_limit(factor * mask * 2**0.5, mask, seen, DISK, 1)
    ratio *= 2
    assert half == pytest.approx((of_volume * ratio / (1 + ratio)).sum() / of_volume.sum(), rel=0.1)
    assert information_limit(factor, mask, seen, DISK, 1) < 0.55


def test_limit_grows_with_images_and_with_rank() -> None:
    factor = np.concatenate((states_of(0.3 * white_volume(0)), states_of(0.2 * white_volume(1))))
    mask, seen = np.ones((BOX, BOX, BOX)), torch.full((IMAGES, SHELLS), 0.5)
    cases = ((1, 1), (1, 2), (10, 2), (10000, 2))
    values = [information_limit(factor, mask, seen.repeat(times, 1), DISK, rank) for times, rank in cases]
    assert values == sorted(values) and values[-1] == pytest.approx(1, abs=0.01)
    assert information_limit(factor, mask, seen, DISK, 0) == 0
    with pytest.raises(ValueError, match="do not differ"):
        information_limit(0 * factor, mask, seen, DISK, 2)


def test_what_an_image_sees_is_what_projections_show() -> None:
    """The sum of |a CTF P v|^2 / sigma^2 over many views of a white volume."""
    one = torch.ones(IMAGES)
    defocus = torch.linspace(8e3, 2e4, IMAGES)
    ctf = Ctf(defocus, defocus + 500, 30 * one, 300 * one, 2.7 * one, 0.1 * one, 0 * one, 0 * one, one, one < 0)
    variance = torch.linspace(0.5, 2.0, SHELLS)
    contrast = torch.linspace(0.5, 1.5, IMAGES)
    seen = seen_power(ctf, variance.expand(IMAGES, -1), DISK, 4.0, contrast)
    projector = TorchProjector(BOX, DISK, dtype=torch.float64)
    rotation = random_rotations(IMAGES, torch.Generator().manual_seed(0)).double()
    values = ctf_values(ctf, DISK, 4.0).double() * contrast[:, None]
    slices = projector.project(projector.to_grid(white_volume()[None]), rotation, values)[..., 0]
    shown = (slices.abs().square() / variance[DISK.shell] * DISK.weight).sum()
    expected = (seen * torch.bincount(DISK.shell, DISK.weight.double())).sum()
    assert float(shown) == pytest.approx(float(expected), rel=0.1)

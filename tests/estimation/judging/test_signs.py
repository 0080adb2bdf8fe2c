"""Signs of single images, where nearly as many are of one as of the other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from solvar_engine.estimation.judging.low_band import LowBand
from solvar_engine.estimation.judging.signs import signs_along_rows, signs_of_images
from solvar_engine.projectors.options import DEFAULT_OPTIONS
from tests.reconstruction.simulated import LinearPhantom, simulate

BOX, IMAGES = 12, 400


@pytest.mark.parametrize(("strength", "least"), [(6.0, 0.99), (0.5, 0.9)])
def test_signs_are_found_in_both_half_sets_alike(strength: float, least: float) -> None:
    """Also in faint images, whose own noise is most of what they resemble in a mean that they have made."""
    generator = torch.Generator().manual_seed(1)
    sign = torch.where(torch.rand(IMAGES, generator=generator) < 0.5, -1.0, 1.0)
    phantom = LinearPhantom.create(1, strength=0.2).scaled(strength)
    source = replace(simulate(phantom, IMAGES, BOX, contrast=sign).source, contrast=torch.ones(IMAGES))
    halves = torch.arange(0, IMAGES, 2), torch.arange(1, IMAGES, 2)
    found = signs_of_images(LowBand.of(source), halves, DEFAULT_OPTIONS)
    share = float((found * sign > 0).double().mean())
    assert max(share, 1 - share) > least


def evidence_of(sign: torch.Tensor, strength: float) -> torch.Tensor:
    """What images with these signs say of them, strength being their signal in standard errors; some have none."""
    generator = torch.Generator().manual_seed(2)
    scale = sign * (1 + 0.1 * torch.randn(len(sign), generator=generator))
    scale[::50] = 0
    power = torch.full((len(sign),), strength**2)
    return torch.stack((power, power * scale + strength * torch.randn(len(sign), generator=generator)), dim=1).double()


@pytest.mark.parametrize("strength", [0.4, 2.0, 20.0])
def test_a_block_of_the_other_sign_is_found_however_faint_its_images_are(strength: float) -> None:
    sign = torch.ones(1000)
    sign[400:700] = -1
    wrong = torch.nonzero(signs_along_rows(evidence_of(sign, strength)) != sign).flatten()
    assert len(wrong) < 15 and all(min(abs(row - 400), abs(row - 700)) < 15 for row in wrong.tolist())
    for alike in (torch.ones(1000), -torch.ones(1000)):
        assert torch.equal(signs_along_rows(evidence_of(alike, strength)), alike)


def test_clear_images_of_either_sign_are_told_one_by_one() -> None:
    sign = torch.where(torch.rand(1000, generator=torch.Generator().manual_seed(3)) < 0.3, -1.0, 1.0)
    found = signs_along_rows(evidence_of(sign, 10.0))
    sign[::50] = found[::50]  # those without signal
    assert torch.equal(found, sign)

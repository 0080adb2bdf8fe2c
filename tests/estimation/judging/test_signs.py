"""Signs of single images, where nearly as many are of one as of the other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from solvar_engine.estimation.judging.low_band import LowBand
from solvar_engine.estimation.judging.signs import signs_of_images
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

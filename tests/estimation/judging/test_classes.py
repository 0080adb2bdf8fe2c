"""Images of different molecules, in no order, are put into different classes; images of one are not told apart."""

from __future__ import annotations

import pytest
import torch

from solvar_engine.estimation.judging.classes import classes_of_images
from solvar_engine.estimation.judging.low_band import LowBand
from solvar_engine.projectors.options import SliceOptions
from tests.reconstruction.simulated import LinearPhantom, simulate

COUNT, BOX = 400, 16


def classified(strength, noise, seed=1):
    """Class and true state of each image of two states, 1 and -1, of a phantom."""
    states = torch.tensor([[1.0], [-1.0]])
    phantom = LinearPhantom.create(1, strength=strength)
    simulation = simulate(phantom, COUNT, BOX, noise=noise, states=states, seed=seed)
    rows = simulation.source.everyone
    halves = rows[::2], rows[1::2]
    found = torch.empty(COUNT, dtype=torch.int64)
    found[halves[0]], found[halves[1]] = classes_of_images(LowBand.of(simulation.source), halves, 4, SliceOptions())
    return found, simulation.z[:, 0] > 0


def share_of_one_state(found, is_first):
    """Of the images of each class, that are of the state that most of it are of, over all classes."""
    counts = torch.stack([torch.bincount(found[one], minlength=4) for one in (is_first, ~is_first)])
    return float(counts.amax(dim=0).sum()) / COUNT


@pytest.mark.parametrize("seed", range(3))
def test_states_are_told_apart_alike_in_both_halves(seed):
    found, is_first = classified(2.0, 0.3, seed)
    assert share_of_one_state(found, is_first) > 0.98


def test_images_do_not_resemble_what_was_made_of_them():
    """Where images show one molecule, classes drawn at random do not stay: noise does not repeat."""
    found, _ = classified(0.0, 3.0)
    generator = torch.Generator().manual_seed(15)
    drawn = torch.empty(COUNT, dtype=torch.int64)
    drawn[::2], drawn[1::2] = (torch.randint(4, (COUNT // 2,), generator=generator) for _ in range(2))
    assert float((found == drawn).double().mean()) < 0.5

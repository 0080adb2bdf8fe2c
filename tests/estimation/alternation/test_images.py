"""Judged images: noise, outliers and contrast of a half-set follow from the factors of the other one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.alternation.images import judge_images
from solvar_engine.estimation.alternation.state import JudgedImages
from solvar_engine.estimation.model.objectives import OBJECTIVES
from solvar_engine.estimation.solver.epochs import Factors
from solvar_engine.estimation.solver.half_sets import HalfSetState
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations
from tests.jobs.prepared import particles_of
from tests.reconstruction.simulated import LinearPhantom, noise

BOX, IMAGES, RANK = 12, 400, 2
PHANTOM = LinearPhantom.create(RANK, strength=0.5, sigma=0.08).scaled(6.0)  # nothing at the last shells
HALVES = (torch.arange(0, IMAGES, 2), torch.arange(1, IMAGES, 2))


@pytest.fixture(scope="module")
def source() -> PreparedParticles:
    """Moving particles; each half-set is an optics group of its own, so that its noise can be told apart."""
    groups = {"group": torch.arange(IMAGES) % 2, "frequency_ratio": torch.ones(2), "noise_variance": torch.ones(2, 6)}
    return particles_of(PHANTOM, noise(IMAGES, RANK), BOX, **groups)


def judged(source: PreparedParticles, factors: tuple[Tensor, Tensor]) -> JudgedImages:
    """Images as they are judged by half-sets that have found these factors."""
    everyone = torch.arange(len(source))
    density = accumulate_normal_equations(source, everyone).density()
    problem = CovarianceProblem(
        source,
        HALVES,
        PHANTOM.mean(BOX),
        torch.ones(BOX, BOX, BOX),
        density,
        RANK,
        0,
        SliceOptions(),
        OBJECTIVES["ml"],
    )
    identity = torch.eye(RANK, dtype=torch.float64)
    first, second = (Factors(volumes, identity) for volumes in factors)
    state = HalfSetState(1, (first, second), torch.zeros(RANK, 0, dtype=torch.float64), (0.0, 0.0))
    return judge_images(source, HALVES, problem, state)


@pytest.mark.parametrize("knows", [0, 1])
def test_each_half_is_judged_by_the_factors_of_the_other(source, knows: int) -> None:
    """One half has found the motion and the other nothing: what is unexplained of the one that has is motion."""
    truth = PHANTOM.factors(BOX)
    nothing = torch.zeros_like(truth)
    found = judged(source, (truth, nothing) if knows == 0 else (nothing, truth))
    by_truth, by_nothing = found.noise[1 - knows, 1:], found.noise[knows, 1:]
    torch.testing.assert_close(by_truth, torch.ones_like(by_truth), rtol=0.08, atol=0)
    assert float(by_nothing[:2].min()) > 1.4


def test_images_of_nothing_are_outliers_and_have_no_part_in_the_noise(source) -> None:
    """They are left out of the noise: at ten times its deviation they would show in all shells."""
    junk = torch.zeros(IMAGES, dtype=torch.bool)
    junk[:20] = True
    images = source.coefficients.clone()
    images[junk] = 10 * torch.complex(noise(20, images.shape[1], seed=5), noise(20, images.shape[1], seed=6)) / 2**0.5
    truth = PHANTOM.factors(BOX)
    found = judged(replace(source, coefficients=images), (truth, truth))
    assert torch.equal(found.outlier, junk)
    torch.testing.assert_close(found.noise[:, 1:], torch.ones(2, 5), rtol=0.1, atol=0)


def test_if_most_images_look_like_outliers_the_model_is_in_doubt_and_none_is_left_out(source) -> None:
    """With poses that have nothing to do with the images."""
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(0))
    truth = PHANTOM.factors(BOX)
    found = judged(source.with_pose(source.pose[order]), (truth, truth))
    assert not found.outlier.any()
    assert found.doubted_share > 0.5


def test_contrasts_have_mean_one_without_outliers(source) -> None:
    truth = PHANTOM.factors(BOX)
    found = judged(source, (truth, truth))
    assert not found.outlier.any() and found.doubted_share == 0
    assert float(found.contrast.mean()) == pytest.approx(1.0, abs=1e-4)


def test_contrasts_are_relative_to_the_known_ones_and_not_to_grey_scales(source) -> None:
    """Without a spread an image says nothing of its contrast, and the known one stays."""
    truth, known = PHANTOM.factors(BOX), torch.linspace(0.8, 1.2, IMAGES)
    scale = 1 + torch.arange(IMAGES) % 2
    found = judged(source.with_contrast(known).with_grey_scale(scale.float()), (truth, truth))
    torch.testing.assert_close(found.contrast[~found.outlier], (known / known[~found.outlier].mean())[~found.outlier])

"""The gauge of factors, and the alignment of half-sets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.solver.gauge import align_halves, fix_gauge
from solvar_engine.imaging.linear_algebra import inner_products, mix
from tests.estimation.volumes import BOX, RANK, any_factors, any_rotation, any_second_moment
from tests.reconstruction.simulated import noise, relative_error


@pytest.fixture(scope="module")
def factors() -> Tensor:
    return any_factors()


@pytest.fixture(scope="module")
def second_moment() -> Tensor:
    return any_second_moment()


# --- gauge


def mixture_of(new: Tensor, old: Tensor) -> Tensor:
    """The matrix W with new = old W."""
    return torch.linalg.lstsq(old.flatten(1).double().T, new.flatten(1).double().T).solution


def test_gauge_keeps_the_covariance(factors, second_moment) -> None:
    """V E V^T = V' V'^T, as seen by any test volumes."""
    probes = noise(5, BOX, BOX, BOX, seed=8)
    new = fix_gauge(factors, second_moment)
    before = inner_products(probes, factors) @ second_moment @ inner_products(factors, probes)
    after = inner_products(probes, new) @ inner_products(new, probes)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4 * float(before.max()))


def test_gauge_turns_the_second_moment_into_one(factors, second_moment) -> None:
    """With V = V' W^-1 the latents are z' = W^-1 z, whose second moment is W^-1 E W^-T."""
    inverse = torch.linalg.inv(mixture_of(fix_gauge(factors, second_moment), factors))
    moment = inverse @ second_moment @ inverse.T
    torch.testing.assert_close(moment, torch.eye(RANK, dtype=torch.float64), rtol=1e-4, atol=1e-4)


def test_gauge_gives_orthogonal_factors_strongest_first(factors, second_moment) -> None:
    inner = inner_products(*[fix_gauge(factors, second_moment)] * 2)
    energies = inner.diagonal()
    assert float((inner - torch.diag(energies)).abs().max()) < 1e-5 * float(energies.max())
    assert bool((energies.diff() < 0).all())
    # Not sorted by accident: the other order comes out sorted, too.
    flipped = fix_gauge(factors.flip(0), second_moment.flip(0, 1))
    torch.testing.assert_close(inner_products(flipped, flipped).diagonal(), energies, rtol=1e-4, atol=0)


def test_gauge_is_fixed_once(factors, second_moment) -> None:
    once = fix_gauge(factors, second_moment)
    twice = fix_gauge(once, torch.eye(RANK, dtype=torch.float64))
    assert relative_error(twice.abs(), once.abs()) < 1e-4


def test_vanishing_latents_do_not_fail(factors) -> None:
    fixed = fix_gauge(factors, torch.diag(torch.tensor([1.0, 1e-30, 0.0], dtype=torch.float64)))
    assert bool(fixed.isfinite().all())
    assert float(fixed[1:].norm()) < 1e-4 * float(fixed[0].norm())


# --- alignment of halves


def test_rotated_copy_is_aligned_exactly(factors) -> None:
    first, second = align_halves(factors, mix(factors, any_rotation()))
    assert relative_error(first, second) < 1e-5
    torch.testing.assert_close(
        inner_products(first, first).trace(), inner_products(factors, factors).trace(), rtol=1e-5, atol=0
    )


def test_alignment_only_rotates(factors) -> None:
    other = noise(RANK, BOX, BOX, BOX, seed=9)
    for aligned, original in zip(align_halves(factors, other), (factors, other), strict=True):
        matrix = mixture_of(aligned, original)
        torch.testing.assert_close(matrix.T @ matrix, torch.eye(RANK, dtype=torch.float64), rtol=1e-4, atol=1e-4)


def test_aligned_factors_correspond_most_agreeing_first(factors) -> None:
    noisy = [mix(factors + noise(RANK, BOX, BOX, BOX, seed=seed), any_rotation(seed=seed)) for seed in (11, 12)]
    cross = inner_products(*align_halves(*noisy))
    agreement = cross.diagonal()
    assert bool((agreement > 0).all()) and bool((agreement.diff() < 0).all())
    assert float((cross - torch.diag(agreement)).abs().max()) < 1e-4 * float(agreement.max())

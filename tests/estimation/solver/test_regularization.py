"""Gauge, half-set agreement and the prior that does not shrink eigenvalues."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.solver.regularization import (
    ComponentPrior,
    Penalty,
    WeightedPrior,
    align_halves,
    component_fsc,
    component_precision,
    covariance_fsc,
    extend_shells,
    fix_gauge,
)
from solvar_engine.imaging.fourier import ft_to_volume, low_pass, volume_to_ft
from solvar_engine.imaging.linear_algebra import inner_products, mix
from solvar_engine.imaging.shells import fsc, radial_average, shell_sum, shells_to_volume
from tests.reconstruction.simulated import LinearPhantom, noise, relative_error

BOX, RANK = 24, 3


@pytest.fixture(scope="module")
def factors() -> Tensor:
    return noise(RANK, BOX, BOX, BOX) * torch.tensor([3.0, 2.0, 1.0])[:, None, None, None]


@pytest.fixture(scope="module")
def second_moment() -> Tensor:
    root = noise(RANK, RANK, seed=4, dtype=torch.float64)
    return root @ root.T + 0.3 * torch.eye(RANK, dtype=torch.float64)


def random_rotation(rank: int = RANK, seed: int = 6) -> Tensor:
    return torch.linalg.qr(noise(rank, rank, seed=seed, dtype=torch.float64)).Q


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
    first, second = align_halves(factors, mix(factors, random_rotation()))
    assert relative_error(first, second) < 1e-5
    torch.testing.assert_close(
        inner_products(first, first).trace(), inner_products(factors, factors).trace(), rtol=1e-5, atol=0
    )


def test_alignment_only_rotates(factors) -> None:
    other = noise(RANK, BOX, BOX, BOX, seed=9)
    for aligned, original in zip(align_halves(factors, other), (factors, other), strict=True):
        matrix = mixture_of(aligned, original)
        torch.testing.assert_close(matrix.T @ matrix, torch.eye(RANK, dtype=torch.float64), rtol=1e-4, atol=1e-4)


def test_aligned_components_correspond_most_agreeing_first(factors) -> None:
    noisy = [mix(factors + noise(RANK, BOX, BOX, BOX, seed=seed), random_rotation(seed=seed)) for seed in (11, 12)]
    cross = inner_products(*align_halves(*noisy))
    agreement = cross.diagonal()
    assert bool((agreement > 0).all()) and bool((agreement.diff() < 0).all())
    assert float((cross - torch.diag(agreement)).abs().max()) < 1e-4 * float(agreement.max())


# --- correlation per shell


def test_equal_components_correlate_fully_whatever_their_scale(factors) -> None:
    one = torch.ones(RANK, BOX // 2, dtype=torch.float64)
    torch.testing.assert_close(component_fsc(factors, factors), one)
    torch.testing.assert_close(component_fsc(0.01 * factors, 7 * factors), one, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(component_fsc(factors, -factors), -one)


def test_independent_components_do_not_correlate(factors) -> None:
    correlation = component_fsc(factors, noise(RANK, BOX, BOX, BOX, seed=13))
    # At least 200 coefficients, half of them independent: standard deviation below a tenth.
    assert float(correlation.abs().max()) < 0.35
    assert float(correlation.square().mean().sqrt()) < 0.1


def test_components_are_compared_one_by_one(factors) -> None:
    mixed = torch.stack((factors[0], noise(BOX, BOX, BOX, seed=14), -factors[2]))
    correlation = component_fsc(factors, mixed).mean(dim=1)
    assert float(correlation[0]) == pytest.approx(1.0, abs=1e-6)
    assert abs(float(correlation[1])) < 0.1
    assert float(correlation[2]) == pytest.approx(-1.0, abs=1e-6)


def test_large_shells_keep_their_own_correlation(factors) -> None:
    """Where shells hold many coefficients they are pooled with their two neighbours only."""
    other = low_pass(factors, 5.4)
    correlation = component_fsc(factors, other)[0]
    plain = fsc(factors[0], other[0])
    assert float(correlation[4]) > 0.95 and float(plain[4]) > 0.99
    assert float(correlation[8:].abs().max()) < 0.2


def test_correlation_of_signal_in_noise_is_its_share() -> None:
    signal = noise(1, BOX, BOX, BOX, seed=1)
    halves = [signal + 0.5 * noise(1, BOX, BOX, BOX, seed=seed) for seed in (2, 3)]
    correlation = component_fsc(*halves)[0, 3:]
    assert float(correlation.mean()) == pytest.approx(1 / 1.25, abs=0.03)


def test_covariance_correlation_of_equal_subspaces_is_one(factors) -> None:
    one = torch.ones(BOX // 2, dtype=torch.float64)
    torch.testing.assert_close(covariance_fsc(factors, factors).diagonal(), one)
    torch.testing.assert_close(covariance_fsc(factors, 3 * factors).diagonal(), one, rtol=1e-5, atol=1e-5)
    turned = covariance_fsc(factors, mix(factors, random_rotation()))
    torch.testing.assert_close(turned.diagonal(), one, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(turned, torch.ones(BOX // 2, BOX // 2, dtype=torch.float64), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(covariance_fsc(factors, -factors).diagonal(), one)


def test_covariance_correlation_equals_that_of_dense_matrices() -> None:
    """Inner products of the blocks of both covariances over their norms, for all pairs of shells."""
    box_size = 8
    first = noise(2, box_size, box_size, box_size, dtype=torch.float64)
    second = 0.5 * first + noise(2, box_size, box_size, box_size, seed=5, dtype=torch.float64)
    axis = torch.arange(box_size, dtype=torch.float64) - box_size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    shell = (x**2 + y**2 + z**2).sqrt().round().flatten()
    place = torch.stack((x.flatten(), y.flatten(), z.flatten()))
    angle = -2 * torch.pi / box_size * place.T @ place
    transform = torch.polar(torch.ones_like(angle), angle)
    coefficients = [transform @ factors.flatten(1).T.to(torch.complex128) for factors in (first, second)]
    dense = [columns @ columns.conj().T for columns in coefficients]
    correlation = covariance_fsc(first, second)
    shells = box_size // 2
    assert correlation.shape == (shells, shells)
    for row in range(shells):
        for column in range(shells):
            one, two = (covariance[shell == row][:, shell == column] for covariance in dense)
            expected = float((one * two.conj()).sum().real / (one.norm() * two.norm()))
            assert float(correlation[row, column]) == pytest.approx(expected, abs=1e-12)


def test_covariance_correlation_of_independent_subspaces_is_near_zero(factors) -> None:
    correlation = covariance_fsc(factors, noise(RANK, BOX, BOX, BOX, seed=13))
    assert bool((correlation.diagonal() >= 0).all())
    assert float(correlation[5:, 5:].abs().max()) < 0.02


# --- prior


def test_prior_is_density_times_noise_over_signal() -> None:
    correlation = torch.tensor([[0.5, 0.8], [0.2, 0.999]], dtype=torch.float64)
    density = torch.tensor([10.0, 20.0])
    expected = torch.tensor([[10.0, 5.0], [40.0, 20 * 0.001 / 0.999]], dtype=torch.float64)
    torch.testing.assert_close(component_precision(correlation, density), expected)


def test_prior_stays_finite_without_agreement() -> None:
    correlation = torch.tensor([[-0.9, 0.0, 1.0]])
    precision = component_precision(correlation, torch.full((3,), 10.0))
    assert float(precision.min()) > 0
    assert float(precision[0, 0]) == float(precision[0, 1]) == pytest.approx(490, rel=0.01)


def test_shrinking_every_shell_does_not_change_the_prior(factors) -> None:
    """No feedback: however a prior has filtered both halves, the next prior is the same."""
    halves = [factors + noise(RANK, BOX, BOX, BOX, seed=seed) for seed in (21, 22)]
    density = torch.linspace(100.0, 10.0, BOX // 2)
    before = component_precision(component_fsc(*halves), density)
    collapsed = [1e-3 * half for half in halves]
    torch.testing.assert_close(component_precision(component_fsc(*collapsed), density), before, rtol=1e-4, atol=1e-4)
    # A filter that falls slowly over the shells changes only the weights inside a pool.
    phantom = LinearPhantom.create(RANK, sigma=0.02)
    smooth = phantom.factors(BOX)
    pair = [smooth + 0.2 * smooth.std() * noise(RANK, BOX, BOX, BOX, seed=seed) for seed in (23, 24)]
    filtered = [0.5 * half + 0.5 * low_pass(half, 6) for half in pair]
    first, second = component_fsc(*pair), component_fsc(*filtered)
    torch.testing.assert_close(second, first, rtol=0, atol=0.12)


# --- penalties

SHELLS = BOX // 2
PRECISION = torch.linspace(0.5, 4.0, RANK * SHELLS, dtype=torch.float64).reshape(RANK, SHELLS)
ONE = torch.eye(RANK, dtype=torch.float64)


def penalties(weight: Tensor) -> dict[str, Penalty]:
    return {"component": ComponentPrior(PRECISION, BOX), "weighted": WeightedPrior(PRECISION, BOX, weight)}


def dense_matrices(name: str, weight: Tensor) -> Tensor:
    """W of every shell, written out: (shells, r, r)."""
    root = PRECISION.sqrt()
    matrices = [torch.diag(root[:, s]) @ weight @ torch.diag(root[:, s]) for s in range(SHELLS)]
    return torch.diag_embed(PRECISION.T) if name == "component" else torch.stack(matrices)


def form(matrices: Tensor, volumes: Tensor) -> Tensor:
    """1/2 sum V^T W V over the coefficients, where real space counts as sums over voxels do."""
    transform = volume_to_ft(volumes)
    fields = shells_to_volume(matrices.permute(1, 2, 0), BOX)
    pulled = torch.einsum("ijzyx,jzyx->izyx", fields.to(transform.dtype), transform)
    return 0.5 * shell_sum((transform.conj() * pulled).real, BOX).sum() / BOX


@pytest.mark.parametrize("name", ["component", "weighted"])
def test_gradient_of_a_penalty_equals_finite_differences(factors, second_moment, name: str) -> None:
    """The form is of second order, so that central differences are exact."""
    volumes = low_pass(factors.double(), SHELLS - 1)
    matrices = dense_matrices(name, second_moment)
    gradient = ft_to_volume(penalties(second_moment)[name].gradient(volume_to_ft(volumes)), BOX)
    for seed in range(3):
        direction = low_pass(noise(*volumes.shape, seed=seed, dtype=torch.float64), SHELLS - 1)
        expected = 0.5 * float(form(matrices, volumes + direction) - form(matrices, volumes - direction))
        slope = float((gradient * direction).sum())
        assert slope == pytest.approx(expected, rel=1e-5, abs=1e-6 * float(gradient.norm() * direction.norm()))


@pytest.mark.parametrize("name", ["component", "weighted"])
def test_diagonal_of_a_penalty_is_that_of_the_rotated_matrices(second_moment, name: str) -> None:
    """Twice of it for the weighted one, whose weight grows with the factors."""
    vectors = random_rotation()
    matrices = vectors.T @ dense_matrices(name, second_moment) @ vectors
    expected = {"component": 1, "weighted": 2}[name] * matrices.diagonal(dim1=1, dim2=2).T
    diagonal = penalties(second_moment)[name].diagonal(vectors)
    torch.testing.assert_close(radial_average(diagonal, BOX), expected, rtol=1e-5, atol=1e-5)
    assert bool((diagonal > 0).all())


def test_weighted_prior_of_weight_one_is_the_prior(factors) -> None:
    transform = volume_to_ft(factors)
    component, weighted = (penalty.gradient(transform) for penalty in penalties(ONE).values())
    assert relative_error(weighted, component) < 1e-5


def test_weighted_prior_keeps_the_share_on_which_the_halves_agree(factors, second_moment) -> None:
    """(D K + W) V = D K X, whose right side no prior has touched, is solved by F X when K commutes with the filter."""
    correlation, density = torch.linspace(0.95, 0.05, SHELLS, dtype=torch.float64), 7.0
    precision = component_precision(correlation.expand(RANK, -1), torch.full((SHELLS,), density))
    untouched = low_pass(factors.double(), SHELLS - 1)
    filtered = volume_to_ft(untouched) * shells_to_volume(correlation, BOX)
    penalty = WeightedPrior(precision, BOX, second_moment)
    left = density * mix(filtered, second_moment) + penalty.gradient(filtered)
    inside = shells_to_volume(torch.ones(SHELLS), BOX)
    right = density * mix(volume_to_ft(untouched), second_moment)
    assert relative_error(left * inside, right * inside) < 1e-5


# --- shells beyond the band


def test_known_shells_stay_and_unknown_ones_continue_the_last_three() -> None:
    values = torch.tensor([[9.0, 1.0, 2.0, 3.0], [8.0, 4.0, 4.0, 4.0]])
    extended = extend_shells(values, 6)
    torch.testing.assert_close(extended[:, :4], values)
    torch.testing.assert_close(extended[:, 4:], torch.tensor([[2.0, 2.0], [4.0, 4.0]]))
    assert torch.equal(extend_shells(values, 2), values[:, :2])
    assert torch.equal(extend_shells(values, 4), values)


def test_continuation_can_fall_with_the_shell() -> None:
    values = torch.full((1, 5), 0.8, dtype=torch.float64)
    extended = extend_shells(values, 9, decay=2.0)[0]
    torch.testing.assert_close(extended[8], torch.tensor(0.8 * (4 / 8) ** 2, dtype=torch.float64))
    assert bool((extended[4:].diff() <= 0).all())


# --- small algebra


def test_mixing_and_inner_products_are_matrix_products(factors) -> None:
    matrix = noise(RANK, 2, seed=3, dtype=torch.float64)
    flat = factors.flatten(1).double()
    torch.testing.assert_close(mix(factors, matrix).flatten(1).double(), matrix.T @ flat, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(inner_products(factors, factors[:2]), flat @ flat[:2].T)

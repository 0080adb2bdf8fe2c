"""Derivatives of slices by the pose, on every backend: against finite differences and against the reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from solvar_engine.imaging.fourier import shift_phases
from solvar_engine.imaging.rotation import rotvec_to_rotation
from tests.imaging.closed_form import relative_error
from tests.projectors.backends import BACKENDS, REFERENCE, Backend, Sampling
from tests.projectors.test_conformance import CASES, CHANNELS, IMAGES, Case, rotations

SMOOTH = [case for case in CASES if case.sampling in (Sampling("trilinear", 2), Sampling("nufft"))]
smooth_case = pytest.mark.parametrize("case", SMOOTH, ids=str)


class Problem:
    """Volumes, images and mixtures, and what the products are by their definition, in double precision."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.disk = case.disk
        self.rotation = rotations().double()
        self.ctf = case.ctf()
        self.images = case.slices(1)[..., 0].contiguous()
        self.coefficients = case.noise(IMAGES, CHANNELS, seed=8)
        half = case.noise(IMAGES, CHANNELS, CHANNELS, seed=9)
        self.moments = half @ half.mT
        self.volumes = case.volumes()

    def products(self, backend: Backend | None = None) -> tuple[Tensor, Tensor]:
        projector = self.case.projector(backend=backend)
        kind = (backend or self.case.backend).dtype
        return projector.pose_products(
            projector.to_grid(self.volumes.to(kind)),
            self.rotation,
            self.ctf.to(kind),
            self.images.to(kind.to_complex()),
            self.coefficients.to(kind),
            self.moments.to(kind),
        )

    def slices(self, projector, grid: Tensor, rotvec: Tensor, shift: Tensor) -> Tensor:
        """Slices at another pose, as images of another shift see them."""
        turned = self.rotation @ rotvec_to_rotation(rotvec.expand(IMAGES, 3))
        slices = projector.project(grid, turned, self.ctf)
        return slices * shift_phases(self.disk, shift.expand(IMAGES, 2), self.disk.box_size).conj()[..., None]

    def differences(self, step: float) -> tuple[Tensor, Tensor]:
        """Products from central differences over steps of the five parameters."""
        projector = self.case.projector()
        grid = projector.to_grid(self.volumes)
        zero = torch.zeros(5, dtype=torch.float64)
        slices = self.slices(projector, grid, zero[:3], zero[3:])

        def difference(function: Callable[[Tensor], Tensor], k: int) -> Tensor:
            move = zero.clone()
            move[k] = step
            return (function(move) - function(-move)) / (2 * step)

        def seen(move: Tensor) -> Tensor:
            return self.slices(projector, grid, move[:3], move[3:])

        def energy(move: Tensor) -> Tensor:
            moved = seen(move)
            gram = self.inner(moved[..., :, None], moved[..., None, :])
            return 0.5 * (self.moments * gram).sum(dim=(1, 2))

        jacobian = [(difference(seen, k) @ self.coefficients.to(slices.dtype)[..., None])[..., 0] for k in range(5)]
        columns = torch.cat((slices, torch.stack(jacobian, dim=-1), self.images[..., None]), dim=-1)
        products = torch.stack([self.inner(slope[..., None], columns) for slope in jacobian], dim=1)
        return products, torch.stack([difference(energy, k) for k in range(3)], dim=-1)

    def inner(self, first: Tensor, second: Tensor) -> Tensor:
        weight = self.disk.weight.double().reshape(1, -1, *[1] * (first.dim() - 2))
        return (weight * (first.conj() * second).real).sum(dim=1)


@pytest.mark.parametrize(
    "case", [case for case in SMOOTH if case.backend.dtype == torch.float64], ids=str
)
def test_they_are_what_small_steps_give(case: Case) -> None:
    problem = Problem(case)
    # so short a step that no pixel leaves its cell
    step = 1e-7 if case.backend is REFERENCE else 1e-4
    for found, expected in zip(problem.products(), problem.differences(step), strict=True):
        assert relative_error(found.numpy(), expected.numpy()) < 1e-6


@pytest.mark.parametrize("case", [case for case in SMOOTH if case.backend.dtype == torch.float32], ids=str)
def test_fast_backends_agree_with_the_exact_ones(case: Case) -> None:
    problem = Problem(case)
    exact = next(b for b in BACKENDS if b.dtype == torch.float64 and case.sampling in b.samplings)
    for found, expected in zip(problem.products(), problem.products(exact), strict=True):
        assert relative_error(found.numpy(), expected.numpy()) < 5 * case.backend.rounding


@smooth_case
def test_derivatives_by_the_shift_do_not_change_the_energy(case: Case) -> None:
    products, _ = Problem(case).products()
    mixed = torch.einsum("nkc,nc->nk", products[:, :, :CHANNELS], Problem(case).coefficients.double())
    size = products[:, :, CHANNELS : CHANNELS + 5].diagonal(dim1=1, dim2=2).sqrt()
    assert float((mixed[:, 3:].abs() / size[:, 3:]).max()) < 1e-3


@smooth_case
def test_a_lower_band_on_a_smaller_disk(case: Case) -> None:
    """Shifts count in pixels of the disk's box, whatever the band."""
    problem = Problem(case)
    projector = case.projector(case.disk.prefix(3))
    count = len(projector.disk)
    products, turn = projector.pose_products(
        projector.to_grid(problem.volumes),
        problem.rotation,
        problem.ctf[:, :count].contiguous(),
        problem.images[:, :count].contiguous(),
        problem.coefficients,
        problem.moments,
    )
    cut = problem.ctf.clone()
    cut[:, count:] = 0
    problem.ctf, problem.images = cut, problem.images * (cut != 0)
    expected, expected_turn = problem.products()
    assert relative_error(products.numpy(), expected.numpy()) < 10 * case.backend.rounding
    assert relative_error(turn.numpy(), expected_turn.numpy()) < 10 * case.backend.rounding


@pytest.mark.parametrize("backend", BACKENDS[:3], ids=lambda backend: backend.name)
def test_nearest_slices_have_no_derivatives(backend: Backend) -> None:
    with pytest.raises(ValueError, match="no derivatives by the pose: use trilinear or nufft"):
        Problem(Case(backend, Sampling("nearest", 2), 12)).products()


@smooth_case
@pytest.mark.parametrize("wrong", ["images", "coefficients", "moments"])
def test_wrong_shapes_are_named(case: Case, wrong: str) -> None:
    problem = Problem(case)
    setattr(problem, wrong, getattr(problem, wrong)[:, :-1])
    with pytest.raises(ValueError, match=f"{wrong} has shape"):
        problem.products()

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from solvar_engine.estimation.pose_scores import PoseGrid, Posterior, posterior_sums, separated_modes
from solvar_engine.imaging.fourier import HalfDisk, disk_to_images, images_to_disk
from solvar_engine.imaging.rotation import angular_distance_deg, random_rotations, rotvec_to_rotation
from solvar_engine.imaging.shells import shell_means
from solvar_engine.imaging.so3_grid import shift_grid
from solvar_engine.imaging.symmetry import symmetry_operators

BOX = 16


@dataclass(frozen=True)
class Problem:
    grid: PoseGrid
    images: Tensor
    ctf: Tensor


@pytest.fixture(scope="module")
def problem() -> Problem:
    generator = torch.Generator().manual_seed(0)
    disk = HalfDisk.create(BOX, 5)
    slices = images_to_disk(torch.randn(7, BOX, BOX, generator=generator), disk)
    log_prior = torch.log_softmax(torch.randn(7, generator=generator), dim=0)
    noise = 1 + torch.rand(6, generator=generator, dtype=torch.float64)
    grid = PoseGrid(disk, slices, log_prior, shift_grid(1.0, 2.0), 1.3, noise)
    ctf = torch.rand(4, len(disk), generator=generator) - 0.3
    images = slices[:4] * ctf + 0.7 * images_to_disk(torch.randn(4, BOX, BOX, generator=generator), disk)
    return Problem(grid, images, ctf)


def full_plane(values: Tensor, disk: HalfDisk) -> tuple[Tensor, Tensor]:
    """Coefficients (..., 2 pixels - 1) of the full plane with their (kx, ky): Friedel mates written out."""
    pixels = torch.cat((disk.pixels, -disk.pixels[1:]))
    assert disk.pixels[0].tolist() == [0, 0]
    return torch.cat((values, values[..., 1:].conj()), dim=-1), pixels


def reference(problem: Problem) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, float]:
    """All by definition, one image, shift and slice after the other, on the full plane in double precision.

    Returns log joint (n, T, J), evidence, sum of C Y, sum of C^2, residual by shell, sum of |t|^2.
    """
    grid, disk = problem.grid, problem.grid.disk
    slices, pixels = full_plane(grid.slices.to(torch.complex128), disk)
    shell = torch.cat((disk.shell, disk.shell[1:]))
    noise = grid.noise[shell]
    squared = grid.shift_px.double().square().sum(dim=1)
    prior = -0.5 * squared / grid.shift_std_px**2
    prior = prior - prior.exp().sum().log()
    images = full_plane(problem.images.to(torch.complex128), disk)[0]
    ctf = full_plane(problem.ctf.double(), disk)[0]
    count, shifts, columns = len(images), len(grid.shift_px), len(slices)
    joint = torch.zeros(count, shifts, columns, dtype=torch.float64)
    for i in range(count):
        for t in range(shifts):
            # an image is centred by moving it by +t
            phase = torch.exp(-2j * torch.pi * (pixels.double() @ grid.shift_px[t].double()) / BOX)
            for j in range(columns):
                error = images[i] * phase - ctf[i] * slices[j]
                value = -0.5 * ((error.abs().square() - images[i].abs().square()) / noise).sum()
                joint[i, t, j] = value + prior[t] + grid.log_prior[j].double()
    evidence = joint.flatten(1).logsumexp(dim=1)
    weights = (joint - evidence[:, None, None]).exp()
    summed = torch.zeros(columns, slices.shape[1], dtype=torch.complex128)
    power = torch.zeros(columns, slices.shape[1], dtype=torch.float64)
    residual, moment = torch.zeros(slices.shape[1], dtype=torch.float64), 0.0
    for i in range(count):
        for t in range(shifts):
            phase = torch.exp(-2j * torch.pi * (pixels.double() @ grid.shift_px[t].double()) / BOX)
            for j in range(columns):
                weight = weights[i, t, j]
                summed[j] += weight * ctf[i] * images[i] * phase
                power[j] += weight * ctf[i] ** 2
                residual += weight * (images[i] * phase - ctf[i] * slices[j]).abs().square()
                moment += float(weight * squared[t])
    by_shell = torch.bincount(shell, residual) / torch.bincount(shell)
    half = len(disk)
    return joint, evidence, summed[:, :half], power[:, :half], by_shell, moment


def test_scores_and_sums_are_those_of_the_definition(problem: Problem) -> None:
    grid = problem.grid
    joint, evidence, summed, power, residual, moment = reference(problem)
    shifted = grid.shifted(problem.images, problem.ctf)
    found = grid.log_joint(shifted, problem.ctf)
    assert torch.allclose(found.double(), joint, atol=2e-4)
    posterior = Posterior.of(found)
    assert torch.allclose(posterior.evidence, evidence, atol=2e-4)
    assert torch.allclose(posterior.weights.sum(dim=(1, 2)), torch.ones(4), atol=1e-5)
    sums = posterior_sums(grid, posterior, shifted, problem.images, problem.ctf)
    assert torch.allclose(sums.images, summed[posterior.used].to(sums.images), atol=1e-3)
    assert torch.allclose(sums.power, power[posterior.used].to(sums.power), atol=1e-3)
    assert torch.allclose(shell_means(sums.residual, grid.disk), residual, rtol=1e-4)
    assert sums.squared_shift == pytest.approx(moment, rel=1e-4)
    assert float(sums.mass.sum()) == pytest.approx(4, rel=1e-5)
    rest = torch.ones(7, dtype=torch.bool)
    rest[posterior.used] = False
    assert float(power[rest].abs().sum()) < 1e-4  # what is left out does not count


def test_a_moved_image_is_found_at_the_shift_that_centres_it() -> None:
    """Moved in real space, so that no formula of the engine has a hand in the sign."""
    generator = torch.Generator().manual_seed(2)
    disk = HalfDisk.create(BOX, 6)
    slices = images_to_disk(torch.randn(5, BOX, BOX, generator=generator), disk)
    pictures = disk_to_images(slices, disk, BOX)
    moved = torch.roll(pictures[3:4], shifts=(-1, 2), dims=(-2, -1))  # by 2 along x and -1 along y
    grid = PoseGrid(disk, slices, torch.zeros(5), shift_grid(1.0, 3.0), 2.0, torch.full((7,), 0.1, dtype=torch.float64))
    images, ctf = images_to_disk(moved, disk), torch.ones(1, len(disk))
    joint = grid.log_joint(grid.shifted(images, ctf), ctf)[0]
    shift, column = divmod(int(joint.argmax()), 5)
    assert column == 3 and grid.shift_px[shift].tolist() == [-2.0, 1.0]


def test_modes_are_the_best_poses_that_are_far_from_each_other() -> None:
    generator = torch.Generator().manual_seed(3)
    rotation = random_rotations(300, generator)
    rotation[1] = rotation[0] @ rotvec_to_rotation(torch.tensor([[0.0, 0.3, 0.0]]))[0]
    joint = torch.randn(2, 3, 600, generator=generator)
    joint[0, 1, 0], joint[0, 2, 1], joint[0, 0, 300] = 50.0, 49.0, 48.0  # the last one is of the second map
    column, shift, value = separated_modes(joint, rotation, symmetry_operators("C1"), 5, 30.0)
    assert column[0, :2].tolist() == [0, 300] and shift[0, :2].tolist() == [1, 0]
    assert value[0, :2].tolist() == [50.0, 48.0] and bool((value.diff(dim=1) <= 0).all())
    for image in range(2):
        for first in range(5):
            for second in range(first):
                pair = column[image, [first, second]]
                if pair[0] // 300 == pair[1] // 300:
                    apart = angular_distance_deg(rotation[pair[0] % 300][None], rotation[pair[1] % 300][None])
                    assert float(apart) >= 30.0
    # the best that a search without mercy finds second for the other image
    best = joint[1].amax(dim=0)
    top = int(best.argmax())
    far = angular_distance_deg(rotation[top % 300].expand(300, 3, 3), rotation) >= 30.0
    allowed = torch.ones(600, dtype=torch.bool)
    allowed[top // 300 * 300 : (top // 300 + 1) * 300] = far
    assert int(column[1, 1]) == int(best.masked_fill(~allowed, -torch.inf).argmax())


def test_modes_that_a_symmetry_makes_equal_are_one() -> None:
    group = symmetry_operators("C2")
    rotation = random_rotations(50, torch.Generator().manual_seed(4))
    rotation[1] = group[1].float() @ rotation[0]
    joint = torch.zeros(1, 1, 50)
    joint[0, 0, 0], joint[0, 0, 1] = 9.0, 8.0
    with_group, _, _ = separated_modes(joint, rotation, group, 3, 30.0)
    without, _, _ = separated_modes(joint, rotation, symmetry_operators("C1"), 3, 30.0)
    assert 1 not in with_group[0].tolist() and without[0, 1] == 1


def test_there_may_be_fewer_modes_than_asked_for() -> None:
    column, _, _ = separated_modes(torch.zeros(1, 1, 1), torch.eye(3)[None], symmetry_operators("C1"), 2, 30.0)
    assert column.tolist() == [[0, -1]]

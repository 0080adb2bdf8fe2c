from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvar_engine.abinitio.mixture import LowImages, low_box, read_low
from solvar_engine.abinitio.sgd import search
from solvar_engine.abinitio.sgd.search import (
    Progress,
    SgdOptions,
    best_poses,
    descended,
    find_structure_by_sgd,
    first_shell,
    random_spheres,
)
from solvar_engine.abinitio.structure import AbinitioOptions
from solvar_engine.estimation.model.bands import change_box
from solvar_engine.imaging.rotation import angular_distance_deg
from solvar_engine.imaging.symmetry import symmetry_operators
from solvar_engine.imaging.types import Pose
from solvar_engine.projectors.create import create_projector
from solvar_engine.projectors.options import DEFAULT_OPTIONS
from tests.abinitio.sources import PIXEL_SIZE, simulated
from tests.abinitio.test_structure import Memory, errors, silent

NO_SYMMETRY = symmetry_operators("C1")


@pytest.fixture(scope="module")
def good_images() -> tuple[LowImages, Pose, Tensor]:
    source, truth, volume = simulated(300, signal=2.0)
    return read_low(source, torch.arange(300), 6), truth, volume


def steps(images: LowImages, options: SgdOptions, seed: int = 0) -> list[Progress]:
    generator = torch.Generator().manual_seed(seed)
    return list(descended(images, (4, 6), 0.7, NO_SYMMETRY, generator, DEFAULT_OPTIONS, options))


def test_a_map_is_found_and_held_out_images_see_it(good_images: tuple[LowImages, Pose, Tensor]) -> None:
    images, truth, _ = good_images
    options = SgdOptions(iterations=66, batch_size=50, report_every=20)
    found = steps(images, options)
    assert [step.iteration for step in found] == [20, 40, 60, 66]
    assert [step.shell for step in found] == [4, 5, 6, 6]
    assert found[-1].relative_error < 0.9 * found[0].relative_error
    assert all(0 < step.evaluated <= 1 for step in found) and found[-1].lipschitz > 0
    volume = found[-1].volume
    assert float(volume.min()) == 0 and len(volume) == low_box(images.disk)
    rotation, shift_px, _ = best_poses(images, volume, 0.7, DEFAULT_OPTIONS)
    pose = Pose(rotation, shift_px * PIXEL_SIZE)
    share = max(share_near(pose.rotation @ turn, truth.rotation) for turn in hands())
    assert share > 0.6


def hands() -> tuple[Tensor, Tensor]:
    return torch.eye(3), torch.diag(torch.tensor([-1.0, -1.0, 1.0]))


def share_near(rotation: Tensor, truth: Tensor) -> float:
    """Largest share of orientations within 30 degrees of the truth, after the turn that one of them suggests."""
    turns = [truth[row] @ rotation[row].T for row in range(40)]
    return max(float((angular_distance_deg(turn @ rotation, truth) < 30).float().mean()) for turn in turns)


def test_the_seed_alone_decides(good_images: tuple[LowImages, Pose, Tensor]) -> None:
    images = good_images[0][:60]
    options = SgdOptions(iterations=3, batch_size=20)
    first, again, other = (steps(images, options, seed)[-1].volume for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_start_is_as_strong_as_the_images(good_images: tuple[LowImages, Pose, Tensor]) -> None:
    images, truth, volume = good_images
    start = random_spheres(images, NO_SYMMETRY, torch.Generator().manual_seed(3), DEFAULT_OPTIONS)
    projector = create_projector(len(start), images.disk, DEFAULT_OPTIONS)
    weight = images.disk.weight * (images.disk.shell > 0) * images.ctf.square().mean(dim=0)
    powers = []
    for one in (start, change_box(volume, len(start), 6)):
        slices = projector.project(projector.to_grid(one[None]), truth.rotation)[:, :, 0]
        powers.append(float(slices.abs().square().mean(dim=0) @ weight))
    assert powers[0] == pytest.approx(powers[1], rel=0.15)
    assert float(start.min()) >= 0


def test_the_start_has_the_symmetry(good_images: tuple[LowImages, Pose, Tensor]) -> None:
    start = random_spheres(good_images[0], symmetry_operators("C2"), torch.Generator().manual_seed(3), DEFAULT_OPTIONS)
    turned = start.flip(1, 2).roll((1, 1), (1, 2))
    torch.testing.assert_close(turned[:, 1:, 1:], start[:, 1:, 1:], rtol=1e-4, atol=1e-5 * float(start.max()))


def test_the_best_poses_under_the_true_map_are_the_true_ones(good_images: tuple[LowImages, Pose, Tensor]) -> None:
    images, truth, volume = good_images
    low = change_box(volume, low_box(images.disk), 6)
    rotation, shift_px, log_likelihood = best_poses(images, low, 0.7, DEFAULT_OPTIONS)
    assert float(angular_distance_deg(rotation, truth.rotation).median()) < 15
    error = shift_px - truth.shift / PIXEL_SIZE
    assert float(error.square().mean().sqrt()) < 0.75
    assert len(log_likelihood) == 300 and bool((log_likelihood < 0).all())


def test_the_first_band() -> None:
    assert first_shell(128, 2.0, 20) == 6 and first_shell(32, 4.0, 8) == 3 and first_shell(512, 4.0, 8) == 8


def test_a_structure_is_found_and_a_search_that_is_done_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    source, truth, _ = simulated(300, signal=3.0)
    options = AbinitioOptions(max_shell=6, shift_std_px=0.7, seed=1)
    memory = Memory()
    sgd = SgdOptions(iterations=60, batch_size=50)
    found = find_structure_by_sgd(source, options, silent, memory, sgd=sgd)
    assert found.verdict.found and found.contrast_sign == 1
    distance, _ = errors(found, truth)
    assert float(distance.median()) < 8
    memory.saved = {"low_search": memory.saved["low_search"]}
    monkeypatch.setattr(search, "descended", None)
    again = find_structure_by_sgd(source, options, silent, memory, sgd=sgd)
    assert torch.equal(again.pose.rotation, found.pose.rotation)


def test_what_cannot_be_done_is_refused() -> None:
    source, _, _ = simulated(120, signal=1.0)
    for options, sgd, message in (
        (AbinitioOptions(classes=2), SgdOptions(), "one structure only"),
        (AbinitioOptions(), SgdOptions(prior="flat"), "prior is 'flat'"),
        (AbinitioOptions(), SgdOptions(iterations=0), "iterations is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            find_structure_by_sgd(source, options, silent, sgd=sgd)

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.abinitio import structure
from solvar_engine.abinitio.online_em import Level
from solvar_engine.abinitio.structure import AbinitioOptions, Structure, find_structure, other_hand
from solvar_engine.imaging.gauge import best_global_rotation, in_frame_of
from solvar_engine.imaging.rotation import angular_distance_deg
from solvar_engine.imaging.types import Pose
from solvar_engine.reconstruction.mean import estimate_mean
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations
from tests.abinitio.sources import PoselessSource, simulated

HALF_TURN = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))


def silent(stage: str, share: float, sentence: str, shell: int | None = None, is_caution: bool = False) -> None:
    assert 0 <= share <= 1 and stage


class Memory:
    """A checkpoint that ends the run when it is so full."""

    def __init__(self) -> None:
        self.saved: dict[str, Mapping[str, Tensor]] = {}
        self.most = 0

    def load(self, name: str) -> Mapping[str, Tensor] | None:
        return self.saved.get(name)

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        self.saved[name] = tensors
        if len(self.saved) == self.most:
            raise KeyboardInterrupt


def errors(found: Structure, truth: Pose) -> tuple[Tensor, Pose]:
    """Errors of the orientations, degrees, in the frame and the hand of the truth, and the poses there."""
    best = None
    for pose in (found.pose, Pose(found.pose.rotation @ HALF_TURN, found.pose.shift)):
        for row in range(20):
            turn = truth.rotation[row] @ pose.rotation[row].T
            for _ in range(5):
                distance = angular_distance_deg(turn @ pose.rotation, truth.rotation)
                near = distance < 20
                if int(near.sum()) < 3:
                    break
                turn = best_global_rotation(truth.rotation[near], pose.rotation[near])
            if best is None or float(distance.median()) < float(best[0].median()):
                best = distance, pose
    assert best is not None
    return best


def correlation(first: Tensor, second: Tensor) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float((first * second).sum() / (first.norm() * second.norm()))


@pytest.fixture(scope="module", autouse=True)
def short_levels() -> Iterator[None]:
    """Fewer steps: these images are good."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structure, "LEVELS", (Level(5, 25), Level(6, 10), Level(7, 4, knows_junk=True)))
        yield


@pytest.fixture(scope="module")
def solved() -> tuple[PoselessSource, Pose, Tensor, Structure]:
    """Dark images, on purpose."""
    source, truth, volume = simulated(400, signal=3.0)
    source = replace(source, images=-source.images)
    return source, truth, volume, find_structure(source, AbinitioOptions(seed=3), silent)


def test_a_structure_is_found(solved: tuple[PoselessSource, Pose, Tensor, Structure]) -> None:
    source, truth, volume, found = solved
    distance, pose = errors(found, truth)
    assert float(distance.median()) < 3.0 and float((distance > 20).float().mean()) < 0.05
    assert found.contrast_sign == -1
    assert found.verdict.found and found.verdict.gain > 4 * found.verdict.error
    assert found.verdict.missing_views is None and found.verdict.hole_deg == 0
    assert not bool(found.is_junk.any()) and found.populations.tolist() == [1.0]
    # in the frame of the truth the map is that of the images at these poses; and that is the true one
    placed = in_frame_of(pose, truth)
    assert float((placed.shift - truth.shift).std()) < 0.5 * source.pixel_size
    everyone = torch.arange(len(source))
    bright = source.with_sign(-1.0).with_pose(placed)
    mean = estimate_mean(*(accumulate_normal_equations(bright, half) for half in (everyone[::2], everyone[1::2]))).mean
    assert correlation(mean, volume) > 0.9
    # what is returned is this map, in its own frame: same power, positive
    assert float(found.volumes[0].std()) == pytest.approx(float(volume.std()), rel=0.15)
    assert float(found.volumes[0].max()) > -2 * float(found.volumes[0].min())


def test_uncertainties_are_those_of_the_errors(solved: tuple[PoselessSource, Pose, Tensor, Structure]) -> None:
    _, truth, _, found = solved
    distance, _ = errors(found, truth)
    expected = float(found.rotation_std_deg.median()) * 3**0.5  # of three axes together
    assert 0.5 * expected < float(distance.median()) < 2 * expected
    assert 0.3 < found.shift_std_px < 1.6


def test_the_map_belongs_to_the_poses_in_either_hand(solved: tuple[PoselessSource, Pose, Tensor, Structure]) -> None:
    source, _, _, found = solved
    for result in (found, other_hand(found)):
        placed = source.with_sign(result.contrast_sign).with_pose(result.pose)
        everyone = torch.arange(len(source))
        halves = (accumulate_normal_equations(placed, half) for half in (everyone[::2], everyone[1::2]))
        assert correlation(estimate_mean(*halves).mean, result.volumes[0]) > 0.98
    assert correlation(found.volumes[0], other_hand(found).volumes[0]) < 0.9


def test_nothing_is_learnt_from_images_that_cannot_be_used(
    solved: tuple[PoselessSource, Pose, Tensor, Structure],
) -> None:
    source, _, _, alone = solved
    count = len(source)
    more = replace(
        source,
        images=torch.cat((source.images, source.images[:60])),  # as good as the others, but for what is said of them
        transfer=torch.cat((source.transfer, source.transfer[:60])),
        pose=Pose(torch.eye(3).expand(count + 60, 3, 3), torch.zeros(count + 60, 2)),
        contrast=torch.ones(count + 60),
    )
    is_usable = torch.arange(count + 60) < count
    found = find_structure(more, AbinitioOptions(seed=3), silent, is_usable=is_usable)
    assert found.is_junk.tolist() == (~is_usable).tolist()
    assert float(angular_distance_deg(found.pose.rotation[:count], alone.pose.rotation).median()) < 0.05
    assert correlation(found.volumes[0], alone.volumes[0]) > 0.999
    assert found.verdict.gain == pytest.approx(alone.verdict.gain, rel=1e-3)


def test_noise_has_no_structure() -> None:
    source, _, _ = simulated(300, signal=1e-6)
    found = find_structure(source, AbinitioOptions(), silent)
    assert not found.verdict.found
    assert found.verdict.gain < 4 * found.verdict.error
    assert len(found.verdict.per_image) == 30


def test_a_killed_run_goes_on_and_ends_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    source, _, _ = simulated(100, signal=3.0)
    monkeypatch.setattr(structure, "is_real", lambda gain: (1.0, 0.1, True))  # so few images are no proof
    options = AbinitioOptions(max_shell=6, shift_std_px=0.7)
    whole = find_structure(source, options, silent)
    memory, stages, reached = Memory(), [], []

    def report(stage: str, share: float, sentence: str, shell: int | None = None, is_caution: bool = False) -> None:
        stages.append(stage)
        reached.extend([] if shell is None else [shell])

    for memory.most in (1, 3, 4, 5):  # in the first search, after both of all poses, and after the first refinement
        with pytest.raises(KeyboardInterrupt):
            find_structure(source, options, report, memory)
    memory.most = 0
    stages.clear()
    resumed = find_structure(source, options, report, memory)
    assert list(memory.saved) == ["level_5", "level_6", "modes", "better_modes", "poses"]
    assert set(stages) <= {"global search", "verdict", "refinement"} and reached[:2] == [5, 6]
    assert torch.equal(resumed.pose.rotation, whole.pose.rotation) and torch.equal(resumed.volumes, whole.volumes)


def test_what_cannot_be_done_is_refused() -> None:
    source, _, _ = simulated(60, signal=1.0)
    for options, message in (
        (AbinitioOptions(symmetry="X1"), "symmetry"),
        (AbinitioOptions(max_shell=16), "last shell"),
        (AbinitioOptions(classes=0), "classes"),
        (AbinitioOptions(classes=2), "expected at least 100"),
    ):
        with pytest.raises(ValueError, match=message):
            find_structure(source, options, silent)

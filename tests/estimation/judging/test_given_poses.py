"""Whether poses belong to their images, on particles whose poses are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from solvar_engine.data.stream import PreparedParticles
from solvar_engine.estimation.judging.given_poses import SHIFT_FACTORS, PoseEvidence, mean_and_error, pose_evidence
from solvar_engine.imaging.rotation import rotvec_to_rotation
from solvar_engine.imaging.types import Pose
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.projectors.torch_ref import TorchProjector
from tests.jobs.prepared import particles_of
from tests.reconstruction.simulated import LinearPhantom, noise

BOX, IMAGES = 16, 1200
PHANTOM = LinearPhantom.create(1, sigma=0.09)
MEAN = PHANTOM.mean(BOX)
HALVES = torch.arange(0, IMAGES, 2), torch.arange(1, IMAGES, 2)


def particles(strength: float = 1.0, group: torch.Tensor | None = None) -> PreparedParticles:
    source = particles_of(PHANTOM.scaled(strength), torch.zeros(IMAGES, 1), BOX)
    return source if group is None else replace(source, group=group, frequency_ratio=torch.ones(2), noise_variance=(
        source.noise_variance.expand(2, -1)))  # fmt: skip


def evidence_of(source: PreparedParticles, mean: torch.Tensor = MEAN, seed: int = 0) -> PoseEvidence:
    return pose_evidence(source, HALVES, (mean, mean), SliceOptions(), seed)


def test_gain_is_half_the_squared_distance_of_the_slices() -> None:
    """Y = P mu + noise: the expectation of log p(Y | own) - log p(Y | other) is |P mu - P' mu|^2 / 2."""
    source = particles(3.0)
    found = evidence_of(source, 3.0 * MEAN)
    assert len(found.index.unique()) == 1000 and int((found.index % 2).sum()) == 500
    projector = TorchProjector(BOX, source.disk)
    grid = projector.to_grid(3.0 * MEAN[None])
    distances = []
    for half in HALVES:
        rows = found.index[torch.isin(found.index, half)]
        (batch,) = source.batches(rows, source.disk, len(rows))
        slices = projector.project(grid, batch.rotation, batch.ctf)
        assert batch.background is not None
        batch.background.take_from(slices, source.disk.weight)
        difference = slices[:, None, :, 0] - slices[None, :, :, 0]
        # any other image of the half is as likely to be compared with
        squared = difference.abs().square() @ source.disk.weight
        distances.append(float(squared.sum() / (len(rows) * (len(rows) - 1))) / 2)
    gain, error = mean_and_error(found.orientation_gain)
    assert abs(gain - sum(distances) / 2) < 4 * error and gain > 15 * error


def test_every_clean_image_gains_at_its_own_pose() -> None:
    """Without noise the gain of each is a square, whatever the power of both slices is."""
    clean = PHANTOM.slices(torch.zeros(IMAGES, 1), particles().pose.rotation, particles().disk)
    gain = evidence_of(replace(particles(), coefficients=clean)).orientation_gain
    assert float(gain.min()) > -0.01 * float(gain.mean()) and float(gain.mean()) > 0.1


def test_poses_of_other_images_gain_nothing() -> None:
    source = particles()
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(3))
    foreign = source.with_pose(Pose(source.pose.rotation[order], source.pose.shift))
    gain, error = mean_and_error(evidence_of(foreign).orientation_gain)
    assert abs(gain) < 4 * error


def test_images_on_another_grey_scale_tell_as_much() -> None:
    """Whose noise is as much stronger as their signal: the mean is that of the others."""
    known, group = evidence_of(particles(2.0), 2.0 * MEAN), (torch.arange(IMAGES) % 4 < 2).long()
    source, scale = particles(2.0, group), torch.where(group > 0, 10.0, 1.0)
    noise_variance = source.noise_variance * torch.tensor([[1.0], [100.0]])
    scaled = replace(source, noise_variance=noise_variance, coefficients=source.coefficients * scale[:, None])
    found = evidence_of(scaled.with_grey_scale(scale), 2.0 * MEAN)
    for name in ("signal", "orientation_gain", "shift_gain", "ctf_gain", "place_gain", "turn_gain"):
        own, error = mean_and_error(getattr(known, name).reshape(-1))
        assert float(getattr(found, name).mean()) == pytest.approx(own, abs=max(4 * error, 0.02 * abs(own))), name


def test_each_half_is_held_against_the_mean_of_the_other() -> None:
    """A mean that holds the noise of its own images would find any poses right."""
    source, nothing = particles(), torch.zeros_like(MEAN)
    found = pose_evidence(source, HALVES, (MEAN, nothing), SliceOptions(), 0)
    gained = found.orientation_gain != 0
    assert bool(gained[found.index % 2 == 1].all()) and not bool(gained[found.index % 2 == 0].any())


def test_orientations_are_exchanged_within_optics_groups() -> None:
    """Where one group has a single view, its images tell nothing, whatever the other's are."""
    group = (torch.arange(IMAGES) % 8 < 4).long()
    source = particles(group=group)
    rotation = source.pose.rotation.clone()
    rotation[group == 1] = rotation[0].clone()
    found = evidence_of(source.with_pose(Pose(rotation, source.pose.shift)))
    of_group = group[found.index]
    assert float(found.orientation_gain[of_group == 1].abs().max()) < 1e-3
    assert float(found.orientation_gain[of_group == 0].mean()) > 0


def test_images_of_groups_of_two_are_compared_with_those_of_other_groups() -> None:
    """Of most of these groups one image is in the sample, which has no other one to be compared with."""
    source = particles()
    group = torch.arange(IMAGES) // 2
    source = replace(source, group=group, frequency_ratio=torch.ones(IMAGES // 2), noise_variance=(
        source.noise_variance.expand(IMAGES // 2, -1)))  # fmt: skip
    gain, known = evidence_of(source).orientation_gain, evidence_of(particles()).orientation_gain
    assert bool((gain != 0).all())
    assert float(gain.mean()) == pytest.approx(float(known.mean()), rel=0.15)


@pytest.mark.parametrize("factor", SHIFT_FACTORS)
def test_shifts_of_another_unit_or_sign_are_found(factor: float) -> None:
    """Images centred by ``1 / factor`` times what they need gain by that factor, and lose by the others.

    Those that need nothing, since they were moved before, gain by none.
    """
    truth = 6.0 * noise(IMAGES, 2, seed=5)
    source = particles(strength=2.0)
    # as they are, all are centred: they are off by -truth once these shifts are taken for theirs
    source = source.with_pose(Pose(source.pose.rotation, -truth))
    source = replace(source, centring=torch.zeros(IMAGES, 2))
    (batch,) = source.batches(torch.arange(IMAGES), source.disk, IMAGES)
    decentred = replace(
        particles(strength=2.0), coefficients=batch.with_background() / torch.where(source.disk.shell == 0, 0.01, 1.0)
    )
    images, shift = (decentred, truth / factor) if factor else (particles(strength=2.0), truth)
    given = Pose(source.pose.rotation, shift)
    found = evidence_of(replace(images, pose=given, centring=torch.zeros(IMAGES, 2)), 2.0 * MEAN)
    best = SHIFT_FACTORS.index(factor)
    gains = [mean_and_error(-column) for column in found.shift_gain.T]
    assert gains[best][0] > 5 * gains[best][1]
    assert max(range(len(gains)), key=lambda place: gains[place][0]) == best


def test_gains_belong_to_their_rows_in_any_order() -> None:
    """Rows of a half-set are not ascending where a list names the images in another order."""
    source, few = particles(), (torch.arange(0, 200, 2), torch.arange(1, 200, 2))
    found, turned = (
        pose_evidence(source, halves, (MEAN, MEAN), SliceOptions(), 0)
        for halves in (few, (few[0].flip(0), few[1].flip(0)))
    )
    for name in ("signal", "shift_gain", "ctf_gain"):
        known, other = (getattr(one, name)[one.index.argsort()] for one in (found, turned))
        columns = slice(1, None) if name == "ctf_gain" else slice(None)  # the first one has other partners
        torch.testing.assert_close(known[..., columns], other[..., columns], rtol=1e-4, atol=1e-4)


def test_places_and_turns_that_are_found_are_judged_by_other_pixels() -> None:
    """Right poses gain nothing by them, whatever noise finds; wrong ones do, and as far as they are wrong."""
    source, truth = particles(strength=8.0), 3.0 * noise(IMAGES, 2, seed=5)
    turns = rotvec_to_rotation(0.14 * noise(IMAGES, 3, seed=6))
    poses = source.pose, Pose(source.pose.rotation, truth), Pose(source.pose.rotation @ turns, source.pose.shift)
    right, moved, turned = (evidence_of(source.with_pose(pose), 8.0 * MEAN) for pose in poses)
    assert all(float(gain.mean()) > 0 for gain in (right.place_gain, right.turn_gain, turned.place_gain))
    for gain, error in map(mean_and_error, (moved.place_gain, turned.turn_gain)):
        assert gain < -5 * error
    assert float(moved.place_gain.mean()) < 5 * float(moved.turn_gain.mean())
    squares = float(truth[moved.index].square().sum(dim=1).mean())
    assert float(moved.move.mean()) == pytest.approx(squares, rel=0.25)
    assert abs(float(right.move.mean())) < 0.1 * squares

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solvar_engine.abinitio.semi_amortized.auto_decoding import ADAM, DecodingOptions, auto_decoded
from solvar_engine.abinitio.semi_amortized.auto_encoding import PAPER_ENCODING, Epoch, auto_encoded
from solvar_engine.abinitio.semi_amortized.encoder import PoseEncoder
from solvar_engine.abinitio.semi_amortized.maps import HartleyMap, RunningMap
from solvar_engine.abinitio.semi_amortized.search import (
    PAPER,
    best_named,
    create_map,
    decoded,
    encoded,
    find_structure_by_semi_amortized,
    new_training,
)
from solvar_engine.abinitio.structure import AbinitioOptions
from solvar_engine.imaging.rotation import angular_distance_deg, rotvec_to_rotation
from tests.abinitio.semi_amortized.small import OPTIONS, problem_of, shifts_px, small_problem, with_encoding
from tests.abinitio.sources import simulated
from tests.abinitio.test_structure import Memory, errors, silent


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def last(epochs: list[Epoch]) -> Epoch:
    return epochs[-1]


@pytest.mark.parametrize("steps", [DecodingOptions(batch_size=80), DecodingOptions(ADAM, batch_size=80)])
def test_poses_of_their_own_get_better(steps: DecodingOptions) -> None:
    problem, truth, volume = small_problem(160)
    turn = torch.deg2rad(torch.tensor(8.0)) * torch.randn(160, 3, generator=generator())
    moved = 0.3 * torch.randn(160, 2, generator=generator())
    start = truth.rotation @ rotvec_to_rotation(turn), shifts_px(truth) + moved
    model = RunningMap(problem, volume, 0.3)
    epochs = list(auto_decoded(problem, *start, model, generator(), steps, 4))
    before = angular_distance_deg(start[0], truth.rotation)
    after = [float(angular_distance_deg(epoch.rotation, truth.rotation).median()) for epoch in epochs]
    assert after[-1] < 0.6 * float(before.median())
    assert float((last(epochs).shift_px - shifts_px(truth)).std()) < 0.3
    assert last(epochs).loss == -float(last(epochs).log_joint.mean()) and last(epochs).head is None
    identity = torch.eye(3).expand(160, 3, 3)
    torch.testing.assert_close(last(epochs).rotation @ last(epochs).rotation.mT, identity, rtol=0, atol=1e-4)


def test_batches_without_an_image_leave_its_momentum_alone() -> None:
    problem, truth, volume = small_problem(40)
    model = HartleyMap(problem, volume, 0.0)  # a map that stays
    steps = DecodingOptions(ADAM, steps=2, rate=0.01)
    start = truth.rotation.flip(0).contiguous(), 0 * shifts_px(truth)
    together, apart = (
        list(auto_decoded(problem, *start, model, generator(), replace(steps, batch_size=size), 2))[-1]
        for size in (40, 7)
    )
    torch.testing.assert_close(together.rotation, apart.rotation, rtol=0, atol=1e-4)


def test_encoding_looks_at_every_image_once() -> None:
    problem, _, volume = small_problem(50)
    options = with_encoding(batch_size=30, local_steps=2)
    training = new_training(problem.images, options, generator())
    model = create_map(problem, volume, options, 0.05)
    (epoch,) = auto_encoded(problem, training, model, generator(), options.encoding, 1)
    assert float(torch.linalg.det(epoch.rotation).min()) > 0.99
    assert epoch.head is not None and 0 <= int(epoch.head.min()) and int(epoch.head.max()) < OPTIONS.heads
    named, _ = best_named(problem, training, model.grid(), 0)
    better, shift_px = best_named(problem, training, model.grid(), 2)
    grid = model.grid()
    of_named = problem.log_joint(grid, problem.images, named, training.candidates(problem, problem.images)[1][:, 0])
    assert float((problem.log_joint(grid, problem.images, better, shift_px) - of_named).mean()) > 0


def test_the_published_way_lowers_its_loss() -> None:
    problem, _, volume = small_problem(128)
    options = replace(PAPER, width=8, encoder_rate=1e-3, encoding_epochs=6, decoding_epochs=2)
    assert options.encoding == PAPER_ENCODING
    training = new_training(problem.images, options, generator())
    epochs = list(encoded(problem, training, generator(), options, 0.3 * volume))
    assert last(epochs).loss < epochs[0].loss
    ends = list(decoded(problem, training, generator(), options, last(epochs).volume))
    assert float(ends[-1].log_joint.mean()) > float(last(epochs).log_joint.mean())


def test_a_structure_is_found_from_random_spheres() -> None:
    source, truth, _ = simulated(300, signal=3.0)
    kept: list[PoseEncoder] = []
    said: list[str] = []

    def report(stage: str, share: float, sentence: str, shell: int | None = None, is_caution: bool = False) -> None:
        said.extend([sentence] if "Epoch" in sentence else [])

    semi = replace(
        with_encoding(simulations_per_image=4, first_simulations=1000), width=8, heads=6, encoding_epochs=6,
        decoding_epochs=2,
    )  # fmt: skip
    options, memory = AbinitioOptions(max_shell=6, shift_std_px=0.7, seed=1), Memory()
    found = find_structure_by_semi_amortized(source, options, report, memory, semi=semi, keep_encoder=kept.append)
    assert found.verdict.found
    distance, _ = errors(found, truth)
    assert float(distance.median()) < 6
    assert len(said) == 8 and "heads name" in said[0] and "by themselves" in said[-1]
    assert [encoder.settings["heads"] for encoder in kept] == [6]
    assert "low_search" in memory.saved


def test_the_seed_alone_decides() -> None:
    problem, _, volume = small_problem(60)
    found: list[Tensor] = []
    for seed in (1, 1, 2):
        training = new_training(problem.images, OPTIONS, generator(seed))
        epochs = encoded(problem, training, generator(seed), replace(OPTIONS, encoding_epochs=1), volume)
        found.append(last(list(epochs)).rotation)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_what_cannot_be_done_is_refused() -> None:
    source, _, _ = simulated(60, signal=1.0)
    for semi, options, message in (
        (OPTIONS, AbinitioOptions(classes=2), "classes is 2"),
        (replace(OPTIONS, decoding_epochs=0), AbinitioOptions(), "expected at least 1 of each"),
        (replace(OPTIONS, map_steps="steepest"), AbinitioOptions(), "map_steps is 'steepest'"),
        (replace(OPTIONS, map_steps="adam"), AbinitioOptions(symmetry="C2"), "keep no symmetry"),
    ):
        with pytest.raises(ValueError, match=message):
            find_structure_by_semi_amortized(source, options, silent, semi=semi)
    problem, truth, volume = small_problem(10)
    model = RunningMap(problem, volume, 0.3)
    with pytest.raises(ValueError, match="pose_steps is 'sgd'"):
        next(auto_decoded(problem, truth.rotation, truth.shift, model, generator(), DecodingOptions("sgd"), 1))
    training = new_training(problem_of(problem.images).images, OPTIONS, generator())
    wrong = replace(OPTIONS.encoding, learns_from="books")
    with pytest.raises(ValueError, match="learns_from is 'books'"):
        next(auto_encoded(problem, training, model, generator(), wrong, 1))

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from solvar_engine.abinitio import structure
from solvar_engine.abinitio.moments import search
from solvar_engine.abinitio.moments.basis import BallBasis
from solvar_engine.abinitio.moments.recovery import Recovered, RecoveryOptions
from solvar_engine.abinitio.moments.search import find_structure_by_moments, map_of_moments, sentence_of_misfit
from solvar_engine.abinitio.moments.steerable import EmpiricalMoments
from solvar_engine.abinitio.online_em import Level
from solvar_engine.abinitio.structure import AbinitioOptions
from solvar_engine.estimation.model.bands import change_box
from solvar_engine.imaging.rotation import random_rotations
from tests.abinitio.sources import simulated
from tests.abinitio.test_structure import Memory, errors, silent


def test_the_map_of_moments_is_as_strong_and_as_wide_as_that_of_the_images() -> None:
    source, _, volume = simulated(2_000, signal=0.5)
    options = AbinitioOptions(shift_std_px=0.7)
    heard: list[float] = []

    def report(stage: str, share: float, sentence: str, shell: int | None = None, is_caution: bool = False) -> None:
        heard.append(share)
        assert not is_caution

    made = map_of_moments(
        source, torch.arange(2_000), options, RecoveryOptions(starts=1), torch.Generator().manual_seed(0), report
    )
    truth = change_box(volume[None], len(made), 8)[0]
    assert heard == sorted(heard) and heard[-1] == 1
    assert float(made.sum() / truth.sum()) == pytest.approx(1, abs=0.25)
    assert float(made.norm() / truth.norm()) == pytest.approx(1, abs=0.1)
    assert float(made.clamp_max(0).norm()) < 0.1 * float(made.norm())


def test_the_best_start_counts_and_ice_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    source, _, _ = simulated(100, signal=1.0)
    source.images[:3] *= 30
    sentences: list[str] = []

    def report(stage: str, share: float, sentence: str, shell: int | None = None, is_caution: bool = False) -> None:
        sentences.append(sentence)

    def recovered(data: EmpiricalMoments, basis: BallBasis, *_: object) -> Iterator[Recovered]:
        for objective in (2.0, 1.0, 3.0):
            yield Recovered(torch.full((len(basis),), objective).double(), torch.zeros(0), 0.0, 0.1, 0.1, objective)

    monkeypatch.setattr(search, "recovered", recovered)
    made = map_of_moments(
        source, torch.arange(100), AbinitioOptions(), RecoveryOptions(starts=3), torch.Generator(), report
    )
    assert "Moments of 97 images were taken in one pass" in sentences
    basis = BallBasis.create(len(made), 0.36 * len(made), 8)
    torch.testing.assert_close(made, basis.volume(torch.ones(len(basis))))


def test_moments_that_no_map_of_uniform_views_has_are_a_caution() -> None:
    rotation = random_rotations(40_000, torch.Generator().manual_seed(3))
    near = torch.rand(40_000, generator=torch.Generator().manual_seed(4)) < torch.exp(6 * (rotation[:, 0, 2] - 1))
    source, _, _ = simulated(2_000, signal=0.5, rotation=rotation[near][:2_000])
    cautions: list[str] = []

    def report(stage: str, share: float, sentence: str, shell: int | None = None, is_caution: bool = False) -> None:
        cautions.extend([sentence] if is_caution else [])

    map_of_moments(
        source, torch.arange(2_000), AbinitioOptions(), RecoveryOptions(starts=1), torch.Generator().manual_seed(0),
        report,
    )  # fmt: skip
    assert len(cautions) == 1 and "views are far from uniform" in cautions[0]


def test_noise_is_no_misfit() -> None:
    assert "to 20 %, of which their number and noise explain 10 %" in sentence_of_misfit(0.2, 0.1)
    assert not sentence_of_misfit(0.2, 0.19)  # so noisy
    assert not sentence_of_misfit(0.08, 0.01)  # as small as that of other bases


def test_a_structure_is_found_from_moments_and_a_stopped_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "LEVELS", (Level(5, 20), Level(6, 8, knows_junk=True)))
    source, truth, _ = simulated(300, signal=3.0)
    options = AbinitioOptions(max_shell=6, shift_std_px=0.7, seed=1)
    memory = Memory()
    memory.most = 1
    with pytest.raises(KeyboardInterrupt):
        find_structure_by_moments(source, options, silent, memory)
    assert set(memory.saved) == {"first_map"}
    memory.most = 0  # no end
    monkeypatch.setattr(search, "moments_of", None)  # images are read once
    found = find_structure_by_moments(source, options, silent, memory)
    distance, _ = errors(found, truth)
    assert found.verdict.found and float(distance.median()) < 8


def test_several_classes_are_an_error() -> None:
    source, _, _ = simulated(200, signal=2.0)
    with pytest.raises(ValueError, match="moments tell of one structure only"):
        find_structure_by_moments(source, AbinitioOptions(classes=2), silent)
    with pytest.raises(ValueError, match="starts is 0"):
        find_structure_by_moments(source, AbinitioOptions(), silent, recovery=RecoveryOptions(starts=0))

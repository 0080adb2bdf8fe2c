"""What a fit says while it alternates between factors, poses and images."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from solvar_engine.estimation.alternation.problem import Masks
from solvar_engine.estimation.alternation.state import AlternationState, JudgedImages
from solvar_engine.estimation.solver.schedule import Schedule
from solvar_engine.jobs.fit import halves
from solvar_engine.projectors.options import SliceOptions
from tests.jobs.prepared import particles_of, silent_progress
from tests.reconstruction.simulated import LinearPhantom, noise

BOX, IMAGES = 12, 10


@pytest.mark.parametrize("share", [0.7, 0.0])
def test_a_model_that_most_images_contradict_is_doubted_in_words(share: float, monkeypatch, caplog) -> None:
    none = torch.zeros(IMAGES, dtype=torch.bool)
    judged = AlternationState(rounds=1, judged=JudgedImages(torch.ones(1, 6), none, torch.ones(IMAGES), share))
    saved: list[AlternationState] = []
    job = SimpleNamespace(
        params=SimpleNamespace(seed=0, objective="ml", refine_contrast=False, refine_poses=False),
        inputs=SimpleNamespace(halves=(torch.arange(0, IMAGES, 2), torch.arange(1, IMAGES, 2))),
        checkpoint=SimpleNamespace(load=lambda name, kind: None, save=lambda name, state: saved.append(state)),
        progress=silent_progress(),
        tried_rank=1,
        checkpoint_name=str,
        first_step=0,
        projector_options=SliceOptions(),
        schedule=Schedule(),
        units=Schedule().units(BOX),
        pose_rounds=0,
    )
    monkeypatch.setattr(halves, "alternate", lambda *_: iter([judged]))
    monkeypatch.setattr(halves, "half_set_fit", lambda problem, state: state)
    ball = torch.ones(BOX, BOX, BOX)
    source = particles_of(LinearPhantom.create(1), noise(IMAGES, 1), BOX)
    assert halves.fit_halves(job, source, Masks(ball, ball)) is judged and saved == [judged]
    assert ("70 % of the images look like no particle" in caplog.text) is bool(share)
    assert ("None is left out" in caplog.text) is bool(share)

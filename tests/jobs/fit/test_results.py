"""The last stage of a fit against the dense posterior of every image."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from solvar_engine.data.stream import PreparedParticles
from solvar_engine.distributed.world import ALONE
from solvar_engine.estimation.alternation.iteration import HalfSetFit
from solvar_engine.estimation.alternation.problem import Masks
from solvar_engine.estimation.judging.components import Components
from solvar_engine.estimation.model.objectives import OBJECTIVES
from solvar_engine.estimation.solver.epochs import Factors
from solvar_engine.estimation.solver.half_sets import HalfSetState
from solvar_engine.estimation.solver.problem import CovarianceProblem
from solvar_engine.jobs.fit.latents import find_latents
from solvar_engine.projectors.options import SliceOptions
from solvar_engine.reconstruction.mean import MeanEstimate
from solvar_engine.reconstruction.normal_equations import accumulate_normal_equations
from tests.estimation.problems import DenseModel, in_double
from tests.jobs.prepared import in_memory, particles_of, silent_progress
from tests.reconstruction.simulated import LinearPhantom, noise, relative_error

BOX, IMAGES, RANK, LEFT = 12, 60, 2, 0.01
PHANTOM = LinearPhantom.create(RANK, strength=0.5).scaled(6.0)


def components() -> Components:
    volumes = PHANTOM.factors(BOX)
    norms = volumes.flatten(1).norm(dim=1)
    eigenvalues = norms.double() ** 2
    nothing = torch.zeros(RANK, dtype=torch.float64)
    return Components(volumes / norms[:, None, None, None], eigenvalues, eigenvalues, nothing, nothing)


@pytest.mark.parametrize("known", [False, True])
def test_stated_contrasts_count_the_spread_of_those_in_use(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A contrast that was estimated, and is in use, was not known before: its spread is a part of the prior's."""
    batches = PreparedParticles.batches

    def without_backgrounds(*arguments):
        for batch in batches(*arguments):
            yield replace(batch, images=batch.with_background(), background=None)

    monkeypatch.setattr(PreparedParticles, "batches", without_backgrounds)
    contrast = 1 + 0.3 * noise(IMAGES, seed=3) if known else None
    outlier = torch.zeros(IMAGES, dtype=torch.bool)
    outlier[0] = True
    if contrast is not None:
        contrast = 2 * contrast  # their scale says nothing
        contrast[0] = 50.0  # nor does an outlier
    source = particles_of(PHANTOM, noise(IMAGES, RANK), BOX, contrast=contrast)
    everyone = torch.arange(IMAGES)
    problem = CovarianceProblem(
        source,
        (everyone[::2], everyone[1::2]),
        PHANTOM.mean(BOX),
        torch.ones(BOX, BOX, BOX),
        accumulate_normal_equations(source, everyone).density(),
        RANK,
        0,
        SliceOptions(),
        OBJECTIVES["ml"],
        LEFT,
    )
    job = SimpleNamespace(world=ALONE, progress=silent_progress(), inputs=SimpleNamespace(halves=problem.halves))
    one, identity = torch.ones(BOX, BOX, BOX), torch.eye(RANK, dtype=torch.float64)
    factors = Factors(PHANTOM.factors(BOX), identity, LEFT)
    state = HalfSetState(1, (factors, factors), torch.zeros(RANK, 0, dtype=torch.float64), (0.0, 0.0))
    mean = MeanEstimate(problem.mean, problem.mean, problem.mean, torch.ones(6, dtype=torch.float64))
    halves = HalfSetFit(source, mean, Masks(one, one), problem, state, outlier)
    found = find_latents(job, halves, components())
    spread = LEFT
    if contrast is not None:
        kept = contrast[1:] / contrast[1:].mean()
        spread += float(kept.var())
        assert spread > 5 * LEFT
    model = DenseModel.of(in_memory(source).double(), in_double(problem.full_band()), PHANTOM.factors(BOX).double())
    model = model.about_what_is_shown(LEFT**0.5)
    # images are judged with what is left beside the contrasts in use
    of_all, _ = model.posterior()
    assert relative_error(found.contrast[1:].double(), 1 + LEFT**0.5 * of_all[1:, -1]) < 1e-3
    assert relative_error(found.z.double(), of_all[:, :RANK] * components().eigenvalues.sqrt()) < 1e-3
    factors, column = model.loadings.tensor_split([-1], dim=2)
    wider = replace(model, loadings=torch.cat((factors, (spread / LEFT) ** 0.5 * column), dim=2))
    stated = (spread * wider.posterior()[1][:, -1, -1]).sqrt()
    assert relative_error(found.contrast_std[1:].double(), stated[1:]) < 2e-3

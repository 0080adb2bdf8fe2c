"""Particles placed by the density of all, against the dense mixture posterior."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from solvar_engine.distributed.world import ALONE
from solvar_engine.estimation.judging.bootstrap import ErrorFactors, with_larger_errors
from solvar_engine.estimation.judging.components import Components, LatentBatch
from solvar_engine.estimation.model.mixture import mixture_posterior
from solvar_engine.estimation.model.mixture_choice import find_density
from solvar_engine.estimation.model.objectives import latent_posterior
from solvar_engine.estimation.model.statistics import Statistics
from solvar_engine.jobs.fit.density import place_by_density
from tests.estimation.model.test_mixture import generator, images_of, two_wells
from tests.reconstruction.simulated import noise

COUNT, BAD = 2000, 7
EIGENVALUES = torch.tensor([9.0, 4.0, 1e-4], dtype=torch.float64)


def halves_with(outlier: Tensor) -> tuple[SimpleNamespace, SimpleNamespace]:
    everyone = torch.arange(COUNT - BAD)  # the last ones are in no half-set
    job = SimpleNamespace(world=ALONE, inputs=SimpleNamespace(halves=(everyone[::2], everyone[1::2])))
    problem = SimpleNamespace(generator=lambda *purpose: generator())
    return job, SimpleNamespace(outlier=outlier, problem=problem)


def latents_of(unit: Tensor) -> tuple[LatentBatch, Statistics]:
    """Posteriors under one Gaussian of images that show coordinates of unit scale times the deviations."""
    _, _, statistics = images_of(unit, strength=0.5)
    posterior, deviation = latent_posterior(statistics), EIGENVALUES.sqrt()[: unit.shape[1]]
    precision = torch.linalg.inv(posterior.covariance) / (deviation[:, None] * deviation)
    zero = torch.zeros(COUNT)
    z = (posterior.mean * deviation).float()
    return LatentBatch(torch.arange(COUNT), z, precision.float(), -posterior.objective, zero, zero), statistics


def components(rank: int) -> Components:
    values = EIGENVALUES[:rank]
    return Components(torch.zeros(rank, 2, 2, 2), values, values, values, values)


def test_particles_of_two_wells_are_placed_by_both() -> None:
    """A third coordinate that is dead stays as it was, and is independent of the others."""
    unit = torch.cat((two_wells(COUNT), torch.zeros(COUNT, 1, dtype=torch.float64)), dim=1)
    outlier = torch.zeros(COUNT, dtype=torch.bool)
    outlier[:100] = True
    unit[:100] = 30.0  # no estimate sees outliers
    latents, statistics = latents_of(unit)
    density, placed = place_by_density(*halves_with(outlier), components(3), latents, ErrorFactors())
    assert density is not None and len(density) >= 2
    live = statistics.integrate_out([2])
    good = torch.arange(100, COUNT - BAD)
    known, drawn = Statistics(live.gram[good], live.inner[good], live.residual[good]), generator()
    chosen = find_density(known, drawn)
    deviation = EIGENVALUES.sqrt()
    torch.testing.assert_close(density.means[:, :2], chosen.means * deviation[:2], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(density.covariances[:, 2, 2], EIGENVALUES[2:].expand(len(density)))
    expected = mixture_posterior(live, chosen)
    used = slice(0, COUNT - BAD)
    close = {"rtol": 2e-3, "atol": 2e-3}
    torch.testing.assert_close(placed.z[used, :2].double(), (expected.mean * deviation[:2])[used], **close)
    spread = expected.covariance() * (deviation[:2, None] * deviation[:2])
    torch.testing.assert_close(torch.linalg.inv(placed.precision[used, :2, :2].double()), spread[used], **close)
    assert torch.equal(placed.z[:, 2], latents.z[:, 2]) and not placed.precision[used, 2, :2].any()
    gain = expected.evidence - 0.5 * (latent_posterior(live).objective * -2 + live.residual)
    torch.testing.assert_close((placed.log_likelihood - latents.log_likelihood)[used], gain[used], **close)
    for before, after in ((latents.z, placed.z), (latents.precision, placed.precision)):
        assert torch.equal(before[-BAD:], after[-BAD:])


def test_one_gaussian_leaves_the_particles_where_they_are() -> None:
    latents, _ = latents_of(noise(COUNT, 2, dtype=torch.float64))
    density, placed = place_by_density(
        *halves_with(torch.zeros(COUNT, dtype=torch.bool)), components(2), latents, ErrorFactors()
    )
    assert placed is latents and density is not None
    torch.testing.assert_close(density.covariances, torch.diag(EIGENVALUES[:2])[None])
    assert not density.means.any() and density.weights.tolist() == [1.0]


def test_without_components_there_is_no_density() -> None:
    nothing = torch.zeros(COUNT, 0)
    latents = LatentBatch(torch.arange(COUNT), nothing, torch.zeros(COUNT, 0, 0), *torch.zeros(3, COUNT))
    density, placed = place_by_density(
        *halves_with(torch.zeros(COUNT, dtype=torch.bool)), components(0), latents, ErrorFactors()
    )
    assert density is None and placed is latents


def test_larger_errors_place_particles_under_the_density_of_those_that_are_stated() -> None:
    """Twice the variance of what images say, whether many Gaussians are best or one."""
    outlier = torch.zeros(COUNT, dtype=torch.bool)
    for unit in (two_wells(COUNT), noise(COUNT, 2, dtype=torch.float64)):
        latents, _ = latents_of(unit)
        density, stated = place_by_density(*halves_with(outlier), components(2), latents, ErrorFactors())
        again, placed = place_by_density(*halves_with(outlier), components(2), latents, ErrorFactors(latents=2.0))
        assert density is not None and again is not None and torch.equal(density.means, again.means)
        wide = with_larger_errors(latents, torch.arange(COUNT - BAD), EIGENVALUES[:2], 2.0)
        if len(density) == 1:
            torch.testing.assert_close(placed.z, wide.z)
        variance = [torch.linalg.inv(found.precision[:-BAD].double()).mean(dim=0) for found in (stated, placed)]
        assert bool((variance[1].diagonal() > 1.01 * variance[0].diagonal()).all())
        assert torch.equal(placed.z[-BAD:], latents.z[-BAD:])

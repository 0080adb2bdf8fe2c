"""Poses of very many states, of which the mean tells little, and poses of other images, which look alike to it."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from solvar_engine.contract.params import FitParams
from solvar_engine.contract.run import RunDir, prepared, write_params
from solvar_engine.contract.star import StarFile
from solvar_engine.contract.status import StatusTracker
from solvar_engine.jobs.decisions import read_cautions, read_decisions
from solvar_engine.jobs.fit.foreign_poses import have_foreign_poses
from solvar_engine.jobs.fit.halves import fit_halves
from solvar_engine.jobs.fit.inputs import read_inputs
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.jobs.fit.start import read_images, settle_sign_and_masks

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
COUNT = 1000


@pytest.mark.parametrize("are_foreign", [False, True])
def test_components_of_the_other_half_set_tell_whose_poses_they_are(are_foreign, simulate, tmp_path):
    data = simulate(
        *("--phantom", "mixture", "--particles", COUNT, "--box", 24, "--pixel-size", 8, "--snr", 0.3, "--seed", 1)
    )
    if are_foreign:
        star, order = StarFile.read(data.particles), np.random.default_rng(1).permutation(COUNT)
        angles = {name: [star.particles.text(name)[row] for row in order] for name in ANGLES}
        star.replace(star.particles, star.particles.with_columns(angles)).write(data.particles)
    run = RunDir(tmp_path / "run")
    params = FitParams(particles=str(data.particles), output=str(run.path), rank=3, threads=1)
    with prepared(run, params, resume=False):
        write_params(run, params)
        job = FitJob.start(params, run, read_inputs(params), StatusTracker(run.status, "fit"))
        with closing(job.progress):
            images, masks, equations = settle_sign_and_masks(job, read_images(job))
            (before,) = read_cautions(run)
            assert read_decisions(run).poses_are_foreign and before.startswith("The orientations in")
            halves = fit_halves(job, images, masks, equations)
            found = [have_foreign_poses(job, halves) for _ in range(2)]  # the second time it is known
    (after,) = read_cautions(run)
    assert found == [are_foreign] * 2
    assert read_decisions(run).poses_are_foreign == (after == before) == are_foreign
    assert ("components of each half-set make those of the other likelier at their own" in after) != are_foreign

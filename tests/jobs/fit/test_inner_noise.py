"""Backgrounds that were replaced by noise of another colour: what whitens images is the noise within the particle."""

from __future__ import annotations

import shutil
from contextlib import closing

import mrcfile
import numpy as np
from scipy import ndimage

from solvar_engine.contract.params import FitParams
from solvar_engine.contract.run import RunDir, prepared, write_params
from solvar_engine.contract.status import StatusTracker
from solvar_engine.jobs.fit.inner_noise import settle_inner_noise
from solvar_engine.jobs.fit.inputs import read_inputs
from solvar_engine.jobs.fit.job import FitJob
from solvar_engine.jobs.fit.start import read_images
from tests.jobs.conftest import BOX

UPPER = slice(2, None)  # of the shells: what is lower, the slow background has taken


def settled_noise(star, folder):
    """Noise as it was read, and as it was settled, by a new run and by one that goes on."""
    params = FitParams(particles=str(star), output=str(folder), rank=1)
    run, noise = RunDir(params.output), []
    with prepared(run, params, resume=False):
        write_params(run, params)
        for _ in range(2):  # the second time from the checkpoint
            job = FitJob.start(params, run, read_inputs(params), StatusTracker(run.status, "fit"))
            with closing(job.progress):
                source = read_images(job)
                noise += [source.noise_variance[0], settle_inner_noise(job, source).noise_variance[0]]
    np.testing.assert_array_equal(noise[1], noise[3])
    return noise[0][UPPER].numpy(), noise[1][UPPER].numpy()


def test_noise_of_another_colour_outside_is_not_that_within(hinge, tmp_path):
    true = settled_noise(hinge.path / "particles.star", tmp_path / "whole")
    np.testing.assert_array_equal(*true)  # nothing was replaced
    shutil.copytree(hinge.path, tmp_path / "data")
    with mrcfile.open(tmp_path / "data" / "particles.mrcs", mode="r+") as stack:
        axis = np.arange(BOX) - BOX // 2
        outside = np.hypot(axis[:, None], axis) > 0.42 * BOX
        white = np.random.default_rng(1).normal(size=stack.data.shape)
        filling = 0.7 * white + 1.4 * ndimage.gaussian_filter(white, (0, 1.2, 1.2), mode="wrap")
        stack.data[:] = np.where(outside, filling * stack.data[:, :3].std(), stack.data)
    filled, found = settled_noise(tmp_path / "data" / "particles.star", tmp_path / "filled")
    wrong, left = (np.abs(np.log(values / true[0])).mean() for values in (filled, found))
    assert wrong > 0.5 and left < 0.6 * wrong

"""Lists with fewer rows of a particle than the run has: its image is opened for each row, at the pose of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from solvar_engine.contract.params import ReconstructParams
from solvar_engine.data.metadata import read_metadata
from solvar_engine.data.particles import ParticleStack
from solvar_engine.imaging.types import Pose
from solvar_engine.jobs.states.particles import open_stack, read_run_particles
from tests.jobs.conftest import PARTICLES

AGAIN = np.array([7, 7, 3])


def test_each_row_of_a_particle_keeps_its_pose(hinge, fitted):
    run = read_run_particles(fitted)
    rows = [*range(PARTICLES), *AGAIN]
    star = run.star.replace(run.star.particles, run.star.particles.only(rows))
    metadata = read_metadata(star)
    turned = metadata.pose.rotation.clone()
    turned[PARTICLES:] = turned[PARTICLES:].flip(1).flip(2)
    twice = replace(run, star=star, metadata=replace(metadata, pose=Pose(turned, metadata.pose.shift)))
    params = ReconstructParams(run=str(fitted.path), output="unused", particles=str(hinge.particles))
    stack, row, _ = open_stack(params, twice)
    assert len(stack) == len(stack.star.particles) == len(rows)
    np.testing.assert_array_equal(row, np.arange(len(rows)))
    torch.testing.assert_close(stack.pose.rotation, turned)
    np.testing.assert_array_equal(stack.rows_of_list, rows)
    torch.testing.assert_close(stack.images(row), ParticleStack.from_star(hinge.particles).images(rows))

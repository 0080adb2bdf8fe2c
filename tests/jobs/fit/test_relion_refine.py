"""What a real refinement by RELION writes goes through `fit` unchanged."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from solvar_engine.contract.files import read_csv
from solvar_engine.contract.results import read_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.jobs.simulate.files import DataSetFiles

_PROGRAMS = ("mpirun", "relion_refine_mpi")
_MPI = ("mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3")
# local searches from the poses that were simulated with errors, stopped early: how well it refines is not our subject
_REFINE = (
    "relion_refine_mpi --auto_refine --split_random_halves --i particles.star --o Refine3D/run"
    " --ref truth/mean.mrc --firstiter_cc --ini_high 25 --low_resol_join_halves 40 --ctf --particle_diameter 170"
    " --flatten_solvent --zero_mask --sym C1 --norm --scale --oversampling 1 --healpix_order 4"
    " --auto_local_healpix_order 4 --offset_range 2 --offset_step 1 --dont_combine_weights_via_disc"
    " --auto_iter_max 3 --pool 30 --j 1"
)
_LIST = Path("Refine3D/run_it003_data.star")


@pytest.fixture(scope="module")
def refined(simulate) -> DataSetFiles:
    """A data set with the results of its refinement, with three processes, in Refine3D/."""
    if any(shutil.which(program) is None for program in _PROGRAMS):
        pytest.skip("RELION with MPI is not installed")
    data = simulate(
        *("--phantom", "hinge", "--particles", 240, "--box", 32, "--pixel-size", 6, "--snr", 2),
        *("--rotation-error", 3, "--shift-error", 0.5),
    )
    (data.path / "Refine3D").mkdir()
    log = data.path / "Refine3D" / "log.txt"
    with open(log, "w") as stream:
        command = [*_MPI, *_REFINE.split()]
        done = subprocess.run(command, cwd=data.path, env=_environment(), stdout=stream, stderr=stream, timeout=300)
    assert done.returncode == 0, log.read_text()[-2000:]
    assert (data.path / _LIST).exists()
    return data


def _environment() -> dict[str, str]:
    # processes of one machine in a container may not read each other's memory
    return {**os.environ, "OMPI_MCA_btl_vader_single_copy_mechanism": "none"}


@pytest.mark.slow
def test_unchanged_list_of_a_refinement(refined, engine, monkeypatch, tmp_path):
    monkeypatch.chdir(refined.path)  # where RELION's paths start from
    star = _LIST
    run = RunDir(tmp_path / "run")
    outcome = engine("fit", star, "--output", run.path, "--rank", 4)
    assert outcome.code == 0, outcome.error
    assert "warning" not in outcome.error
    subset = StarFile.read(star).particles.integers("rlnRandomSubset")
    sizes = f"{(subset == 1).sum()} and {(subset == 2).sum()} particles"
    assert f"Half-sets as in rlnRandomSubset: {sizes}" in outcome.error and min(np.bincount(subset)[1:]) > 60
    # rows in RELION's order and to the letter, joined to the truth by name
    before, after = StarFile.read(star), StarFile.read(run.particles)
    for old, new in zip(before.particles.rows, after.particles.rows, strict=True):
        assert new.startswith(old.rstrip() + " ")
    truth = StarFile.read(refined.truth.particles).particles.text("rlnImageName")
    row = {name: number for number, name in enumerate(truth)}
    order = [row[name] for name in before.particles.text("rlnImageName")]
    angle = read_csv(refined.truth.states)["coordinate_1"][order]
    # errors of poses make components too; together with the motion's they tell the angle
    z = np.column_stack([read_latents(run.latents).z, np.ones(len(angle))])
    fitted = z @ np.linalg.lstsq(z, angle, rcond=None)[0]
    assert np.corrcoef(fitted, angle)[0, 1] > 0.6


def test_list_that_is_read_from_elsewhere_needs_root(refined, engine, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    star = refined.path / _LIST
    outcome = engine("fit", star, "--output", tmp_path / "run", "--rank", 1)
    assert outcome.code == 2
    assert f"give --root {refined.path}." in outcome.error
    arguments = ("fit", star, "--output", tmp_path / "run", "--rank", 1, "--root", refined.path)
    assert engine(*arguments).code == 0

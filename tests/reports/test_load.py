"""A run directory is read as it was written, and what is missing is left out and named."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.results import Latents, write_latents
from solvar_engine.contract.run import RunDir
from solvar_engine.reports import load_run
from tests.reports.synthetic_run import PIXEL_SIZE, write_synthetic_run


@pytest.fixture
def copied_run(synthetic, tmp_path) -> RunDir:
    """A run that a test may change."""
    shutil.copytree(synthetic[0].path, tmp_path / "run")
    return RunDir(tmp_path / "run")


def test_everything_is_read(synthetic):
    run, arrays = synthetic
    data = load_run(run)
    np.testing.assert_array_equal(data.z, arrays.z)
    np.testing.assert_array_equal(data.mean, arrays.mean)
    np.testing.assert_array_equal(np.stack(data.eigenvolumes), arrays.eigenvolumes)
    np.testing.assert_allclose(data.components.eigenvalue, arrays.eigenvalue)
    assert data.components.label == tuple(arrays.label)
    assert data.components.is_reproducible.tolist() == [True, True, False, False]
    assert data.pixel_size == pytest.approx(PIXEL_SIZE)
    assert data.images.view.shape == (300, 2) and data.images.view[:, 1].min() >= 0
    assert set(data.metrics["half"]) == {"", "1", "2"} and set(data.noise["group"]) == {"1", "2"}
    assert data.missing == ()
    assert data.embedding is None and data.cluster is None and data.centres is None


def test_a_run_without_components(tmp_path):
    run, _ = write_synthetic_run(tmp_path / "run", rank=0)
    data = load_run(run)
    assert data.z.shape == (300, 0) and len(data.components) == 0 and data.eigenvolumes == []


def test_labels_that_are_all_empty_stay_text(tmp_path):
    run, _ = write_synthetic_run(tmp_path / "run", rank=2)
    assert load_run(run).components.label == ("", "")


def test_missing_files_are_named_and_left_out(copied_run):
    for path in (copied_run.fsc, copied_run.noise, copied_run.metrics, copied_run.particles, copied_run.mask):
        path.unlink()
    copied_run.eigenvolume(3).unlink()
    data = load_run(copied_run)
    assert data.fsc is None and data.noise is None and data.metrics is None and data.images.view is None
    assert len(data.eigenvolumes) == 2
    tables = {"fsc.csv", "noise.csv", "metrics.csv", "particles.star"}
    assert set(data.missing) == tables | {"mask.mrc", "eigenvolumes/eigenvolume_003.mrc"}


def test_an_older_table_of_eigenvalues(copied_run):
    copied_run.eigenvalues.write_text("component,eigenvalue\n1,4.0\n2,3.0\n3,2.0\n4,1.0\n")
    components = load_run(copied_run).components
    assert components.is_reproducible.all() and np.isnan(components.half_set_agreement).all()


def test_files_that_do_not_belong_together_are_refused(copied_run):
    shape = (299, 4)
    latents = Latents(np.zeros(shape), np.zeros((299, 4, 4)), np.ones(299))
    write_latents(copied_run.latents, latents)
    with pytest.raises(UserError, match=r"particles.star has 300 particles but .*latents.npz has 299"):
        load_run(copied_run)
    write_latents(copied_run.latents, Latents(np.zeros((300, 3)), np.zeros((300, 3, 3)), np.ones(300)))
    with pytest.raises(UserError, match=r"eigenvalues.csv has 4 components but .*latents.npz has 3"):
        load_run(copied_run)


def test_a_damaged_volume_is_named(copied_run):
    copied_run.mean.write_bytes(b"not a volume" * 200)
    with pytest.raises(UserError, match=r"mean.mrc is not a readable MRC file"):
        load_run(copied_run)

from __future__ import annotations

import numpy as np
import pytest

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import read_csv
from solvar_engine.contract.results import (
    EIGENVALUE_COLUMNS,
    METRICS_COLUMNS,
    Latents,
    append_metrics,
    read_latents,
    write_centres,
    write_eigenvalues,
    write_latents,
)


def test_latents_round_trip_in_single_precision(tmp_path):
    random = np.random.default_rng(0)
    latents = Latents(random.normal(size=(5, 2)), random.normal(size=(5, 2, 2)), np.ones(5))
    write_latents(tmp_path / "latents.npz", latents)
    again = read_latents(tmp_path / "latents.npz")
    assert again.z.dtype == again.precision.dtype == again.contrast.dtype == np.float32
    np.testing.assert_array_equal(again.precision, latents.precision.astype(np.float32))


def test_no_components_are_possible(tmp_path):
    write_latents(tmp_path / "latents.npz", Latents(np.zeros((5, 0)), np.zeros((5, 0, 0)), np.ones(5)))
    assert read_latents(tmp_path / "latents.npz").z.shape == (5, 0)


def test_bad_latents(tmp_path):
    path = tmp_path / "latents.npz"
    with pytest.raises(ValueError, match="precision has shape"):
        Latents(np.zeros((5, 2)), np.zeros((5, 2)), np.ones(5))
    with pytest.raises(UserError, match="does not exist"):
        read_latents(path)
    path.write_text("not an archive")
    with pytest.raises(UserError, match="not a file of latents"):
        read_latents(path)
    np.savez(path, z=np.zeros((1, 1)))
    with pytest.raises(UserError, match="not a file of latents"):
        read_latents(path)
    with open(path, "wb") as stream:
        np.savez(stream, z=np.array([[None]]), precision=np.zeros((1, 1, 1)), contrast=np.ones(1))
    with pytest.raises(UserError, match="not a file of latents"):
        read_latents(path)


def test_tables_have_exactly_the_columns_of_the_contract(tmp_path):
    columns = {name: [1.0, 0.5] for name in reversed(EIGENVALUE_COLUMNS)}
    write_eigenvalues(tmp_path / "eigenvalues.csv", {**columns, "label": ["", "nuisance"]})
    assert list(read_csv(tmp_path / "eigenvalues.csv")) == list(EIGENVALUE_COLUMNS)
    with pytest.raises(ValueError, match="expected the columns"):
        write_eigenvalues(tmp_path / "eigenvalues.csv", {"component": [1]})


def test_metrics_leave_cells_empty_that_do_not_apply(tmp_path):
    append_metrics(tmp_path / "metrics.csv", {"iteration": 1, "stage": "mean", "seconds": 2.5})
    table = read_csv(tmp_path / "metrics.csv")
    assert list(table) == list(METRICS_COLUMNS)
    assert np.isnan(table["objective"][0]) and table["seconds"][0] == 2.5


def test_centres_are_a_table(tmp_path):
    centres = np.random.default_rng(0).normal(size=(3, 2))
    write_centres(tmp_path / "centres.csv", np.array([5, 4, 3]), centres)
    assert read_csv(tmp_path / "centres.csv")["cluster"].tolist() == [1, 2, 3]
    table = read_csv(tmp_path / "centres.csv")
    np.testing.assert_array_equal(np.stack([table["z_1"], table["z_2"]], axis=1), centres)

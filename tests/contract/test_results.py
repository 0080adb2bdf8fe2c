from __future__ import annotations

import numpy as np
import pytest

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import read_csv
from solvar_engine.contract.results import (
    EIGENVALUE_COLUMNS,
    METRICS_COLUMNS,
    NOT_REPRODUCIBLE,
    RANK_COLUMNS,
    Density,
    Latents,
    StateFolder,
    StateTable,
    append_metrics,
    curves_by_stage,
    read_candidates,
    read_centres,
    read_clusters,
    read_components,
    read_density,
    read_embedding,
    read_fsc,
    read_images,
    read_latents,
    read_metrics,
    read_named_points,
    read_noise,
    read_owners,
    read_states,
    write_centres,
    write_clusters,
    write_density,
    write_eigenvalues,
    write_embedding,
    write_fsc,
    write_latents,
    write_noise,
    write_owners,
    write_points,
    write_rank,
    write_states,
)
from solvar_engine.contract.star import StarFile, StarTable


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
    np.savez(path, z=np.array([["x"]]), precision=np.zeros((1, 1, 1)), contrast=np.ones(1))
    with pytest.raises(UserError, match="do not hold real numbers"):
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
    np.testing.assert_array_equal(read_centres(tmp_path / "centres.csv"), centres)
    write_centres(tmp_path / "centres.csv", np.empty(0, dtype=int), np.empty((0, 0)))
    assert len(read_centres(tmp_path / "centres.csv")) == 0


def test_components_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "eigenvalues.csv"
    numbers = {name: np.arange(3) + 10.0 * index for index, name in enumerate(EIGENVALUE_COLUMNS[:-1])}
    write_eigenvalues(path, {**numbers, "label": ["", NOT_REPRODUCIBLE, ""]})
    components = read_components(path)
    for name in EIGENVALUE_COLUMNS[1:-1]:
        np.testing.assert_array_equal(getattr(components, name), numbers[name])
    assert components.is_reproducible.tolist() == [True, False, True] and components.compared.tolist() == [0, 2]
    assert components.title(1) == "component 2 (not reproducible)" and components.title(0) == "component 1"
    assert components.deviation(2) == np.sqrt(12)
    write_eigenvalues(path, {**numbers, "label": [NOT_REPRODUCIBLE] * 3})
    assert read_components(path).compared.tolist() == [0, 1, 2]


def test_candidates_keep_their_halves_and_decoys_apart(tmp_path):
    columns = {name: [index, index + 0.5] for index, name in enumerate(RANK_COLUMNS)}
    write_rank(tmp_path / "rank.csv", {**columns, "candidate": [1, 2], "kept": [1, 0]})
    candidates = read_candidates(tmp_path / "rank.csv")
    assert candidates.number.tolist() == [1, 2] and candidates.is_real.tolist() == [True, False]
    assert candidates.gain.tolist() == [[3, 4], [3.5, 4.5]] and candidates.decoy_gain.tolist() == [[5, 6], [5.5, 6.5]]
    assert candidates.eigenvalue.tolist() == [1, 1.5] and candidates.half_set_agreement.tolist() == [2, 2.5]


def test_spectra_keep_groups_and_halves_as_text(tmp_path):
    shells = {"shell": [0, 1], "frequency": [0.0, 0.1]}
    write_noise(tmp_path / "noise.csv", {**shells, "noise_variance": [1.0, 2.0], "group": [1, 2]})
    assert read_noise(tmp_path / "noise.csv")["group"].tolist() == ["1", "2"]
    write_fsc(tmp_path / "fsc.csv", {**shells, "fsc_mean": [1.0, 0.5], "fsc_covariance": [0.4, np.nan]})
    fsc = read_fsc(tmp_path / "fsc.csv")
    assert fsc["fsc_mean"].tolist() == [1, 0.5] and fsc["fsc_covariance"][0] == 0.4
    (tmp_path / "fsc.csv").write_text("shell,frequency\n0,0.0\n")
    with pytest.raises(UserError, match=r"fsc.csv has no column fsc_covariance, fsc_mean: .* run again what made it"):
        read_fsc(tmp_path / "fsc.csv")
    for half, objective in ((1, 5.0), (2, 4.0), (1, None)):
        row = {"iteration": 1, "stage": "half-sets", "half": half, "shell_max": 8, "objective": objective, "seconds": 1}
        append_metrics(tmp_path / "metrics.csv", row)
    metrics = read_metrics(tmp_path / "metrics.csv")
    curves = curves_by_stage(metrics)
    assert {key: {half: rows.tolist() for half, rows in halves.items()} for key, halves in curves.items()} == {
        ("half-sets", 8.0): {"1": [0], "2": [1]}
    }
    assert curves_by_stage(metrics, at_least=3) == {}


def test_images_tell_what_their_columns_hold(tmp_path):
    names = ("rlnAngleRot", "rlnAngleTilt", "solvarContrast", "solvarLogLikelihood")
    changes = ("solvarRotationChange", "solvarShiftChange", "solvarRotationStd", "solvarShiftStd")
    columns = {name: [index, index + 0.5] for index, name in enumerate((*names, *changes))}
    image = {"rlnImageName": ["1@a.mrcs", "2@a.mrcs"]}
    path = tmp_path / "particles.star"
    StarFile((StarTable.create("particles", {**image, **columns, "solvarOutlier": [0, 1]}),)).write(path)
    images = read_images(path)
    assert images.view.tolist() == [[0, 1], [0.5, 1.5]] and images.contrast.tolist() == [2, 2.5]
    assert images.log_likelihood.tolist() == [3, 3.5] and images.is_outlier.tolist() == [False, True]
    poses = images.pose_changes
    values = [poses.rotation, poses.shift, poses.rotation_std, poses.shift_std]
    assert [value.tolist() for value in values] == [[4, 4.5], [5, 5.5], [6, 6.5], [7, 7.5]]
    StarFile((StarTable.create("particles", {**image, "rlnAngleRot": [1.0, 2.0]}),)).write(path)
    assert all(value is None for value in vars(read_images(path)).values())


def test_tables_of_the_analysis(tmp_path):
    points = np.arange(6.0).reshape(3, 2)
    write_embedding(tmp_path / "embedding.csv", points)
    np.testing.assert_array_equal(read_embedding(tmp_path / "embedding.csv"), points)
    write_clusters(tmp_path / "clusters.csv", np.array([2, 1, 2]))
    assert read_clusters(tmp_path / "clusters.csv").tolist() == [2, 1, 2]


def test_states_and_their_particles(tmp_path):
    folder, points = StateFolder(tmp_path), np.array([[1.0, -2.0], [3.0, 4.0]])
    write_states(folder, StateTable(points, np.array([7, 8]), np.array([9.5, np.nan]), np.array([False, True])))
    assert (tmp_path / "states.csv").read_text().splitlines() == [
        "state,z_1,z_2,images_used,resolution,extrapolated", "1,1.0,-2.0,7,9.5,0", "2,3.0,4.0,8,,1",
    ]  # fmt: skip
    states = read_states(folder)
    np.testing.assert_array_equal(states.points, points)
    assert states.images_used.tolist() == [7, 8] and states.resolution[0] == 9.5 and np.isnan(states.resolution[1])
    assert states.is_extrapolated.tolist() == [False, True]
    assert [states.title(number, "point") for number in (1, 2)] == ["point 1", "point 2 (extrapolated)"]
    write_owners(folder, np.array([0, 5]), np.array([2, 1]))
    rows, owner = read_owners(folder)
    assert rows.tolist() == [0, 5] and owner.tolist() == [2, 1]
    (tmp_path / "states.csv").write_text("state,z_1,images_used\n1,0,5\n")  # as earlier versions wrote it
    assert not read_states(folder).is_extrapolated.any()
    (tmp_path / "states.csv").write_text("state,images_used\n1,5\n")
    with pytest.raises(UserError, match="has no column z_1"):
        read_states(folder)


def test_points_may_name_their_states(tmp_path):
    write_points(tmp_path / "points.csv", np.array([[1.0, 2.0]]), ["component 1, +2 sd"])
    names, points = read_named_points(tmp_path / "points.csv")
    assert names == ["component 1, +2 sd"] and points.tolist() == [[1, 2]]
    write_points(tmp_path / "points.csv", np.array([[1.0, 2.0]]))
    assert (tmp_path / "points.csv").read_text() == "z_1,z_2\n1.0,2.0\n"


def test_density_survives_writing(tmp_path):
    root = np.random.default_rng(0).standard_normal((4, 3, 3))
    density = Density(np.array([0.1, 0.2, 0.3, 0.4]), root[:, 0], root @ root.transpose(0, 2, 1))
    write_density(tmp_path / "density.csv", density)
    found = read_density(tmp_path / "density.csv")
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(getattr(found, name), getattr(density, name), rtol=1e-5, err_msg=name)
    (tmp_path / "density.csv").write_text("gaussian,weight,z_1\n1,1,0\n")
    with pytest.raises(UserError, match="covariance_1_1"):
        read_density(tmp_path / "density.csv")

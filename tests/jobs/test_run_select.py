from __future__ import annotations

import numpy as np
import pytest

from solvar_engine.contract.files import file_digest
from solvar_engine.contract.results import Latents, image_results, read_latents, write_clusters, write_latents
from solvar_engine.contract.selections import PARTICLES, POINTS, Selection, write_selection
from solvar_engine.contract.star import StarFile
from tests.reports.synthetic_run import write_synthetic_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished fit of 300 particles with four components, three clusters and two selections."""
    made, _ = write_synthetic_run(tmp_path_factory.mktemp("select") / "run")
    made.analysis.mkdir()
    write_clusters(made.clusters, 1 + np.arange(300) % 3)
    digest = file_digest(made.latents)
    write_selection(made, Selection("some", PARTICLES, np.array([7, 2, 299]), digest))
    write_selection(made, Selection("places", POINTS, np.zeros((1, 4)), digest))
    return made


@pytest.fixture
def select(engine, run, tmp_path):
    """Rows (from 0) that the command writes, which the images' names tell."""

    def call(*arguments: object) -> list[int]:
        output = tmp_path / "some.star"
        outcome = engine("select", run.path, "--output", output, *arguments)
        assert outcome.code == 0, outcome.error
        star, whole = StarFile.read(output), StarFile.read(run.particles)
        assert star.particles.columns == whole.particles.columns
        assert star.optics.rows == whole.optics.rows
        rows = [int(name.split("@")[0]) - 1 for name in star.particles.text("rlnImageName")]
        assert list(star.particles.rows) == [whole.particles.rows[row] for row in rows]
        return rows

    return call


def test_by_name_in_the_order_of_the_run(select) -> None:
    assert select("--name", "some") == [2, 7, 299]
    assert select("--name", "some", "--no-outliers") == [2, 299]  # particle 7 is flagged


def test_by_cluster(select, run) -> None:
    rows = np.arange(300)
    assert select("--clusters", "1,3") == rows[rows % 3 != 1].tolist()
    good = ~image_results(StarFile.read(run.particles).particles).is_outlier
    assert select("--clusters", "2", "--no-outliers") == rows[(rows % 3 == 1) & good].tolist()


def test_nearest_to_a_point_in_the_reproducible_components(select, run) -> None:
    z = read_latents(run.latents).z  # precisions are unit matrices
    point = [-1.0, 0.5, 99.0, 99.0]
    nearest = np.sort(np.argsort(((z[:, :2] - point[:2]) ** 2).sum(axis=1))[:20])
    assert select("--near", *point, "--number", 20) == nearest.tolist()


def test_a_point_far_from_all_particles_is_told(engine, run, tmp_path) -> None:
    for place, is_told in ((1e6, True), (0.0, False)):
        call = ("select", run.path, "--output", tmp_path / "a.star", "--near", place, 0, 0, 0)
        outcome = engine(*call)
        assert outcome.code == 0 and ("--near (z_1 = 1e+06, z_2 = 0) is far from all" in outcome.error) is is_told


def test_particles_without_coordinates_are_not_near(engine, tmp_path) -> None:
    run, arrays = write_synthetic_run(tmp_path / "run", n_particles=60)
    z = arrays.z.copy()
    z[[4, 50]] = np.nan
    write_latents(run.latents, Latents(z, arrays.precision, np.ones(60)))
    assert engine("select", run.path, "--output", tmp_path / "a.star", "--near", 0, 0, 0, 0).code == 0
    assert len(StarFile.read(tmp_path / "a.star").particles) == 58


@pytest.mark.parametrize("name", ["particles.star", "analysis/selections/some.csv", "../run/latents.npz"])
def test_files_of_the_run_are_not_overwritten(engine, run, name) -> None:
    before = (run.path / name).read_bytes()
    for arguments in (("select", "--clusters", "1", "--output"), ("explore", "--export")):
        outcome = engine(*arguments, run.path / name, run.path)
        assert outcome.code == 2 and "is a file of the run itself" in outcome.error
    assert (run.path / name).read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--name", "other"), "has no selection 'other'; there are: some."),
        (("--name", "places"), "holds points, but particles are needed."),
        (("--clusters", "4"), "has no cluster 4: its clusters are 1 to 3."),
        (("--clusters", "1;2"), "--clusters is '1;2' but must be numbers of clusters, such as 1,3."),
        (("--clusters", "9" * 5000), "but must be numbers of clusters"),
        (("--near", 1, 2), "--near has 2 coordinates, but"),
        (("--name", "some", "--number", 5), "--number belongs to --near"),
        ((), "one of the arguments --name --clusters --near is required"),
    ],
)
def test_mistakes_are_one_sentence(engine, run, tmp_path, arguments, sentence) -> None:
    outcome = engine("select", run.path, "--output", tmp_path / "some.star", *arguments)
    assert outcome.code == 2 and sentence in outcome.error and outcome.error.count("\n") == 1
    assert not (tmp_path / "some.star").exists()

"""`analyze` writes tables, figures and report, the same ones for the same seed, and refuses unfit runs."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.files import read_csv
from solvar_engine.contract.params import AnalyzeParams
from solvar_engine.contract.results import Latents, image_results, write_latents
from solvar_engine.contract.run import FIGURE_NAMES, SEARCH_FIGURES, RunDir
from solvar_engine.contract.star import StarFile
from solvar_engine.jobs import run_analyze as analyze
from tests.reports.synthetic_run import write_synthetic_run


@pytest.fixture(scope="module")
def analyzed(tmp_path_factory):
    """A run after `analyze` with 5 clusters, and what the fit had found."""
    run, arrays = write_synthetic_run(tmp_path_factory.mktemp("jobs") / "run")
    analyze.run(AnalyzeParams(run=str(run.path), clusters=5, seed=3))
    return run, arrays


def test_embedding(analyzed):
    run, arrays = analyzed
    table = read_csv(run.embedding)
    assert list(table) == ["row", "umap_1", "umap_2"]
    np.testing.assert_array_equal(table["row"], np.arange(300))
    # Particles that are far apart along the first component stay so on the map.
    coordinates = np.stack([table["umap_1"], table["umap_2"]], axis=1)
    low, high = np.quantile(arrays.z[:, 0], (0.3, 0.7))
    left, right = coordinates[arrays.z[:, 0] < low], coordinates[arrays.z[:, 0] > high]
    between = np.linalg.norm(left.mean(axis=0) - right.mean(axis=0))
    assert between > left.std(axis=0).max() and between > right.std(axis=0).max()


def test_clusters_and_centres_agree(analyzed):
    run, arrays = analyzed
    clusters, centres = read_csv(run.clusters), read_csv(run.centres)
    assert list(clusters) == ["row", "cluster"]
    assert list(centres) == ["cluster", "size", "z_1", "z_2", "z_3", "z_4"]
    is_outlier = image_results(StarFile.read(run.particles).particles).is_outlier
    assert is_outlier.any() and sorted(set(clusters["cluster"][~is_outlier])) == [1, 2, 3, 4, 5]
    assert not clusters["cluster"][is_outlier].any()
    for index in range(5):
        members = arrays.z[clusters["cluster"] == index + 1]
        assert len(members) == centres["size"][index]
        centre = [centres[f"z_{axis}"][index] for axis in (1, 2, 3, 4)]
        np.testing.assert_allclose(centre, members.mean(axis=0), rtol=1e-4, atol=1e-5)


def test_figures_and_report(analyzed):
    run, _ = analyzed
    assert {path.stem for path in run.figures.iterdir()} == set(FIGURE_NAMES) - set(SEARCH_FIGURES)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in run.figures.iterdir())
    page = run.report.read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(FIGURE_NAMES) - len(SEARCH_FIGURES)
    assert "components 1 and 2 are reproducible" in page and "http" not in page


def test_the_same_seed_gives_the_same_files(analyzed, capsys):
    run, _ = analyzed
    files = (run.embedding, run.clusters, run.centres, run.report)
    before = [path.read_bytes() for path in files]
    analyze.run(AnalyzeParams(run=str(run.path), clusters=5, seed=3))
    assert [path.read_bytes() for path in files] == before
    assert str(run.report) in capsys.readouterr().out


def test_noise_in_other_components_does_not_move_the_clusters(analyzed, tmp_path):
    run, arrays = analyzed
    shutil.copytree(run.path, tmp_path / "run")
    other = RunDir(tmp_path / "run")
    z = arrays.z.copy()
    z[:, 2:] = 1000 * np.random.default_rng(0).normal(size=(300, 2))
    write_latents(other.latents, Latents(z, arrays.precision, np.ones(300)))
    analyze.run(AnalyzeParams(run=str(other.path), clusters=5, seed=3))
    assert other.clusters.read_bytes() == run.clusters.read_bytes()


@pytest.mark.parametrize(("rank", "n_particles", "n_clusters"), [(0, 300, 0), (1, 100, 4), (3, 6, 6)])
def test_runs_with_few_components_or_particles(tmp_path, rank, n_particles, n_clusters):
    run, _ = write_synthetic_run(tmp_path / "run", rank=rank, n_particles=n_particles)
    analyze.run(AnalyzeParams(run=str(run.path), clusters=4 if n_particles > 6 else 10))
    assert len(read_csv(run.embedding)["row"]) == (n_particles if rank else 0)
    assert len(read_csv(run.centres)["size"]) == n_clusters
    assert run.report.stat().st_size > 100_000


def test_figures_of_an_earlier_analysis_do_not_stay(tmp_path):
    run, _ = write_synthetic_run(tmp_path / "run", rank=0)
    run.figures.mkdir(parents=True)
    (run.figures / "umap.png").write_bytes(b"old")
    (run.figures / "mine.png").write_bytes(b"the user's")
    analyze.run(AnalyzeParams(run=str(run.path)))
    assert not (run.figures / "umap.png").exists()
    assert (run.figures / "mine.png").read_bytes() == b"the user's"


@pytest.mark.parametrize(
    ("state", "message"), [("running", "is not finished"), ("failed", "is not finished")]
)
def test_a_run_that_is_not_finished_is_refused_untouched(tmp_path, state, message):
    run, _ = write_synthetic_run(tmp_path / "run", state=state)
    with pytest.raises(UserError, match=message):
        analyze.run(AnalyzeParams(run=str(run.path)))
    assert not run.analysis.exists() and not run.report.exists()


def test_other_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        analyze.run(AnalyzeParams(run=str(tmp_path / "absent")))
    run, arrays = write_synthetic_run(tmp_path / "run")
    with pytest.raises(UserError, match="--clusters is 0"):
        analyze.run(AnalyzeParams(run=str(run.path), clusters=0))
    z = arrays.z.copy()
    z[6, 1] = np.nan
    write_latents(run.latents, Latents(z, arrays.precision, np.ones(300)))
    with pytest.raises(UserError, match="particle 7"):
        analyze.run(AnalyzeParams(run=str(run.path)))
    write_latents(run.latents, Latents(z[:, :3], arrays.precision[:, :3, :3], np.ones(300)))
    with pytest.raises(UserError, match="4 components but .* has 3"):
        analyze.run(AnalyzeParams(run=str(run.path)))

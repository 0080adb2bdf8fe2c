"""Folders, files and names in bytes that are not UTF-8, as old file servers have them."""

from __future__ import annotations

import os
import shutil

import pytest

from solvar_engine.contract.files import read_csv, read_json, write_csv
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile
from tests.jobs.conftest import Outcome
from tests.jobs.programs import engine_environment

NAME = os.fsdecode(b"M\xfcller")


@pytest.fixture
def engine(engine_program):
    """The command line as a program: reports of pytest's processes to each other hold UTF-8 only."""

    def run(*arguments):
        process = engine_program(*arguments, "--threads", 1, errors="backslashreplace")
        error = process.communicate()[1]
        return Outcome(process.returncode, error)

    return run


@pytest.fixture
def data(hinge, tmp_path):
    """The hinge in such a folder, with optics group and micrographs of such names."""
    folder = tmp_path / NAME
    shutil.copytree(hinge.path, folder)
    star = folder / "particles.star"
    content = star.read_bytes().replace(b"opticsGroup1", b"Gr\xfcppe").replace(b"micrograph_", b"B\xe4r_")
    star.write_bytes(content)
    return folder


def test_every_command_works(data, engine, engine_program):
    run = RunDir(data / "run")
    calls = [
        ("fit", data / "particles.star", "--output", run.path, "--rank", 1, "--box", 16),
        ("analyze", run.path, "--clusters", 2),
        ("reconstruct", run.path, "--output", data / "states", "--clusters", 2),
        ("evaluate", run.path, data / "truth", "--json", data / f"{NAME}.json"),
    ]
    for call in calls:
        outcome = engine(*call)
        assert outcome.code == 0, outcome.error
    assert read_json(run.params)["options"]["particles"] == str(data / "particles.star")
    assert read_json(run.analysis_status)["state"] == read_json(data / "states" / "status.json")["state"] == "finished"
    assert set(read_csv(run.noise)["group"]) == {os.fsdecode(b"Gr\xfcppe")}
    assert b"Gr\xfcppe" in run.particles.read_bytes() and b"B\xe4r_" in run.particles.read_bytes()
    assert "html" in run.report.read_text(encoding="utf-8") and run.log.read_text(encoding="utf-8")
    assert len(StarFile.read(data / "states" / "state_001_particles.star").particles)
    # where the terminal takes UTF-8 only
    strict = {**engine_environment(), "PYTHONIOENCODING": "utf-8:strict"}
    call = ("reconstruct", run.path, "--output", data / "linear", "--clusters", 2, "--method", "linear")
    process = engine_program(*call, env=strict, errors="surrogateescape")
    assert process.wait() == 0, process.stderr.read()


def test_what_is_missing_there_is_one_sentence(data, engine):
    outcome = engine("fit", data / "none.star", "--output", data / "run", "--rank", 1)
    assert outcome.code == 2 and "does not exist" in outcome.error
    (data / "particles.mrcs").unlink()
    outcome = engine("fit", data / "particles.star", "--output", data / "run", "--rank", 1)
    assert outcome.code == 2 and "particles.mrcs" in outcome.error
    assert "particles.mrcs" in read_json(data / "run" / "status.json")["message"]


def test_tables_keep_the_bytes_of_names(tmp_path):
    write_csv(tmp_path / "t.csv", {"name": [NAME, "Zoë"], "x": [1.0, 2.0]})
    assert (tmp_path / "t.csv").read_bytes() == "name,x\nM\xfcller,1.0\n".encode("latin-1") + "Zoë,2.0\n".encode()
    assert read_csv(tmp_path / "t.csv")["name"].tolist() == [NAME, "Zoë"]

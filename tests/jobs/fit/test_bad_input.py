"""Everything that can be wrong with what a user gives to `fit`: one sentence, exit 2, soon, nothing written over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.data.mrc import HEADER_BYTES, StackWriter
from solvar_engine.data.volumes import write_volume
from solvar_engine.imaging.types import Volume
from tests.jobs.conftest import BOX, PARTICLES, PIXEL_SIZE

_IMAGE_BYTES = 4 * BOX * BOX


@dataclass
class Case:
    """A command that can be spoilt: a private copy of the data, and options."""

    folder: Path
    options: dict[str, object] = field(default_factory=lambda: {"--rank": 2})
    extra: list[str] = field(default_factory=list)

    @property
    def star(self) -> Path:
        return self.folder / "particles.star"

    @property
    def stack(self) -> Path:
        return self.folder / "particles.mrcs"

    @property
    def mask(self) -> Path:
        return self.folder / "mask.mrc"

    @property
    def output(self) -> Path:
        return self.folder / "run"

    def arguments(self) -> list[object]:
        options = {"--output": self.output, **self.options}
        return ["fit", self.star, *(item for pair in options.items() for item in pair), *self.extra]

    # ------------------------------------------------------------ ways to spoil it

    def set_cell(self, row: int, column: str, text: str) -> None:
        table = StarFile.read(self.star).particles
        cells = table.text(column)
        cells[row] = text
        self.change_columns({column: cells})

    def change_columns(self, columns: dict[str, object]) -> None:
        star = StarFile.read(self.star)
        star.replace(star.particles, star.particles.with_columns(columns)).write(self.star)

    def change_optics(self, **columns: object) -> None:
        star = StarFile.read(self.star)
        assert star.optics is not None
        values = {name: star.optics.text(name) for name in star.optics.columns}
        values.update({name: [value] for name, value in columns.items()})
        star.replace(star.optics, StarTable.create("optics", values)).write(self.star)

    def drop(self, column: str) -> None:
        star = StarFile.read(self.star)
        table = next(table for table in star.tables if column in table)
        kept = {name: table.text(name) for name in table.columns if name != column}
        star.replace(table, StarTable.create(table.name, kept)).write(self.star)

    def keep_rows(self, count: int) -> None:
        star = StarFile.read(self.star)
        table = star.particles
        short = StarTable(table.name, table.columns, table.rows[:count], table.header, True, table.source)
        star.replace(table, short).write(self.star)

    def set_image(self, number: int, image: np.ndarray) -> None:
        with open(self.stack, "r+b") as stream:
            stream.seek(HEADER_BYTES + (number - 1) * _IMAGE_BYTES)
            stream.write(image.astype("<f4").tobytes())

    def write_mask(
        self, shape: tuple[int, ...] = (BOX,) * 3, pixel_size: float = PIXEL_SIZE, value: float = 1.0
    ) -> None:
        write_volume(self.mask, Volume(torch.full(shape, value), pixel_size))


@pytest.fixture
def case(hinge, tmp_path) -> Case:
    shutil.copy(hinge.particles, tmp_path)
    shutil.copy(hinge.stack, tmp_path)
    shutil.copy(hinge.mask, tmp_path)
    return Case(tmp_path)


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refuse(case: Case, engine: Callable, *texts: str) -> list[str]:
    """Check that the command is refused as it should be, before anything is fitted; returns all lines of stderr."""
    before = content_of(case.folder)
    outcome = engine(*case.arguments())
    assert "half-sets, epoch" not in outcome.error
    assert outcome.code == 2, outcome.error
    lines = outcome.error.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], outcome.error
    for text in texts:
        assert text in lines[-1]
    assert lines[-1].endswith(".") and "Traceback" not in outcome.error
    after = content_of(case.folder)
    assert {name: after.get(name) for name in before} == before
    return lines


def refuse_at_once(case: Case, engine: Callable, *texts: str) -> None:
    """Check that nothing is said but the sentence, and nothing written but that: in the status file and the log."""
    (line,) = refuse(case, engine, *texts)
    check_sentence_in_run(case, line)


def check_sentence_in_run(case: Case, line: str) -> None:
    status = json.loads((case.output / "status.json").read_text())
    assert (status["command"], status["state"]) == ("fit", "failed")
    assert "error: " + status["message"] == line
    assert {path.name for path in case.output.iterdir()} <= {"status.json", "log.txt"}


def refuse_untouched(case: Case, engine: Callable, *texts: str) -> None:
    """Check that nothing is said but the sentence, and that the folder is left as it is."""
    before = content_of(case.output) if case.output.exists() else None
    assert len(refuse(case, engine, *texts)) == 1
    assert (content_of(case.output) if case.output.exists() else None) == before


# ---------------------------------------------------------------- the clean set


@pytest.mark.parametrize("with_mask", [False, True])
def test_clean_set_passes_with_the_same_command(with_mask, case, engine):
    if with_mask:
        case.options["--mask"] = case.mask
    before = content_of(case.folder)
    outcome = engine(*case.arguments())
    assert outcome.code == 0, outcome.error
    after = content_of(case.folder)
    assert {name: after[name] for name in before} == before
    assert "error" not in outcome.error and "warning" not in outcome.error
    assert json.loads((case.output / "status.json").read_text())["state"] == "finished"


@pytest.mark.parametrize(
    ("spoil", "text", "is_recorded"),
    [
        (lambda case: case.stack.unlink(), "particles.mrcs", True),
        (lambda case: case.set_cell(6, "rlnAngleTilt", "nan"), "row 7", True),
        (lambda case: case.options.update({"--device": "cuda:99"}), "--device cuda:99", True),
        (lambda case: case.options.update({"--rank": 0}), "--rank is 0", False),
    ],
    ids=["stack", "angle", "device", "rank"],
)
def test_as_a_program(spoil, text, is_recorded, case, engine_program):
    spoil(case)
    process = engine_program(*case.arguments())
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.startswith("error: ") and text in error and error.count("\n") == 1
    if is_recorded:
        check_sentence_in_run(case, error.rstrip("\n"))
    else:
        assert not case.output.exists()


@pytest.mark.parametrize("resume", [True, False])
def test_same_command_passes_once_the_mistake_is_mended(resume, case, engine):
    content = case.star.read_bytes()
    case.set_cell(6, "rlnAngleTilt", "nan")
    refuse_at_once(case, engine, "row 7")
    case.star.write_bytes(content)
    case.extra = ["--resume"] if resume else []
    outcome = engine(*case.arguments())
    assert outcome.code == 0, outcome.error
    status = json.loads((case.output / "status.json").read_text())
    assert status["state"] == "finished" and "row 7" not in status["message"]
    assert "row 7" in (case.output / "log.txt").read_text()


def test_started_run_whose_particles_are_gone_says_so_and_goes_on_later(case, engine):
    content = case.stack.read_bytes()
    case.set_image(5, np.zeros((BOX, BOX)))
    assert engine(*case.arguments()).code == 2
    case.stack.unlink()
    case.extra = ["--resume"]
    assert "does not exist" in refuse_status(case, engine)
    case.stack.write_bytes(content)
    assert engine(*case.arguments()).code == 0


def refuse_status(case: Case, engine: Callable) -> str:
    """Message that the status file has after a refusal."""
    assert engine(*case.arguments()).code == 2
    status = json.loads((case.output / "status.json").read_text())
    assert status["state"] == "failed"
    return str(status["message"])


# ---------------------------------------------------------------- the list of particles


def _write(text: bytes) -> Callable[[Case], object]:
    return lambda case: case.star.write_bytes(text)


@pytest.mark.parametrize(
    ("spoil", "texts"),
    [
        (lambda case: case.star.unlink(), ["does not exist"]),
        (_write(b""), ["is empty"]),
        (_write(b"  \n\n"), ["is empty"]),
        (_write(b"Dear reviewer,\nplease find attached\n"), ["is not a STAR file"]),
        (_write(b"\0\1\2" * 100), ["not a STAR file"]),
        (_write(b"\x93NUMPY\1\0v\0"), ["cryoSPARC"]),
        (lambda case: shutil.copy(case.mask, case.star), ["is an MRC file", "STAR file that lists its images"]),
        (lambda case: case.keep_rows(0), ["has no particles"]),
        (lambda case: case.drop("rlnImageName"), ["rlnImageName", "is not a list of particles"]),
        (_write(b"data_particles\n\nloop_\n_rlnImageName #1\n"), ["has no particles"]),
        (_write(b"data_\n\nloop_\n_cisTEMAnglePsi #1\n10.0\n"), ["list of cisTEM", "rlnImageName"]),
    ],
    ids=["absent", "empty", "blank", "text", "binary", "cryosparc", "mrc", "no-rows", "no-names", "header", "cistem"],
)
def test_list_that_is_none(spoil, texts, case, engine):
    spoil(case)
    refuse_at_once(case, engine, "particles.star", *texts)


def test_list_that_was_cut_short(case, engine):
    content = case.star.read_bytes()
    case.star.write_bytes(content[: content.rindex(b" ", 0, len(content) - 40)])
    refuse_at_once(case, engine, "particles.star", "Row 300", "cells for")


@pytest.mark.parametrize(
    ("column", "meaning"),
    [
        ("rlnAngleRot", "orientations"),
        ("rlnAngleTilt", "orientations"),
        ("rlnAnglePsi", "orientations"),
        ("rlnOriginXAngst", "shifts"),
        ("rlnDefocusU", "CTF"),
        ("rlnDefocusV", "CTF"),
        ("rlnDefocusAngle", "CTF"),
        ("rlnVoltage", "voltage"),
        ("rlnSphericalAberration", "spherical aberration"),
        ("rlnAmplitudeContrast", "amplitude contrast"),
        ("rlnImagePixelSize", "pixel size"),
    ],
)
def test_missing_column_is_named(column, meaning, case, engine):
    case.drop(column)
    refuse_at_once(case, engine, "particles.star", column, meaning)


@pytest.mark.parametrize("column", ["rlnAnglePsi", "rlnDefocusU", "rlnOriginYAngst"])
@pytest.mark.parametrize("text", ["nan", "inf", "-", "12,5", "'a b'"])
def test_cell_that_is_no_finite_number(column, text, case, engine):
    case.set_cell(41, column, "MARK")
    case.star.write_text(case.star.read_text().replace("MARK", text))
    refuse_at_once(case, engine, "particles.star", "row 42", column, text.strip("'"))


@pytest.mark.parametrize(
    ("column", "value", "texts"),
    [
        ("rlnImagePixelSize", -3.0, ["-3 Angstrom"]),
        ("rlnImagePixelSize", 0.0, ["0 Angstrom"]),
        ("rlnImagePixelSize", "nan", ["'nan'"]),
        ("rlnImagePixelSize", "three", ["'three'"]),
        ("rlnVoltage", 300_000.0, ["300000 kV"]),
        ("rlnVoltage", 0.0, ["0 kV"]),
        ("rlnAmplitudeContrast", 7.0, ["7", "outside 0 to 1"]),
        ("rlnImageSize", 2 * BOX, [f"rlnImageSize {2 * BOX}", f"{BOX} px"]),
        ("rlnImageDimensionality", 3, ["are volumes"]),
        ("rlnCtfDataAreCtfPremultiplied", 2, ["2", "outside 0 to 1"]),
        ("rlnCtfDataArePhaseFlipped", "yes", ["'yes'"]),
    ],
)
def test_optics_group_that_cannot_be(column, value, texts, case, engine):
    case.change_optics(**{column: value})
    refuse_at_once(case, engine, "particles.star", column, *texts)


def test_unknown_optics_group(case, engine):
    case.set_cell(9, "rlnOpticsGroup", "4")
    refuse_at_once(case, engine, "particles.star", "Optics group 4", "row 10", "data_optics")


def test_too_few_particles(case, engine):
    case.keep_rows(99)
    refuse_at_once(case, engine, "particles.star", "99 particles", "at least 100")


# ---------------------------------------------------------------- images


def test_missing_stack(case, engine):
    case.stack.unlink()
    refuse_at_once(case, engine, "particles.mrcs", "particles.star", "does not exist")


def test_missing_stack_among_many(case, engine):
    case.set_cell(250, "rlnImageName", "000001@Extract/other.mrcs")
    refuse_at_once(case, engine, "Extract/other.mrcs", "does not exist", "--root")


def test_stacks_under_another_folder_than_that_of_root(case, engine):
    (case.folder / "elsewhere").mkdir()
    case.options["--root"] = case.folder / "elsewhere"
    refuse_at_once(case, engine, "particles.mrcs", "elsewhere", "does not exist")


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        (f"{PARTICLES + 1:06d}@particles.mrcs", [f"Image {PARTICLES + 1}", f"has {PARTICLES} images"]),
        ("000000@particles.mrcs", ["'000000@particles.mrcs'", "no image number from 1"]),
        ("first@particles.mrcs", ["'first@particles.mrcs'", "no image number from 1"]),
    ],
)
def test_index_out_of_range(name, texts, case, engine):
    case.set_cell(6, "rlnImageName", name)
    refuse_at_once(case, engine, "row 7", "particles.star", *texts)


@pytest.mark.parametrize("removed", [1, 10 * _IMAGE_BYTES + 8])
def test_truncated_stack(removed, case, engine):
    with open(case.stack, "r+b") as stream:
        stream.truncate(stream.seek(0, 2) - removed)
    number = PARTICLES - removed // _IMAGE_BYTES
    refuse_at_once(case, engine, "particles.mrcs is truncated", f"image {number}")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is not an MRC file"),
        (b"x" * 5000, "is not an MRC file"),
    ],
)
def test_stack_that_is_none(content, text, case, engine):
    case.stack.write_bytes(content)
    refuse_at_once(case, engine, "particles.mrcs", text)


@pytest.mark.parametrize("mode", [3, 4, 101])
def test_stack_of_values_that_are_not_read(mode, case, engine):
    with open(case.stack, "r+b") as stream:
        stream.seek(12)
        stream.write(mode.to_bytes(4, "little"))
    refuse_at_once(case, engine, "particles.mrcs", f"MRC mode {mode}")


@pytest.mark.parametrize("number", [1, 137, PARTICLES])
@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.full((BOX, BOX), np.nan), "has NaN or infinite values"),
        (np.where(np.arange(BOX) == 5, np.inf, np.ones((BOX, BOX))), "has NaN or infinite values"),
        (np.zeros((BOX, BOX)), "is constant (0)"),
        (np.full((BOX, BOX), 3.5), "is constant (3.5)"),
    ],
    ids=["nan", "infinite", "zero", "constant"],
)
def test_image_without_content(image, text, number, case, engine):
    case.set_image(number, image)
    refuse(case, engine, f"Image {number} of", "particles.mrcs", text)
    # a run was begun, and says how it ended
    assert json.loads((case.output / "status.json").read_text())["state"] == "failed"
    assert text in json.loads((case.output / "status.json").read_text())["message"]
    assert f"Image {number} of" in (case.output / "log.txt").read_text()
    assert not {"mean.mrc", "latents.npz", "particles.star"} & {path.name for path in case.output.iterdir()}


def test_fit_goes_on_once_the_image_is_mended(case, engine):
    content = case.stack.read_bytes()
    case.set_image(5, np.zeros((BOX, BOX)))
    assert engine(*case.arguments()).code == 2
    case.stack.write_bytes(content)
    case.extra = ["--resume"]
    assert engine(*case.arguments()).code == 0


def test_masked_image(case, engine):
    radius = np.hypot(*(np.indices((BOX, BOX)) - BOX // 2))
    image = np.random.default_rng(0).normal(size=(BOX, BOX))
    case.set_image(44, np.where(radius < 0.4 * BOX, image, 0))
    refuse(case, engine, "Image 44 of", "particles.mrcs", "constant outside the particle")


def test_groups_of_different_box(case, engine):
    with StackWriter(case.folder / "small.mrcs", PIXEL_SIZE) as writer:
        writer.append(np.random.default_rng(0).normal(size=(3, BOX - 4, BOX - 4)))
    case.set_cell(20, "rlnImageName", "000002@small.mrcs")
    refuse_at_once(case, engine, "small.mrcs", f"{BOX} px", f"{BOX - 4} px")


def test_images_that_are_not_square(case, engine):
    with StackWriter(case.stack, PIXEL_SIZE) as writer:
        writer.append(np.random.default_rng(0).normal(size=(PARTICLES, BOX, BOX + 2)))
    refuse_at_once(case, engine, "particles.mrcs", "not square", f"{BOX + 2} x {BOX}")


# ---------------------------------------------------------------- the mask


@pytest.mark.parametrize(
    ("spoil", "texts"),
    [
        (lambda case: case.mask.unlink(), ["does not exist"]),
        (lambda case: case.write_mask((16, BOX, BOX)), ["not a cube", "24 x 24 x 16"]),
        (lambda case: case.write_mask((BOX, BOX, 16)), ["not a cube", "16 x 24 x 24"]),
        (lambda case: case.write_mask(pixel_size=4.0), ["24 px of 4 Angstrom", "24 px of 8 Angstrom"]),
        (lambda case: case.write_mask((20,) * 3, pixel_size=7.0), ["20 px of 7 Angstrom"]),
        (lambda case: case.write_mask(value=0.0), ["is not empty"]),
        (lambda case: case.write_mask(value=37.0), ["37", "between 0 and 1"]),
        (lambda case: case.write_mask(value=-1.0), ["-1", "between 0 and 1"]),
        (lambda case: case.write_mask(value=float("nan")), ["NaN"]),
        (lambda case: case.mask.write_bytes(case.mask.read_bytes()[:5000]), ["truncated"]),
        (lambda case: shutil.copy(case.star, case.mask), ["is not an MRC file"]),
        (lambda case: shutil.copy(case.stack, case.mask), ["not a cube"]),
    ],
    ids=[
        "absent", "flat", "narrow", "pixel-size", "box-and-pixel-size", "empty", "map", "negative", "nan",
        "truncated", "star", "stack",
    ],
)  # fmt: skip
@pytest.mark.parametrize(("option", "start"), [("--mask", "error: "), ("--focus-mask", "error: --focus-mask: ")])
def test_mask(option, start, spoil, texts, case, engine):
    case.options[option] = case.mask
    spoil(case)
    refuse_at_once(case, engine, start, "mask.mrc", *texts)


def test_mask_that_has_no_voxel_in_the_box(case, engine):
    data = torch.zeros(48, 48, 48)
    data[:3, :3, :3] = 1
    write_volume(case.mask, Volume(data, PIXEL_SIZE))
    case.options["--mask"] = case.mask
    said, line = refuse(case, engine, "mask.mrc", "empty inside the box")
    assert "padded or cropped" in said
    check_sentence_in_run(case, line)


def write_corner(case: Case) -> Path:
    """A focus mask where no molecule is: touched by the edge of its mask at most."""
    data = torch.zeros(BOX, BOX, BOX)
    data[:2, :2, :2] = 1
    write_volume(case.folder / "corner.mrc", Volume(data, PIXEL_SIZE))
    return case.folder / "corner.mrc"


def test_focus_mask_that_is_empty_inside_the_mask(case, engine):
    case.options.update({"--mask": case.mask, "--focus-mask": write_corner(case)})
    refuse_at_once(case, engine, "--focus-mask: ", "corner.mrc is empty inside the mask of the molecule")


def test_focus_mask_that_is_empty_inside_the_automatic_mask(case, engine):
    case.options["--focus-mask"] = write_corner(case)
    line = refuse(case, engine, "--focus-mask: ", "corner.mrc is empty inside the mask of the molecule")[-1]
    status = json.loads((case.output / "status.json").read_text())
    assert (status["state"], "error: " + status["message"]) == ("failed", line)


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("option", "value", "texts"),
    [
        ("--rank", 0, ["--rank is 0", "at least 1"]),
        ("--rank", -3, ["--rank is -3"]),
        ("--box", 8, ["--box is 8"]),
        ("--oversampling", 0, ["--oversampling is 0"]),
        ("--oversampling", 9, ["--oversampling is 9"]),
        ("--cache-mb", -1, ["--cache-mb is -1"]),
        ("--seed", -1, ["--seed is -1"]),
        ("--device", "gpu", ["--device is 'gpu'"]),
        ("--mask", "", ["--mask"]),
        # neither a number nor a choice, or not built yet
        ("--rank", "automatic", ["--rank", "'automatic'"]),
        ("--rank", "2.5", ["--rank", "'2.5'"]),
        ("--box", "large", ["--box", "'large'"]),
        ("--objective", "em", ["--objective", "'em'"]),
        ("--projector", "cubic", ["--projector", "'cubic'"]),
        ("--invert-contrast", "maybe", ["--invert-contrast", "'maybe'"]),
        ("--gpus", "first", ["--gpus is 'first'", "all, or numbers"]),
        ("--focus-mask", "", ["--focus-mask"]),
    ],
)
def test_option_that_cannot_be(option, value, texts, case, engine):
    case.options[option] = value
    refuse_untouched(case, engine, *texts)
    assert not case.output.exists()


@pytest.mark.parametrize(
    ("option", "value", "texts"),
    [
        ("--rank", 16, ["--rank is 16", "at most 15 components"]),
        ("--box", BOX + 1, [f"--box is {BOX + 1}", f"{BOX} px"]),
        ("--device", "cuda", ["--device cuda"]),
        ("--device", "cuda:7", ["--device cuda:7"]),
        ("--gpus", "7", ["cuda:7"]),
        ("--scratch", "no/such/folder", ["no/such/folder", "--scratch"]),
        ("--root", "no/such/folder", ["no/such/folder"]),
    ],
)
def test_option_that_does_not_fit_data_or_machine(option, value, texts, case, engine):
    case.options[option] = value
    refuse_at_once(case, engine, *texts)


@pytest.mark.parametrize("extra", ["--cards", "--refine-pose-and-contrast", "second.star"])
def test_option_that_does_not_exist(extra, case, engine):
    case.extra = [extra]
    refuse_untouched(case, engine, extra)


@pytest.mark.parametrize("extra", [["--pose-schedule", "paper"], ["--refine-poses", "--projector", "nearest"]])
def test_option_of_the_poses_that_would_mean_nothing(extra, case, engine):
    case.extra = extra
    refuse_untouched(case, engine, extra[0])


# ---------------------------------------------------------------- the output folder


def test_folder_that_is_not_empty(case, engine):
    case.output.mkdir()
    (case.output / "thesis.txt").write_text("irreplaceable")
    refuse_untouched(case, engine, str(case.output), "not empty")
    case.extra = ["--resume"]
    refuse_untouched(case, engine, str(case.output), "thesis.txt", "not a run to resume")


def test_output_that_is_a_file(case, engine):
    case.options["--output"] = case.star
    refuse_untouched(case, engine, "particles.star", "is a file")
    case.options["--output"] = case.star / "run"
    refuse_untouched(case, engine, "particles.star", "is a file")


def test_folder_of_the_data(case, engine):
    case.options["--output"] = case.folder
    refuse_untouched(case, engine, str(case.folder), "not empty")

"""Values that only a wrong unit can give are refused with place and likely unit; real lists never are."""

from __future__ import annotations

import re

import numpy as np
import pytest

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.star import StarFile
from solvar_engine.data.metadata import ANGLE_COLUMNS, read_metadata
from solvar_engine.data.particles import ParticleStack

COUNT = 6  # rows of `write_particles`
ORDINARY = [15_000.0] * COUNT


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("rlnVoltage", 300_000, "300000 kV in row 1, .* is outside 10 to 4000: is it in V\\? correct it"),
        ("rlnVoltage", 0.3, "is it in MV"),
        ("rlnSphericalAberration", 2700, "2700 mm in row 1, .*um, nm or Angstrom"),
        ("rlnSphericalAberration", 2.7e7, "um, nm or Angstrom"),
        ("rlnAmplitudeContrast", 10, "10 in row 1, .* in percent"),
        ("rlnAmplitudeContrast", -0.1, "outside 0 to 1"),
        ("rlnImagePixelSize", 4e-10, "is it in metres"),
        ("rlnImagePixelSize", 400, "is it in pm"),
    ],
)
def test_units_of_optics_groups(write_particles, tmp_path, column, value, text):
    with pytest.raises(UserError, match=text):
        read_metadata(StarFile.read(write_particles(tmp_path, optics={column: [value]})))


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("rlnDefocusU", 1.5e6, "1.5e\\+06 Angstrom in row 3, column rlnDefocusU, of data_particles in .* is it in pm"),
        ("rlnPhaseShift", 1571, "1571 degrees in row 3, .*mrad"),
        ("rlnCtfBfactor", 10_000, "10000 Angstrom\\^2 in row 3"),
        ("rlnCtfScalefactor", 100, "100 in row 3, .* in percent"),
        ("rlnAngleRot", 1e6, "degrees in row 3"),
        ("rlnOriginXAngst", 3e5, "in row 3, .* in pm"),
    ],
)
def test_units_of_particles(write_particles, tmp_path, column, value, text):
    values = [0.1, 0.2, value, 0.1, value, 0.1] if "Defocus" not in column else [1e4, 1e4, value, 1e4, value, 1e4]
    with pytest.raises(UserError, match=f"{text}.* correct it and 1 other"):
        read_metadata(StarFile.read(write_particles(tmp_path, particles={column: values})))


def test_magnification_and_detector_make_a_pixel(write_particles, tmp_path):
    columns = {"rlnMagnification": [50.0] * COUNT, "rlnDetectorPixelSize": [5.0] * COUNT}
    optics = {"rlnImagePixelSize": None}
    with pytest.raises(UserError, match="50 in row 1, .*thousands"):
        read_metadata(StarFile.read(write_particles(tmp_path, particles=columns, optics=optics)))
    columns["rlnMagnification"] = [150.0] * COUNT
    with pytest.raises(UserError, match="333.333 Angstrom in .* 5 um and rlnMagnification 150 in row 1 .* 0.05 to 200"):
        read_metadata(StarFile.read(write_particles(tmp_path, particles=columns, optics=optics)))


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"rlnDefocusU": [1.5, 2.1, 0.8, 1.1, 1.9, 2.2], "rlnDefocusV": [1.5] * COUNT}, "rlnDefocusU .* 1.5 .* in um"),
        ({"rlnDefocusU": ORDINARY, "rlnDefocusV": [1.5] * COUNT}, "rlnDefocusV .* in um"),
        ({"rlnDefocusU": [-15_000.0] * COUNT, "rlnDefocusV": [-15_000.0] * COUNT}, "overfocus"),
        ({"rlnCtfScalefactor": [0.0] * COUNT}, "0 in all rows"),
        ({"rlnDefocusU": [350.0, 800.0] * 3, "rlnDefocusV": [340.0] * COUNT}, "800 Angstrom at most, .* in nm"),
    ],
)
def test_units_that_a_whole_column_shows(write_particles, tmp_path, columns, text):
    with pytest.raises(UserError, match=text):
        read_metadata(StarFile.read(write_particles(tmp_path, particles=columns)))


@pytest.mark.parametrize(
    "columns",
    [
        {"rlnDefocusU": [500.0] * COUNT, "rlnDefocusV": [500.0] * COUNT, "rlnPhaseShift": [90.0] * COUNT},
        {"rlnDefocusU": [0.0] * COUNT, "rlnDefocusV": [0.0] * COUNT},  # projections
        {"rlnDefocusU": [-800.0, *ORDINARY[1:]], "rlnDefocusV": ORDINARY},  # one strange fit
        {"rlnCtfScalefactor": [0.0, 1.0, 0.5, 1.0, 1.0, 1.0]},  # dark tilts
        {"rlnCtfBfactor": [-507.0, 0.0, 200.0, 0.0, 0.0, 0.0]},
        {"rlnAngleRot": [720.0, -1080.0, 0.0, 0.0, 0.0, 0.0], "rlnAngleTilt": [-20.0] * COUNT},
        {"rlnPhaseShift": [90.0] * COUNT},
    ],
)
def test_unusual_values_are_taken(write_particles, tmp_path, columns):
    assert len(read_metadata(StarFile.read(write_particles(tmp_path, particles=columns))).group) == COUNT


def test_angles_in_radians_are_refused_and_small_ones_are_not(write_particles, tmp_path):
    random = np.random.default_rng(0)
    images = random.normal(size=(80, 8, 8)).astype(np.float32)
    turned = dict(zip(ANGLE_COLUMNS, random.uniform(-np.pi, np.pi, (3, 80)), strict=True))
    with pytest.raises(UserError, match="in radians; give degrees"):
        read_metadata(StarFile.read(write_particles(tmp_path, images, particles=turned)))
    turned["rlnAngleRot"] = np.rad2deg(turned["rlnAngleRot"])
    read_metadata(StarFile.read(write_particles(tmp_path, images, particles=turned)))
    still = {name: np.full(80, 0.1) for name in ANGLE_COLUMNS}
    read_metadata(StarFile.read(write_particles(tmp_path, images, particles=still)))


def test_an_origin_lies_within_the_box(write_particles, tmp_path):
    """16 px of 10 Angstrom are 160 Angstrom."""
    origin = {"rlnOriginXAngst": [0.0, 159.0, 0.0, 0.0, 0.0, 0.0], "rlnOriginYAngst": [0.0] * COUNT}
    ParticleStack.from_star(write_particles(tmp_path, pixel_size=10.0, particles=origin))
    origin["rlnOriginYAngst"] = [0.0, 0.0, -161.0, 0.0, 162.0, 0.0]
    text = r"origin in row 3 of .* is 161 Angstrom, .* only 160 Angstrom wide \(2 such rows\)"
    with pytest.raises(UserError, match=text):
        ParticleStack.from_star(write_particles(tmp_path, pixel_size=10.0, particles=origin))


def test_no_real_list_is_refused_for_its_values(shared_data):
    """Every STAR file of particles that there is; what some lack is filled in."""
    read = 0
    for path in sorted(shared_data.rglob("*.star")):
        try:
            star = StarFile.read(path)
            table = star.particles
        except UserError as error:
            assert "not a list of particles" in str(error)
            continue
        lacking = {
            **dict.fromkeys(ANGLE_COLUMNS, 0.0), "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1, "rlnDefocusU": 1e4, "rlnDefocusV": 1e4, "rlnDefocusAngle": 0.0,
        }  # fmt: skip
        present = {*table.columns, *(() if star.optics is None else star.optics.columns)}
        filled = {name: [value] * len(table) for name, value in lacking.items() if name not in present}
        if not present & {"rlnImagePixelSize", "rlnPixelSize", "rlnMagnification"}:
            filled["rlnImagePixelSize"] = [4.4] * len(table)
        star = star.replace(table, table.with_columns(filled))
        assert len(read_metadata(star).group) == len(table)
        read += 1
    assert read >= 8


@pytest.mark.parametrize(("size", "fits"), [(0.13, False), (1.3, True), (130.0, True)])
def test_pixel_size_fits_an_image_of_a_molecule(write_particles, tmp_path, size, fits):
    """A pixel in nm is within what pixels may have, but the image is only 6 Angstrom wide."""
    images = np.random.default_rng(0).normal(size=(COUNT, 48, 48)).astype(np.float32)
    path = write_particles(tmp_path, images=images, optics={"rlnImagePixelSize": [size], "rlnImageSize": [48]})
    if fits:
        assert ParticleStack.from_star(path).pixel_size == size
    else:
        with pytest.raises(UserError, match="48 px of 0.13 Angstrom .* 6.24 Angstrom wide, .*in Angstrom"):
            ParticleStack.from_star(path)


@pytest.mark.parametrize(
    ("particles", "optics", "text"),
    [
        ({"rlnVoltage": [300.0] * 4 + [200.0] * 2}, {"rlnVoltage": [300.0]},
         "rlnVoltage of .* is 200 in one place and 300 in another \\(row 5, 2 such rows\\): that of the particles"),
        ({"rlnImagePixelSize": [2.0] * COUNT}, {"rlnImagePixelSize": [4.0]}, "is 4 .* and 2 .* optics is used"),
        ({"rlnPixelSize": [2.0] * COUNT}, {"rlnImagePixelSize": [4.0]}, "The pixel size .* is 4 .* and 2 .*"),
        ({"rlnOriginX": [5.0] * COUNT, "rlnOriginY": [0.0] * COUNT}, {"rlnImagePixelSize": [4.0]},
         "origins of .* in px and in Angstrom differ by up to 19.9 Angstrom"),
        ({"rlnDefocusU": [0.0] * COUNT}, {}, "rlnDefocusU of .* is 0 in all rows: was the CTF never estimated"),
        ({"rlnDefocusU": [0.0] * 3 + [9e3] * (COUNT - 3)}, {}, "is 0 in rows 1 to 3: was the CTF never estimated"),
        ({"rlnCtfScalefactor": [1.0, 0.0] * 3}, {}, "is 0 in 3 rows, whose images show nothing"),
    ],
)  # fmt: skip
def test_values_that_contradict_each_other_are_told(write_particles, tmp_path, caplog, particles, optics, text):
    origins = {"rlnOriginXAngst": [0.1] * COUNT, "rlnOriginYAngst": [0.2] * COUNT}
    read_metadata(StarFile.read(write_particles(tmp_path, particles={**origins, **particles}, optics=optics)))
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.search(text, line)


def test_values_that_agree_are_no_contradiction(write_particles, tmp_path, caplog):
    origins = {"rlnOriginXAngst": [2.0] * COUNT, "rlnOriginYAngst": [4.0] * COUNT, "rlnOriginX": [0.5] * COUNT}
    columns = {**origins, "rlnOriginY": [1.0] * COUNT, "rlnVoltage": [300.0] * COUNT, "rlnPixelSize": [4.0001] * COUNT}
    optics = {"rlnImagePixelSize": [4.0], "rlnVoltage": [300.0]}
    metadata = read_metadata(StarFile.read(write_particles(tmp_path, particles=columns, optics=optics)))
    assert caplog.records == [] and metadata.pose.shift[0].tolist() == [2.0, 4.0]


def test_images_of_amplitude_contrast_alone_need_no_defocus(write_particles, tmp_path, caplog):
    zeros = {"rlnDefocusU": [0.0] * COUNT, "rlnDefocusV": [0.0] * COUNT}
    read_metadata(StarFile.read(write_particles(tmp_path, particles=zeros, optics={"rlnAmplitudeContrast": [1.0]})))
    assert not any("never estimated" in record.getMessage() for record in caplog.records)

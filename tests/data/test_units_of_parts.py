"""Wrong units in a part of a list that was joined from two are refused or told, and the part is named."""

from __future__ import annotations

import numpy as np
import pytest

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.data.metadata import ANGLE_COLUMNS, ParticleMetadata, read_metadata

COUNT = 400
PARTS = {
    "rows 201 to 400": np.arange(COUNT) >= COUNT // 2,
    "optics group two": np.arange(COUNT) % 2 == 1,
    r"80 rows \(the first is row 2\)": np.arange(COUNT) % 5 == 1,
}
"""Which rows are wrong, by how they are named: every second one is of the second optics group."""

in_parts = pytest.mark.parametrize(("named", "is_wrong"), PARTS.items(), ids=["block", "group", "scattered"])


def ordinary(seed: int = 0, **changes: np.ndarray) -> dict[str, np.ndarray]:
    """Columns as real lists have them: defocus from 0.8 to 2.5 um, all views, astigmatism of 0.03 um."""
    random = np.random.default_rng(seed)
    defocus = random.uniform(8_000, 25_000, COUNT)
    return {
        "rlnDefocusU": defocus + 150, "rlnDefocusV": defocus - 150, "rlnDefocusAngle": random.uniform(-180, 180, COUNT),
        "rlnAngleRot": random.uniform(-180, 180, COUNT),
        "rlnAngleTilt": np.degrees(np.arccos(random.uniform(-1, 1, COUNT))),
        "rlnAnglePsi": random.uniform(-180, 180, COUNT), **changes,
    }  # fmt: skip


def read(columns: dict[str, np.ndarray], **optics: list[float]) -> ParticleMetadata:
    """What a list of two optics groups means; every second row is of the second one."""
    groups = {
        "rlnOpticsGroup": [1, 2], "rlnOpticsGroupName": ["one", "two"], "rlnVoltage": [300.0, 300.0],
        "rlnSphericalAberration": [2.7, 2.7], "rlnAmplitudeContrast": [0.1, 0.1], "rlnImagePixelSize": [1.2, 1.2],
        **optics,
    }  # fmt: skip
    zeros = dict.fromkeys(("rlnOriginXAngst", "rlnOriginYAngst"), np.zeros(COUNT))
    names = {"rlnImageName": [f"{row + 1}@a.mrcs" for row in range(COUNT)], "rlnOpticsGroup": np.arange(COUNT) % 2 + 1}
    tables = (StarTable.create("optics", groups), StarTable.create("particles", {**names, **zeros, **columns}))
    return read_metadata(StarFile(tables))


def changed(is_wrong: np.ndarray, names: tuple[str, ...], factor: float) -> dict[str, np.ndarray]:
    """The ordinary columns, some of them times a factor in some rows."""
    columns = ordinary()
    return {**columns, **{name: np.where(is_wrong, factor, 1.0) * columns[name] for name in names}}


DEFOCUS = ("rlnDefocusU", "rlnDefocusV")


@in_parts
@pytest.mark.parametrize(
    ("names", "factor", "text"),
    [
        (DEFOCUS, 1e-4, "rlnDefocusU .* is 0.8.* to 2.* in {}, and up to 2[0-9]{{4}}.* in the others: .* um"),
        (DEFOCUS, -1.0, r"rlnDefocusU .* is negative in {} \(-.* in row [0-9]+\), .* unlike in the others"),
        (ANGLE_COLUMNS, np.pi / 180, "go to 3.* at most in {}, unlike in the others: they seem to be in radians"),
    ],
    ids=["um", "overfocus", "radians"],
)
def test_rows_of_another_unit_are_refused_and_named(named, is_wrong, names, factor, text):
    with pytest.raises(UserError, match=text.format(named)):
        read(changed(is_wrong, names, factor))


@in_parts
def test_defocus_in_nm_is_told(named, is_wrong):
    """Such values are possible, so that the list is not refused."""
    (caution,) = read(changed(is_wrong, DEFOCUS, 0.1)).cautions
    named = named.replace("\\", "")
    assert f"The defocus in {named} of" in caution and "about a tenth of that in the others" in caution
    (caution,) = read(changed(np.ones(COUNT, bool), DEFOCUS, 0.1)).cautions
    assert "closer to focus than micrographs are as a rule: if it is in nm" in caution


@pytest.mark.parametrize("largest", [90, 180])  # of cryoSPARC and of RELION
@in_parts
def test_directions_of_the_astigmatism_in_radians_are_told(named, is_wrong, largest):
    degrees = np.random.default_rng(2).uniform(-largest, largest, COUNT)
    assert read(ordinary(rlnDefocusAngle=degrees)).cautions == ()
    (caution,) = read(ordinary(rlnDefocusAngle=np.where(is_wrong, np.radians(degrees), degrees))).cautions
    # a few right ones are as small by chance
    assert "rlnDefocusAngle" in caution and "if that is in radians" in caution


@in_parts
def test_phase_shifts_in_radians_are_refused(named, is_wrong):
    shift = np.random.default_rng(1).uniform(40, 140, COUNT)
    with pytest.raises(UserError, match=f"rlnPhaseShift .* in {named}, .* in radians there; give degrees"):
        read(ordinary(rlnPhaseShift=np.where(is_wrong, np.radians(shift), shift)))
    assert read(ordinary(rlnPhaseShift=shift)).cautions == ()


def test_spherical_aberration_in_metres_is_refused_and_that_of_correctors_is_not():
    with pytest.raises(UserError, match=r"0.0027 mm in row 2, .* is between 0.00105 and 0.00495: is it in m, or um\?"):
        read(ordinary(), rlnSphericalAberration=[2.7, 0.0027])
    for corrected in (0.0, 0.001, 0.01, -0.002, 0.05):
        assert read(ordinary(), rlnSphericalAberration=[2.7, corrected]).cautions == ()


@pytest.mark.parametrize(
    ("name", "value"), [("rlnVoltage", 300_000.0), ("rlnAmplitudeContrast", 7.0), ("rlnVoltage", 0.3)]
)
def test_units_of_one_optics_group_are_refused(name, value):
    with pytest.raises(UserError, match=f"{value:g} .*in row 2, column {name}, of data_optics"):
        read(ordinary(), **{name: [300.0 if name == "rlnVoltage" else 0.1, value]})


@pytest.mark.parametrize("seed", range(5))
def test_ordinary_lists_raise_no_doubt(seed):
    """Also top views alone, a helix, micrographs near focus, and one session far closer to focus than the other."""
    random = np.random.default_rng(seed)
    upright = {"rlnAngleTilt": np.abs(random.normal(0, 4, COUNT))}
    still = dict.fromkeys(ANGLE_COLUMNS[:2], np.zeros(COUNT))
    helix = {"rlnAngleTilt": random.normal(90, 5, COUNT), "rlnAnglePsi": random.normal(0, 5, COUNT)}
    around_focus = random.normal(1_500, 3_000, COUNT)
    session = np.where(np.arange(COUNT) % 2, 1.0, 0.3) * random.uniform(8_000, 25_000, COUNT)
    for changes in ({}, upright, still, helix, dict.fromkeys(DEFOCUS, around_focus), dict.fromkeys(DEFOCUS, session)):
        assert read(ordinary(seed, **changes)).cautions == ()


def test_single_rows_of_overfocus_are_told():
    """Among micrographs that are all out of focus; others are taken around focus."""
    defocus = np.random.default_rng(0).uniform(8_000, 25_000, COUNT)
    defocus[17] = -100.0
    told = read(ordinary(**dict.fromkeys(DEFOCUS, defocus))).cautions
    assert len(told) == 2 and all("is negative in row 18 (down to -100 Angstrom)" in one for one in told)


@pytest.mark.parametrize("columns", [("rlnDetectorPixelSize", "rlnMagnification"), ("rlnPixelSize",)])
def test_pixel_sizes_of_a_list_that_contradict_each_other_are_told(columns):
    """In one optics group; a calibration of half a percent is none."""
    factor = np.where(np.arange(COUNT) % 2, 2.0, 1.0)
    values = {"rlnDetectorPixelSize": 5.0, "rlnMagnification": 5e4 / 1.2 / factor, "rlnPixelSize": 1.2 * factor}
    (caution,) = read(ordinary(**{name: np.broadcast_to(values[name], COUNT) for name in columns})).cautions
    assert "2.4" in caution and "1.2" in caution and "(row 2, 200 such rows)" in caution
    values = {"rlnDetectorPixelSize": np.full(COUNT, 5.0), "rlnMagnification": np.full(COUNT, 5e4 / 1.206)}
    assert read(ordinary(**values)).cautions == ()


def test_the_ctf_of_a_real_set_raises_no_doubt(shared_data):
    """Of 2,019 particles of cryoSPARC, of 50 micrographs with astigmatism of 0.09 um, mostly in one direction."""
    real = np.load(shared_data / "metadata" / "cryosparc_P12_J24_001_particles.cs")
    rows = np.random.default_rng(0).permutation(len(real))[:COUNT]
    names = {"rlnDefocusU": "df1_A", "rlnDefocusV": "df2_A", "rlnDefocusAngle": "df_angle_rad"}
    columns = {name: real[f"ctf/{other}"][rows].astype(float) for name, other in names.items()}
    columns["rlnDefocusAngle"] = np.degrees(columns["rlnDefocusAngle"])
    assert read(ordinary(**columns)).cautions == ()


def test_an_amplitude_contrast_of_zero_is_told():
    """In one optics group, named, or in all; not with a phase plate, nor where it is small."""
    (doubt,) = read(ordinary(), rlnAmplitudeContrast=[0.1, 0.0]).cautions
    assert doubt.endswith("is 0 in optics group two, and 0.07 to 0.1 as a rule: was it never filled?")
    (doubt,) = read(ordinary(), rlnAmplitudeContrast=[0.0, 0.0]).cautions
    assert "is 0 in all rows" in doubt
    assert read(ordinary(rlnPhaseShift=np.full(COUNT, 90.0)), rlnAmplitudeContrast=[0.0, 0.0]).cautions == ()
    assert read(ordinary(), rlnAmplitudeContrast=[0.05, 0.1]).cautions == ()

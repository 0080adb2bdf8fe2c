"""Particles of one list in another: by name, by place, by position, in order; and how far their images moved."""

from __future__ import annotations

import numpy as np
import pytest

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.jobs.states.matching import ParticleList, match_rows, moved_images

COUNT = 200


def make(name="list.star", pixel_size=3.0, optics=None, **columns) -> ParticleList:
    """A list of these columns; image names are those of a stack of its own unless they are given."""
    count = len(next(iter(columns.values())))
    names = columns.pop("rlnImageName", [f"{row + 1}@{name}s" for row in range(count)])
    tables = [StarTable.create("particles", {"rlnImageName": names, **columns})]
    if optics:
        tables.append(StarTable.create("optics", optics))
    tables = [StarTable(t.name, t.columns, t.rows, t.header, t.is_loop, name) for t in tables]
    origins = [columns.get(f"rlnOrigin{axis}Angst", np.zeros(count)) for axis in "XY"]
    return ParticleList(StarFile(tuple(tables), name), np.stack(origins, axis=1).astype(float), pixel_size)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def places(random, origin_px=6.0, unit=3.0):
    """Columns of particles of four micrographs."""
    origin = random.uniform(-origin_px, origin_px, (COUNT, 2)) * unit
    centre = random.integers(100, 3900, (COUNT, 2)).astype(float)
    return columns_of([f"job1/mic_{row % 4}.mrc" for row in range(COUNT)], centre, origin)


def columns_of(micrograph, centre, origin):
    return {
        "rlnMicrographName": list(micrograph),
        "rlnCoordinateX": centre[:, 0],
        "rlnCoordinateY": centre[:, 1],
        "rlnOriginXAngst": origin[:, 0],
        "rlnOriginYAngst": origin[:, 1],
    }


def arrays(columns):
    """Centres and origins."""
    forms = ("rlnCoordinate{}", "rlnOrigin{}Angst")
    return tuple(np.stack([columns[form.format(axis)] for axis in "XY"], axis=1) for form in forms)


def recentred(columns, unit=3.0):
    """Whole pixels of the origins moved into the coordinates, as re-extraction does: position is centre less origin."""
    centre, origin = arrays(columns)
    whole = np.round(origin / unit)
    return columns_of(columns["rlnMicrographName"], centre - whole, origin - unit * whole)


def taken(columns, order):
    """The rows in another order, or some of them."""
    return {name: [values[row] for row in order] for name, values in columns.items()}


def test_names_then_places_then_order():
    names = make(rlnImageName=["1@a", "2@a", "3@a"])
    assert match_rows(names, make(rlnImageName=["3@a", "1@a", "9@z", "2@a"])).tolist() == [1, 3, 0]
    place = {"rlnMicrographName": ["m", "m", "n"], "rlnCoordinateX": [1, 2, 1], "rlnCoordinateY": [5, 5, 5]}
    turned = {name: values[::-1] for name, values in place.items()}
    assert match_rows(make(**place), make("b", **turned)).tolist() == [2, 1, 0]
    assert match_rows(names, make(rlnImageName=["1@b", "2@b", "3@b"])).tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="same particles in the same order"):
        match_rows(names, make(rlnImageName=["1@b", "2@b"]))


def test_names_are_compared_without_folders_and_zeros():
    known = make(rlnImageName=["000001@job1/a.mrcs", "000002@job1/a.mrcs"])
    assert match_rows(known, make(rlnImageName=["2@/data/job7/a.mrcs", "1@/data/job7/a.mrcs"])).tolist() == [1, 0]


def test_a_name_that_an_image_had_before_counts():
    known = make(rlnImageName=["1@sub", "2@sub", "3@sub"], rlnImageOriginalName=["7@a", "5@a", "6@a"])
    assert match_rows(known, make(rlnImageName=["5@a", "6@a", "7@a"])).tolist() == [2, 0, 1]
    assert match_rows(make(rlnImageName=["5@a", "6@a", "7@a"]), known).tolist() == [1, 2, 0]


def test_a_name_that_is_missing_is_told():
    known = make(rlnImageName=["1@a", "2@a", "3@a"])
    with pytest.raises(UserError, match=r"1 of 3 particles .* the first is row 2, rlnImageName 2@a"):
        match_rows(known, make(rlnImageName=["1@a", "4@a", "3@a"]))


def test_rows_of_one_image_are_matched_in_turn():
    known = make(rlnImageName=["1@a", "1@a", "2@a", "2@a"])
    assert match_rows(known, make(rlnImageName=["2@a", "1@a", "2@a", "1@a"])).tolist() == [1, 3, 0, 2]
    by_uid = make(rlnImageName=["1@b", "1@b", "2@b", "2@b"], ucsfUid=["7", "7", "9", "9"])
    other = make(rlnImageName=["1@c", "2@c", "3@c", "4@c"], ucsfUid=["9", "7", "9", "7"])
    assert match_rows(by_uid, other).tolist() == [1, 3, 0, 2]


def test_rows_of_one_particle_are_all_found_in_its_one_row(random, caplog):
    caplog.set_level("INFO")
    twice = make("run.star", rlnImageName=["1@a", "2@a", "2@a", "1@a"])
    assert match_rows(twice, make(rlnImageName=["2@a", "1@a", "3@a"])).tolist() == [1, 0, 0, 1]
    assert "2 rows of run.star list particles again (row 3 that of row 2), of which list.star has fewer" in caplog.text
    # three times, where the list has it twice, as in two orientations
    thrice = make(rlnImageName=["1@a", "1@a", "1@a", "1@a"])
    assert match_rows(thrice, make(rlnImageName=["1@a", "1@a"])).tolist() == [0, 1, 0, 1]
    columns = places(random)
    order = np.concatenate([np.arange(COUNT), [7, 7, 19]])
    known = make("run.star", **taken(columns, order))
    for other in (columns, recentred(columns)):
        np.testing.assert_array_equal(match_rows(known, make("full.star", **other)), order)


def test_rows_of_one_image_at_origins_that_differ_a_little_are_found_in_its_one_row(random):
    columns = places(random)
    names = [f"{row + 1}@small.mrcs" for row in range(COUNT)]
    again = taken({"rlnImageName": names, **columns}, [*range(COUNT), 5])
    again["rlnOriginXAngst"][-1] += 4.0
    row = match_rows(make(**again), make("full.star", **recentred(columns)))
    np.testing.assert_array_equal(row, [*range(COUNT), 5])
    again["rlnOriginXAngst"][-1] += 40.0
    with pytest.raises(UserError, match=r"Rows 6 and 201 of .* show places of one image that are 44 Angstrom apart"):
        match_rows(make(**again), make("full.star", **recentred(columns)))


def test_images_extracted_twice_at_one_place_are_found_in_its_one_row(random):
    columns = places(random)
    centre, origin = arrays(taken(columns, [*range(COUNT), 8]))
    centre[-1] += 0.5
    known = make(**columns_of([*columns["rlnMicrographName"], columns["rlnMicrographName"][8]], centre, origin))
    np.testing.assert_array_equal(match_rows(known, make("full.star", **columns)), [*range(COUNT), 8])


def test_stacks_of_one_file_name_are_told_by_their_folders(caplog):
    caplog.set_level("INFO")
    known = make("run.star", rlnImageName=["1@S/job0/x.mrcs", "1@S/job1/x.mrcs", "2@S/job1/x.mrcs"])
    names = ["000001@F/job1/x.mrcs", "000002@F/job1/x.mrcs", "000001@F/job0/x.mrcs"]
    assert match_rows(known, make(rlnImageName=names)).tolist() == [2, 0, 1]
    other = make("full.star", rlnImageName=[name.replace("job", "new") for name in names])
    sentence = "Stack S/job0/x.mrcs of run.star may be F/new1/x.mrcs or F/new0/x.mrcs of full.star: give a list whose"
    with pytest.raises(UserError, match=sentence):
        match_rows(known, other)


def test_coordinates_of_many_images_at_one_place_tell_nothing():
    nowhere = {"rlnMicrographName": ["m"] * COUNT, "rlnCoordinateX": [0] * COUNT, "rlnCoordinateY": [0] * COUNT}
    names = [f"{row + 1}@a/x.mrcs" for row in range(COUNT)]
    known = make(rlnImageName=names, **nowhere)
    other = make(rlnImageName=[name.replace("@a", "@b") for name in names[::-1]], **nowhere)
    assert match_rows(known, other).tolist() == list(range(COUNT))[::-1]


@pytest.mark.parametrize("digits", [0, 1, 2, 6])
def test_coordinates_are_numbers(random, digits):
    columns = places(random)
    centre, origin = arrays(columns)
    columns = columns_of(columns["rlnMicrographName"], centre + random.uniform(-0.4, 0.4, centre.shape), origin)
    order = random.permutation(COUNT)
    rounded = columns_of(columns["rlnMicrographName"], np.round(arrays(columns)[0], digits), origin)
    rounded["rlnMicrographName"] = [f"/other/{name}" for name in rounded["rlnMicrographName"]]
    row = match_rows(make(**columns), make("full.star", **taken(rounded, order)))
    np.testing.assert_array_equal(order[row], np.arange(COUNT))


@pytest.mark.parametrize("known_unit", [True, False])
@pytest.mark.parametrize("unit", [3.0, 1.7])
def test_a_particle_stays_where_it_is_when_its_image_is_recentred(random, unit, known_unit):
    columns = places(random, unit=unit)
    order = random.permutation(COUNT)
    optics = {"rlnOpticsGroup": [1], "rlnMicrographPixelSize": [unit]} if known_unit else None
    known = make("small.star", 6.0, optics, **columns)
    other = make("full.star", 3.0, optics, **taken(recentred(columns, unit), order))
    row = match_rows(known, other)
    np.testing.assert_array_equal(order[row], np.arange(COUNT))
    # the centre has moved by minus the whole pixels of the origin
    origin = arrays(columns)[1]
    np.testing.assert_allclose(moved_images(known, other, row), -unit * np.round(origin / unit), atol=1e-9)


def test_a_place_that_is_missing_is_told(random):
    columns = places(random)
    known, other = make(**columns), make("full.star", **taken(columns, np.delete(np.arange(COUNT), [17, 40])))
    with pytest.raises(UserError, match=r"2 of 200 .* the first is row 18, rlnCoordinateX \d+, rlnCoordinateY \d+ of"):
        match_rows(known, other)
    columns["rlnMicrographName"][3] = "lost.mrc"
    with pytest.raises(UserError, match=r"Micrograph job1/mic_0.mrc|Micrograph lost.mrc of row 4"):
        match_rows(make(**columns), other)


@pytest.mark.parametrize("factor", [0.5, 4.0])
def test_coordinates_of_another_binning_are_told(random, factor):
    columns = places(random)
    centre, origin = arrays(columns)
    order = random.permutation(COUNT)
    binned = columns_of(columns["rlnMicrographName"], factor * centre, origin)
    with pytest.raises(UserError, match=rf"coordinates in full.star are {factor:g} times those in list.star, as of"):
        match_rows(make(**columns), make("full.star", **taken(binned, order)))


def test_names_of_another_set_do_not_win_over_coordinates(random):
    """A stack of the same name, written in another order."""
    columns = places(random)
    order = random.permutation(COUNT)
    names = [f"{row + 1}@particles.mrcs" for row in range(COUNT)]
    row = match_rows(make(rlnImageName=names, **columns), make("b", rlnImageName=names, **taken(columns, order)))
    np.testing.assert_array_equal(order[row], np.arange(COUNT))


def test_order_is_not_believed_against_micrographs_or_defocus(random, caplog):
    defocus = {"rlnDefocusU": random.uniform(1e4, 2e4, COUNT), "rlnDefocusV": random.uniform(1e4, 2e4, COUNT)}
    order = random.permutation(COUNT)
    assert match_rows(make(**defocus), make("b", **defocus)).tolist() == list(range(COUNT))
    assert "in the order of the rows" in caplog.text
    with pytest.raises(UserError, match="in another order .*defocus of row"):
        match_rows(make(**defocus), make("b", **taken(defocus, order)))
    micrograph = {"rlnMicrographName": [f"{row}.mrc" for row in range(4)]}
    with pytest.raises(UserError, match="Row 1 of .* is of micrograph 0.mrc, that of b of 3.mrc"):
        match_rows(make(**micrograph), make("b", rlnMicrographName=micrograph["rlnMicrographName"][::-1]))


def test_coordinates_that_moved_without_the_origins_are_refused(random):
    columns = places(random)
    moved = recentred(columns)
    moved.update({name: columns[name] for name in ("rlnOriginXAngst", "rlnOriginYAngst")})
    known, other = make(**columns), make("full.star", **moved)
    with pytest.raises(UserError, match="origins do not follow"):
        moved_images(known, other, np.arange(COUNT))


def test_images_moved_without_their_coordinates_follow_the_origins(random, caplog):
    columns = places(random)
    centre, origin = arrays(columns)
    other = make("b", **columns_of(columns["rlnMicrographName"], centre, origin - 3 * np.round(origin / 3)))
    moved = moved_images(make(**columns), other, np.arange(COUNT))
    np.testing.assert_allclose(moved, -3 * np.round(origin / 3))


def test_a_list_without_origins_is_centred_as_before(random, caplog):
    columns = places(random)
    bare = {name: values for name, values in columns.items() if "Origin" not in name}
    assert not moved_images(make(**columns), make("b", **bare), np.arange(COUNT)).any()
    origins = {name: values for name, values in columns.items() if "Origin" in name}
    unplaced = make("b", rlnImageName=[f"{row}@b" for row in range(COUNT)])
    assert not moved_images(make(**origins), unplaced, np.arange(COUNT)).any() and "has no origins" in caplog.text

from __future__ import annotations

import dataclasses
import json

import pytest

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import (
    COMMANDS,
    PHANTOMS,
    AnalyzeParams,
    FitParams,
    ReconstructParams,
    SimulateParams,
    exclusive_sets_of,
    options_of,
)

FIT = FitParams(particles="particles.star", output="run", rank=4)


def test_defaults_are_valid():
    for params in (
        FIT,
        SimulateParams(output="data", phantom="hinge"),
        ReconstructParams(run="run", output="states", clusters=3),
        AnalyzeParams(run="run"),
    ):
        params.validate()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rank": 0}, "--rank is 0 but must be at least 1 or auto."),
        ({"rank": 2.5}, "--rank is 2.5 but must be a whole number or auto."),
        ({"rank": True}, "--rank is True but must be a whole number or auto."),
        ({"rank": "Auto"}, "--rank is 'Auto' but must be a whole number or auto."),
        ({"oversampling": 5}, "--oversampling is 5 but must be 1 to 4."),
        ({"box": 8}, "--box is 8 but must be 16 to 4096 px."),
        ({"projector": "cubic"}, "--projector is 'cubic' but must be one of trilinear, nearest, nufft."),
        ({"device": "gpu"}, "--device is 'gpu' but must be auto, cpu, cuda or a GPU: cuda:0."),
        ({"threads": 0}, "--threads is 0 but must be 1 to 4096."),
        ({"particles": None}, "PARTICLES.star is None but must be text."),
    ],
)
def test_bad_value_is_named_with_its_range(changes, text):
    with pytest.raises(UserError) as error:
        dataclasses.replace(FIT, **changes).validate()
    assert str(error.value) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_snr_must_be_a_positive_finite_number(value):
    with pytest.raises(UserError, match="--snr"):
        SimulateParams(output="data", phantom="hinge", snr=value).validate()


def test_exactly_one_kind_of_state():
    base = ReconstructParams(run="run", output="states")
    with pytest.raises(UserError, match="exactly one of --clusters, --mixture, --points, --trajectory and --between"):
        base.validate()
    with pytest.raises(UserError, match="exactly one"):
        dataclasses.replace(base, clusters=2, points="a.csv").validate()
    assert [option.name for option in exclusive_sets_of(ReconstructParams)["states"]] == [
        "clusters",
        "mixture",
        "points",
        "trajectory",
        "between",
    ]


def test_frames_without_trajectory_is_not_ignored():
    with pytest.raises(UserError, match="--frames belongs to --trajectory"):
        ReconstructParams(run="run", output="states", clusters=2, frames=5).validate()
    ReconstructParams(run="run", output="states", trajectory="path.csv", frames=5).validate()


def test_oversampling_without_interpolation_is_not_ignored():
    with pytest.raises(UserError, match="--oversampling belongs to --projector trilinear and nearest"):
        dataclasses.replace(FIT, projector="nufft", oversampling=3).validate()
    dataclasses.replace(FIT, projector="nufft").validate()
    dataclasses.replace(FIT, projector="nearest", oversampling=3).validate()


def test_automatic_rank_tries_as_many_components_as_the_particles_support():
    automatic = dataclasses.replace(FIT, rank="auto")
    automatic.validate()
    assert [automatic.components_for(count) for count in (10_000, 200, 199, 100)] == [10, 10, 9, 5]
    assert FIT.components_for(100) == FIT.components_for(10_000) == 4


def test_json_round_trip():
    automatic = dataclasses.replace(FIT, rank="auto")
    for params in (FIT, automatic, SimulateParams(output="data", phantom=["a.mrc", "b.mrc"])):
        assert type(params).from_dict(json.loads(json.dumps(params.to_dict()))) == params


# --- the molecule of a simulation


@pytest.mark.parametrize("name", PHANTOMS)
def test_a_phantom_is_given_by_its_name(name):
    params = SimulateParams(output="data", phantom=name)
    params.validate()
    assert params.phantom == (name,) and not params.uses_maps


def test_maps_are_given_by_their_files():
    params = SimulateParams(output="data", phantom=["a.mrc", "folder/B.MAP"])
    params.validate()
    assert params.phantom == ("a.mrc", "folder/B.MAP") and params.uses_maps


@pytest.mark.parametrize(
    ("phantom", "sentence"),
    [
        ("hing", "--phantom is 'hing' but must be one of hinge, linker, assembly, mixture, flexible, static, or maps"),
        (["hinge", "static"], "--phantom takes one name, or maps: hinge cannot be combined with anything else."),
        (["a.mrc", "hinge"], "--phantom takes one name, or maps: hinge cannot be combined"),
        (["a.mrc", "b.star"], "--phantom is 'b.star' but must be"),
        ([], "--phantom is () but must be one or more values."),
        ([3], "--phantom is 3 but must be text."),
        (None, "--phantom is None but must be text."),
    ],
)
def test_other_molecules_are_refused(phantom, sentence):
    with pytest.raises(UserError) as error:
        SimulateParams(output="data", phantom=phantom).validate()
    assert str(error.value).startswith(sentence)


def test_unknown_or_absent_option_is_refused():
    with pytest.raises(UserError, match="no option warp"):
        FitParams.from_dict({**FIT.to_dict(), "warp": 9})
    with pytest.raises(UserError, match="rank"):
        FitParams.from_dict({"particles": "a", "output": "b"})
    with pytest.raises(TypeError, match="rank"):
        FitParams(particles="a", output="b")


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.command)
def test_every_option_explains_itself(kind):
    names = set()
    for option in options_of(kind):
        assert option.help and not option.help.endswith(".")
        assert option.default is None or option.kind is bool or str(option.default) in option.describe()
        if not option.is_required:
            option.check(option.default)
        names.add(option.label)
    assert {"--threads", "--device", "--seed", "--debug"} < names


def test_options_are_described_with_unit_range_and_default():
    box = next(option for option in options_of(SimulateParams) if option.name == "box")
    assert box.describe() == "box size; without it, 64, or that of the maps (px; 16 to 1024)"
    particles = next(option for option in options_of(SimulateParams) if option.name == "particles")
    assert particles.describe() == "number of images (1 to 10000000; default 10000)"
    error = next(option for option in options_of(SimulateParams) if option.name == "rotation_error")
    assert "degrees" in error.describe() and "default 0.0" in error.describe()

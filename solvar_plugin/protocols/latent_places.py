"""Places in the latent space of a run, as forms ask for them: numbers of clusters, and coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyworkflow.protocol.params as params

from solvar_engine.contract.results import read_components
from solvar_engine.contract.run import RunDir
from solvar_plugin.convert.numbers import points_of, whole_numbers
from solvar_plugin.convert.selection import cluster_centre

_NUMBERS = (
    "number for each component, with commas or blanks between them, in the units of the axes of the viewer's latent "
    "space."
)


def add_clusters(form: Any, name: str, label: str, default: str, text: str, condition: str) -> None:
    """Add numbers of clusters of the analysis; `text` says which."""
    form.addParam(
        name,
        params.StringParam,
        default=default,
        condition=condition,
        label=label,
        help=f"{text} The viewer of the analysis shows them in the latent space, and its states 'cluster 1', "
        "'cluster 2' ... are the volumes at their centres.",
    )


def add_point(form: Any, name: str, label: str, condition: str) -> None:
    """Add the coordinates of one point."""
    form.addParam(
        name, params.StringParam, default="", condition=condition, label=label, help=f"One {_NUMBERS}"
    )  # fmt: skip


def add_points(form: Any, name: str, label: str, text: str, condition: str) -> None:
    """Add the coordinates of points, one in each line; `text` says what else is to be known."""
    form.addParam(
        name,
        params.TextParam,
        default="",
        condition=condition,
        label=label,
        help=f"One point in each line: a {_NUMBERS} {text}",
    )


def add_selection(form: Any, name: str, text: str, condition: str) -> None:
    """Add the name of a selection of the explorer; `text` says what is done with it."""
    form.addParam(
        name,
        params.StringParam,
        default="",
        condition=condition,
        label="Selection of the explorer",
        help=f"{text}\n\nSelections are made and named in the explorer, which opens from the viewer of the analysis "
        "(Analyze results); the wand lists their names.",
    )


def clusters_of(run: RunDir, text: str, label: str) -> list[int]:
    """Read numbers of clusters, all of which the analysis of the run must have.

    Raises
    ------
    UserError
        If they are no numbers, or the run has no such cluster.
    """
    numbers = whole_numbers(text, label)
    for number in numbers:
        cluster_centre(run, number)
    return numbers


def coordinates_of(run: RunDir, text: str, label: str) -> np.ndarray:
    """Read the points of a form, shape (k, r).

    Raises
    ------
    UserError
        If they are no points of the run's latent space.
    """
    return points_of(text, len(read_components(run.eigenvalues)), label)

"""The form of the selection of particles."""

from __future__ import annotations

from typing import Any

import pyworkflow.protocol.params as params
from pyworkflow.utils import Message

from solvar_plugin.protocols.form_parts import add_enum
from solvar_plugin.protocols.latent_places import add_clusters, add_point, add_selection
from solvar_plugin.protocols.protocol_from_run import add_analysed_particles

BY_CLUSTER, BY_DISTANCE, BY_FLAG, BY_SELECTION = range(4)
WAYS = ("by cluster", "by distance to a point", "by outlier flag", "by a selection of the explorer")
AT_PARTICLE, AT_CENTRE, AT_COORDINATES = range(3)
POINTS = ("a particle", "the centre of a cluster", "coordinates")
BY_NUMBER, BY_SHARE = range(2)
AMOUNTS = ("a number", "a share")
GOOD, OUTLIERS = range(2)
FLAGS = ("good particles", "outliers")

CLUSTERS_LABEL = "Clusters"
COORDINATES_LABEL = "Coordinates"


def define_form(form: Any) -> None:
    """Add all that the form asks."""
    form.addSection(label=Message.LABEL_INPUT)
    add_analysed_particles(form, "The particles to select from.")
    add_enum(form, "way", "Select", WAYS, BY_CLUSTER, "What decides which particles are taken.", important=True)
    add_clusters(
        form,
        "clusters",
        CLUSTERS_LABEL,
        "1",
        "Numbers of clusters of the analysis, such as 1, 3 or 2-5.",
        f"way == {BY_CLUSTER}",
    )
    taken = "The particles of this selection are taken, outliers or not."
    add_selection(form, "selection", taken, f"way == {BY_SELECTION}")
    _define_point(form)
    _define_amount(form)
    add_enum(
        form, "flag", "Take", FLAGS, GOOD,
        "Outliers are particles that the model explains far worse than the others: ice, overlapping or broken "
        "molecules, wrong orientations.",
        condition=f"way == {BY_FLAG}",
    )  # fmt: skip
    form.addParam(
        "leaveOutliersOut",
        params.BooleanParam,
        default=True,
        condition=f"way in [{BY_CLUSTER}, {BY_DISTANCE}]",
        label="Leave outliers out",
        help="Whether particles that are flagged as outliers are not taken.",
    )


def _define_point(form: Any) -> None:
    by_distance = f"way == {BY_DISTANCE}"
    add_enum(
        form, "point", "Point", POINTS, AT_CENTRE, "What says where in the latent space the point is.",
        condition=by_distance,
    )  # fmt: skip
    form.addParam(
        "particleId",
        params.IntParam,
        default=1,
        condition=f"{by_distance} and point == {AT_PARTICLE}",
        label="Id of the particle",
        help="As the list of particles shows it; it must be among the analysed particles.",
    )
    form.addParam(
        "cluster",
        params.IntParam,
        default=1,
        condition=f"{by_distance} and point == {AT_CENTRE}",
        label="Cluster",
        help="Number of a cluster of the analysis.",
    )
    add_point(form, "coordinates", COORDINATES_LABEL, f"{by_distance} and point == {AT_COORDINATES}")


def _define_amount(form: Any) -> None:
    by_distance = f"way == {BY_DISTANCE}"
    add_enum(
        form, "amount", "How many", AMOUNTS, BY_NUMBER, "How the number of nearest particles is given.",
        condition=by_distance,
    )  # fmt: skip
    form.addParam(
        "number",
        params.IntParam,
        default=1000,
        condition=f"{by_distance} and amount == {BY_NUMBER}",
        validators=[params.GE(1, "should be at least 1")],
        label="Number of particles",
        help="That many nearest particles are taken, or all if there are fewer.",
    )
    form.addParam(
        "percent",
        params.FloatParam,
        default=10.0,
        condition=f"{by_distance} and amount == {BY_SHARE}",
        validators=[params.GT(0, "should be more than 0"), params.LE(100, "should be at most 100")],
        label="Share of the particles (%)",
        help="This share of the particles is taken: the nearest ones.",
    )

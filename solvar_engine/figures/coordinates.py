"""Where the particles lie in the latent space, as figures want it: coordinates, colours and marked places."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from solvar_engine.contract.results import Components
from solvar_engine.figures import style

POINTS, HEXAGONS = "points", "hexagons"
MAX_AUTOMATIC_POINTS = 20_000
MAX_POINTS = 60_000


@dataclass(frozen=True)
class Axis:
    """One coordinate of every particle.

    Attributes
    ----------
    values : ndarray, shape (n,)
    name : str
        Short, with the label of a component.
    label : str
        For the side of a plot.
    is_clear : bool
        False for a component that must not be interpreted.
    has_scale : bool
        False where distances mean nothing, as in a UMAP.
    """

    values: np.ndarray
    name: str
    label: str
    is_clear: bool = True
    has_scale: bool = True


@dataclass(frozen=True)
class Coloring:
    """What the colour of a particle says.

    Attributes
    ----------
    values : ndarray, shape (n,)
        Numbers, or category numbers from 1, and 0 for none.
    label : str
        With unit.
    is_category : bool
        Whether the values are categories.
    """

    values: np.ndarray
    label: str
    is_category: bool = False


@dataclass(frozen=True)
class Places:
    """Positions that are marked and numbered from 1.

    Attributes
    ----------
    points : ndarray, shape (k, 2)
        Rows of NaN are left out.
    label : str
        What they are, in the plural.
    is_path : bool
        Whether a line leads from each to the next.
    """

    points: np.ndarray
    label: str = "the centres of the clusters"
    is_path: bool = False


@dataclass(frozen=True)
class Marks:
    """Particles that are to be seen on top of all others.

    Attributes
    ----------
    chosen : ndarray of bool, shape (n,)
    label : str
        What they are, in the plural.
    """

    chosen: np.ndarray
    label: str


def component_axis(components: Components, z: np.ndarray, index: int) -> Axis:
    """Make an axis of a component (0-based index) from the coordinates z, shape (n, r)."""
    label = components.label[index]
    text = f"z{style.subscript(index + 1)}, coordinate along component {index + 1}" + (f" ({label})" if label else "")
    return Axis(z[:, index].astype(float), components.title(index), text, is_clear=not label)


def component_axes(components: Components, z: np.ndarray) -> list[Axis]:
    """Make an axis of every component."""
    return [component_axis(components, z, index) for index in range(len(components))]


def umap_axis(embedding: np.ndarray, index: int) -> Axis:
    """Make an axis of the flat map, shape (n, 2); index 0 or 1."""
    name = f"UMAP {index + 1}"
    return Axis(embedding[:, index], name, name, has_scale=False)


def choose_drawing(count: int) -> str:
    """Choose between points and hexagons by the number of particles."""
    return POINTS if count <= MAX_AUTOMATIC_POINTS else HEXAGONS


def random_subset(count: int) -> np.ndarray:
    """Choose the particles that are drawn one by one, in random order, so that none covers a whole group."""
    return np.random.default_rng(0).permutation(count)[:MAX_POINTS]


def middles_of_clusters(points: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Find the particle in the middle of each cluster, since the mean of a ring would lie in its hole.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
    cluster : ndarray, shape (n,)
        From 1.

    Returns
    -------
    ndarray, shape (k, 2)
        One row for each number from 1 to the largest; NaN for a number without particles.
    """
    middles = np.full((int(cluster.max(initial=0)), 2), np.nan)
    for number in range(1, len(middles) + 1):
        members = points[cluster == number]
        if len(members):
            middle = np.median(members, axis=0)
            middles[number - 1] = members[np.linalg.norm(members - middle, axis=1).argmin()]
    return middles

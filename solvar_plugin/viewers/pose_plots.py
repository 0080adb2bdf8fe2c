"""Plots of what a refinement of poses has changed.

Each function draws into an empty figure that has constrained layout.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from solvar_plugin.convert.alignment import PoseChanges
from solvar_plugin.viewers import style

_BULK = 99.5
_BINS = 60
_PARTICLES_PER_CELL = 20


@style.styled
def draw_pose_changes(figure: Figure, changes: PoseChanges) -> None:
    """Draw how far orientations and shifts are from those of the input, beside how uncertain they are.

    Parameters
    ----------
    figure : Figure
        Empty.
    changes : PoseChanges
    """
    left, right = figure.subplots(1, 2)
    _draw_change(left, changes.rotation, changes.rotation_std, "turn (degrees)", "°")
    _draw_change(right, changes.shift, changes.shift_std, "move (Å)", " Å")
    left.set_ylabel("particles")
    style.add_note(
        figure,
        "How far each particle's orientation was turned, and its shift moved, from what the input says (bars), and how "
        "uncertain the refined ones are by image and input, under the volumes found (line). Changes much larger than "
        "the uncertainty have corrected errors of the input; changes of its size are mostly noise. The last bar holds "
        "all that lies beyond.",
    )


def _draw_change(axes: Axes, change: np.ndarray, std: np.ndarray, label: str, unit: str) -> None:
    """Draw the histograms of changes and of standard deviations."""
    largest = max(float(np.percentile(values, _BULK)) for values in (change, std))
    edges = np.linspace(0, largest if largest > 0 else 1.0, _BINS + 1)
    medians = [f"{np.median(values):.2f}{unit}" for values in (change, std)]
    axes.hist(
        np.clip(change, 0, edges[-1]), bins=edges, color=style.BLUE, alpha=0.85, label=f"change (median {medians[0]})"
    )
    axes.hist(
        np.clip(std, 0, edges[-1]), bins=edges, histtype="step", color=style.VERMILLION, linewidth=1.6,
        label=f"uncertainty (median {medians[1]})",
    )  # fmt: skip
    axes.set_xlabel(label)
    axes.legend(loc="upper right", fontsize=9)


@style.styled
def draw_directions(figure: Figure, before: np.ndarray, after: np.ndarray) -> None:
    """Draw from which directions the molecule was seen, before and after the refinement.

    Parameters
    ----------
    figure : Figure
        Empty.
    before, after : ndarray, shape (n, 2)
        Rot and tilt of every particle, degrees.
    """
    panels = figure.subplots(1, 2, sharey=True)
    pictures = [_counts(angles) for angles in (before, after)]
    highest = max(float(picture.max()) for picture in pictures)
    for axes, picture, title in zip(panels, pictures, ("input", "refined")):
        mesh = axes.imshow(
            picture.T, origin="lower", extent=(-180, 180, -1, 1), aspect="auto", cmap=style.SEQUENTIAL_MAP, vmin=0,
            vmax=highest,
        )  # fmt: skip
        axes.set_title(title, loc="center")
        axes.set_xlabel("rot (degrees)")
        axes.set_xticks(range(-180, 181, 90))
        axes.grid(False)
    panels[0].set_ylabel("tilt (degrees)")
    tilts = (0, 30, 60, 90, 120, 150, 180)
    panels[0].set_yticks([np.cos(np.deg2rad(tilt)) for tilt in tilts], [str(tilt) for tilt in tilts])
    bar = figure.colorbar(mesh, ax=list(panels), shrink=0.85, aspect=30, pad=0.02)
    bar.set_label("particles", fontsize=9)
    bar.outline.set_visible(False)
    style.add_note(
        figure,
        "Directions that the molecule was seen from. All cells are equally large on the sphere: an even colour is an "
        "even distribution.",
    )


def _counts(angles: np.ndarray) -> np.ndarray:
    """Count particles in cells of equal area, as many as particles can fill; shape (2 k, k)."""
    rows = int(np.clip(np.sqrt(len(angles) / (2 * _PARTICLES_PER_CELL)), 6, 24))
    rot = (angles[:, 0] + 180) % 360 - 180
    height = np.cos(np.deg2rad(angles[:, 1]))
    return np.histogram2d(rot, height, bins=(2 * rows, rows), range=((-180, 180), (-1, 1)))[0]

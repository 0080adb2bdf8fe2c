"""What a finished run found, in words and numbers."""

from __future__ import annotations

import numpy as np

from solvar_engine.contract.params import AUTO_RANK, FitParams
from solvar_engine.contract.results import read_candidates, read_components
from solvar_engine.contract.run import RunDir, read_params, read_record
from solvar_engine.contract.status import Status, read_status
from solvar_engine.contract.words import counted
from solvar_plugin.protocols.form_options import choice_in_words

NO_VARIABILITY = "No reproducible variability was found, so there are no components and no states."


def result_lines(run: RunDir) -> list[str]:
    """Return the summary of a finished run: particles, resolution, how the number
    of components came about, and one line for each reproducible component.

    Raises
    ------
    UserError
        If the run's files are damaged.
    """
    status = read_status(run.status)
    lines = message_lines(status)
    components = read_components(run.eigenvalues)
    lines += _rank_lines(run, len(components))
    for index in np.flatnonzero(components.is_reproducible):
        label = components.label[index]
        lines.append(
            f"Component {index + 1}: eigenvalue {components.eigenvalue[index]:.3g} "
            f"({components.fraction[index]:.0%} of the variance), half-set agreement "
            f"{components.half_set_agreement[index]:.2f}" + (f" - {label}" if label else "")
        )
    unconfirmed = [str(index + 1) for index in np.flatnonzero(~components.is_reproducible)]
    if unconfirmed:
        lines.append(f"Not confirmed by the particles held out, not to be interpreted: {', '.join(unconfirmed)}.")
    return lines + cost_lines(status)


def message_lines(status: Status | None) -> list[str]:
    """Say with which sentence a command of the engine ended, cautions first, if its status tells."""
    return [] if status is None or not status.message else [f"{status.message}."]


def cost_lines(status: Status | None) -> list[str]:
    """Say what a command of the engine took, if its status tells."""
    if status is None:
        return []
    minutes, gigabytes = status.seconds / 60, status.peak_memory_mb / 1000
    return [f"Computed in {minutes:.1f} minutes with at most {gigabytes:.1f} GB of memory."]


def _rank_lines(run: RunDir, rank: int) -> list[str]:
    """Say how the number of components came about, unless it was given."""
    if not rank:
        return [NO_VARIABILITY]
    tried = _tried_automatically(run)
    return [f"Number of components chosen automatically: {rank} of {tried} tried."] if tried else []


def _tried_automatically(run: RunDir) -> int:
    """Return how many components were tried to choose their number; 0 if it was given."""
    if read_params(run, FitParams).rank != AUTO_RANK:
        return 0
    return len(read_candidates(run.rank)) if run.rank.exists() else 0


def outlier_lines(n_outliers: int, n_particles: int) -> list[str]:
    """Say how many particles are flagged; nothing if none is."""
    if not n_outliers:
        return []
    return [
        f"Outliers: {n_outliers:,} of {n_particles:,} particles ({n_outliers / n_particles:.1%}), which the model "
        "explains far worse than the others. They are a set of their own, and flagged among the particles; to go on "
        "without them, subtract one set from the other."
    ]


def methods_text(run: RunDir) -> str:
    """Return a paragraph for the methods section of a paper.

    Raises
    ------
    UserError
        If the run's files are damaged.
    """
    record = read_record(run)
    params = read_params(run, FitParams)
    box = record["resolved"].get("box", params.box)
    objective = choice_in_words("objective", params.objective)
    rank = len(read_components(run.eigenvalues))
    tried = _tried_automatically(run)
    chosen = f", chosen automatically among {tried}" if tried else ""
    mask = "a mask made from the mean volume" if params.mask is None else f"the mask {params.mask}"
    if params.focus_mask is not None:
        mask += f", with variability confined to the focus mask {params.focus_mask}"
    if params.symmetry.upper() != "C1":
        mask += f", with variability of one asymmetric unit of {params.symmetry}"
    found = f"{counted(rank, 'component')}{chosen}"
    outcome = (
        "Eigenvalues were measured on half-sets that had no part in finding the eigenvolumes, and components that the "
        "half-sets did not confirm were marked."
    )
    if not rank:
        found = counted(tried, "component")
        outcome = "None of the components was confirmed by particles that had no part in finding it."
    return (
        f"The covariance of the molecule's volume was estimated by {objective} with {found} (SOLVAR engine "
        f"{record['versions']['solvar_engine']}, [Yadgar2026]), from images Fourier-cropped to {box} px, within "
        f"{mask}, with random seed {params.seed}. {outcome}"
    )

"""What a fit decided from its data, kept with its options so that later commands need not decide again.

They are in ``params.json`` under ``decided``: ``sign`` (+1; -1 if the images were inverted because the molecule is dark
in them), ``grey_unit`` (grey values that made 1 in the estimators), ``pose_gain`` and ``pose_gain_error``,
``poses_are_foreign`` and ``origins_gain``; sentences that the report repeats are under ``cautions``. What was decided
for each particle is in ``particles.star`` (``solvarHalfSet``, ``solvarOutlier``, ``solvarContrast``,
``solvarGreyScale``), the noise in ``noise.csv``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from solvar_engine.contract.files import write_json
from solvar_engine.contract.run import RunDir, read_record

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageDecisions:
    """What a fit decided about its images.

    Attributes
    ----------
    sign : float or None
        Factor on the images, +1 or -1; None if the run, of an earlier version, does not say.
    grey_unit : float or None
        Grey values of the images on disk that made 1 in the estimators; None as above.
    pose_gain, pose_gain_error : float or None
        Log-likelihood of an image at its own orientation over that at the one of another image, its mean and standard
        error; None if the mean is not resolved.
    poses_are_foreign : bool
        The images show the molecule, but not at their orientations, which surely are those of other images.
    origins_gain : float
        Log-likelihood that an image gains on average where origins are a factor times those of the list, or where each
        is at its best place if places are scattered; 0 if no others are better, or if they were to be refined.
    """

    sign: float | None = None
    grey_unit: float | None = None
    pose_gain: float | None = None
    pose_gain_error: float | None = None
    poses_are_foreign: bool = False
    origins_gain: float = 0.0


def write_decisions(run: RunDir, decisions: ImageDecisions) -> None:
    """Add the decisions to params.json."""
    write_json(run.params, {**read_record(run), "decided": asdict(decisions)})


def add_cautions(run: RunDir, sentences: Sequence[str], come_first: bool = False) -> None:
    """Log, and add to params.json, what seems wrong in the input of a fit, or cannot be in its results."""
    for sentence in sentences:
        logger.warning(sentence)
    record_cautions(run, sentences, come_first)


def record_cautions(
    run: RunDir, sentences: Sequence[str], come_first: bool = False, instead_of: Sequence[str] = ()
) -> None:
    """Add sentences that have been logged to params.json, in the place of others that they answer."""
    known = [one for one in read_cautions(run) if one not in (*sentences, *instead_of)]
    ordered = [*sentences, *known] if come_first else [*known, *sentences]
    write_json(run.params, {**read_record(run), "cautions": ordered})


def read_cautions(run: RunDir) -> list[str]:
    """Sentences, without full stop, of :func:`add_cautions`."""
    return list(read_record(run).get("cautions", ()))


def with_cautions(summary: str, cautions: Sequence[str]) -> str:
    """What to mind, and what came out, both without full stop."""
    words = "; ".join(cautions)
    return f"Mind: {words}{'' if words.endswith('?') else '.'} {summary}" if cautions else summary


def read_decisions(run: RunDir) -> ImageDecisions:
    """Read the decisions of a run; None stands for what it does not say.

    Raises
    ------
    UserError
        If params.json is absent, not ours, or of a newer format.
    """
    decided = read_record(run).get("decided", {})
    known = {field.name for field in fields(ImageDecisions)}
    return ImageDecisions(**{name: value for name, value in decided.items() if name in known})

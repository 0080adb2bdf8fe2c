"""What a fit decided from its data, kept with its options so that later commands need not decide again.

They are in ``params.json`` under ``decided``: ``sign`` (+1; -1 if the images were inverted because the molecule is dark
in them) and ``grey_unit`` (grey values that made 1 in the estimators); and what it found out about its input:
``pose_gain`` and ``pose_gain_error``, and ``doubts``, sentences that the report repeats. What was decided for each
particle is in ``particles.star`` (``solvarHalfSet``, ``solvarOutlier``, ``solvarContrast``), the noise in
``noise.csv``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from solvar_engine.contract.files import write_json
from solvar_engine.contract.run import RunDir, read_record


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
    doubts : tuple of str
        What the input seems to be wrong in.
    """

    sign: float | None = None
    grey_unit: float | None = None
    pose_gain: float | None = None
    pose_gain_error: float | None = None
    doubts: tuple[str, ...] = ()


def write_decisions(run: RunDir, decisions: ImageDecisions) -> None:
    """Add the decisions to params.json."""
    write_json(run.params, {**read_record(run), "decided": asdict(decisions)})


def read_decisions(run: RunDir) -> ImageDecisions:
    """Read the decisions of a run; None stands for what it does not say.

    Raises
    ------
    UserError
        If params.json is absent, not ours, or of a newer format.
    """
    decided = read_record(run).get("decided", {})
    pose_gain = decided.get("pose_gain"), decided.get("pose_gain_error")
    doubts = tuple(decided.get("doubts", ()))
    return ImageDecisions(decided.get("sign"), decided.get("grey_unit"), *pose_gain, doubts)

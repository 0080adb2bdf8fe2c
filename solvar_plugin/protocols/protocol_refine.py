"""Pose and contrast refinement: a covariance analysis that corrects the orientations and shifts it starts from."""

from __future__ import annotations

import numpy as np
from pyworkflow import BETA

from solvar_engine.contract.results import read_images
from solvar_plugin.protocols import covariance_outputs as outputs
from solvar_plugin.protocols.protocol_covariance import SolvarProtCovariance


class SolvarProtRefine(SolvarProtCovariance):
    """Refines orientations, shifts and contrasts of particles together with the motions of the molecule.

    A homogeneous 3-D refinement compares every particle with one average, and so what moves distorts its orientations
    and shifts. Here every particle is compared with the molecule in its own state: its orientation and shift are
    corrected between the stages of a covariance analysis, under the motions found so far, which in turn become
    sharper. Its contrast, how strong the molecule is in the image, is estimated as well. The frame of the input is
    kept: volumes neither turn nor move as a whole.

    Outputs: those of the covariance analysis, the particles having the refined orientations and shifts, how far these
    are from those of the input, and how uncertain they are. It takes up to four times as long as the covariance
    analysis; run that first, to see what there is.
    """

    _label = "pose and contrast refinement"
    _devStatus = BETA
    _possibleOutputs = outputs.POSSIBLE_OUTPUTS
    REFINES = True

    def _resultLines(self) -> list[str]:
        lines = super()._resultLines()
        changes = read_images(self.getRunDir().particles).pose_changes
        if changes is None:
            return lines
        turn, move = (np.median(values) for values in (changes.rotation, changes.shift))
        said = f"Orientations turned by {turn:.2f} degrees and shifts moved by {move:.2f} Å (medians)."
        return [*lines[:1], said, *lines[1:]]

    def _methods(self) -> list[str]:
        how = "Orientations, shifts and contrasts of the particles were refined together with the components."
        return [f"{text} {how}" for text in super()._methods()]

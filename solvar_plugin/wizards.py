"""Wizards of the forms: what a user would otherwise have to work out or to look for."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from pwem.protocols import ProtImportParticles
from pyworkflow.gui import dialog
from pyworkflow.gui.tree import TreeProvider
from pyworkflow.wizard import Wizard

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.selections import PARTICLES, PATH, POINTS, selection_names
from solvar_plugin.protocols import (
    SolvarProtAbinitio,
    SolvarProtCovariance,
    SolvarProtReconstruct,
    SolvarProtRefine,
    SolvarProtSelectParticles,
)

USUAL_BOXES = (32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512)
"""Even boxes without large prime factors, which transforms take little time for."""

USUAL_SPREADS = (
    (0.015, "particles that were centred by 2-D classification"),
    (0.03, "picks by templates"),
    (0.06, "picks by hand or by blobs"),
)
"""Of shifts, over the width of the images, and what they are usual for."""

SHIFTS_LOOKED_AT = 2000

SELECTION = "Selection of the explorer"
NO_SELECTION = (
    "Nothing of the kind has been saved in the explorer of this analysis: open it by 'Explore' in the viewer of the "
    "analysis, pick something, and save it by name."
)
NO_PARTICLES = "Choose the input particles first."
NO_IMPORT = (
    "These particles do not come from an import of a RELION STAR file, so there is no file to be found: leave the "
    "parameter empty, or choose a file by hand."
)


@dataclass
class Box:
    """A working box to choose from: its size in px, its pixel size in Angstrom.

    Scipion's list writes its own attribute into it, so it is not frozen.
    """

    size: int
    pixel_size: float

    @property
    def finest_detail(self) -> float:
        """Resolution at two pixels, Angstrom."""
        return 2 * self.pixel_size


def boxes_for(image_size: int, pixel_size: float) -> list[Box]:
    """Return the working boxes for images of a size and pixel size, the coarsest first, that of the images last.

    Examples
    --------
    >>> [(box.size, box.finest_detail) for box in boxes_for(100, 2.0)][-2:]
    [(96, 4.166666666666667), (100, 4.0)]
    """
    sizes = [size for size in USUAL_BOXES if size < image_size] + [image_size]
    return [Box(size, pixel_size * image_size / size) for size in sizes]


def imported_star(protocol: Any) -> str | None:
    """Return the STAR file from which the particles of a protocol were imported, however long ago; None without one."""
    pending, seen = [protocol.inputParticles], set()
    while pending:
        source = pending.pop(0).getObjValue()
        if source is None or source.getObjId() in seen:
            continue
        seen.add(source.getObjId())
        if isinstance(source, ProtImportParticles):
            if source.importFrom.get() == ProtImportParticles.IMPORT_FROM_RELION and source.starFile.get():
                return source.starFile.get().strip()
        elif hasattr(source, "iterInputAttributes"):
            pending += [pointer for _, pointer in source.iterInputAttributes()]
    return None


class _Boxes(TreeProvider):
    """The rows of the list of boxes."""

    def __init__(self, boxes: list[Box]) -> None:
        super().__init__()
        self._boxes = boxes

    def getColumns(self) -> list[tuple[str, int]]:
        return [("Box (px)", 100), ("Pixel size (Å)", 130), ("Finest detail (Å)", 150)]

    def getObjects(self) -> list[Box]:
        return self._boxes

    def getObjectInfo(self, obj: Box) -> dict[str, Any]:
        return {"key": str(obj.size), "text": str(obj.size),
                "values": (f"{obj.pixel_size:.2f}", f"{obj.finest_detail:.1f}")}  # fmt: skip


@dataclass
class _Name:
    """A name to choose; Scipion's list writes its own attribute into it."""

    text: str


class _Names(TreeProvider):
    """The rows of a list of names."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self._names = [_Name(name) for name in names]

    def getColumns(self) -> list[tuple[str, int]]:
        return [("Name", 300)]

    def getObjects(self) -> list[_Name]:
        return self._names

    def getObjectInfo(self, obj: _Name) -> dict[str, Any]:
        return {"key": obj.text, "text": obj.text, "values": ()}


@dataclass
class ShiftSpread:
    """A spread of the shifts to choose: Angstrom along each axis, and when it is right.

    Scipion's list writes its own attribute into it, so it is not frozen.
    """

    angstrom: float
    when: str


def shift_spreads(particles: Any) -> list[ShiftSpread]:
    """Return spreads of the shifts to choose from: that of the shifts which the particles have, and usual ones."""
    width = particles.getXDim() * particles.getSamplingRate()
    spreads = [ShiftSpread(round(share * width, 1), when) for share, when in USUAL_SPREADS]
    if particles.hasAlignment():
        chosen = itertools.islice(particles.iterItems(), SHIFTS_LOOKED_AT)
        moves = [item.getTransform().getMatrix()[:3, 3] for item in chosen if item.getTransform() is not None]
        if moves:
            # of the two axes of the image, wherever these lie in three dimensions
            squared = np.square(moves).sum(axis=1).mean() / 2
            known = round(float(np.sqrt(squared)) * particles.getSamplingRate(), 1)
            spreads.insert(0, ShiftSpread(known, "that of the shifts which these particles have"))
    return spreads


class _Spreads(TreeProvider):
    """The rows of the list of spreads."""

    def __init__(self, spreads: list[ShiftSpread]) -> None:
        super().__init__()
        self._spreads = spreads

    def getColumns(self) -> list[tuple[str, int]]:
        return [("Spread (Å)", 100), ("For", 400)]

    def getObjects(self) -> list[ShiftSpread]:
        return self._spreads

    def getObjectInfo(self, obj: ShiftSpread) -> dict[str, Any]:
        return {"key": obj.when, "text": f"{obj.angstrom:g}", "values": (obj.when,)}


class SolvarShiftWizard(Wizard):
    """Lists spreads of the shifts, with what each is right for."""

    _targets = [(SolvarProtAbinitio, ["shiftStd"])]

    def show(self, form: Any, *params: Any) -> None:
        """Let the user choose a spread, and write it into the form."""
        particles = form.protocol.inputParticles.get()
        if particles is None:
            dialog.showWarning("Spread of the shifts", NO_PARTICLES, form.root)
            return
        chosen = dialog.ListDialog(
            form.root,
            "Spread of the shifts",
            _Spreads(shift_spreads(particles)),
            "How far particles are from the centres of their images, along each axis.",
            selectmode="browse",
            selectOnDoubleClick=True,
        )
        if chosen.resultYes() and chosen.values:
            form.setVar("shiftStd", chosen.values[0].angstrom)


class SolvarBoxWizard(Wizard):
    """Lists working boxes with the detail that they can show."""

    _targets = [(one, ["boxSize"]) for one in (SolvarProtAbinitio, SolvarProtCovariance, SolvarProtRefine)]

    def show(self, form: Any, *params: Any) -> None:
        """Let the user choose a box, and write it into the form."""
        particles = form.protocol.inputParticles.get()
        if particles is None:
            dialog.showWarning("Working box", NO_PARTICLES, form.root)
            return
        chosen = dialog.ListDialog(
            form.root,
            "Working box",
            _Boxes(boxes_for(particles.getXDim(), particles.getSamplingRate())),
            "Motions of domains are seen well at 8 to 15 Å: a small box finds them fast.\n"
            "Take a larger one for the final result, or for small changes.",
            selectmode="browse",
            selectOnDoubleClick=True,
        )
        if chosen.resultYes() and chosen.values:
            form.setVar("boxSize", chosen.values[0].size)


class SolvarSelectionWizard(Wizard):
    """Lists the selections of the explorer that a form can take."""

    _targets = [(SolvarProtSelectParticles, ["selection"]), (SolvarProtReconstruct, ["pointsSelection"])]

    def show(self, form: Any, *params: Any) -> None:
        """Let the user choose a selection, and write its name into the form."""
        takes_particles = isinstance(form.protocol, SolvarProtSelectParticles)
        try:
            run = None if form.protocol.inputParticles.get() is None else form.protocol.getRunDir()
            names = [] if run is None else selection_names(run, (PARTICLES,) if takes_particles else (POINTS, PATH))
        except UserError as error:
            dialog.showWarning(SELECTION, str(error), form.root)
            return
        if not names:
            dialog.showWarning(SELECTION, NO_PARTICLES if run is None else NO_SELECTION, form.root)
            return
        chosen = dialog.ListDialog(
            form.root, SELECTION, _Names(names), selectmode="browse", selectOnDoubleClick=True
        )  # fmt: skip
        if chosen.resultYes() and chosen.values:
            form.setVar("selection" if takes_particles else "pointsSelection", chosen.values[0].text)


class SolvarOpticsWizard(Wizard):
    """Finds the STAR file that the particles were imported from."""

    _targets = [(one, ["opticsStar"]) for one in (SolvarProtAbinitio, SolvarProtCovariance, SolvarProtRefine)]

    def show(self, form: Any, *params: Any) -> None:
        """Look for the file, and write it into the form."""
        if form.protocol.inputParticles.get() is None:
            dialog.showWarning("STAR file for the optics", NO_PARTICLES, form.root)
            return
        path = imported_star(form.protocol)
        if path is None:
            dialog.showWarning("STAR file for the optics", NO_IMPORT, form.root)
            return
        form.setVar("opticsStar", path)

"""The door to FlexHub: HAX's window on the latent space, with volumes of a covariance analysis."""

from __future__ import annotations

import importlib.util
import string
from pathlib import Path

import numpy as np
import pyworkflow.utils as pwutils
from pyworkflow import BETA
from pyworkflow.utils import Message

from solvar_engine.contract.results import read_latents
from solvar_plugin import flexhub_interface
from solvar_plugin.constants import FLEX_PROGRAM
from solvar_plugin.protocols.protocol_from_run import SolvarProtFromRun, add_analysed_particles

HAX_ENVIRONMENT = "hax"
_NEED_QUOTES = set(string.whitespace + "\"'`$&;|<>()[]{}*?!#~\\")
NO_HAX = "HAX is not installed in this Scipion: run 'scipion installp -p scipion-em-hax', or use our explorer."


class SolvarProtFlexHub(SolvarProtFromRun):
    """Opens the particles of a covariance analysis in FlexHub's 'annotate space' (HAX), if that is installed.

    HAX shows the latent space in three dimensions with the volume of any point, and keeps what you annotate in the
    folder of this protocol. For all else, there is the explorer: 'Explore' in the viewer of the analysis.
    """

    _label = "open in FlexHub"
    _devStatus = BETA

    def _defineParams(self, form) -> None:
        form.addSection(label=Message.LABEL_INPUT)
        add_analysed_particles(form, "Their run is opened.")

    def _insertAllSteps(self) -> None:
        self._insertFunctionStep(self.openStep, interactive=True, needsGPU=False)

    def openStep(self) -> None:
        """Start HAX, and wait until its window is closed."""
        import hax

        folder = Path(self._getExtraPath("annotations")).resolve()
        pwutils.makePath(str(folder))
        run, points = self.getRunDir(), folder / "z_space.txt"
        np.savetxt(points, read_latents(run.latents).z)
        words = {
            "z_space": points,
            "path": folder,
            "mode": FLEX_PROGRAM,
            "env_name": HAX_ENVIRONMENT,
            "server_functions_path": Path(flexhub_interface.__file__).resolve(),
            "solvar_run": run.path.resolve(),
        }
        arguments = " ".join(f"--{name} {value}" for name, value in words.items())
        self.runJob(hax.Plugin.getProgram("annotate_space", gpu=None), arguments)

    def _validate(self) -> list[str]:
        if importlib.util.find_spec("hax") is None:
            return [NO_HAX]
        problems = self._inputProblems()
        if problems or self.inputParticles.get() is None:
            return problems
        run = self.getRunDir()
        if not read_latents(run.latents).z.shape[1]:
            return ["The particles have no latent coordinates: no reproducible variability was found."]
        # HAX does not quote what it hands on
        paths = (run.path.resolve(), Path(self._getExtraPath()).resolve(), Path(flexhub_interface.__file__).resolve())
        unquoted = [str(path) for path in paths if set(str(path)) & _NEED_QUOTES]
        return [f"HAX cannot open {path}, because the path holds blanks or signs of the shell: rename it."
                for path in unquoted]  # fmt: skip

    def _summary(self) -> list[str]:
        return ["What is annotated stays in the folder of this protocol, extra/annotations."]

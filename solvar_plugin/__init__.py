"""Scipion plugin: principal motions of a molecule, found and explored in the project window.

What computes is `solvar_engine`, in an environment of its own; this package runs in Scipion's Python, starts the
engine's commands and reads its run directory. Of the engine it imports only `solvar_engine.contract`.
"""

from __future__ import annotations

import os
import shlex

import pwem
import pyworkflow.utils as pwutils
from pyworkflow import FLEXIBILITY, VarTypes

from solvar_plugin.constants import (
    ENGINE_PACKAGE,
    ENGINE_PROGRAM,
    SOLVAR_ENGINE_SOURCE,
    SOLVAR_ENV_ACTIVATION,
    SOLVAR_ENV_MANAGER,
    SOLVAR_HOME,
    SOLVAR_PYTHON,
)

__version__ = "0.1.0"
_logo = "logo.png"
_references = ["Yadgar2026"]


class Plugin(pwem.Plugin):
    """Where the engine is, how it is installed, and how it is started."""

    _homeVar = SOLVAR_HOME
    _supportedVersions = [__version__]
    _url = "https://pypi.org/project/scipion-em-solvar"
    _processingField = [FLEXIBILITY]

    @classmethod
    def _defineVariables(cls):
        cls._defineEmVar(
            SOLVAR_HOME,
            f"{ENGINE_PACKAGE}-{__version__}",
            description="Folder of the SOLVAR engine; its environment is the folder env in it.",
            var_type=VarTypes.FOLDER,
        )
        cls._defineVar(
            SOLVAR_ENV_ACTIVATION,
            "",
            description=f"Command that makes {ENGINE_PROGRAM} available, such as 'conda activate solvar'; leave it "
            "empty to use the environment that Scipion's installer made.",
            var_type=VarTypes.STRING,
        )
        cls._defineVar(
            SOLVAR_ENV_MANAGER,
            "auto",
            description="What the installer makes the engine's environment with: conda, venv, or auto (conda where "
            "there is one, else venv).",
            var_type=VarTypes.STRING,
        )
        cls._defineVar(
            SOLVAR_PYTHON,
            "",
            description="Python of the engine's environment: an interpreter (venv) or a version (conda), 3.10 to 3.12; "
            "leave it empty to let the installer choose.",
            var_type=VarTypes.STRING,
        )
        cls._defineVar(
            SOLVAR_ENGINE_SOURCE,
            "",
            description="What the installer gives pip instead of this package's own version: a folder, a file or a "
            "requirement.",
            var_type=VarTypes.STRING,
        )

    def getName(self):
        """Name that Scipion puts before those of the protocols."""
        return ENGINE_PACKAGE

    @classmethod
    def getEnviron(cls):
        """Environment of the engine: Scipion's, without what would lead its Python to Scipion's packages."""
        environ = pwutils.Environ(os.environ)
        for name in ("PYTHONPATH", "PYTHONHOME", "MPLBACKEND"):
            environ.pop(name, None)
        environ["PYTHONNOUSERSITE"] = "1"
        return environ

    @classmethod
    def getEnginePath(cls):
        """Path of the engine's command in the environment that the installer makes."""
        return cls.getHome("env", "bin", ENGINE_PROGRAM)

    @classmethod
    def getActivation(cls):
        """Shell text that comes before the engine's command, empty or ending with ``&&``."""
        activation = cls.getVar(SOLVAR_ENV_ACTIVATION, "").strip()
        if not activation:
            return ""
        conda = cls.getCondaActivationCmd() if activation.startswith("conda ") else ""
        return f"{conda} {activation} && ".lstrip()

    @classmethod
    def getEngineProgram(cls):
        """Shell text of the engine's command, which follows `getActivation`."""
        return ENGINE_PROGRAM if cls.getActivation() else shlex.quote(cls.getEnginePath())

    @classmethod
    def validateInstallation(cls):
        """Tell what is missing; called for every protocol whenever the tree is drawn, so it only looks for a file."""
        if cls.getActivation() or os.path.exists(cls.getEnginePath()):
            return []
        return [
            f"The SOLVAR engine is not installed ({cls.getEnginePath()} does not exist): run 'scipion installb "
            f"{ENGINE_PACKAGE}', or set {SOLVAR_ENV_ACTIVATION} to the environment that has it."
        ]

    @classmethod
    def defineBinaries(cls, env):
        """Tell Scipion's installer how the engine is installed."""
        from solvar_plugin.installer import install_commands

        env.addPackage(
            ENGINE_PACKAGE,
            version=__version__,
            # There is nothing to download; without an address Scipion would fetch an empty archive from its server.
            tar="void.tgz",
            url="file:/dev/null",
            commands=install_commands(
                cls.getHome(),
                manager=cls.getVar(SOLVAR_ENV_MANAGER),
                python=cls.getVar(SOLVAR_PYTHON),
                source=cls.getVar(SOLVAR_ENGINE_SOURCE),
                conda_activation=cls.getCondaActivationCmd() or "",
            ),
            default=True,
        )

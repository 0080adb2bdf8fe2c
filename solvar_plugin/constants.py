"""Names that several modules of the plugin share."""

from __future__ import annotations

SOLVAR_HOME = "SOLVAR_HOME"
SOLVAR_ENV_ACTIVATION = "SOLVAR_ENV_ACTIVATION"
SOLVAR_ENV_MANAGER = "SOLVAR_ENV_MANAGER"
SOLVAR_PYTHON = "SOLVAR_PYTHON"
SOLVAR_ENGINE_SOURCE = "SOLVAR_ENGINE_SOURCE"

ENGINE_PROGRAM = "solvar-engine"
ENGINE_PACKAGE = "solvar"
"""Name of the engine in Scipion's installer: ``scipion installb solvar``."""

FLEX_PROGRAM = "SOLVAR"
"""Program name that marks flexible sets made by this plugin."""

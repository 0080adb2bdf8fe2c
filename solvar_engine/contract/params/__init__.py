"""The options of every command: one frozen dataclass each, with help, unit and range beside every field.

`options` declares, describes and checks them; every command has a module of its own. The command line is built from
these classes, a run directory stores them, and a graphical interface can make its form from `options_of`. Options that
are not built yet are absent.
"""

from __future__ import annotations

from typing import Sequence

from solvar_engine.contract.params.abinitio import DEFAULT_ABINITIO_BOX, MOST_CLASSES, AbinitioParams
from solvar_engine.contract.params.analyze import AnalyzeParams
from solvar_engine.contract.params.evaluate import EvaluateParams
from solvar_engine.contract.params.explore import ExploreParams
from solvar_engine.contract.params.fit import (
    ALL_GPUS,
    AUTO_RANK,
    DEFAULT_WORKING_BOX,
    FIRST_AUTO_RANK,
    MIN_PARTICLES,
    MIN_PARTICLES_PER_COMPONENT,
    FitParams,
)
from solvar_engine.contract.params.options import SUPPORTED_DEVICES, Option, Params, exclusive_sets_of, options_of
from solvar_engine.contract.params.reconstruct import ReconstructParams
from solvar_engine.contract.params.select import SelectParams
from solvar_engine.contract.params.simulate import (
    PHANTOMS,
    SIMULATED_BOX,
    SIMULATED_PIXEL_SIZE,
    SimulateParams,
)

COMMANDS: Sequence[type[Params]] = (
    SimulateParams,
    AbinitioParams,
    FitParams,
    ReconstructParams,
    AnalyzeParams,
    ExploreParams,
    SelectParams,
    EvaluateParams,
)
"""The options of every command, in the order of the help."""

"""The run directory of `fit`: names of its files, how it starts and goes on, and what it records of itself.

`RunDir` names the files (`names`); `prepared` starts or resumes a run (`start`, `resume`) and `clear_run` empties it
(`clearing`); `write_params` and its like store and read how it was made (`record`, `inputs`).
"""

from solvar_engine.contract.run.clearing import clear_run
from solvar_engine.contract.run.names import EXPLORER_PAGES, FIGURE_NAMES, SEARCH_FIGURES, RunDir
from solvar_engine.contract.run.record import (
    is_finished,
    read_params,
    read_record,
    refuse_file_of_a_run,
    require_finished,
    write_params,
)
from solvar_engine.contract.run.resume import changed_inputs, differing_options
from solvar_engine.contract.run.start import ALREADY_FINISHED, NEW, RESUME, prepared

"""The script for GPUs runs where no GPU is, and where only the libraries are installed that it names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

WITHOUT = """
import runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"finufft", "mrcfile", "matplotlib", "sklearn", "umap", "starfile", "pandas"}:
            raise ImportError(f"{name} is not among the libraries of this machine")

sys.meta_path.insert(0, Missing())
"""
RUN = WITHOUT + """
sys.argv = ["gpu", "--device", "cpu", "--scale", "small", "--parts", "a,b", "--print"]
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""
IMPORTS = WITHOUT + """
import solvar_engine.cli, solvar_engine.jobs.run_fit, solvar_engine.jobs.run_simulate
import solvar_engine.projectors.create, solvar_engine.projectors.nufft_gpu, solvar_engine.projectors.numba_cpu
assert "triton" not in sys.modules
"""


def run(program: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_kernels_are_compared_and_timed_in_the_interpreter() -> None:
    output = run(RUN)
    assert output.count("| yes |") == 4 and "| NO |" not in output
    assert all(f"| 8 | {name} | 2 |" in output for name in ("read", "add", "add_combinations", "pose_products"))


def test_fit_and_simulate_import_nothing_that_a_machine_for_gpus_may_lack() -> None:
    run(IMPORTS)

"""A few images of a map, and an encoder that is small enough to learn in a second."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from solvar_engine.abinitio.mixture import LowImages, low_box, read_low
from solvar_engine.abinitio.semi_amortized.auto_encoding import EncodingOptions
from solvar_engine.abinitio.semi_amortized.problem import Problem
from solvar_engine.abinitio.semi_amortized.search import SemiAmortizedOptions
from solvar_engine.estimation.model.bands import change_box
from solvar_engine.imaging.symmetry import symmetry_operators
from solvar_engine.imaging.types import Pose
from solvar_engine.projectors.options import DEFAULT_OPTIONS
from tests.abinitio.sources import PIXEL_SIZE, simulated

SHELL, SHIFT_PX = 5, 0.7
OPTIONS = SemiAmortizedOptions(
    heads=4, width=8, encoding=EncodingOptions(batch_size=100, simulations_per_image=2, first_simulations=500)
)


def small_problem(count: int, signal: float = 2.0) -> tuple[Problem, Pose, Tensor]:
    """Images of one band, their true poses, and the true map of the band."""
    source, truth, volume = simulated(count, signal=signal, shift_px=SHIFT_PX)
    images = read_low(source, torch.arange(count), SHELL)
    problem = problem_of(images)
    return problem, truth, change_box(volume, low_box(problem.images.disk), SHELL)


def problem_of(images: LowImages, symmetry: str = "C1") -> Problem:
    return Problem.of(images, SHELL, SHIFT_PX, symmetry_operators(symmetry), DEFAULT_OPTIONS)


def shifts_px(truth: Pose) -> Tensor:
    return truth.shift / PIXEL_SIZE


def with_encoding(**changes: object) -> SemiAmortizedOptions:
    return replace(OPTIONS, encoding=replace(OPTIONS.encoding, **changes))  # type: ignore[arg-type]

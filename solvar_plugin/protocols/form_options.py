"""The engine's options as parameters of a form: labels, help, choices, and what is wrong with a value."""

from __future__ import annotations

import re
from typing import Any, Mapping

from solvar_engine.contract.errors import UserError
from solvar_engine.contract.params import (
    AUTO_RANK,
    MIN_PARTICLES,
    MIN_PARTICLES_PER_COMPONENT,
    AnalyzeParams,
    FitParams,
    Option,
    Params,
    options_of,
)

LABELS = {
    "rank": "Number of components",
    "mask": "Mask (optional)",
    "focus_mask": "Focus mask (optional)",
    "box": "Working box (px)",
    "clusters": "Number of clusters",
    "objective": "Objective",
    "refine_poses": "Refinement of poses",
    "refine_contrast": "Refine contrasts too",
    "still_frame": "Let the largest part stand still",
    "pose_schedule": "How poses are refined",
    "projector": "Interpolation",
    "oversampling": "Oversampling",
    "invert_contrast": "Molecule is dark in the images",
    "one_frame": "Bring joined refinements into one frame",
    "seed": "Random seed",
    "cache_mb": "Memory for images (MB)",
    "scratch": "Scratch folder",
    "skip_bad_images": "Leave out bad images",
    "threads": "Threads",
    "max_resolution": "Finest detail (Å)",
    "shift_std": "Spread of the shifts (Å)",
    "symmetry": "Symmetry",
    "classes": "Number of structures",
    "flip_hand": "Other hand",
    "method": "Method",
}
"""What the form calls the engine's options."""

RANK_CHOICES = ("automatic", "fixed")
"""The two ways to a number of components."""

_CHOICES = {
    "method": {
        "em": "expectation maximisation (em)",
        "sgd": "stochastic gradient descent (sgd)",
        "moments": "expectation maximisation from moments (moments)",
        "semi-amortized": "poses named by a network, then descents (semi-amortized)",
    },
    "pose_schedule": {"newton": "Gauss-Newton steps", "paper": "as published"},
    "objective": {"ml": "maximum likelihood", "ls": "least squares"},
    "invert_contrast": {"auto": "find out", "yes": "yes", "no": "no"},
    "one_frame": {"auto": "where no motion explains it", "yes": "yes", "no": "no"},
}


def choices_of(option: Option) -> list[str]:
    """Return the choices of an option in words."""
    return [choice_in_words(option.name, choice) for choice in option.choices]


def choice_in_words(name: str, choice: str) -> str:
    """Return a choice of the option of a name in words."""
    return _CHOICES.get(name, {}).get(choice, choice)


def help_of(option: Option) -> str:
    """Return the help of an option as a sentence, with its range and default."""
    text = option.describe()
    return text[0].upper() + text[1:] + "."


def option_problems(params: Params, labels: Mapping[str, str] = LABELS) -> list[str]:
    """Return what is wrong with the values of the form, by the labels of the form."""
    options = options_of(type(params))
    if any(option.is_required and getattr(params, option.name) is None for option in options):
        return []  # Scipion itself says that a number is missing
    problems = []
    for option in options:
        if option.name not in labels:
            continue
        try:
            option.check(getattr(params, option.name))
        except UserError as error:
            problems.append(str(error).replace(option.label, f"'{labels[option.name]}'", 1))
    return problems or _combination_problems(params, labels)


def _combination_problems(params: Params, labels: Mapping[str, str]) -> list[str]:
    """Return what is wrong with values that are right each by itself."""
    try:
        params.validate()
    except UserError as error:
        return [in_form_words(str(error), labels)]
    return []


def in_form_words(sentence: str, labels: Mapping[str, str] = LABELS) -> str:
    """Replace the options that a sentence of the engine names by the labels of the form, given by the option's name.

    Examples
    --------
    >>> in_form_words("No density stands out: pass --mask, or lower --rank.")
    "No density stands out: pass 'Mask (optional)', or lower 'Number of components'."
    """
    for name, label in labels.items():
        sentence = re.sub(rf"(?<![\w-])--{name.replace('_', '-')}(?![\w-])", f"'{label}'", sentence)
    return sentence


def cluster_problems(clusters: Any, n_particles: int) -> list[str]:
    """Return what is wrong with the number of clusters."""
    problems = option_problems(AnalyzeParams(run="run", clusters=clusters))
    if not problems and clusters > n_particles:
        problems.append(
            f"'{LABELS['clusters']}' is {clusters}, but there are {n_particles} particles: give fewer clusters."
        )
    return problems


def size_problems(n_particles: int, image_size: int, params: FitParams) -> list[str]:
    """Return how number and size of the images contradict the options.

    Parameters
    ----------
    n_particles : int
    image_size : int
        Box of the images, px.
    params : FitParams
        With values in range.
    """
    if n_particles < MIN_PARTICLES:
        return [f"There are {n_particles} particles, but at least {MIN_PARTICLES} are needed: give more particles."]
    problems = []
    most = n_particles // MIN_PARTICLES_PER_COMPONENT
    if params.rank != AUTO_RANK and params.rank > most:
        problems.append(
            f"'{LABELS['rank']}' is {params.rank}, but {n_particles} particles support at most {most} "
            f"({MIN_PARTICLES_PER_COMPONENT} particles each): give fewer components or more particles."
        )
    if params.box is not None and params.box > image_size:
        problems.append(
            f"'{LABELS['box']}' is {params.box}, but the images have {image_size} px: give at most {image_size}, or 0 "
            "for automatic."
        )
    return problems

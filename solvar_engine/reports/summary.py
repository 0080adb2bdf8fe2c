"""What was found, in words: the first thing that a report says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvar_engine.contract.results import (
    DOUBTFUL_POSES,
    NUISANCE,
    OVERFIT,
    SLOW,
    FoundStructure,
    resolution_at_threshold,
    structure_of,
)
from solvar_engine.reports.model import ReportData

MAX_SHARES = 4


def key_numbers(data: ReportData) -> list[tuple[str, str]]:
    """Return the headline numbers of a run.

    Returns
    -------
    list of (str, str)
        Value with unit, and what it is; those that the run does not tell are left out.

    Examples
    --------
    >>> key_numbers(data)[0]
    ('10,000', 'particles')
    """
    numbers = [(f"{data.n_particles:,}", "particles")]
    if data.mean is not None and data.pixel_size:
        box_size = data.mean.shape[0]
        numbers.append((f"{box_size} px", f"box ({box_size * data.pixel_size:.0f} Å)"))
        numbers.append((f"{data.pixel_size:.3g} Å", "per pixel"))
    resolution = mean_resolution(data)
    if resolution is not None:
        label = "resolution of the mean" + ("" if resolution[1] else " (Nyquist)")
        numbers.append((f"{resolution[0]:.1f} Å", label))
    structure = structure_of(data.parameters)
    if structure is None:
        n_reproducible = int(data.components.is_reproducible.sum())
        numbers.append((f"{n_reproducible} of {len(data.components)}", "components reproducible"))
    elif len(structure.populations) > 1:
        numbers.append((str(len(structure.populations)), "structures"))
    seconds = data.status.get("seconds")
    if isinstance(seconds, (int, float)) and seconds > 0:
        numbers.append((duration(seconds), "for the fit" if structure is None else "for the search"))
    return numbers


def mean_resolution(data: ReportData) -> tuple[float, bool] | None:
    """Return the resolution of the mean at FSC 0.143 in Angstrom, and whether the curve fell below it.

    None if it is not known, or the fit found the half-maps to agree no better than noise.
    """
    if data.fsc is None or _decided(data, "pose_gain", 0.0) is None:
        return None
    found = resolution_at_threshold(np.asarray(data.fsc["frequency"]), np.asarray(data.fsc["fsc_mean"]))
    if found is None or found[1] or not data.pixel_size:
        return found
    return 2 * data.pixel_size, False


def _decided(data: ReportData, name: str, unknown: Any) -> Any:
    """What the fit decided from its images; runs of earlier versions do not say."""
    return data.parameters.get("decided", {}).get(name, unknown)


def duration(seconds: float) -> str:
    """Write a duration for a person.

    Examples
    --------
    >>> duration(312), duration(7300)
    ('5 min 12 s', '2 h 1 min')
    """
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def paragraph(data: ReportData) -> str:
    """Say in plain sentences what a run found.

    Examples
    --------
    >>> paragraph(data)
    'From 10,000 particles (box 64 px, 3 Å per pixel) the mean map reaches 7.9 Å ...'
    """
    cautions = [f"{text[:1].upper()}{text[1:]}." for text in data.parameters.get("cautions", ())]
    sentences = (*cautions, _data_sentence(data), _outlier_sentence(data), _component_sentence(data), _caution(data))
    return " ".join(sentence for sentence in sentences if sentence)


def _data_sentence(data: ReportData) -> str:
    """Say how many particles gave which map."""
    text = f"{data.n_particles:,} particles"
    if data.mean is not None and data.pixel_size:
        text += f" (box {data.mean.shape[0]} px, {data.pixel_size:.3g} Å per pixel)"
    resolution = mean_resolution(data)
    if resolution is None:
        return f"The run used {text}."
    angstrom, has_crossed = resolution
    how = f"{angstrom:.1f} Å" if has_crossed else f"{angstrom:.1f} Å, the limit of this pixel size,"
    return f"From {text} the mean map reaches {how} where the half-set correlation (FSC) is 0.143."


def _outlier_sentence(data: ReportData) -> str:
    """Say how many images were left out."""
    count = 0 if data.images.is_outlier is None else int(data.images.is_outlier.sum())
    if not count:
        return ""
    verb = "shows" if count == 1 else "show"
    noun = "image" if count == 1 else "images"
    share = 100 * count / data.n_particles
    return f"{count:,} {noun} ({share:.2g} %) {verb} no particle or another one, and took no part in the estimates."


def _component_sentence(data: ReportData) -> str:
    """Say how many components are real and how much they explain."""
    structure = structure_of(data.parameters)
    if structure is not None:
        return _structure_sentence(structure)
    components = data.components
    if not len(components):
        found = "No reproducible variability was found"
        is_doubtful = _decided(data, "pose_gain", 0.0) is None or _decided(data, "poses_are_foreign", False)
        return f"{found}." if is_doubtful else f"{found}: every particle is explained by the mean map."
    chosen = np.flatnonzero(components.is_reproducible)
    if not len(chosen):
        return (
            f"None of the {len(components)} fitted components is reproducible between the two halves of the "
            "particles: no variability was found beyond the noise."
        )
    if len(components) == 1:
        return "The one fitted component is reproducible between the two halves of the particles."
    numbers = _numbers(chosen)
    if len(chosen) == len(components):
        found = f"All {len(components)} fitted components are reproducible"
    elif len(chosen) == 1:
        found = f"Of {len(components)} fitted components, component {numbers} is reproducible"
    else:
        found = f"Of {len(components)} fitted components, components {numbers} are reproducible"
    percent = 100 * components.fraction[chosen]
    carried = _join([f"{share:.0f} %" for share in percent[:MAX_SHARES]])
    if len(chosen) > MAX_SHARES:
        carried = f"{percent.sum():.0f} % (the leading ones {carried})"
    verb = "It carries" if len(chosen) == 1 else "They carry"
    return f"{found} between the two halves of the particles. {verb} {carried} of the variance found."


def _structure_sentence(structure: FoundStructure) -> str:
    """Say what a search for a structure came to; that there is none stands among the cautions."""
    if not structure.found:
        return ""
    evidence = structure.evidence()
    sentences = [
        f"Poses were found from the images alone: {evidence}. Half-maps share the search for poses, so that the"
        " resolution is flattered; a fit with refinement of the poses tells what is real."
    ]
    if len(structure.populations) > 1:
        parts = zip(structure.populations, structure.resolutions, strict=True)
        classes = [
            f"class {number} has {100 * share:.0f} % of the particles"
            + (" and no volume" if resolution is None else f" ({resolution:.1f} Å)")
            for number, (share, resolution) in enumerate(parts, start=1)
        ]
        sentences.append(f"Of the structures, {_join(classes)}; the maps shown are those of the largest.")
    return " ".join(sentences)


def rank_sentence(is_real: NDArray[np.bool_]) -> str:
    """Say how many of the components that were tried hold on particles that did not shape them.

    Parameters
    ----------
    is_real : ndarray of bool, shape (k,)
        Of each candidate.

    Examples
    --------
    >>> rank_sentence(np.array([True, False]))
    '1 of 2 candidates is real: it makes particles that did not shape it clearly more likely than any decoy does.'
    """
    kept, tried = int(np.sum(is_real)), len(is_real)
    if not kept:
        return f"None of {tried} candidates makes particles that did not shape it clearly more likely than decoys do."
    verb, they, them, make = ("is", "it", "it", "makes") if kept == 1 else ("are", "they", "them", "make")
    return (
        f"{kept} of {tried} candidates {verb} real: {they} {make} particles that did not shape {them} clearly more "
        "likely than any decoy does."
    )


def _caution(data: ReportData) -> str:
    """Warn about components that are not what they seem."""
    components = data.components
    sentences = []
    doubtful = np.flatnonzero(components.has_label(DOUBTFUL_POSES))
    if len(doubtful):
        noun, verb = ("Component", "is") if len(doubtful) == 1 else ("Components", "are")
        what = f"{verb} no motion, but what orientations of other images leave, unless images show very many states"
        if not _decided(data, "poses_are_foreign", False):
            what = "cannot be told from what wrong origins leave: no motion until these are right"
        sentences.append(f"{noun} {_numbers(doubtful)} {what}.")
    rest = np.flatnonzero(~components.is_reproducible)
    if len(rest) and len(rest) < len(components):
        noun = "component" if len(rest) == 1 else "components"
        sentences.append(f"Do not interpret {noun} {_numbers(rest)}.")
    nuisance = np.flatnonzero(components.has_label(NUISANCE))
    if len(nuisance):
        noun = "Component" if len(nuisance) == 1 else "Components"
        verb = "resembles" if len(nuisance) == 1 else "resemble"
        sentences.append(
            f"{noun} {_numbers(nuisance)} mostly {verb} changes of contrast or "
            "errors of the poses rather than motion."
        )
    slow = np.flatnonzero(components.has_label(SLOW))
    if len(slow):
        noun, verb = ("Component", "looks") if len(slow) == 1 else ("Components", "look")
        sentences.append(f"{noun} {_numbers(slow)} {verb} like a slow background of the images rather than motion.")
    overfit = np.flatnonzero(components.has_label(OVERFIT))
    if len(overfit):
        noun, verb = ("Component", "is") if len(overfit) == 1 else ("Components", "are")
        sentences.append(f"{noun} {_numbers(overfit)} {verb} much larger on the particles fitted than on others.")
    return " ".join(sentences)


def _numbers(indices: NDArray[np.integer]) -> str:
    """Write 0-based indices as 1-based numbers: 1, 3 and 5 to 9."""
    runs = np.split(indices + 1, np.flatnonzero(np.diff(indices) != 1) + 1)
    words: list[str] = []
    for run in runs:
        words.extend([f"{run[0]} to {run[-1]}"] if len(run) > 2 else [str(number) for number in run])
    return _join(words)


def _join(words: Sequence[str]) -> str:
    """Join words as in a sentence: a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"

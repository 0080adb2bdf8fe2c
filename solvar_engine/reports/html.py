"""The report page: one file with everything inside, which asks nothing of the network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

import numpy as np

from solvar_engine.contract.results import Candidates, Components
from solvar_engine.reports.model import Picture, ReportData
from solvar_engine.reports.page import PAGE, STYLE_SHEET
from solvar_engine.reports.summary import key_numbers, paragraph, rank_sentence

MAX_COORDINATES = 6
STATUS_SHOWN = ("seconds", "peak_memory_mb", "version")


def render_report(
    data: ReportData,
    pictures: Iterable[Picture],
    *,
    name: str,
    analysis: Mapping[str, Any],
) -> str:
    """Write the report of a run as one HTML page.

    Parameters
    ----------
    data : ReportData
        The run.
    pictures : iterable of Picture
        The figures, those of one section in a row.
    name : str
        Name of the run, for the heading.
    analysis : mapping
        Options of the analysis, for the list of parameters.

    Returns
    -------
    str
        HTML with images as data URIs, without scripts and without any address outside the file; the same text
        for the same input.

    Examples
    --------
    >>> page = render_report(data, draw_figures(data), name="run", analysis={"clusters": 10})
    >>> "https:" in page
    False
    """
    sections = {
        heading: "\n".join(map(_figure, figures))
        for heading, figures in groupby(pictures, key=lambda picture: picture.section)
    }
    tables = _component_table(data.components) + _rank_table(data.candidates) + _cluster_table(data)
    if tables:
        sections["Tables"] = tables
    sections["Parameters and provenance"] = _provenance(data, analysis)
    return PAGE.substitute(
        title=escape(f"SOLVAR report: {name}"),
        name=escape(name),
        style=STYLE_SHEET,
        tiles=_tiles(key_numbers(data)),
        paragraph=escape(paragraph(data)),
        notes=_notes(data),
        navigation=_navigation(sections),
        body="\n".join(_section(heading, content) for heading, content in sections.items()),
    )


def _anchor(heading: str) -> str:
    """Turn a heading into an anchor."""
    return "".join(letter if letter.isalnum() else "-" for letter in heading.lower())


def _navigation(headings: Iterable[str]) -> str:
    """Return links to the sections."""
    return "\n".join(f'<a href="#{_anchor(heading)}">{escape(heading)}</a>' for heading in headings)


def _tiles(numbers: Iterable[tuple[str, str]]) -> str:
    """Return the headline numbers."""
    return "\n".join(
        f'<div class="tile"><div class="value">{escape(value)}</div>'
        f'<div class="label">{escape(label)}</div></div>'
        for value, label in numbers
    )


def _notes(data: ReportData) -> str:
    """Say which files were not there."""
    if not data.missing:
        return ""
    return (
        f'<p class="note">This run has no {escape(", ".join(data.missing))}: what would be drawn from there '
        "is left out.</p>"
    )


def _section(heading: str, content: str) -> str:
    """Return a section of the page."""
    return f'<section id="{_anchor(heading)}"><h2>{escape(heading)}</h2>\n{content}\n</section>'


def _figure(picture: Picture) -> str:
    """Return a figure with its heading and caption."""
    source = "data:image/png;base64," + base64.b64encode(picture.png).decode("ascii")
    title = escape(picture.title)
    return (
        f'<figure><h3>{title}</h3><img alt="{title}" src="{source}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _component_table(components: Components) -> str:
    """Return the table of components, in which those that are not reproducible are greyed; empty without any."""
    if not len(components):
        return ""
    head = (
        "component",
        "eigenvalue (held out)",
        "in sample",
        "share of the sum",
        "half-set agreement",
        "nuisance overlap",
        "label",
    )
    rows, styles = [], []
    for index in range(len(components)):
        cells = (
            str(index + 1),
            _number(components.eigenvalue[index]),
            _number(components.eigenvalue_in_sample[index]),
            _number(100 * components.fraction[index], "{:.1f} %"),
            _number(components.half_set_agreement[index], "{:.2f}") if components.is_reproducible[index] else "–",
            _number(components.nuisance_overlap[index], "{:.2f}"),
            components.label[index] or "–",
        )
        rows.append(cells)
        styles.append("" if components.is_reproducible[index] else "doubtful")
    hint = (
        "Eigenvalues are variances of the density summed over all voxels, with coordinates in units of "
        "unit-norm eigenvolumes. Half-set agreement: how alike two independent halves of the particles find "
        "the component, where held-out particles confirm it. Nuisance overlap: part of the component that lies in "
        "the span of the mean and its "
        "derivatives by rotation and shift."
    )
    return _table_card("Components", head, rows, styles, hint)


def _rank_table(candidates: Candidates | None) -> str:
    """Return the table of the components that were tried; empty where a run does not tell."""
    if candidates is None or not len(candidates):
        return ""
    head = ("candidate", "eigenvalue", "half-set agreement", "gain 1", "best decoy 1", "gain 2", "best decoy 2", "real")
    rows = [
        (
            str(index + 1),
            _number(candidates.eigenvalue[index]),
            _number(candidates.half_set_agreement[index], "{:.2f}"),
            *(
                _number(gain[index, half], "{:.1f}")
                for half in (0, 1)
                for gain in (candidates.gain, candidates.decoy_gain)
            ),
            "yes" if candidates.is_real[index] else "no",
        )
        for index in range(len(candidates))
    ]
    hint = (
        f"{rank_sentence(candidates.is_real)} Gain 1: log-likelihood that the first half-set's version of the "
        "candidate adds to particles of the second half-set, which did not shape it; gain 2 the other way round. "
        "Decoys have the power of the candidates but random phases: what the best of them gains is what noise can do. "
        "A candidate is real if it clearly beats the best decoy in both halves, and both half-sets find the same; "
        "log.txt has the reasons."
    )
    styles = ["" if kept else "doubtful" for kept in candidates.is_real]
    return _table_card("How many components are real", head, rows, styles, hint)


def _cluster_table(data: ReportData) -> str:
    """Return the table of clusters; empty without clusters."""
    if data.cluster is None or data.centres is None:
        return ""
    n_clusters = len(data.centres)
    sizes = np.bincount(data.cluster, minlength=n_clusters + 1)[1:]
    n_coordinates = min(data.centres.shape[1], MAX_COORDINATES)
    head = ("cluster", "particles", "share", *(f"z {axis + 1}" for axis in range(n_coordinates)))
    rows = [
        (
            str(index + 1),
            f"{sizes[index]:,}",
            f"{100 * sizes[index] / max(1, sizes.sum()):.1f} %",
            *(_number(value, "{:.3g}") for value in data.centres[index, :n_coordinates]),
        )
        for index in range(n_clusters)
    ]
    hint = (
        "Groups of particles by k-means, numbered along the first component. They cut a continuous motion "
        "into pieces: only islands that also stand apart in the figures above are separate states."
    )
    return _table_card("Clusters", head, rows, [""] * n_clusters, hint)


def _table_card(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str], hint: str
) -> str:
    """Return a table of numbers with a heading and a hint below; one style class per row."""
    body = "\n".join(
        f'<tr class="{style}">' + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row, style in zip(rows, styles, strict=True)
    )
    return (
        f'<div class="card"><h3>{escape(title)}</h3><table class="numbers"><thead><tr>'
        + "".join(f"<th>{escape(cell)}</th>" for cell in head)
        + f"</tr></thead><tbody>{body}</tbody></table><p class='hint'>{escape(hint)}</p></div>"
    )


def _number(value: float, form: str = "{:.4g}") -> str:
    """Write a number, or a dash for what is not known."""
    return form.format(float(value)) if np.isfinite(value) else "–"


def _provenance(data: ReportData, analysis: Mapping[str, Any]) -> str:
    """Return the options of the fit and of the analysis, versions and input files."""
    record = dict(data.parameters)
    inputs = record.pop("inputs", [])
    tables = {
        "Options of the fit": _rows(record.pop("options", {})),
        "Decided from the data": _rows(record.pop("resolved", {})),
        "Options of the analysis": _rows(analysis),
        "Input files": [(str(entry.get("path", "")), f"{entry.get('bytes', 0):,} bytes") for entry in inputs],
        "Versions": _rows(record.pop("versions", {})),
        "Run": _rows({**record, **{name: data.status[name] for name in STATUS_SHOWN if name in data.status}}),
    }
    blocks = "".join(
        f"<h3>{title}</h3><table class='pairs'>"
        + "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in rows)
        + "</table>"
        for title, rows in tables.items()
        if rows
    )
    return f'<div class="card">{blocks}</div>'


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Turn names and JSON values into text."""
    return [(name.replace("_", " "), _text(value)) for name, value in values.items()]


def _text(value: Any) -> str:
    """Write a JSON value for a person."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)

"""The report page holds everything, asks nothing of the network and cannot be broken by names."""

from __future__ import annotations

import base64
import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from solvar_engine.reports import ReportData, draw_figures, load_run, render_report
from tests.reports.synthetic_run import write_rank_table, write_synthetic_run


class Page(HTMLParser):
    """Collects tags, addresses and table cells; fails on tags that do not close in order."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.tags: set[str] = set()
        self.rows: list[list[str]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.add(tag)
        self.anchors.update([values["id"]] if "id" in values else [])
        if tag == "img":
            self.images.append(values["src"])
        if tag == "a":
            self.links.append(values["href"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def text(data, pictures) -> str:
    """The report of the synthetic run."""
    return render_report(data, pictures, name="a/run", analysis={"clusters": 3, "seed": 0})


def test_the_page_is_self_contained(text):
    page = Page(text)
    assert not re.search(r"https?://|@import|url\(|//[a-z]+\.", re.sub(r"base64,[^\"]*", "", text))
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base"}
    assert all(image.startswith("data:image/png;base64,") for image in page.images)
    assert all(link.startswith("#") and link[1:] in page.anchors for link in page.links)


def test_the_figures_are_inside_unchanged(text, pictures):
    images = [base64.b64decode(image.split(",")[1]) for image in Page(text).images]
    assert images == [picture.png for picture in pictures]


def test_the_tables_hold_the_numbers(text, data):
    rows = Page(text).rows
    components = data.components
    last = ["4", f"{components.eigenvalue[3]:.4g}", f"{components.eigenvalue_in_sample[3]:.4g}"]
    assert [*last, f"{100 * components.fraction[3]:.1f} %", "–", "0.30", "not reproducible"] in rows
    sizes = np.bincount(data.cluster)[1:]
    assert ["1", str(sizes[0]), f"{100 * sizes[0] / 300:.1f} %"] in [row[:3] for row in rows]
    assert ["rank", "4"] in rows and ["clusters", "3"] in rows
    assert any(row[0] == "numpy" and row[1] == np.__version__ for row in rows)


def test_the_same_run_gives_the_same_page(text, data, pictures):
    assert render_report(data, pictures, name="a/run", analysis={"clusters": 3, "seed": 0}) == text


def test_names_from_files_are_escaped(data):
    options = {"options": {"mask": "<script>alert(1)</script>&.mrc"}}
    page = render_report(
        dataclasses.replace(data, parameters=options), [], name='<b>"run"</b> $name', analysis={}
    )
    assert "script" not in Page(page).tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;.mrc" in page
    assert "&lt;b&gt;&quot;run&quot;&lt;/b&gt; $name" in page


def test_missing_files_are_named(data: ReportData):
    page = render_report(dataclasses.replace(data, missing=("fsc.csv",)), [], name="run", analysis={})
    assert "This run has no fsc.csv" in page


@pytest.mark.parametrize(
    ("kept", "sentence"),
    [
        ([1, 1, 0], "2 of 3 candidates are real: they make particles that did not shape them clearly more likely"),
        ([1, 0, 0], "1 of 3 candidates is real: it makes particles that did not shape it clearly more likely"),
        ([0, 0, 0], "None of 3 candidates makes particles that did not shape it clearly more likely than decoys do."),
    ],
)
def test_the_reason_for_the_rank_is_a_table(kept, sentence, tmp_path):
    run, _ = write_synthetic_run(tmp_path / "run", rank=sum(kept))
    write_rank_table(run, kept)
    page = render_report(load_run(run), [], name="run", analysis={})
    assert sentence in page
    rows = Page(page).rows
    assert ["3", "0.5625", "0.10", "0.2", "2.5", "0.3", "3.5", "no"] in rows
    assert (["1", "9", "0.90", "1234.5", "2.5", "1100.5", "3.5", "yes"] in rows) is bool(kept[0])


def test_a_run_without_components_has_a_page(tmp_path):
    run, _ = write_synthetic_run(tmp_path / "run", rank=0)
    data = load_run(run)
    page = render_report(data, draw_figures(data), name="run", analysis={})
    assert "every particle is explained by the mean map" in page
    assert "Tables" not in page and len(Page(page).images) == 7

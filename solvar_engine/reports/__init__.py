"""The report page of a run; reads a run directory and nothing else, writes nothing."""

from __future__ import annotations

from solvar_engine.reports.figures import draw_figures
from solvar_engine.reports.html import render_report
from solvar_engine.reports.load import load_run
from solvar_engine.reports.model import Picture, ReportData
from solvar_engine.reports.summary import paragraph

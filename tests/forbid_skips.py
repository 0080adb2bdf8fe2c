"""A pytest plugin that turns a skipped test into a failed run, so that continuous integration hides nothing.

    SOLVAR_FORBID_SKIPS=1 python -m pytest -p tests.forbid_skips

Tests marked `gpu` may be skipped. Without the environment variable the plugin does nothing: on a user's
machine a test that needs absent data or an absent program is skipped, as usual.
"""

from __future__ import annotations

import os

import pytest

ENABLED = os.environ.get("SOLVAR_FORBID_SKIPS", "") not in ("", "0")


def pytest_configure(config: pytest.Config) -> None:
    if ENABLED:
        config.pluginmanager.register(ForbidSkips(), "solvar-forbid-skips")


class ForbidSkips:
    """Collect what was skipped, show it, and make the run fail."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A whole module that skips itself while it is imported."""
        if report.skipped:
            self.skipped.append(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        expected_failure = hasattr(report, "wasxfail")
        if report.skipped and not expected_failure and "gpu" not in report.keywords:
            self.skipped.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.skipped:
            terminalreporter.section("skipped, which is forbidden here", red=True, bold=True)
            for nodeid in self.skipped:
                terminalreporter.write_line(nodeid)

"""A run to explore and one browser for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from solvar_engine.contract.run import RunDir
from tests.explorer.serving import analysed_run
from tests.reports.synthetic_run import Synthetic

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist", "--disable-quic", "--no-first-run", "--disable-background-networking",
]  # fmt: skip
READY = "body[data-state=ready]"


@pytest.fixture
def analysed(tmp_path) -> tuple[RunDir, Synthetic]:
    """300 particles with four components, two of them reproducible."""
    return analysed_run(tmp_path / "run")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium with graphics in software."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser) -> Iterator[Callable[..., Page]]:
    """Open an address and wait until the page is ready; errors of the page fail the test."""
    pages, errors = [], []

    def is_unexpected(message: ConsoleMessage) -> bool:  # a refused selection and a gone server are no faults
        known = ("400 (Bad Request)", "401 (Unauthorized)", "ERR_INTERNET_DISCONNECTED")
        return message.type == "error" and not any(text in message.text for text in known)

    def visit(url: str, until: str = READY, size: tuple[int, int] = (900, 560)) -> Page:
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        pages.append(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if is_unexpected(message) else None)
        page.goto(url)
        page.wait_for_selector(f"{until}, body[data-state=failed]", timeout=60_000)
        return page

    yield visit
    for page in pages:
        page.close()
    assert errors == []

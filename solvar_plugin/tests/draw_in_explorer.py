"""Draw a lasso and a path with the mouse in the explorer, and save both; for the Python of the engine's tests.

    .venv/bin/python solvar_plugin/tests/draw_in_explorer.py ADDRESS LASSO PATH
"""

from __future__ import annotations

import sys
from typing import Any

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
LASSO = ((0.3, 0.2), (0.8, 0.3), (0.7, 0.8), (0.5, 0.6), (0.25, 0.7))
PATH = ((0.2, 0.5), (0.5, 0.4), (0.8, 0.6))
"""Corners as shares of the width and height of the plot."""


def draw(page: Any, tool: str, corners: Any, kind: str, name: str) -> None:
    """Choose a tool, drag the mouse through the corners, and save what comes of it."""
    page.click(f"#tools button[value={tool}]")
    box = page.locator("#plot").bounding_box()
    for number, (x, y) in enumerate(corners):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if number == 0:
            page.mouse.down()
    page.mouse.up()
    page.select_option("#kind", kind)
    page.fill("#name", name)
    page.click("#save")
    page.wait_for_selector(f"#status:has-text('Saved {name}')")


def main(address: str, lasso: str, path: str) -> None:
    """Do all that."""
    from playwright.sync_api import sync_playwright  # which Scipion's Python, that reads the corners, does not have

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 900, "height": 560})
        page.goto(address)
        page.wait_for_selector("body[data-state=ready]", timeout=60_000)
        draw(page, "lasso", LASSO, "particles", lasso)
        draw(page, "path", PATH, "path", path)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

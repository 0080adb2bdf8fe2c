"""How long the explorer's page takes in headless Chromium with graphics in software; the size of the exported file.

    python -m benchmarks.explorer [--particles 1000000] [--box 64] [--rank 10] [--repeats 5]

The run is made of random numbers. Every time is that of the whole step until its picture is there: a pixel is read.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time

import numpy as np
from playwright.sync_api import sync_playwright

from benchmarks.common import script_parser
from solvar_engine.contract.results import Components
from solvar_engine.contract.run import RunDir
from solvar_engine.contract.star import StarFile, StarTable
from solvar_engine.explorer.data import ExploredRun
from solvar_engine.explorer.server import ExplorerServer
from solvar_engine.explorer.standalone import standalone_page
from solvar_engine.explorer.volumes import Basis

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist", "--disable-quic", "--no-first-run", "--disable-background-networking",
)  # fmt: skip
PAGE = """async ({ repeats }) => {
  const app = await import('/app.js'), e = app.explorer, { rowsInside } = await import('/picking.js'), found = {};
  const pixel = gl => gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  const timed = (name, step) => {
    step();
    found[name] = Array.from({ length: repeats }, () => {
      const begun = performance.now();
      step();
      return performance.now() - begun;
    });
  };
  const [left, right, bottom, top] = e.particles.wholeView();
  const polygon = Array.from({ length: 400 }, (_, i) => {
    const angle = 2 * Math.PI * (i >> 1) / 200, radius = 0.25 + 0.04 * Math.sin(5 * angle);
    return i % 2 ? (bottom + top) / 2 + (top - bottom) * radius * Math.sin(angle)
      : (left + right) / 2 + (right - left) * radius * Math.cos(angle);
  });
  const { xs, ys } = e.particles, anywhere = (low, high) => low + (high - low) * Math.random();
  timed('rows inside a lasso of 200 vertices', () => rowsInside(xs, ys, Float64Array.from(polygon)));
  timed('hover', () => app.hover(anywhere(left, right), anywhere(bottom, top)));
  timed('particles drawn again', () => { e.particles.draw(); pixel(e.particles.gl); });
  Object.assign(e.molecule.canvas.style, { width: '256px', height: '256px' });
  const change = by => { app.setState(e.z.map(value => value + by)); app.render(); pixel(e.molecule.gl); };
  timed('molecule of 256 x 256 px after a change', () => change(0.1));
  e.molecule.hidesDust = true;
  timed('the same without dust', () => change(-0.1));
  timed('sum on the processor', () => e.molecule.basis.sum(e.molecule.basis.weights(e.z)));
  return found;
}"""


def parse_arguments() -> argparse.Namespace:
    return script_parser(
        __doc__, publishes=False, **{"particles": 1_000_000, "box": 64, "rank": 10, "repeats": 5}
    ).parse_args()


def random_run(particles: int, box: int, rank: int) -> ExploredRun:
    """Particles in three groups, and smooth volumes."""
    random = np.random.default_rng(0)
    group = random.integers(0, 3, particles)
    columns = {
        f"z_{axis}": (random.normal(size=particles) + 3 * (group == axis % 3)).astype(np.float32)
        for axis in range(1, rank + 1)
    }
    columns["contrast"] = random.normal(1, 0.1, particles).astype(np.float32)
    columns["cluster"] = group.astype(np.float32) + 1
    z, y, x = (np.indices((box, box, box)) - box // 2) / box
    ball = np.exp(-(x**2 + y**2 + z**2) / 0.02)
    volumes = [ball, *(0.02 * ball * np.sin(3 * axis * x + axis * y - z) for axis in range(1, rank + 1))]
    mask = np.clip((0.45 - np.sqrt(x**2 + y**2 + z**2)) * box, 0, 1).astype(np.float32)
    basis = Basis(np.stack(volumes).astype(np.float32), mask, None, 3.0, box)
    known = np.linspace(1, 0.5, rank)
    components = Components(known, known, known, known, known, ("",) * rank)
    table = StarTable.create("particles", {"rlnImageName": [f"{row}@a.mrcs" for row in range(particles)]})
    return ExploredRun(RunDir("run"), StarFile((table,)), "", columns, components, basis)


def main() -> None:
    options = parse_arguments()
    explored = random_run(options.particles, options.box, options.rank)
    print(f"{options.particles} particles, {options.rank} components, {options.box} px")
    server = ExplorerServer(explored)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        page = browser.new_page(viewport={"width": 1400, "height": 800})
        begun = time.perf_counter()
        page.goto(server.url)
        for state, what in (("painted", "particles painted"), ("ready", "page ready")):
            page.wait_for_selector(f"body[data-state={state}], body[data-state=ready]", timeout=300_000)
            print(f"{what:42s}{time.perf_counter() - begun:9.2f} s after the address was opened")
        for name, times in page.evaluate(PAGE, {"repeats": options.repeats}).items():
            print(f"{name:42s}{statistics.median(times):9.1f} ms (from {min(times):.1f} to {max(times):.1f})")
        browser.close()
    server.shutdown()
    begun = time.perf_counter()
    size = len(standalone_page(explored)) / 1e6
    print(f"{'exported file':42s}{size:9.1f} MB in {time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    main()

"""The molecule of the page: its sum against NumPy, its axes and hand, and where what is written must be seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from solvar_engine.contract.results import Latents, read_components, write_eigenvalues, write_latents
from tests.explorer.serving import analysed_run, inside, replace_volume, served
from tests.reports.synthetic_run import write_mrc

HERE, THERE = "?graphics=none", ""  # summed by the processor, by the graphics card
PICTURE = """
const canvas = e.molecule.canvas, shown = document.createElement('canvas');
app.render();
Object.assign(shown, { width: canvas.width, height: canvas.height });
const pen = shown.getContext('2d');
pen.drawImage(canvas, 0, 0);
const { data } = pen.getImageData(0, 0, shown.width, shown.height), found = { x: 0, y: 0, pixels: 0, warm: 0, cold: 0 };
for (let i = 0; i < data.length; i += 4) if (data[i] < 250 || data[i + 2] < 250) {
  found.x += (i / 4 % shown.width + 0.5) / shown.height;
  found.y += 1 - (Math.floor(i / 4 / shown.width) + 0.5) / shown.height;
  found.pixels++;
  found.warm += data[i] > data[i + 2] + 20;
  found.cold += data[i + 2] > data[i] + 20;
}
return { ...found, x: found.x / found.pixels - 0.5 * shown.width / shown.height, y: found.y / found.pixels - 0.5 };
"""


def address(server, query: str) -> str:
    return server.url.replace("/#", f"/{query}#")


@pytest.mark.parametrize("rank", [1, 4, 20])
def test_sum_is_that_of_numpy(tmp_path, opened, rank) -> None:
    run, arrays = analysed_run(tmp_path / "run", rank=max(rank, 2), n_particles=60)
    if rank == 1:  # the page shows as many components as there are
        run, arrays = _first_component_only(run, arrays)
    state = arrays.z[17]
    expected = arrays.mean + np.tensordot(state, arrays.eigenvolumes, 1)
    with served(run) as server:
        page = opened(server.url)
        by_graphics, by_processor = inside(
            page,
            "app.setState(given[0]); app.render(); const { basis, unit, sums } = e.molecule;"
            "if (!sums) throw new Error('the graphics card does not sum');"
            "return [[...e.molecule.read(0)], [...basis.sum(basis.weights(e.z))].map(value => value * unit)];",
            state.tolist(),
        )
    for found in (by_graphics, by_processor):
        assert _error(found, expected) < 1e-3
        # neither a mirrored one nor another order of the axes would pass
        assert _error(found, expected[::-1]) > 0.1 and _error(found, expected.transpose(2, 1, 0)) > 0.1


def _error(found, expected) -> float:
    return np.abs(np.reshape(found, expected.shape) - expected).max() / np.abs(expected).max()


def _first_component_only(run, arrays):
    found = read_components(run.eigenvalues)
    names = ("eigenvalue", "eigenvalue_in_sample", "fraction", "half_set_agreement", "nuisance_overlap")
    columns = {name: getattr(found, name)[:1] for name in names}
    write_eigenvalues(run.eigenvalues, {"component": [1], **columns, "label": [""]})
    z = arrays.z[:, :1]
    write_latents(run.latents, Latents(z, arrays.precision[:, :1, :1], np.ones(len(z))))
    return run, dataclasses.replace(arrays, z=z, eigenvolumes=arrays.eigenvolumes[:1])


@pytest.mark.parametrize("query", [HERE, THERE])
def test_axes_hand_and_colours(tmp_path, opened, query) -> None:
    """A ball at +x and +y, and nearer to the viewer (+z) than the centre, whose near half grows with z_1."""
    run, arrays = analysed_run(tmp_path / "run", box_size=32, n_particles=60)
    z, y, x = np.indices((32, 32, 32)) - 16.0
    distance = np.sqrt((x - 6) ** 2 + (y - 4) ** 2 + (z - 3) ** 2)
    replace_volume(run.mean, np.clip((6 - distance) / 4 + 0.5, 0, 1))
    replace_volume(run.eigenvolume(1), np.where(z > 3, 0.01, -0.01))
    with served(run) as server:
        page = opened(address(server, query))
        inside(
            page,
            "Object.assign(e.molecule, { turn: [1,0,0, 0,1,0, 0,0,1], level: 0.4, range: 0.01, byChange: true });"
            "app.setState([1, 0, 0, 0]); e.molecule.veil = 0;",
        )
        front = inside(page, PICTURE)
        # one voxel is 1/32 of the box, of which 1.25 fill the height; its middle is half a voxel beside the centre
        assert front["x"] == pytest.approx(6.5 / 32 / 1.25, abs=0.01)
        assert front["y"] == pytest.approx(4.5 / 32 / 1.25, abs=0.01)
        assert front["warm"] > 0.9 * front["pixels"] and front["cold"] == 0
        inside(page, "e.molecule.turn = [-1,0,0, 0,1,0, 0,0,-1];")  # half a turn about y: seen from behind
        behind = inside(page, PICTURE)
        assert behind["x"] == pytest.approx(-front["x"], abs=0.01)
        assert behind["cold"] > 0.9 * behind["pixels"]
        inside(page, "e.molecule.turn = [1,0,0, 0,1,0, 0,0,1];")
        for key, axis, sign in (
            ("ArrowRight", "x", 1),
            ("ArrowLeft", "x", -1),
            ("ArrowUp", "y", 1),
            ("ArrowDown", "y", -1),
        ):
            before = inside(page, PICTURE)[axis]
            page.focus("#molecule")
            page.keyboard.press(key)
            assert sign * (inside(page, PICTURE)[axis] - before) > 0.001, key
            inside(page, "e.molecule.turn = [1,0,0, 0,1,0, 0,0,1];")


def test_slices_are_across_the_right_axes(tmp_path, opened) -> None:
    run, _ = analysed_run(tmp_path / "run", box_size=32, n_particles=60)
    z, y, x = np.indices((32, 32, 32)) - 16.0
    replace_volume(run.mean, np.exp(-((x - 8) ** 2 + (y - 2) ** 2 + (z + 6) ** 2) / 8))
    script = """
    e.molecule.draw({ sliceAt: given[0] });
    const gl = e.molecule.gl, edge = Math.floor(Math.min(gl.canvas.width / 3, gl.canvas.height * 0.4));
    return [0, 1, 2].map(i => {
      const pixels = new Uint8Array(edge * edge * 4);
      gl.readPixels(i * edge, 0, edge, edge, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
      let [across, up, bright] = [0, 0, 0];
      for (let v = 0; v < edge - 2; v++) for (let u = 0; u < edge - 2; u++) {
        if (pixels[4 * (v * edge + u)] > 200) { across += u + 0.5; up += v + 0.5; bright++; }
      }
      return [across / bright / (edge - 2), up / bright / (edge - 2), bright];
    });
    """
    with served(run) as server:
        page = opened(server.url)
        inside(page, "app.setState([0, 0, 0, 0]); app.render();")
        for axis, index in ((2, 10), (1, 18), (0, 24)):
            slices = inside(page, script, (index + 0.5) / 32)
            across = slices[2 - axis]
            expected = [24.5, 18.5, 10.5]
            del expected[axis]
            assert np.allclose(np.array(across[:2]) * 32, expected, atol=0.3)
            assert across[2] > 20


def test_dust_goes_and_the_focus_mask_is_outlined(tmp_path, opened) -> None:
    run, _ = analysed_run(tmp_path / "run", box_size=32, n_particles=60)
    z, y, x = np.indices((32, 32, 32)) - 16.0
    ball = np.clip(7 - np.sqrt(x**2 + y**2 + z**2), 0, 1)
    dust = np.clip(2 - np.sqrt((x - 12) ** 2 + y**2 + z**2), 0, 1)
    replace_volume(run.mean, ball + dust)
    write_mrc(run.focus_mask, (np.sqrt(x**2 + y**2 + z**2) < 11).astype(float))
    with served(run) as server:
        page = opened(server.url)
        inside(page, "e.molecule.level = 0.5; app.setState([0, 0, 0, 0]);")
        page.check("#dust")
        script = "e.molecule.level = 0.5; app.setState(e.z); app.render(); return [...e.molecule.read(0)];"
        found = np.reshape(inside(page, script), ball.shape)
        page.check("#focus")
        script = """
        while (!e.molecule.focus) await new Promise(done => setTimeout(done, 20));
        app.render();
        const { gl } = e.molecule, { width, height } = gl.canvas, pixels = new Uint8Array(4 * width * height), far = [];
        gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
        for (let i = 0; i < width * height; i++) {
          if (pixels[4 * i] === 0 && pixels[4 * i + 1] === 115) {
            far.push(Math.hypot(i % width + 0.5 - width / 2, Math.floor(i / width) + 0.5 - height / 2) / height);
          }
        }
        return far;
        """
        outline = np.array(inside(page, script)) * 1.25 * 32 / inside(page, "return e.molecule.zoom;")
    assert len(outline) > 100 and np.abs(outline - 11).max() < 1.5  # a ring of the mask's radius, in voxels
    assert found[16, 16, 28] == 0 and dust[16, 16, 28] == 1
    assert np.allclose(found * (ball > 0), ball, atol=2e-3)


def test_lost_graphics_come_back(tmp_path, opened) -> None:
    run, arrays = analysed_run(tmp_path / "run", n_particles=60)
    with served(run) as server:
        page = opened(server.url)
        inside(
            page,
            "const lost = e.molecule.gl.getExtension('WEBGL_lose_context'); lost.loseContext();"
            "await new Promise(done => setTimeout(done, 100)); app.setState(given[0]); lost.restoreContext();"
            "await new Promise(done => setTimeout(done, 500)); app.render();",
            arrays.z[5].tolist(),
        )
        lost = "const gl = e.particles.gl, lost = gl.getExtension('WEBGL_lose_context'); lost.loseContext();"
        wait = "await new Promise(done => setTimeout(done, 200));"
        read = (
            "e.particles.draw(); const pixels = new Uint8Array(4 * gl.canvas.width * gl.canvas.height);"
            "gl.readPixels(0, 0, gl.canvas.width, gl.canvas.height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);"
            "return pixels.filter(value => value < 200).length;"
        )
        before = inside(page, f"const gl = e.particles.gl; {read}")
        assert inside(page, f"{lost} {wait} lost.restoreContext(); {wait} {read}") == before > 100
        found = inside(page, "return [...e.molecule.read(0)];")
        assert inside(page, PICTURE)["pixels"] > 100
    assert _error(found, arrays.mean + np.tensordot(arrays.z[5], arrays.eigenvolumes, 1)) < 1e-3

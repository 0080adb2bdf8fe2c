"""The page as a user meets it: by mouse and by keyboard, and what it gives when something is missing."""

from __future__ import annotations

import dataclasses
import io
import tarfile

import mrcfile
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from solvar_engine.contract.results import Latents, StateFolder, StateTable, write_latents, write_states
from solvar_engine.contract.selections import read_selection
from solvar_engine.contract.star import StarFile
from solvar_engine.explorer.data import load_run
from solvar_engine.explorer.standalone import standalone_page
from tests.explorer.serving import analysed_run, inside, replace_volume, served
from tests.reports.synthetic_run import write_mrc, write_synthetic_run


def inside_polygon(x, y, polygon):
    """Mark the points inside a polygon (k, 2) by the even-odd rule; the reference, one edge at a time."""
    found = np.zeros(len(x), dtype=bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, 1, axis=0), strict=True):
        crosses = (y0 > y) != (y1 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            found ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return found


def pixel_of(page, x: float, y: float) -> tuple[float, float]:
    """Where on the screen a place of the plane is."""
    u, v = inside(page, "return e.particles.toPixel(...given);", x, y)
    box = page.locator("#plot").bounding_box()
    return box["x"] + u, box["y"] + v


def draw(page, tool: str, vertices) -> None:
    page.click(f"#tools button[value={tool}]")
    page.mouse.move(*pixel_of(page, *vertices[0]))
    page.mouse.down()
    for vertex in vertices[1:]:
        page.mouse.move(*pixel_of(page, *vertex))
    page.mouse.up()


def rows_picked(page) -> list[int]:
    return inside(page, "return [...e.selection.rows];")


def save(page, name: str, kind: str) -> None:
    page.select_option("#kind", kind)
    page.fill("#name", name)
    page.click("#save")
    page.wait_for_selector(f"#saved option[value={name!r}]", state="attached")


def downloaded(page, button: str) -> bytes:
    with page.expect_download() as waiting:
        page.click(button)
    return waiting.value.path().read_bytes()


def test_what_is_drawn_with_the_mouse_is_stored_exactly(analysed, opened) -> None:
    run, arrays = analysed
    z = arrays.z.astype(np.float64)
    middle, spread = np.median(z[:, :2], axis=0), z[:, :2].std(axis=0)
    angle = np.linspace(0, 2 * np.pi, 23)[:-1]
    star = (
        middle
        + np.stack([np.cos(angle), np.sin(angle)], axis=1)
        * spread
        * (0.9 + 0.5 * (np.arange(22) % 2))[:, None]
    )
    with served(run) as server:
        page = opened(server.url)
        draw(page, "lasso", star)
        save(page, "star shape", "particles")
        found = read_selection(run, "star shape")
        polygon = np.reshape(found.made_with["polygon"], (-1, 2))
        assert np.allclose(polygon, star, atol=0.01 * spread.max())
        expected = np.flatnonzero(inside_polygon(z[:, 0], z[:, 1], polygon))
        assert 30 < len(expected) < 270
        assert found.values.tolist() == expected.tolist()
        assert found.made_with["tool"] == "lasso" and found.made_with["axes"] == ["z_1", "z_2"]
        # the molecule shows the mean of what was picked
        assert np.allclose(inside(page, "return [...e.z];"), z[expected].mean(axis=0), atol=1e-5)

        left = z[:, 0] < middle[0]
        page.select_option("#how", "subtract")
        low, high = z[:, :2].min(axis=0) - 1, z[:, :2].max(axis=0) + 1
        inside(page, "app.explorer.particles.view = [given[0] - 1, given[1] + 1, given[2] - 1, given[3] + 1];",
               low[0], high[0], low[1], high[1])  # fmt: skip
        draw(page, "rectangle", [low, (middle[0], high[1])])
        edge = np.reshape(inside(page, "return e.shape;"), (-1, 2))[:, 0].max()
        kept = np.setdiff1d(expected, np.flatnonzero(z[:, 0] < edge))
        assert abs(edge - middle[0]) < 0.05 * spread[0] and left.any()
        assert rows_picked(page) == kept.tolist()
        page.click("#undo")
        assert rows_picked(page) == expected.tolist()
        page.click("#invert")
        assert rows_picked(page) == np.setdiff1d(np.arange(300), expected).tolist()
        page.click("#clear")
        assert rows_picked(page) == []
        page.select_option("#saved", "star shape")
        text = downloaded(page, "#star").decode()
        names = StarFile.parse(text.splitlines(), "page").particles.text("rlnImageName")
        assert [int(name.split("@")[0]) - 1 for name in names] == expected.tolist()
        page.click("#load")
        page.wait_for_selector(f"#picked:has-text('{len(expected)} of 300')")

        path = [middle - spread, middle + spread * (0, 1), middle + spread]
        draw(page, "path", path)
        state = np.array(inside(page, "return [...e.z];"))
        save(page, "way", "path")
        points = read_selection(run, "way").values
        assert points.shape == (12, 4)
        assert np.allclose(points[[0, -1], :2], [path[0], path[-1]], atol=0.02 * spread.max())
        steps = np.linalg.norm(np.diff(points[:, :2], axis=0), axis=1)
        assert steps.max() < 1.2 * np.median(steps)
        assert np.allclose(points[:, 2:], state[2:], atol=1e-6)
        page.click("#mark")
        save(page, "here", "points")
        assert np.allclose(read_selection(run, "here").values, [state], atol=1e-6)
        page.fill("#name", "../x")
        page.click("#save")
        page.wait_for_selector("#status:has-text('cannot be the name of a selection')")


def test_large_lassos_equal_the_reference(analysed, opened) -> None:
    script = """
    const { rowsInside, isInside, Grid } = await import('/picking.js');
    let seed = 7;
    const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
    const xs = Float32Array.from({ length: 20000 }, () => random() * 4 - 2), ys = xs.map(() => random() * 4 - 2);
    xs[5] = NaN;
    const wrong = [];
    for (const vertices of [3, 40, 200]) {
      const polygon = Float64Array.from({ length: 2 * vertices }, (_, i) => {
        const angle = 2 * Math.PI * (i >> 1) / vertices, radius = 1.2 + 0.6 * Math.sin(5 * angle) + 0.3 * random();
        return radius * (i % 2 ? Math.sin(angle) : Math.cos(angle));
      });
      const all = [...xs.keys()].filter(i => isInside(xs[i], ys[i], polygon));
      if (!all.length || String(all) !== String([...rowsInside(xs, ys, polygon)])) wrong.push(vertices);
    }
    const grid = new Grid(xs, ys);
    for (const [x, y] of [[0, 0], [1.9, -1.9], [5, 0.3], [-3, -3]]) {
      const far = i => ((xs[i] - x) / 2) ** 2 + ((ys[i] - y) / 3) ** 2;
      const all = [...xs.keys()].filter(i => !Number.isNaN(xs[i])).sort((a, b) => far(a) - far(b)).slice(0, 50);
      if (String(all) !== String(grid.nearest(x, y, 2, 3, 50))) wrong.push([x, y]);
    }
    return wrong;
    """
    with served(analysed[0]) as server:
        page = opened(server.url)
        assert inside(page, script) == []
        # where few particles are, the molecule fades and the page says so
        page.select_option("#x", "z_1")
        inside(page, "app.setState(given[0]);", [0.0, 99.0, 0.0, 0.0])
        assert page.text_content("#remark") == "Few particles are like this."
        assert inside(page, "return e.molecule.look(0).veil;") > 0.5
        assert inside(page, "return e.molecule.look(1).veil;") == 0  # the pinned state need not be rare
        inside(page, "app.setState(given[0]);", analysed[1].z[11].tolist())
        assert inside(page, "return e.molecule.veil;") < 0.2
        # on the flat map the state is the mean of the nearest particles
        page.select_option("#x", "umap_1")
        page.select_option("#y", "umap_2")
        page.select_option("#colour", "cluster")
        page.wait_for_selector("#legend:has-text('3')")
        flat = analysed[1].z[:, :2] @ np.array([[1.0, 0.3], [-0.2, 1.0]])
        page.mouse.click(*pixel_of(page, *flat[11]))
        left, right, bottom, top = inside(page, "return e.particles.view;")
        at = inside(page, "return e.at;")
        nearest = np.argsort((((flat - at) / (right - left, top - bottom)) ** 2).sum(axis=1))[:50]
        assert np.allclose(inside(page, "return [...e.z];"), analysed[1].z[nearest].mean(axis=0), atol=1e-4)
        # a state from elsewhere has no place there; a path stays where it was drawn, also after it was stored
        inside(page, "app.setState(given);", *analysed[1].z[11].tolist())
        assert inside(page, "return e.at;") is None
        draw(page, "path", [flat[11], flat[40]])
        save(page, "bow", "path")
        page.select_option("#x", "contrast")
        page.select_option("#x", "umap_1")
        inside(page, "while (e.axes[0] !== 'umap_1') await new Promise(done => setTimeout(done, 5));")
        kept = inside(page, "return e.path.vertices;")
        assert np.allclose([kept[0], kept[-1]], [flat[11], flat[40]], atol=0.02)
        inside(page, "e.path = null;")
        page.click("#load")
        inside(page, "while (!e.path) await new Promise(done => setTimeout(done, 5));")
        assert inside(page, "return [e.path.vertices, e.path.axes];") == [kept, ["umap_1", "umap_2"]]
        page.click("#tools button[value=cluster]")
        page.mouse.click(*pixel_of(page, *flat[11]))
        cluster = (
            1 + (analysed[1].z[:, 0] > 0) + (analysed[1].z[:, 0] > np.quantile(analysed[1].z[:, 0], 0.9))
        )
        page.wait_for_selector("#status:has-text('Cluster')")
        assert rows_picked(page) == np.flatnonzero(cluster == cluster[nearest[0]]).tolist()


def test_everything_by_keyboard(analysed, opened) -> None:
    run, _ = analysed
    with served(run) as server:
        page = opened(server.url)
        page.focus("#plot")
        before = inside(page, "return [...e.z];")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        after = inside(page, "return [...e.z];")
        assert after[0] > before[0] and after[1] < before[1] and after[2:] == before[2:]
        nearest = inside(page, "return e.particles.nearest(...e.at)[0];")
        assert page.text_content("#hover") == f"particle of row {nearest}"
        page.keyboard.press("r")
        assert page.get_attribute("#tools button[value=rectangle]", "aria-pressed") == "true"
        page.keyboard.press(" ")
        for _ in range(12):
            page.keyboard.press("ArrowRight")
            page.keyboard.press("ArrowUp")
        page.keyboard.press(" ")
        page.keyboard.press("Enter")
        corners = np.reshape(inside(page, "return e.shape;"), (-1, 2))
        x, y = inside(page, "return [[...e.particles.xs], [...e.particles.ys]];")
        assert (
            rows_picked(page)
            == np.flatnonzero(inside_polygon(np.array(x), np.array(y), corners)).tolist()
            != []
        )
        reached = set()
        page.focus("#x")
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.value"))
        enabled = page.evaluate(
            "[...document.querySelectorAll('button, select, input, canvas[tabindex]')]"
            ".filter(item => !item.disabled && item.offsetParent).map(item => item.id || item.value)"
        )
        assert len(enabled) > 25 and set(enabled) - reached <= {"x"}


def test_slips_of_the_hand_do_no_harm(analysed, opened) -> None:
    slow = "const own = e.source.column; e.source.column = async name => {"
    slow += "if (name === 'umap_1') await new Promise(done => { e.release = done; }); return own(name); };"
    with served(analysed[0]) as server:
        page = opened(server.url)
        at = page.locator("#plot").bounding_box()
        middle = at["x"] + at["width"] / 2, at["y"] + at["height"] / 2
        whole = inside(page, "return e.particles.view;")
        page.mouse.move(*middle)
        for direction in (-3000, 3000):  # as far in and out as it goes, which must not be beyond recall
            for _ in range(20):
                page.mouse.wheel(0, direction)
        page.wait_for_timeout(50)
        left, right, _, _ = inside(page, "return e.particles.view;")
        assert (whole[1] - whole[0]) / 2 < right - left < 200 * (whole[1] - whole[0])
        page.focus("#plot")
        page.keyboard.press("0")
        assert inside(page, "return e.particles.view;") == whole
        shrink = "const { canvas } = e.particles; document.querySelector('.saving').style.paddingTop = '40px';"
        shrink += "await new Promise(done => setTimeout(done, 100)); return [canvas.height, canvas.clientHeight];"
        height, seen = inside(page, shrink)
        assert height == seen < at["height"] - 20
        at = page.locator("#plot").bounding_box()
        middle = at["x"] + at["width"] / 2, at["y"] + at["height"] / 2
        page.click("#tools button[value=lasso]")
        page.mouse.move(*middle)
        page.mouse.down(button="right")
        page.mouse.move(middle[0] + 50, middle[1])
        assert inside(page, "return e.draft;") is None
        page.mouse.up(button="right")
        page.click("#tools button[value=path]")
        page.focus("#plot")
        page.keyboard.press(" ")
        page.keyboard.press("Enter")
        assert page.text_content("#status") == "A path needs two points." and page.is_disabled("#play")
        for expected in ("1 points.", "0 points."):  # the same mark again takes it away
            page.click("#mark")
            assert page.text_content("#status") == expected
        # a column that comes late changes nothing any more, and what is drawn meanwhile is of the axes that are seen
        inside(page, slow)
        until = "while (!({})) await new Promise(done => setTimeout(done, 5));"
        page.select_option("#colour", "umap_1")
        inside(page, until.format("e.release"))
        page.select_option("#colour", "contrast")
        inside(page, until.format("e.particles.values === e.columns.contrast") + "e.release();")
        inside(page, until.format("e.columns.umap_1") + "await new Promise(done => setTimeout(done, 20));")
        assert inside(page, "return e.particles.values === e.columns.contrast;")
        inside(page, "delete e.columns.umap_1; delete e.release;")
        page.select_option("#x", "umap_1")
        inside(page, until.format("e.release"))
        draw(page, "rectangle", [(0.9 * whole[0], 0.9 * whole[2]), (0.0, 0.0)])
        assert inside(page, "return e.selection.made.axes;") == ["z_1", "z_2"]
        page.select_option("#x", "contrast")
        inside(page, until.format("e.axes[0] === 'contrast'") + "e.release();")
        inside(page, until.format("e.columns.umap_1") + "await new Promise(done => setTimeout(done, 20));")
        assert inside(page, "return e.particles.xs === e.columns.contrast && e.axes[0] === 'contrast';")
        # a category that all are of has one colour in the legend
        one = "const ones = e.particles.xs.map(() => 1); e.particles.setValues(ones, [1, 1], true);"
        assert inside(page, f"{one} return e.particles.legend().map(pair => pair[0]);") == [1]


def test_server_hears_of_a_page_that_is_used(analysed, opened) -> None:
    with served(analysed[0]) as server:
        page = opened(server.url)
        page.wait_for_selector("#saved", state="attached")
        page.wait_for_timeout(100)
        for seconds, is_heard in ((0, True), (59, False), (2, True)):  # once a minute is enough
            server.last_request = 0.0
            inside(page, "const now = performance.now.bind(performance), by = given[0] * 1000;"
                         "performance.now = () => now() + by;", seconds)  # fmt: skip
            page.mouse.move(200, 200 + seconds)
            page.wait_for_timeout(150)
            assert (server.last_request > 0) == is_heard


def test_accessible_and_readable(analysed, opened) -> None:
    with served(analysed[0]) as server:
        found = Axe().run(opened(server.url)).response["violations"]
    assert [
        (item["id"], item["nodes"][0]["html"]) for item in found if item["impact"] in ("serious", "critical")
    ] == []


def test_kernel_volumes_are_laid_over_where_they_are_near(analysed, opened, tmp_path) -> None:
    run, arrays = analysed
    states = StateFolder(tmp_path / "states")
    states.path.mkdir()
    points = arrays.z[[3, 200]].astype(np.float64)
    volume = 2.0 * (
        arrays.mean + np.tensordot(points[1], arrays.eigenvolumes, 1)
    )  # in other units than the run
    write_mrc(states.volume(1), arrays.mean)
    write_mrc(states.volume(2), volume)
    write_states(states, StateTable(points, np.array([50, 60]), np.array([10.0, 9.0]), np.zeros(2, dtype=bool)))
    with served(run, states.path) as server:
        page = opened(server.url)
        inside(page, "app.setState(given[0]);", points[1].tolist())
        assert page.text_content("#kernelName") == "reconstructed volume of state 2"
        page.check("#kernel")
        script = (
            "while (!e.molecule.overlay) await new Promise(done => setTimeout(done, 20));"
            "return [...e.molecule.overlay];"
        )
        found = (
            np.array(inside(page, script), dtype=np.uint16)
            .view(np.float16)
            .astype(float)
            .reshape(volume.shape)
        )
        scale = (volume * arrays.mean).sum() / (volume**2).sum()
        assert np.allclose(found, volume * scale, atol=1e-3 * volume.max() * scale)
        inside(page, "app.setState(given[0]);", [99.0, 0.0, 0.0, 0.0])
        assert page.text_content("#kernelName") == "no reconstructed volume near"


def test_files_of_the_molecule(analysed, opened) -> None:
    run, arrays = analysed
    with served(run) as server:
        page = opened(server.url)
        states = arrays.z[[2, 40, 80]].tolist()
        inside(
            page,
            "app.setState(given[0][0]); document.getElementById('pin').click(); app.setState(given[0][1]);",
            states,
        )
        with tarfile.open(fileobj=io.BytesIO(downloaded(page, "#chimerax"))) as archive:
            assert sorted(archive.getnames()) == ["state_001.mrc", "state_002.mrc", "states.cxc"]
            script = archive.extractfile("states.cxc").read().decode()
            assert "open state_002.mrc" in script and "volume morph #1-2" in script
            for number in (1, 2):
                (run.path / "volume.mrc").write_bytes(archive.extractfile(f"state_00{number}.mrc").read())
                with mrcfile.open(run.path / "volume.mrc") as volume:
                    expected = arrays.mean + np.tensordot(states[number - 1], arrays.eigenvolumes, 1)
                    assert np.abs(volume.data - expected).max() < 1e-3 * expected.max()
                    assert volume.voxel_size.x == pytest.approx(3.0)
                assert mrcfile.validate(run.path / "volume.mrc", io.StringIO())
        page.check("#beside")
        page.check("#change")
        page.check("#slices")
        picture = Image.open(io.BytesIO(downloaded(page, "#png"))).convert("RGB")
        assert picture.width > 300 and len(picture.getcolors(1 << 20)) > 50
        middle = arrays.z.mean(axis=0).astype(float)
        draw(page, "path", [middle[:2] - 1, middle[:2], middle[:2] + 1])
        inside(page, "Object.assign(e.molecule.canvas.style, { width: '160px', height: '120px' });")
        page.uncheck("#slices")
        size = inside(
            page,
            "const { movieOf } = await import('/movie.js'), out = [];"
            "for (const keep of [true, false]) {"
            "  const Encoder = window.VideoEncoder; if (!keep) delete window.VideoEncoder;"
            "  const paint = i => { e.molecule.zoom = 1 + i / 8; app.render(); };"
            "  const [movie, ending] = await movieOf(e.molecule.canvas, 8, paint);"
            "  window.VideoEncoder = Encoder;"
            "  if (ending === 'gif') { out.push([...new Uint8Array(await movie.arrayBuffer())]); continue; }"
            "  const video = document.createElement('video');"
            "  await new Promise((done, fail) => {"
            "    video.onloadeddata = done; video.onerror = () => fail(video.error);"
            "    video.src = URL.createObjectURL(movie);"
            "  });"
            "  out.push([ending, video.videoWidth, video.videoHeight, video.duration]);"
            "}"
            "return out;",
        )
        (ending, width, height, seconds), gif = size
        assert (ending, width % 2, height % 2) == ("webm", 0, 0) and width > 100
        assert seconds == pytest.approx(8 / 30, abs=0.02)
        animation = Image.open(io.BytesIO(bytes(gif)))
        assert animation.n_frames == 8 and animation.width >= width
        animation.seek(7)
        assert len(animation.convert("RGB").getcolors(1 << 16)) > 8


@pytest.mark.parametrize("case", ["nothing found, not analysed", "lost particles", "no graphics"])
def test_page_is_reduced_where_something_is_missing(tmp_path, opened, case) -> None:
    query = ""
    if case == "nothing found, not analysed":
        run, _ = write_synthetic_run(tmp_path / "run", rank=2, n_particles=60)
        (run.eigenvalues).write_text("component,eigenvalue,label\n")
        write_latents(run.latents, Latents(np.zeros((60, 0)), np.zeros((60, 0, 0)), np.ones(60)))
        expected = ("no reproducible variability", "has not been analysed")
    elif case == "lost particles":
        run, arrays = analysed_run(tmp_path / "run", n_particles=60)
        z, precision = arrays.z.copy(), arrays.precision.copy()
        z[3], z[9, 0], precision[7] = np.nan, np.inf, 0.0
        write_latents(run.latents, Latents(z, precision, np.ones(60)))
        expected = ("2 particles have no coordinates", "uncertainty of some particles is infinite")
    else:
        run, _ = analysed_run(tmp_path / "run", n_particles=60)
        write_mrc(run.focus_mask, np.ones((16, 16, 16)))
        query, expected = "?graphics=none", ("Without WebGL2",)
    with served(run) as server:
        page = opened(server.url.replace("/#", f"/{query}#"))
        assert page.get_attribute("body", "data-state") == "ready", page.text_content("#status")
        notes = page.text_content("#notes")
        assert all(text in notes for text in expected)
        assert np.isfinite(inside(page, "return [...e.z, ...e.particles.view];")).all()
        if case == "nothing found, not analysed":
            page.focus("#plot")
            page.keyboard.press("c")  # without clusters none can be picked
            assert inside(page, "return e.tool;") == "point"
        page.click("#invert")
        assert len(rows_picked(page)) == (58 if case == "lost particles" else 60)
        assert not page.is_visible("#focusLabel")  # where it cannot be drawn
        page.check("#slices")
        page.wait_for_timeout(100)
        colours = (
            Image.open(io.BytesIO(page.locator("#molecule").screenshot())).convert("RGB").getcolors(1 << 20)
        )
        assert len(colours) > 20
        points = Image.open(io.BytesIO(page.locator("#plot").screenshot())).convert("RGB").getcolors(1 << 20)
        assert len(points) > 5


def test_page_without_token_or_server_says_so(analysed, opened) -> None:
    with served(analysed[0]) as server:
        page = opened(f"http://127.0.0.1:{server.port}/#token=wrong")
        assert "needs the address with its token" in page.text_content("#status")
        page = opened(server.url)
        assert page.url.endswith("/")  # the token is not left where others could read it from the screen
        page.context.set_offline(True)
        page.fill("#name", "late")
        page.click("#invert")
        page.click("#save")
        page.wait_for_selector("#status:has-text('server has ended')")


def test_exported_page_opens_from_disk(analysed, opened, tmp_path) -> None:
    run, arrays = analysed
    z, y, x = np.indices((16, 16, 16))
    # what lies outside the mask is cut off
    replace_volume(run.mask, ((x - 9) ** 2 + (y - 8) ** 2 + (z - 7) ** 2 < 16).astype(float))
    target = tmp_path / "page.html"
    target.write_text(standalone_page(load_run(str(run.path))), encoding="utf-8")
    page = opened(target.as_uri())
    assert page.get_attribute("body", "data-state") == "ready", page.text_content("#status")
    assert not page.is_visible("#save") and page.is_visible("#chimerax")
    page.select_option("#colour", "cluster")
    page.wait_for_selector("#legend:has-text('3')")
    z = arrays.z[:, :2]
    box = page.locator("#plot").bounding_box()
    page.click("#tools button[value=rectangle]")
    page.mouse.move(box["x"] + 1, box["y"] + 1)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] - 1)
    page.mouse.up()
    page.wait_for_selector(f"#picked:has-text('{len(z)} of {len(z)}')")
    with tarfile.open(fileobj=io.BytesIO(downloaded(page, "#chimerax"))) as archive:
        (run.path / "volume.mrc").write_bytes(archive.extractfile("state_001.mrc").read())
    with mrcfile.open(run.path / "volume.mrc") as volume:
        whole = arrays.mean + np.tensordot(arrays.z.mean(axis=0), arrays.eigenvolumes, 1)
        assert volume.data.shape == (11, 11, 11)
        start = np.round([volume.header.origin[name] / 3.0 for name in ("z", "y", "x")]).astype(int)
        part = whole[
            tuple(slice(begin, begin + edge) for begin, edge in zip(start, volume.data.shape, strict=True))
        ]
        assert np.abs(volume.data - part).max() < 0.02 * whole.max()  # of 8 bits


def test_exported_page_is_small_and_admits_no_other_code(analysed) -> None:
    explored = load_run(str(analysed[0].path))
    hostile = dataclasses.replace(explored, notes=("</script><script>alert(1)</script>",))
    text = standalone_page(hostile)
    assert "<script>alert" not in text and "unsafe" not in text
    assert text.count("<script") == 2 and "import {" not in text

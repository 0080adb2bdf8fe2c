// The page: what its controls do, and what follows from a change of the state or of the selection.
import { categoryColour, count, distance, extent, makeElement, quantiles, shade, times } from "./numbers.js";
import { openSource } from "./source.js";
import { Support, densities, rowsInside } from "./picking.js";
import { Selection } from "./selection.js";
import { Basis } from "./processor.js";
import { LIVE, Molecule, PINNED } from "./molecule.js";
import { Particles } from "./particles.js";
import { chimeraxArchive, download } from "./files.js";
import { movieOf } from "./movie.js";

const NEIGHBOURS = 50, PATH_POINTS = 12, FRAMES = 90, STEADY_AFTER = 250; // particles, states, pictures, milliseconds
const TOOLS = { point: "Point", lasso: "Lasso", rectangle: "Rectangle", path: "Path", cluster: "Cluster", move: "Move" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const $ = id => document.getElementById(id);
const useGraphics = new URLSearchParams(location.search).get("graphics") !== "none";

// z: live state; pinned: state that changes are shown against; at: cursor on the plane; draft: shape that is being drawn
export const explorer = { columns: {}, tool: "point", points: [], path: null, draft: null, shape: null, at: null };
const e = explorer;

const say = text => { $("status").textContent = text; };
const reported = action => async (...given) => {
  try { await action(...given); } catch (error) { say(error.message); }
};
const column = async name => e.columns[name] ??= await e.source.column(name);
const chosen = () => [$("x").value, $("y").value], axes = () => e.axes; // what is wanted, and what is shown
const component = name => name.startsWith("z_") ? Number(name.slice(2)) - 1 : -1;
const components = () => axes().map(component), isPlaneOfZ = () => components().every(axis => axis >= 0);
const pairs = flat => Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
const label = name => e.meta.columns.find(item => item.name === name)?.label ?? name;

// ---------------------------------------------------------------- the state of the molecule

export function setState(z) {
  e.z = Float32Array.from(z);
  [...$("sliders").children].forEach((slider, j) => { slider.lastChild.value = e.z[j]; });
  e.at = isPlaneOfZ() ? components().map(axis => e.z[axis]) : null; // elsewhere a state has no place of its own
  const remoteness = e.support ? e.support.remoteness(e.z) : 0;
  $("remark").textContent = remoteness > 1 ? "Few particles are like this." : "";
  if (e.molecule) e.molecule.veil = Math.min(Math.max(remoteness - 1, 0) * 0.35, 0.7);
  showKernel(); changed();
}

// The state at a place of the plane: its coordinates, or elsewhere than among z the mean of the nearest particles.
function stateAt(x, y) {
  const [i, j] = components(), z = e.z.slice();
  if (isPlaneOfZ()) { [z[i], z[j]] = [x, y]; return z; }
  return meanOf(e.particles.nearest(x, y, NEIGHBOURS)) ?? z;
}

function meanOf(rows) {
  const known = [...rows].filter(row => !e.zs.some(values => Number.isNaN(values[row])));
  return known.length ? e.zs.map(values => known.reduce((sum, row) => sum + values[row], 0) / known.length) : null;
}

function moveTo(x, y) { setState(stateAt(x, y)); e.at ??= [x, y]; }

const changed = () => { e.isStale = true; ask(); };
const ask = () => { if (!e.asked) e.asked = requestAnimationFrame(() => render()); };
function moving() { // pictures are coarse until the pointer rests
  clearTimeout(e.resting); e.isMoving = true;
  e.resting = setTimeout(() => { e.isMoving = false; ask(); }, STEADY_AFTER);
}

export function render() {
  cancelAnimationFrame(e.asked); e.asked = 0;
  if (e.molecule) {
    if (e.isStale) {
      e.molecule.combine(LIVE, e.z, e.pinned);
      if (e.isPinned) e.molecule.combine(PINNED, e.pinned, e.pinned);
    }
    e.isStale = false;
    e.molecule.draw({ beside: $("beside").checked, share: e.isMoving ? 0.5 : 1,
      sliceAt: $("slices").checked ? $("sliceAt").value / 100 : null });
  }
  drawOver();
}

// The volume of the nearest state of `reconstruct`, if it is near.
const showKernel = reported(async () => {
  const { states, compared, deviation } = e.meta;
  if (!states.length || !e.molecule?.gl) return;
  const distances = states.map(point => distance(point, e.z, compared)), nearest = distances.indexOf(Math.min(...distances));
  const isNear = distances[nearest] <= 0.25 * Math.hypot(...compared.map(axis => deviation[axis]));
  $("kernelLabel").hidden = false; $("kernel").disabled = !isNear;
  $("kernelName").textContent = isNear ? `reconstructed volume of state ${nearest + 1}` : "no reconstructed volume near";
  const wanted = isNear && $("kernel").checked ? nearest + 1 : 0;
  if (wanted === (e.kernel ?? 0)) return;
  e.kernel = wanted;
  const overlay = wanted ? (e.kernels ??= {})[wanted] ??= await e.source.state(wanted) : null;
  if (wanted === e.kernel) e.molecule.setExtras({ overlay });
  ask();
});

// ---------------------------------------------------------------- the plane of the particles

const plot = reported(async () => {
  const wanted = chosen(), [xs, ys] = await Promise.all(wanted.map(column));
  if (wanted.join() !== chosen().join()) return; // the user has gone on meanwhile
  e.particles.setPlaces(xs, ys); e.axes = wanted;
  Object.assign(e, { draft: null, shape: null, at: isPlaneOfZ() && e.z ? components().map(axis => e.z[axis]) : null });
  await paint();
});

async function paint() {
  const name = $("colour").value, isCategory = e.meta.columns.some(item => item.name === name && item.category);
  const values = name === "density" ? densities(e.particles.cells) : await column(name);
  if (name !== $("colour").value) return;
  const range = isCategory ? extent(values) : name === "density" ? [0, 1] : quantiles(values, [0.02, 0.98]);
  e.particles.setValues(values, range, isCategory);
  const swatch = colour => { const mark = makeElement("span"); mark.style.background = `rgb(${colour})`; return mark; };
  $("legend").replaceChildren(...(isCategory ? e.particles.legend().flatMap(([number, colour]) => [swatch(colour), `${number}`])
    : [range[0].toPrecision(3), ...[0, 0.25, 0.5, 0.75, 1].map(share => swatch(shade(share))), ` ${range[1].toPrecision(3)}`]));
  redraw();
}

function redraw() { e.particles.draw(); drawOver(); }

function picked(rows, how, made) {
  e.selection.apply(rows, how, made); showPicked();
  const mean = how === "replace" && e.meta.rank ? meanOf(rows) : null;
  if (mean) setState(mean);
}

function showPicked() {
  const total = e.selection.total;
  $("picked").textContent = `${count(total)} of ${count(e.selection.marks.length)} particles`;
  e.particles.setPicked(e.selection.marks); redraw();
}

export function finishShape(vertices, how = $("how").value) {
  const tool = e.tool, made = { tool, axes: axes(), polygon: vertices };
  e.draft = null;
  if (tool === "path") setPath(vertices);
  else if (vertices.length >= 6) {
    e.shape = vertices;
    picked(rowsInside(e.particles.xs, e.particles.ys, Float64Array.from(vertices)), how, made);
  }
  drawOver();
}

const pickCluster = reported(async (x, y, how) => {
  const clusters = await column("cluster"), [row] = e.particles.nearest(x, y), rows = [];
  if (row === undefined) return;
  clusters.forEach((number, i) => { if (number === clusters[row]) rows.push(i); });
  e.shape = null; picked(rows, how, { tool: "cluster", axes: axes() });
  say(clusters[row] ? `Cluster ${clusters[row]}.` : "Outliers, which are in no cluster.");
});

// Points at equal distances along a polyline [x0, y0, x1, y1, ...].
function resampled(line, total) {
  const n = line.length / 2, lengths = [0];
  for (let i = 1; i < n; i++) lengths.push(lengths[i - 1] + Math.hypot(line[2 * i] - line[2 * i - 2], line[2 * i + 1] - line[2 * i - 1]));
  return Array.from({ length: total }, (_, i) => {
    const at = lengths[n - 1] * i / (total - 1), next = Math.max(1, lengths.findIndex(length => length >= at - 1e-12));
    const share = (at - lengths[next - 1]) / (lengths[next] - lengths[next - 1] || 1);
    return [0, 1].map(c => line[2 * next - 2 + c] + share * (line[2 * next + c] - line[2 * next - 2 + c]));
  });
}

function setPath(line) {
  if (line.length < 4 || !e.meta.rank) { say(e.meta.rank ? "A path needs two points." : "Nothing moves along a path."); return; }
  const vertices = resampled(line, PATH_POINTS);
  showPath({ axes: axes(), vertices, states: vertices.map(([x, y]) => stateAt(x, y)) });
  $("kind").value = "path";
}

function showPath(path) { e.path = path; for (const id of ["play", "movie"]) $(id).disabled = !path; }

function stateOnPath(share) {
  const { states } = e.path, at = share * (states.length - 1), below = Math.min(Math.floor(at), states.length - 2);
  return states[below].map((value, j) => value + (at - below) * (states[below + 1][j] - value));
}

function drawOver() {
  const canvas = $("over"), density = window.devicePixelRatio || 1, pen = canvas.getContext("2d");
  Object.assign(canvas, { width: canvas.clientWidth * density, height: canvas.clientHeight * density });
  pen.scale(density, density);
  const line = (places, colour, width, dash = [], close = false) => {
    pen.beginPath(); places.forEach(([x, y]) => pen.lineTo(...e.particles.toPixel(x, y)));
    if (close) pen.closePath();
    Object.assign(pen, { strokeStyle: colour, lineWidth: width }); pen.setLineDash(dash); pen.stroke();
  };
  const onPlane = states => isPlaneOfZ() ? states.map(z => components().map(axis => z[axis])) : [];
  if (e.shape) line(pairs(e.shape), "#b34700", 1.5, [5, 3], true);
  if (e.draft) line(pairs(e.draft), "#b34700", 2, [], e.tool !== "path");
  if (e.path) line(e.path.vertices && e.path.axes.join() === axes().join() ? e.path.vertices : onPlane(e.path.states), "#111", 2.5);
  pen.setLineDash([]);
  const mark = ([u, v], radius, colour, width) => {
    Object.assign(pen, { strokeStyle: colour, lineWidth: width }); pen.beginPath(); pen.arc(u, v, radius, 0, 7);
    for (const [du, dv] of [[1, 0], [0, 1]]) {
      pen.moveTo(u - du * 1.5 * radius, v - dv * 1.5 * radius);
      pen.lineTo(u + du * 1.5 * radius, v + dv * 1.5 * radius);
    }
    pen.stroke();
  };
  const all = [...onPlane(e.meta.states).map(at => [at, 4, "#005c43"]), ...onPlane(e.points).map(at => [at, 5, "#111"])];
  if (e.at) all.push([e.at, 8, "#c00"]);
  for (const [at, radius, colour] of all) {
    mark(e.particles.toPixel(...at), radius, "#fff", 4); mark(e.particles.toPixel(...at), radius, colour, 2);
  }
}

// ---------------------------------------------------------------- controls

function wirePlot() {
  const plane = $("plot"), howOf = event => event.shiftKey ? "add" : event.altKey ? "subtract" : $("how").value;
  const at = event => e.particles.toPlane(event.offsetX, event.offsetY);
  let last = null;
  plane.onpointerdown = event => {
    if (event.button) return; // of a menu
    plane.setPointerCapture(event.pointerId); last = at(event);
    if (e.tool === "point") moveTo(...last);
    else if (e.tool === "cluster") pickCluster(...last, howOf(event));
    else if (e.tool !== "move") e.draft = [...last];
  };
  plane.onpointermove = event => {
    const [x, y] = at(event);
    if (!last) { hover(x, y); return; }
    if (e.tool === "point") { moving(); moveTo(x, y); }
    else if (e.tool === "move") { e.particles.pan(x - last[0], y - last[1]); redraw(); }
    else if (e.tool === "rectangle") e.draft = [...last, x, last[1], x, y, last[0], y];
    else if (e.draft) e.draft.push(x, y);
    if (e.draft) drawOver();
  };
  plane.onpointerup = event => { last = null; if (e.draft) finishShape(e.draft, howOf(event)); };
  plane.onpointerleave = () => { $("hover").textContent = ""; };
  plane.addEventListener("wheel", event => {
    event.preventDefault(); e.particles.zoom(Math.exp(event.deltaY / 600), ...at(event)); redraw();
  }, { passive: false });
  plane.onkeydown = event => {
    const arrow = ARROWS[event.key], [left, right, bottom, top] = e.particles.view;
    const middle = [(left + right) / 2, (bottom + top) / 2], place = e.at ?? middle;
    const tool = Object.keys(TOOLS).find(name => name[0] === event.key);
    if (arrow && e.tool === "move") e.particles.pan(-arrow[0] * (right - left) / 20, -arrow[1] * (top - bottom) / 20);
    else if (arrow) {
      const next = [place[0] + arrow[0] * (right - left) / 50, place[1] + arrow[1] * (top - bottom) / 50];
      if (e.tool === "point") moveTo(...next);
      else e.at = next;
    } else if (event.key === " " && e.tool === "cluster") pickCluster(...place, howOf(event));
    else if (event.key === " " && !["point", "move"].includes(e.tool)) e.draft = [...(e.draft ?? []), ...place];
    else if (event.key === "Enter" && e.draft) {
      const [x0, y0, x1, y1] = e.draft;
      finishShape(e.tool === "rectangle" ? [x0, y0, x1, y0, x1, y1, x0, y1] : e.draft, howOf(event));
    } else if (event.key === "Escape") e.draft = null;
    else if (event.key === "0") e.particles.view = e.particles.wholeView();
    else if (event.key === "+" || event.key === "-") e.particles.zoom(event.key === "+" ? 0.8 : 1.25, ...middle);
    else if (tool && !event.ctrlKey) choose(tool);
    else return;
    event.preventDefault(); redraw(); if (arrow && e.at) hover(...e.at);
  };
}

export function hover(x, y) {
  const [row] = e.particles.nearest(x, y);
  if (row === undefined) return;
  const name = $("colour").value, value = e.columns[name]?.[row];
  const number = count(e.source.rows ? e.source.rows[row] : row);
  $("hover").textContent = `particle of row ${number}` + (value === undefined ? "" : `, ${label(name)} ${Number(value.toPrecision(4))}`);
}

function choose(tool) {
  if ($("tools").querySelector(`[value=${tool}]`).disabled) return;
  e.tool = tool; e.draft = null;
  for (const button of $("tools").children) button.setAttribute("aria-pressed", button.value === tool);
}

function turn(dx, dy) {
  const [cx, sx, cy, sy] = [Math.cos(dx), Math.sin(dx), Math.cos(dy), Math.sin(dy)];
  e.molecule.turn = times([1, 0, 0, 0, cy, -sy, 0, sy, cy], times([cx, 0, sx, 0, 1, 0, -sx, 0, cx], e.molecule.turn));
  ask();
}

function wireMolecule() {
  const canvas = $("molecule"), { molecule, meta } = e;
  canvas.onpointerdown = event => canvas.setPointerCapture(event.pointerId);
  canvas.onpointermove = event => {
    if (!event.buttons) return;
    moving(); turn(event.movementX / 120, event.movementY / 120);
  };
  const zoom = factor => { molecule.zoom = Math.min(Math.max(molecule.zoom * factor, 0.1), 50); moving(); ask(); };
  canvas.addEventListener("wheel", event => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 800)); }, { passive: false });
  canvas.onkeydown = event => {
    const arrow = ARROWS[event.key], factor = { "+": 1.1, "-": 1 / 1.1 }[event.key];
    if (!arrow && !factor) return;
    event.preventDefault();
    if (arrow) turn(arrow[0] / 10, -arrow[1] / 10); else zoom(factor);
  };
  const setLevel = () => {
    molecule.level = meta.highest * $("level").value / 1000;
    $("levelValue").textContent = molecule.level.toPrecision(3);
    (molecule.hidesDust ? changed : ask)();
  };
  $("level").value = 1000 * meta.level / meta.highest; $("level").oninput = setLevel;
  molecule.range = meta.level * 0.8;
  $("dust").onchange = () => { molecule.hidesDust = $("dust").checked; changed(); };
  $("change").onchange = () => { molecule.byChange = $("change").checked; ask(); };
  for (const id of ["slices", "beside"]) $(id).onchange = ask;
  $("sliceAt").oninput = ask; $("kernel").onchange = showKernel; $("focusLabel").hidden = !(meta.hasFocus && molecule.gl);
  $("focus").onchange = reported(async () => {
    molecule.setExtras({ focus: $("focus").checked ? new Uint8Array(await e.source.focus()) : null }); ask();
  });
  $("pin").onclick = () => {
    Object.assign(e, { pinned: e.z.slice(), isPinned: true }); $("beside").disabled = false; changed();
  };
  setLevel();
}

function wireButtons() {
  for (const [tool, text] of Object.entries(TOOLS)) {
    $("tools").append(makeElement("button", { value: tool, textContent: text, onclick: () => choose(tool),
      disabled: tool === "cluster" && !e.meta.columns.some(item => item.name === "cluster") }));
  }
  choose("point");
  for (const id of ["x", "y"]) $(id).onchange = plot;
  $("colour").onchange = reported(paint);
  const [isKnown, selection] = [row => !Number.isNaN(e.particles.xs[row] + e.particles.ys[row]), e.selection];
  for (const [id, act] of [["invert", () => selection.invert(isKnown)], ["undo", () => selection.undo()], ["clear", () => selection.clear()]]) {
    $(id).onclick = () => { act(); e.shape = null; showPicked(); };
  }
  $("mark").onclick = () => { // a second time takes it away
    const same = e.points.findIndex(point => String(point) === String(e.z));
    if (same < 0) e.points.push(e.z.slice()); else e.points.splice(same, 1);
    $("kind").value = "points"; drawOver(); say(`${e.points.length} points.`);
  };
  $("play").onclick = async () => {
    for (let i = 0; i <= FRAMES; i++) {
      moving(); setState(stateOnPath(i / FRAMES));
      await new Promise(resolve => requestAnimationFrame(resolve));
    }
  };
  $("movie").onclick = reported(async () => {
    say("Making the movie."); e.isMoving = false;
    const [movie, ending] = await movieOf($("molecule"), FRAMES, i => {
      setState(stateOnPath(1 - Math.abs(1 - 2 * i / (FRAMES - 1)))); render();
    });
    download(movie, `motion.${ending}`);
    say("The movie is saved.");
  });
  $("png").onclick = () => { e.isMoving = false; render(); $("molecule").toBlob(blob => download(blob, "molecule.png")); };
  $("chimerax").onclick = reported(async () => {
    const states = e.path ? e.path.states : e.isPinned ? [e.pinned, e.z] : [e.z], { basis, unit, level } = e.molecule;
    const volumes = states.map(z => basis.sum(basis.weights(z)).map(value => value * unit));
    download(chimeraxArchive(volumes, e.meta, level), "chimerax.tar");
  });
  wireSaving();
}

function wireSaving() {
  for (const bar of document.querySelectorAll(".saving")) bar.hidden = !e.meta.canSave;
  if (!e.meta.canSave) return;
  const list = async () => {
    const groups = Object.entries(await e.source.names()).map(([kind, names]) =>
      makeElement("optgroup", { label: kind }, ...names.map(name => new Option(name, name))));
    $("saved").replaceChildren(...groups);
    for (const id of ["load", "star"]) $(id).disabled = !$("saved").value;
  };
  $("save").onclick = reported(async () => {
    const kind = $("kind").value, flat = states => Float64Array.from(states.flatMap(z => [...z]));
    const [values, made] = {
      particles: () => [e.selection.rows, e.selection.made],
      points: () => [flat(e.points.length ? e.points : [e.z]), { tool: "point", axes: axes() }],
      path: () => [flat(e.path?.states ?? []), { tool: "path", axes: e.path?.axes, vertices: e.path?.vertices?.flat() }],
    }[kind]();
    const stored = await e.source.store({ ...made, name: $("name").value, kind }, values);
    await list();
    say(`Saved ${stored.name}: ${count(stored.count)}.`);
  });
  $("load").onclick = reported(async () => {
    const { kind, values, tool, axes: along = [], polygon, vertices } = await e.source.load($("saved").value);
    if (kind === "particles") picked(values, "replace", { tool, axes: along, polygon });
    else if (kind === "points") e.points = values;
    else showPath({ axes: along, vertices: vertices && pairs(vertices), states: values });
    redraw();
  });
  $("star").onclick = reported(async () => download(await e.source.star($("saved").value), `${$("saved").value}.star`));
  reported(list)();
}

function makeSliders() {
  $("sliders").replaceChildren(...e.meta.deviation.map((deviation, j) => {
    const reach = 3 * (deviation || 1e-3), doubt = e.meta.labels[j];
    const input = makeElement("input", { type: "range", min: -reach, max: reach, step: reach / 200,
      oninput: () => { const z = e.z.slice(); z[j] = Number(input.value); moving(); setState(z); } });
    return makeElement("label", { className: doubt ? "doubtful" : "" }, `z${j + 1}${doubt ? ` (${doubt})` : ""} `, input);
  }));
}

async function start() {
  e.source = await openSource();
  const meta = e.meta = e.source.meta, names = meta.columns.map(item => item.name);
  $("about").textContent = `${meta.name}: ${count(meta.particles)} particles, ${meta.rank} components, box ${meta.box}, ${meta.pixelSize.toFixed(2)} Å/px`;
  for (const id of ["x", "y", "colour"]) {
    $(id).append(...(id === "colour" ? ["density", ...names] : names).map(name => new Option(label(name), name)));
  }
  const first = meta.compared.length ? meta.compared : [0, 1];
  $("x").value = names.includes(`z_${first[0] + 1}`) ? `z_${first[0] + 1}` : names[0];
  $("y").value = names.find(name => name === `z_${(first[1] ?? 1) + 1}`) ?? names.find(name => name !== $("x").value) ?? names[0];
  e.z = Float32Array.from(meta.median); e.pinned = new Float32Array(meta.rank);
  e.selection = new Selection(meta.drawn); e.particles = new Particles($("plot"), useGraphics, redraw);
  e.particles.setPicked(e.selection.marks); makeSliders();
  await plot(); document.body.dataset.state = "painted";
  e.zs = await Promise.all(meta.deviation.map((_, j) => column(`z_${j + 1}`)));
  e.support = new Support(e.zs, meta.compared);
  meta.compared.forEach((axis, i) => { if (e.support.densest) e.z[axis] = e.support.densest[i]; });
  e.molecule = new Molecule($("molecule"), new Basis(await e.source.volumes(), meta), meta, useGraphics, changed);
  $("notes").textContent = [...meta.notes, ...(e.molecule.gl ? [] : ["Without WebGL2 the pictures of the molecule are coarse."])].join(" ");
  wirePlot(); wireMolecule(); wireButtons(); showPicked(); turn(0.5, 0.4); setState(e.z); render();
  const sizes = new ResizeObserver(() => { redraw(); ask(); });
  for (const id of ["plot", "molecule"]) sizes.observe($(id));
  say(""); document.body.dataset.state = "ready";
}

start().catch(error => { say(error.message); document.body.dataset.state = "failed"; });

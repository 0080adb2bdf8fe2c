// The particles as points: drawn by the graphics card, or by the processor where there is none.
import { PICKED_COLOUR, UNKNOWN_COLOUR, categoryColour, extent, shade } from "./numbers.js";
import { Grid } from "./picking.js";
import { POINT_COLOURS, POINT_VERTICES, compile, watchContext } from "./shaders.js";

const NOWHERE = 1e30, UNKNOWN = -3e38, PALETTE = 256;

export class Particles {
  constructor(canvas, useGraphics, onRestored) {
    this.canvas = canvas;
    if (useGraphics) this.gl = canvas.getContext("webgl2", { antialias: false, alpha: false });
    if (this.gl) {
      this.setUp();
      watchContext(canvas, () => {
        this.setUp(); this.setPlaces(this.xs, this.ys, this.view);
        this.setValues(this.values, this.range, this.isCategory); this.setPicked(this.marks); onRestored();
      });
    } else this.flat = canvas.getContext("2d", { alpha: false });
  }
  setUp() {
    const gl = this.gl;
    this.points = compile(gl, POINT_VERTICES, POINT_COLOURS, ["place", "value", "picked"]);
    this.buffers = [0, 1, 2].map(() => gl.createBuffer()); this.colours = gl.createTexture();
  }
  setPlaces(xs, ys, view = null) {
    Object.assign(this, { xs, ys, grid: null }); this.whole = this.wholeView(); this.view = view ?? this.whole;
    if (!this.gl) return;
    const places = new Float32Array(2 * xs.length);
    for (let i = 0; i < xs.length; i++) {
      const isKnown = !Number.isNaN(xs[i] + ys[i]);
      places[2 * i] = isKnown ? xs[i] : NOWHERE; places[2 * i + 1] = isKnown ? ys[i] : NOWHERE;
    }
    this.fill(0, places);
  }
  wholeView() {
    return [this.xs, this.ys].flatMap(values => {
      const [low, high] = extent(values), margin = (high - low) * 0.04 || 1;
      return [low - margin, high + margin];
    });
  }
  setValues(values, range, isCategory) {
    Object.assign(this, { values, highest: range[1], range: range[1] > range[0] ? range : [range[0], range[0] + 1], isCategory });
    if (!this.gl) return;
    this.fill(1, values.map(value => Number.isNaN(value) ? UNKNOWN : value));
    const gl = this.gl, colours = Uint8Array.from(this.palette().flatMap(colour => [...colour, 255]));
    gl.bindTexture(gl.TEXTURE_2D, this.colours);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, PALETTE, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, colours);
    for (const name of ["TEXTURE_MIN_FILTER", "TEXTURE_MAG_FILTER"]) gl.texParameteri(gl.TEXTURE_2D, gl[name], gl.NEAREST);
    for (const name of ["TEXTURE_WRAP_S", "TEXTURE_WRAP_T"]) gl.texParameteri(gl.TEXTURE_2D, gl[name], gl.CLAMP_TO_EDGE);
  }
  palette() {
    const [low, high] = this.range, shares = Array.from({ length: PALETTE }, (_, i) => i / (PALETTE - 1));
    return shares.map(share => this.isCategory ? categoryColour(low + share * (high - low)) : shade(share));
  }
  setPicked(marks) { this.marks = marks; this.anyPicked = marks.includes(1); if (this.gl) this.fill(2, marks); }
  fill(which, data) {
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.buffers[which]);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, data, this.gl.DYNAMIC_DRAW);
  }
  get pointSize() {
    const n = this.xs.length;
    return (n > 4e5 ? 1 : n > 5e4 ? 1.5 : n > 5e3 ? 3 : 5) * (window.devicePixelRatio || 1);
  }
  draw() {
    const { canvas } = this, density = window.devicePixelRatio || 1;
    const width = Math.max(Math.round(canvas.clientWidth * density), 1), height = Math.max(Math.round(canvas.clientHeight * density), 1);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    if (!this.gl) { this.drawHere(width, height); return; }
    const { gl, points: { program, uniforms }, view: [left, right, bottom, top] } = this;
    gl.viewport(0, 0, width, height); gl.clearColor(1, 1, 1, 1); gl.clear(gl.COLOR_BUFFER_BIT);
    gl.useProgram(program); gl.enable(gl.BLEND); gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    [[2, gl.FLOAT], [1, gl.FLOAT], [1, gl.UNSIGNED_BYTE]].forEach(([size, kind], i) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[i]); gl.enableVertexAttribArray(i);
      gl.vertexAttribPointer(i, size, kind, false, 0, 0);
    });
    gl.uniform2f(uniforms.middle, (left + right) / 2, (bottom + top) / 2);
    gl.uniform2f(uniforms.perUnit, 2 / (right - left), 2 / (top - bottom));
    gl.uniform1f(uniforms.low, this.range[0]); gl.uniform1f(uniforms.high, this.range[1]);
    gl.uniform1f(uniforms.anyPicked, this.anyPicked ? 1 : 0); gl.uniform1f(uniforms.size, this.pointSize);
    gl.uniform1f(uniforms.opacity, this.xs.length > 1e5 ? 0.55 : 0.8);
    gl.uniform3fv(uniforms.unknown, UNKNOWN_COLOUR.map(value => value / 255));
    gl.uniform3fv(uniforms.pickedColour, PICKED_COLOUR.map(value => value / 255));
    gl.bindTexture(gl.TEXTURE_2D, this.colours); gl.uniform1i(uniforms.colours, 0);
    gl.drawArrays(gl.POINTS, 0, this.xs.length);
  }
  drawHere(width, height) {
    const picture = new ImageData(width, height), pixels = new Uint32Array(picture.data.buffer).fill(0xffffffff);
    const { xs, ys, values, marks, view: [left, right, bottom, top] } = this, edge = Math.max(1, Math.round(this.pointSize));
    const packed = ([r, g, b]) => (255 << 24 | b << 16 | g << 8 | r) >>> 0, pale = packed([222, 222, 222]);
    const palette = this.palette().map(packed);
    for (let i = 0; i < xs.length; i++) {
      const x = Math.floor((xs[i] - left) / (right - left) * width), y = Math.floor((top - ys[i]) / (top - bottom) * height);
      if (!(x >= 0 && x < width - edge && y >= 0 && y < height - edge)) continue;
      const share = Math.min(Math.max((values[i] - this.range[0]) / (this.range[1] - this.range[0]), 0), 1);
      const own = Number.isNaN(values[i]) ? packed(UNKNOWN_COLOUR) : palette[Math.round(share * (PALETTE - 1))];
      const colour = this.anyPicked ? (marks[i] ? packed(PICKED_COLOUR) : pale) : own;
      for (let v = 0; v < edge; v++) pixels.fill(colour, (y + v) * width + x, (y + v) * width + x + edge);
    }
    this.flat.putImageData(picture, 0, 0);
  }
  // from pixels of the page, counted from the upper left corner of the plot, to the plane, and back
  toPlane(u, v) {
    const [left, right, bottom, top] = this.view;
    return [left + (right - left) * u / this.canvas.clientWidth, top - (top - bottom) * v / this.canvas.clientHeight];
  }
  toPixel(x, y) {
    const [left, right, bottom, top] = this.view;
    return [(x - left) / (right - left) * this.canvas.clientWidth, (top - y) / (top - bottom) * this.canvas.clientHeight];
  }
  zoom(factor, x, y) {
    const [left, right] = this.view, share = factor * (right - left) / (this.whole[1] - this.whole[0]);
    if (share > 1e-5 && share < 100) this.view = this.view.map((edge, i) => edge * factor + (i < 2 ? x : y) * (1 - factor));
  }
  pan(dx, dy) { this.view = this.view.map((edge, i) => edge - (i < 2 ? dx : dy)); }
  get cells() { return this.grid ??= new Grid(this.xs, this.ys); }
  nearest(x, y, k = 1) {
    const [left, right, bottom, top] = this.view;
    return this.cells.nearest(x, y, right - left, top - bottom, k);
  }
  // What the colours mean, as text or as coloured words.
  legend() {
    if (!this.isCategory) return [];
    const low = this.range[0];
    return Array.from({ length: Math.min(this.highest - low + 1, 60) }, (_, i) => [low + i, categoryColour(low + i)]);
  }
}

// The molecule: volumes are summed once per change of the state, and the sum is drawn as a surface and as slices.
import { halfTable } from "./numbers.js";
import { removeDust, slicePicture, surfacePicture } from "./processor.js";
import { SLICE, SURFACE, WHOLE_SCREEN, combineProgram, compile, watchContext } from "./shaders.js";

export const LIVE = 0, PINNED = 1;
const PLAIN = [[0.55, 0.68, 0.82], [0.82, 0.72, 0.52]]; // live, pinned
const PICTURE_OF_PROCESSOR = 200; // px

export class Molecule {
  constructor(canvas, basis, meta, useGraphics, onRestored) {
    Object.assign(this, { canvas, basis, meta, turn: [1, 0, 0, 0, 1, 0, 0, 0, 1], zoom: 1, veil: 0 });
    Object.assign(this, { level: 0, range: 1, byChange: false, hidesDust: false, focus: null, overlay: null, fields: [] });
    this.low = meta.dims.map((_, axis) => meta.start[axis] / meta.box - 0.5);
    this.high = meta.dims.map((edge, axis) => (meta.start[axis] + edge) / meta.box - 0.5);
    this.unit = basis.scale[0]; // densities are kept over the mean's maximum, where float16 is fine
    if (useGraphics) {
      this.gl = canvas.getContext("webgl2", { antialias: false, alpha: false, powerPreference: "high-performance" });
    }
    if (this.gl) {
      watchContext(canvas, () => { this.setUp(); onRestored(); }); this.setUp();
    } else this.flat = canvas.getContext("2d", { alpha: false });
  }
  setUp() {
    const { gl, basis } = this;
    this.canRenderHalf = Boolean(gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float"));
    gl.getExtension("OES_texture_float_linear"); gl.disable(gl.DITHER);
    const [format, kind] = basis.isHalf ? [gl.RGBA16F, gl.HALF_FLOAT] : [gl.RGBA8_SNORM, gl.BYTE];
    this.sums = !this.hasRoom() ? null : basis.sources.map(texels =>
      this.texture(format, gl.RGBA, kind, basis.isHalf ? texels : new Int8Array(texels.buffer, texels.byteOffset, texels.length)));
    this.targets = [LIVE, PINNED].map(() => this.texture(gl.RG16F, gl.RG, gl.HALF_FLOAT, null));
    this.extra = this.texture(gl.RG16F, gl.RG, gl.FLOAT, this.extras());
    this.frame = gl.createFramebuffer(); this.surface = compile(gl, WHOLE_SCREEN, SURFACE);
    this.slice = compile(gl, WHOLE_SCREEN, SLICE);
    this.combination = this.sums && compile(gl, WHOLE_SCREEN, combineProgram(basis.textures));
  }
  // Whether the card can sum by itself; else the processor does.
  hasRoom() { return this.canRenderHalf && this.basis.textures <= this.gl.getParameter(this.gl.MAX_TEXTURE_IMAGE_UNITS); }
  texture(internal, format, kind, data) {
    const gl = this.gl, texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_3D, texture); gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texImage3D(gl.TEXTURE_3D, 0, internal, ...this.basis.dims, 0, format, kind, data);
    for (const name of ["TEXTURE_MIN_FILTER", "TEXTURE_MAG_FILTER"]) gl.texParameteri(gl.TEXTURE_3D, gl[name], gl.LINEAR);
    for (const name of ["TEXTURE_WRAP_S", "TEXTURE_WRAP_T", "TEXTURE_WRAP_R"]) {
      gl.texParameteri(gl.TEXTURE_3D, gl[name], gl.CLAMP_TO_EDGE);
    }
    return texture;
  }
  // Volume that is laid over the live one and focus mask, beside each other in one texture.
  extras() {
    const pairs = new Float32Array(this.basis.voxels * 2);
    if (this.overlay) for (let v = 0; v < this.overlay.length; v++) pairs[2 * v] = halfTable[this.overlay[v]] / this.unit;
    if (this.focus) for (let v = 0; v < this.focus.length; v++) pairs[2 * v + 1] = this.focus[v] / 255;
    return pairs;
  }
  setExtras({ overlay = this.overlay, focus = this.focus }) {
    Object.assign(this, { overlay, focus });
    if (this.gl) this.upload(this.extra, this.extras());
  }
  upload(texture, pairs) {
    this.gl.bindTexture(this.gl.TEXTURE_3D, texture);
    this.gl.texSubImage3D(this.gl.TEXTURE_3D, 0, 0, 0, 0, ...this.basis.dims, this.gl.RG, this.gl.FLOAT, pairs);
  }
  // Sum a state, and its change against another, into a slot.
  combine(slot, z, pinned) {
    const weights = this.basis.weights(z), against = this.basis.weights(pinned);
    if (this.gl && this.sums && !this.hidesDust) this.combineThere(slot, weights, against);
    else this.combineHere(slot, weights, against);
  }
  combineThere(slot, weights, against) {
    const { gl, basis, combination: { program, uniforms } } = this, [width, height, depth] = basis.dims;
    gl.useProgram(program); this.sums.forEach((texture, i) => this.bind(texture, i, uniforms["source" + i]));
    gl.uniform4fv(uniforms.weight, weights); gl.uniform4fv(uniforms.pinned, against);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.frame); gl.viewport(0, 0, width, height);
    for (let layer = 0; layer < depth; layer++) {
      gl.framebufferTextureLayer(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, this.targets[slot], 0, layer);
      gl.uniform1i(uniforms.layer, layer); gl.drawArrays(gl.TRIANGLES, 0, 3);
    }
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
  }
  combineHere(slot, weights, against) {
    const density = this.basis.sum(weights), change = this.basis.sum(weights.map((weight, j) => weight - against[j]));
    if (this.hidesDust) removeDust(density, this.basis.dims, this.level / this.unit);
    this.fields[slot] = { density, change, dims: this.basis.dims };
    if (!this.gl) return;
    const pairs = new Float32Array(2 * density.length);
    for (let v = 0; v < density.length; v++) { pairs[2 * v] = density[v]; pairs[2 * v + 1] = change[v]; }
    this.upload(this.targets[slot], pairs);
  }
  bind(texture, unit, uniform) {
    this.gl.activeTexture(this.gl.TEXTURE0 + unit);
    this.gl.bindTexture(this.gl.TEXTURE_3D, texture); this.gl.uniform1i(uniform, unit);
  }
  // The summed density of a slot, for tests and files: x runs fastest, in the units of the volumes.
  read(slot) {
    if (!this.gl) return this.fields[slot].density.map(value => value * this.unit);
    const gl = this.gl, [width, height, depth] = this.basis.dims, plane = width * height;
    const density = new Float32Array(plane * depth), texels = new Float32Array(plane * 4);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.frame);
    for (let layer = 0; layer < depth; layer++) {
      gl.framebufferTextureLayer(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, this.targets[slot], 0, layer);
      gl.readPixels(0, 0, width, height, gl.RGBA, gl.FLOAT, texels);
      for (let i = 0; i < plane; i++) density[layer * plane + i] = texels[4 * i] * this.unit;
    }
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    return density;
  }
  // Draw one state, or the pinned one beside it, above slices across z, y and x if `sliceAt` is a share of the box.
  draw({ beside = false, sliceAt = null, share = 1 } = {}) {
    const { canvas } = this, density = window.devicePixelRatio || 1;
    const width = Math.max(Math.round(canvas.clientWidth * density * share), 16);
    const height = Math.max(Math.round(canvas.clientHeight * density * share), 16);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const edge = sliceAt === null ? 0 : Math.floor(Math.min(width / 3, height * 0.4));
    const slots = beside ? [PINNED, LIVE] : [LIVE], wide = Math.floor(width / slots.length);
    if (this.gl) {
      this.gl.bindFramebuffer(this.gl.FRAMEBUFFER, null); this.gl.clearColor(1, 1, 1, 1);
      this.gl.clear(this.gl.COLOR_BUFFER_BIT);
    } else { this.flat.fillStyle = "white"; this.flat.fillRect(0, 0, width, height); }
    slots.forEach((slot, i) => this.drawSurface(slot, [i * wide, edge, wide, height - edge]));
    if (edge) for (let i = 0; i < 3; i++) this.drawSlice(LIVE, 2 - i, sliceAt, [i * edge, 0, edge - 2, edge - 2]);
  }
  look(slot) {
    const { low, high, turn, zoom, byChange, unit } = this, veil = slot === LIVE ? this.veil : 0; // of the live state
    return { low, high, turn, zoom, byChange, veil, level: this.level / unit, range: this.range / unit, plain: PLAIN[slot] };
  }
  greys() {
    const { unit, meta, byChange } = this;
    return { darkest: -meta.level / unit, brightest: 0.8 * meta.highest / unit, range: this.range / unit, byChange };
  }
  drawSurface(slot, view) {
    const look = this.look(slot);
    if (!this.gl) { this.paste(surfacePicture(this.fields[slot], PICTURE_OF_PROCESSOR, look), view); return; }
    const { gl, surface: { uniforms } } = this;
    this.begin(this.surface, view, slot); this.bind(this.extra, 1, uniforms.extra);
    gl.uniformMatrix3fv(uniforms.turn, true, look.turn);
    for (const name of ["low", "high", "plain"]) gl.uniform3fv(uniforms[name], look[name]);
    gl.uniform3fv(uniforms.dims, this.basis.dims);
    for (const name of ["level", "zoom", "range", "veil"]) gl.uniform1f(uniforms[name], look[name]);
    gl.uniform1f(uniforms.voxel, 1 / this.meta.box); gl.uniform1i(uniforms.byChange, look.byChange);
    gl.uniform1i(uniforms.hasOverlay, slot === LIVE && this.overlay !== null);
    gl.uniform1i(uniforms.hasFocus, this.focus !== null); this.finish();
  }
  drawSlice(slot, axis, at, view) {
    if (!this.gl) { this.paste(slicePicture(this.fields[slot], axis, at, this.greys()), view); return; }
    const { gl, slice: { uniforms } } = this, greys = this.greys();
    this.begin(this.slice, view, slot); gl.uniform1i(uniforms.axis, axis); gl.uniform1f(uniforms.at, at);
    for (const name of ["darkest", "brightest", "range"]) gl.uniform1f(uniforms[name], greys[name]);
    gl.uniform1i(uniforms.byChange, greys.byChange); this.finish();
  }
  begin({ program, uniforms }, view, slot) {
    const gl = this.gl;
    gl.useProgram(program); this.bind(this.targets[slot], 0, uniforms.volume);
    gl.uniform4fv(uniforms.view, view); gl.viewport(...view); gl.enable(gl.SCISSOR_TEST); gl.scissor(...view);
  }
  finish() { this.gl.drawArrays(this.gl.TRIANGLES, 0, 3); this.gl.disable(this.gl.SCISSOR_TEST); }
  paste(picture, [x, y, width, height]) { // `view` counts from below, pictures from above
    const sheet = new OffscreenCanvas(picture.width, picture.height), edge = Math.min(width, height);
    sheet.getContext("2d").putImageData(picture, 0, 0);
    const left = x + (width - edge) / 2, top = this.canvas.height - y - height + (height - edge) / 2;
    this.flat.drawImage(sheet, left, top, edge, edge);
  }
}

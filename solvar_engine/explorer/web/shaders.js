// Programs of the graphics card: points of particles; sum of volumes, surface and slices of the molecule.

export const POINT_VERTICES = `#version 300 es
in vec2 place; in float value; in float picked;
uniform vec2 middle, perUnit; uniform float size, low, high, anyPicked; uniform vec3 unknown, pickedColour;
uniform sampler2D colours; out vec3 colour;
void main() {
  gl_Position = vec4((place - middle) * perUnit, 0., 1.);
  gl_PointSize = size + (picked > 0.5 ? 1. : 0.);
  float share = clamp((value - low) / (high - low), 0., 1.);
  colour = value < -1e37 ? unknown : texture(colours, vec2(share * 255. / 256. + .5 / 256., .5)).rgb;
  if (anyPicked > 0.) colour = picked > 0.5 ? pickedColour : mix(colour, vec3(.86), .8);
}`;

export const POINT_COLOURS = `#version 300 es
precision mediump float; in vec3 colour; uniform float opacity; out vec4 result;
void main() { result = vec4(colour, opacity); }`;

export const WHOLE_SCREEN = `#version 300 es
void main() { vec2 p = vec2((gl_VertexID << 1) & 2, gl_VertexID & 2); gl_Position = vec4(p * 2. - 1., 0., 1.); }`;

const repeat = (count, line) => Array.from({ length: count }, (_, i) => line(i)).join("\n");

// One layer of the sum of all volumes, and of its difference from the pinned state.
export const combineProgram = textures => `#version 300 es
precision highp float; precision highp sampler3D;
${repeat(textures, i => `uniform sampler3D source${i};`)}
uniform vec4 weight[${textures}], pinned[${textures}]; uniform int layer; out vec4 result;
void main() {
  ivec3 at = ivec3(ivec2(gl_FragCoord.xy), layer); float density = 0., change = 0.; vec4 texel;
${repeat(textures, i => `  texel = texelFetch(source${i}, at, 0);
  density += dot(texel, weight[${i}]); change += dot(texel, weight[${i}] - pinned[${i}]);`)}
  result = vec4(density, change, 0., 1.);
}`;

const DIVERGING = `
vec3 diverging(float t) {
  t = clamp(t, -1., 1.); vec3 end = t < 0. ? vec3(.0, .35, .70) : vec3(.80, .33, .0);
  return mix(vec3(.92), end, pow(abs(t), .7));
}`;

// The surface, seen along -z of the turned molecule without perspective, as in papers.
export const SURFACE = `#version 300 es
precision highp float; precision highp sampler3D;
uniform sampler3D volume, extra; uniform mat3 turn; uniform vec3 low, high, dims; uniform vec4 view;
uniform float level, zoom, range, voxel, veil; uniform bool byChange, hasOverlay, hasFocus; uniform vec3 plain;
out vec4 result;
${DIVERGING}
vec3 eye, along;
vec3 place(float t) { return (eye + along * t - low) / (high - low); }
vec3 slope(sampler3D map, vec3 p) {
  vec3 e = 1. / dims;
  return vec3(texture(map, p + vec3(e.x, 0, 0)).x - texture(map, p - vec3(e.x, 0, 0)).x,
    texture(map, p + vec3(0, e.y, 0)).x - texture(map, p - vec3(0, e.y, 0)).x,
    texture(map, p + vec3(0, 0, e.z)).x - texture(map, p - vec3(0, 0, e.z)).x);
}
float surface(sampler3D map, float from, float to) { // where a ray meets it, 9 if nowhere
  float after = 9., before;
  for (float t = from + voxel * .5; t < to; t += voxel) if (texture(map, place(t)).x >= level) { after = t; break; }
  if (after > 8.) return after;
  before = after - voxel;
  for (int i = 0; i < 5; i++) {
    float middle = .5 * (before + after);
    if (texture(map, place(middle)).x >= level) after = middle; else before = middle;
  }
  return after;
}
vec3 lit(vec3 base, vec3 gradient, float t) {
  vec3 normal = turn * -normalize(gradient + 1e-12); if (normal.z < 0.) normal = -normal;
  vec3 lamp = normalize(vec3(-.4, .6, .9)), second = normalize(vec3(.8, -.2, .4));
  float light = .28 + .62 * max(dot(normal, lamp), 0.) + .18 * max(dot(normal, second), 0.);
  float gleam = pow(max(dot(reflect(-lamp, normal), vec3(0, 0, 1)), 0.), 24.) * .18;
  return mix(base * light + gleam, vec3(1.), clamp((t - 1.5) / 1.2, 0., 1.) * .45);
}
void main() {
  vec2 q = ((gl_FragCoord.xy - view.xy) / view.zw - .5) * vec2(view.z / view.w, 1.) * 1.25 / zoom;
  eye = vec3(q, 2.) * turn; along = vec3(0., 0., -1.) * turn; // row times matrix: into the frame of the volume
  vec3 inverse = 1. / (along + vec3(1e-9)), a = (low - eye) * inverse, b = (high - eye) * inverse;
  vec3 near = min(a, b), far = max(a, b);
  float from = max(max(near.x, near.y), near.z), to = min(min(far.x, far.y), far.z), focus = 0.;
  result = vec4(1.);
  if (to > from) {
    float live = surface(volume, from, to);
    if (live < 8.) {
      vec3 p = place(live);
      result.rgb = mix(lit(byChange ? diverging(texture(volume, p).y / range) : plain, slope(volume, p), live), vec3(1.), veil);
    }
    if (hasOverlay) {
      float other = surface(extra, from, to);
      if (other < 8.) {
        vec3 colour = lit(vec3(.90, .62, .0), slope(extra, place(other)), other);
        result.rgb = mix(result.rgb, colour, other < live ? .6 : .25);
      }
    }
    if (hasFocus) for (float t = from; t < to; t += voxel) focus = max(focus, texture(extra, place(t)).y);
  }
  if (hasFocus && abs(focus - .5) < 1.5 * fwidth(focus) && focus > .02) result.rgb = vec3(.0, .45, .35);
}`;

export const SLICE = `#version 300 es
precision highp float; precision highp sampler3D;
uniform sampler3D volume; uniform vec4 view; uniform int axis; uniform float at, darkest, brightest, range;
uniform bool byChange; out vec4 result;
${DIVERGING}
void main() {
  vec2 q = (gl_FragCoord.xy - view.xy) / view.zw;
  vec3 p = axis == 2 ? vec3(q, at) : axis == 1 ? vec3(q.x, at, q.y) : vec3(at, q);
  vec2 texel = texture(volume, p).xy; vec3 grey = vec3(clamp((texel.x - darkest) / (brightest - darkest), 0., 1.));
  float change = clamp(texel.y / range, -1., 1.);
  result = vec4(byChange ? mix(grey, diverging(change), abs(change) * .8) : grey, 1.);
}`;

export function compile(gl, vertices, fragments, attributes = []) {
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertices], [gl.FRAGMENT_SHADER, fragments]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text); gl.compileShader(shader); gl.attachShader(program, shader);
  }
  attributes.forEach((name, i) => gl.bindAttribLocation(program, i, name));
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
    const logs = gl.getAttachedShaders(program)?.map(shader => gl.getShaderInfoLog(shader)).join(" ");
    throw new Error(`${gl.getProgramInfoLog(program)} ${logs}`);
  }
  const uniforms = {};
  for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
    const name = gl.getActiveUniform(program, i).name;
    uniforms[name.replace("[0]", "")] = gl.getUniformLocation(program, name);
  }
  return { program, uniforms };
}

// Give `restore` a chance to set all up again when the graphics card was taken away, as after sleep.
export function watchContext(canvas, restore) {
  canvas.addEventListener("webglcontextlost", event => event.preventDefault());
  canvas.addEventListener("webglcontextrestored", restore);
}

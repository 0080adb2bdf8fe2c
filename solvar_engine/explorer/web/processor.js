// What the processor does where the graphics card cannot, or where neighbours must be looked at: sum, dust, pictures.
import { byteTable, halfTable } from "./numbers.js";

// Mean and eigenvolumes as they were sent, four to a texel; the sum is in units of the mean's maximum.
export class Basis {
  constructor(buffer, meta) {
    const { dims, scale } = meta, isHalf = meta.form === "f16", count = meta.volumes + 1;
    Object.assign(this, { dims, scale, isHalf, count, voxels: dims[0] * dims[1] * dims[2], textures: Math.ceil(count / 4) });
    const Kind = this.isHalf ? Uint16Array : Uint8Array;
    this.sources = Array.from({ length: this.textures }, (_, i) =>
      new Kind(buffer, i * this.voxels * 4 * Kind.BYTES_PER_ELEMENT, this.voxels * 4));
  }
  // weights of the texels' channels that make a state
  weights(z) {
    const weights = new Float32Array(this.textures * 4);
    for (let j = 0; j < this.count; j++) weights[j] = (j ? z[j - 1] : 1) * this.scale[j] / this.scale[0];
    return weights;
  }
  sum(weights) {
    const total = new Float32Array(this.voxels), table = this.isHalf ? halfTable : byteTable;
    this.sources.forEach((texels, i) => {
      const [a, b, c, d] = weights.subarray(4 * i, 4 * i + 4);
      for (let v = 0, t = 0; v < total.length; v++, t += 4) {
        total[v] += a * table[texels[t]] + b * table[texels[t + 1]] + c * table[texels[t + 2]] + d * table[texels[t + 3]];
      }
    });
    return total;
  }
}

// Set to zero what is above a level but in a piece much smaller than the largest.
export function removeDust(density, dims, level, smallest = 0.02) {
  const [width, height] = dims, plane = width * height, pieces = [];
  const piece = new Int32Array(density.length), queue = new Int32Array(density.length);
  for (let first = 0; first < density.length; first++) {
    if (density[first] < level || piece[first]) continue;
    const number = pieces.push(0);
    let end = 1; piece[queue[0] = first] = number;
    const visit = v => { if (density[v] >= level && !piece[v]) { piece[v] = number; queue[end++] = v; } };
    for (let begin = 0; begin < end; begin++) {
      const v = queue[begin], x = v % width, y = Math.floor(v / width) % height;
      if (x > 0) visit(v - 1);
      if (x < width - 1) visit(v + 1);
      if (y > 0) visit(v - width);
      if (y < height - 1) visit(v + width);
      if (v >= plane) visit(v - plane);
      if (v < density.length - plane) visit(v + plane);
    }
    pieces[number - 1] = end;
  }
  const least = smallest * pieces.reduce((a, b) => Math.max(a, b), 0);
  for (let v = 0; v < density.length; v++) if (piece[v] && pieces[piece[v] - 1] < least) density[v] = 0;
  return density;
}

function diverging(t) {
  const share = Math.min(Math.abs(t), 1) ** 0.7, end = t < 0 ? [0, 0.35, 0.7] : [0.8, 0.33, 0];
  return end.map(value => 0.92 + (value - 0.92) * share);
}

// A small picture of the surface, like that of the graphics card without overlay and focus mask.
export function surfacePicture({ density, change, dims }, size, { turn, low, high, level, zoom, range, byChange, plain, veil }) {
  const [width, height, depth] = dims, picture = new ImageData(size, size), voxel = 1 / Math.max(...dims);
  picture.data.fill(255);
  const at = (x, y, z) => x < 0 || y < 0 || z < 0 || x >= width || y >= height || z >= depth ? 0 : density[(z * height + y) * width + x];
  const along = [-turn[6], -turn[7], -turn[8]], perUnit = [0, 1, 2].map(j => dims[j] / (high[j] - low[j]));
  const [dx, dy, dz] = along.map((value, j) => value * voxel * perUnit[j]);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const q = [((column + 0.5) / size - 0.5) * 1.25 / zoom, (0.5 - (row + 0.5) / size) * 1.25 / zoom, 2];
      let [px, py, pz] = [0, 1, 2].map(j =>
        (q[0] * turn[j] + q[1] * turn[3 + j] + q[2] * turn[6 + j] + along[j] - low[j]) * perUnit[j]);
      for (let step = 0; step * voxel < 2; step++, px += dx, py += dy, pz += dz) {
        const x = Math.floor(px), y = Math.floor(py), z = Math.floor(pz);
        if (at(x, y, z) < level) continue;
        const slope = [at(x + 1, y, z) - at(x - 1, y, z), at(x, y + 1, z) - at(x, y - 1, z), at(x, y, z + 1) - at(x, y, z - 1)];
        let normal = [0, 3, 6].map(i => -(turn[i] * slope[0] + turn[i + 1] * slope[1] + turn[i + 2] * slope[2]));
        const length = Math.hypot(...normal) || 1;
        normal = normal.map(value => (normal[2] < 0 ? -value : value) / length);
        const light = 0.3 + 0.7 * Math.max(0, -0.35 * normal[0] + 0.52 * normal[1] + 0.78 * normal[2]);
        const base = byChange ? diverging(change[(z * height + y) * width + x] / range) : plain;
        const pixel = 4 * (row * size + column);
        base.forEach((value, i) => { picture.data[pixel + i] = 255 * (value * light * (1 - veil) + veil); });
        break;
      }
    }
  }
  return picture;
}

// One slice across an axis (0, 1, 2: x, y, z), bottom row last, as pictures have it.
export function slicePicture({ density, change, dims }, axis, share, { darkest, brightest, range, byChange }) {
  const [width, height, depth] = dims, strides = [1, width, width * height];
  const [u, v] = [[1, 2], [0, 2], [0, 1]][axis], fixed = Math.min(Math.floor(share * dims[axis]), dims[axis] - 1);
  const picture = new ImageData(dims[u], dims[v]);
  for (let row = 0; row < dims[v]; row++) {
    for (let column = 0; column < dims[u]; column++) {
      const at = fixed * strides[axis] + column * strides[u] + (dims[v] - 1 - row) * strides[v];
      const grey = Math.min(Math.max((density[at] - darkest) / (brightest - darkest), 0), 1);
      const changed = Math.min(Math.max(change[at] / range, -1), 1), mixed = byChange ? Math.abs(changed) * 0.8 : 0;
      const colour = diverging(changed).map(value => 255 * (grey + (value - grey) * mixed));
      picture.data.set([...colour, 255], 4 * (row * dims[u] + column));
    }
  }
  return picture;
}

// Which particles lie inside a polygon, near a point, and how densely they lie; all exact but the density.
import { extent } from "./numbers.js";

// Whether a point lies in a polygon [x0, y0, x1, y1, ...], by the even-odd rule.
export function isInside(x, y, polygon) {
  let inside = false;
  for (let i = 0, j = polygon.length - 2; i < polygon.length; j = i, i += 2) {
    const yi = polygon[i + 1], yj = polygon[j + 1];
    if ((yi > y) !== (yj > y) && x < (polygon[j] - polygon[i]) * (y - yi) / (yj - yi) + polygon[i]) inside = !inside;
  }
  return inside;
}

// Rows of the particles inside a polygon. Cells of a raster that an edge touches are tested particle by particle, the
// others as a whole.
export function rowsInside(xs, ys, polygon, size = 512) {
  const EDGE = 1, IN = 2, OUT = 3, [left, right] = extent(polygon.filter((_, i) => i % 2 === 0));
  const [bottom, top] = extent(polygon.filter((_, i) => i % 2 === 1));
  const perX = size / (right - left || 1) * 0.999999, perY = size / (top - bottom || 1) * 0.999999;
  const cells = new Uint8Array(size * size);
  const touch = (column, row) => {
    for (let v = Math.max(row - 1, 0); v <= Math.min(row + 1, size - 1); v++) {
      for (let u = Math.max(column - 1, 0); u <= Math.min(column + 1, size - 1); u++) cells[v * size + u] = EDGE;
    }
  };
  for (let i = 0, j = polygon.length - 2; i < polygon.length; j = i, i += 2) {
    const x0 = (polygon[j] - left) * perX, y0 = (polygon[j + 1] - bottom) * perY;
    const dx = (polygon[i] - left) * perX - x0, dy = (polygon[i + 1] - bottom) * perY - y0;
    const steps = Math.ceil(Math.max(Math.abs(dx), Math.abs(dy)) * 2) + 1;
    for (let s = 0; s <= steps; s++) touch(Math.floor(x0 + dx * s / steps), Math.floor(y0 + dy * s / steps));
  }
  for (let row = 0; row < size; row++) {
    for (let column = 0, last = EDGE; column < size; column++) {
      const cell = row * size + column;
      if (cells[cell] !== EDGE && last !== EDGE) cells[cell] = last;
      else if (cells[cell] !== EDGE) {
        cells[cell] = isInside(left + (column + 0.5) / perX, bottom + (row + 0.5) / perY, polygon) ? IN : OUT;
      }
      last = cells[cell];
    }
  }
  const found = new Uint32Array(xs.length);
  let total = 0;
  for (let i = 0; i < xs.length; i++) {
    const x = xs[i], y = ys[i];
    if (!(x >= left && x <= right && y >= bottom && y <= top)) continue;
    const cell = cells[((y - bottom) * perY | 0) * size + ((x - left) * perX | 0)];
    if (cell === IN || (cell === EDGE && isInside(x, y, polygon))) found[total++] = i;
  }
  return found.slice(0, total);
}

// Particles sorted into the cells of a grid over two columns.
export class Grid {
  constructor(xs, ys, size = 512) {
    Object.assign(this, { xs, ys, size });
    [this.left, this.right] = extent(xs); [this.bottom, this.top] = extent(ys);
    this.perX = size / (this.right - this.left || 1) * 0.99999;
    this.perY = size / (this.top - this.bottom || 1) * 0.99999;
    const none = size * size; // cell of those that lie nowhere
    this.cells = new Uint32Array(xs.length); this.start = new Uint32Array(none + 2);
    for (let i = 0; i < xs.length; i++) {
      const cell = ((ys[i] - this.bottom) * this.perY | 0) * size + ((xs[i] - this.left) * this.perX | 0);
      this.start[1 + (this.cells[i] = Number.isNaN(xs[i] + ys[i]) ? none : cell)]++;
    }
    for (let cell = 0; cell <= none; cell++) this.start[cell + 1] += this.start[cell];
    const next = this.start.slice();
    this.order = new Uint32Array(xs.length);
    for (let i = 0; i < xs.length; i++) this.order[next[this.cells[i]]++] = i;
  }
  // The k rows nearest to a point, nearest first, with both axes in units of `unitX` and `unitY`.
  nearest(x, y, unitX, unitY, k = 1) {
    const { size, start, order } = this, best = [];
    const column = Math.min(Math.max(Math.floor((x - this.left) * this.perX), 0), size - 1);
    const row = Math.min(Math.max(Math.floor((y - this.bottom) * this.perY), 0), size - 1);
    const cellEdge = Math.min(1 / this.perX / unitX, 1 / this.perY / unitY);
    for (let ring = 0; ring < size; ring++) {
      // what lies in farther rings is at least this far away
      if (best.length === k && best[k - 1][0] <= ((ring - 1) * cellEdge) ** 2) break;
      for (let v = Math.max(row - ring, 0); v <= Math.min(row + ring, size - 1); v++) {
        const step = Math.abs(v - row) === ring ? 1 : 2 * ring;
        for (let u = column - ring; u <= column + ring; u += step || 1) {
          if (u < 0 || u >= size) continue;
          for (let at = start[v * size + u]; at < start[v * size + u + 1]; at++) {
            const i = order[at], far = ((this.xs[i] - x) / unitX) ** 2 + ((this.ys[i] - y) / unitY) ** 2;
            if (best.length === k && far >= best[k - 1][0]) continue;
            let place = best.length === k ? k - 1 : best.length;
            while (place > 0 && best[place - 1][0] > far) place--; best.splice(place, 0, [far, i]);
            if (best.length > k) best.pop();
          }
        }
      }
    }
    return best.map(pair => pair[1]);
  }
}

// How densely particles lie around each of them on a plane, from 0 to 1: a histogram, smoothed by two running means.
export function densities({ cells, start, size }) {
  const counts = Float32Array.from({ length: size * size }, (_, cell) => start[cell + 1] - start[cell]);
  const other = new Float32Array(size * size), reach = Math.max(2, Math.round(size / 90 * (3e5 / cells.length) ** 0.17));
  const smooth = (from, to, stride, line) => {
    for (let l = 0; l < size; l++) {
      let sum = 0;
      for (let i = 0; i < reach; i++) sum += from[l * line + i * stride];
      for (let i = 0; i < size; i++) {
        if (i + reach < size) sum += from[l * line + (i + reach) * stride];
        if (i > reach) sum -= from[l * line + (i - reach - 1) * stride];
        to[l * line + i * stride] = sum;
      }
    }
  };
  for (let pass = 0; pass < 2; pass++) { smooth(counts, other, 1, size); smooth(other, counts, size, 1); }
  const highest = Math.max(extent(counts)[1], 1e-9);
  return Float32Array.from(cells, cell => cell < counts.length ? Math.sqrt(Math.max(counts[cell], 0) / highest) : NaN);
}

// How far a point is from the particles, over what is usual among them: above 1 there are few.
export class Support {
  constructor(columns, axes, most = 20000, neighbours = 10) {
    const n = columns.length ? columns[0].length : 0, step = Math.max(1, Math.floor(n / most)), points = [];
    this.axes = axes;
    for (let i = 0; i < n; i += step) {
      if (!axes.some(axis => Number.isNaN(columns[axis][i]))) for (const axis of axes) points.push(columns[axis][i]);
    }
    this.points = Float32Array.from(points);
    const total = axes.length ? points.length / axes.length : 0, usual = [];
    this.neighbours = Math.min(neighbours, total);
    for (let i = 0; i < total; i += Math.ceil(total / 200)) {
      const point = this.points.subarray(i * axes.length, (i + 1) * axes.length), far = this.far(point);
      if (!usual.some(other => other <= far)) this.densest = point;
      usual.push(far);
    }
    usual.sort((a, b) => a - b); this.usual = usual[Math.floor(0.95 * (usual.length - 1))] ?? 0;
  }
  // distance of the k-th nearest particle from a point in the compared components
  far(point) {
    const { points, neighbours } = this, r = point.length, best = new Float64Array(neighbours).fill(Infinity);
    for (let i = 0; i < points.length; i += r) {
      let square = 0;
      for (let j = 0; j < r; j++) square += (points[i + j] - point[j]) ** 2;
      if (!(square < best[neighbours - 1])) continue;
      let place = neighbours - 1;
      for (; place > 0 && best[place - 1] > square; place--) best[place] = best[place - 1];
      best[place] = square;
    }
    return Math.sqrt(best[neighbours - 1]);
  }
  remoteness(z) { return this.usual > 0 ? this.far(this.axes.map(axis => z[axis])) / this.usual : 0; }
}

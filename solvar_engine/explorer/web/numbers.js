// Numbers and colours that several parts of the page need.

// float16 by its 16 bits
export const halfTable = (() => {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31, fraction = bits & 1023, sign = bits & 32768 ? -1 : 1;
    if (exponent === 31) table[bits] = fraction ? NaN : sign * Infinity;
    else table[bits] = sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
  }
  return table;
})();

// int8 in units of 1/127, by its bits
export const byteTable = Float32Array.from({ length: 256 }, (_, bits) => (bits > 127 ? bits - 256 : bits) / 127);

// smallest and largest number, NaN left out; [0, 1] without any
export function extent(values) {
  let low = Infinity, high = -Infinity;
  for (let i = 0; i < values.length; i++) {
    if (values[i] < low) low = values[i];
    if (values[i] > high) high = values[i];
  }
  return low <= high ? [low, high] : [0, 1];
}

// what shares of the numbers lie below, from some thousands of them
export function quantiles(values, shares) {
  const step = Math.max(1, Math.floor(values.length / 5000)), some = [];
  for (let i = 0; i < values.length; i += step) if (!Number.isNaN(values[i])) some.push(values[i]);
  some.sort((a, b) => a - b);
  return shares.map(share => some[Math.min(some.length - 1, Math.floor(share * some.length))] ?? 0);
}

export const distance = (a, b, axes) => Math.sqrt(axes.reduce((sum, axis) => sum + (a[axis] - b[axis]) ** 2, 0));

export function times(a, b) { // 3 x 3 matrices, row by row
  return a.map((_, at) => [0, 1, 2].reduce((sum, k) => sum + a[at - at % 3 + k] * b[3 * k + at % 3], 0));
}

// viridis without its yellow end, which cannot be seen on white; dark is much
const VIRIDIS = [[181, 211, 60], [94, 190, 99], [38, 160, 133], [39, 127, 142], [54, 92, 141], [70, 50, 126], [68, 1, 84]];

// Okabe and Ito's colours for all kinds of eyes, without yellow; the first ones differ most
const CATEGORIES = [[0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [86, 180, 233], [213, 94, 0], [60, 60, 60]];
export const categoryColour = number => CATEGORIES[(Math.round(number) % CATEGORIES.length + CATEGORIES.length) % CATEGORIES.length];
export const UNKNOWN_COLOUR = [190, 190, 190];
export const PICKED_COLOUR = [213, 94, 0];

export function shade(share) { // of a number between its lowest and highest
  const at = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1), below = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return VIRIDIS[below].map((start, i) => Math.round(start + (VIRIDIS[below + 1][i] - start) * (at - below)));
}

export const count = number => number.toLocaleString("en");

export function makeElement(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

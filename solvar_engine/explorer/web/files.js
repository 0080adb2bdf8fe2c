// Files that the page gives the user: volumes, an archive of them with a script for ChimeraX.

export function download(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// A volume, x running fastest, as an MRC file of 32-bit floats.
export function mrcFile(density, meta) {
  const buffer = new ArrayBuffer(1024 + 4 * density.length), view = new DataView(buffer);
  const numbers = (at, values) => values.forEach((value, i) => view.setInt32(at + 4 * i, value, true));
  const floats = (at, values) => values.forEach((value, i) => view.setFloat32(at + 4 * i, value, true));
  let low = Infinity, high = -Infinity, sum = 0, squares = 0;
  for (const value of density) {
    low = Math.min(low, value);
    high = Math.max(high, value);
    sum += value;
    squares += value * value;
  }
  const mean = sum / density.length, edges = meta.dims.map(edge => edge * meta.pixelSize);
  numbers(0, [...meta.dims, 2, 0, 0, 0, ...meta.dims]);
  floats(40, [...edges, 90, 90, 90]);
  numbers(64, [1, 2, 3]);
  floats(76, [low, high, mean]);
  numbers(88, [1]);
  numbers(108, [20140]);
  floats(196, meta.start.map(begin => begin * meta.pixelSize));
  [77, 65, 80, 32, 68, 68].forEach((byte, i) => view.setUint8(208 + i, byte)); // "MAP ", little-endian
  floats(216, [Math.sqrt(Math.max(squares / density.length - mean * mean, 0))]);
  for (let i = 0; i < density.length; i++) view.setFloat32(1024 + 4 * i, density[i], true);
  return new Uint8Array(buffer);
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

function checksum(bytes) {
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) crc = CRC_TABLE[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

// A ZIP archive without compression; entries are [name, bytes].
export function zipFile(entries) {
  const parts = [], directory = [];
  let offset = 0;
  const little = fields => {
    const view = new DataView(new ArrayBuffer(fields.reduce((sum, [, size]) => sum + size, 0)));
    let at = 0;
    for (const [value, size] of fields) {
      if (size === 2) view.setUint16(at, value, true);
      else view.setUint32(at, value, true);
      at += size;
    }
    return new Uint8Array(view.buffer);
  };
  for (const [name, bytes] of entries) {
    const text = new TextEncoder().encode(name);
    // version, flags, method, time, date, checksum, sizes, lengths of name and extra field
    const common = [[20, 2], [0, 2], [0, 2], [0, 2], [33, 2], [checksum(bytes), 4], [bytes.length, 4], [bytes.length, 4],
      [text.length, 2], [0, 2]];
    const local = little([[0x04034b50, 4], ...common]);
    parts.push(local, text, bytes);
    directory.push(little([[0x02014b50, 4], [20, 2], ...common, [0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]]), text);
    offset += local.length + text.length + bytes.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = little([[0x06054b50, 4], [0, 2], [0, 2], [entries.length, 2], [entries.length, 2], [size, 4], [offset, 4], [0, 2]]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

// Volumes with a script that opens them in ChimeraX, as a movie if they are several.
export function chimeraxArchive(volumes, meta, level) {
  const names = volumes.map((_, i) => `state_${String(i + 1).padStart(3, "0")}.mrc`);
  const last = names.length > 1 ? [
    `hide #2-${names.length} models`, `# ChimeraX goes from state to state: play it with the slider`, `volume morph #1-${names.length}`,
  ] : [];
  const script = ["# Opens states of a SOLVAR run in ChimeraX.", ...names.map(name => `open ${name}`),
    `volume #1-${names.length} level ${level.toPrecision(6)} style surface step 1 color #8cadd1`, ...last, "lighting soft", "view"];
  return zipFile([
    ["states.cxc", new TextEncoder().encode(script.join("\n") + "\n")],
    ...volumes.map((volume, i) => [names[i], mrcFile(volume, meta)]),
  ]);
}

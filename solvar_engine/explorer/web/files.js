// Files that the page gives the user: volumes, an archive of them with a script for ChimeraX.

export function download(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click(); setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// A volume, x running fastest, as an MRC file of 32-bit floats.
export function mrcFile(density, meta) {
  const buffer = new ArrayBuffer(1024 + 4 * density.length), view = new DataView(buffer);
  const numbers = (at, values) => values.forEach((value, i) => view.setInt32(at + 4 * i, value, true));
  const floats = (at, values) => values.forEach((value, i) => view.setFloat32(at + 4 * i, value, true));
  let low = Infinity, high = -Infinity, sum = 0, squares = 0;
  for (const value of density) {
    low = Math.min(low, value); high = Math.max(high, value); sum += value; squares += value * value;
  }
  const mean = sum / density.length, edges = meta.dims.map(edge => edge * meta.pixelSize);
  numbers(0, [...meta.dims, 2, 0, 0, 0, ...meta.dims]); floats(40, [...edges, 90, 90, 90]);
  numbers(64, [1, 2, 3]); floats(76, [low, high, mean]); numbers(88, [1]); numbers(108, [20140]);
  floats(196, meta.start.map(begin => begin * meta.pixelSize));
  [77, 65, 80, 32, 68, 68].forEach((byte, i) => view.setUint8(208 + i, byte)); // "MAP ", little-endian
  floats(216, [Math.sqrt(Math.max(squares / density.length - mean * mean, 0))]);
  for (let i = 0; i < density.length; i++) view.setFloat32(1024 + 4 * i, density[i], true);
  return new Uint8Array(buffer);
}

// A TAR archive (POSIX ustar); entries are [name, bytes].
export function tarFile(entries) {
  const parts = [], octal = (value, digits) => value.toString(8).padStart(digits, "0");
  for (const [name, bytes] of entries) {
    const head = new Uint8Array(512), put = (at, text) => head.set(new TextEncoder().encode(text), at);
    // name, mode, size, time, kind; the sum is taken with blanks in its own place
    for (const [at, text] of [[0, name], [100, "0000644"], [124, octal(bytes.length, 11)],
      [136, octal(Math.floor(Date.now() / 1000), 11)], [148, " ".repeat(8)], [156, "0"], [257, "ustar"], [263, "00"]]) put(at, text);
    put(148, octal(head.reduce((sum, byte) => sum + byte, 0), 6) + "\0 ");
    parts.push(head, bytes, new Uint8Array((512 - bytes.length % 512) % 512));
  }
  return new Blob([...parts, new Uint8Array(1024)], { type: "application/x-tar" });
}

// Volumes with a script that opens them in ChimeraX, as a movie if they are several.
export function chimeraxArchive(volumes, meta, level) {
  const names = volumes.map((_, i) => `state_${String(i + 1).padStart(3, "0")}.mrc`);
  const last = names.length > 1 ? [
    `hide #2-${names.length} models`, `# ChimeraX goes from state to state: play it with the slider`, `volume morph #1-${names.length}`,
  ] : [];
  const script = ["# Opens states of a SOLVAR run in ChimeraX.", ...names.map(name => `open ${name}`),
    `volume #1-${names.length} level ${level.toPrecision(6)} style surface step 1 color #8cadd1`, ...last, "lighting soft", "view"];
  return tarFile([
    ["states.cxc", new TextEncoder().encode(script.join("\n") + "\n")],
    ...volumes.map((volume, i) => [names[i], mrcFile(volume, meta)]),
  ]);
}

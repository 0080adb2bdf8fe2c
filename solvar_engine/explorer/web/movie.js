// Movies of a canvas, frame by frame: VP8 in a WebM file, or an animated GIF where the browser cannot encode.

const RATE = 30, FRAMES_PER_CLUSTER = 30; // frames per second, and for each key frame

// `paint(i)` draws frame i; returns the file and how its name ends.
export async function movieOf(canvas, total, paint) {
  if (typeof VideoEncoder !== "undefined") {
    const settings = { codec: "vp8", width: canvas.width & ~1, height: canvas.height & ~1, bitrate: 6e6, framerate: RATE };
    if ((await VideoEncoder.isConfigSupported(settings)).supported) return [await webm(canvas, total, paint, settings), "webm"];
  }
  return [await gif(canvas, total, paint), "gif"];
}

async function webm(canvas, total, paint, settings) {
  const { width, height } = settings, chunks = [];
  let failure = null;
  const encoder = new VideoEncoder({
    output: chunk => {
      const bytes = new Uint8Array(chunk.byteLength);
      chunk.copyTo(bytes);
      chunks.push({ isKey: chunk.type === "key", time: Math.round(chunk.timestamp / 1000), bytes });
    },
    error: error => { failure = error; },
  });
  encoder.configure(settings);
  for (let i = 0; i < total && !failure; i++) {
    await paint(i);
    const frame = new VideoFrame(canvas, { timestamp: Math.round(i * 1e6 / RATE), visibleRect: { x: 0, y: 0, width, height } });
    encoder.encode(frame, { keyFrame: i % FRAMES_PER_CLUSTER === 0 }); frame.close();
    while (encoder.encodeQueueSize > 5) await new Promise(resolve => setTimeout(resolve, 5));
  }
  if (!failure) await encoder.flush();
  if (failure) throw failure;
  return new Blob([webmFile(chunks, width, height, total * 1000 / RATE)], { type: "video/webm" });
}

const text = value => new TextEncoder().encode(value);

function joined(parts) {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { bytes.set(part, at); at += part.length; }
  return bytes;
}

// The container of Matroska's specification (RFC 9559) with one track; identifiers are its numbers.
export function webmFile(chunks, width, height, milliseconds) {
  const eight = (kind, value) => {
    const view = new DataView(new ArrayBuffer(8));
    view["set" + kind](0, value);
    return new Uint8Array(view.buffer);
  };
  const number = value => eight("BigUint64", BigInt(value)), real = value => eight("Float64", value);
  const element = (id, ...content) => { // 8 bytes of size, which their first bit says
    const body = joined(content);
    return joined([new Uint8Array(id), number(1n << 56n | BigInt(body.length)), body]);
  };
  const head = element([0x1a, 0x45, 0xdf, 0xa3], element([0x42, 0x86], number(1)), element([0x42, 0xf7], number(1)),
    element([0x42, 0xf2], number(4)), element([0x42, 0xf3], number(8)), element([0x42, 0x82], text("webm")),
    element([0x42, 0x87], number(4)), element([0x42, 0x85], number(2)));
  const info = element([0x15, 0x49, 0xa9, 0x66], element([0x2a, 0xd7, 0xb1], number(1e6)),
    element([0x44, 0x89], real(milliseconds)), element([0x4d, 0x80], text("solvar")), element([0x57, 0x41], text("solvar")));
  const track = element([0x16, 0x54, 0xae, 0x6b], element([0xae], element([0xd7], number(1)), element([0x73, 0xc5], number(1)),
    element([0x83], number(1)), element([0x86], text("V_VP8")),
    element([0xe0], element([0xb0], number(width)), element([0xba], number(height)))));
  const clusters = [];
  for (let i = 0; i < chunks.length; i += FRAMES_PER_CLUSTER) {
    const start = chunks[i].time, blocks = chunks.slice(i, i + FRAMES_PER_CLUSTER).map(({ isKey, time, bytes }) => {
      const since = time - start;
      return element([0xa3], new Uint8Array([0x81, since >> 8, since & 255, isKey ? 0x80 : 0]), bytes);
    });
    clusters.push(element([0x1f, 0x43, 0xb6, 0x75], element([0xe7], number(start)), ...blocks));
  }
  return joined([head, element([0x18, 0x53, 0x80, 0x67], info, track, ...clusters)]);
}

// 6 x 7 x 6 colours; the eye tells greens apart best.
const LEVELS = [6, 7, 6];

async function gif(canvas, total, paint) {
  const { width, height } = canvas, sheet = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  const word = value => [value & 255, value >> 8], palette = new Uint8Array(256 * 3);
  for (let i = 0; i < LEVELS[0] * LEVELS[1] * LEVELS[2]; i++) {
    const steps = [Math.floor(i / (LEVELS[1] * LEVELS[2])), Math.floor(i / LEVELS[2]) % LEVELS[1], i % LEVELS[2]];
    steps.forEach((step, c) => { palette[3 * i + c] = Math.round(255 * step / (LEVELS[c] - 1)); });
  }
  const parts = [text("GIF89a"), new Uint8Array([...word(width), ...word(height), 0xf7, 0, 0]), palette,
    new Uint8Array([0x21, 0xff, 11]), text("NETSCAPE2.0"), new Uint8Array([3, 1, 0, 0, 0])];
  for (let i = 0; i < total; i++) {
    await paint(i); sheet.drawImage(canvas, 0, 0);
    const { data } = sheet.getImageData(0, 0, width, height), indices = new Uint8Array(width * height);
    for (let p = 0; p < indices.length; p++) {
      const [r, g, b] = LEVELS.map((levels, c) => Math.round(data[4 * p + c] / 255 * (levels - 1)));
      indices[p] = (r * LEVELS[1] + g) * LEVELS[2] + b;
    }
    parts.push(new Uint8Array([0x21, 0xf9, 4, 0, ...word(Math.round(100 / RATE)), 0, 0, 0x2c, 0, 0, 0, 0, ...word(width), ...word(height), 0, 8]));
    parts.push(...blocks(compressed(indices)), new Uint8Array([0]));
  }
  return new Blob([...parts, new Uint8Array([0x3b])], { type: "image/gif" });
}

function blocks(bytes) { // of at most 255 bytes
  return Array.from({ length: Math.ceil(bytes.length / 255) }, (_, i) => bytes.subarray(255 * i, 255 * i + 255))
    .flatMap(part => [new Uint8Array([part.length]), part]);
}

// GIF's variant of LZW for 8-bit indices.
export function compressed(indices) {
  const CLEAR = 256, END = 257, MOST = 4096, bytes = [];
  let table = new Map(), next = END + 1, size = 9, buffer = 0, held = 0;
  const put = code => {
    buffer |= code << held; held += size;
    for (; held >= 8; held -= 8, buffer >>>= 8) bytes.push(buffer & 255);
  };
  put(CLEAR); let prefix = indices[0];
  for (let i = 1; i < indices.length; i++) {
    const key = prefix << 8 | indices[i], known = table.get(key);
    if (known !== undefined) { prefix = known; continue; }
    put(prefix);
    if (next < MOST) {
      if (next === 1 << size) size++;
      table.set(key, next++);
    } else { put(CLEAR); [table, next, size] = [new Map(), END + 1, 9]; }
    prefix = indices[i];
  }
  put(prefix); put(END);
  if (held) bytes.push(buffer & 255);
  return Uint8Array.from(bytes);
}

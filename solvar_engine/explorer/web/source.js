// Where data come from: the server of the page, or the page itself if it was exported into one file.

export async function openSource() {
  const block = document.getElementById("data");
  return block ? embedded(JSON.parse(block.textContent)) : served(takeToken());
}

// The token comes in the fragment, which browsers send to nobody; it stays in this tab only.
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) { sessionStorage.setItem("token", given); history.replaceState(null, "", location.pathname); }
  return sessionStorage.getItem("token") || "";
}

async function served(token) {
  const ask = async (path, options = {}) => {
    let answer;
    try {
      answer = await fetch("/api/" + path, { ...options, headers: { Authorization: "Bearer " + token } });
    } catch { throw new Error("The explorer's server has ended: start the explorer again."); }
    if (answer.status === 401) throw new Error("This page needs the address with its token: start the explorer again.");
    if (!answer.ok) throw new Error(await answer.text());
    return answer;
  };
  const bytes = async path => (await ask(path)).arrayBuffer();
  const json = async path => (await ask(path)).json();
  let told = -Infinity; // looking needs no server, which ends when nobody asks: tell it once a minute that it is used
  for (const kind of ["pointermove", "keydown"]) addEventListener(kind, () => {
    if (performance.now() - told > 6e4) { told = performance.now(); json("selections").catch(() => {}); }
  });
  return {
    meta: await json("meta"),
    rows: null,
    column: async name => new Float32Array(await bytes("column/" + name)),
    volumes: () => bytes("volumes"),
    focus: () => bytes("focus"),
    state: async number => new Uint16Array(await bytes("state/" + number)),
    names: () => json("selections"),
    load: name => json("selection/" + encodeURIComponent(name)),
    star: async name => (await ask("star/" + encodeURIComponent(name))).blob(),
    store: async (about, values) => {
      const body = new Blob([JSON.stringify(about) + "\n", values]);
      return (await ask("selection", { method: "POST", body })).json();
    },
  };
}

async function unpacked(text) {
  const packed = Uint8Array.from(atob(text), character => character.charCodeAt(0));
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function embedded(data) {
  return {
    meta: data.meta,
    rows: data.rows && new Uint32Array(await unpacked(data.rows)),
    column: async name => {
      const { low, step, levels } = data.columns[name];
      return Float32Array.from(new Uint16Array(await unpacked(levels)), level => level === 65535 ? NaN : low + step * level);
    },
    volumes: () => unpacked(data.volumes),
    focus: () => unpacked(data.focus),
  };
}

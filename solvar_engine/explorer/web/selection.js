// The particles that are picked, and how they came to be.

const DEPTH = 20;

export class Selection {
  constructor(size) { this.marks = new Uint8Array(size); this.made = null; this.past = []; }
  get rows() {
    const rows = new Uint32Array(this.total);
    for (let i = 0, at = 0; i < this.marks.length; i++) if (this.marks[i]) rows[at++] = i;
    return rows;
  }
  get total() { let total = 0; for (let i = 0; i < this.marks.length; i++) total += this.marks[i]; return total; }
  // `how` is replace, add or subtract; `made` says with which tool, along which axes and by which polygon
  apply(rows, how, made) {
    this.remember();
    if (how === "replace") this.marks.fill(0);
    const mark = how === "subtract" ? 0 : 1;
    for (const row of rows) this.marks[row] = mark;
    // one polygon explains a selection only if it alone made it
    this.made = how === "replace" ? made : { tool: "combined" };
  }
  invert(isKnown) {
    this.remember();
    for (let i = 0; i < this.marks.length; i++) this.marks[i] = !this.marks[i] && isKnown(i) ? 1 : 0;
    this.made = { tool: "combined" };
  }
  clear() { this.apply([], "replace", null); }
  undo() { const last = this.past.pop(); if (last) [this.marks, this.made] = last; return Boolean(last); }
  remember() { this.past.push([this.marks.slice(), this.made]); if (this.past.length > DEPTH) this.past.shift(); }
}

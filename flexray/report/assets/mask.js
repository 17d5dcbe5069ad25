"use strict";
const { segments, rows } = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const canvas = byId("mask");
const L = rows.length;
const MAX_SIDE = 8192; // pixels that browsers give a canvas
const segmentOf = new Array(L);
for (const segment of segments) segmentOf.fill(segment, segment.start, segment.stop);
let zoom = 1;
let at = null; // the cell that is asked for: [query, key]

function sees(query, key) {
  const spans = rows[query];
  for (let i = 0; i < spans.length; i += 2) if (spans[i] <= key && key < spans[i + 1]) return true;
  return false;
}

function why(query, key) {
  const q = segmentOf[query], k = segmentOf[key];
  if (!sees(query, key)) {
    if (key > query) return "the key comes later in the stream";
    return q === k ? "hidden within one segment" : `isolated: ${q.name} does not see ${k.name}`;
  }
  if (q === k) return "one segment, and the key is not later";
  if (k.kind === "context" && q.kind === "context") return "both of the context, and not isolated";
  if (k.kind === "context") return "all see the shared context";
  if (q.kind === "answer") return "the answer looks at it";
  if (k.kind === "copy") return "its own copy of the context";
  return "joined manual templates: each sees those before it";
}

// Cells keep at least one pixel: drawn small, a single visible pair does not vanish.
function draw() {
  const fitting = byId("scroll").clientWidth;
  const ratio = window.devicePixelRatio || 1;
  const shown = Math.min(Math.max(fitting * zoom, 50), MAX_SIDE / ratio);
  const side = Math.round(shown * ratio);
  const unit = side / L;
  const from = (i) => Math.min(side - 1, Math.floor(i * unit));
  const size = (a, b) => Math.max(1, Math.floor(b * unit) - from(a));
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
  canvas.width = canvas.height = side;
  canvas.style.width = canvas.style.height = byId("plane").style.width = `${shown}px`;
  const pen = canvas.getContext("2d");
  pen.fillStyle = colour("--later");
  pen.fillRect(0, 0, side, side);
  pen.fillStyle = colour("--hidden");
  for (let q = 0; q < L; q++) pen.fillRect(0, from(q), from(q) + size(q, q + 1), size(q, q + 1));
  for (let q = 0; q < L; q++) {
    const spans = rows[q];
    for (let i = 0; i < spans.length; i += 2) {
      for (let k = spans[i]; k < spans[i + 1]; ) {
        const segment = segmentOf[k];
        const stop = Math.min(spans[i + 1], segment.stop);
        pen.fillStyle = segment.colour;
        pen.fillRect(from(k), from(q), size(k, stop), size(q, q + 1));
        k = stop;
      }
    }
  }
  const rule = (i) => {
    pen.fillRect(from(i), 0, 1, side);
    pen.fillRect(0, from(i), side, 1);
  };
  if (unit >= 8) {
    pen.fillStyle = colour("--page");
    for (let i = 1; i < L; i++) rule(i);
  }
  pen.fillStyle = colour("--ink");
  pen.globalAlpha = segments.length <= 16 ? 0.55 : 0.25;
  // borders of segments so short that the lines would cover the mask are left out
  const wide = (segment) => segment && (segment.stop - segment.start) * unit >= 6 * ratio;
  segments.forEach((segment, i) => i && (wide(segment) || wide(segments[i - 1])) && rule(segment.start));
  byId("scale").textContent = zoom === 1 ? "" : `${zoom}×`;
  drawNames(shown / L);
  show();
}

function drawNames(unit) {
  byId("names").replaceChildren(
    ...segments
      .filter((s) => s.name.length * 7.5 < (s.stop - s.start) * unit)
      .map((s) => {
        const name = document.createElement("span");
        name.textContent = s.name;
        name.style.left = `${((s.start + s.stop) / 2) * unit}px`;
        return name;
      }),
  );
}

function tell(name, index) {
  const segment = segmentOf[index];
  const place = index - segment.start;
  byId(name).textContent = `“${segment.tokens[place]}”`;
  byId(`${name}-place`).textContent =
    `${segment.name}, token ${place + 1} of ${segment.stop - segment.start}; ` +
    `${index} in the stream, position ${segment.positions[place]}`;
}

function show() {
  byId("row").hidden = byId("column").hidden = at === null;
  if (at === null) return;
  const [query, key] = at;
  const unit = canvas.clientWidth / L;
  byId("row").style.top = `${query * unit}px`;
  byId("column").style.left = `${key * unit}px`;
  byId("row").style.height = byId("column").style.width = `${Math.max(2, unit)}px`;
  tell("query", query);
  tell("key", key);
  const seen = sees(query, key);
  byId("verdict").textContent = seen ? "visible" : "hidden";
  byId("verdict").className = seen ? "good" : "bad";
  byId("reason").textContent = why(query, key);
}

function ask(query, key) {
  const within = (i) => Math.max(0, Math.min(L - 1, i));
  at = [within(query), within(key)];
  show();
}

function point(event) {
  const box = canvas.getBoundingClientRect();
  const cell = (place) => Math.floor((place / box.width) * L);
  ask(cell(event.clientY - box.top), cell(event.clientX - box.left));
}
canvas.addEventListener("pointermove", point);
canvas.addEventListener("pointerdown", point);
canvas.addEventListener("keydown", (event) => {
  const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!move) return;
  event.preventDefault();
  const [query, key] = at ?? [0, 0];
  ask(query + move[0], key + move[1]);
});
const zoomTo = (wanted) => {
  zoom = Math.max(1, Math.min(16, wanted));
  draw();
  const view = byId("scroll"); // the cell that is asked for stays in view
  const middle = (cell, size) => ((cell + 0.5) / L) * canvas.clientWidth - size / 2;
  view.scrollTo(middle(at[1], view.clientWidth), middle(at[0], view.clientHeight));
};
byId("in").addEventListener("click", () => zoomTo(zoom * 2));
byId("out").addEventListener("click", () => zoomTo(zoom / 2));
byId("fit").addEventListener("click", () => zoomTo(1));
window.addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
draw();
ask(L - 1, 0);

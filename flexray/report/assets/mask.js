const { segments, rows } = await load();
const canvas = byId("mask"), L = rows.length;
const segmentOf = segments.flatMap((segment) => segment.tokens.map(() => segment));
let zoom = 1;
let at = [L - 1, 0]; // the cell that is asked for: [query, key]

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

const picture = new OffscreenCanvas(L, L); // a pixel for each pair

function paint() {
  const pen = picture.getContext("2d");
  const isolated = getComputedStyle(byId("plane")).borderTopColor;
  for (let query = 0; query < L; query++) {
    pen.fillStyle = isolated;
    pen.fillRect(0, query, query + 1, 1);
    for (let i = 0; i < rows[query].length; i += 2) {
      for (let key = rows[query][i]; key < rows[query][i + 1]; ) {
        const stop = Math.min(rows[query][i + 1], segmentOf[key].stop);
        pen.fillStyle = segmentOf[key].colour;
        pen.fillRect(key, query, stop - key, 1);
        key = stop;
      }
    }
  }
  draw();
}

/** A cell is `size` pixels, a whole number: drawn small, a single visible pair does not vanish. */
function draw() {
  const size = Math.max(1, Math.floor((byId("plane").clientWidth / L) * zoom));
  const pen = canvas.getContext("2d");
  canvas.width = canvas.height = L;
  canvas.style.width = canvas.style.height = `${L * size}px`;
  pen.drawImage(picture, 0, 0);
  pen.fillStyle = "rgba(127, 127, 127, 0.4)";
  pen.fillRect(0, at[0], L, 1);
  pen.fillRect(at[1], 0, 1, L);
}

function tell(name, index) {
  const segment = segmentOf[index], place = index - segment.start;
  const where = `${segment.name}, token ${place + 1} of ${segment.tokens.length}; ${index} in the stream, position ${segment.positions[place]}`;
  byId(name).replaceChildren(make("span", { className: "token" }, `“${segment.tokens[place]}”`), make("br"), where);
}

function ask(query, key) {
  const within = (i) => Math.max(0, Math.min(L - 1, i));
  at = [within(query), within(key)];
  tell("query", at[0]);
  tell("key", at[1]);
  const seen = sees(...at);
  byId("verdict").textContent = seen ? "visible" : "hidden";
  byId("verdict").className = seen ? "good" : "bad";
  byId("reason").textContent = why(...at);
  draw();
}

function point(event) {
  const box = canvas.getBoundingClientRect();
  ask(...[event.clientY - box.top, event.clientX - box.left].map((place) => Math.floor((place / box.width) * L)));
}

canvas.addEventListener("pointermove", point);
canvas.addEventListener("pointerdown", point);
canvas.addEventListener("keydown", (event) => {
  const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!move) return;
  event.preventDefault();
  ask(at[0] + move[0], at[1] + move[1]);
});
for (const [id, factor] of [["in", 2], ["out", 0.5]]) {
  byId(id).addEventListener("click", () => {
    zoom = Math.max(1, Math.min(16, zoom * factor));
    draw();
    // the cell that is asked for stays in view
    const middle = (cell, size) => ((cell + 0.5) / L) * canvas.clientWidth - size / 2;
    byId("plane").scrollTo(middle(at[1], byId("plane").clientWidth), middle(at[0], byId("plane").clientHeight));
  });
}
window.addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
paint();
ask(...at);

// For each answer a table of its attention: a row a step, a column a segment, the mean of the layers or one layer.
const { segment_names, colours, answers } = await load();

function shares(sequence, step, layer) {
  const layers = sequence.shares[step];
  return layer ? layers[layer - 1] : layers[0].map((_, i) => layers.reduce((sum, of) => sum + of[i], 0) / layers.length);
}

/** A segment's cell is the fuller of its colour the more it gets. */
function attention(answer, sequence, layer) {
  const head = make("tr", {}, make("th", {}, "step"), ...sequence.segments.map((i) => make("th", {}, segment_names[i])));
  const rows = answer.steps.map((text, step) => {
    const cells = shares(sequence, step, layer).map((share, i) => {
      const cell = make("td", { className: "number" }, (100 * share).toFixed(1));
      const fullness = Math.round(80 * Math.sqrt(share));
      cell.style.background = `color-mix(in srgb, ${colours[sequence.segments[i]]} ${fullness}%, transparent)`;
      return cell;
    });
    return make("tr", {}, make("th", {}, `${step + 1} “${text}”`), ...cells);
  });
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
}

function chooser(labels, change) {
  return make("select", { onchange: change }, ...labels.map((label) => make("option", {}, label)));
}

for (const place of document.querySelectorAll("[data-answer]")) {
  const answer = answers[Number(place.dataset.answer)];
  if (!answer.steps.length) continue;
  const shown = make("div", { className: "scroll" });
  const show = () => shown.replaceChildren(attention(answer, answer.sequences[of.selectedIndex], layer.selectedIndex));
  const of = chooser(answer.sequences.map((sequence) => sequence.label), show);
  of.hidden = answer.sequences.length === 1;
  const layers = answer.sequences[0].shares[0].map((_, i) => `layer ${i + 1}`);
  const layer = chooser(["all layers", ...layers], show);
  place.append(make("p", { className: "controls" }, "Attention, %, mean of heads", layer, of), shown);
  show();
}

"use strict";
const { segment_names, colours, answers } = JSON.parse(document.getElementById("data").textContent);

function element(name, text) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
}

function chooser(labels, change) {
  const select = element("select");
  labels.forEach((label) => select.append(element("option", label)));
  select.addEventListener("change", change);
  return select;
}

// A row for each layer, the first layer first; a segment's cell is the fuller of its colour the more it gets.
function layerTable(sequence, step) {
  const table = element("table");
  const head = element("tr");
  head.append(element("th", "layer"), ...sequence.segments.map((i) => element("th", segment_names[i])));
  table.append(head);
  sequence.shares[step].forEach((shares, layer) => {
    const row = element("tr");
    row.append(element("th", String(layer + 1)));
    shares.forEach((share, i) => {
      const cell = element("td", (100 * share).toFixed(1));
      const fullness = Math.round(80 * Math.sqrt(share));
      cell.style.background = `color-mix(in srgb, ${colours[sequence.segments[i]]} ${fullness}%, transparent)`;
      row.append(cell);
    });
    table.append(row);
  });
  return table;
}

for (const details of document.querySelectorAll(".layers")) {
  const answer = answers[Number(details.dataset.answer)];
  const place = element("div");
  place.className = "wide";
  const show = () => place.replaceChildren(layerTable(answer.sequences[sequence.selectedIndex], step.selectedIndex));
  const step = chooser(answer.steps.map((text, i) => `step ${i + 1}: “${text}”`), show);
  const sequence = chooser(answer.sequences.map((one) => one.label), show);
  sequence.hidden = answer.sequences.length === 1;
  const tools = element("p");
  tools.className = "tools";
  tools.append(step, sequence, element("span", "% of the query's attention, mean of heads"));
  details.append(tools, place);
  details.addEventListener("toggle", show, { once: true });
}

// The table of answers: all questions are in memory, the rows of one page of them in the document.

/** The page's data: JSON, packed by gzip, in base64. */
async function load() {
  const binary = atob(document.getElementById("data").textContent);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

/** An element; texts among its children stay texts. */
function make(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const byId = (id) => document.getElementById(id);

const PAGE = 20;
const { methods, questions } = await load();
const count = (number) => number.toLocaleString("en");

const TESTS = {
  wrong: (answer) => answer.right === false,
  fallback: (answer) => answer.fallback_reason !== "",
  error: (answer) => answer.error !== "",
};
const sourceOf = (question) => `${question.source_file}, row ${question.source_row}`;
const texts = questions.map((question) =>
  [
    ...[question.row_id, question.question, ...question.paraphrases, ...(question.answers ?? []), sourceOf(question)],
    ...question.said.flatMap((said) => [said.prediction, said.backend_used, said.fallback_reason, said.error, said.shard_id]),
  ].join("\n").toLowerCase(),
);
const filters = [...document.querySelectorAll("[type=checkbox]")];
let only = "", pair = null, page = 0, found = questions;

/** Whether two answers, or any two of some, say different things. An error says nothing. */
function differ(answers) {
  return new Set(answers.filter((answer) => answer && !answer.error).map((answer) => answer.normalized)).size > 1;
}

function passes(question, filter) {
  if (filter === "differ") return differ(question.said);
  return question.said.some((answer) => (only === "" || answer.method === only) && TESTS[filter](answer));
}

const answerOf = (question, method) => question.said.find((answer) => answer.method === method);

function filter() {
  const query = byId("search").value.trim().toLowerCase();
  const chosen = filters.filter((box) => box.checked);
  found = questions.filter(
    (question, i) =>
      (!query || texts[i].includes(query)) &&
      chosen.every((box) => passes(question, box.value)) &&
      (!pair || differ(pair.map((method) => answerOf(question, method)))),
  );
  show(0);
}

function show(number) {
  page = number;
  const end = Math.min((page + 1) * PAGE, found.length);
  document.querySelector(".answers tbody").replaceChildren(...found.slice(page * PAGE, end).map(row));
  const range = found.length ? `${count(page * PAGE + 1)}–${count(end)} of ` : "";
  byId("status").textContent = `${range}${count(found.length)} found, of ${count(questions.length)} questions`;
  byId("back").disabled = page === 0;
  byId("next").disabled = end === found.length;
}

function row(question) {
  const { paraphrases, answers: gold } = question;
  const more = make("details", {}, make("summary", {}, `${paraphrases.length} paraphrases, source, backends`));
  more.append(make("ol", {}, ...paraphrases.map((text) => make("li", { dir: "auto" }, text))));
  more.append(make("p", {}, sourceOf(question)));
  for (const answer of question.said) {
    more.append(make("p", {}, `${answer.method}: ${answer.backend_used || "no backend"}, ${answer.shard_id}`));
  }
  return make("tr", {},
    make("td", {},
      make("span", { className: "id" }, question.row_id),
      make("p", { className: "question", dir: "auto" }, question.question),
      make("p", { className: "gold", dir: "auto" }, gold === null ? "no accepted answers" : `accepted: ${gold.join(" | ")}`),
      more,
    ),
    make("td", {}, make("ul", {}, ...question.said.map(said))),
  );
}

function said(answer) {
  const kind = answer.error ? "error" : answer.right === null ? "unscored" : answer.right ? "right" : "wrong";
  const item = make("li", { className: kind }, make("b", {}, kind));
  item.append(make("span", { dir: "auto" }, answer.error || answer.prediction || "(empty)"));
  item.append(make("small", {}, answer.method));
  if (answer.fallback_reason) item.append(make("small", { className: "warn" }, `fallback: ${answer.fallback_reason}`));
  return item;
}

function countFilters() {
  for (const box of filters) {
    const number = questions.filter((question) => passes(question, box.value)).length;
    box.parentElement.querySelector("span").textContent = count(number);
  }
}

function choosePair(chosen) {
  pair = chosen;
  byId("pair").hidden = pair === null;
  byId("pair").textContent = pair ? `${pair.join(" ≠ ")} ✕` : "";
  filter();
}

for (const input of [byId("search"), ...filters]) input.addEventListener("input", filter);
byId("method").append(...methods.map((name) => make("option", { value: name }, name)));
byId("method").addEventListener("change", (event) => {
  only = event.target.value;
  countFilters();
  filter();
});
for (const button of document.querySelectorAll("[data-pair]")) {
  button.addEventListener("click", () => {
    choosePair(button.dataset.pair.split(" ").map((place) => methods[place]));
    byId("answers").scrollIntoView();
  });
}
byId("pair").addEventListener("click", () => choosePair(null));
for (const [id, step] of [["back", -1], ["next", 1]]) {
  byId(id).addEventListener("click", () => {
    show(page + step);
    byId("answers").scrollIntoView();
  });
}
countFilters();
filter();

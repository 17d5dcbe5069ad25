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

/** Answers as they are packed: see AnswerTable.tree. */
const METHOD = 0, GROUP = 1, RIGHT = 2, PREDICTION = 3, BACKEND = 4, FALLBACK = 5, ERROR = 6, SHARD = 7;
const TESTS = {
  wrong: (answer) => answer[RIGHT] === 0,
  fallback: (answer) => answer[FALLBACK] !== "",
  error: (answer) => answer[ERROR] !== "",
};
const texts = questions.map(([id, question, paraphrases, gold, source, answers]) =>
  [id, question, paraphrases, gold ?? [], source, answers.map((answer) => answer.slice(PREDICTION))].flat(2).join("\n").toLowerCase(),
);
const pressed = new Set();
let query = "", only = null, pair = null, page = 0, found = questions;

/** Whether two answers, or any two of some, say different things. An error says nothing. */
function differ(answers) {
  const said = answers.filter((answer) => answer && answer[GROUP] >= 0);
  return said.some((answer) => answer[GROUP] !== said[0][GROUP]);
}

function passes(question, filter) {
  if (filter === "differ") return differ(question[5]);
  return question[5].some((answer) => (only === null || answer[METHOD] === only) && TESTS[filter](answer));
}

const answerOf = (question, method) => question[5].find((answer) => answer[METHOD] === method);

function filter() {
  found = questions.filter(
    (question, i) =>
      (!query || texts[i].includes(query)) &&
      [...pressed].every((name) => passes(question, name)) &&
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

function row([id, question, paraphrases, gold, source, answers]) {
  const more = make("details", {}, make("summary", {}, `${paraphrases.length} paraphrases, source, backends`));
  more.append(make("ol", {}, ...paraphrases.map((text) => make("li", { dir: "auto" }, text))), make("p", {}, source));
  for (const answer of answers) {
    more.append(make("p", {}, `${methods[answer[METHOD]]}: ${answer[BACKEND] || "no backend"}, ${answer[SHARD]}`));
  }
  return make("tr", {},
    make("td", {},
      make("span", { className: "id" }, id),
      make("p", { className: "question", dir: "auto" }, question),
      make("p", { className: "gold", dir: "auto" }, gold === null ? "no accepted answers" : `accepted: ${gold.join(" | ")}`),
      more,
    ),
    make("td", {}, make("ul", {}, ...answers.map(said))),
  );
}

function said(answer) {
  const kind = answer[ERROR] ? "error" : { 1: "right", 0: "wrong" }[answer[RIGHT]] ?? "unscored";
  const item = make("li", { className: kind }, make("b", {}, kind));
  item.append(make("span", { dir: "auto" }, answer[ERROR] || answer[PREDICTION] || "(empty)"));
  item.append(make("small", {}, methods[answer[METHOD]]));
  if (answer[FALLBACK]) item.append(make("small", { className: "warn" }, `fallback: ${answer[FALLBACK]}`));
  return item;
}

function countFilters() {
  for (const button of document.querySelectorAll("[data-filter]")) {
    const name = button.dataset.filter;
    const number = questions.filter((question) => passes(question, name)).length;
    button.querySelector("span").textContent = count(number);
    button.disabled = number === 0 && !pressed.has(name);
  }
}

function choosePair(chosen) {
  pair = chosen;
  byId("pair").hidden = pair === null;
  byId("pair").textContent = pair ? `${pair.map((method) => methods[method]).join(" ≠ ")} ✕` : "";
  filter();
}

byId("search").addEventListener("input", (event) => {
  query = event.target.value.trim().toLowerCase();
  filter();
});
byId("method").append(...methods.map((name, i) => make("option", { value: i }, name)));
byId("method").addEventListener("change", (event) => {
  only = event.target.value === "" ? null : Number(event.target.value);
  countFilters();
  filter();
});
for (const button of document.querySelectorAll("[data-filter]")) {
  button.addEventListener("click", () => {
    const on = !pressed.delete(button.dataset.filter);
    if (on) pressed.add(button.dataset.filter);
    button.setAttribute("aria-pressed", on);
    filter();
  });
}
for (const button of document.querySelectorAll("[data-pair]")) {
  button.addEventListener("click", () => {
    choosePair(button.dataset.pair.split(" ").map(Number));
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

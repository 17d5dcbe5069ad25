"use strict";

// Tables that sort, search and page. Without this script every row is simply there.
function control(table) {
  const body = table.tBodies[0];
  const size = Number(table.dataset.page);
  const texts = new Map([...body.rows].map((row) => [row, row.textContent.toLowerCase()]));
  let rows = [...body.rows];
  let query = "";
  let page = 0;

  const status = make("output");
  const back = make("button", { type: "button", textContent: "‹ Back", onclick: () => turn(-1) });
  const on = make("button", { type: "button", textContent: "Next ›", onclick: () => turn(1) });
  const bar = make("div", { className: "controls" });
  if (table.dataset.search) {
    const box = make("input", { type: "search", placeholder: table.dataset.search });
    box.setAttribute("aria-label", table.dataset.search);
    box.oninput = () => {
      query = box.value.trim().toLowerCase();
      turn(-page);
    };
    bar.append(box);
  }
  bar.append(status, back, on);
  table.parentElement.before(bar);

  function turn(pages) {
    const found = rows.filter((row) => texts.get(row).includes(query));
    page += pages;
    const first = page * size;
    const last = Math.min(first + size, found.length);
    body.replaceChildren(...found.slice(first, last));
    const turns = found.length > size;
    const range = turns ? `${count(first + 1)}–${count(last)} of ${count(found.length)}` : count(found.length);
    status.textContent = query ? `${range} found, of ${count(rows.length)}` : turns ? range : "";
    back.disabled = page === 0;
    on.disabled = last === found.length;
    back.hidden = on.hidden = !turns;
  }

  function sort(head, column) {
    const numbers = head.classList.contains("number");
    const key = (row) => {
      const text = row.cells[column].textContent.trim();
      return numbers ? Number.parseFloat(text.replace(/[,<>]/g, "")) : text;
    };
    const before = head.getAttribute("aria-sort");
    const down = before ? before === "ascending" : numbers; // numbers begin with the largest
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keys = new Map(rows.map((row) => [row, key(row)]));
    rows.sort((one, two) => {
      const [a, b] = [keys.get(one), keys.get(two)];
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // those come last
      return (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1);
    });
    turn(-page);
  }

  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = make("button", { type: "button", textContent: head.textContent.trim() });
    button.onclick = () => sort(head, column);
    head.replaceChildren(button);
  });
  turn(0);
}

function count(number) {
  return number.toLocaleString("en");
}

function make(name, properties) {
  return Object.assign(document.createElement(name), properties);
}

document.querySelectorAll("table[data-page]").forEach(control);

const root = document.documentElement;
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const toggle = make("button", { type: "button", className: "toggle" });
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);
const label = () => (toggle.textContent = isDark() ? "Light" : "Dark");
toggle.onclick = () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  label();
};
prefersDark.onchange = label;
label();
document.querySelector("nav").append(toggle);

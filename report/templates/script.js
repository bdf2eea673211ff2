// Tables that can be sorted and filtered, examples one by one, the data of figures at one click: whatever of these a page
// has. Without it all of the page is there, one thing below the other.
"use strict";

const MANY_ROWS = 8; // from which on a table can be filtered
const NUMBER = /^[^\d∞-]*(-?(?:[\d,]*\.)?\d[\d,]*(?:e[+-]?\d+)?|-?∞)/i;

function numberIn(text) {
  const found = NUMBER.exec(text.replaceAll("−", "-"));
  return found ? Number(found[1].replaceAll(",", "").replace("∞", "Infinity")) : NaN;
}

function sorter(column, numeric, descending) {
  const sign = descending ? -1 : 1;
  const text = (row) => row.cells[column]?.textContent.trim() ?? "";
  return (one, other) => {
    const [a, b] = [text(one), text(other)];
    if (!numeric) return sign * a.localeCompare(b, "en", { numeric: true });
    const [x, y] = [numberIn(a), numberIn(b)];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // what is not a number comes last
    return x === y ? 0 : sign * (x - y);
  };
}

function button(content, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.append(...content);
  made.addEventListener("click", action);
  return made;
}

function makeSortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const headers = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  headers.forEach((header, column) => {
    if (!header.textContent.trim()) return;
    const numeric = !original.some((row) => row.cells[column]?.matches("th, .text"));
    const sort = button(header.childNodes, () => {
      // Numbers begin with the largest, words with A; the third click restores the order of the report.
      const turns = numeric ? ["descending", "ascending", null] : ["ascending", "descending", null];
      const next = turns[(turns.indexOf(header.getAttribute("aria-sort")) + 1) % 3];
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      if (next) header.setAttribute("aria-sort", next);
      body.append(...(next ? [...original].sort(sorter(column, numeric, next === "descending")) : original));
    });
    sort.className = "sort";
    header.append(sort);
  });
}

function makeFilterable(table) {
  const rows = [...table.tBodies[0].rows];
  const label = document.createElement("label");
  const field = document.createElement("input");
  const count = document.createElement("output");
  label.className = "filter";
  field.type = "search";
  field.placeholder = "words, as in: llama tr";
  label.append("Filter rows ", field, " ", count);
  field.addEventListener("input", () => {
    const words = field.value.toLocaleLowerCase("en").split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = [...row.cells].map((cell) => cell.textContent).join(" ").toLocaleLowerCase("en");
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    count.value = words.length ? `${shown} of ${rows.length}` : "";
  });
  table.closest(".table").before(label);
}

function makeBrowsable(group) {
  const examples = [...group.querySelectorAll(":scope > .example")];
  if (examples.length < 2) return;
  const choice = document.createElement("select");
  const label = document.createElement("label");
  const bar = document.createElement("div");
  for (const example of examples) {
    const text = example.querySelector(".prompt").textContent.trim().replaceAll(/\s+/g, " ");
    choice.add(new Option(text.length > 90 ? `${text.slice(0, 89)}…` : text));
  }
  const show = (number) => {
    choice.selectedIndex = (number + examples.length) % examples.length;
    examples.forEach((example, place) => (example.hidden = place !== choice.selectedIndex));
  };
  choice.addEventListener("change", () => show(choice.selectedIndex));
  label.append("Prompt ", choice);
  bar.className = "browse";
  bar.append(label, button(["Previous"], () => show(choice.selectedIndex - 1)), button(["Next"], () => show(choice.selectedIndex + 1)));
  group.prepend(bar);
  show(0);
}

for (const group of document.querySelectorAll(".examples")) makeBrowsable(group);

for (const table of document.querySelectorAll(".table > table")) {
  if (!table.tHead || !table.tBodies.length) continue;
  const rows = table.tBodies[0].rows.length;
  if (rows > 1) makeSortable(table);
  if (rows >= MANY_ROWS) makeFilterable(table);
}

for (const link of document.querySelectorAll("a[data-table]")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById(`data-${link.dataset.table}`).click();
  });
}

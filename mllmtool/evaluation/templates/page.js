"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.tHead.querySelectorAll("th").forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending";
      table.tHead.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
      const order = (a, b) => {
        const [x, y] = [value(a), value(b)];
        const numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
        return numbers ? Number(x) - Number(y) : x.localeCompare(y);
      };
      body.append(...[...body.rows].sort((a, b) => (up ? order(a, b) : order(b, a))));
    });
  });
}
const filters = [...document.querySelectorAll(".filters select")];
const count = document.querySelector(".filters output");
function filter() {
  let shown = 0;
  for (const card of document.querySelectorAll(".lost article")) {
    card.hidden = filters.some((f) => f.value !== "" && card.dataset[f.name] !== f.value);
    shown += card.hidden ? 0 : 1;
  }
  count.textContent = `${shown} shown`;
}
filters.forEach((f) => f.addEventListener("change", filter));
if (filters.length) filter();

"use strict";
const filters = document.querySelectorAll(".filters");

function sortable(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
  const compare = (x, y) => {
    if (x === "" || y === "") return (x === "") - (y === ""); // what is missing goes last
    const numbers = !isNaN(x) && !isNaN(y);
    return numbers ? x - y : x.localeCompare(y, undefined, { numeric: true });
  };
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const number = body.rows[0]?.cells[column].dataset.v !== undefined;
      const was = head.getAttribute("aria-sort");
      const up = was ? was === "descending" : !number; // numbers begin with the largest
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const order = (a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        return up || x === "" || y === "" ? compare(x, y) : compare(y, x);
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}

/** Shows the elements under `data-of` that match every choice; where they have parts, those. */
function filter(bar) {
  const chosen = [...bar.querySelectorAll("select")].filter((one) => one.value !== "");
  const text = (bar.querySelector("input")?.value ?? "").trim().toLowerCase();
  const parts = bar.dataset.parts;
  let shown = 0;
  for (const whole of document.getElementById(bar.dataset.of).children) {
    const fits = (one) => chosen.every(({ name, value }) => (one.dataset[name] ?? whole.dataset[name]) === value);
    const says = text === "" || whole.textContent.toLowerCase().includes(text);
    const pieces = parts ? [...whole.querySelectorAll(parts)] : [whole];
    let left = 0;
    for (const piece of pieces) {
      const there = says && fits(piece);
      left += there;
      piece.hidden = !there;
    }
    whole.hidden = left === 0;
    shown += left;
  }
  bar.querySelector("output").textContent = `${shown} shown`;
}

document.querySelectorAll("table.sortable").forEach(sortable);
for (const bar of filters) {
  bar.addEventListener("input", () => filter(bar));
  filter(bar);
}

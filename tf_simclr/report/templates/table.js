"use strict";
// Makes the heads of a table buttons that sort its rows: numbers from the largest at first, text from A, and what is
// missing always last. A second click turns the order around.

function compare(a, b, isText) {
  return isText ? a.localeCompare(b, undefined, { numeric: true }) : Number(a) - Number(b);
}

function sort(table, column) {
  const head = table.tHead.rows[0].cells[column];
  const body = table.tBodies[0];
  const value = (row) => row.cells[column].dataset.value;
  const rows = [...body.rows];
  const known = rows.filter((row) => value(row) !== "");
  const isText = known.some((row) => Number.isNaN(Number(value(row))));
  const before = head.getAttribute("aria-sort");
  const isAscending = before === null ? isText : before === "descending";
  known.sort((a, b) => (isAscending ? 1 : -1) * compare(value(a), value(b), isText));
  body.append(...known, ...rows.filter((row) => value(row) === ""));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(table, column));
    head.replaceChildren(button);
  });
}

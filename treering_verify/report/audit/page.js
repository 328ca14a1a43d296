"use strict";
// Tables that sort by a click on a column's head; filters and pages for those that ask for them. Without this script
// every row is simply shown.
for (const table of document.querySelectorAll("table.sorts")) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    const text = "v" in cell.dataset ? cell.dataset.v : cell.textContent.trim();
    const number = text === "" ? NaN : Number(text.replaceAll(",", ""));
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === ""); // nothing goes last, whichever way
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a < b ? -1 : a > b ? 1 : 0;
  };
  const panel = document.getElementById(table.dataset.panel || "");
  const size = Number(table.dataset.page) || Math.max(1, rows.length);
  let order = rows, first = 0;

  const show = () => {
    const text = panel ? panel.querySelector("input").value.toLowerCase() : "";
    const label = panel ? panel.querySelector("select").value : "";
    const found = order.filter(row =>
      (!label || row.dataset.label === label) && (!text || row.textContent.toLowerCase().includes(text)));
    first = Math.min(first, Math.max(0, Math.floor((found.length - 1) / size) * size));
    body.replaceChildren(...found.slice(first, first + size));
    if (!panel) return;
    const last = Math.min(first + size, found.length);
    panel.querySelector("output").textContent = found.length ? `${first + 1} to ${last} of ${found.length}` : "nothing";
    const [back, on] = panel.querySelectorAll("button");
    back.disabled = first === 0;
    on.disabled = last >= found.length;
  };

  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = rows.map(row => [keyOf(row, column), row]);
      keyed.sort(([a], [b]) => a === "" || b === "" ? compare(a, b) : down ? compare(b, a) : compare(a, b));
      order = keyed.map(([, row]) => row);
      first = 0;
      show();
    });
  });
  if (panel) {
    panel.hidden = false;
    for (const control of panel.querySelectorAll("input, select")) {
      control.addEventListener("input", () => { first = 0; show(); });
    }
    const [back, on] = panel.querySelectorAll("button");
    back.addEventListener("click", () => { first -= size; show(); });
    on.addEventListener("click", () => { first += size; show(); });
    for (const card of document.querySelectorAll("a.card")) {
      card.addEventListener("click", () => {
        panel.querySelector("select").value = card.dataset.label;
        first = 0;
        show();
      });
    }
    show();
  }
}

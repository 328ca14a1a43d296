"use strict";
// Tables sort by a click on a column's head, and folded ones open for print. Without this script every row is simply shown.
const numberOf = text => {
  const found = text.match(/= (-?[\d.]+) %/) || text.match(/^[^\d-]{0,3}(-?[\d.]+(?:e[-+]?\d+)?)/);
  if (!found) return null;
  const [digits, power] = found[1].split("e");
  if (!Number(digits)) return 0;
  // Signs first, then magnitudes, so that p-values that no float can hold have an order too.
  return Math.sign(digits) * (1e6 + Math.log10(Math.abs(digits)) + Number(power || 0));
};
const compare = (a, b) => {
  if (a.text === "" || b.text === "") return (a.text === "") - (b.text === "");
  if (a.number !== null && b.number !== null) return a.number - b.number;
  if (a.number !== null || b.number !== null) return a.number !== null ? -1 : 1;
  return a.text < b.text ? -1 : a.text > b.text ? 1 : 0;
};
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], rows = Array.from(body.rows), heads = Array.from(table.tHead.rows[0].cells);
  if (rows.length < 3) continue;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = rows.map(row => {
        const text = row.cells[column].textContent.trim();
        return { row, text, number: numberOf(text) };
      });
      keyed.sort((a, b) => a.text === "" || b.text === "" ? compare(a, b) : down ? compare(b, a) : compare(a, b));
      body.replaceChildren(...keyed.map(key => key.row));
    });
  });
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(each => { each.open = true; }));

// Filters and sorting of tables with the class `filterable`. Without JavaScript the table is complete.
"use strict";

const NUMBERS = { year: "from", step: "at most", time: "at most", parameters: "at most" };

/** Adds a labeled control and returns it. */
function addControl(box, text, control, update) {
  const label = document.createElement("label");
  label.append(text, control);
  control.addEventListener("input", update);
  box.append(label);
  return control;
}

/** Input field of a type. */
function field(type) {
  const input = document.createElement("input");
  input.type = type;
  if (type === "number") input.step = "any";
  return input;
}

/** Drop-down list of the values of a column. */
function choices(values) {
  const select = document.createElement("select");
  select.append(new Option("all", ""));
  for (const value of [...new Set(values)]) select.append(new Option(value, value));
  return select;
}

/** Makes a header a button that sorts by its column. */
function makeSortable(table, header, index, isNumber) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = header.textContent.trim();
  header.replaceChildren(button);
  button.addEventListener("click", () => {
    const order = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => row.cells[index].textContent.trim();
    const compare = (a, b) =>
      isNumber ? (parseFloat(key(a)) || 0) - (parseFloat(key(b)) || 0) : key(a).localeCompare(key(b));
    const rows = [...table.tBodies[0].rows].sort((a, b) => sign * compare(a, b));
    table.tBodies[0].append(...rows);
  });
}

/** Adds controls above a table. */
function makeFilterable(table) {
  const rows = [...table.tBodies[0].rows];
  const headers = [...table.tHead.rows[0].cells];
  const names = headers.map((header) => header.textContent.trim());
  const text = (row, index) => row.cells[index].textContent.trim();
  const box = document.createElement("div");
  box.className = "filters";
  const count = document.createElement("output");
  const tests = [];
  const update = () => {
    for (const row of rows) row.hidden = !tests.every((test) => test(row));
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} methods`;
  };

  const search = addControl(box, "text", field("search"), update);
  tests.push((row) => row.textContent.toLowerCase().includes(search.value.toLowerCase()));
  names.forEach((name, index) => {
    if (name in NUMBERS) {
      const input = addControl(box, `${name}, ${NUMBERS[name]}`, field("number"), update);
      const sign = NUMBERS[name] === "from" ? 1 : -1;
      tests.push((row) => {
        const value = parseFloat(text(row, index));
        return input.value === "" || sign * (value - parseFloat(input.value)) >= 0;
      });
    } else if (name === "reads" || name === "family") {
      const select = addControl(box, name, choices(rows.map((row) => text(row, index))), update);
      tests.push((row) => select.value === "" || text(row, index) === select.value);
    }
    makeSortable(table, headers[index], index, name in NUMBERS);
  });
  box.append(count);
  const place = table.closest(".table-wrapper") ?? table;
  place.before(box);
  update();
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("table.filterable").forEach(makeFilterable);
});


"use strict";
(() => {
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const make = (tag, text, ...children) => {
    const element = document.createElement(tag);
    if (text !== null) element.textContent = text;
    element.append(...children);
    return element;
  };
  document.documentElement.classList.add("js");
  const sections = all("section[data-own]");
  const tools = document.getElementById("tools");
  const status = document.getElementById("status");
  tools.addEventListener("submit", (event) => event.preventDefault());

  // Sorting: by the number of the shown epoch. Rows without a value come last in both directions. A third click gives
  // the groups of methods back.

  const words = new Intl.Collator("en", { numeric: true });
  const groups = new Map(all(".scroll tbody").map((body) => [body, [...body.rows]]));
  const value = (row, index, epoch) => {
    const cell = row.cells[index];
    if (cell.dataset.text !== undefined) return cell.dataset.text;
    const shown = cell.dataset.value ?? cell.dataset[epoch];
    return shown === undefined ? null : Number(shown);
  };
  const order = (head) => {
    const body = head.closest("table").tBodies[0];
    const direction = head.getAttribute("aria-sort");
    body.classList.toggle("sorted", direction !== "none");
    if (direction === "none") return body.append(...groups.get(body));
    const epoch = head.closest("section").dataset.epoch;
    const sign = direction === "descending" ? -1 : 1;
    const rows = groups.get(body).filter((row) => !row.matches(".group")).map((row) => [value(row, head.cellIndex, epoch), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (typeof a === "string" ? words.compare(a, b) : a - b);
    });
    body.append(...rows.map(([, row]) => row));
  };
  const sort = (head) => {
    const first = head.dataset.first;
    const next = { none: first, [first]: first === "ascending" ? "descending" : "ascending" };
    const direction = next[head.getAttribute("aria-sort")] ?? "none";
    for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", direction);
    order(head);
    status.textContent = direction === "none" ? "Sorted by group" : `Sorted by ${head.dataset.name}, ${direction}`;
  };

  // Epoch and filter.

  const showEpoch = (epoch) => {
    for (const section of sections) {
      section.dataset.epoch = epoch || section.dataset.own;
      all("[aria-sort=ascending], [aria-sort=descending]", section).forEach(order);
    }
  };
  const filter = (text) => {
    const terms = text.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0, total = 0;
    for (const section of sections) {
      const title = section.querySelector("h2").textContent.toLowerCase();
      let here = 0;
      for (const row of all(".scroll tbody tr", section)) {
        if (row.matches(".group")) {
          row.hidden = terms.length > 0;
          continue;
        }
        const content = `${row.cells[0].textContent.toLowerCase()} ${title}`;
        row.hidden = !terms.every((word) => content.includes(word));
        here += row.hidden ? 0 : 1;
        total += 1;
      }
      section.hidden = here === 0 && terms.length > 0;
      shown += here;
    }
    status.textContent = terms.length ? `${shown} of ${total} rows` : "";
  };
  tools.addEventListener("change", (event) => event.target.name === "epoch" && showEpoch(event.target.value));
  document.getElementById("filter").addEventListener("input", (event) => filter(event.target.value));
  showEpoch(tools.elements.epoch.value); // browsers may restore form values on reload
  filter(document.getElementById("filter").value);

  // The panel of a cell. Texts are inserted as text, never as markup.

  let store = null;
  const details = () => (store ??= JSON.parse(document.getElementById("records").textContent));
  const table = (heads, rows) => {
    const cells = (tag, row) => row.map((cell) => (cell instanceof Node ? make("td", null, cell) : make(tag, cell ?? "–")));
    const element = make("table", null, make("thead", null, make("tr", null, ...heads.map((head) => make("th", head)))));
    element.append(make("tbody", null, ...rows.map((row) => make("tr", null, ...cells("td", row)))));
    element.className = "plain";
    const wide = make("div", null, element);
    wide.className = "wide";
    return wide;
  };
  const rounded = (number) => number === null ? null : Number(number.toPrecision(8));
  const preformatted = (object) => make("pre", JSON.stringify(object, null, 2));
  const grouped = (title, entries) => [
    ...(entries.length ? [make("h4", title)] : []),
    ...entries.flatMap(([part, seeds]) => [
      ...(entries.length > 1 ? [make("p", `Seeds ${seeds.join(", ")}:`)] : []), preformatted(details().parts[part]),
    ]),
  ];
  const panel = document.getElementById("panel");
  let opened = null;
  const close = (focus = true) => {
    if (opened === null) return;
    opened.setAttribute("aria-expanded", "false");
    panel.hidden = true;
    document.body.append(panel);
    if (focus) opened.focus();
    opened = null;
  };
  const open = (button) => {
    if (button === opened) return close();
    close(false);
    const place = details().places[Number(button.dataset.place)];
    const heads = button.closest("table").tHead.rows[0].cells;
    const column = heads[button.closest("td").cellIndex].dataset.name;
    const label = button.closest("tr").cells[0].dataset.text;
    const config = {};
    for (const [name, part] of Object.entries(place.config)) {
      if (name === "") Object.assign(config, details().parts[part]);
      else config[name] = details().parts[part];
    }
    const runs = place.runs;
    const failed = runs.some((run) => run.length > 5);
    const rows = runs.map(([seed, id, key, last, best, error]) => {
      const name = make("code", id);
      name.title = `key ${key}`;
      return [seed, rounded(last), rounded(best), name, ...(failed ? [error] : [])];
    });
    const body = place.lines.map((line) => make("p", line));
    if (runs.length) {
      body.push(make("h4", runs.length === 1 ? "1 run" : `${runs.length} runs`));
      body.push(table(["seed", "last epoch", "best epoch", "run", ...(failed ? ["error"] : [])], rows));
      const differing = Object.entries(place.differs);
      if (differing.length) {
        body.push(make("h4", "Differences between the runs, besides the seed"));
        body.push(table(["seed", ...differing.map(([path]) => path)], runs.map((run, i) => [
          run[0], ...differing.map(([, values]) => make("code", JSON.stringify(values[i]))),
        ])));
      }
      if (Object.keys(config).length) {
        body.push(make("h4", runs.length === 1 ? "Configuration" : "Configuration shared by all runs"), preformatted(config));
      }
      body.push(...grouped("Data", place.data), ...grouped("Environment", place.env));
    }
    document.getElementById("panel-title").textContent = `${label} · ${column}`;
    document.getElementById("panel-body").replaceChildren(...body);
    button.closest(".beside").append(panel);
    panel.hidden = false;
    panel.scrollTop = 0;
    button.setAttribute("aria-expanded", "true");
    opened = button;
    button.scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  document.getElementById("close").addEventListener("click", () => close());
  document.addEventListener("keydown", (event) => event.key === "Escape" && close());

  // Arrow keys: one cell of a table is in the tab order, the others are reached from it.

  const cells = (table) => all(".place", table);
  for (const table of all(".scroll table")) cells(table).forEach((cell, i) => (cell.tabIndex = i ? -1 : 0));
  const step = (button, rows, columns) => {
    const table = button.closest("table");
    const shown = [...table.tBodies[0].rows].filter((row) => !row.hidden && row.querySelector(".place"));
    const place = (row, index) => row?.cells[index]?.querySelector(".place");
    let row = shown.indexOf(button.closest("tr")) + rows, index = button.closest("td").cellIndex + columns;
    while (shown[row]?.cells[index] && !place(shown[row], index)) [row, index] = [row + rows, index + columns];
    return place(shown[row], index);
  };
  const arrows = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  document.querySelector("main").addEventListener("keydown", (event) => {
    const move = arrows[event.key];
    if (!move || !event.target.matches(".place")) return;
    event.preventDefault();
    step(event.target, ...move)?.focus();
  });
  document.querySelector("main").addEventListener("focusin", (event) => {
    if (!event.target.matches(".place")) return;
    cells(event.target.closest("table")).forEach((cell) => (cell.tabIndex = cell === event.target ? 0 : -1));
  });
  document.querySelector("main").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.matches(".sort")) sort(button.closest("th"));
    if (button?.matches(".place")) open(button);
  });
})();

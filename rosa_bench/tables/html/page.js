
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

  // Sorting: by the number of the shown epoch. Rows without a value come last in both directions.

  const words = new Intl.Collator("en", { numeric: true });
  const value = (row, index, epoch) => {
    const cell = row.cells[index];
    if (cell.dataset.text !== undefined) return cell.dataset.text;
    const shown = cell.dataset.value ?? cell.dataset[epoch];
    return shown === undefined ? null : Number(shown);
  };
  const order = (head) => {
    const body = head.closest("table").tBodies[0];
    const epoch = head.closest("section").dataset.epoch;
    const sign = head.getAttribute("aria-sort") === "descending" ? -1 : 1;
    const rows = [...body.rows].map((row) => [value(row, head.cellIndex, epoch), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (typeof a === "string" ? words.compare(a, b) : a - b);
    });
    body.append(...rows.map(([, row]) => row));
  };
  const sort = (head) => {
    const current = head.getAttribute("aria-sort");
    const opposite = { ascending: "descending", descending: "ascending" };
    for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", opposite[current] ?? head.dataset.first);
    order(head);
    status.textContent = `Sorted by ${head.dataset.name}, ${head.getAttribute("aria-sort")}`;
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
      for (const row of section.querySelector("tbody").rows) {
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
    make("h3", title),
    ...entries.flatMap(([part, seeds]) => [
      ...(entries.length > 1 ? [make("p", `Seeds ${seeds.join(", ")}:`)] : []), preformatted(details().parts[part]),
    ]),
  ];
  const open = (button) => {
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
    const rows = runs.map(([seed, id, key, last, best, error]) => [
      seed, rounded(last), rounded(best), make("code", id), make("code", key), ...(failed ? [error] : []),
    ]);
    const body = place.lines.map((line) => make("p", line));
    if (runs.length) {
      body.push(make("h3", runs.length === 1 ? "1 run" : `${runs.length} runs`));
      body.push(table(["seed", "last epoch", "best epoch", "run", "key", ...(failed ? ["error"] : [])], rows));
      const differing = Object.entries(place.differs);
      if (differing.length) {
        body.push(make("h3", "Differences between the runs, besides the seed"));
        body.push(table(["seed", ...differing.map(([path]) => path)], runs.map((run, i) => [
          run[0], ...differing.map(([, values]) => make("code", JSON.stringify(values[i]))),
        ])));
      }
      body.push(make("h3", runs.length === 1 ? "Configuration" : "Configuration shared by all runs"), preformatted(config));
      body.push(...grouped("Data", place.data), ...grouped("Environment", place.env));
    }
    document.getElementById("panel-title").textContent = `${label} · ${column}`;
    document.getElementById("panel-body").replaceChildren(...body);
    const panel = document.getElementById("panel");
    panel.showModal();
    panel.scrollTop = 0;
  };
  document.getElementById("close").addEventListener("click", () => document.getElementById("panel").close());
  document.getElementById("panel").addEventListener("click", (event) => {
    if (event.target === event.currentTarget) event.currentTarget.close(); // the backdrop
  });
  document.querySelector("main").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.matches(".sort")) sort(button.closest("th"));
    if (button?.matches(".place")) open(button);
  });
})();

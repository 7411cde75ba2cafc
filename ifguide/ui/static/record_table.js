// A table of prepared cells. Text reaches the page through textContent only.
function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

function fillCell(cell, column, value, veil) {
  if (column.kind === "number") {
    cell.className = "end";
    cell.textContent = value;
  } else if (column.kind === "interval") {
    cell.className = "end" + (value[2] ? " soft" : "");
    cell.append(element("span", "", value[0]), ...value.slice(1).filter(Boolean).map((text) => element("span", "under", text)));
  } else if (column.kind === "range") {
    const [at, low, high, colour, hollow] = value;
    const place = (share) => `${Math.max(0, Math.min(1, share)) * 100}%`;
    const axis = element("span", "range");
    const [line, dot] = [element("i"), element("b")];
    line.style.left = place(low);
    line.style.width = `calc(${place(high)} - ${place(low)})`;
    dot.style.left = place(at);
    line.style.background = dot.style.background = dot.style.color = colour;
    dot.className = hollow ? "ring" : "";
    axis.append(line, dot);
    cell.className = "ranges";
    cell.setAttribute("aria-hidden", "true"); // the number is in a column of its own
    cell.append(axis);
  } else if (column.kind === "bar") {
    cell.className = "end";
    cell.append(element("span", "", value[0]));
    const bar = element("span", "bar");
    bar.append(element("i"));
    bar.firstChild.style.width = `${Math.max(0, Math.min(1, value[1])) * 100}%`;
    cell.append(bar);
  } else if (column.kind === "excerpt") {
    cell.className = column.narrow ? "" : "long";
    if (veil && column.own) veil = "words";
    const hidden = veil === "all";
    const excerpt = element("span", "excerpt" + (hidden ? " veil" : "") + (column.whole ? " whole" : ""));
    if (hidden) excerpt.setAttribute("aria-hidden", "true");
    for (const [text, mark] of value) {
      const shown = mark && (mark !== 2 || veil === "words"); // 2: offensive, but not what the line is about
      const run = shown ? element(mark === 2 ? "span" : "mark", veil === "words" ? "veil" : "", text) : document.createTextNode(text);
      if (shown && veil) run.setAttribute("aria-hidden", "true");
      excerpt.append(run);
    }
    cell.append(excerpt);
  } else if (column.kind === "veiled") {
    const inner = element("span", veil ? "veil" : "", value);
    if (veil) inner.setAttribute("aria-hidden", "true");
    cell.className = "short";
    cell.append(inner);
  } else if (column.kind === "titled") {
    const title = element("span", "strong");
    if (value[2]) {
      const swatch = element("span", value[3] ? "swatch ring" : "swatch");
      swatch.style.color = value[2];
      title.append(swatch);
    }
    title.append(document.createTextNode(value[0]));
    cell.className = "titled";
    cell.append(title, element("span", "under note", value[1]));
  } else if (column.kind === "scored") { // a score on an axis with the range of what chance gives
    const [title, note, at, low, high] = value;
    const axis = element("span", "axis"), [chance, dot] = ["i", "b"].map((tag) => element(tag));
    const place = (share) => `${Math.max(0, Math.min(1, share)) * 100}%`;
    chance.style.left = place(low);
    chance.style.width = `calc(${place(high)} - ${place(low)})`;
    dot.style.left = place(at);
    dot.className = at > high ? "above" : "";
    axis.append(chance, dot);
    axis.setAttribute("aria-hidden", "true");
    cell.className = "titled";
    cell.append(element("span", "strong", title), element("span", "under num", note), axis);
  } else if (column.kind === "tokens") {
    const excerpt = element("span", "excerpt tokens" + (veil === "all" ? " veil" : ""));
    if (veil === "all") excerpt.setAttribute("aria-hidden", "true");
    for (const [text, step, offensive] of value) {
      const run = element("span", veil === "words" && offensive ? "veil" : "", text);
      if (run.className) run.setAttribute("aria-hidden", "true");
      if (step) run.style.background = column.bins[step + column.middle];
      excerpt.append(run);
    }
    cell.className = "long";
    cell.append(excerpt);
  } else if (column.kind === "choices") {
    cell.className = "short";
    cell.append(...value.map(([label, pick, on]) => {
      const choice = element("button", `quiet choice${on ? " on" : ""}`, label);
      choice.dataset.pick = pick;
      choice.setAttribute("aria-pressed", String(on));
      return choice;
    }));
  } else if (column.kind === "state") {
    cell.append(element("span", `state ${value[0]}`, value[1]));
    if (value[2]) cell.append(element("span", "under", value[2]));
  } else {
    cell.className = "short";
    cell.textContent = value;
    cell.title = value;
  }
}

// The rows sorted by a column; equal ones keep their order, and rows without a value come last.
function ordered(rows, sort) {
  if (!sort) return rows;
  const [column, down] = sort;
  const way = down ? -1 : 1;
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return way * (typeof a === "string" ? a.localeCompare(b) : a - b);
  };
  return rows.map((row, i) => [row, i]).sort(([a, i], [b, j]) => compare(a.sort[column], b.sort[column]) || i - j).map(([row]) => row);
}

const NUMERIC = ["number", "bar", "interval"];
const memories = new WeakMap();

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  const memory = memories.get(parentElement) ?? { sort: data.sort ?? null, all: false };
  memories.set(parentElement, memory);
  const table = element("table");
  table.setAttribute("aria-label", data.label);
  const head = element("tr");
  const body = element("tbody");
  const more = element("button", "quiet more");

  const fill = () => {
    const rows = ordered(data.rows, memory.sort);
    const shown = data.most && !memory.all ? rows.slice(0, data.most) : rows;
    body.replaceChildren(...shown.map((row) => {
      const line = element("tr", (data.pickable ? "pick" : "") + (row.key === data.chosen ? " chosen" : ""));
      if (data.pickable) {
        line.tabIndex = 0;
        line.dataset.key = row.key;
        line.setAttribute("aria-selected", String(row.key === data.chosen));
      }
      row.cells.forEach((value, i) => {
        const cell = element("td");
        fillCell(cell, data.columns[i], value, data.veil);
        line.append(cell);
      });
      return line;
    }));
    [...head.children].forEach((cell, i) => {
      const [column, down] = memory.sort ?? [-1, true];
      if (data.columns[i].sortable) cell.setAttribute("aria-sort", column !== i ? "none" : down ? "descending" : "ascending");
    });
    more.hidden = !data.most || data.rows.length <= data.most;
    more.textContent = memory.all ? `Show the first ${data.most}` : `Show all ${data.rows.length.toLocaleString("en")}`;
  };
  data.columns.forEach((column, i) => {
    const cell = element("th", NUMERIC.includes(column.kind) ? "end" : "");
    cell.scope = "col";
    if (column.help) cell.title = column.help;
    if (column.sortable) {
      const button = element("button", "sort", column.label);
      button.onclick = () => {
        const [before, down] = memory.sort ?? [-1, true];
        memory.sort = [i, before === i ? !down : NUMERIC.includes(column.kind)];
        fill();
        if (data.tellsSort) setTriggerValue("sort", column.label);
      };
      cell.append(button);
    } else cell.textContent = column.label;
    head.append(cell);
  });
  more.onclick = () => { memory.all = !memory.all; fill(); };
  fill();
  const header = element("thead");
  header.append(head);
  table.append(header, body);
  const heading = element("p", "heading");
  for (const [text, studys] of data.heading) {
    const run = element(studys ? "bdi" : "span", studys && data.veil ? "veil" : "", text);
    if (studys && data.veil) run.setAttribute("aria-hidden", "true");
    heading.append(run);
  }
  const scroll = element("div", "scroll" + (data.compact ? " one" : "") + (data.columns.length > 5 ? " many" : ""));
  scroll.append(data.rows.length ? table : element("div", "empty", data.empty));
  const focused = root.getRootNode().activeElement; // a sorted head keeps the keyboard when the page answers
  const at = focused ? [...root.querySelectorAll("button, tr[tabindex]")].indexOf(focused) : -1;
  root.replaceChildren(...(data.heading.length ? [heading] : []), scroll, more);
  if (at >= 0) root.querySelectorAll("button, tr[tabindex]")[at]?.focus({ preventScroll: true });

  table.onclick = ({ target }) => { if (target.dataset.pick) setTriggerValue("pick", target.dataset.pick); };
  if (!data.pickable) return;
  const pick = (event) => {
    const line = event.target.closest("tr[data-key]");
    if (!line || (event.type === "keydown" && event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    body.querySelectorAll(".chosen").forEach((other) => other.classList.remove("chosen"));
    line.classList.add("chosen"); // answers at once; the page follows
    setTriggerValue("pick", line.dataset.key);
  };
  body.onclick = pick;
  body.onkeydown = (event) => {
    const next = { ArrowDown: "nextSibling", ArrowUp: "previousSibling" }[event.key];
    if (!next) return pick(event);
    event.preventDefault();
    event.target.closest("tr")[next]?.focus();
  };
}

// One prompt with the completions of two to four models: a row a sample. Text reaches the page through textContent only.
const revealed = new Set(); // prompts whose text is shown, for all instances of this component
const opened = new Set(); // prompts with all their rows

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// A completion on one line: its line ends are shown as signs; words that stand in it alone are underlined.
function flowing(runs) {
  const shown = element("span", "text");
  runs.forEach(([text, only], place) => {
    const box = only ? element("mark", "only") : shown;
    if (only) shown.append(box);
    (place === 0 ? text.replace(/^ /, "") : text).split(/\r?\n/).forEach((part, i) => {
      if (i > 0) box.append(element("span", "soft", " ↵ "));
      box.append(document.createTextNode(part));
    });
  });
  if (!runs.length || runs.every(([text]) => !text.trim())) shown.append(element("span", "soft", "(empty)"));
  return shown;
}

function named(title, colour) {
  const name = element("span");
  if (colour) {
    const dot = element("span", "dot");
    dot.style.background = colour;
    name.append(dot);
  }
  name.append(document.createTextNode(title));
  return name;
}

function drawCell(cell, row, i, data, pick) {
  const box = element("div", "cell" + (data.rated ? "" : " bare"));
  if (cell === null) { box.append(element("span", "text soft", "–")); return box; }
  const whose = element("span", "whose");
  whose.append(named(data.titles[i], data.colours[i]));
  box.append(whose);
  if (data.rated) {
    const chip = element("span", "chip" + (cell.high ? " high" : ""), cell.toxicity);
    chip.title = `Toxicity ${cell.toxicity}${cell.high ? ", rated toxic" : ", not rated toxic"}`;
    box.append(chip);
  }
  box.append(flowing(cell.runs));
  if (pick) {
    const name = `${row.sample}.${data.names[i]}`;
    box.classList.add("pick");
    box.classList.toggle("chosen", data.chosen === name);
    box.tabIndex = 0;
    box.setAttribute("role", "button");
    box.setAttribute("aria-pressed", String(data.chosen === name));
    box.title = "Which training documents are nearest, and how likely each model finds it";
    box.onclick = () => { if (!getSelection()?.toString()) pick(data.chosen === name ? "" : name); };
    box.onkeydown = (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      pick(data.chosen === name ? "" : name);
    };
  }
  return box;
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const { pair } = data;
  const root = parentElement.querySelector(".root");
  const box = element("section", `pair m${data.titles.length}`);
  box.style.setProperty("--models", data.titles.length);
  const head = element("header");
  const prompt = element("span", "prompt", pair.prompt);
  const meta = element("span", "meta");
  const toggle = element("button", "quiet");
  if (pair.change) meta.append(element("span", "num", pair.change));
  meta.append(toggle);
  head.append(prompt, meta);
  const titles = element("div", "line titles" + (pair.results.some(Boolean) ? "" : " bare"));
  data.titles.forEach((title, i) => {
    const side = element("div");
    side.append(named(title, data.colours[i]));
    if (pair.results[i]) side.append(element("span", "result num", pair.results[i]));
    titles.append(side);
  });
  const pick = data.pickable ? (name) => setTriggerValue("pick", name || "close") : null;
  const lines = pair.rows.map((row) => {
    const line = element("div", "line");
    line.dataset.sample = row.sample;
    row.cells.forEach((cell, i) => line.append(drawCell(cell, row, i, data, pick)));
    return line;
  });
  const body = element("div");
  body.append(...lines);
  const foot = element("div", "foot");
  const more = element("button", "quiet more");
  foot.append(more, element("span", "soft", data.note));
  const settle = () => {
    const hidden = data.veil && !revealed.has(data.memory);
    const all = opened.has(data.memory);
    for (const text of [prompt, ...body.querySelectorAll(".text")]) {
      text.classList.toggle("veil", hidden);
      if (hidden) text.setAttribute("aria-hidden", "true");
      else text.removeAttribute("aria-hidden");
    }
    toggle.hidden = !data.veil;
    toggle.textContent = hidden ? "Show text" : "Blur again";
    lines.forEach((line, i) => { line.hidden = !all && i >= data.first && !line.querySelector(".chosen"); });
    more.hidden = lines.length <= data.first;
    more.textContent = all ? `Show the first ${data.first}` : `Show all ${lines.length}`;
  };
  const turn = (set) => () => { if (!set.delete(data.memory)) set.add(data.memory); settle(); };
  toggle.onclick = turn(revealed);
  more.onclick = turn(opened);
  settle();
  box.append(head, titles, body, foot);
  const focused = root.getRootNode().activeElement;
  const at = focused?.closest?.(".line")?.dataset.sample;
  const column = at === undefined ? -1 : [...focused.parentElement.children].indexOf(focused);
  root.replaceChildren(box);
  if (column >= 0) box.querySelector(`.line[data-sample="${at}"]`)?.children[column]?.focus({ preventScroll: true });
}

// One prompt with the completions of two to four models, a row for each sample. Text reaches the page through textContent only.
const revealed = new Set(); // prompts whose text is shown, for all instances of this component
const opened = new Set(); // prompts with all their rows

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// A completion on one line: its line ends are shown as signs; words found only in it are underlined, toxic spans dotted below.
function flowing(runs) {
  const shown = element("span", "text");
  let toxic = null;
  runs.forEach(([text, only, span], place) => {
    if (!span) toxic = null;
    else if (toxic?.dataset.span !== span) {
      toxic = element("span", "toxic");
      toxic.dataset.span = span;
      shown.append(toxic);
    }
    const around = toxic ?? shown;
    const box = only ? element("mark", "only") : around;
    if (only) around.append(box);
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

// What Enter and the space bar do to an element that is not a button.
function onKey(target, act) {
  target.onkeydown = (event) => {
    if (event.target !== target || (event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    act();
  };
}

// The whole cell answers to a click; for the keyboard its rating and its toxic spans are buttons, side by side, none inside another.
function makePickable(box, chip, name, data, pick) {
  const chosen = data.chosen === name;
  const whole = () => pick(chosen && !data.span ? "" : name);
  box.classList.add("pick");
  box.classList.toggle("chosen", chosen);
  box.title = "Nearest training documents, and token probabilities";
  box.tabIndex = -1;
  box.onclick = () => { if (!getSelection()?.toString()) whole(); };
  onKey(box, whole);
  chip.type = "button";
  chip.setAttribute("aria-pressed", String(chosen));
  chip.onclick = (event) => { event.stopPropagation(); whole(); };
  for (const toxic of box.querySelectorAll(".toxic")) {
    const picked = chosen && data.span === toxic.dataset.span;
    const act = () => pick(picked ? name : `${toxic.dataset.span} ${name}`);
    toxic.classList.toggle("picked", picked);
    toxic.onclick = (event) => {
      if (!toxic.hasAttribute("role")) return; // blurred: the click is the cell's
      event.stopPropagation();
      if (!getSelection()?.toString()) act();
    };
    onKey(toxic, act);
  }
}

// Blurred spans say nothing, and no key comes to them.
function armSpans(text, on) {
  for (const toxic of text.querySelectorAll(".pick .toxic")) {
    if (on) {
      toxic.tabIndex = 0;
      toxic.setAttribute("role", "button");
      toxic.setAttribute("aria-pressed", String(toxic.classList.contains("picked")));
      toxic.title = "Rated toxic: click for the training documents nearest to these words";
    } else for (const name of ["tabindex", "role", "aria-pressed", "title"]) toxic.removeAttribute(name);
  }
}

// Where the keyboard focus is in the rows, and the same place in rows drawn again.
function placeOf(focused) {
  const cell = focused?.closest?.(".cell");
  if (!cell) return null;
  const line = cell.parentElement;
  const part = focused.dataset.span ? `[data-span="${focused.dataset.span}"]` : focused.classList.contains("chip") ? ".chip" : "";
  return { line: `.line[data-sample="${line.dataset.sample}"]`, column: [...line.children].indexOf(cell), part };
}

function focusPlace(box, place) {
  const cell = place && box.querySelector(place.line)?.children[place.column];
  (place?.part ? cell?.querySelector(place.part) : cell)?.focus({ preventScroll: true });
}

function drawCell(cell, row, i, data, pick) {
  const box = element("div", "cell" + (data.rated ? "" : " bare"));
  if (cell === null) { box.append(element("span", "text soft", "–")); return box; }
  const whose = element("span", "whose");
  whose.append(named(data.titles[i], data.colours[i]));
  box.append(whose);
  const chip = element(pick ? "button" : "span", "chip" + (cell.high ? " high" : ""), cell.toxicity);
  chip.title = `Toxicity ${cell.toxicity}${cell.high ? ", rated toxic" : ", not rated toxic"}`;
  if (data.rated) box.append(chip);
  box.append(flowing(cell.runs));
  if (pick) {
    chip.setAttribute("aria-label", `${chip.title}: completion ${row.sample + 1} of ${data.titles[i]}, its nearest training documents`);
    makePickable(box, chip, `${row.sample}.${data.names[i]}`, data, pick);
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
  foot.append(more);
  const settle = () => {
    const hidden = data.veil && !revealed.has(data.memory);
    const all = opened.has(data.memory);
    for (const text of [prompt, ...body.querySelectorAll(".text")]) {
      text.classList.toggle("veil", hidden);
      if (hidden) text.setAttribute("aria-hidden", "true");
      else text.removeAttribute("aria-hidden");
    }
    armSpans(body, !hidden);
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
  const place = placeOf(root.getRootNode().activeElement);
  root.replaceChildren(box);
  focusPlace(box, place);
}

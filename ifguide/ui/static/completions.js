// One prompt with the completions of two to four models, a row for each sample. Text reaches the page through textContent only.
const revealed = new Set(); // prompts whose text is shown, for all instances of this component
const opened = new Set(); // prompts with all their rows

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function quiet(text, title, act) {
  const button = element("button", "quiet", text);
  button.type = "button";
  if (title) button.title = title;
  button.onclick = act;
  return button;
}

// A completion on one line: line ends are shown as signs, toxic spans are marked.
function flowing(cell) {
  const shown = element("span", "text" + (cell.whole ? " whole" : ""));
  cell.runs.forEach(([text, span], place) => {
    const box = span ? element("span", "toxic") : shown;
    if (span) {
      box.dataset.span = span;
      shown.append(box);
    }
    (place === 0 ? text.replace(/^ /, "") : text).split(/\r?\n/).forEach((part, i) => {
      if (i > 0) box.append(element("span", "soft", " ↵ "));
      box.append(document.createTextNode(part));
    });
  });
  if (cell.growing) shown.append(element("span", "soft", "▍"));
  else if (cell.runs.every(([text]) => !text.trim())) shown.append(element("span", "soft", "(empty)"));
  return shown;
}

function named(title, colour, hollow) {
  const name = element("span");
  if (colour) {
    const dot = element("span", hollow ? "dot ring" : "dot");
    dot.style.color = colour;
    name.append(dot);
  }
  name.append(document.createTextNode(title));
  return name;
}

// Make Enter and the space bar click an element that is not a button.
function onKey(target, act) {
  target.onkeydown = (event) => {
    if (event.target !== target || (event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    act();
  };
}

// The whole cell can be clicked; for the keyboard its rating and its toxic spans are buttons, side by side, none inside another.
function makePickable(box, chip, name, data, pick) {
  const chosen = data.chosen === name;
  const whole = () => pick(chosen && !data.span ? "" : name);
  box.classList.add("pick");
  box.classList.toggle("chosen", chosen);
  box.title = "Show the training documents it comes from";
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
      if (!toxic.hasAttribute("role")) return; // inside a blurred text: the click is the cell's
      event.stopPropagation();
      if (!getSelection()?.toString()) act();
    };
    onKey(toxic, act);
  }
}

function hide(target, hidden) {
  target.classList.toggle("veil", hidden);
  if (hidden) target.setAttribute("aria-hidden", "true");
  else target.removeAttribute("aria-hidden");
}

// A toxic span is a button, even if its words are blurred; in a text that is blurred as a whole it is hidden from the keyboard.
function settleSpan(toxic, around, words) {
  const button = !around && toxic.closest(".pick");
  if (button) {
    toxic.tabIndex = 0;
    toxic.setAttribute("role", "button");
    toxic.setAttribute("aria-pressed", String(toxic.classList.contains("picked")));
    toxic.title = "Rated toxic: click for the training documents nearest to these words";
  } else for (const name of ["tabindex", "role", "aria-pressed", "title"]) toxic.removeAttribute(name);
  hide(toxic, words && !around);
  if (button && words) {
    toxic.removeAttribute("aria-hidden"); // it can be reached, so it says what it is, without its words
    toxic.setAttribute("aria-label", "Hidden words, rated toxic: nearest training documents");
  } else toxic.removeAttribute("aria-label");
}

// The keyboard focus in the rows, and the same place in redrawn rows.
function placeOf(focused) {
  const line = focused?.closest?.(".line[data-sample]");
  if (!line) return null;
  const part = focused.dataset.span ? `[data-span="${focused.dataset.span}"]` : focused.dataset.act ? `[data-act="${focused.dataset.act}"]` : ".chip";
  return { line: `.line[data-sample="${line.dataset.sample}"]`, column: [...line.children].indexOf(focused.closest(".line > *")), part };
}

function focusPlace(box, place) {
  const cell = place && box.querySelector(place.line)?.children[place.column];
  (cell?.querySelector(place.part) ?? cell)?.focus({ preventScroll: true });
}

function drawCell(cell, row, i, data, pick) {
  const box = element("div", "cell" + (data.rated ? "" : " bare"));
  if (cell === null) { box.append(element("span", "text soft", "–")); return box; }
  const whose = element("span", "whose");
  whose.append(named(data.titles[i], data.colours[i], data.hollow[i]));
  box.append(whose);
  const chip = element(pick ? "button" : "span", "chip" + (cell.high ? " high" : ""), cell.toxicity);
  chip.title = `Toxicity ${cell.toxicity}${cell.high ? ", rated toxic" : ", not rated toxic"}`;
  if (data.rated) box.append(chip);
  box.append(flowing(cell));
  if (pick) {
    chip.setAttribute("aria-label", `${chip.title}: completion of ${data.titles[i]}, its nearest training documents`);
    makePickable(box, chip, `${row.sample}.${data.names[i]}`, data, pick);
  }
  return box;
}

// What can be done with a row: pin it, see its token probabilities.
function drawActions(row, data, setTriggerValue) {
  const box = element("div", "actions");
  const add = (act, text, title, on, value) => {
    const button = quiet(text, title, () => setTriggerValue(act === "pin" ? "pin" : "pick", value));
    button.dataset.act = act;
    button.classList.toggle("on", on);
    button.setAttribute("aria-pressed", String(on));
    button.setAttribute("aria-label", title);
    box.append(button);
  };
  const pinned = data.pinned === row.sample;
  const shown = data.chosen === `${row.sample}.`;
  add("pin", pinned ? "★" : "☆", pinned ? "Unpin this pair from the Overview page" : "Pin this pair: the Overview page shows it", pinned, pinned ? -1 : row.sample);
  if (data.tokens) add("tokens", "≋", "Token probabilities of this pair", shown, shown ? "close" : `${row.sample}.`);
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
  const toggle = quiet("");
  if (pair.change) meta.append(element("span", "num", pair.change));
  meta.append(toggle);
  head.append(prompt, meta);
  const titles = element("div", "line titles" + (pair.results.some(Boolean) ? "" : " bare"));
  data.titles.forEach((title, i) => {
    const side = element("div");
    side.append(named(title, data.colours[i], data.hollow[i]));
    if (pair.results[i]) side.append(element("span", "result num", pair.results[i]));
    titles.append(side);
  });
  if (data.acts) titles.append(element("div", "actions"));
  const pick = data.pickable ? (name) => setTriggerValue("pick", name || "close") : null;
  const lines = pair.rows.map((row) => {
    const line = element("div", "line" + (data.acts ? " acts" : ""));
    line.dataset.sample = row.sample;
    row.cells.forEach((cell, i) => line.append(drawCell(cell, row, i, data, pick)));
    if (data.acts) line.append(drawActions(row, data, setTriggerValue));
    return line;
  });
  titles.classList.toggle("acts", data.acts);
  const body = element("div");
  body.append(...lines);
  const foot = element("div", "foot");
  const settle = () => {
    const veil = revealed.has(data.memory) ? "" : data.veil;
    const all = opened.has(data.memory);
    hide(prompt, veil === "all");
    for (const text of body.querySelectorAll(".text")) {
      const around = veil === "all" || (veil === "words" && text.classList.contains("whole"));
      hide(text, around);
      for (const toxic of text.querySelectorAll(".toxic")) settleSpan(toxic, around, veil === "words");
    }
    toggle.hidden = !data.veil || (data.veil === "words" && !body.querySelector(".toxic, .whole"));
    toggle.textContent = !veil ? "Hide again" : veil === "words" ? "Show words" : "Show text";
    lines.forEach((line, i) => { line.hidden = !all && i >= data.first && !line.querySelector(".chosen, .on"); });
    more.hidden = lines.length <= data.first;
    more.textContent = all ? `Show the first ${data.first}` : `Show all ${lines.length}`;
  };
  const turn = (set) => () => { if (!set.delete(data.memory)) set.add(data.memory); settle(); };
  const more = quiet("", "", turn(opened));
  toggle.onclick = turn(revealed);
  foot.append(more);
  settle();
  box.append(head, titles, body, foot);
  foot.hidden = more.hidden;
  const place = placeOf(root.getRootNode().activeElement);
  root.replaceChildren(box);
  focusPlace(box, place);
}

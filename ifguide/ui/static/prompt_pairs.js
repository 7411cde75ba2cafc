// Completions of two models to the same prompts, side by side. Text reaches the page through textContent only.
const memories = new WeakMap();

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// A completion on one line: its line ends are shown as signs.
function flowing(text) {
  const shown = element("span", "text");
  text.replace(/^ /, "").split(/\r?\n/).forEach((part, i) => {
    if (i > 0) shown.append(element("span", "soft", " ↵ "));
    shown.append(document.createTextNode(part));
  });
  return shown;
}

function drawSide(side, title, colour, first) {
  const box = element("div", "side");
  const head = element("h4");
  const name = element("span");
  const dot = element("span", "dot");
  dot.style.background = colour;
  name.append(dot, document.createTextNode(title));
  head.append(name, element("span", "num", `highest ${side.highest}`));
  const list = element("ul");
  side.samples.forEach(([text, toxicity, high], i) => {
    const line = element("li");
    line.hidden = i >= first;
    const chip = element("span", "chip" + (high ? " high" : ""), toxicity);
    chip.title = `Toxicity ${toxicity}${high ? ", rated toxic" : ", not rated toxic"}`;
    line.append(chip, flowing(text));
    list.append(line);
  });
  box.append(head, list);
  return box;
}

function drawPair(pair, data, memory) {
  const box = element("section", "pair");
  const head = element("header");
  const prompt = element("span", "prompt", pair.prompt);
  const meta = element("span", "meta");
  const toggle = element("button", "quiet");
  meta.append(element("span", "num", pair.change), toggle);
  head.append(prompt, meta);
  const sides = element("div", "sides");
  pair.sides.forEach((side, i) => sides.append(drawSide(side, data.titles[i], data.colours[i], data.first)));
  const total = Math.max(...pair.sides.map((side) => side.samples.length));
  if (total > data.first) {
    const more = element("button", "quiet more", `Show all ${total}`);
    let open = false;
    more.onclick = () => {
      open = !open;
      sides.querySelectorAll("ul").forEach((list) => [...list.children].forEach((line, i) => { line.hidden = !open && i >= data.first; }));
      more.textContent = open ? `Show the highest ${data.first}` : `Show all ${total}`;
    };
    sides.firstChild.append(more);
  }
  const settle = () => {
    const hidden = data.veil && !memory.shown.has(pair.key);
    for (const text of [prompt, ...sides.querySelectorAll(".text")]) {
      text.classList.toggle("veil", hidden);
      if (hidden) text.setAttribute("aria-hidden", "true");
      else text.removeAttribute("aria-hidden");
    }
    toggle.hidden = !data.veil;
    toggle.textContent = hidden ? "Show text" : "Blur again";
  };
  toggle.onclick = () => {
    if (memory.shown.has(pair.key)) memory.shown.delete(pair.key);
    else memory.shown.add(pair.key);
    settle();
  };
  settle();
  box.append(head, sides);
  return box;
}

export default function (component) {
  const { data, parentElement } = component;
  const memory = memories.get(parentElement) ?? { shown: new Set() };
  memories.set(parentElement, memory);
  parentElement.querySelector(".root").replaceChildren(...data.pairs.map((pair) => drawPair(pair, data, memory)));
}

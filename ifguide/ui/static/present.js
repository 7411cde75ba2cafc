// The result in a few slides over the whole window: arrow keys, large type. Text reaches the page through textContent.
function element(tag, className, ...inside) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...inside);
  return made;
}

function runsOf(runs, veil) {
  const text = element("p", "runs" + (veil === "all" ? " veil" : ""));
  for (const [piece, marked, offensive] of runs) {
    text.append(marked || offensive ? element(marked ? "mark" : "span", veil === "words" && offensive ? "veil" : "", piece) : piece);
  }
  return text;
}

function draw(slide, veil) {
  const parts = [element("h2", "", slide.title), ...(slide.lines ?? []).map((line) => element("p", "line", line))];
  if (slide.bars) parts.push(element("div", "bars", ...slide.bars.map(([label, text, interval, colour, hollow, part, low, high]) => {
    const bar = element("i", ""), ends = element("u", "");
    bar.style.width = `${part * 100}%`;
    if (hollow) bar.style.boxShadow = `inset 0 0 0 3px ${colour}`;
    else bar.style.background = colour;
    Object.assign(ends.style, { left: `${low * 100}%`, width: `${(high - low) * 100}%` });
    return element("div", "", element("span", "", label), element("span", "track", bar, ends), element("b", "", text, element("small", "", interval)));
  })));
  if (slide.bins) parts.push(element("div", "bins", ...slide.bins.map((height, i) => {
    const bin = element("i", i >= slide.cut ? "in" : "");
    bin.style.height = `${height * 100}%`;
    return bin;
  })));
  for (const [heading, runs, note] of slide.texts ?? []) {
    parts.push(element("section", "", element("h3", "", heading, element("small", "", note)), runsOf(runs, veil)));
  }
  return parts;
}

export default function (component) {
  const { data, parentElement } = component;
  const root = parentElement.querySelector(".root");
  const dialog = element("dialog", "");
  dialog.setAttribute("aria-label", "Presentation");
  const stage = element("main", "");
  const place = element("span", "num");
  const button = (text, does, name) => {
    const made = element("button", "quiet", text);
    made.onclick = does;
    if (name) made.setAttribute("aria-label", name);
    return made;
  };
  let at = 0, veil = data.veil;
  const show = (next) => {
    at = Math.max(0, Math.min(data.slides.length - 1, next));
    place.textContent = `${at + 1} / ${data.slides.length}`;
    history.replaceState(history.state, "", `#slide-${at + 1}`); // each slide has an address
    stage.replaceChildren(...draw(data.slides[at], veil));
    reveal.textContent = veil ? "Show the text" : "Hide the text";
  };
  const reveal = button("", () => { veil = veil ? "" : data.veil || "all"; show(at); });
  dialog.append(stage, element("footer", "", button("←", () => show(at - 1), "Back"), place,
    button("→", () => show(at + 1), "Next"), reveal, button("Close", () => dialog.close())));
  dialog.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, PageDown: 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(at + step);
  };
  dialog.onclose = () => history.replaceState(history.state, "", location.pathname + location.search);
  const open = (number) => { veil = data.veil; show(number); dialog.showModal(); };
  const start = button("Show me", () => open(0));
  start.className = "start";
  root.replaceChildren(start, dialog);
  const linked = /^#slide-(\d+)$/.exec(location.hash);
  if (linked) open(Number(linked[1]) - 1);
}

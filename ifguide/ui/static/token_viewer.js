// Shows one document's tokens coloured by score. Text reaches the page through textContent only.
const memories = new WeakMap();
const CONTROLS = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]/g;
const code = (sign) => `‹U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}›`;
const visible = (text) =>
  text.replaceAll(" ", "·").replaceAll("\r", "␍").replaceAll("\n", "↵").replaceAll("\t", "→").replace(CONTROLS, code);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function signed(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const digits = size >= 1000 || size < 0.001 ? size.toExponential(2) : size.toFixed(size >= 1 ? 2 : 3);
  return (value < 0 ? "−" : "+") + digits.replace("e-", "e−").replace("e+", "e");
}

// Strength 0..1 of a value; the root lifts weak scores into sight, and the legend uses the same rule.
const strength = (value, top) => (top > 0 ? Math.min(1, Math.abs(value) / top) : 0);
const shade = (value, top, oneSided) => {
  const part = Math.round(strength(value, top) * 66);
  if (part < 2) return "";
  const hue = oneSided ? "neutral" : value > 0 ? "teaches" : "counters";
  return `color-mix(in srgb, var(--${hue}) ${part}%, transparent)`;
};

function drawLegend(data) {
  const legend = element("div", "legend");
  const scale = element("span", "scale");
  const layer = data.layers[data.colour];
  const oneSided = data.colour === "token_loss";
  const stops = oneSided
    ? "transparent, color-mix(in srgb, var(--neutral) 66%, transparent)"
    : "color-mix(in srgb, var(--counters) 66%, transparent), transparent, color-mix(in srgb, var(--teaches) 66%, transparent)";
  const ramp = element("span", "ramp");
  ramp.style.background = `linear-gradient(to right, ${stops})`;
  const top = oneSided ? layer.top.toFixed(1) : signed(layer.top);
  scale.append(
    element("span", "num", oneSided ? "expected 0" : `works against toxicity ${signed(-layer.top)}`),
    ramp,
    element("span", "num", oneSided ? `${top} nats surprising` : `${top} teaches toxicity`)
  );
  legend.append(scale);
  const key = element("span", "key");
  key.append(element("span", "selected", "underlined"), document.createTextNode("selected"));
  legend.append(key);
  if (data.truth) {
    const human = element("span", "key");
    human.append(element("span", "box", "dotted"), document.createTextNode("marked as toxic by people"));
    legend.append(human);
  }
  return legend;
}

function drawTokens(data) {
  const box = element("div", "tokens");
  box.tabIndex = 0;
  box.setAttribute("role", "document");
  box.setAttribute("aria-label", "Text of the document; the arrow keys go from token to token");
  const layer = data.layers[data.colour];
  const selected = new Set(data.selected);
  const truth = new Set(data.truth ?? []);
  const fragment = document.createDocumentFragment();
  data.pieces.forEach((piece, i) => {
    const token = element("span", "", piece);
    token.dataset.i = i;
    const place = data.start + i;
    if (place > 0) token.style.background = shade(layer.values[i], layer.top, data.colour === "token_loss");
    if (selected.has(i)) token.classList.add("selected");
    if (truth.has(i)) {
      token.classList.add("truth");
      if (!truth.has(i - 1)) token.classList.add("first");
      if (!truth.has(i + 1)) token.classList.add("last");
    }
    if (piece.includes("\n")) token.classList.add("break");
    fragment.append(token);
  });
  box.append(fragment);
  return { box, selected, truth };
}

function fillTip(tip, data, i, selected, truth) {
  const place = data.start + i;
  const list = element("dl");
  const line = (name, value, now) => list.append(element("dt", now ? "now" : "", name), element("dd", now ? "now" : "", value));
  if (place === 0) {
    line("Score", "none: nothing predicts the first token");
  } else {
    for (const [kind, layer] of Object.entries(data.layers)) {
      line(layer.title, kind === "token_loss" ? `${layer.values[i].toFixed(2)} nats` : signed(layer.values[i]), kind === data.colour);
    }
  }
  line("Token", `${(place + 1).toLocaleString("en")} of ${data.length.toLocaleString("en")}`);
  if (place > 0) line("Predicted at", `token ${place.toLocaleString("en")}`);
  line("Selected", selected.has(i) ? "yes" : "no");
  if (data.truth) line("Marked by people", truth.has(i) ? "yes" : "no");
  const text = visible(data.pieces[i]);
  tip.replaceChildren(element("h4", "", text === "" ? "(part of the previous character)" : text), list);
}

export default function (component) {
  const { data, parentElement } = component;
  const root = parentElement.querySelector(".root");
  const memory = memories.get(parentElement) ?? { shown: null };
  memories.set(parentElement, memory);

  const { box, selected, truth } = drawTokens(data);
  const tip = element("div", "tip");
  tip.setAttribute("popover", "manual");
  tip.setAttribute("role", "tooltip");
  const frame = element("div", "frame");
  const cover = element("div", "cover");
  const show = element("button", "quiet", "Show this text");
  cover.append(element("p", "", "Blurred: training text can be offensive."), show);
  const foot = element("div", "foot");
  const hide = element("button", "quiet", "Blur again");
  foot.append(element("span", "", data.note), hide);
  frame.append(box, cover, tip);
  root.replaceChildren(drawLegend(data), frame, foot);

  let active = -1;
  const veiled = () => data.veil && memory.shown !== data.key;
  const leave = () => {
    if (active >= 0) box.children[active]?.classList.remove("active");
    active = -1;
    if (tip.matches(":popover-open")) tip.hidePopover();
  };
  const point = (i) => {
    if (veiled() || i === active) return;
    leave();
    const token = box.children[i];
    if (!token) return;
    active = i;
    token.classList.add("active");
    fillTip(tip, data, i, selected, truth);
    tip.showPopover();
    const at = token.getClientRects()[0] ?? token.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    const above = at.top - size.height - 8;
    tip.style.left = `${Math.max(8, Math.min(at.left, window.innerWidth - size.width - 8))}px`;
    tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
  };
  const settle = () => {
    const hidden = veiled();
    box.classList.toggle("veil", hidden);
    if (hidden) box.setAttribute("aria-hidden", "true");
    else box.removeAttribute("aria-hidden");
    box.tabIndex = hidden ? -1 : 0;
    cover.hidden = !hidden;
    hide.hidden = !data.veil || hidden;
    if (hidden) leave();
  };
  show.onclick = () => { memory.shown = data.key; settle(); box.focus({ preventScroll: true }); };
  hide.onclick = () => { memory.shown = null; settle(); };
  // While a person walks by keys, scrolling and a pointer that merely lies there must not take the token away.
  let byKeys = false;
  box.onpointermove = (event) => { if (event.movementX || event.movementY) byKeys = false; };
  box.onpointerover = (event) => {
    if (byKeys) return;
    const token = event.target.closest("[data-i]");
    if (token) point(Number(token.dataset.i));
    else leave();
  };
  box.onpointerleave = () => { if (!byKeys) leave(); };
  box.onscroll = () => { if (!byKeys) leave(); };
  box.onblur = () => { byKeys = false; leave(); };
  box.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") leave();
    if (!step) return;
    event.preventDefault();
    byKeys = true;
    const next = Math.max(0, Math.min(data.pieces.length - 1, active + step));
    box.children[next].scrollIntoView({ block: "nearest" });
    point(next);
  };
  settle();
  return () => { if (tip.isConnected && tip.matches(":popover-open")) tip.hidePopover(); };
}

// The token viewer, used wherever tokens are shown; uses numbers.js. Text reaches the page through textContent only.
// Settings may say `bare` (the tokens are not of a corpus, so none is selected or judged) and `firstScored`; a layer's
// `ends` name the two ends of its scale.
// A document: { key, texts, raw, layers: { name: Float32Array }, ranks, marks: Uint8Array, spans: [[start, stop, verdict]],
// turns: [[token, role]] }. Facts about one token are in the strip under the text, never over it.
const SELECTED = 1, HIT = 2, TRUTH = 4, CONTEXT = 8, MATCH = 16, HIDDEN = 32;
const STEPS = 3; // colours on each side of nothing
const CHUNK_FROM = 160, CHUNK_TO = 900; // tokens a block holds, so that a change in one leaves the layout of the others alone
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb]|\udb40[\udc00-\uddff]/g;
const BIDI = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/;
const code = (sign) => `‹U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}›`;
const visible = (text) =>
  text.replaceAll(" ", "·").replaceAll("\u00a0", "⍽").replaceAll("\r", "␍").replaceAll("\n", "↵").replaceAll("\t", "→").replace(CONTROLS, code);
const bytes = (text) => [...new TextEncoder().encode(text)].map((b) => b.toString(16).toUpperCase().padStart(2, "0")).join(" ");

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

// Step -3 … 3 of a value, from the layer's middle. With gamma 1 the steps are equal; a smaller gamma makes weak scores visible.
const middleOf = (layer) => layer.middle ?? 0;
function stepOf(value, layer, gamma, below) {
  const from = value - middleOf(layer), room = layer.top - middleOf(layer);
  if (!(room > 0) || from === 0 || (from < 0 && !below)) return 0;
  const strength = Math.min(1, Math.abs(from) / room) ** gamma;
  return Math.sign(from) * Math.min(STEPS, Math.round(strength * (STEPS + 0.5)));
}
const edgeOf = (step, layer, gamma) => middleOf(layer) + Math.sign(step) * (layer.top - middleOf(layer)) * ((Math.abs(step) - 0.5) / (STEPS + 0.5)) ** (1 / gamma);

function isDark(root) {
  const probe = getComputedStyle(root).getPropertyValue("--ground").trim() || "#fff";
  const canvas = isDark.canvas ?? (isDark.canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true }));
  canvas.fillStyle = "#fff";
  canvas.fillStyle = probe;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b] = canvas.getImageData(0, 0, 1, 1).data;
  return 0.2126 * r + 0.7152 * g + 0.0722 * b < 128;
}

class TokenViewer {
  // `tell` is called with { range } when the reader marks tokens, with { revealed } when they show or blur the text; viewers
  // may share one `strip`.
  constructor(root, tell, strip = element("div", "strip")) {
    this.root = root;
    this.tell = tell;
    this.strip = strip;
    this.strip.setAttribute("aria-live", "polite");
    this.map = element("canvas", "map");
    this.map.setAttribute("aria-hidden", "true");
    this.map.onclick = (event) => {
      const share = (event.clientY - this.map.getBoundingClientRect().top) / this.map.clientHeight;
      this.box.scrollTop = share * this.box.scrollHeight - this.box.clientHeight / 2;
    };
    this.box = element("div", "tokens");
    this.box.setAttribute("role", "document");
    this.box.setAttribute("aria-label", "Text of the document; arrow keys go from token to token, shift marks a range");
    this.cover = element("div", "cover");
    this.frame = element("div", "frame");
    this.legend = element("div", "legend");
    this.foot = element("div", "foot");
    const show = element("button", "quiet", "Show this text");
    show.title = "v";
    show.onclick = () => { this.reveal(true); this.box.focus({ preventScroll: true }); };
    this.cover.append(element("p", "", "Blurred: training text can be offensive."), show);
    this.frame.append(this.box, this.cover);
    this.spans = [];
    this.stops = []; // [start, stop) of the search hits, or else of the selected tokens
    this.at = -1; // the token the strip is about
    this.range = null; // marked tokens [start, stop)
    this.revealed = null; // key of the document whose text is shown
    this.listen();
  }

  // One handler for each kind of event, for all tokens.
  listen() {
    const box = this.box;
    const indexOf = (event) => {
      const token = event.target.closest?.("[data-i]");
      return token ? Number(token.dataset.i) : -1;
    };
    let still = false; // a text that scrolls under a pointer at rest is not pointed at
    box.onpointermove = (event) => {
      if (!still || !(event.movementX || event.movementY)) return;
      still = false;
      this.point(indexOf(event));
    };
    box.onpointerover = (event) => {
      const i = indexOf(event);
      if (i >= 0 && !still) this.point(i);
      if (i >= 0 && this.dragFrom !== undefined && event.buttons === 1) this.mark(this.dragFrom, i);
    };
    box.onpointerdown = (event) => {
      const i = indexOf(event);
      if (event.button !== 0) return;
      if (i < 0) { this.mark(null); return; }
      if (event.shiftKey && this.range) { event.preventDefault(); this.mark(this.anchor, i); return; }
      this.dragFrom = i;
      this.pressed = this.range && this.range[0] === i && this.range[1] === i + 1;
    };
    box.onpointerup = (event) => {
      const i = indexOf(event);
      if (this.dragFrom !== undefined && i === this.dragFrom) this.mark(this.pressed ? null : i, i);
      this.dragFrom = undefined;
      this.report();
    };
    box.onscroll = () => { still = true; this.drawMap(this.tops); };
    box.onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") { this.mark(null); this.report(); }
      if (!step || this.veiled() || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const from = this.at >= 0 ? this.at : this.range ? this.range[0] - (step > 0 ? 1 : 0) : -1;
      const next = Math.max(0, Math.min(this.spans.length - 1, from + step));
      this.spans[next].scrollIntoView({ block: "nearest" });
      this.point(next);
      this.mark(event.shiftKey && this.range ? this.anchor : next, next);
      this.report();
    };
  }

  setDocument(doc) {
    const same = this.doc?.key === doc.key && this.doc.texts === doc.texts;
    this.doc = doc;
    const kind = doc.marks?.some((mark) => mark & MATCH) ? MATCH : SELECTED;
    this.stops = [];
    doc.marks?.forEach((mark, i) => {
      if (!(mark & kind)) return;
      if (i > 0 && doc.marks[i - 1] & kind) this.stops.at(-1)[1] = i + 1;
      else this.stops.push([i, i + 1]);
    });
    if (same) { this.paint(); return; }
    this.at = -1;
    this.range = null;
    this.build();
    this.paint();
    this.box.scrollTop = 0;
  }

  build() {
    const { texts } = this.doc;
    const roles = new Map(this.doc.turns);
    const fragment = document.createDocumentFragment();
    let block = null, held = 0;
    this.spans = new Array(texts.length);
    for (let i = 0; i < texts.length; i++) {
      if (!block || roles.has(i)) {
        block = element("div", "block");
        block.dir = "auto";
        if (roles.has(i)) block.dataset.role = roles.get(i);
        fragment.append(block);
        held = 0;
      }
      const text = texts[i];
      const token = element("span", "", text);
      token.dataset.i = i;
      if (text === "") { token.dataset.byte = ""; }
      else if (text.includes("\n")) token.dataset.line = "";
      if (text !== "" && CONTROLS.test(text)) { token.dataset.sign = text.match(CONTROLS).map(code).join(""); }
      CONTROLS.lastIndex = 0;
      if (BIDI.test(text)) token.dataset.bidi = "";
      this.spans[i] = token;
      block.append(token);
      held += 1;
      const wide = i + 1 < texts.length && texts[i + 1] !== "";
      if (held >= CHUNK_FROM && text.endsWith("\n")) block = null;
      else if (held >= CHUNK_TO && wide && /^\s/.test(texts[i + 1])) { block.classList.add("runs-on"); block = null; }
    }
    this.box.replaceChildren(fragment);
  }

  setOptions(options) { Object.assign(this, options); }

  // Update the colours and marks of existing tokens; no element is created.
  paint() {
    const { doc, settings } = this;
    if (!doc || !settings) return;
    this.root.classList.toggle("dark", isDark(this.root));
    const scheme = settings.palette[this.root.classList.contains("dark") ? "dark" : "light"];
    const layer = settings.layers.find((l) => l.name === this.colour) ?? settings.layers[0];
    const bins = scheme[layer.oneSided ? "loss" : "signed"];
    const nothing = layer.oneSided ? 0 : STEPS;
    this.root.style.setProperty("--token-ink", scheme.ink);
    bins.forEach((colour, i) => this.root.style.setProperty(`--bin${i}`, colour));
    const values = doc.layers[layer.name];
    const { marks } = doc;
    const veiled = this.veiled(), byWord = !veiled && this.hidden();
    const verdict = new Array(doc.texts.length);
    for (const [start, stop, kind] of doc.spans) verdict.fill(kind, start, stop);
    for (let i = 0; i < this.spans.length; i++) {
      const scored = values && (i > 0 || settings.firstScored) && !(marks && marks[i] & CONTEXT);
      const step = scored ? stepOf(values[i], layer, this.gamma, this.shadesBelow(layer)) : 0;
      let name = step ? `b${step + nothing}` : "";
      if (marks) {
        const mark = marks[i];
        if (mark & SELECTED) name += mark & HIT ? " selected" : " selected halo";
        if (mark & CONTEXT) name += " context";
        if (mark & MATCH) name += " match";
        if (this.people && mark & TRUTH) {
          name += mark & SELECTED ? " truth agreed" : " truth";
          if (i === 0 || !(marks[i - 1] & TRUTH)) name += " first";
          if (i + 1 === marks.length || !(marks[i + 1] & TRUTH)) name += " last";
        }
      }
      if (verdict[i]) name += ` v-${verdict[i]}`;
      if (this.range && i >= this.range[0] && i < this.range[1]) name += ` marked${i === this.range[0] ? " from" : ""}${i + 1 === this.range[1] ? " to" : ""}`;
      if (i === this.at) name += " active";
      const hidden = byWord && (marks[i] & HIDDEN) > 0;
      if (hidden) name += " hid";
      if (this.spans[i].className === name) continue;
      this.spans[i].className = name;
      this.spans[i].ariaHidden = hidden ? "true" : null;
    }
    this.box.classList.toggle("veil", veiled);
    this.box.ariaHidden = veiled ? "true" : null;
    this.box.tabIndex = veiled ? -1 : 0;
    this.cover.hidden = !veiled;
    this.drawLegend(layer, bins);
    this.drawFoot();
    this.fillStrip();
    requestAnimationFrame(() => this.drawMap());
  }

  // Where the stops are in the whole text, and which part of it is visible; the stops' `tops` are measured once.
  drawMap(tops) {
    const { map, box } = this;
    if (!map.isConnected || !this.doc) return;
    const [width, height] = [map.clientWidth, map.clientHeight];
    Object.assign(map, { width, height });
    const pen = map.getContext("2d"), scale = height / Math.max(box.scrollHeight, 1);
    const top = box.getBoundingClientRect().top - box.scrollTop;
    this.tops = tops ?? this.stops.map(([i]) => this.spans[i].getBoundingClientRect().top - top);
    const size = Math.max(1, Math.min(3, height / this.stops.length / 2));
    const styles = getComputedStyle(this.root);
    const [orange, ink, line] = ["--teaches", "--ink", "--line"].map((name) => styles.getPropertyValue(name).trim());
    pen.fillStyle = line;
    if (box.scrollHeight > box.clientHeight) pen.fillRect(0, box.scrollTop * scale, width, box.clientHeight * scale);
    this.stops.forEach(([i], n) => {
      pen.fillStyle = this.doc.marks[i] & MATCH ? ink : orange;
      pen.fillRect(2, this.tops[n] * scale, width - 4, size);
    });
  }

  // Colours below the middle mean something where it is a real zero, as between two models; of scores they are on request.
  shadesBelow(layer) { return !layer.oneSided && (layer.middle === undefined || this.below); }

  drawLegend(layer, bins) {
    const scale = element("span", "scale");
    const nothing = layer.oneSided ? 0 : STEPS, shown = this.shadesBelow(layer) ? 0 : nothing;
    const ramp = element("span", "ramp");
    bins.slice(shown).forEach((colour, i) => {
      const step = i + shown - nothing, next = step + Math.sign(step);
      const swatch = element("i");
      swatch.style.background = colour;
      const size = (s) => { const edge = edgeOf(s, layer, this.gamma); return layer.oneSided ? edge.toFixed(2) : scoreText(edge); };
      swatch.title = step === 0 ? `no colour up to ${size(1)}` : Math.abs(step) === STEPS ? `${size(step)} and beyond` : `${size(step)} to ${size(next)}`;
      ramp.append(swatch);
    });
    const [low, high] = layer.ends ? layer.ends : layer.oneSided ? ["expected", "surprising"] : ["less toxic", "more toxic"];
    const end = layer.oneSided ? `${layer.top.toFixed(1)} nats` : scoreText(layer.top);
    const start = layer.oneSided ? low : shown ? `median ${scoreText(middleOf(layer))}` : `${scoreText(2 * middleOf(layer) - layer.top)} ${low}`;
    scale.append(element("span", "", start), ramp, element("span", "", `${high} ${end}`));
    const key = (className, sample, text) => {
      const box = element("span", "key");
      box.append(element("span", className, sample), document.createTextNode(text));
      return box;
    };
    this.legend.replaceChildren(scale);
    if (this.settings.bare) return;
    this.legend.append(key("selected", "underlined", "selected"));
    if (this.doc.marks?.some((mark) => (mark & SELECTED) && !(mark & HIT))) this.legend.append(key("selected halo", "outlined", "beside one"));
    if (this.doc.marks?.some((mark) => mark & CONTEXT)) this.legend.append(key("context", "slanted", "not trained on"));
    if (this.people) this.legend.append(key("truth", "dotted", "marked by people"));
    if (this.doc.spans.length) this.legend.append(key("v-toxic", "barred", "your verdicts"));
  }

  drawFoot() {
    const { marks, texts } = this.doc;
    let note = `${plural(texts.length, "token")}. Colours mean the same in every document.`;
    if (this.people && marks) {
      let both = 0, chosen = 0, truth = 0;
      for (const mark of marks) {
        if (mark & SELECTED) chosen += 1;
        if (mark & TRUTH) truth += 1;
        if ((mark & SELECTED) && (mark & TRUTH)) both += 1;
      }
      const others = chosen > both ? plural(chosen - both, "other") : "no others";
      note += truth ? ` ${whole(both)} of ${plural(truth, "token")} marked by people selected, and ${others}.` : ` No token is marked by people, ${chosen ? whole(chosen) : "no"} selected.`;
    }
    this.foot.textContent = note;
  }

  hidden() { return this.veil && this.revealed !== this.doc?.key; }
  // The whole text is blurred; if only offensive words are, the document's marks say which.
  veiled() { return this.hidden() && !(this.veil === "words" && this.doc?.marks); }
  conceals(i) { return this.hidden() && (this.veiled() || (this.doc.marks[i] & HIDDEN) > 0); }

  reveal(shown) {
    this.revealed = shown ? this.doc?.key : null;
    this.paint();
    this.tell({ revealed: shown });
  }

  mark(from, to = from) {
    if (from !== null && (!this.range || from !== this.anchor)) this.anchor = from;
    const next = from === null ? null : [Math.min(from, to), Math.max(from, to) + 1];
    const before = this.range;
    this.range = next;
    const touched = [before, next].filter(Boolean);
    for (const [start, stop] of touched) {
      for (let i = start; i < stop; i++) {
        const classes = this.spans[i]?.classList;
        classes?.toggle("marked", !!next && i >= next[0] && i < next[1]);
        classes?.toggle("from", !!next && i === next[0]);
        classes?.toggle("to", !!next && i + 1 === next[1]);
      }
    }
    this.changed = String(before) !== String(next) || this.changed;
  }

  report() {
    if (!this.changed) return;
    this.changed = false;
    this.tell({ range: this.range });
  }

  goTo(start, stop) {
    this.mark(start, stop - 1);
    this.changed = false;
    this.spans[start]?.scrollIntoView({ block: "nearest" });
  }

  point(i) {
    if (i === this.at || !this.spans[i]) return;
    const before = this.strip.viewer ?? this;
    before.spans[before.at]?.classList.remove("active");
    before.at = -1;
    this.strip.viewer = this;
    this.at = i;
    this.spans[i].classList.add("active");
    this.fillStrip();
  }

  // Go to the next stop (1) or the one before (-1), wrapping around.
  step(way) {
    const { stops } = this;
    if (!stops.length) return;
    const next = way > 0 ? stops.findIndex(([start]) => start > this.at) : stops.findLastIndex(([start]) => start < this.at);
    const [start] = stops[next < 0 ? (way > 0 ? 0 : stops.length - 1) : next];
    this.spans[start].scrollIntoView({ block: "nearest" });
    this.point(start);
  }

  fillStrip() {
    const { doc, settings, at: i } = this;
    if (i < 0) {
      this.strip.replaceChildren(element("span", "soft", "Point at a token, or go from token to token with ← and →."));
      return;
    }
    const parts = [], say = (text, className = "") => parts.push(element("span", className, text));
    const mark = doc.marks?.[i] ?? 0, text = doc.texts[i], concealed = this.conceals(i);
    say(concealed ? "(hidden)" : text === "" ? "(part of the character before)" : visible(text), "token");
    if (mark & CONTEXT) say("no score: the model is not trained on this token");
    else if (i === 0 && !settings.firstScored) say("no score: nothing predicts the first token");
    else {
      for (const layer of settings.layers) {
        const value = doc.layers[layer.name]?.[i];
        if (value === undefined) continue;
        say(`${layer.title} ${layer.oneSided ? `${value.toFixed(2)} nats` : scoreText(value)}`, layer.name === this.colour ? "now" : "");
      }
      if (doc.ranks) say(doc.ranks[i] ? `#${whole(doc.ranks[i])} of ${whole(settings.nScored)}` : "outside top 10%");
    }
    if (!settings.bare) say(mark & SELECTED ? `selected by ${settings.selection}${mark & HIT ? "" : ", as a neighbour"}` : "not selected");
    if (this.people && mark & TRUTH) say("human label");
    const decided = doc.spans.filter(([start, stop]) => i >= start && i < stop).map((span) => span[2]);
    if (decided.length) say(`your verdict: ${decided.join(", ")}`);
    say(`token ${whole(i + 1)} of ${whole(doc.texts.length)}${i > 0 && !settings.bare ? `, predicted at ${whole(i)}` : ""}`, "soft");
    if (text && !concealed) say(`bytes ${bytes(text)}`, "soft");
    if (doc.raw?.[i] && !concealed) say(`in the vocabulary ${doc.raw[i]}`, "soft");
    this.strip.replaceChildren(...parts);
  }
}

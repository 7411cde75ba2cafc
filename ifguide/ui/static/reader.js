// The list of documents and the viewer beside it; uses numbers.js, token_viewer.js and reader_frame.js. Text reaches the page only
// through textContent. Documents and lines are cached here, so that the next document is shown at once; each
// message tells the server what is cached.
const memories = new WeakMap();
const kept = new Map(); // key -> document, for this page of the browser; the latest last
const KEPT = 60;
const MARKS = { toxic: "T", fine: "F", unsure: "U" };

function keep(key, doc) {
  kept.delete(key);
  kept.set(key, doc);
  while (kept.size > KEPT) kept.delete(kept.keys().next().value);
}

function column(table, name, from, to) {
  const vector = table.getChild(name);
  return vector ? vector.slice(from, to) : null;
}

function takeDocuments(data, pending) {
  const { tokens, marks, view } = data;
  for (const entry of view.documents) {
    let doc = kept.get(entry.key);
    if (entry.tokens) {
      const [from, to] = entry.tokens;
      const layers = {};
      for (const layer of view.viewer.layers) layers[layer.name] = column(tokens, layer.name, from, to)?.toArray();
      doc = {
        key: entry.key, texts: [...column(tokens, "text", from, to)], raw: [...column(tokens, "raw", from, to)],
        ranks: column(tokens, "rank", from, to)?.toArray(), layers,
      };
    }
    if (!doc) continue;
    const [from, to] = entry.marks;
    const mine = pending && "verdict" in doc ? { verdict: doc.verdict, spans: doc.spans, note: doc.note } : {}; // not answered yet
    keep(entry.key, { ...doc, ...entry.about, ...mine, marks: column(marks, "marks", from, to).toArray() });
  }
}

function sparkline(values) {
  const canvas = element("canvas", "spark");
  canvas.width = values.length * 3;
  canvas.height = 24;
  canvas.values = values;
  return canvas;
}

function paintSpark(canvas, colours) {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  canvas.values.forEach((value, i) => {
    const height = Math.max(1, (Math.abs(value) / 127) * 15);
    pen.fillStyle = Math.abs(value) < 6 ? colours[2] : value > 0 ? colours[1] : colours[0];
    if (value >= 0) pen.fillRect(i * 3, 16 - height, 2, height);
    else pen.fillRect(i * 3, 16, 2, Math.max(1, height / 2));
  });
}

class Reader extends ReaderFrame {
  constructor(root) {
    super(root);
    this.state = { events: [], have: [], at: 0, order: null };
    this.counter = 0;
    this.lines = new Map(); // place -> line
    this.trail = []; // places of the documents that were judged, for undoing
    this.viewer = new TokenViewer(root, (change) => { if ("range" in change) this.say(change); else this.drawVeil(); });
    this.draw();
    this.onKey = (event) => this.key(event);
    document.addEventListener("keydown", this.onKey);
  }

  stop() {
    document.removeEventListener("keydown", this.onKey);
    clearTimeout(this.timer);
  }

  // ---- what comes from the server ----

  receive(data, tell) {
    this.tellServer = tell;
    const { view } = data;
    const fresh = view.order !== this.state.order;
    this.counter = Math.max(this.counter, view.ack);
    this.state.events = this.state.events.filter((event) => event.n > view.ack);
    const pending = this.state.events.length > 0;
    takeDocuments(data, pending);
    this.view = view;
    this.like.hidden = !view.likes;
    if (this.state.like?.stamp === view.liked) delete this.state.like; // the server has followed it
    if (view.reviewer === null && (view.reviewer = keptName()) !== null) this.say({ reviewer: view.reviewer });
    if (fresh) {
      this.lines.clear();
      Object.assign(this.state, { order: view.order, at: view.at, range: view.range });
    }
    for (const line of view.lines) {
      if (pending && this.lines.has(line.place)) continue;
      const text = JSON.stringify(line);
      if (this.lines.get(line.place)?.text === text) continue;
      this.lines.set(line.place, { ...line, text });
      this.drawnPage = null;
    }
    this.state.seen = view.serial;
    const people = view.viewer.hasTruth && this.people.checked;
    this.viewer.setOptions({ settings: view.viewer, veil: view.veil, people });
    if (fresh || this.viewer.colour === undefined) {
      this.viewer.setOptions({ colour: view.colour, gamma: view.gamma });
      this.gamma.value = String(1.8 - view.gamma);
    }
    if (!view.viewer.layers.some((l) => l.name === this.viewer.colour)) this.viewer.setOptions({ colour: view.colour });
    this.peopleBox.hidden = !view.viewer.hasTruth;
    this.drawControls();
    this.drawList();
    this.drawDocument(fresh ? view.range : undefined);
    // Ask for the neighbours now, and again for what was in an answer that a later one overtook.
    const lacking = Object.values(view.places).some((key) => !kept.has(key));
    this.asked = lacking ? (this.asked ?? 0) + 1 : 0;
    if (fresh || (lacking && this.asked < 20)) this.say({});
  }

  drawControls() {
    const { view } = this;
    this.sortBox.replaceChildren(...view.sorts.map((sort) => {
      const option = element("option", "", sort.title);
      option.value = sort.name;
      return option;
    }));
    this.sortBox.value = view.sort;
    this.turn.textContent = view.descending ? "↓" : "↑";
    this.turn.title = view.descending ? "Largest first" : "Smallest first";
    this.turn.setAttribute("aria-label", this.turn.title);
    this.turn.hidden = view.sort === "diverse";
    const usual = COLUMNS.some(([name]) => name === view.sort);
    this.heads.replaceChildren(...COLUMNS.map(([name, text, note]) => {
      const other = name === "hit_sum" && view.figure !== "Sum" && !usual; // the number that the list is sorted by
      const sort = other ? view.sort : name, arrow = sort === view.sort ? (view.descending ? " ↓" : " ↑") : "";
      const head = button(`${other ? view.figure : text}${arrow}`, `headcell ${name}`, () => this.sortBy(sort), other ? view.figure : note);
      if (name === "rank") head.title = this.rankNote();
      head.setAttribute("aria-label", `Sort by ${(other ? view.figure : note).toLowerCase()}`);
      return head;
    }));
    const [done, all] = view.reviewed;
    this.reviewed.textContent = `${view.queue ? "settled" : "reviewed"} ${whole(done)} / ${whole(all)}`;
    Object.assign(this.progress, { value: done, max: Math.max(all, 1) });
    this.who.textContent = view.reviewer ? view.reviewer : "Your name…";
    this.who.title = "Who is reviewing";
    this.kinds.replaceChildren(...view.viewer.layers.map((layer) => {
      const button = element("button", "kind" + (layer.name === this.viewer.colour ? " on" : ""), layer.title);
      button.title = layer.note;
      button.setAttribute("role", "radio");
      button.setAttribute("aria-checked", String(layer.name === this.viewer.colour));
      button.onclick = () => {
        this.viewer.setOptions({ colour: layer.name });
        this.viewer.paint();
        this.drawControls();
        this.say({ colour: layer.name });
      };
      return button;
    }));
  }

  rankNote() { return `Rank by ${this.view.viewer.selection}: the number of tokens above the threshold and the sum of their scores, both together. 1 is the most toxic.`; }

  pageStart() { return Math.floor(this.state.at / this.view.pageSize) * this.view.pageSize; }

  drawList() {
    const { view } = this;
    const start = this.pageStart(), stop = Math.min(view.total, start + view.pageSize);
    const drawn = `${view.order}:${start}:${view.veil}:${view.sort}`;
    if (this.drawnPage === drawn) { this.moveChosen(); return; }
    const colours = this.sparkColours();
    const lines = [];
    for (let place = start; place < stop; place++) {
      const line = this.lines.get(place);
      const box = element("div", "line" + (line ? "" : " waiting") + (place === this.state.at ? " chosen" : ""));
      box.dataset.place = place;
      box.setAttribute("role", "option");
      box.setAttribute("aria-selected", String(place === this.state.at));
      if (line) this.fillLine(box, line, colours);
      lines.push(box);
    }
    this.left.hidden = !view.total;
    const before = this.list.scrollTop, same = this.drawnStart === `${view.order}:${start}`;
    this.list.replaceChildren(...lines);
    if (same) this.list.scrollTop = before;
    this.drawnStart = `${view.order}:${start}`;
    this.drawnPage = lines.some((line) => line.classList.contains("waiting")) ? null : drawn;
    this.showChosen();
    this.where.textContent = view.total ? `${whole(start + 1)}–${whole(stop)} of ${whole(view.total)}` : "";
    this.back.disabled = start === 0;
    this.forward.disabled = stop >= view.total;
    for (const part of [this.back, this.forward, this.jump]) part.hidden = view.total <= view.pageSize;
  }

  moveChosen() {
    for (const line of this.list.children) {
      const chosen = Number(line.dataset.place) === this.state.at;
      line.classList.toggle("chosen", chosen);
      line.setAttribute("aria-selected", String(chosen));
    }
    this.showChosen();
  }

  sparkColours() {
    const styles = getComputedStyle(this.root);
    return ["--counters", "--teaches", "--line"].map((name) => styles.getPropertyValue(name).trim());
  }

  fillLine(box, line, colours) {
    const top = element("div", "top");
    const mark = element("span", `badge ${line.verdict}`, MARKS[line.verdict] ?? "");
    if (line.verdict) mark.title = `Your verdict: ${line.verdict}`;
    const name = element("span", "name", line.id);
    name.title = line.id;
    const which = element("span", "which");
    which.append(name, ...(line.verdict ? [mark] : []), element("span", "source soft", line.source));
    top.append(element("span", "rank num", line.rank), which);
    if (line.copies > 1) {
      const copies = element("span", "copies", `×${line.copies}`);
      copies.title = `${line.copies} documents are nearly this text`;
      which.append(copies);
    }
    if (line.nSpans) {
      const spans = element("span", "copies", line.nSpans === 1 ? "1 span" : `${line.nSpans} spans`);
      spans.title = `Verdicts on ${line.nSpans} of its spans`;
      which.append(spans);
    }
    const spark = sparkline(line.spark);
    paintSpark(spark, colours);
    top.append(element("span", "numbers num", line.selected), element("span", "numbers figure num", line.figure));
    const snippet = element("div", "snippet"), text = element("span", "text" + (this.view.veil === "all" ? " veil" : ""));
    if (this.view.veil === "all") text.ariaHidden = "true";
    for (const [part, marked, hidden] of line.snippet) {
      const run = element(marked ? "mark" : "span", hidden ? "veil" : "", part);
      if (hidden) run.ariaHidden = "true";
      text.append(run);
    }
    snippet.append(text, spark);
    box.append(top, snippet);
  }

  showChosen() {
    const chosen = this.list.querySelector(".chosen");
    if (!chosen) return;
    const { offsetTop: top, offsetHeight: height } = chosen;
    const lowest = top + height - this.list.clientHeight;
    if (top < this.list.scrollTop) this.list.scrollTop = top;
    else if (lowest > this.list.scrollTop) this.list.scrollTop = lowest;
  }

  current() { return this.byPlace(this.state.at); }
  byPlace(place) {
    const entry = this.view.places[place] ?? this.places?.get(place);
    return entry ? kept.get(entry) : undefined;
  }

  drawDocument(range) {
    const { view } = this;
    this.places = this.places ?? new Map();
    if (this.placesOf !== view.order) { this.places.clear(); this.placesOf = view.order; }
    for (const [place, key] of Object.entries(view.places)) this.places.set(Number(place), key);
    this.warning.hidden = view.total > 0;
    this.warning.textContent = view.empty;
    this.body.hidden = view.total === 0;
    const doc = this.current();
    this.body.classList.toggle("waiting", !doc);
    if (!doc) return;
    this.title.replaceChildren(element("span", "unseen", "Document "), doc.id);
    this.title.title = doc.id;
    // Each in a bdi, so that a name that changes the writing direction changes only its own.
    this.facts.replaceChildren(...doc.facts.flatMap((fact, i) => [i ? " · " : "", element("bdi", "", fact)]));
    this.facts.title = this.rankNote();
    this.rule.hidden = !view.guideline;
    this.rule.lastChild.textContent = view.guideline;
    const changed = this.viewer.doc?.key !== doc.key;
    this.viewer.setDocument(doc);
    if (range) this.viewer.goTo(...range);
    if (changed) this.note.value = doc.note;
    this.drawHits();
    this.drawVeil();
    this.drawVerdict();
    if (changed) performance.mark("ifguide-document"); // the benchmark listens to it
  }

  drawHits() {
    const { stops, at, doc } = this.viewer, place = stops.findIndex(([start, stop]) => at >= start && at < stop);
    const hits = !stops.length ? "no hits" : place < 0 ? plural(stops.length, "hit") : `hit ${whole(place + 1)} of ${whole(stops.length)}`;
    this.hits.textContent = this.view.searched ? `${plural(doc.matches, "match", "matches")} in this document` : hits;
    this.before.disabled = this.after.disabled = !stops.length;
  }

  drawVeil() {
    this.show.hidden = !this.viewer.veil || this.viewer.veiled();
    this.show.textContent = this.viewer.hidden() ? "Show this text" : "Blur again";
  }

  drawVerdict() {
    const standing = this.standing();
    for (const button of this.actions.querySelectorAll(".verdict")) {
      button.classList.toggle("on", button.dataset.verdict === standing);
      button.setAttribute("aria-pressed", String(button.dataset.verdict === standing));
    }
    const range = this.viewer.range;
    const doc = this.viewer.doc;
    const marked = range ? range[1] - range[0] : 0;
    if (marked) this.aim.textContent = marked === 1 ? "on 1 token" : `on ${whole(marked)} tokens`;
    else this.aim.textContent = doc?.copies > 1 ? `on ${whole(doc.copies)} near-duplicates` : "on this document";
  }

  standing() {
    const doc = this.viewer.doc;
    if (!doc) return "";
    const range = this.viewer.range;
    if (!range) return doc.verdict;
    return doc.spans.find(([start, stop]) => start === range[0] && stop === range[1])?.[2] ?? "";
  }

  // ---- what the reader does ----

  sortBy(sort) {
    const descending = sort === this.view.sort ? !this.view.descending : this.view.sorts.find(({ name }) => name === sort).falls;
    Object.assign(this.view, { sort, descending }); // the next click builds on it, even before the server answers
    this.drawControls();
    this.say({ sort: { name: sort, descending, stamp: Date.now() + Math.random() } });
  }

  askLike() {
    if (this.viewer.doc && this.view.likes) this.say({ like: { id: this.viewer.doc.id, stamp: Date.now() + Math.random() } });
  }

  say(change) {
    if ("range" in change) this.drawVerdict();
    Object.assign(this.state, change);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.post(), "range" in change ? 300 : 40);
  }

  post() {
    clearTimeout(this.timer);
    this.tellServer({ ...this.state, have: [...kept.keys()], stamp: Date.now() + Math.random() });
  }

  event(event) {
    this.counter += 1;
    this.state.events.push({ n: this.counter, ...event });
    this.post();
  }

  go(place) {
    if (place < 0 || place >= this.view.total || place === this.state.at) return;
    this.state.at = place;
    this.state.range = null;
    this.viewer.range = null;
    this.drawList();
    this.drawDocument();
    this.state.range = this.viewer.range;
    this.say({ at: place });
  }

  decide(verdict, moves = advances) {
    const doc = this.viewer.doc;
    if (!doc) return;
    if (this.view.reviewer === null) { this.askName(() => this.decide(verdict, moves)); return; }
    const range = this.viewer.range;
    const line = this.lines.get(this.state.at);
    if (range) {
      const others = doc.spans.filter(([start, stop]) => start !== range[0] || stop !== range[1]);
      doc.spans = verdict === "none" ? others : [...others, [range[0], range[1], verdict]];
      if (line) line.nSpans = doc.spans.length;
    } else {
      doc.verdict = verdict === "none" ? "" : verdict;
      if (line) line.verdict = doc.verdict;
      doc.note = verdict === "none" ? "" : this.note.value;
    }
    keep(doc.key, doc);
    this.viewer.paint();
    this.trail.push(this.state.at);
    this.event({ kind: "decide", document: doc.id, range, verdict, note: this.note.value });
    this.drawnPage = null;
    this.drawList();
    this.drawVerdict();
    if (moves && !range && verdict !== "none") this.advance();
  }

  // Go to the next document without a verdict, or in the queue of disagreements to the next: on this page of the list, or else the
  // one that the server names.
  advance() {
    const end = Math.min(this.view.total, this.pageStart() + this.view.pageSize);
    for (let place = this.state.at + 1; place < end; place++) {
      if (this.view.queue || !this.lines.get(place)?.verdict) { this.go(place); return; }
    }
    if (this.view.open !== null) this.go(this.view.open);
  }

  undo() {
    this.event({ kind: "undo" });
    const place = this.trail.pop();
    if (place !== undefined) this.go(place);
  }

  step(way) {
    this.viewer.step(way);
    this.drawHits();
  }

  turnVeil() {
    if (!this.viewer.doc || !this.viewer.veil) return;
    this.viewer.reveal(this.viewer.hidden());
  }

  key(event) {
    if (!this.root.isConnected) { this.stop(); return; }
    const target = event.composedPath()[0];
    const field = "textarea, select, input:not([type=range], [type=checkbox])";
    const typing = target instanceof HTMLElement && (target.isContentEditable || target.matches(field));
    if (typing) { if (event.key === "Escape") target.blur(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || !this.view || this.dialog.open) return;
    const actions = {
      j: () => this.go(this.state.at + 1), k: () => this.go(this.state.at - 1),
      t: () => this.decide("toxic"), f: () => this.decide("fine"),
      u: () => this.decide("unsure"), c: () => this.decide("none"),
      z: () => this.undo(), v: () => this.turnVeil(), e: () => this.note.focus(),
      "]": () => this.step(1), "[": () => this.step(-1), n: () => this.step(1), p: () => this.step(-1),
      "/": () => document.querySelector('input[aria-label="Text contains"]')?.focus(),
      g: () => this.jump.focus(), m: () => this.askLike(), "?": () => this.showHelp(),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }
}

export default function (component) {
  const { data, parentElement, setStateValue } = component;
  const root = parentElement.querySelector(".root");
  let reader = memories.get(root);
  if (!reader) memories.set(root, (reader = new Reader(root)));
  reader.receive(data, (state) => setStateValue("state", state));
  return () => { if (!root.isConnected) { reader.stop(); memories.delete(root); } };
}

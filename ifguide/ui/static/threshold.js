// The board of the Threshold page: a handle on the distribution of scores. While it is dragged, a preview is computed here from
// exact counts at the knots; on release the server's exact result replaces it.
const boards = new WeakMap();
const HEIGHTS = { bars: 244, top: 34, axis: 24, marks: 24, precision: 118, dose: 208, effect: 100, ranks: 120 };
const GRAB = 9; // px on each side of the threshold's line that still take hold of it

function makeBoard(root) {
  const board = { data: null, shown: null, from: null, pending: null, drag: null, frame: 0, width: 0, scale: null, view: "all", sent: 0, open: {}, timer: 0 };

  // ---- what the reader sees ----
  const figures = {
    tokens: makeFigure("Selected tokens", HELP.tokens),
    documents: makeFigure("Documents", HELP.documents),
    shards: makeFigure("Above it in all shards", HELP.shards),
    precision: makeFigure("Precision", HELP.precision),
    recall: makeFigure("Recall", HELP.recall),
    effect: makeFigure("Estimated effect", ""),
    outcome: makeFigure("Toxic answers, edited", HELP.outcome),
  };
  const row = element("div", "figures");
  row.append(...Object.values(figures).map((figure) => figure.box));

  const why = element("div", "why small");
  why.setAttribute("role", "alert");
  const complain = (text) => { why.textContent = text; };
  const positive = (text) => { const value = readNumber(text); return Number.isFinite(value) && value > 0 ? value : undefined; };
  const fields = {
    threshold: makeField("Threshold", HELP.threshold, {
      complain, wants: "a number",
      read: (text) => { const value = readNumber(text); return Number.isFinite(value) ? value : undefined; },
      take: (threshold) => { move({ above: board.preview.aboveAt(threshold) }); send({ threshold }); },
    }),
    share: makeField("Top %", HELP.share, {
      complain, unit: "%", wants: "a share above 0% and up to 100%",
      read: (text) => { const value = positive(text); return value <= 100 ? value : undefined; },
      take: (share) => takeAbove(Math.floor((share / 100) * board.data.nTokens + 1e-6)), // at most that share
    }),
    above: makeField("Token count", HELP.above, {
      complain, wants: "a whole number above 0",
      read: (text) => { const value = positive(text); return Number.isInteger(value) ? value : undefined; },
      take: (above) => takeAbove(above),
    }),
    budget: makeField("Budget", HELP.budget, {
      complain, unit: "tokens", wide: true, wants: "a whole number, or “none”",
      read: (text) => { if (/^(none|no|0)?$/i.test(text)) return 0; const value = positive(text); return Number.isInteger(value) ? value : undefined; },
      take: (budget) => { move({ budget }); send({ budget }); },
    }),
  };
  const stepper = makeStepper("Neighbours", HELP.window, { least: 0, most: 5, take: (window) => { move({ window }); send({ window }); } });
  const range = makeChoice("Range of the axis", [
    ["all", "All scores", "From the lowest score to the highest"],
    ["tail", "Highest scores", "The highest tenth of all scores, or from the threshold where that is lower"],
  ], (view) => { board.view = view; layOut(); send({ range: view }); });
  const stack = element("div", "stack"), svgs = {};
  for (const name of ["axes", "below", "above", "marks", "precision", "dose", "effect"]) svgs[name] = shape("svg", { class: name, "aria-hidden": "true" });
  const clip = element("div", "clip"), brush = element("div", "brush"), line = element("div", "line");
  const handle = element("div", "handle num");
  clip.append(svgs.above);
  brush.hidden = true;
  handle.tabIndex = 0;
  handle.setAttribute("role", "slider");
  handle.setAttribute("aria-label", "Threshold");
  handle.setAttribute("aria-orientation", "horizontal");
  line.append(handle);
  const [effectTitle, precisionTitle] = ["Estimated effect by threshold", "Precision by threshold"].map((text) => element("div", "inlay", text));
  const effectDot = element("div", "dot"), precisionDot = element("div", "dot"), precisionNow = element("span", "num");
  precisionTitle.title = HELP.curve;
  precisionTitle.append(": ", precisionNow);
  const doses = makeDoses(svgs.dose, (above) => takeAbove(above));
  const audit = makeAudit((acts) => board.component.setStateValue("audit", acts));
  const begin = element("button", "quiet begin");
  begin.onclick = audit.start;
  begin.onpointerdown = (event) => event.stopPropagation();
  stack.append(svgs.axes, svgs.below, clip, svgs.marks, svgs.precision, precisionTitle, begin, svgs.dose, doses.title, svgs.effect, effectTitle, brush, precisionDot, effectDot, line);
  const bound = (label) => makeField(label, "Documents with such tokens are listed below.", {
    complain, wants: "a score",
    read: (text) => { if (!text) return null; const value = readNumber(text); return Number.isFinite(value) ? value : undefined; },
    take: (value) => chooseRange(label === "From" ? { low: value, high: board.range?.high ?? board.data.highest } : { low: board.range?.low ?? board.shown.threshold, high: value }),
  });
  const from = bound("From"), to = bound("to"), clear = element("button", "quiet", "Clear"), inside = element("span", "soft num");
  clear.onclick = () => chooseRange(null);
  const ranges = element("div", "ranges");
  ranges.append(element("span", "soft", "List documents with scores"), from.box, to.box, inside, clear);
  const heading = element("div", "heading"), chart = element("div", "chart");
  const words = makeWords(), edge = makeBoundary(), groups = makeGroups(), status = element("div", "status num");
  status.setAttribute("role", "status");
  const title = element("div", ""), axes = element("div", "soft small");
  title.append(element("h3", "", "Choose which tokens to suppress"), axes);
  heading.append(title, range.box);
  const effectNote = element("div", "effectNote soft small");
  chart.append(heading, stack, effectNote, doses.places, ranges, status);
  const controls = element("div", "controls");
  controls.append(fields.threshold.box, fields.share.box, fields.above.box, stepper.box, fields.budget.box);

  const side = element("div", "side");
  const ranksTitle = element("h3", "", "Documents by rank");
  ranksTitle.title = "Selected tokens, added up over documents from the best rank down. The budget cuts where its line meets the curve.";
  const ranks = element("div", "ranks"), ranksSvg = shape("svg", { "aria-hidden": "true" });
  const cut = element("div", "cut"), ranksNote = element("div", "soft small num");
  cut.tabIndex = 0;
  cut.setAttribute("role", "slider");
  cut.setAttribute("aria-label", "Budget in tokens");
  cut.setAttribute("aria-orientation", "vertical");
  cut.append(element("span", "grip num"));
  ranks.append(ranksSvg, cut);
  const one = element("div", ""), two = element("div", "");
  one.append(element("h3", "", "At the threshold"), words.box, edge.box);
  two.append(ranksTitle, ranks, ranksNote, groups.box);
  side.append(audit.box, one, two);
  const body = element("div", "body");
  body.append(chart, side);
  root.replaceChildren(row, controls, why, body);

  // ---- numbers ----
  const takeAbove = (above) => {
    if (above > board.preview.lowest) complain(`At most ${plural(board.preview.lowest, "token")} can be above the threshold.`);
    if (above < 1) complain("That is less than one token: one stays above the threshold.");
    move({ above: clampAbove(above) });
    send({ above: board.shown.above });
  };
  const clampAbove = (above) => Math.max(1, Math.min(board.preview.lowest, Math.round(above)));
  const isExact = () => {
    const { exact } = board.data, { shown } = board;
    return exact.above === shown.above && exact.window === shown.window && exact.budget === shown.budget;
  };
  const shareField = (above) => {
    const share = (100 * above) / board.data.nTokens;
    return share >= 0.995 ? share.toFixed(2) : String(Number(share.toPrecision(3)));
  };

  function paint() {
    board.frame = 0;
    const { data, shown } = board;
    const exact = isExact();
    const now = exact ? data.exact : board.preview.at(shown);
    board.now = now;
    root.classList.toggle("preview", !exact);
    window.dispatchEvent(new CustomEvent("ifguide-threshold", { detail: exact ? null : shown.above })); // the map lights up
    const x = board.scale.x(now.threshold);
    line.style.transform = `translateX(${fixed(x)}px)`;
    clip.style.clipPath = `inset(0 0 0 ${fixed(Math.max(0, x))}px)`;
    handle.textContent = scoreText(now.threshold);
    handle.setAttribute("aria-valuenow", String(Number(now.threshold.toPrecision(6))));
    handle.setAttribute("aria-valuetext", `threshold ${scoreText(now.threshold)}, ${plural(shown.above, "token")} above, ${shareText(shown.above, data.nTokens, 2)} of ${data.of}`);
    const half = handle.offsetWidth / 2 + 2;
    handle.style.transform = `translateX(calc(-50% + ${fixed(Math.max(0, half - x) - Math.max(0, x + half - board.width))}px))`;

    fields.threshold.show(scoreText(now.threshold));
    fields.share.show(shareField(shown.above));
    fields.above.show(whole(shown.above));
    fields.budget.show(shown.budget ? whole(shown.budget) : "none");
    stepper.show(shown.window);
    const missing = exact ? "–" : null; // nothing selected, or nothing marked
    const blind = data.audit.open;
    figures.tokens.show(now.tokens === null ? null : whole(now.tokens), now.tokens === null ? "" : `${shareText(now.tokens, data.nTokens, 2)} of ${data.of}`);
    figures.documents.show(now.documents === null ? null : whole(now.documents), now.documents === null ? "" : `${shareText(now.documents, data.nDocuments)} of ${data.of}`);
    figures.precision.show(blind ? "–" : now.precision === null ? missing : now.precision.toFixed(3), blind ? "hidden in an audit" : "of selected are labelled");
    figures.recall.show(blind ? "–" : now.recall === null ? missing : now.recall.toFixed(3), blind ? "hidden in an audit" : "of labelled are selected");
    const change = now.effect === null ? null : data.effect.scale * now.effect;
    if (!data.effect.predicts) figures.effect.show("–", "no influence scores");
    else figures.effect.show(change === null ? null : scoreText(change), change === null ? "" : change > 0 ? "toxic completions less likely" : change < 0 ? "toxic completions likelier" : "no change");
    if (data.nShards) {
      const [above, sure] = exact ? data.exact.shards : [Math.round(now.shards), ""];
      figures.shards.show(`${exact && sure !== "exact" ? "≈ " : ""}${whole(above)}`, `${shareText(above, data.nShards, 2)} of ${whole(data.nShards)} tokens${sure === "exact" ? ", exact" : ""}`);
    }
    figures.outcome.show(...(blind ? ["–", "hidden in an audit"] : exact ? data.outcome : [null, ""]));
    const place = (dot, y) => {
      dot.hidden = y === null || x < LEFT - 1 || x > board.width - RIGHT + 1;
      if (y !== null) dot.style.transform = `translate(${fixed(x)}px, ${fixed(y)}px)`;
    };
    place(effectDot, !data.effect.predicts || change === null || shown.above > data.nTail ? null : board.effectY(change));
    paintPrecision(place);
    doses.paint(data, shown.above);
    if (board.from === null || board.from === shown.above) words.show(null);
    else words.show(board.preview.wordsBetween(board.from, shown.above).slice(0, WORDS_SHOWN), shown.above > board.from, data.veil, board.from);
    groups.show(data.groups, shown.above, exact);
    paintBudget();
    status.textContent = statusText(exact);
  }
  const later = () => { if (!board.frame) board.frame = requestAnimationFrame(paint); };

  function statusText(exact) {
    const { data, pending, drag } = board;
    if (drag?.what === "handle" || drag?.what === "cut") return `Preview, from exact counts at ${whole(data.knots.above.length)} thresholds. Release for the exact result; Esc cancels.`;
    if (pending || !exact) return "Computing the exact result…";
    return board.verdict;
  }
  function judge(preview, exact) {
    const time = exact.seconds < 0.001 ? "under 1 ms" : exact.seconds < 1 ? `${Math.round(exact.seconds * 1000)} ms` : `${exact.seconds.toFixed(1)} s`;
    const start = `Exact result, computed in ${time}${exact.scanned ? " by reading every token" : ""}.`;
    if (!preview) return start;
    if (preview.tokens === null) return `${start} There is no preview this far down the distribution.`;
    const off = Math.abs(exact.tokens - preview.tokens);
    return off ? `${start} The preview was off by ${plural(off, "token")}${exact.tokens ? ` (${shareText(off, exact.budget || exact.tokens, 2)})` : ""}.` : `${start} The preview had the same number of tokens.`;
  }

  // The precision curves' values at the handle, or why there are none.
  function paintPrecision(place) {
    const { rows, done, n, open, readOnly, agreement } = board.data.audit, { above } = board.shown;
    const inside = rows.length && above >= rows[0][1] && above <= rows.at(-1)[1];
    const column = (i) => between(rows.map((row) => row[1]), rows.map((row) => row[i]), above);
    const labelled = board.labels && between(board.labels.above, board.labels.share, above);
    const per = (value) => `${Math.round(100 * value)}`;
    const parts = [];
    if (inside) parts.push(`━ ${per(column(2))}% [${per(column(3))}, ${per(column(4))}] by the audit`);
    else if (rows.length) parts.push("outside the audit");
    else if (done) parts.push("the curve needs a verdict in every part of the scores");
    if (labelled !== null) parts.push(`┅ ${per(labelled)}% by human labels`);
    if (agreement) parts.push(agreement);
    precisionNow.textContent = parts.join(" · ") || (open ? "drawn from your verdicts" : readOnly ? "not audited" : "judge tokens to see it");
    place(precisionDot, inside ? board.precisionY(column(2)) : labelled === null ? null : board.precisionY(labelled));
    begin.hidden = open || readOnly || !board.data.nTail;
    begin.textContent = !n ? `Blind audit of ${MORE} tokens` : done < n ? `Continue the audit (${done} / ${n})` : `Audit (${done} / ${n})`;
  }

  // ---- drawing ----
  function layOut() {
    const { data } = board;
    const width = Math.floor(stack.clientWidth);
    if (!width || !data) return;
    board.width = width;
    const view = data.views[board.view];
    board.scale = makeScale(view.low, view.high, data.unit, width);
    for (const svg of [svgs.axes, svgs.below, svgs.above]) { svg.setAttribute("width", width); svg.setAttribute("height", HEIGHTS.bars + HEIGHTS.axis); }
    const counts = drawBars([svgs.below, svgs.above], view, data.middle, board.scale, HEIGHTS.bars, HEIGHTS.top);
    drawAxes(svgs.axes, board.scale, data.unit, width, HEIGHTS.bars, counts);
    const drawn = { marks: data.marks.length, precision: true, dose: data.dose.points.length, effect: data.effect.predicts };
    const dots = { precision: [precisionTitle, precisionDot, begin], dose: [doses.title], effect: [effectTitle, effectDot] };
    let top = HEIGHTS.bars + HEIGHTS.axis;
    for (const name of ["marks", "precision", "dose", "effect"]) {
      const height = drawn[name] ? HEIGHTS[name] : 0;
      svgs[name].setAttribute("width", width);
      svgs[name].setAttribute("height", height);
      for (const part of [svgs[name], ...(dots[name] ?? [])]) part.style.top = `${top}px`;
      top += height;
    }
    stack.style.height = `${top}px`;
    drawMarks(svgs.marks, data.marks, board.scale, width, HEIGHTS.marks);
    const labels = board.labels?.threshold.map((at, i) => [at, board.labels.share[i]]) ?? [];
    board.precisionY = drawPrecision(svgs.precision, { audit: data.audit.rows, labels }, board.scale, width, HEIGHTS.precision);
    drawEffect();
    const xOf = (above) => { const at = board.preview.thresholdAt(above); return at < view.low || at > view.high ? null : board.scale.x(at); };
    doses.draw(data.dose, xOf, width, HEIGHTS.dose);
    range.show(board.view);
    axes.textContent = `Drag the handle: tokens to its right are suppressed. ${data.nShards ? "Bars count tokens of all shards, from their sketch; other numbers are of the sample. " : ""}Counts are on a logarithmic axis${data.unit ? ", scores on one compressed far from 0" : ""}.`;
    paintBrush();
    drawRankCurve();
    paint();
  }
  function drawEffect() {
    const { data } = board;
    const window = Math.min(board.shown.window, data.knots.effect.length - 1);
    const values = data.knots.effect[window].map((value) => (value === null ? null : data.effect.scale * value));
    board.effectY = drawCurve(svgs.effect, data.knots.threshold, values, board.scale, board.width, HEIGHTS.effect);
    effectTitle.hidden = !data.effect.predicts;
    effectTitle.title = figures.effect.box.firstChild.title = data.effect.help;
    effectNote.textContent = data.effect.note;
  }
  function drawRankCurve() {
    const width = Math.floor(ranks.clientWidth);
    if (!width) return;
    ranksSvg.setAttribute("width", width);
    ranksSvg.setAttribute("height", HEIGHTS.ranks);
    const { rank } = board.data;
    board.ranks = drawRanks(ranksSvg, rank, width, HEIGHTS.ranks, Math.max(1, rank.tokens.at(-1)));
  }
  function paintBudget() {
    const { shown, ranks: scale, data } = board;
    if (!scale) return;
    const value = shown.budget || scale.tokens;
    cut.style.transform = `translateY(${fixed(scale.y(value))}px)`;
    cut.classList.toggle("none", !shown.budget);
    cut.firstChild.textContent = shown.budget ? whole(shown.budget) : "no budget";
    cut.setAttribute("aria-valuemin", "0");
    cut.setAttribute("aria-valuemax", String(scale.tokens));
    cut.setAttribute("aria-valuenow", String(shown.budget || scale.tokens));
    cut.setAttribute("aria-valuetext", shown.budget ? plural(shown.budget, "token") : "no budget");
    const { rank } = data;
    ranks.classList.toggle("old", !isExact() && (board.data.exact.above !== shown.above || board.data.exact.window !== shown.window));
    const documents = shown.budget && shown.budget < rank.tokens.at(-1) ? Math.ceil(between(rank.tokens, rank.documents, shown.budget)) : rank.hit;
    ranksNote.textContent = shown.budget && shown.budget < rank.tokens.at(-1)
      ? `The budget reaches about ${plural(documents, "document")} of ${whole(rank.hit)}.`
      : `${plural(rank.tokens.at(-1), "token")} in ${plural(rank.hit, "document")}.`;
  }
  function paintBrush() {
    const { range: chosen, scale } = board;
    brush.hidden = !chosen;
    clear.hidden = !chosen;
    from.show(chosen ? scoreText(chosen.low) : "");
    to.show(chosen ? scoreText(chosen.high) : "");
    inside.textContent = chosen ? `${board.drag ? "about " : ""}${plural(tokensInside(chosen), "token")}` : "Drag across the bars, click one, or type.";
    if (!chosen) return;
    const left = scale.x(Math.max(scale.low, chosen.low)), right = scale.x(Math.min(scale.high, chosen.high));
    brush.style.left = `${fixed(left)}px`;
    brush.style.width = `${fixed(Math.max(1, right - left))}px`;
  }
  const tokensInside = (chosen) => (!board.drag && board.data.inside !== null && board.data.inside !== undefined
    ? board.data.inside
    : Math.max(0, board.preview.aboveAt(chosen.low) - board.preview.aboveAt(chosen.high)));

  // ---- what the reader does ----
  function move(change) {
    board.from ??= board.data.exact.above;
    const window = board.shown.window;
    Object.assign(board.shown, change);
    board.shown.threshold = board.preview.thresholdAt(board.shown.above);
    if (board.shown.window !== window) drawEffect();
    later();
  }
  // A message has all changes that are not confirmed yet, since of two quick messages the server may see only the second.
  function send(change) {
    const places = ["above", "threshold"];
    if (places.some((key) => key in change)) for (const key of places) delete board.open[key];
    Object.assign(board.open, change);
    board.sent += 1;
    if ([...places, "window", "budget"].some((key) => key in change)) board.pending = board.preview.at(board.shown);
    board.component.setStateValue("choice", { seq: board.start + board.sent, ...board.open });
    later();
  }
  function chooseRange(chosen) {
    if (chosen && (chosen.low === null || chosen.high === null)) chosen = null;
    if (chosen && chosen.low > chosen.high) chosen = { low: chosen.high, high: chosen.low };
    board.range = chosen;
    board.data.inside = null;
    paintBrush();
    send({ low: chosen?.low ?? null, high: chosen?.high ?? null });
  }
  const inStack = (event) => event.clientX - stack.getBoundingClientRect().left;

  stack.onpointerdown = (event) => {
    if (event.button || !board.data) return;
    const point = event.composedPath()[0].dataset?.above;
    if (point) return takeAbove(Number(point));
    const x = inStack(event), onHandle = event.composedPath().includes(handle);
    const grab = onHandle || Math.abs(x - board.scale.x(board.now.threshold)) <= GRAB;
    const at = event.clientY - stack.getBoundingClientRect().top;
    if (!grab && at > HEIGHTS.bars + HEIGHTS.axis + HEIGHTS.marks) return;
    event.preventDefault();
    if (grab) handle.focus({ preventScroll: true });
    stack.setPointerCapture(event.pointerId);
    board.drag = grab
      ? { what: "handle", before: { ...board.shown }, start: x, offset: x - board.scale.x(board.now.threshold), moved: false }
      : { what: "brush", before: board.range, start: x, moved: false };
    if (grab) board.from = board.shown.above;
    root.classList.add("dragging");
  };
  stack.onpointermove = (event) => {
    const { drag, scale } = board;
    if (!drag || drag.what === "cut") return;
    const x = inStack(event);
    if (drag.what === "handle") {
      drag.moved = true;
      const home = Math.abs(x - drag.start) <= 2; // back in its place, which a pixel hits by luck alone
      move({ above: home ? drag.before.above : board.preview.aboveAt(scale.score(x - drag.offset)) });
    } else if (drag.moved || Math.abs(x - drag.start) > 3) {
      drag.moved = true;
      const [low, high] = [drag.start, x].sort((a, b) => a - b).map(scale.score);
      board.range = { low, high };
      requestAnimationFrame(paintBrush);
    }
  };
  const stop = () => { board.drag = null; root.classList.remove("dragging"); };
  stack.onpointerup = (event) => {
    const { drag } = board;
    if (!drag || drag.what === "cut") return;
    stop();
    if (drag.what === "handle") {
      if (drag.moved && drag.before.above !== board.shown.above) send({ above: board.shown.above });
      else later();
    } else if (drag.moved) chooseRange(board.range);
    else {
      const view = board.data.views[board.view], score = board.scale.score(drag.start);
      const bin = Math.max(0, view.right.findIndex((right) => score <= right));
      chooseRange({ low: view.left[bin], high: view.right[bin] });
    }
  };
  const cancel = () => {
    const { drag } = board;
    if (!drag) return;
    stop();
    if (drag.what === "brush") { board.range = drag.before; paintBrush(); }
    else { Object.assign(board.shown, drag.before); later(); }
  };
  stack.onpointercancel = cancel;

  // The keyboard: arrows by 1% of the tokens above (at least one token), pages by 10%; the result comes after the last key.
  // Until then an answer to an earlier key does not move the handle back.
  const settleSoon = (change) => { clearTimeout(board.timer); board.timer = setTimeout(() => { board.timer = 0; send(change()); }, 350); };
  handle.onkeydown = (event) => {
    if (event.key === "Escape") return cancel();
    const { above } = board.shown, by = (part) => Math.max(1, Math.round(above * part));
    const next = {
      ArrowRight: above - by(0.01), ArrowUp: above - by(0.01), ArrowLeft: above + by(0.01), ArrowDown: above + by(0.01),
      PageUp: above - by(0.1), PageDown: above + by(0.1), Home: board.preview.lowest, End: 1,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    move({ above: clampAbove(next) });
    settleSoon(() => ({ above: board.shown.above }));
  };
  cut.onpointerdown = (event) => {
    if (event.button) return;
    event.preventDefault();
    cut.focus({ preventScroll: true });
    cut.setPointerCapture(event.pointerId);
    board.drag = { what: "cut", before: { ...board.shown }, moved: false };
    root.classList.add("dragging");
  };
  cut.onpointermove = (event) => {
    if (board.drag?.what !== "cut") return;
    board.drag.moved = true;
    const value = Math.round(board.ranks.value(event.clientY - ranks.getBoundingClientRect().top));
    move({ budget: value >= board.ranks.tokens ? 0 : Math.max(1, value) });
  };
  cut.onpointerup = () => {
    const { drag } = board;
    if (drag?.what !== "cut") return;
    stop();
    if (drag.moved && drag.before.budget !== board.shown.budget) send({ budget: board.shown.budget });
    else later();
  };
  cut.onpointercancel = cancel;
  cut.onkeydown = (event) => {
    if (event.key === "Escape") return cancel();
    const most = board.ranks.tokens, now = board.shown.budget || most, by = Math.max(1, Math.round(most / 100));
    const next = { ArrowUp: now + by, ArrowRight: now + by, ArrowDown: now - by, ArrowLeft: now - by, PageUp: now + 10 * by, PageDown: now - 10 * by, Home: 1, End: most }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    move({ budget: next >= most ? 0 : Math.max(1, next) });
    settleSoon(() => ({ budget: board.shown.budget }));
  };

  // ---- what the page says ----
  function update(component) {
    const { data } = component, first = board.data?.id !== data.id;
    board.component = component;
    board.data = data;
    board.start ??= data.exact.seq;
    board.highest = data.highest;
    if (first) {
      board.preview = makePreview(data);
      board.from = board.pending = board.drag = null;
      figures.shards.box.hidden = !data.nShards;
      figures.outcome.box.hidden = figures.effect.box.hidden = Boolean(data.nShards); // no model has read them here
      figures.precision.box.hidden = figures.recall.box.hidden = data.nSpan === null;
      handle.setAttribute("aria-valuemin", String(data.lowest));
      handle.setAttribute("aria-valuemax", String(data.highest));
    } else board.preview = makePreview(data);
    const answered = first || (!board.timer && data.exact.seq >= board.start + board.sent);
    if (answered && board.drag?.what !== "handle" && board.drag?.what !== "cut") {
      if (first || board.pending) board.verdict = judge(board.pending, data.exact);
      board.pending = null;
      board.open = {};
      board.shown = { above: data.exact.above, window: data.exact.window, budget: data.exact.budget, threshold: data.exact.threshold };
      board.view = data.range;
      if (board.drag?.what !== "brush") board.range = data.low === null ? null : { low: data.low, high: data.high };
    }
    board.shown ??= { above: data.exact.above, window: data.exact.window, budget: data.exact.budget };
    board.labels = data.audit.open ? null : labelledShare(data.knots);
    audit.show(data.audit, data.veil);
    one.hidden = two.hidden = data.audit.open;
    root.classList.toggle("auditing", data.audit.open);
    edge.show(data.boundary, data.veil);
    doses.list(data.places);
    layOut();
  }
  new ResizeObserver(() => { if (Math.floor(stack.clientWidth) !== board.width) layOut(); }).observe(stack);
  return update;
}

export default function (component) {
  const { parentElement } = component;
  if (!boards.has(parentElement)) boards.set(parentElement, makeBoard(parentElement.querySelector(".root")));
  boards.get(parentElement)(component);
}

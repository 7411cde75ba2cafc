// The drawings of the Threshold page, as SVG coloured by the theme. They are redrawn only when the data or the width change;
// dragging moves what is on top of them.
const SVG = "http://www.w3.org/2000/svg";
const LEFT = 46, RIGHT = 10; // room for the numbers beside a plot, in px

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

function shape(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const fixed = (value) => value.toFixed(1);

// Scores to px and back. The compressed axis is asinh(score / unit): nearly linear near 0, logarithmic further out.
function makeScale(low, high, unit, width) {
  const bend = unit ? (score) => Math.asinh(score / unit) : (score) => score;
  const straighten = unit ? (value) => Math.sinh(value) * unit : (value) => value;
  const first = bend(low), span = bend(high) - first || 1, inner = Math.max(1, width - LEFT - RIGHT);
  return {
    low, high, right: width - RIGHT,
    x: (score) => LEFT + ((bend(score) - first) / span) * inner,
    score: (x) => straighten(first + (Math.max(0, Math.min(inner, x - LEFT)) / inner) * span),
  };
}

function niceStep(span, nTicks) {
  const rough = span / nTicks, power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
}

function scoreTicks(scale, unit) {
  const ticks = [];
  if (!unit) {
    const step = niceStep(scale.high - scale.low, Math.max(3, (scale.right - LEFT) / 90));
    for (let i = Math.ceil(scale.low / step); i * step <= scale.high; i++) ticks.push(i * step);
    return ticks.map((value) => [value, `${value < 0 ? "−" : ""}${Number(Math.abs(value).toPrecision(6))}`]);
  }
  for (let power = -3; power <= 9; power++) for (const factor of [1, 2, 5]) ticks.push(factor * 10 ** power, -factor * 10 ** power);
  let last = -Infinity;
  return [0, ...ticks]
    .filter((value) => value >= scale.low && value <= scale.high)
    .sort((a, b) => a - b)
    .filter((value) => scale.x(value) - last > 46 && (value === 0 || Math.abs(scale.x(value) - scale.x(0)) > 46) && ((last = scale.x(value)), true))
    .map((value) => [value, `${value < 0 ? "−" : ""}${Number(Math.abs(value).toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 6 })}`]);
}

const shortCount = (value) =>
  value >= 1e9 ? `${value / 1e9}B` : value >= 1e6 ? `${value / 1e6}M` : value >= 1e3 ? `${value / 1e3}k` : `${value}`;

// Bars over a logarithmic count axis: one path for the scores above the median, and one for the others. Returns
// the height of a count.
function drawBars(layers, bins, middle, scale, height, top) {
  const most = Math.max(1, ...bins.count);
  const room = height - top, all = Math.log10(most) + 0.35;
  const y = (count) => height - ((Math.log10(count) + 0.3) / all) * room;
  const paths = { less: "", more: "" };
  bins.count.forEach((count, i) => {
    if (!count) return;
    const left = scale.x(bins.left[i]), right = scale.x(bins.right[i]);
    const side = bins.left[i] + bins.right[i] > 2 * middle ? "more" : "less";
    paths[side] += `M${fixed(left)} ${height}V${fixed(y(count))}H${fixed(Math.max(left + 0.7, right))}V${height}Z`;
  });
  for (const layer of layers) layer.replaceChildren(...Object.entries(paths).map(([side, d]) => shape("path", { class: side, d })));
  return { y, most };
}

function drawAxes(svg, scale, unit, width, height, counts) {
  const parts = [];
  for (let power = 0; 10 ** power <= counts.most; power++) {
    const y = fixed(counts.y(10 ** power));
    parts.push(shape("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
    parts.push(shape("text", { class: "tick", x: LEFT - 7, y: Number(y) + 3.5, "text-anchor": "end" }, shortCount(10 ** power)));
  }
  parts.push(shape("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: height, y2: height }));
  for (const [value, label] of scoreTicks(scale, unit)) {
    const x = fixed(scale.x(value));
    parts.push(shape("line", { class: "axis", x1: x, x2: x, y1: height, y2: height + 4 }));
    parts.push(shape("text", { class: "tick", x, y: height + 17, "text-anchor": "middle" }, label));
  }
  svg.replaceChildren(...parts);
}

// A line over the score axis with a linear axis of its own; points with null are left out.
function drawCurve(svg, xs, ys, scale, width, height, { zero = true } = {}) {
  const points = xs.map((x, i) => [scale.x(x), ys[i]]).filter(([x, y], i) => y !== null && xs[i] >= scale.low && xs[i] <= scale.high);
  const values = points.map(([, y]) => y);
  const least = Math.min(zero ? 0 : Infinity, ...values), most = Math.max(zero ? 0 : -Infinity, ...values);
  const y = (value) => height - 8 - ((value - least) / (most - least || 1)) * (height - 38);
  const parts = [];
  const step = niceStep(most - least || 1, 3);
  for (let i = Math.ceil(least / step); i * step <= most + 1e-9 * step; i++) {
    const at = fixed(y(i * step));
    parts.push(shape("line", { class: i ? "grid" : "axis", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
    const size = Math.abs(i * step);
    const label = size >= 1000 ? shortCount(Number(size.toPrecision(3))) : `${Number(size.toPrecision(3))}`;
    parts.push(shape("text", { class: "tick", x: LEFT - 7, y: Number(at) + 3.5, "text-anchor": "end" }, `${i < 0 ? "−" : ""}${label}`));
  }
  if (points.length) {
    const line = points.map(([x, value], i) => `${i ? "L" : "M"}${fixed(x)} ${fixed(y(value))}`).join("");
    parts.push(shape("path", { class: "curve", d: line }));
  }
  svg.replaceChildren(...parts);
  return y;
}

// Precision by threshold, from 0 to 100%. The audit's rows are score, tokens above, value, low, high; those of human labels are
// score, value.
function drawPrecision(svg, { audit, labels }, scale, width, height) {
  const y = (value) => height - 8 - value * (height - 40);
  const line = (points) => points.map(([x, at], i) => `${i ? "L" : "M"}${fixed(scale.x(x))} ${fixed(y(at))}`).join("");
  const [judged, labelled] = [audit, labels].map((rows) => rows.filter(([x]) => x >= scale.low && x <= scale.high));
  const parts = [0, 0.5, 1].flatMap((value) => {
    const at = fixed(y(value));
    return [
      shape("line", { class: value ? "grid" : "axis", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }),
      shape("text", { class: "tick", x: LEFT - 7, y: Number(at) + 3.5, "text-anchor": "end" }, `${value * 100}%`),
    ];
  });
  if (judged.length) {
    const low = judged.map((row) => [row[0], row[3]]), high = judged.map((row) => [row[0], row[4]]).reverse();
    parts.push(shape("path", { class: "band", d: `${line([...low, ...high])}Z` }));
  }
  parts.push(shape("path", { class: "labels", d: line(labelled) }));
  parts.push(shape("path", { class: "curve", d: line(judged.map((row) => [row[0], row[2]])) }));
  svg.replaceChildren(...parts);
  return y;
}

// The selected tokens' count over the documents in order of their rank, and the budget's line.
function drawRanks(svg, rank, width, height, most) {
  const right = width - RIGHT, bottom = height - 22, top = 12;
  const documents = Math.max(1, rank.documents.at(-1)), tokens = Math.max(1, most);
  const x = (value) => LEFT + (value / documents) * (right - LEFT);
  const y = (value) => bottom - (Math.min(value, tokens) / tokens) * (bottom - top);
  const parts = [shape("line", { class: "axis", x1: LEFT, x2: right, y1: bottom, y2: bottom })];
  for (const value of [0, documents]) {
    parts.push(shape("text", { class: "tick", x: fixed(x(value)), y: bottom + 15, "text-anchor": value ? "end" : "start" }, whole(value)));
  }
  const step = niceStep(tokens, 3);
  for (let i = 1; i * step <= tokens; i++) {
    const at = fixed(y(i * step));
    parts.push(shape("line", { class: "grid", x1: LEFT, x2: right, y1: at, y2: at }));
    parts.push(shape("text", { class: "tick", x: LEFT - 7, y: Number(at) + 3.5, "text-anchor": "end" }, shortCount(Number((i * step).toPrecision(4)))));
  }
  const line = rank.documents.map((value, i) => `${i ? "L" : "M"}${fixed(x(value))} ${fixed(y(rank.tokens[i]))}`).join("");
  parts.push(shape("path", { class: "curve", d: line }));
  svg.replaceChildren(...parts);
  return { x, y, tokens, bottom, top, value: (at) => ((bottom - Math.max(top, Math.min(bottom, at))) / (bottom - top)) * tokens };
}

// One mark for each token of the chosen document, stacked where they overlap.
function drawMarks(svg, scores, scale, width, height) {
  const piles = new Map();
  const parts = [];
  for (const score of scores) {
    if (score < scale.low || score > scale.high) continue;
    const column = Math.round(scale.x(score) / 5) * 5;
    const level = piles.get(column) ?? 0;
    piles.set(column, level + 1);
    const y = height - 5 - Math.min(level, 4) * 4;
    if (level < 5) parts.push(shape("path", { class: "mark", d: `M${column} ${y - 3.5}l3 3.5l-3 3.5l-3 -3.5Z` }));
  }
  svg.replaceChildren(...parts);
}

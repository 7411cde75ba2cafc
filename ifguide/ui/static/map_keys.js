// Keyboard control of the map, a Plotly chart above this line: arrow keys go to the nearest point in their direction, Enter
// opens its document.
const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const HINT = "Arrow keys go from point to point, Enter opens the document.";
const plain = (text) => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");

// The visible points, in pixels from the chart's corner.
function pointsOf(chart) {
  const points = [], { xaxis, yaxis } = chart?._fullLayout ?? {};
  for (const trace of xaxis ? chart._fullData : []) {
    for (let i = 0; i < trace.x.length; i += 1) {
      const x = xaxis.c2p(trace.x[i]), y = yaxis.c2p(trace.y[i]);
      if (x < 0 || y < 0 || x > xaxis._length || y > yaxis._length) continue;
      const [document, rank, taken] = trace.customdata[i];
      points.push({ x: x + xaxis._offset, y: y + yaxis._offset, document, rank, taken, text: trace.text[i] });
    }
  }
  return points;
}

// The nearest point in the quarter around a direction; sideways distance counts double.
function nearest(points, from, [right, down]) {
  let best = from, least = Infinity;
  for (const point of points) {
    const dx = point.x - from.x, dy = point.y - from.y;
    const ahead = dx * right + dy * down, beside = Math.abs(dx * down + dy * right);
    if (ahead > 0 && beside <= ahead && ahead + 2 * beside < least) [best, least] = [point, ahead + 2 * beside];
  }
  return best;
}

export default function (component) {
  const { parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  const chart = () => document.querySelector(".st-key-map .js-plotly-plot");
  if (!root.firstChild) {
    root.innerHTML = `
      <div class="keys" tabindex="0" role="application" aria-label="Points of the map">
        <span class="status" aria-live="polite"></span>
      </div>
      <span class="ring" hidden></span>`;
    root.querySelector(".status").textContent = HINT;
  }
  const [keys, status, ring] = ["keys", "status", "ring"].map((name) => root.querySelector(`.${name}`));
  const find = (points) => points.find((point) => String(point.document) === root.dataset.at);
  const show = (point) => {
    ring.hidden = !point || root.getRootNode().activeElement !== keys;
    if (ring.hidden) return;
    const here = root.getBoundingClientRect(), there = chart().getBoundingClientRect();
    ring.style.left = `${there.left - here.left + point.x}px`;
    ring.style.top = `${there.top - here.top + point.y}px`;
  };
  keys.onfocus = () => show(find(pointsOf(chart())));
  keys.onblur = () => show(null);
  keys.onkeydown = (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in WAYS || event.key === "Enter")) return;
    event.preventDefault();
    const points = pointsOf(chart()), at = find(points);
    if (event.key === "Enter") {
      if (at) setTriggerValue("pick", at.document);
      return;
    }
    const first = points.reduce((a, b) => (a && a.rank <= b.rank ? a : b), null); // the best-ranked visible one
    const next = at ? nearest(points, at, WAYS[event.key]) : first;
    if (!next) return;
    root.dataset.at = next.document;
    const [rank, taken] = [next.rank, next.taken].map((number) => number.toLocaleString("en"));
    status.textContent = `${plain(next.text)} · rank ${rank}, selected tokens: ${taken}`;
    show(next);
  };
  show(find(pointsOf(chart())));
}

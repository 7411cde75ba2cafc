// The map of documents. Its three parts come as calls of one component, so that each is sent only when it changes: "places" has the
// points and the canvas, "light" their colours and which of them stand out, "told" the document at the pointer.
const map = { views: new Map(), light: null, told: null, above: null, update: () => {}, tell: () => {} };
const LIT = 128, REACH = 9, CLOSEST = 400; // LIT: bit of a colour; REACH: px from a point that still point at it; CLOSEST: most zoom
const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const HINT = "Drag to move, Shift and drag for a box. Keys: arrows move, + and − zoom, 0 shows all, Enter opens the box.";
const whole = (value) => value.toLocaleString("en");

// While the threshold is dragged, documents light up by their highest token; `above` is null once the exact result is there.
window.addEventListener("ifguide-threshold", ({ detail }) => { map.above = detail; map.update(); });

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// A CSS colour as the number that a pixel has in an ImageData (ABGR).
function pixelOf(context, colour) {
  context.fillStyle = colour;
  const [r, g, b] = context.fillStyle.match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16));
  return (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
}

// A disc: each pixel's place from its middle in a picture of some width, and how much of it is covered, up to 256. Paler ones are left out.
function makeDisc(radius, width, strength) {
  const reach = Math.ceil(radius), offsets = [], covers = [];
  for (let y = -reach; y <= reach; y += 1) {
    for (let x = -reach; x <= reach; x += 1) {
      const cover = Math.round(256 * strength * Math.max(0, Math.min(1, radius + 0.5 - Math.hypot(x, y))));
      if (cover > 16) { offsets.push(y * width + x); covers.push(cover); }
    }
  }
  return { reach, offsets: Int32Array.from(offsets), covers: Int32Array.from(covers) };
}

function makeMap(root, component) {
  const state = { data: null, x: null, y: null, best: null, view: null, tool: "move", drag: null, box: null, near: -1, frame: 0, timer: 0, component };
  const box = element("div", "map"), canvas = element("canvas", "points"), tip = element("div", "tip"), status = element("div", "status soft num");
  const tools = element("div", "tools"), about = element("p", "unseen"), legend = element("div", "legend num");
  const context = canvas.getContext("2d", { alpha: false });
  let image = null, pixels = null, ratio = 1, width = 0, height = 0; // width and height in CSS px
  about.id = "about";
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-describedby", "about");
  status.setAttribute("role", "status");
  tip.hidden = true;
  const tool = (sign, label, act) => {
    const made = element("button", "quiet", sign);
    made.title = label;
    made.setAttribute("aria-label", label);
    made.onclick = act;
    tools.append(made);
    return made;
  };
  const boxing = tool("Box", "Draw a box around documents", () => {
    state.tool = state.tool === "box" ? "move" : "box";
    boxing.setAttribute("aria-pressed", String(state.tool === "box"));
    canvas.classList.toggle("boxing", state.tool === "box");
  });
  boxing.setAttribute("aria-pressed", "false");
  tool("+", "Zoom in", () => zoom(1.5));
  tool("−", "Zoom out", () => zoom(1 / 1.5));
  tool("Fit", "Show all documents", () => fit());
  const clear = tool("Clear box", "Remove the box", () => sendBox(null));
  box.append(canvas, tools, tip);
  root.replaceChildren(legend, box, status, about);

  // ---- places and pixels: the map's middle is (0.5, 0.5) of its ends, and zoom 1 shows it all ----
  const across = () => width * 0.94 * state.view.zoom / (state.data.ends[1] - state.data.ends[0] || 1);
  const down = () => -height * 0.9 * state.view.zoom / (state.data.ends[3] - state.data.ends[2] || 1);
  const toX = (x) => (x - state.view.x) * across() + width / 2;
  const toY = (y) => (y - state.view.y) * down() + height / 2;
  const fromX = (px) => (px - width / 2) / across() + state.view.x;
  const fromY = (py) => (py - height / 2) / down() + state.view.y;
  const later = () => { if (!state.frame) state.frame = requestAnimationFrame(paint); };

  function fit() {
    const [left, right, low, high] = state.data.ends;
    Object.assign(state.view, { x: (left + right) / 2, y: (low + high) / 2, zoom: 1 });
    point(-1);
    later();
  }
  function zoom(by, px = width / 2, py = height / 2) {
    const { view } = state, x = fromX(px), y = fromY(py);
    view.zoom = Math.max(0.5, Math.min(CLOSEST, view.zoom * by));
    view.x += x - fromX(px);
    view.y += y - fromY(py);
    later();
  }
  function pan(dx, dy) {
    const { view, data: { ends } } = state, keep = (value, low, high) => Math.max(low, Math.min(high, value));
    view.x = keep(view.x - dx / across(), ends[0], ends[1]);
    view.y = keep(view.y - dy / down(), ends[2], ends[3]);
    later();
  }

  // ---- drawing: every frame is drawn whole, into one array of pixels ----
  function paint() {
    state.frame = 0;
    if (!width || !map.light || map.light.colours.length !== state.x?.length) return;
    const { x, y, best } = state, { colours, palette, live } = map.light, above = live ? map.above : null;
    const style = getComputedStyle(root), ground = style.getPropertyValue("--ground"), ink = style.getPropertyValue("--ink");
    const wide = canvas.width, high = canvas.height, inks = palette.map((colour) => pixelOf(context, colour));
    const ax = across() * ratio, bx = toX(0) * ratio, ay = down() * ratio, by = toY(0) * ratio;
    const radius = ratio * Math.max(1, Math.min(4, Math.sqrt(width * height / x.length) / 9)) * Math.min(3, state.view.zoom ** 0.3);
    pixels.fill(pixelOf(context, ground));
    for (const lit of [false, true]) {
      const { reach, offsets, covers } = makeDisc(lit ? 1.5 * radius : radius, wide, lit ? 0.9 : 0.45), size = offsets.length;
      for (let i = 0; i < x.length; i += 1) {
        const colour = colours[i];
        if ((above === null ? colour >= LIT : best[i] < above) !== lit) continue;
        const px = (x[i] * ax + bx) | 0, py = (y[i] * ay + by) | 0;
        if (px < reach || py < reach || px >= wide - reach || py >= high - reach) continue;
        const at = py * wide + px, fresh = inks[colour & (LIT - 1)], blue = fresh & 0xff00ff, green = fresh & 0xff00;
        for (let k = 0; k < size; k += 1) {
          const place = at + offsets[k], cover = covers[k], old = pixels[place], rest = 256 - cover;
          pixels[place] = 0xff000000 | ((((old & 0xff00ff) * rest + blue * cover) >>> 8) & 0xff00ff) | ((((old & 0xff00) * rest + green * cover) >>> 8) & 0xff00);
        }
      }
    }
    context.putImageData(image, 0, 0);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    drawNames(style, ground, ink);
    context.lineWidth = 2;
    context.strokeStyle = ink;
    if (state.box) {
      const [left, right, low, top] = state.box, place = [toX(left), toY(low), toX(right) - toX(left), toY(top) - toY(low)];
      context.globalAlpha = 0.08;
      context.fillStyle = ink;
      context.fillRect(...place);
      context.globalAlpha = 1;
      context.strokeRect(...place);
    }
    if (state.near >= 0) {
      context.beginPath();
      context.arc(toX(x[state.near]), toY(y[state.near]), 1.5 * radius / ratio + 4, 0, 7);
      context.stroke();
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    showTip();
    if (canvas.dataset.drawn !== String(x.length)) canvas.dataset.drawn = x.length;
  }
  function drawNames(style, ground, ink) {
    const placed = [];
    Object.assign(context, { font: `600 13px ${style.fontFamily}`, textAlign: "center", textBaseline: "middle", lineJoin: "round", lineWidth: 4, strokeStyle: ground, fillStyle: ink });
    for (const [x, y, text] of state.data.names) {
      const half = context.measureText(text).width / 2, px = Math.max(half + 4, Math.min(width - half - 4, toX(x))), py = toY(y);
      const hides = placed.some((other) => Math.abs(other.py - py) < 18 && Math.abs(other.px - px) < other.half + half);
      if (hides || toX(x) < 0 || toX(x) > width || py < 10 || py > height - 10) continue;
      placed.push({ px, py, half });
      context.strokeText(text, px, py);
      context.fillText(text, px, py);
    }
  }

  // ---- what is under the pointer, and in the box ----
  function nearest(px, py, reach) {
    let best = -1, least = reach * reach;
    const ax = across(), ay = down(), bx = toX(0) - px, by = toY(0) - py;
    for (let i = 0; i < state.x.length; i += 1) {
      const dx = state.x[i] * ax + bx, dy = state.y[i] * ay + by, far = dx * dx + dy * dy;
      if (far <= least) [best, least] = [i, far];
    }
    return best;
  }
  function point(row, wait = 120) {
    if (row === state.near) return;
    state.near = row;
    canvas.classList.toggle("pointing", row >= 0);
    clearTimeout(state.timer);
    if (row >= 0) state.timer = setTimeout(() => map.tell(row), wait);
    later();
  }
  function showTip() {
    const { told } = map, px = toX(state.x[state.near] ?? 0), py = toY(state.y[state.near] ?? 0);
    tip.hidden = state.near < 0 || told?.row !== state.near || Boolean(state.drag);
    if (tip.hidden) return;
    const text = element("div", told.veil === "all" ? "runs veil" : "runs");
    if (told.veil === "all") text.setAttribute("aria-hidden", "true");
    text.append(...told.runs.map(([run, mark]) => {
      const part = element(mark === 1 ? "mark" : "span", told.veil === "words" && mark ? "veil" : "", run);
      if (told.veil && mark) part.setAttribute("aria-hidden", "true");
      return part;
    }));
    tip.replaceChildren(element("strong", "", told.title), element("div", "soft num", told.facts), text);
    tip.style.left = `${Math.max(4, Math.min(width - tip.offsetWidth - 4, px + 14))}px`;
    tip.style.top = `${py + tip.offsetHeight + 24 > height ? Math.max(4, py - tip.offsetHeight - 14) : py + 14}px`;
  }
  function sayCount() {
    const { box: inside, x, y } = state;
    let count = 0;
    if (inside) for (let i = 0; i < x.length; i += 1) count += x[i] >= inside[0] && x[i] <= inside[1] && y[i] >= inside[2] && y[i] <= inside[3];
    status.textContent = inside ? `${whole(count)} ${count === 1 ? "document" : "documents"} in the box. Enter opens them in Documents, Escape removes the box.` : HINT;
    clear.hidden = !inside;
  }
  const wordsOf = (ends) => ends.map((end) => Number(end.toPrecision(9))).join(",");
  function sendBox(ends) {
    state.box = ends;
    sayCount();
    later();
    state.component.setStateValue("box", ends ? { id: state.data.id, ends: wordsOf(ends) } : null);
  }
  const leave = (act, value) => { clearTimeout(state.timer); state.component.setTriggerValue(act, value); }; // to another page
  const here = (event) => { const at = canvas.getBoundingClientRect(); return [event.clientX - at.left, event.clientY - at.top]; };

  canvas.onpointerdown = (event) => {
    if (event.button || !state.x) return;
    const [px, py] = here(event), what = state.tool === "box" || event.shiftKey ? "box" : "move";
    canvas.setPointerCapture(event.pointerId);
    state.drag = { what, px, py, lastX: px, lastY: py, moved: false, before: state.box };
    canvas.focus({ preventScroll: true });
  };
  canvas.onpointermove = (event) => {
    const { drag } = state, [px, py] = here(event);
    if (!state.x) return;
    if (!drag) return point(nearest(px, py, REACH));
    if (!drag.moved && Math.hypot(px - drag.px, py - drag.py) <= 3) return;
    drag.moved = true;
    if (drag.what === "move") pan(px - drag.lastX, py - drag.lastY);
    else {
      const [left, right] = [fromX(drag.px), fromX(px)].sort((a, b) => a - b), [low, top] = [fromY(drag.py), fromY(py)].sort((a, b) => a - b);
      state.box = [left, right, low, top];
      sayCount();
      later();
    }
    Object.assign(drag, { lastX: px, lastY: py });
  };
  canvas.onpointerup = () => {
    const { drag } = state;
    state.drag = null;
    if (drag?.moved && drag.what === "box") sendBox(state.box);
    else if (drag && !drag.moved && state.near >= 0) leave("pick", state.near);
    later();
  };
  canvas.onpointercancel = () => { if (state.drag) state.box = state.drag.before; state.drag = null; sayCount(); later(); };
  canvas.onpointerleave = () => { if (!state.drag) point(-1); };
  canvas.ondblclick = (event) => zoom(2, ...here(event));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && root.getRootNode().activeElement !== canvas) return; // the page scrolls
    event.preventDefault();
    zoom(Math.exp(-Math.max(-150, Math.min(150, event.deltaY)) / 300), ...here(event));
  }, { passive: false });
  canvas.onkeydown = (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !state.x) return;
    const step = WAYS[event.key];
    if (step) pan(-step[0] * width / 10, -step[1] * height / 10);
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0" || event.key === "Home") fit();
    else if (event.key === "Escape") { point(-1); if (state.box) sendBox(null); }
    else if (event.key === "Enter") leave("open", wordsOf(state.box ?? [fromX(0), fromX(width), fromY(height), fromY(0)]));
    else return;
    event.preventDefault();
    if (step || event.key === "+" || event.key === "=" || event.key === "-") point(nearest(width / 2, height / 2, 60)); // told as under a pointer
  };

  function layOut() {
    if (!canvas.clientWidth) return;
    [width, height, ratio] = [canvas.clientWidth, canvas.clientHeight, Math.min(2, window.devicePixelRatio || 1)];
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    image = context.createImageData(canvas.width, canvas.height);
    pixels = new Uint32Array(image.data.buffer);
  }
  new ResizeObserver(() => { layOut(); if (state.view) paint(); }).observe(canvas);

  function showLight() {
    const { title, legend: rows, lit } = map.light;
    legend.replaceChildren(element("strong", "", title), ...rows.filter((row) => row[2]).map(([label, colour, count]) => {
      const row = element("span", "entry"), dot = element("i");
      dot.style.background = colour;
      row.append(dot, element("span", "", label), element("span", "soft", whole(count)));
      return row;
    }), element("span", "soft", `Large: ${lit}`));
    canvas.setAttribute("aria-label", `Map of ${whole(state.x.length)} documents. Large: ${lit}.`);
  }
  return (now, data) => {
    state.component = now;
    if (data) {
      if (state.data?.id !== data.id) { state.box = null; state.near = -1; }
      const fresh = !map.views.has(data.id);
      [state.x, state.y, state.best] = ["x", "y", "best"].map((name) => data.table.getChild(name).toArray());
      state.data = data;
      if (fresh) map.views.set(data.id, {});
      state.view = map.views.get(data.id);
      if (fresh) fit();
      about.textContent = data.names.length ? `Groups of similar documents: ${data.names.map((name) => name[2]).join("; ")}.` : "";
      sayCount();
    }
    if (map.light && state.x) showLight();
    later();
  };
}

const drawn = new WeakMap();
export default function (component) {
  const { data, parentElement } = component, root = parentElement.querySelector(".root");
  if (data.part === "places") {
    if (!drawn.has(root)) drawn.set(root, makeMap(root, component));
    const update = drawn.get(root);
    map.update = (changed) => update(component, changed);
    map.update(data);
    return;
  }
  if (data.part === "light") map.light = { ...data, colours: data.table.getChild("colour").toArray(), palette: data.legend.map((row) => row[1]) };
  else {
    map.told = data;
    map.tell = (row) => component.setStateValue("near", row);
  }
  map.update();
}

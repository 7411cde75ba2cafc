// Measured models on the Threshold page, below the distribution, and the places that the handle can be sent to.
// What measured models do, by the tokens above their thresholds: toxic answers with intervals, and below how much perplexity
// rises. Trained models are dots, edited ones rings; between two made alike, a dashed line and a band are interpolations.
function drawDose(svg, { points, lines }, xOf, width, height) {
  const top = 54, middle = height - 58, bottom = height - 10, right = width - RIGHT;
  const rises = [...points, ...lines].flatMap(({ rise }) => rise).filter((value) => value !== null);
  const least = Math.min(0, ...rises), most = Math.max(0.01, ...rises);
  const share = (value) => middle - value * (middle - top);
  const rise = (value) => bottom - ((value - least) / (most - least)) * (bottom - middle - 16);
  const grid = (y, label, axis) => [
    shape("line", { class: axis ? "axis" : "grid", x1: LEFT, x2: right, y1: fixed(y), y2: fixed(y) }),
    shape("text", { class: "tick", x: LEFT - 7, y: y + 3.5, "text-anchor": "end" }, label),
  ];
  const parts = [0, 0.5, 1].flatMap((value) => grid(share(value), `${value * 100}%`, !value));
  if (rises.length) parts.push(...grid(rise(0), "±0%", true), ...grid(rise(most), `+${Number((100 * most).toPrecision(2))}%`));
  if (rises.length) parts.push(shape("text", { class: "tick", x: LEFT + 6, y: middle + 17 }, "Perplexity"));
  const path = (xs, ys, y) => xs.map((x, i) => [xOf(x), ys[i]]).filter(([x, value]) => x !== null && value !== null)
    .map(([x, value], i) => `${i ? "L" : "M"}${fixed(x)} ${fixed(y(value))}`).join("");
  for (const line of lines) {
    const back = (list) => [...list].reverse();
    const band = path([...line.above, ...back(line.above)], [...line.low, ...back(line.high)], share);
    parts.push(shape("path", { fill: line.colour, "fill-opacity": 0.12, d: band && `${band}Z` }));
    for (const d of [path(line.above, line.value, share), path(line.above, line.rise, rise)]) {
      parts.push(shape("path", { class: "between", stroke: line.colour, d }));
    }
  }
  for (const point of points) {
    const x = xOf(point.above), [value, low, high] = point.tp;
    if (x === null) continue;
    parts.push(shape("line", { stroke: point.colour, "stroke-width": 1.5, x1: fixed(x), x2: fixed(x), y1: fixed(share(low)), y2: fixed(share(high)) }));
    for (const y of [share(value), ...(point.rise === null ? [] : [rise(point.rise)])]) {
      const dot = shape("circle", { class: point.trained ? "" : "edited", cx: fixed(x), cy: fixed(y), r: 4.5, fill: point.colour, stroke: point.colour });
      parts.push(dot);
      if (y !== share(value)) continue;
      const text = `${point.name}: ${point.title}, ${point.trained ? "retrained" : "edited"}, ${whole(point.above)} tokens above the threshold. Go there`;
      for (const [name, worth] of Object.entries({ role: "button", tabindex: 0, "aria-label": text })) dot.setAttribute(name, worth);
      dot.dataset.above = point.above;
      dot.append(shape("title", {}, text));
    }
  }
  svg.replaceChildren(...parts);
}

// What is known at a threshold from models of one kind of scores: measured there, or interpolated.
function doseText(lines, kind, above) {
  const per = (value) => Math.round(100 * value);
  const here = lines.filter((line) => line.kind === kind && above >= line.above[0] && above <= line.above.at(-1));
  if (!here.length) return "No model was measured around this threshold";
  return here.map((line) => {
    const sign = line.trained ? "●" : "○", place = placeOf(line.measured, above);
    const [value, low, high, rise] = ["value", "low", "high", "rise"].map((name) => between(line.above, line[name], above));
    const fluency = rise === null ? "" : `, ${rise < 0 ? "−" : "+"}${Math.abs(100 * rise).toFixed(1)}% perplexity`;
    const known = line.measured[place] === above ? "measured" : `interpolated between ${whole(line.measured[place])} and ${whole(line.measured[place + 1])} tokens`;
    return `${sign} ${per(value)}% [${per(low)}, ${per(high)}] toxic answers${fluency}, ${known}`;
  }).join(" · ");
}

// Their drawing in an svg of the stack, the line above it, and the row of places; `take` moves the handle.
function makeDoses(svg, take) {
  const title = element("div", "inlay doses"), now = element("span", "num"), legend = element("div", "soft small"), places = element("div", "places");
  title.append(now, legend);
  svg.removeAttribute("aria-hidden"); // its points are buttons
  svg.setAttribute("role", "group");
  svg.setAttribute("aria-label", "Measured models");
  svg.onkeydown = (event) => { if (event.key === "Enter" && event.target.dataset.above) take(Number(event.target.dataset.above)); };

  function draw(dose, xOf, width, height) {
    drawDose(svg, dose, xOf, width, height);
    title.hidden = !dose.points.length;
    const kinds = new Map(dose.lines.map((line) => [line.title, line.colour]));
    legend.replaceChildren("● retrained  ○ edited, not retrained  ┄ interpolated", ...(kinds.size < 2 ? [] : [...kinds].flatMap(([name, colour]) => {
      const sign = element("span", "", "  ■ ");
      sign.style.color = colour;
      return [sign, name];
    })));
  }
  function list(suggested) {
    places.hidden = !suggested.length;
    places.replaceChildren(element("span", "soft", "Go to"), ...suggested.map(({ above, label, note }) => {
      const button = element("button", "quiet num", `${label}: ${whole(above)}`);
      button.title = `${note}: ${plural(above, "token")} above the threshold.`;
      button.value = above;
      button.onclick = () => take(above);
      return button;
    }));
  }
  function paint({ dose, kind }, above) {
    now.textContent = doseText(dose.lines, kind, above);
    for (const button of places.querySelectorAll("button")) button.disabled = Number(button.value) === above;
  }
  return { title, places, draw, list, paint };
}

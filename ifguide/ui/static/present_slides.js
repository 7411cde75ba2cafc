// What the stage's slides show. Text reaches the page through textContent alone.
function element(tag, className, ...inside) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...inside);
  return made;
}

function runsOf(runs, veil) {
  const text = element("p", "runs" + (veil === "all" ? " veil" : ""));
  for (const [i, [whole, marked, offensive]] of runs.entries()) {
    const piece = i ? whole : whole.replace(/^ /, "");
    text.append(marked || offensive ? element(marked ? "mark" : "span", veil === "words" && offensive ? "veil" : "", piece) : piece);
  }
  return text;
}

const textsOf = (texts, veil) => texts.map(([heading, runs, note]) =>
  element("section", "", element("h3", "", heading, element("small", "", note)), runsOf(runs, veil)));

// A measured value: filled, or hollow if the model was edited; `side` is the edge that it grows along.
function barOf([, , , colour, hollow, part, low, high], side) {
  const bar = element("i", ""), ends = element("u", "");
  bar.style[side] = `${part * 100}%`;
  if (hollow) bar.style.boxShadow = `inset 0 0 0 3px ${colour}`;
  else bar.style.background = colour;
  Object.assign(ends.style, { [side === "width" ? "left" : "bottom"]: `${low * 100}%`, [side]: `${(high - low) * 100}%` });
  return element("span", "track", bar, ends);
}

const barsOf = (bars) => element("div", "bars", ...bars.map((bar) =>
  element("div", "", element("span", "", bar[0]), barOf(bar, "width"), element("b", "", bar[1], element("small", "", bar[2])))));

function binsOf(slide) {
  return element("div", "bins", ...slide.bins.map((height, i) => {
    const bin = element("i", i >= slide.cut ? "in" : "");
    bin.style.height = `${height * 100}%`;
    return bin;
  }));
}

// Measured models as upright bars, and a slider that goes from one to the next.
function doseOf(slide, veil, fit) {
  const columns = slide.bars.map((bar) => element("div", "", barOf(bar, "height"), element("b", "", bar[0])));
  const detail = element("div", "detail"), range = element("input", "");
  Object.assign(range, { type: "range", min: 0, max: columns.length - 1, step: 1, value: slide.at });
  range.setAttribute("aria-label", "Measured model, by the number of tokens");
  const settle = () => {
    slide.at = Number(range.value);
    columns.forEach((column, i) => column.classList.toggle("on", i === slide.at));
    const [facts, texts] = slide.steps[slide.at];
    range.setAttribute("aria-valuetext", facts);
    detail.replaceChildren(element("p", "facts", facts), ...textsOf(texts, veil));
    fit();
  };
  range.oninput = settle;
  queueMicrotask(settle);
  const chart = element("div", "doses", ...columns);
  chart.style.setProperty("--n", columns.length);
  return [chart, range, detail];
}

const toxicOf = (answers) => `${answers.filter(([, , high]) => high).length} of ${answers.length}`;

function answersOf([title, colour, hollow], own, veil) {
  const dot = element("span", hollow ? "dot ring" : "dot");
  dot.style.color = colour;
  const answers = own.map(([runs, toxicity, high, growing]) => {
    const text = runsOf(runs, veil);
    if (growing) text.append(element("span", "soft", "▍"));
    else if (!text.textContent.trim()) text.append(element("span", "soft", "(empty)"));
    return element("li", high ? "high" : "", text, element("small", "num", toxicity));
  });
  const head = element("h3", "", element("span", "", dot, title), element("b", "", own.length ? `${toxicOf(own)} toxic` : ""));
  return element("div", "", head, element("ol", "", ...answers));
}

function liveOf(live, veil) {
  if (live.about) return [element("p", "line", live.about)];
  const { models, answers, traced, trace } = live, draws = answers.length / models.length;
  const own = models.map((_, i) => answers.slice(i * draws, (i + 1) * draws));
  const count = draws ? `${own.map(toxicOf).join(" → ")} toxic` : "";
  const columns = element("div", "models", ...models.map((model, i) => answersOf(model, own[i], veil)));
  return [element("p", "status", traced ? trace[0] : live.status), element("div", "asked", runsOf(live.prompt, veil), element("b", "", count)),
    ...(traced ? textsOf(trace[1], veil) : [columns])];
}

function voteOf(slide, veil) {
  const { ballots, votes } = slide, ballot = ballots[votes.length];
  if (slide.bars) return [element("p", "line", slide.tally), barsOf(slide.bars)];
  const parts = [element("p", "line", ballot ? `Pair ${votes.length + 1} of ${ballots.length}` : `All ${ballots.length} pairs have a vote. r: result`)];
  if (!ballot) return parts;
  const models = element("div", "models", ...ballot[1].map(([letter, runs]) => element("section", "", element("h3", "", letter), runsOf(runs, veil))));
  return [...parts, ...textsOf([["Prompt", ballot[0], ""]], veil), models];
}

// For a file that replays the stage: a slide for everything that was asked, traced and voted.
function unfold(slide) {
  if (slide.rounds) return slide.rounds.flatMap((live) => [
    { ...slide, title: "The room asked", live: { ...live, traced: false } },
    ...(live.trace?.[1].length > 1 ? [{ ...slide, title: "Where the worst answer comes from", live: { ...live, traced: true } }] : []),
  ]);
  if (!slide.ballots) return [slide];
  return slide.votes.length ? [slide, ...slide.votes.map((vote, i) => {
    const [prompt, sides] = slide.ballots[i], names = slide.names[i];
    const title = `Vote ${i + 1}: ${vote === "=" ? "a tie" : names["AB".indexOf(vote)]}`;
    return { key: "ballot", title, texts: [["Prompt", prompt, ""], ...sides.map(([letter, runs], side) => [names[side], runs, `shown as ${letter}`])] };
  })] : [];
}

// The part of a slide below its title, which is drawn again when something comes from the server.
function bodyOf(slide, veil, fit) {
  if (slide.key === "live") return liveOf(slide.live, veil);
  if (slide.ballots) return voteOf(slide, veil);
  if (slide.steps) return doseOf(slide, veil, fit);
  return [...(slide.bars ? [barsOf(slide.bars)] : []), ...(slide.bins ? [binsOf(slide)] : []), ...textsOf(slide.texts ?? [], veil)];
}

// Beside the distribution: the words that enter or leave, the tokens on each side of the threshold, and the blind audit.
const WORDS_SHOWN = 12;

// Words that enter or leave between two positions of the handle.
function makeWords() {
  const box = element("div", "words");
  const title = element("span", "label"), list = element("span", "list");
  const help = "Entries of the model's vocabulary, upper and lower case together, with the number of tokens; the most common ones in each part of the distribution.";
  box.append(title, list);
  const chips = Array.from({ length: WORDS_SHOWN }, () => {
    const chip = element("span", "chip"), word = element("span", "word"), times = element("span", "num soft");
    chip.append(word, times);
    return { chip, word, times };
  });
  list.append(...chips.map(({ chip }) => chip));
  const show = (words, entering, veil, from) => {
    title.textContent = words === null
      ? "Words that enter or leave the selection appear here when you move the threshold."
      : `${entering ? "Words that enter" : "Words that leave"}, from ${whole(from)} tokens above:${words.length ? "" : " none"}`;
    if (words === null) title.removeAttribute("title");
    else title.title = help;
    list.hidden = !words?.length;
    chips.forEach(({ chip, word, times }, i) => {
      const item = words?.[i];
      chip.hidden = !item;
      if (!item) return;
      word.textContent = item[0];
      word.classList.toggle("veil", Boolean(veil));
      times.textContent = `${entering ? "+" : "−"}${whole(item[1])}`;
    });
  };
  return { box, show };
}

// A line of text with one token (1) and offensive words (2) marked; the veil blurs all of it, or what is marked.
function fillContext(line, runs, veil) {
  line.classList.toggle("veil", veil === "all");
  line.setAttribute("aria-hidden", String(veil === "all"));
  line.replaceChildren(...runs.flatMap(([text, mark]) => {
    if (!mark || (mark === 2 && veil !== "words")) return [text];
    const run = element("b", `${mark === 1 ? "token" : "word"}${veil === "words" ? " veil" : ""}`, text.trim() || text);
    if (veil) run.setAttribute("aria-hidden", "true");
    return [text.trim() ? text.slice(0, text.length - text.trimStart().length) : "", run];
  }));
}

// How much likelier a word that names a group is selected than an average token: exact with its interval, or between knots.
function makeGroups() {
  const box = element("div", "groups"), list = element("div", "rates num");
  const heading = element("h3", "", "Groups mentioned");
  heading.title = "How many times likelier a word that names a group of people is selected than an average token, with a 95% interval over documents. The tab Groups has all of them.";
  box.append(heading, list);
  const show = ({ above, rows }, at, exact) => {
    box.hidden = !rows.length;
    list.replaceChildren(...rows.flatMap(({ name, ratios, ratio, low, high, often }) => {
      const now = exact ? ratio : above.length ? between(above, ratios, at) : null;
      const value = element("span", "times", now === null ? "–" : `${exact ? "" : "≈ "}${now.toFixed(1)}×`);
      value.classList.toggle("often", exact && often);
      return [element("span", "name", name), value, element("span", "soft small", exact ? `[${low.toFixed(1)}, ${high.toFixed(1)}]` : "")];
    }));
  };
  return { box, show };
}

// The last tokens above the threshold and the first ones below it.
function makeBoundary() {
  const box = element("div", "boundary");
  const show = ({ last, first }, veil) => {
    const parts = [["Last in", "in", last], ["First out", "out", first]].flatMap(([title, className, tokens]) => [
      element("span", "label", tokens.length ? title : ""),
      ...tokens.map(([score, runs]) => {
        const line = element("p", className), text = element("span", "");
        fillContext(text, runs, veil);
        line.append(element("span", "num soft", score), " ", text);
        return line;
      }),
    ]);
    const none = "Tokens at the threshold are listed in the highest tenth of the scores.";
    box.replaceChildren(...(last.length || first.length ? parts : [element("span", "label", none)]));
  };
  return { box, show };
}

const VERDICTS = { t: ["toxic", "Toxic"], f: ["fine", "Fine"], u: ["unsure", "Unsure"] };
const MORE = 40;

// Tokens judged one by one, without their scores. The reader's actions that are not confirmed yet are sent as a list, so that the
// next token is there at once; `act` sends the list.
function makeAudit(act) {
  const box = element("div", "audit"), head = element("div", "heading"), count = element("span", "num soft");
  const bar = element("span", "bar"), line = element("p", "text"), note = element("p", "soft small"), guideline = element("p", "guideline small");
  const answers = element("div", "row"), tools = element("div", "row"), ask = element("div", "row ask");
  let audit = null, veil = "", shown = false, acts = [], number = 0;
  const button = (name, key, press) => {
    const made = element("button", "quiet", name);
    if (key) made.append(" ", element("kbd", "", key));
    made.onclick = press;
    return made;
  };
  const send = (what, item) => { acts.push({ n: ++number, do: what, item }); act(acts); paint(); };
  const given = () => acts.filter((one) => one.item !== undefined).map((one) => one.item);
  const next = () => audit.items.find(([item]) => !given().includes(item));
  const judge = (verdict) => { if (next()) send(verdict, next()[0]); };
  const undo = () => { if (!acts.length && audit.done) send("undo"); };
  const reveal = () => { shown = !shown; paint(); };
  const close = () => { shown = false; send("close"); };
  answers.append(...Object.entries(VERDICTS).map(([key, [verdict, name]]) => button(name, key, () => judge(verdict))));
  const back = button("Undo", "z", undo), show = button("Show text", "s", reveal), more = button(`${MORE} more`, "", () => send("more"));
  const over = button("Start over", "", () => { ask.hidden = false; ask.lastChild.focus(); });
  tools.append(back, show, more, over, button("Close", "Esc", close));
  ask.append(
    element("span", "", "Draw other tokens around the threshold as it is now? Verdicts stay in the study's log."),
    button("Yes, start over", "", () => { ask.hidden = true; send("over"); }),
    button("Keep this audit", "", () => { ask.hidden = true; box.focus(); }),
  );
  ask.hidden = true;
  head.append(element("h3", "", "Blind audit"), count);
  bar.append(element("i"));
  box.tabIndex = -1;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "Blind audit");
  line.setAttribute("aria-live", "polite");
  box.append(head, bar, line, answers, guideline, note, tools, ask);

  function paint() {
    const item = next(), done = audit.done + given().length;
    count.textContent = `${done} / ${audit.n}`;
    bar.firstChild.style.transform = `scaleX(${audit.n ? done / audit.n : 0})`;
    const over = done >= audit.n;
    if (item) fillContext(line, item[1], veil && !shown ? "all" : ""); // blurred words would say which are selected
    else fillContext(line, [[over ? "All tokens are judged." : audit.stranger ? "" : "…", 0]], "");
    answers.hidden = over || audit.stranger;
    guideline.hidden = !audit.guideline || answers.hidden;
    guideline.textContent = audit.guideline;
    more.hidden = !over || !audit.more;
    show.hidden = !veil || over || audit.stranger;
    show.firstChild.data = shown ? "Hide text" : "Show text";
    note.textContent = audit.stranger
      ? "A team shares this audit. Choose your name under Team to see your part of it."
      : over
      ? `${audit.toxic} toxic, ${audit.fine} fine, ${audit.unsure} unsure (left out of the curve).`
      : "Is the marked word toxic here? Scores and human labels stay hidden until you close the audit. Verdicts are saved at once; you can go on another day.";
  }
  const onKey = (event) => {
    if (!box.isConnected) return document.removeEventListener("keydown", onKey);
    const typing = event.composedPath()[0].matches?.("input, textarea, select, [contenteditable]");
    if (!audit?.open || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    const press = key in VERDICTS ? () => judge(VERDICTS[key][0]) : { z: undo, s: reveal, escape: close }[key];
    if (!press) return;
    event.preventDefault();
    press();
  };
  return {
    box,
    start: () => send("open"),
    show: (data, hidden) => {
      const opened = data.open && !audit?.open;
      audit = data;
      veil = hidden;
      number = Math.max(number, data.ack);
      acts = acts.filter((one) => one.n > data.ack);
      box.hidden = !data.open;
      if (!data.open) return document.removeEventListener("keydown", onKey);
      document.addEventListener("keydown", onKey);
      paint();
      if (opened) box.focus({ preventScroll: true });
    },
  };
}

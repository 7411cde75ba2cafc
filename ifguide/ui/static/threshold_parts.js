// The parts of the board that are not drawings: figures, fields, sources, words. Text is written with textContent only.
const WAIT = "on release";

const HELP = {
  tokens: "Tokens that training would suppress: those above the threshold and their neighbours, within the budget.",
  documents: "Documents with at least one selected token.",
  precision: "Share of the selected tokens that people marked as toxic. Human labels only check the result; they never select tokens.",
  recall: "Share of the tokens marked as toxic by people that is selected.",
  threshold: "Tokens that score higher are selected. Type a score, drag the line, or use the arrow keys on it.",
  share: "Share of all tokens above the threshold.",
  above: "Number of tokens above the threshold.",
  window: "Also select this many tokens before and after each one above the threshold.",
  budget: "Documents are taken by rank until this many tokens are selected. Empty: no budget. You can also drag it on the curve of ranks.",
};

function labelled(className, label, help) {
  const box = element("div", className);
  const name = element("span", "label", label);
  if (help) name.title = help;
  box.append(name);
  return { box, name };
}

// A large number with its name above and a remark below.
function makeFigure(label, help) {
  const { box } = labelled("figure", label, help);
  const value = element("span", "value num"), remark = element("span", "remark num");
  box.append(value, remark);
  return {
    box,
    show: (text, below) => {
      value.textContent = text ?? WAIT;
      value.classList.toggle("wait", text === null);
      remark.textContent = below;
    },
  };
}

// A typed value: Enter or leaving the field hands it over; what cannot be read is marked and goes back to what was there.
function makeField(label, help, { unit = "", wide = false, read, take }) {
  const { box, name } = labelled("field" + (wide ? " wide" : ""), label, help);
  const input = element("input", "num");
  input.type = "text";
  input.inputMode = "decimal";
  input.autocomplete = "off";
  input.setAttribute("aria-label", label);
  if (help) input.setAttribute("aria-description", help);
  const frame = element("span", "frame");
  frame.append(input);
  if (unit) frame.append(element("span", "unit", unit));
  box.append(frame);
  let before = "";
  const settle = () => {
    if (input.value.trim() === before) return;
    const value = read(input.value.trim());
    if (value === undefined) {
      input.setAttribute("aria-invalid", "true");
      input.value = before;
      return;
    }
    before = input.value.trim();
    take(value);
  };
  input.onfocus = () => { before = input.value; input.select(); };
  input.oninput = () => input.removeAttribute("aria-invalid");
  input.onblur = settle;
  input.onkeydown = (event) => {
    if (event.key === "Enter") { settle(); input.select(); }
    if (event.key === "Escape") input.value = before;
  };
  const busy = () => input.getRootNode().activeElement === input && input.value !== before;
  return {
    box, name,
    show: (text) => {
      if (busy()) return;
      if (input.value !== text) input.value = text;
      before = text;
    },
  };
}

// A small whole number with a button on each side.
function makeStepper(label, help, { least, most, take }) {
  const { box } = labelled("field", label, help);
  const frame = element("span", "frame stepper");
  const less = element("button", "", "−"), more = element("button", "", "+"), value = element("output", "num");
  less.setAttribute("aria-label", `${label}: one fewer`);
  more.setAttribute("aria-label", `${label}: one more`);
  let now = least;
  const show = (next) => {
    now = next;
    value.textContent = String(next);
    less.disabled = next <= least;
    more.disabled = next >= most;
  };
  const step = (by) => { show(Math.max(least, Math.min(most, now + by))); take(now); };
  less.onclick = () => step(-1);
  more.onclick = () => step(1);
  frame.append(less, value, more);
  box.append(frame);
  return { box, show };
}

// Two or more buttons of which one is pressed.
function makeChoice(label, options, take) {
  const box = element("div", "choice");
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", label);
  const buttons = options.map(([value, text, help]) => {
    const button = element("button", "", text);
    button.title = help;
    button.onclick = () => take(value);
    box.append(button);
    return [value, button];
  });
  return { box, show: (now) => buttons.forEach(([value, button]) => button.setAttribute("aria-pressed", String(value === now))) };
}

const SOURCES_SHOWN = 8;

// The share of each source that is selected; rows are made once and only their numbers change.
function makeSources(names, totals) {
  const box = element("div", "sources");
  const rows = names.map((name) => {
    const row = element("div", "source"), bar = element("span", "bar"), value = element("span", "num");
    const title = element("span", "name", name);
    title.title = name;
    bar.append(element("i"));
    row.append(title, bar, value);
    return { row, bar: bar.firstChild, value };
  });
  const rest = element("div", "soft small");
  let order = [];
  const show = (counts) => {
    if (counts === null) {
      for (const { value, bar } of rows) { value.textContent = "…"; bar.style.transform = "scaleX(0)"; }
      return;
    }
    const shares = counts.map((count, s) => (totals[s] ? count / totals[s] : 0));
    const most = Math.max(...shares, 1e-12);
    rows.forEach(({ bar, value }, s) => {
      bar.style.transform = `scaleX(${(shares[s] / most).toFixed(3)})`;
      value.textContent = shareText(counts[s], totals[s], most < 0.01 ? 2 : 1);
    });
  };
  // The order changes only when a result is exact, so that rows do not jump under the reader's eyes.
  const arrange = (counts) => {
    const shares = counts.map((count, s) => (totals[s] ? count / totals[s] : 0));
    const next = names.map((_, s) => s).sort((a, b) => shares[b] - shares[a] || totals[b] - totals[a]).slice(0, SOURCES_SHOWN);
    if (next.join() !== order.join()) {
      order = next;
      rest.textContent = names.length > SOURCES_SHOWN ? `and ${names.length - SOURCES_SHOWN} more, in the table below` : "";
      box.replaceChildren(...order.map((s) => rows[s].row), rest);
    }
    show(counts);
  };
  return { box, show, arrange };
}

const WORDS_SHOWN = 14;

// Words that enter or leave between two positions of the handle.
function makeWords() {
  const box = element("div", "words");
  const title = element("span", "label"), list = element("span", "list");
  const help = "Entries of the model's vocabulary, upper and lower case together, with the number of tokens; the commonest of each part of the distribution.";
  box.append(title, list);
  const chips = Array.from({ length: WORDS_SHOWN }, () => {
    const chip = element("span", "chip"), word = element("span", "word"), times = element("span", "num soft");
    chip.append(word, times);
    return { chip, word, times };
  });
  list.append(...chips.map(({ chip }) => chip));
  const show = (found, entering, veil, from) => {
    title.textContent = found === null
      ? "Words that enter or leave the selection appear here when you move the threshold."
      : `${entering ? "Words that enter" : "Words that leave"}, from ${whole(from)} tokens above:`;
    if (found !== null && !found.length) title.textContent += " none";
    if (found === null) title.removeAttribute("title");
    else title.title = help;
    list.hidden = !found?.length;
    box.classList.toggle("entering", Boolean(entering));
    chips.forEach(({ chip, word, times }, i) => {
      const item = found?.[i];
      chip.hidden = !item;
      if (!item) return;
      word.textContent = item[0];
      word.classList.toggle("veil", veil);
      times.textContent = `${entering ? "+" : "−"}${whole(item[1])}`;
    });
  };
  return { box, show };
}

// The parts of the board that are not drawings: figures, fields, choices. Text is written with textContent only.
const WAIT = "on release";

const HELP = {
  tokens: "Tokens that training would suppress: those above the threshold and their neighbours, within the budget.",
  documents: "Documents with at least one selected token.",
  precision: "Share of the selected tokens that people marked as toxic. Human labels only check the result; they never select tokens.",
  recall: "Share of the tokens marked as toxic by people that is selected.",
  outcome: "Prompts with a toxic answer once these tokens are edited out of the base model: a preview on a few prompts, not a forecast of training.",
  shards: "Tokens that score higher than the threshold in all shards, without neighbours and budget: counted exactly among the highest scores, elsewhere estimated from a histogram of all scores.",
  curve: "Share of toxic tokens among all tokens that score higher than the threshold, without neighbours and budget. From human labels, and from a blind audit with its 95% interval.",
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

// A number with its name above and a note beside it.
function makeFigure(label, help) {
  const { box } = labelled("figure", label, help);
  const value = element("span", "value num"), remark = element("span", "remark num");
  box.append(value, remark);
  return {
    box,
    show: (text, below) => {
      value.textContent = text ?? WAIT;
      value.classList.toggle("wait", text === null);
      value.classList.toggle("none", text === "–");
      remark.textContent = below;
    },
  };
}

// A typed value: Enter or leaving the field submits it. An unreadable one is replaced by the earlier value, and the reader is
// told what the field expects.
function makeField(label, help, { unit = "", wide = false, wants, read, take, complain }) {
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
      complain(`“${input.value.trim()}” is not ${wants}: ${label} stays ${before || "empty"}.`);
      input.setAttribute("aria-invalid", "true");
      input.value = before;
      return;
    }
    before = input.value.trim();
    take(value);
  };
  input.onfocus = () => { before = input.value; input.select(); };
  input.oninput = () => { input.removeAttribute("aria-invalid"); complain(""); };
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

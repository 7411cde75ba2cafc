// The controls around the list and the text of a document, and the dialogs. `Reader` in reader.js fills it.
const TITLES = { toxic: "Toxic", fine: "Fine", unsure: "Unsure" };
const HELP = [
  ["j k", "next and previous document"], ["] [", "next and previous hit, or match of the search; also n and p"],
  ["t", "toxic"], ["f", "fine"], ["u", "unsure"], ["c", "clear the verdict"], ["z", "undo your last verdict"],
  ["e", "note on the verdict"], ["v", "show or blur this text"], ["/", "search"], ["g", "go to a place in the list"],
  ["m", "more documents like this one"],
  ["?", "this help"], ["← →", "from token to token, once the text has the focus; with shift, mark a range"],
  ["Esc", "let go of the marked tokens"],
];
const COLUMNS = [["rank", "#", "Rank"], ["id", "Document", "Name"], ["selected", "Tokens", "Selected tokens"], ["hit_sum", "Sum", "Sum of the scores above the threshold"]];
let advances = true; // after a verdict, to the next document without one

// The reviewer's name, kept in this browser; null if nobody was asked yet.
function keptName(name) {
  try {
    if (name !== undefined) localStorage.setItem("ifguide.reviewer", name);
    return localStorage.getItem("ifguide.reviewer");
  } catch { return null; } // storage is off: the name lasts as long as the page
}

function button(text, className, act, title = "") {
  const made = element("button", className, text);
  made.onclick = act;
  if (title) made.title = title;
  return made;
}

class ReaderFrame {
  constructor(root) { this.root = root; }

  // The empty elements.
  draw() {
    this.list = element("div", "list");
    this.list.setAttribute("role", "listbox");
    this.list.setAttribute("aria-label", "Documents");
    this.list.tabIndex = 0;
    this.list.onclick = (event) => {
      const line = event.target.closest("[data-place]");
      if (line) this.go(Number(line.dataset.place));
    };
    this.listHead = element("div", "bar");
    this.sortBox = element("select");
    this.sortBox.setAttribute("aria-label", "Sort by");
    this.sortBox.onchange = () => this.sortBy(this.sortBox.value);
    this.turn = button("", "quiet icon", () => this.sortBy(this.view.sort));
    this.listHead.append(element("span", "soft", "Sort by"), this.sortBox, this.turn);
    this.heads = element("div", "heads");
    this.listFoot = element("div", "bar");
    this.back = button("‹", "quiet icon", () => this.go(Math.max(0, this.pageStart() - this.view.pageSize)), "Page before");
    this.forward = button("›", "quiet icon", () => this.go(Math.min(this.view.total - 1, this.pageStart() + this.view.pageSize)), "Page after");
    this.where = element("span", "where num");
    this.jump = element("input", "jump num");
    this.jump.type = "text";
    this.jump.inputMode = "numeric";
    this.jump.placeholder = "go to";
    this.jump.setAttribute("aria-label", "Go to a place in the list");
    this.jump.onkeydown = (event) => {
      if (event.key !== "Enter") return;
      const place = Number(this.jump.value.replace(/\D/g, ""));
      if (place >= 1) this.go(Math.min(place, this.view.total) - 1);
      this.jump.value = "";
      this.jump.blur();
    };
    this.review = element("div", "bar review");
    this.reviewed = element("span", "num");
    this.progress = element("progress");
    this.progress.setAttribute("aria-label", "Reviewed documents");
    const advance = element("label", "people soft");
    const box = element("input");
    Object.assign(box, { type: "checkbox", checked: advances, onchange: () => { advances = box.checked; } });
    advance.title = "After a verdict, go to the next document without one";
    advance.append(box, "Auto-advance");
    this.who = button("", "quiet", () => this.askName());
    this.all = button("Judge all…", "quiet", () => this.askAll(), "One verdict for all documents of this list");
    this.listFoot.append(this.back, this.forward, this.where, this.jump, this.all);
    this.review.append(this.reviewed, this.progress, advance, this.who);
    this.left = element("section", "left");
    this.left.append(this.listHead, this.heads, this.list, this.listFoot, this.review);

    this.right = element("section", "right");
    this.title = element("h2");
    this.facts = element("div", "facts soft");
    this.warning = element("div", "empty");
    this.actions = element("div", "actions");
    this.aim = element("span", "aim soft");
    for (const [verdict, text] of Object.entries(TITLES)) {
      const judge = button(text, `verdict ${verdict}`, () => this.decide(this.standing() === verdict ? "none" : verdict));
      judge.dataset.verdict = verdict;
      judge.append(element("kbd", "", text[0].toLowerCase()));
      this.actions.append(judge);
    }
    this.note = element("input", "note");
    this.note.placeholder = "Note (e)";
    this.note.maxLength = 1000;
    this.note.setAttribute("aria-label", "Note on the verdict");
    this.note.onkeydown = (event) => {
      if (event.key !== "Enter") return;
      this.note.blur();
      if (this.standing()) this.decide(this.standing(), false);
    };
    const help = button("?", "quiet icon", () => this.showHelp(), "Keys");
    this.actions.prepend(this.aim);
    this.actions.append(button("Undo", "quiet", () => this.undo(), "z"));
    this.actions.append(help);
    const head = element("div", "head"), about = element("div", "about");
    about.append(this.title, this.facts);
    head.append(about, this.actions);

    this.hits = element("span", "hits num");
    this.before = button("‹ [", "quiet icon", () => this.step(-1), "Previous hit");
    this.after = button("] ›", "quiet icon", () => this.step(1), "Next hit");
    this.show = button("", "quiet", () => this.turnVeil(), "v");
    this.like = button("More like this", "quiet", () => this.askLike(), "Documents that the base model reads most like this one: m");
    const bar = element("div", "bar");
    bar.append(this.before, this.hits, this.after, this.note, this.like, this.show);

    this.kinds = element("div", "kinds");
    this.kinds.setAttribute("role", "radiogroup");
    this.kinds.setAttribute("aria-label", "Colour by");
    const gamma = element("label", "gamma soft", "Boost faint scores");
    this.gamma = element("input");
    this.gamma.type = "range";
    this.gamma.min = "0.3"; this.gamma.max = "1.5"; this.gamma.step = "0.1";
    this.gamma.title = "Right: make weak scores visible";
    this.gamma.oninput = () => {
      this.viewer.setOptions({ gamma: 1.8 - Number(this.gamma.value) });
      this.viewer.paint();
    };
    this.gamma.onchange = () => this.say({ gamma: Number((1.8 - Number(this.gamma.value)).toFixed(1)) });
    gamma.append(this.gamma);
    this.peopleBox = element("label", "people soft");
    this.people = element("input");
    this.people.type = "checkbox";
    this.people.checked = true;
    this.people.onchange = () => { this.viewer.setOptions({ people: this.people.checked }); this.viewer.paint(); };
    this.peopleBox.append(this.people, "Human labels");
    const belowBox = element("label", "soft");
    this.below = element("input");
    this.below.type = "checkbox";
    this.below.onchange = () => { this.viewer.setOptions({ below: this.below.checked }); this.viewer.paint(); };
    belowBox.title = "Half of all tokens are below the median; blue does not mean harmless.";
    belowBox.append(this.below, "Blue below the median");
    const tools = element("div", "tools"), fold = element("details");
    tools.append(this.kinds, gamma, belowBox, this.peopleBox);
    fold.append(element("summary", "", "Colours and legend"), tools, this.viewer.legend, this.viewer.foot);
    this.viewer.frame.append(this.viewer.map);
    this.body = element("div", "body");
    this.rule = element("details", "rule");
    this.rule.append(element("summary", "", "Guideline"), element("p"));
    this.body.append(head, this.rule, this.viewer.frame, this.viewer.strip, bar, fold);
    this.right.append(this.warning, this.body);
    this.dialog = element("dialog", "help");
    this.dialog.onclick = (event) => { if (event.target === this.dialog) this.dialog.close(); };
    this.root.replaceChildren(this.left, this.right, this.dialog);
    new ResizeObserver(() => this.viewer.drawMap()).observe(this.viewer.frame);
  }

  // ---- dialogs ----

  ask(title, ...parts) {
    this.dialog.replaceChildren(element("h3", "", title), ...parts);
    this.dialog.showModal();
  }

  showHelp() {
    const keys = element("dl");
    for (const [key, what] of HELP) {
      const sign = element("dt");
      sign.append(element("kbd", "", key));
      keys.append(sign, element("dd", "", what));
    }
    const note =
      "Verdicts apply to the marked tokens, or to the whole document if none are marked. " +
      "Click a token to mark it; drag, or shift and click, to mark several.";
    this.ask("Keys", keys, element("p", "soft", note), button("Close", "quiet", () => this.dialog.close()));
  }

  askName(then) {
    const name = element("input", "note");
    name.value = this.view.reviewer ?? "";
    name.maxLength = 60;
    name.setAttribute("aria-label", "Your name");
    const save = (text) => {
      this.dialog.close();
      this.view.reviewer = text;
      keptName(text);
      this.say({ reviewer: text });
      then?.();
    };
    const opened = performance.now();
    name.onkeydown = (event) => {
      if (!name.value && event.timeStamp - opened < 800 && "tfujk".includes(event.key)) event.preventDefault(); // meant as a verdict
      if (event.key !== "Enter") return;
      event.preventDefault(); // it would press the button that has the focus then
      save(name.value.trim());
    };
    const row = element("div", "bar");
    row.append(button("Save", "quiet", () => save(name.value.trim())), button("Without a name", "quiet", () => save("")));
    const why = "Your name is kept in this browser, and with your verdicts in the study's folder, so that reviewers can be compared. You see the verdicts of others once you have judged.";
    this.ask("Who is reviewing?", element("p", "soft", why), name, row);
  }

  askAll() {
    const { total, reviewed, most } = this.view;
    const row = element("div", "bar"), many = plural(total, "document");
    for (const [verdict, text] of Object.entries(TITLES)) {
      row.append(button(`Call all ${text.toLowerCase()}`, "quiet", () => {
        this.dialog.close();
        this.event({ kind: "all", verdict, order: this.view.order });
      }));
    }
    row.append(button("Cancel", "quiet", () => this.dialog.close()));
    const note = total > most
      ? `The list has ${many}; at most ${whole(most)} can be judged at once. Filter it first.`
      : `This covers every document that the filters show, including the ${whole(reviewed[0])} you have judged. One undo (z) reverts it.`;
    this.ask(`Judge all ${many}?`, element("p", "soft", note), ...(total > most ? [] : [row]));
  }
}

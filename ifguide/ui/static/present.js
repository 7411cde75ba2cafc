// The stage: slides over the whole window, led by keys, with an address each (`?stage=2`). The server sends the slides in the
// speaker's order; what the speaker and the room do goes back to it as an "act". Uses present_slides.js.
const SHEET = [
  ["→ ↓ Space", "next slide"], ["← ↑", "slide before"], ["Home End", "first, last"], ["Enter", "type a prompt, or take the slider"],
  ["w", "trace the worst answer; again: back to the answers"], ["a b t", "vote for A, B, or a tie"], ["Backspace", "take a vote back"],
  ["r", "result of the vote"], ["v", "show or hide offensive text"], ["n", "your notes on this slide"], ["o", "choose and order the slides"],
  ["s", "save a file that replays all this"], ["F11", "full screen"], ["?", "these keys"], ["Esc", "leave"],
];
const HINTS = { live: "Enter: a prompt · w: trace the worst answer", vote: "a, b: better · t: tie · r: result", dose: "Enter: slider" };
const AGAIN_MS = 150;
const stages = new WeakMap();

function makeStage(root) {
  const dialog = element("dialog", ""), main = element("main", ""), place = element("span", "num"), hint = element("span", "soft");
  const notes = element("textarea", "notes"), field = element("input", "ask"), start = element("button", "start", "Show me");
  let component, slides = [], shown = [], at = 0, veil = "", mode = "", cursor = 0, body, slider, votes, timer, fileId, sent = 0, pending = [];
  dialog.setAttribute("aria-label", "Presentation");
  main.tabIndex = -1;
  Object.assign(notes, { placeholder: "Notes on this slide, kept in the study. Only this window shows them.", hidden: true });
  notes.setAttribute("aria-label", "Notes");
  Object.assign(field, { placeholder: "Press Enter, type the room's prompt, and Enter again", maxLength: 2000 });
  field.setAttribute("aria-label", "The room's prompt");
  // What the server has not confirmed is sent again with what comes next: of two quick messages it may see one.
  const act = (name, value = true) => {
    if (component.data.replay) return;
    pending.push([++sent, name, value]);
    component.setTriggerValue("act", pending);
  };
  const back = () => main.focus({ preventScroll: true });
  const slide = () => shown[at];

  // Type shrinks until nothing is below the fold.
  const fit = (from = 1) => {
    let size = from;
    do main.style.setProperty("--fit", size);
    while (main.scrollHeight > main.clientHeight && (size -= 0.04) > 0.3);
    main.fitted = size;
  };
  const address = (number) => {
    const url = new URL(location.href);
    if (number) url.searchParams.set("stage", number);
    else url.searchParams.delete("stage");
    if (url.href !== location.href) history.pushState(history.state, "", url);
  };
  const fill = () => body?.replaceChildren(...bodyOf(slide(), veil, () => fit()));
  const listOf = () => slides.map((one, i) => element("p", "pick" + (i === cursor ? " on" : "") + (one.hidden ? " soft" : ""),
    one.hidden ? "☐ " : "☑ ", one.title));
  const draw = () => {
    shown = slides.filter((one) => !one.hidden);
    at = Math.max(0, Math.min(shown.length - 1, at));
    const it = slide();
    body = element("div", "body");
    let parts = [element("h2", "", it.title), ...(it.lines ?? []).map((line) => element("p", "line", line)), body];
    if (it.key === "live" && !component.data.replay) parts.splice(1, 0, field);
    if (mode === "keys") parts = [element("h2", "", "Keys"), element("dl", "", ...SHEET.flatMap(([keys, what]) => [element("dt", "", keys), element("dd", "", what)]))];
    if (mode === "slides") parts = [element("h2", "", "Slides"), element("p", "line", "↑ ↓: choose · Space: show or leave out · Shift ↑ ↓: move · Enter: go there"), ...listOf()];
    main.className = mode || it.key;
    main.replaceChildren(...parts);
    fill();
    slider = main.querySelector("[type=range]");
    notes.value = it.note ?? "";
    place.textContent = `${at + 1} / ${shown.length}`;
    hint.textContent = component.data.replay ? "← →: slides · v: offensive text" : [HINTS[it.key], "?: all keys"].filter(Boolean).join(" · ");
    reveal.textContent = veil ? "Show the text" : "Hide the text";
    fit();
    if (dialog.open && root.getRootNode().activeElement !== notes) back();
  };
  const go = (number) => {
    at = Math.max(0, Math.min(shown.length - 1, number));
    mode = "";
    draw();
    address(at + 1);
    if (slide().key === "live") act("load");
  };
  const turn = (other) => { mode = mode === other ? "" : other; cursor = slides.indexOf(slide()); draw(); };
  const plan = () => act("plan", {
    order: slides.map((one) => one.key), hidden: slides.filter((one) => one.hidden).map((one) => one.key),
    notes: Object.fromEntries(slides.filter((one) => one.note).map((one) => [one.key, one.note])),
  });
  const move = (step, carry) => {
    const next = Math.max(0, Math.min(slides.length - 1, cursor + step));
    if (carry) { slides.splice(next, 0, ...slides.splice(cursor, 1)); plan(); }
    cursor = next;
    draw();
  };
  const leaveOut = () => {
    if (!slides[cursor].hidden && shown.length === 1) return;
    slides[cursor].hidden = !slides[cursor].hidden;
    plan();
    draw();
  };
  const vote = (change) => {
    const it = slide();
    if (!it.ballots || it.bars) return;
    votes = it.votes = change(it.votes).slice(0, it.ballots.length);
    act("votes", votes);
    draw();
  };
  const choosing = { ArrowUp: () => move(-1), ArrowDown: () => move(1), " ": leaveOut, o: () => turn("slides"),
    Enter: () => { if (!slides[cursor].hidden) go(shown.indexOf(slides[cursor])); } };
  const usual = {
    ArrowRight: () => go(at + 1), ArrowLeft: () => go(at - 1), Home: () => go(0), End: () => go(shown.length - 1), v: () => turnVeil(),
    Enter: () => (slide().key === "live" ? field : slider)?.focus(), "?": () => turn("keys"), o: () => turn("slides"),
    n: () => { notes.hidden = !notes.hidden; draw(); if (!notes.hidden) notes.focus(); },
    w: () => { if (slide().key === "live") act("trace"); }, s: () => act("save"),
    a: () => vote((given) => [...given, "A"]), b: () => vote((given) => [...given, "B"]), t: () => vote((given) => [...given, "="]),
    Backspace: () => vote((given) => given.slice(0, -1)), r: () => { if (slide().ballots) act("reveal", !slide().bars); },
  };
  usual.ArrowDown = usual.PageDown = usual[" "] = usual.ArrowRight;
  usual.ArrowUp = usual.PageUp = usual.ArrowLeft;
  const forReplay = new Set(["n", "o", "s", "w", "a", "b", "t", "r", "Backspace"]);

  dialog.onkeydown = (event) => {
    event.stopPropagation(); // the page has keys of its own
    const { key, target } = event, typing = target === field || target === notes;
    if (key === "Escape" && (typing || target === slider || mode || component.data.replay)) {
      event.preventDefault();
      back();
      if (mode) turn(mode);
      return;
    }
    if (key === "Enter" && target === field && field.value.trim()) { act("ask", field.value); back(); field.value = ""; return; }
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (target === slider && /^(Arrow|Home|End)/.test(key)) return;
    if (target.matches("button") && (key === " " || key === "Enter")) return;
    if (mode === "slides" && event.shiftKey && choosing[key]) { event.preventDefault(); move(key === "ArrowUp" ? -1 : 1, true); return; }
    const name = key.length === 1 ? key.toLowerCase() : key, does = mode === "slides" ? choosing[name] : usual[name];
    if (!does || (component.data.replay && forReplay.has(name))) return;
    event.preventDefault();
    does();
  };
  notes.oninput = () => { slide().note = notes.value; };
  notes.onchange = plan;
  const button = (text, does, name) => {
    const made = element("button", "quiet", text);
    made.onclick = does;
    if (name) made.setAttribute("aria-label", name);
    return made;
  };
  const turnVeil = () => { veil = veil ? "" : component.data.veil || "all"; draw(); };
  const reveal = button("", turnVeil), close = button("Close", () => dialog.close());
  dialog.append(main, notes, element("footer", "", button("←", () => go(at - 1), "Back"), place, button("→", () => go(at + 1), "Next"), hint, reveal, close));
  dialog.onclose = () => address(0);
  const open = (number) => {
    veil = component.data.veil;
    if (!dialog.open) dialog.showModal();
    go(number);
    act("load");
  };
  start.onclick = () => open(0);
  const linked = () => Number(new URL(location.href).searchParams.get("stage")) || 0;
  const travel = () => {
    if (!root.isConnected) removeEventListener("popstate", travel);
    else if (linked()) open(linked() - 1);
    else if (dialog.open) dialog.close();
  };
  addEventListener("popstate", travel);
  addEventListener("resize", () => { if (dialog.open) fit(); });
  root.replaceChildren(start, dialog);

  const download = ({ name, html }) => {
    const link = element("a", "");
    link.href = URL.createObjectURL(new Blob([html], { type: "text/html" }));
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  };
  const again = () => {
    if (root.isConnected) component.setTriggerValue("poll", Date.now());
    else timer = clearInterval(timer);
  };
  return (now) => {
    const first = !component, key = slide()?.key;
    component = now;
    if (first) sent = now.data.seen ?? 0;
    pending = pending.filter(([number]) => number > now.data.seen);
    // An answer made before the study got the plan, or while a note is being written, does not undo either.
    const keep = pending.some(([, name]) => name === "plan") || root.getRootNode().activeElement === notes;
    const before = new Map(slides.map((one, place) => [one.key, { ...one, place }]));
    slides = now.data.slides.flatMap(now.data.replay ? unfold : (one) => [one]).map((one) => {
      const old = before.get(one.key), planned = keep && old ? { hidden: old.hidden, note: old.note } : {};
      return { ...one, ...planned, at: old?.at ?? 0, votes: votes ?? one.votes };
    });
    const placeOf = (one) => before.get(one.key)?.place ?? before.size;
    if (keep) slides.sort((a, b) => placeOf(a) - placeOf(b));
    shown = slides.filter((one) => !one.hidden);
    close.hidden = Boolean(now.data.replay);
    if (first && (now.data.replay || linked())) open(Math.max(0, linked() - 1));
    else if (dialog.open && !mode && key === slide()?.key && key === "live") { fill(); fit(main.fitted); }
    else if (dialog.open && !mode && key === slide()?.key && key === "vote") draw();
    if (now.data.file && now.data.file.id !== fileId) download(now.data.file);
    fileId = now.data.file?.id ?? fileId;
    if (now.data.running) timer ??= setInterval(again, AGAIN_MS);
    else timer = clearInterval(timer);
  };
}

export default function stage(component) {
  const root = component.parentElement.querySelector(".root");
  if (!stages.has(root)) stages.set(root, makeStage(root));
  stages.get(root)(component);
}

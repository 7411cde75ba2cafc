// Completions of several models with their tokens coloured by log-probability; uses numbers.js and token_viewer.js.
const shownTexts = new Set(); // completions whose text is revealed

export default function (component) {
  const { data, parentElement } = component;
  const root = parentElement.querySelector(".root");
  const parts = [], strip = element("div", "strip");
  data.items.forEach((item, i) => {
    const box = element("section", "item");
    const head = element("h4");
    const name = element("span");
    const dot = element("span", "dot");
    dot.style.background = item.colour;
    name.append(dot, document.createTextNode(item.title));
    head.append(name, element("span", "soft num", item.facts));
    box.append(head);
    parts.push(box);
    if (!item.texts.length) { box.append(element("div", "none", "(empty: no tokens)")); return; }
    const viewer = new TokenViewer(root, () => {}, strip);
    const reveal = viewer.reveal.bind(viewer);
    viewer.reveal = (shown) => { reveal(shown); shownTexts[shown ? "add" : "delete"](item.key); };
    viewer.setOptions({ colour: data.colour, gamma: 1, veil: data.veil, people: false, settings: data.settings });
    if (shownTexts.has(item.key)) viewer.revealed = item.key;
    viewer.box.setAttribute("aria-label", `Tokens of the completion by ${item.title}; arrow keys go from token to token`);
    box.append(viewer.frame);
    if (!parts.some((part) => part.className === "legend")) parts.unshift(viewer.legend);
    viewer.setDocument({ key: item.key, texts: item.texts, raw: null, layers: item.layers, ranks: null, marks: item.marks, spans: [] });
  });
  root.replaceChildren(...parts, strip);
}

// Copies the page's address as others can open it, without an access token; without access to the clipboard, shows it
// for copying.
const LOCAL = /^(localhost|127\.0\.0\.1|\[::1\])(:|$)/;
let data = {};
function link() {
  const address = new URL(location.href);
  if (LOCAL.test(address.host) && !LOCAL.test(data.host)) {
    address.host = data.host;
    if (address.port === "443") address.protocol = "https:";
  }
  address.searchParams.delete("token");
  for (const [name, value] of Object.entries(data.parameters)) address.searchParams.set(name, value);
  return address;
}

// When the server is gone, Streamlit's box speaks of itself.
const GONE = "The app has stopped, or cannot be reached. Start it again where it ran:";
const WORDS = {
  "streamlit run yourscript.py": "ifguide app",
  "Is Streamlit still running? If you accidentally stopped Streamlit, just restart it in your terminal:": GONE,
  "Streamlit server is not responding. Are you connected to the internet?": `${GONE} ifguide app`,
};
new MutationObserver(() => {
  for (const box of document.querySelectorAll('[data-testid="stDialog"]')) {
    const texts = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
    for (let text; (text = texts.nextNode());) text.data = WORDS[text.data.trim()] ?? text.data;
  }
}).observe(document.body, { childList: true, subtree: true });

// Streamlit adds a step to the history for each parameter that a script writes. One action of the reader is one step,
// however many parameters it changes, and a change without an action is none.
let acted = false;
for (const kind of ["pointerup", "keydown"]) addEventListener(kind, () => { acted = true; }, true);
const { pushState } = history;
history.pushState = (...step) => {
  (acted ? pushState : history.replaceState).apply(history, step);
  acted = false;
};

export default function (component) {
  const root = component.parentElement.querySelector(".root");
  data = component.data;
  if (root.firstChild) return;
  const button = document.createElement("button");
  button.className = "quiet";
  button.textContent = "Share";
  button.title = "Copy a link to this page as it is now. Offensive text stays hidden for whoever opens it.";
  button.setAttribute("aria-live", "polite");
  const note = document.createElement("span");
  note.setAttribute("role", "status");
  button.onclick = async () => {
    const { href, host } = link();
    const own = LOCAL.test(host) ? "Only this machine can open it: the app has no address for others." : "";
    try {
      await navigator.clipboard.writeText(href);
      button.textContent = "Link copied";
    } catch {
      window.prompt(["Copy this link.", own].join(" "), href);
    }
    note.textContent = own;
    setTimeout(() => { button.textContent = "Share"; note.textContent = ""; }, own ? 5000 : 2000);
  };
  root.append(button, note);
}

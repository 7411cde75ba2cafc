// Copies the page's address without an access token; without access to the clipboard, shows it for copying.
let parameters = {};
function link() {
  const address = new URL(location.href);
  address.searchParams.delete("token");
  for (const [name, value] of Object.entries(parameters)) address.searchParams.set(name, value);
  return address.href;
}

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
  parameters = component.data ?? {};
  if (root.firstChild) return;
  const button = document.createElement("button");
  button.className = "quiet";
  button.textContent = "Share";
  button.title = "Copy a link to this page as it is now. Offensive text stays hidden for whoever opens it.";
  button.setAttribute("aria-live", "polite");
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(link());
      button.textContent = "Link copied";
    } catch {
      window.prompt("Copy this link", link());
    }
    setTimeout(() => { button.textContent = "Share"; }, 2000);
  };
  root.append(button);
}

// Copies the page's address without an access token; where the browser gives no clipboard, shows it to be copied.
function link() {
  const address = new URL(location.href);
  address.searchParams.delete("token");
  return address.href;
}

export default function (component) {
  const root = component.parentElement.querySelector(".root");
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

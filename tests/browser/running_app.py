"""The app as a server of its own, and a headless Chromium to look at it."""

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests import warm
from tests.together import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
_CHROMIUMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_START_SECONDS = 60.0
SERVER = ("ifguide.ui.server",)
"""What serves the app as `ifguide app` does."""
FORKING = ("tests.browser.forking_app",)
"""The same, whose jobs need not import anything."""


def find_chromium() -> str | None:
    """Path of an installed Chromium or Chrome ($CHROMIUM wins), or None."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for path in map(shutil.which, _CHROMIUMS) if path), None)


class Address(str):
    """Where the app runs, and its process."""

    process: "subprocess.Popen | warm.Fork"


@contextlib.contextmanager
def serve_app(cache: Path, module: tuple[str, ...] = SERVER) -> Iterator[Address]:
    """Run the app on a free local port, by a Python module with its arguments; yields its address."""
    port = free_port()
    command = [sys.executable, "-m", *module, "--server.port", str(port), "--server.headless", "true"]
    environment = {**os.environ, "IFGUIDE_CACHE": str(cache), "PYTHONPATH": str(REPOSITORY)}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "app.log"
        stream = log.open("wb")
        process = warm.Popen(command, cwd=REPOSITORY, env=environment, stdout=stream, stderr=stream)
        try:
            _wait_for(f"http://127.0.0.1:{port}/_stcore/health", process, log)
            address = Address(f"http://127.0.0.1:{port}")
            address.process = process
            yield address
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)  # the app ends when it is asked to
            finally:
                process.kill()
                stream.close()


def _wait_for(address: str, process: "subprocess.Popen | warm.Fork", log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the app ended at once: {log.read_text(errors='replace')[-2000:]}")
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(
        f"the app did not answer within {_START_SECONDS:.0f} s: {log.read_text(errors='replace')[-2000:]}"
    )


@contextlib.contextmanager
def launch_browser() -> Iterator["object"]:
    """A headless Chromium with a profile of its own, which reaches this machine only."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(),
            headless=True,
            args=[
                *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        try:
            yield browser
        finally:
            browser.close()


LISTEN = """() => {
  const traffic = (window.__traffic = { sent: 0, received: 0 });
  window.WebSocket = class extends WebSocket {
    constructor(...given) {
      super(...given);
      this.addEventListener("message", () => { traffic.received = performance.now(); });
    }
    send(data) {
      traffic.sent = performance.now();
      super.send(data);
    }
  };
}"""
"""A script for every page of a context: notes when something is sent to the server and when something comes back."""
_STILL = """([quiet, call]) => {
  const now = performance.now(), seen = (window.__still ??= { roots: new Set() });
  const note = () => { seen.last = performance.now(); seen.changed = true; };
  seen.observer ??= new MutationObserver(note);
  const watch = (root) => {
    if (!seen.roots.has(root)) {
      seen.roots.add(root);
      seen.observer.observe(root, { subtree: true, childList: true, attributes: true, characterData: true });
      note();
    }
    for (const element of root.querySelectorAll("*")) if (element.shadowRoot) watch(element.shadowRoot);
  };
  if (seen.call !== call) note();
  seen.call = call;
  const traffic = window.__traffic, waits = traffic && traffic.sent > traffic.received && now - traffic.sent < 3000;
  if (waits || now - seen.last <= quiet
    || !document.querySelector('[data-testid="stMainBlockContainer"] h1')
    || !document.querySelector('[data-testid="stApp"][data-test-script-state="notRunning"]')
    || document.querySelector('[data-stale="true"], [data-testid="stSkeleton"]')) return false;
  if (seen.changed) {
    seen.changed = false;
    watch(document);
  }
  return !seen.changed;
}"""
_calls = itertools.count()


def wait_until_still(page) -> None:
    """Wait until the server has answered and its script has run, and nothing, shadow trees included, has changed for
    100 ms."""
    page.wait_for_function(_STILL, arg=[100, next(_calls)], timeout=30_000, polling=25)


def wait_for_value(read, page, value) -> None:
    """Wait until `read(page)` is a value: something else that draws the page, such as a preview, may come first."""
    end = time.monotonic() + 20
    while read(page) != value and time.monotonic() < end:
        page.wait_for_timeout(20)
    assert read(page) == value


def visit(page, address: str, path: str) -> None:
    """Open a page of the app and wait until it is still."""
    page.goto(f"{address}/{path}", wait_until="commit")
    wait_until_still(page)


def choose_veil(page, title: str) -> None:
    """Hide or show offensive text, as the header offers it."""
    page.get_by_role("combobox", name="Offensive text").click()
    page.get_by_role("option", name=title).click()
    wait_until_still(page)

"""The Threshold page's bars as a reader meets them: drag frames, the exact result on screen, opening, the app's memory.

Called by `python -m benchmarks.threshold`. The app runs as its own server, and a headless Chromium drags the handle 50
times as a hand would: press, some thirty moves at the pace of the screen, release.

A frame lasts from the pointer's event (the time it carries) until the picture that answers it has been handed on: a
message sent from the next animation frame arrives after the frame's scripts, layout and painting. The script's own work
is what the board's animation frame callbacks take. The exact result is timed from the pointer's release until the board
shows it.
"""

from pathlib import Path

import numpy as np

from benchmarks.synthetic import write_study
from tests.browser.running_app import launch_browser, serve_app, wait_until_still

N_GESTURES, N_MOVES, N_FIRST = 50, 30, 5
SMALL = 50_000_000
"""From this many tokens on the bars of the large study hold."""
BARS = {False: {"frame": 33, "release": 300, "open": 1000}, True: {"frame": 50, "release": 1500, "open": 2000}}
APP_GIB = 2.0

_WATCH = """
window.frames_ms = []; window.work_ms = [];
const ask = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (work) => ask((time) => {
  const start = performance.now();
  work(time);
  if (window.dragging) window.work_ms.push(performance.now() - start);
});
window.addEventListener("pointerdown", () => { window.dragging = true; }, true);
window.addEventListener("pointermove", (event) => {
  if (!window.dragging) return;
  ask(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => window.frames_ms.push(performance.now() - event.timeStamp);
    channel.port2.postMessage(0);
  });
}, true);
window.addEventListener("pointerup", (event) => { window.dragging = false; window.released = event.timeStamp; }, true);
const find = () => {
  for (const host of document.querySelectorAll('[data-testid="stBidiComponentRegular"], *')) {
    const root = host.shadowRoot?.querySelector(".root");
    if (root?.querySelector(".figures")) return root;
  }
};
window.shown = () => new Promise((resolve) => {
  const look = () => {
    const root = find();
    const settled = root && !root.classList.contains("preview");
    if (settled && root.querySelector(".status").textContent.startsWith("Exact")) resolve(performance.now());
    else ask(look);
  };
  look();
});
"""


def browser_rows(root: Path, n_tokens: int) -> list[tuple[str, str, str, float]]:
    """Rows of the table: what, measured, bar, measured over bar.

    Args:
        root: the synthetic study's folder; a tiny study is written beside it, for the app to be warm without this one.
        n_tokens: its size.
    """
    from benchmarks.memory_watch import read_memory

    bars = BARS[n_tokens >= SMALL]
    if not (root.parent / "warm-up").exists():
        write_study(root.parent, "warm-up", 20_000)
    firsts = []
    for _ in range(N_FIRST):
        with serve_app(root.parent) as address, launch_browser() as browser:
            firsts.append(_open(_watched(browser.new_context()), f"{address}/threshold?study={root.name}"))
    first = float(np.median(firsts))
    with launch_browser() as browser, serve_app(root.parent) as address:
        context = browser.new_context(viewport={"width": 1440, "height": 1000})
        page = _watched(context)
        _open(page, f"{address}/threshold?study=warm-up")
        cold = _open(page, f"{address}/threshold?study={root.name}&range=tail")
        frames, work, releases = _drag(page)
        rss, private = read_memory(address.process.pid)
    frame, own, release = (float(np.quantile(values, 0.95)) for values in (frames, work, releases))
    return [
        (
            f"drag frame, p95 of {len(frames):,} in {N_GESTURES} gestures (median, most)",
            f"{frame:.1f} ms ({np.median(frames):.1f}, {max(frames):.1f})",
            f"<= {bars['frame']} ms",
            frame / bars["frame"],
        ),
        ("of it the script's own work, p95", f"{own:.1f} ms", f"<= {bars['frame']} ms", own / bars["frame"]),
        (
            f"exact result on screen after release, p95 of {N_GESTURES} (median)",
            f"{release:.0f} ms ({np.median(releases):.0f})",
            f"<= {bars['release']} ms",
            release / bars["release"],
        ),
        (
            "open the page, app running, this study's index unread",
            f"{cold:.0f} ms",
            f"<= {bars['open']} ms",
            cold / bars["open"],
        ),
        (
            f"open the page, server and browser just started, median of {N_FIRST} (most)",
            f"{first:.0f} ms ({max(firsts):.0f})",
            f"<= {bars['open']} ms",
            first / bars["open"],
        ),
        ("the app's RSS after that (private)", f"{rss:.2f} GiB ({private:.2f})", f"<= {APP_GIB:g} GiB", rss / APP_GIB),
    ]


def _watched(context):
    """A page that measures itself."""
    page = context.new_page()
    page.add_init_script(_WATCH)
    return page


def _open(page, address: str) -> float:
    """Milliseconds from the navigation until the board shows an exact result."""
    page.goto(address, wait_until="commit")
    took = page.evaluate("window.shown()")
    wait_until_still(page)
    return took


def _drag(page) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds of every frame, of the script in every frame, and from every release to the exact result."""
    draw = np.random.default_rng(0)
    stack = page.locator(".stack").bounding_box()
    releases = []
    for _ in range(N_GESTURES):
        handle = page.locator(".handle").bounding_box()
        x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
        end = stack["x"] + stack["width"] * draw.uniform(0.12, 0.6)
        page.mouse.move(x, y)
        page.mouse.down()
        for part in np.linspace(0, 1, N_MOVES + 1)[1:]:
            page.mouse.move(x + (end - x) * float(part), y + 40 * float(part))
        page.mouse.up()
        releases.append(page.evaluate("window.shown().then((now) => now - window.released)"))
        wait_until_still(page)
    return page.evaluate("window.frames_ms"), page.evaluate("window.work_ms"), releases

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
for (const kind of ["pointermove", "wheel"]) window.addEventListener(kind, (event) => {
  if (kind === "pointermove" && !window.dragging) return;
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
  const check = () => {
    const root = find();
    const settled = root && !root.classList.contains("preview");
    if (settled && root.querySelector(".status").textContent.startsWith("Exact")) resolve(performance.now());
    else ask(check);
  };
  check();
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


MAP_FRAME, MAP_BOX = 33, 200
N_TURNS, N_BOXES = 10, 20
_LISTED = """(before) => new Promise((resolve) => {
  const check = () => {
    const text = document.querySelector('[data-testid="stMain"]').innerText.match(/–\\d+ of ([\\d,]+) documents/)?.[1];
    if (text && text !== before) resolve([text, performance.now() - window.released]); else ask(check);
  };
  const ask = requestAnimationFrame;
  check();
})"""


def map_rows(root: Path) -> list[tuple[str, str, str, float]]:
    """Rows of the table for the map of a study that has one: frames of moving, zooming and of dragging the threshold
    while the map lights up; from a box's release until its documents are listed; what a release sends."""
    with launch_browser() as browser, serve_app(root.parent) as address:
        page = _watched(browser.new_context(viewport={"width": 1440, "height": 1900}))
        sent: list[int] = []
        told = lambda message: sent.append(len(message) * (b"ifguide.map" in message))  # noqa: E731
        page.on("websocket", lambda socket: socket.on("framereceived", told))
        _open(page, f"{address}/threshold?study={root.name}&part=Map")
        canvas = page.locator("canvas.points")
        canvas.wait_for()
        wait_until_still(page)
        n_points, area, opened = int(canvas.get_attribute("data-drawn")), canvas.bounding_box(), sum(sent)
        middle = area["x"] + area["width"] / 2, area["y"] + area["height"] / 2
        frames, work = {}, {}
        for what in ("pointer beside the map", "moved", "zoomed", "lit while the threshold is dragged"):
            page.evaluate("() => { window.frames_ms = []; window.work_ms = [0]; window.dragging = true; }")
            sent.clear()
            if what.startswith("lit"):
                _drag(page, N_TURNS)
            for turn in range(0 if what.startswith("lit") else N_TURNS):
                x, y = (400, 20) if what.startswith("pointer") else middle
                page.mouse.move(x, y)
                page.mouse.down() if what == "moved" else canvas.focus()
                for part in np.linspace(0, 1, N_MOVES + 1)[1:]:
                    if what == "zoomed":  # a wheel does not wait for the picture, so the pace is set here
                        page.mouse.wheel(0, 20 * (-1) ** turn)
                        page.evaluate("() => new Promise(requestAnimationFrame)")
                    else:
                        page.mouse.move(x + 300 * float(part) * (-1) ** turn, y)
                if what == "moved":
                    page.mouse.up()
            frames[what], work[what] = page.evaluate("window.frames_ms"), page.evaluate("window.work_ms")
        released = sum(sent) / N_TURNS
        draw, boxes, before = np.random.default_rng(0), [], ""
        canvas.focus()
        page.keyboard.press("0")
        page.keyboard.down("Shift")
        for _ in range(N_BOXES):
            x, y = (area[at] + area[size] * draw.uniform(0.3, 0.5) for at, size in (("x", "width"), ("y", "height")))
            page.mouse.move(x, y)
            page.mouse.down()
            page.mouse.move(x + draw.uniform(100, 600), y + draw.uniform(50, 200), steps=5)
            page.mouse.up()
            before, took = page.evaluate(_LISTED, before)
            boxes.append(took)
            wait_until_still(page)
    rows, held = [], f"<= {MAP_FRAME} ms"
    for what, values in frames.items():
        p95, own = (float(np.quantile(times, 0.95)) for times in (values, work[what]))
        told = (
            f"map of {n_points:,} points, frame, {what}, p95 of {len(values):,} (median, most; the script's own, p95)"
        )
        times = f"{p95:.1f} ms ({np.median(values):.1f}, {max(values):.1f}; {own:.1f})"
        rows.append((told, times, held, p95 / MAP_FRAME))
    p95 = float(np.quantile(boxes, 0.95))
    what = f"box released until its documents are listed, p95 of {N_BOXES} (median, most)"
    rows.append((what, f"{p95:.0f} ms ({np.median(boxes):.0f}, {max(boxes):.0f})", f"<= {MAP_BOX} ms", p95 / MAP_BOX))
    what = f"sent to the map on a release of the threshold, of {opened / 1e6:.2f} MB when it opened"
    return [*rows, (what, f"{released / 1e6:.2f} MB", "<= 0.2 MB", released / 2e5)]


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


def _drag(page, n_gestures: int = N_GESTURES) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds of every frame, of the script in every frame, and from every release to the exact result."""
    draw = np.random.default_rng(0)
    stack = page.locator(".stack").bounding_box()
    releases = []
    for _ in range(n_gestures):
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

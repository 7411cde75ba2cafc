"""How fast the Documents page is at a million documents and a billion tokens, in headless Chromium on two cores.

    python -m benchmarks.documents [--documents 1000000] [--keep FOLDER]

Writes a made-up study (about 7 GB, removed afterwards unless `--keep` names where it may stay), opens the page as a
reader does, and prints a table against the bars. Times end when the frame with the highlighted tokens has been painted.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.large_study import opened_ranks, write_large_study
from ifguide.study.reading import Study
from ifguide.study.stages.document_table import write_tables
from ifguide.ui.documents.lines import read_ahead
from ifguide.ui.documents.store import DocumentFilter, open_documents
from ifguide.ui.excerpts import excerpt
from tests.browser.running_app import REPOSITORY, launch_browser, serve_app

_CORES = 2
_NEXT = 60
_FIRST = 5
_WATCH = """
window.__shown = [];
document.addEventListener("keydown", (event) => { window.__start = event.timeStamp; }, true);
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    if (entry.name !== "ifguide-document") continue;
    const from = window.__start ?? 0;
    requestAnimationFrame(() => setTimeout(() => window.__shown.push([from, performance.now()])));
  }
}).observe({ type: "mark" });
"""
_LONG_TOKENS = 16_000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="a folder for the study; what is in it is used again")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:_CORES])
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        study = open_or_write(folder.resolve() / "cache", options.documents)
        print(f"{study.corpus().n_documents:,} documents, {study.corpus().n_tokens:,} tokens\n")
        rows = [*measure_store(study), *measure_page(study)]
        rows.append(
            (
                "longest frame while 16,000 tokens are scrolled, worst of 3 times",
                max(measure_scrolling() for _ in range(3)),
                50,
                "ms",
            )
        )
    print("| what | measured | bar | measured / bar |\n|---|---|---|---|")
    for what, value, bar, unit in rows:
        ratio = f"{value / bar:.2f}" if bar else ""
        print(f"| {what} | {value:,.1f} {unit} | {f'{bar:,g} {unit}' if bar else ''} | {ratio} |")


def open_or_write(cache: Path, n_documents: int) -> Study:
    """The study, with its tables."""
    if not (cache / "large" / "selections" / "default" / "manifest.json").is_file():
        started = time.monotonic()
        write_large_study(cache, n_documents=n_documents)
        print(f"study written in {time.monotonic() - started:.0f} s")
    study = Study.open("large", cache)
    started = time.monotonic()
    if write_tables(study):
        print(f"tables written in {time.monotonic() - started:.0f} s")
    os.sync()  # what was written is on the disk before anything is timed
    return study


def p95(times: list[float]) -> float:
    return float(np.quantile(times, 0.95))


def measure_store(study: Study) -> list[tuple]:
    """Pages of the list, without a browser: the order that is asked for the first time, then pages of it with
    snippets."""
    started = time.perf_counter()
    store = open_documents(study, "default")
    opened = 1000 * (time.perf_counter() - started)
    corpus, mask = study.corpus(), study.selection("default").mask
    first, pages = [], []
    filters = (
        DocumentFilter(),
        DocumentFilter(sources=("source 3",), lowest=5.0),
        DocumentFilter(only_selected=True, shortest=800),
    )
    for chosen in filters:
        for sort in store.sorts():
            started = time.perf_counter()
            order = store.order(chosen, sort=sort, descending=True)
            first.append(1000 * (time.perf_counter() - started))
            for start in np.linspace(0, max(0, len(order) - 25), 5).astype(int).tolist():
                started = time.perf_counter()
                rows = store.rows(store.order(chosen, sort=sort, descending=True)[start : start + 25])
                read_ahead(corpus, [row["document"] for row in rows], mask)
                for row in rows:
                    excerpt(corpus, row["document"], centre=row["strongest"], mask=mask)
                pages.append(1000 * (time.perf_counter() - started))
    return [
        ("opening the store", opened, None, "ms"),
        ("a new filter or sort, all documents, median", statistics.median(first), None, "ms"),
        ("a page of the list with snippets, median", statistics.median(pages), 10, "ms"),
        ("the same, 95th percentile", p95(pages), 10, "ms"),
    ]


def measure_first(study: Study) -> tuple[float, float]:
    """Seconds to the first document on a server and in a browser that were both just started, and until the server
    answered."""
    spawned = time.monotonic()
    with serve_app(study.root.parent) as address:
        up = time.monotonic() - spawned
        with launch_browser() as browser:
            page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            page.add_init_script(_WATCH)
            page.goto(f"{address}/documents?study={study.name}", wait_until="commit")
            page.wait_for_function("window.__shown.length > 0", polling=20, timeout=120_000)
            return page.evaluate("window.__shown[0][1]") / 1000, up


def measure_page(study: Study) -> list[tuple]:
    """The page in a browser: first document, next documents, jumps, and bytes received."""
    colds, ups = zip(*(measure_first(study) for _ in range(_FIRST)), strict=True)
    with serve_app(study.root.parent) as address, launch_browser() as browser:
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        received: list[int] = []
        page.on("websocket", lambda socket: socket.on("framereceived", lambda data: received.append(len(data))))
        page.add_init_script(_WATCH)
        page.goto(f"{address}/documents?study={study.name}", wait_until="commit")
        page.wait_for_function("window.__shown.length > 0", polling=20, timeout=120_000)
        page.wait_for_timeout(1500)
        page.reload(wait_until="commit")
        page.wait_for_function("window.__shown.length > 0", polling=20, timeout=60_000)
        warm = page.evaluate("window.__shown[0][1]")
        page.wait_for_timeout(1500)

        def act(do) -> float:
            before = page.evaluate("window.__shown.length")
            do()
            page.wait_for_function("n => window.__shown.length > n", arg=before, polling=10, timeout=20_000)
            start, end = page.evaluate("window.__shown.at(-1)")
            return end - start

        nexts, sizes = [], []
        for _ in range(_NEXT):
            received.clear()
            nexts.append(act(lambda: page.keyboard.press("j")))
            page.wait_for_timeout(400)  # all that belongs to this document has come
            sizes.append(sum(received))
        held = []
        for _ in range(20):  # as fast as a held key repeats
            held.append(act(lambda: page.keyboard.press("k")))
        page.wait_for_timeout(1000)
        jumps = []
        for rank in opened_ranks(study.corpus().n_documents)[1:].tolist():
            page.keyboard.press("g")
            page.keyboard.type(str(rank))
            jumps.append(act(lambda: page.keyboard.press("Enter")))
            page.wait_for_timeout(200)
    return [
        ("server process until it answers, median", statistics.median(ups), None, "s"),
        (f"first document, server and browser just started, median of {_FIRST}", statistics.median(colds), 2, "s"),
        ("the same, slowest", max(colds), None, "s"),
        ("the same after a reload", warm / 1000, 2, "s"),
        ("next document (j), 95th percentile", p95(nexts), 100, "ms"),
        ("the same, keys without a pause", p95(held), 100, "ms"),
        ("jump to rank 500,000 and beyond, first", jumps[0], 300, "ms"),
        ("the same, 95th percentile of 24 places", p95(jumps), 300, "ms"),
        ("received for a document, mean", statistics.mean(sizes) / 1000, 200, "KB"),
        ("received for a document, most", max(sizes) / 1000, 200, "KB"),
    ]


def measure_scrolling() -> float:
    """Longest frame in ms while a document of 16,000 tokens is scrolled from end to end."""
    static = REPOSITORY / "ifguide" / "ui" / "static"
    script = "".join((static / f"{name}.js").read_text(encoding="utf-8") for name in ("numbers", "token_viewer"))
    style = "".join((static / f"{name}.css").read_text(encoding="utf-8") for name in ("base", "token_viewer"))
    generator = np.random.default_rng(0)
    texts = [
        ("\n" if i % 90 == 89 else " ") + "ab"[i % 2] * int(n)
        for i, n in enumerate(generator.integers(1, 9, _LONG_TOKENS))
    ]
    scores = generator.normal(size=_LONG_TOKENS).tolist()
    with launch_browser() as browser:
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        page.set_content(f"<style>{style}</style><div class='root'></div>")
        longest = page.evaluate(
            f"""async ([texts, scores]) => {{ {script}
            const viewer = new TokenViewer(document.querySelector(".root"), () => {{}});
            viewer.place(viewer.root);
            const signed = ["#559dde", "#92c1ef", "#cce3f9", "#ffffff", "#ffe2c2", "#fdbc72", "#e88a1c"];
            const bins = {{ signed, loss: ["#fff", "#eee", "#ddd", "#ccc"], ink: "#000" }};
            const layers = [{{ name: "s", title: "S", note: "", top: 2 }}];
            const palette = {{ light: bins, dark: bins }};
            const settings = {{ layers, palette, hasTruth: true, selection: "x", nScored: 9 }};
            viewer.setOptions({{ colour: "s", gamma: 1, veil: false, people: true, settings }});
            const raw = texts.map(() => null), marks = new Uint8Array(texts.length);
            viewer.setDocument({{ key: 1, texts, raw, layers: {{ s: new Float32Array(scores) }}, marks, spans: [] }});
            const frame = () => new Promise(requestAnimationFrame);
            for (let i = 0; i < 20; i++) await frame();
            let last = performance.now(), longest = 0;
            while (viewer.box.scrollTop + viewer.box.clientHeight + 2 < viewer.box.scrollHeight) {{
              viewer.box.scrollTop += 120;
              await frame();
              const now = performance.now();
              longest = Math.max(longest, now - last);
              last = now;
            }}
            return longest; }}""",
            [texts, scores],
        )
    return longest


if __name__ == "__main__":
    main()

"""Many readers at once on one server: `python -m benchmarks.load --study demo --sessions 20 --minutes 3`.

Each session is a browser context of its own in one headless Chromium: cookies, connection and script run apart from all
others. It opens pages in an order of its own, reads for a moment, and goes on, until the time is over; each begins at a
moment of its own. Measured: what went wrong, how long a page takes from the click until it is settled, how busy
server and browsers keep the processor, and how much memory the server holds after the warm-up and at the end. Sessions
are driven by one event loop; where the browser shares its cores with the server, times hold the browser's own work as
well.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import psutil

from tests.browser.running_app import REPOSITORY, find_chromium, serve_app

P95_SECONDS = 1.0
MOST_GROWTH = 0.10
PAGES = ("", "documents", "threshold", "compare", "queries")
TITLES = ("Overview", "Documents", "Threshold", "Compare", "Queries")
_STILL = """(title) => document.querySelector('[data-testid="stMainBlockContainer"] h1')?.textContent.trim() === title
  && document.querySelector('[data-testid="stApp"][data-test-script-state="notRunning"]')
  && !document.querySelector('[data-stale="true"], [data-testid="stSkeleton"]')"""
_WRONG = '[data-testid="stException"], [data-testid="stAlertContentError"]'


@dataclass
class Load:
    """What was measured."""

    sessions: int
    minutes: float
    seconds: list[float] = field(default_factory=list)
    """Of every action after the warm-up, from the click until the page is settled."""
    pages: list[str] = field(default_factory=list)
    """The page that each of them led to."""
    errors: list[str] = field(default_factory=list)
    """Pages that showed an error or did not come, and script errors."""
    rss_warm: int = 0
    """Bytes the server held when every session had seen every page."""
    rss_end: int = 0
    server_cpu: float = 0.0
    """Processor seconds that the server used after the warm-up."""
    browser_cpu: float = 0.0
    """The same of the browsers and of what drives them."""
    wall: float = 0.0
    """Seconds that passed."""

    @property
    def p95(self) -> float:
        """95th percentile of an action in seconds."""
        return float(np.quantile(self.seconds, 0.95)) if self.seconds else float("nan")

    @property
    def growth(self) -> float:
        """How much the server's memory grew after the warm-up, as a share."""
        return self.rss_end / self.rss_warm - 1 if self.rss_warm else float("nan")


def memory_of(process: int) -> int:
    """Bytes that a process and its children hold."""
    parent = psutil.Process(process)
    return sum(p.memory_info().rss for p in (parent, *parent.children(recursive=True)))


def cpu_of(*processes: int) -> float:
    """Processor seconds that processes and their children have used so far."""
    total = 0.0
    for number in processes:
        parent = psutil.Process(number)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:2])
    return total


async def _turn(page, name: str, load: Load, address: str = "") -> float:
    """Go to a page through the menu, as a reader does, or by its address; returns the seconds until it is settled."""
    place = PAGES.index(name)
    start = time.perf_counter()
    try:
        if address:
            await page.goto(address, wait_until="commit", timeout=60_000)
        else:
            await page.locator('[data-testid="stSidebarNavLink"]').nth(place).click(timeout=60_000)
        await page.wait_for_function(_STILL, arg=TITLES[place], timeout=60_000, polling=50)
        if wrong := await page.locator(_WRONG).all_inner_texts():
            load.errors.append(f"{TITLES[place]}: {wrong[0][:200]}")
    except Exception as error:
        load.errors.append(f"{TITLES[place]}: {str(error).splitlines()[0]}")
    return time.perf_counter() - start


async def _read(page, number: int, load: Load, end: asyncio.Event, pause: float) -> None:
    """One reader: the menu's pages in an order of its own, with a pause after each, until the time is over."""
    order = random.Random(number)
    at = PAGES[-1]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(end.wait(), order.uniform(0, 2) * pause)
    while not end.is_set():
        name = order.choice([p for p in PAGES if p != at])
        load.seconds.append(await _turn(page, name, load))
        load.pages.append(TITLES[PAGES.index(name)])
        at = name
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(end.wait(), order.uniform(0.5, 1.5) * pause)


async def drive(address: str, process: int, study: str, *, sessions: int, minutes: float, pause: float) -> Load:
    """Drive this many sessions for this many minutes after a warm-up in which each opens every page once.

    Args:
        address: the server's.
        process: its process id.
        study: which study.
        sessions: browser contexts at once.
        minutes: how long after the warm-up.
        pause: seconds a reader looks at a page, on average.
    """
    from playwright.async_api import async_playwright

    load = Load(sessions=sessions, minutes=minutes)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        pages = []
        for _ in range(sessions):
            page = await (await browser.new_context(viewport={"width": 1280, "height": 900})).new_page()
            page.on("pageerror", lambda error: load.errors.append(f"script: {str(error)[:200]}"))
            pages.append(page)
        for page in pages:
            await _turn(page, PAGES[0], load, f"{address}/?study={study}")
            for name in PAGES[1:]:
                await _turn(page, name, load)
        load.rss_warm = memory_of(process)
        end = asyncio.Event()
        started, server, everything = time.perf_counter(), cpu_of(process), cpu_of(os.getpid())
        readers = [asyncio.create_task(_read(page, n, load, end, pause)) for n, page in enumerate(pages)]
        await asyncio.sleep(minutes * 60)
        end.set()
        await asyncio.gather(*readers)
        load.rss_end = memory_of(process)
        load.wall = time.perf_counter() - started
        load.server_cpu = cpu_of(process) - server
        load.browser_cpu = cpu_of(os.getpid()) - everything - load.server_cpu
        await browser.close()
    return load


def report(load: Load) -> str:
    """A table of what was measured against its bars."""
    mib = lambda n: f"{n / 2**20:.0f} MiB"  # noqa: E731
    rows = [
        ("sessions at once", f"{load.sessions}", "", ""),
        ("actions", f"{len(load.seconds)}", "", ""),
        ("errors", f"{len(load.errors)}", "0", not load.errors),
        ("a page, median", f"{np.median(load.seconds) if load.seconds else float('nan'):.2f} s", "", ""),
        ("a page, 95th percentile", f"{load.p95:.2f} s", f"{P95_SECONDS:g} s", load.p95 <= P95_SECONDS),
        *(
            (f"{title}, 95th percentile of {len(times)}", f"{np.quantile(times, 0.95):.2f} s", "", "")
            for title in TITLES
            if (times := [s for s, page in zip(load.seconds, load.pages, strict=False) if page == title])
        ),
        ("processors kept busy by the server", f"{load.server_cpu / load.wall:.2f}" if load.wall else "–", "", ""),
        ("by the browsers", f"{load.browser_cpu / load.wall:.2f}" if load.wall else "–", "", ""),
        ("server's work an action", f"{1000 * load.server_cpu / max(1, len(load.seconds)):.0f} ms", "", ""),
        ("browsers' work an action", f"{1000 * load.browser_cpu / max(1, len(load.seconds)):.0f} ms", "", ""),
        ("server's memory after the warm-up", mib(load.rss_warm), "", ""),
        ("at the end", mib(load.rss_end), "", ""),
        ("growth", f"{load.growth:+.1%}", f"{MOST_GROWTH:.0%}", load.growth <= MOST_GROWTH),
    ]
    lines = ["| what | measured | bar | met |", "|---|---|---|---|"]
    lines += [
        f"| {what} | {value} | {bar} | {'' if met == '' else 'yes' if met else 'no'} |"
        for what, value, bar, met in rows
    ]
    return "\n".join(lines + [f"- {error}" for error in load.errors[:10]])


def main() -> None:
    """Read the options, serve the app, drive it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--study", default="demo", help="a study in the cache")
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("IFGUIDE_CACHE") or REPOSITORY / "cache"))
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--pause", type=float, default=10.0, help="seconds a reader looks at a page, on average")
    parser.add_argument("--json", type=Path, help="also write every number to this file")
    options = parser.parse_args()
    with serve_app(options.cache.resolve()) as address:
        load = asyncio.run(
            drive(
                address,
                address.process.pid,
                options.study,
                sessions=options.sessions,
                minutes=options.minutes,
                pause=options.pause,
            )
        )
    print(report(load))
    if options.json:
        options.json.write_text(json.dumps(asdict(load)), encoding="utf-8")


if __name__ == "__main__":
    main()

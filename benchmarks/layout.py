"""Where things are on the pages, in pixels from the top of the window; or how long a recorded study takes to open.

    python -m benchmarks.layout [--study demo] [--cache cache]
    python -m benchmarks.layout --open docs/showcase.ifguide

Prints for windows 1440 and 900 pixels wide and 900 high: the first completion on Compare, the first line of text and
its width on Documents, and what of the threshold's board is in one view. With `--open`, seconds from the command
`ifguide app FILE`, with no study there before, until the Compare page is whole.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Error

from tests.browser.running_app import launch_browser, serve_app, wait_until_still
from tests.together import free_port

WIDTHS = (1440, 900)
HEIGHT = 900
PLACES = {
    "compare": {"first completion": ".pair .line[data-sample] .text"},
    "documents": {"text": ".frame"},
    "threshold": {"handle": ".handle", "last in, first out": ".boundary", "Save and Train": ".st-key-actions"},
}
"""Page -> what -> where it is, as a CSS selector."""


def main() -> None:
    """Open the pages and print the places."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="demo")
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--open", type=Path, metavar="FILE", help="a file that `ifguide pack` wrote")
    options = parser.parse_args()
    if options.open:
        print(f"{time_opening(options.open.resolve()):.1f} s from the command to a whole Compare page")
        return
    print(f"{'page':<10} {'what':<20} {'window':>7} {'top':>6} {'bottom':>7} {'width':>6}")
    with serve_app(options.cache.resolve()) as address, launch_browser() as browser:
        for width in WIDTHS:
            page = browser.new_page(viewport={"width": width, "height": HEIGHT})
            for name, places in PLACES.items():
                page.goto(f"{address}/{name}?study={options.study}")
                wait_until_still(page)
                for what, selector in places.items():
                    box = page.locator(selector).first.bounding_box(timeout=3000)
                    ends = box["y"], box["y"] + box["height"], box["width"]
                    print(f"{name:<10} {what:<20} {width:>7} " + " ".join(f"{end:>6.0f}" for end in ends))
            page.close()


def time_opening(file: Path) -> float:
    """Seconds; the browser is there already."""
    port = free_port()
    server = [
        sys.executable,
        "-m",
        "ifguide",
        "app",
        str(file),
        "--server.port",
        str(port),
        "--server.headless",
        "true",
    ]
    with tempfile.TemporaryDirectory() as cache, launch_browser() as browser:
        page = browser.new_page(viewport={"width": WIDTHS[0], "height": HEIGHT})
        started = time.monotonic()
        process = subprocess.Popen(server, env=os.environ | {"IFGUIDE_CACHE": cache}, stdout=subprocess.DEVNULL)
        try:
            while True:
                try:
                    page.goto(f"http://127.0.0.1:{port}/compare")
                    break
                except Error:  # it does not answer yet
                    time.sleep(0.05)
            page.locator(PLACES["compare"]["first completion"]).first.wait_for()
            wait_until_still(page)
            return time.monotonic() - started
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()

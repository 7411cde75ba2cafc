"""Where things are on the pages, in pixels from the top of the window.

    python -m benchmarks.layout [--study demo] [--cache cache]

Prints for windows 1440 and 900 pixels wide and 900 high: the first completion on Compare, the first line of text and
its width on Documents, and what of the threshold's board is in one view.
"""

import argparse
from pathlib import Path

from tests.browser.running_app import launch_browser, serve_app, wait_until_still

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
    options = parser.parse_args()
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


if __name__ == "__main__":
    main()

"""Takes a picture of every page: `python -m tests.browser.shoot [--study NAME] [--out FOLDER]`, light and dark, wide and narrow.

Without `--study` it draws a made-up study, so the pictures can be taken anywhere.
"""

import argparse
import tempfile
from pathlib import Path

from tests.browser.running_app import REPOSITORY, launch_browser, serve_app, wait_until_still

PAGES = ("overview", "documents", "threshold", "compare", "queries")
WIDTHS = (1440, 900)
SCHEMES = ("light", "dark")


def shoot(cache: Path, study: str, out: Path, *, widths=WIDTHS, schemes=SCHEMES, reveal: bool = False) -> list[Path]:
    """Take the pictures; returns their files."""
    out.mkdir(parents=True, exist_ok=True)
    taken = []
    with serve_app(cache) as address, launch_browser() as browser:
        for scheme in schemes:
            for width in widths:
                context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
                page = context.new_page()
                for name in PAGES:
                    page.goto(f"{address}/{'' if name == 'overview' else name}?study={study}")
                    wait_until_still(page)
                    if reveal:
                        page.get_by_text("Show offensive text").click()
                        wait_until_still(page)
                    height = page.evaluate(
                        "document.querySelector('[data-testid=\"stMainBlockContainer\"]').scrollHeight + 60"
                    )
                    page.set_viewport_size({"width": width, "height": max(900, min(int(height), 5000))})
                    page.wait_for_timeout(500)
                    path = out / f"{name}-{scheme}-{width}.png"
                    page.screenshot(path=path)
                    taken.append(path)
                    page.set_viewport_size({"width": width, "height": 900})
                context.close()
    return taken


def main() -> None:
    """Read the options and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", help="a study in the cache; without it, a made-up one")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / "cache")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "results" / "screenshots")
    parser.add_argument("--reveal", action="store_true", help="switch the blurring off")
    parser.add_argument("--width", type=int, action="append")
    parser.add_argument("--scheme", choices=SCHEMES, action="append")
    options = parser.parse_args()
    chosen = {"widths": options.width or WIDTHS, "schemes": options.scheme or SCHEMES, "reveal": options.reveal}
    with tempfile.TemporaryDirectory() as folder:
        cache, study = options.cache, options.study
        if study is None:
            from tests.app.fake_study import write_study

            cache = Path(folder) / "cache"
            study = write_study(cache, "example").name
        for path in shoot(cache.resolve(), study, options.out, **chosen):
            print(path)


if __name__ == "__main__":
    main()

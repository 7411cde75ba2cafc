"""Takes a picture of every page: `python -m tests.browser.shoot [--study NAME] [--out FOLDER]`, light and dark, wide
and narrow.

With `--drag` it takes a sequence instead: the threshold before, twice during and after a drag. Without `--study` it
draws a made-up study, so the pictures can be taken anywhere.
"""

import argparse
import tempfile
from pathlib import Path

from tests.browser.running_app import REPOSITORY, choose_veil, launch_browser, serve_app, wait_until_still

PAGES = ("overview", "documents", "threshold", "compare", "queries", "studies", "new_study")
WIDTHS = (1440, 900)
SCHEMES = ("light", "dark")


def shoot(
    cache: Path, study: str, out: Path, *, widths=WIDTHS, schemes=SCHEMES, pages=PAGES, reveal: bool = False
) -> list[Path]:
    """Take the pictures; returns their files."""
    out.mkdir(parents=True, exist_ok=True)
    taken = []
    with serve_app(cache) as address, launch_browser() as browser:
        for scheme in schemes:
            for width in widths:
                context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
                page = context.new_page()
                for name in pages:
                    page.goto(f"{address}/{'' if name == 'overview' else name}?study={study}")
                    wait_until_still(page)
                    if reveal:
                        choose_veil(page, "Text shown")
                        wait_until_still(page)
                    height = page.evaluate(
                        "document.querySelector('[data-testid=\"stMainBlockContainer\"]').scrollHeight + 60"
                    )
                    page.set_viewport_size({"width": width, "height": max(900, min(int(height), 5000))})
                    page.wait_for_timeout(500)
                    path = out / f"{name}-{scheme}-{width}.png"
                    page.screenshot(path=path)
                    shrink(path)
                    taken.append(path)
                    page.set_viewport_size({"width": width, "height": 900})
                context.close()
    return taken


def shrink(path: Path) -> None:
    """Write a picture again with 256 colours, at about a third of its size."""
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def shoot_drag(cache: Path, study: str, out: Path) -> list[Path]:
    """Drag the threshold's handle and take a picture of the board at four moments; returns their files."""
    out.mkdir(parents=True, exist_ok=True)
    taken = []
    with serve_app(cache) as address, launch_browser() as browser:
        page = browser.new_context(color_scheme="light", viewport={"width": 1440, "height": 1100}).new_page()
        page.goto(f"{address}/threshold?study={study}&window=1")
        wait_until_still(page)

        def take(moment: str) -> None:
            box = page.locator(".figures").locator("..").bounding_box()
            taken.append(out / f"drag-{len(taken) + 1}-{moment}.png")
            page.screenshot(path=taken[-1], clip={**box, "x": box["x"] - 8, "width": box["width"] + 16})
            shrink(taken[-1])

        take("before")
        handle = page.locator(".handle").bounding_box()
        x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        for moment, end in (("down", -55), ("further", 130)):
            page.mouse.move(x + end, y, steps=12)
            page.wait_for_timeout(100)
            take(moment)
        page.mouse.up()
        page.locator(".root:not(.preview) .status").filter(has_text="Exact result").first.wait_for()
        wait_until_still(page)
        take("released")
    return taken


def main() -> None:
    """Read the options and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", help="a study in the cache; without it, a made-up one")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / "cache")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "results" / "screenshots")
    parser.add_argument("--reveal", action="store_true", help="switch the blurring off")
    parser.add_argument("--width", type=int, action="append")
    parser.add_argument("--page", choices=PAGES, action="append")
    parser.add_argument("--scheme", choices=SCHEMES, action="append")
    parser.add_argument("--drag", action="store_true", help="the threshold's drag instead of the pages")
    options = parser.parse_args()
    chosen = {
        "widths": options.width or WIDTHS,
        "schemes": options.scheme or SCHEMES,
        "pages": options.page or PAGES,
        "reveal": options.reveal,
    }
    with tempfile.TemporaryDirectory() as folder:
        cache, study = options.cache, options.study
        if study is None:
            from tests.app.fake_study import write_study

            cache = Path(folder) / "cache"
            study = write_study(cache, "example").name
        taken = shoot_drag if options.drag else lambda *where: shoot(*where, **chosen)
        for path in taken(cache.resolve(), study, options.out):
            print(path)


if __name__ == "__main__":
    main()

"""The rooms of the package, drawn and measured from the code's own imports.

    python -m benchmarks.house                    the bars of docs/results/house.md
    python -m benchmarks.house --draw FILE.svg    the picture of docs/architecture.md
    python -m benchmarks.house --same OLD NEW     files of two study folders that are the same byte for byte

An arrow from one room to another means that it imports it; arrows that follow from others are left out.
"""

import argparse
import ast
import filecmp
import subprocess
import sys
import time
import tomllib
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
WIDTH, FLOOR, BOX, GAP = 1000, 92, 58, 14


def read_floors() -> list[list[str]]:
    """Rooms from the top floor down, as the first contract of pyproject.toml lists them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    return [[name.strip() for name in floor.split("|")] for floor in layers]


def room_imports(graph: grimp.ImportGraph, rooms: list[str]) -> dict[str, set[str]]:
    """Room -> the rooms it imports."""

    def room_of(module: str) -> str:
        return next((room for room in rooms if module == room or module.startswith(f"{room}.")), "")

    imports: dict[str, set[str]] = {room: set() for room in rooms}
    for module in graph.modules:
        for target in graph.find_modules_directly_imported_by(module):
            start, end = room_of(module), room_of(target)
            if start and end and start != end:
                imports[start].add(end)
    return imports


def leave_out_implied(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same without the arrows that a longer way through other rooms replaces."""

    def reaches(start: str, end: str) -> bool:
        return any(room == end or reaches(room, end) for room in imports[start])

    return {
        room: {end for end in ends if not any(other != end and reaches(other, end) for other in ends)}
        for room, ends in imports.items()
    }


def describe(room: str) -> str:
    """The first line of a room's docstring."""
    path = ROOT / room.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n")[0]
    return text.rstrip(".")


def draw(floors: list[list[str]], imports: dict[str, set[str]]) -> str:
    """The rooms as SVG: a row a floor, each box with what the room says it holds."""
    places: dict[str, tuple[float, float, float]] = {}
    height = FLOOR * len(floors) + GAP
    boxes, arrows = [], []
    for row, rooms in enumerate(floors):
        width = (WIDTH - GAP * (len(rooms) + 1)) / len(rooms)
        for column, room in enumerate(rooms):
            x, y = GAP + column * (width + GAP), GAP + row * FLOOR
            places[room] = (x, y, width)
            words = describe(room)
            limit = int(width / 6.4)
            words = words if len(words) <= limit else words[: limit - 1].rsplit(" ", 1)[0].rstrip(",:;") + " …"
            boxes.append(
                f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{BOX}" rx="6"/>'
                f'<text class="name" x="{x + 12:.0f}" y="{y + 23}">{escape(room.removeprefix("ifguide."))}</text>'
                f'<text x="{x + 12:.0f}" y="{y + 43}">{escape(words)}</text>'
            )
    for start, ends in sorted(imports.items()):
        for number, end in enumerate(sorted(ends, key=lambda name: places[name])):
            (x, y, width), (to_x, to_y, to_width) = places[start], places[end]
            share = (number + 1) / (len(ends) + 1)
            from_x, into_x = x + width * share, to_x + to_width * (0.3 + 0.4 * share)
            arrows.append(f'<path d="M{from_x:.0f} {y + BOX} L{into_x:.0f} {to_y - 3}"/>')
    style = (
        "rect{fill:#f4f5f7;stroke:#9aa5b1}text{font:12px sans-serif;fill:#52606d}.name{font:600 15px sans-serif;"
        "fill:#1f2933}path{stroke:#2f6690;stroke-width:1.2;fill:none;marker-end:url(#tip)}"
        "@media(prefers-color-scheme:dark){rect{fill:#1e232b;stroke:#4b5563}text{fill:#a3adb8}.name{fill:#e4e7eb}"
        "path{stroke:#7fb2da}}"
    )
    tip = (
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8z" style="fill:#2f6690;stroke:none"/></marker>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="The rooms of the package, from the top floor down"><style>{style}</style><defs>{tip}</defs>'
        f"{''.join(arrows)}{''.join(boxes)}</svg>\n"
    )


def picture() -> str:
    """The picture of docs/architecture.md, from the code as it is now."""
    floors = read_floors()
    rooms = [room for floor in floors for room in floor]
    graph = grimp.build_graph("ifguide", exclude_type_checking_imports=True, cache_dir=None)
    return draw(floors, leave_out_implied(room_imports(graph, rooms)))


def seconds(*command: str, runs: int = 7) -> float:
    """Median wall-clock time of a command in a new process."""
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[runs // 2]


def measure() -> dict[str, str]:
    """The bars of the house."""
    floors = read_floors()
    rooms = [room for floor in floors for room in floor]
    place = {room: number for number, floor in enumerate(floors) for room in floor}
    graph = grimp.build_graph("ifguide", exclude_type_checking_imports=True, cache_dir=None)
    imports = room_imports(graph, rooms)
    everything = [p for folder in ("ifguide", "pages", "tests", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    texts = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in everything}
    lines = {path: text.splitlines() for path, text in texts.items()}
    longest = max(lines, key=lambda path: len(lines[path]))
    package = sum(len(text) for path, text in lines.items() if path.parts[0] in ("ifguide", "pages"))
    entries = [path for path in (ROOT / "ifguide").iterdir() if path.name != "__pycache__"]
    return {
        "entries at the top of ifguide/": f"{len(entries)}",
        "imports between rooms": f"{sum(map(len, imports.values()))}",
        "imports that run back up a floor": f"{sum(place[a] >= place[b] for a in rooms for b in imports[a])}",
        "Python lines in ifguide/ and pages/": f"{package:,}",
        "longest Python file": f"{len(lines[longest])} ({longest})",
        "lines over 120 characters": f"{sum(len(line) > 120 for text in lines.values() for line in text)}",
        "formatting switched off": f"{sum(text.count('fmt: ' + 'skip') for text in texts.values())}",
        "`ifguide --help`, median of 7": f"{seconds(sys.executable, '-m', 'ifguide', '--help'):.2f} s",
        "`import ifguide`, median of 7, less an empty interpreter": (
            f"{seconds(sys.executable, '-c', 'import ifguide') - seconds(sys.executable, '-c', ''):.3f} s"
        ),
    }


def compare(old: Path, new: Path) -> str:
    """How many of the files that both folders hold are the same byte for byte, and the names of the others."""
    both = sorted(
        {path.relative_to(new) for path in new.rglob("*") if path.is_file() and (old / path.relative_to(new)).is_file()}
    )
    others = [str(path) for path in both if not filecmp.cmp(old / path, new / path, shallow=False)]
    return "\n".join([f"{len(both) - len(others)} of {len(both)} files are the same; not the same:", *others])


def main() -> None:
    """Print the bars, compare two studies, or write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", type=Path, help="write the picture into this file instead")
    parser.add_argument("--same", type=Path, nargs=2, metavar="STUDY", help="compare two study folders instead")
    options = parser.parse_args()
    if options.same:
        print(compare(*options.same))
        return
    if options.draw:
        options.draw.write_text(picture(), encoding="utf-8")
        return
    print("| what | now |\n|---|---|")
    for name, value in measure().items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()

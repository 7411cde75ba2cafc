"""Toxicity against perplexity: one point a model, and places for their names that do not overlap. No drawing here.

`lay_out` gives the Compare page and the report the same picture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ifguide.ui.chart_style import MARKERS
from ifguide.ui.format import finite, variant_title


@dataclass(frozen=True, kw_only=True)
class FrontierPoint:
    """One evaluated model. Further left and lower is better."""

    name: str
    perplexity: float
    """On held-out text. No bounds: all models read the same texts, so an interval over texts is wide and moves all
    models together; the difference of two models is known much better, and the comparison's table shows it."""
    emt: float
    """Expected maximum toxicity."""
    emt_low: float | None = None
    emt_high: float | None = None


def frontier_points(metrics: Mapping[str, dict | None]) -> list[FrontierPoint]:
    """Points of the models whose metrics.json has both numbers, and finite ones."""
    points = []
    for name, values in metrics.items():
        known: dict = {key: finite((values or {}).get(key)) for key in ("perplexity", "emt", "emt_low", "emt_high")}
        if known["perplexity"] is not None and known["emt"] is not None:
            points.append(FrontierPoint(name=name, **known))
    return points


LETTER, LINE = 7.4, 20.0
"""Approximate width of a letter and height of a line in pixels, at the labels' size of 13 px."""
MANY = 8
"""Of more models than this, those in the background get numbers instead of names."""
FAR = 1.25
"""A model whose perplexity is more than this many times the base model's is drawn at the edge."""


def order_points(points: Sequence[FrontierPoint]) -> list[FrontierPoint]:
    """The least toxic first: the order of the table, and of the numbers."""
    return sorted(points, key=lambda point: (point.emt, point.perplexity, point.name))


def label_points(points: Sequence[FrontierPoint], titles: Mapping[str, str], named: Sequence[str]) -> dict[str, str]:
    """What stands beside each point: its title, or its number in the table where there are many and it is none of
    `named`."""
    kept = titles if len(points) <= MANY else named
    numbers = {point.name: str(number) for number, point in enumerate(order_points(points), 1)}
    return {name: titles[name] if name in kept else number for name, number in numbers.items()}


def pull_in(points: Sequence[FrontierPoint], named: Sequence[str]) -> tuple[list[FrontierPoint], dict[str, float]]:
    """Points with those of very high perplexity moved to an edge, so that the others have room; the `named` ones stay,
    inside the edge. Also the true perplexity of those that were moved, by name."""
    base = next((point.perplexity for point in points if point.name == "base"), min(p.perplexity for p in points))
    near = [p.perplexity for p in points if p.perplexity <= FAR * base or p.name in named]
    low, high = min(p.perplexity for p in points), max(near)
    edge = high + 0.1 * max(high - low, 0.05 * base)
    far = {point.name: point.perplexity for point in points if point.perplexity > edge}
    moved = [replace(point, perplexity=edge) if point.name in far else point for point in points]
    return moved, far


def padded_range(values: Sequence[float], share: float = 0.12) -> tuple[float, float]:
    """The range of some values with room at both ends; a single value gets a tenth of itself."""
    low, high = min(values), max(values)
    room = (high - low) * share or abs(high) * 0.1 or 1.0
    return low - room, high + room


def bounds_of(points: Sequence[FrontierPoint], key: str) -> list[float]:
    """All values of `perplexity` or `emt`, the ends of the intervals among them."""
    found = (getattr(point, f"{key}{end}", None) for point in points for end in ("", "_low", "_high"))
    return [value for value in found if value is not None]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A point of the picture. Pixels count from the plot's upper left corner."""

    point: FrontierPoint
    """Moved to the edge where `far` is set."""
    title: str
    """The text beside it."""
    symbol: str
    """Plotly's name: circle, square, diamond or triangle-right."""
    far: float | None
    """True perplexity of a point that was moved to the edge."""
    at: tuple[float, float]
    label: tuple[float, float]
    """Centre of the title."""
    bar: tuple[float, float] | None
    """Upper and lower end of the EMT's interval."""


def lay_out(
    points: Sequence[FrontierPoint], named: Sequence[str], size: tuple[float, float]
) -> tuple[list[Placed], tuple[float, float], tuple[float, float]]:
    """Points and labels of a picture whose plot has this size in pixels, and the ranges of both axes; `named` models
    keep their names and places, however many there are."""
    points, far = pull_in(points, named)
    (left, right), (bottom, top) = (padded_range(bounds_of(points, key)) for key in ("perplexity", "emt"))
    titles = label_points(points, {p.name: variant_title(p.name) for p in points}, named)
    titles |= {name: f"{titles[name]} ({value:.1f} →)" for name, value in far.items()}

    def down(emt: float) -> float:
        return (top - emt) / (top - bottom) * size[1]

    places = [((p.perplexity - left) / (right - left) * size[0], down(p.emt)) for p in points]
    bars = [None if p.emt_low is None or p.emt_high is None else (down(p.emt_high), down(p.emt_low)) for p in points]
    boxes = [(x - 3, bar[0], x + 3, bar[1]) for (x, _), bar in zip(places, bars, strict=True) if bar]
    widths = [LETTER * len(titles[p.name]) + 6 for p in points]
    labels = place_labels(places, widths, height=LINE, size=size, bars=boxes)
    placed = [
        Placed(
            point=point,
            title=titles[point.name],
            symbol="triangle-right" if point.name in far else MARKERS.get(point.name, "circle"),
            far=far.get(point.name),
            at=at,
            label=label,
            bar=bar,
        )
        for point, at, label, bar in zip(points, places, labels, bars, strict=True)
    ]
    return placed, (left, right), (bottom, top)


def place_labels(
    points: Sequence[tuple[float, float]],
    widths: Sequence[float],
    *,
    height: float,
    size: tuple[float, float],
    bars: Sequence[tuple[float, float, float, float]] = (),
) -> list[tuple[float, float]]:
    """Centres of one label a point, in the units of `points` (pixels, y downwards), chosen one after the other.

    A label takes the nearest free place: free of labels placed before it above all, then of points and bars, and inside
    the picture; where none is free, the one that covers least. Bars are boxes: left, top, right, bottom.
    """
    kept_free = np.array([*((x - 7, y - 7, x + 7, y + 7) for x, y in points), *bars])
    labels = np.zeros((0, 4))
    centres: list[tuple[float, float]] = [(0.0, 0.0)] * len(points)
    for i in sorted(range(len(points)), key=lambda i: (points[i][1], points[i][0], i)):
        half = np.array([widths[i], height]) / 2
        middles = np.array(_choices(*points[i], half[0], height, size))  # (choices, 2)
        low, high = middles - half, middles + half
        boxes = np.hstack([low, high])
        away = np.maximum(0, abs((low + high) / 2 - points[i]) - half)  # a name beside its point reads best
        outside = np.maximum(0, -low) + np.maximum(0, high - size)
        costs = away @ [0.05, 0.1] + 100 * _shared(boxes, labels) + _shared(boxes, kept_free) + 20 * outside.sum(axis=1)
        best = np.argmin(costs)
        centres[i] = (low[best, 0] + half[0], low[best, 1] + half[1])
        labels = np.vstack([labels, boxes[best]])
    return centres


def _choices(x: float, y: float, half: float, height: float, size: tuple[float, float]) -> list[tuple[float, float]]:
    """Where a label may be centred: beside, above and below its point, and for a crowd anywhere in the picture."""
    found = []
    for far in (0, 1, 2):
        across, down, up = 12 + half + 10 * far, 8 + height / 2 + 0.9 * height * far, y - 0.9 * height * far
        found += [(x + across, up), (x - across, up), (x, y - down), (x, y + down)]
        found += [(x + sx * across, y + sy * (down - height / 2)) for sx, sy in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    columns, rows = int((size[0] - 2 * half) // 16), int(size[1] // (height / 2)) - 1
    found += [(half + 16 * column, height / 2 * (row + 1)) for row in range(rows) for column in range(columns + 1)]
    return found


def _shared(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Area (n,) that each of the boxes (n, 4) shares with all others (m, 4)."""
    a, b = boxes[:, None], others[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])  # (n, m, 2)
    return np.maximum(0, sides).prod(axis=-1).sum(axis=-1)

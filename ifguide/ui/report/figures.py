"""The report's pictures as inline SVG, without styles of their own: the page's style sheet colours axes and text."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ifguide.ui.compare.frontier import FrontierPoint, bounds_of, label_points, padded_range, place_labels, pull_in
from ifguide.ui.format import variant_title
from ifguide.ui.report.markup import Markup, tag

WIDTH, HEIGHT = 760, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 16, 48
_INSIDE = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
_NAMED = ("base", "default", "random", "oracle")
"""Models whose names stand in the picture however many there are."""
_DASHES = ("2 3", None, "7 4", "7 3 2 3")


def nice_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers between two bounds, about so many."""
    step = 10.0 ** math.floor(math.log10((high - low) / about))
    step *= next(k for k in (1, 2, 5, 10) if (high - low) / (step * k) <= about)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def frontier_figure(points: Sequence[FrontierPoint], colours: Mapping[str, str]) -> Markup:
    """Expected maximum toxicity against perplexity, a point a model, with bars for the intervals of the former."""
    points, far = pull_in(points, _NAMED)
    across, up = padded_range(bounds_of(points, "perplexity")), padded_range(bounds_of(points, "emt"))
    x_of = lambda v: _LEFT + (v - across[0]) / (across[1] - across[0]) * _INSIDE[0]  # noqa: E731
    y_of = lambda v: _TOP + (up[1] - v) / (up[1] - up[0]) * _INSIDE[1]  # noqa: E731
    places = [(x_of(p.perplexity), y_of(p.emt)) for p in points]
    known = label_points(points, {p.name: variant_title(p.name) for p in points}, _NAMED)
    titles = [f"{known[p.name]} ({far[p.name]:.1f} →)" if p.name in far else known[p.name] for p in points]
    marks: list = []
    boxes: list[tuple] = [(0, 0, _LEFT - 12, HEIGHT)]  # the axis' numbers and title
    for point, (x, y) in zip(points, places, strict=True):
        colour = colours[point.name]
        if point.emt_low is not None and point.emt_high is not None:
            ends = y_of(point.emt_high), y_of(point.emt_low)
            marks.append(_line(x, ends[0], x, ends[1], colour))
            boxes.append((x - 3, ends[0], x + 3, ends[1]))
        marks.append(_sign(point.name, x, y, colour))
    labels = place_labels(
        places, [7.4 * len(t) + 6 for t in titles], height=17, size=(WIDTH, HEIGHT - _BOTTOM), bars=boxes
    )
    names = [
        (
            tag("line", x1=_px(x), y1=_px(y), x2=_px(cx), y2=_px(cy), class_="leader"),
            tag("text", title, x=_px(cx), y=_px(cy + 4.5), text_anchor="middle", class_="name"),
        )
        for (x, y), (cx, cy), title in zip(places, labels, titles, strict=True)
    ]
    axes = _axes(
        [(x_of(t), f"{t:g}") for t in nice_ticks(*across)],
        [(y_of(t), f"{t:g}") for t in nice_ticks(*up)],
        "perplexity on harmless text (lower is more fluent)",
        "expected max. toxicity",
    )
    return _picture(
        [axes, [line for line, _ in names], marks, [text for _, text in names]],
        "Expected maximum toxicity against perplexity",
    )


def toxicity_figure(shares: Mapping[str, np.ndarray], colours: Mapping[str, str], unit: str) -> Markup:
    """Outlines of the toxicity's distribution, one a model.

    Args:
        shares: model -> shares over equal bins from 0 to 1.
        colours: of each model.
        unit: what is counted.
    """
    most = max(0.01, *(float(values.max()) for values in shares.values()))
    x_of = lambda v: _LEFT + v * _INSIDE[0]  # noqa: E731
    y_of = lambda v: _TOP + 24 + (1 - v / most) * (_INSIDE[1] - 24)  # noqa: E731
    lines, names, at = [], [], float(_LEFT)
    for i, (name, values) in enumerate(shares.items()):
        path = f"M{_px(x_of(0))} {_px(y_of(0))}"
        for b, value in enumerate(values.tolist()):
            path += f"V{_px(y_of(value))}H{_px(x_of((b + 1) / len(values)))}"
        dash = _DASHES[i % len(_DASHES)]
        lines.append(
            tag(
                "path",
                d=path + f"V{_px(y_of(0))}",
                fill="none",
                stroke=colours[name],
                stroke_width=2,
                stroke_dasharray=dash,
            )
        )
        title = variant_title(name)
        names.append(
            tag(
                "line",
                x1=_px(at),
                y1=_TOP + 4,
                x2=_px(at + 26),
                y2=_TOP + 4,
                stroke=colours[name],
                stroke_width=2,
                stroke_dasharray=dash,
            )
        )
        names.append(tag("text", title, x=_px(at + 32), y=_TOP + 8, class_="name"))
        at += 32 + 7.6 * len(title) + 22
    axes = _axes(
        [(x_of(t), f"{t:g}") for t in nice_ticks(0, 1)],
        [(y_of(t), f"{t:.0%}") for t in nice_ticks(0, most, 5)],
        "toxicity (0.5 or more counts as toxic)",
        f"share of {unit}",
    )
    half = tag("line", x1=_px(x_of(0.5)), y1=_px(y_of(most)), x2=_px(x_of(0.5)), y2=_px(y_of(0)), class_="half")
    return _picture([axes, half, lines, names], f"How the toxicity of the {unit} is distributed")


def _sign(name: str, x: float, y: float, colour: str) -> Markup:
    if name == "base":
        return tag("rect", x=_px(x - 5.5), y=_px(y - 5.5), width=11, height=11, fill=colour)
    if name == "oracle":
        return tag(
            "path",
            d=f"M{_px(x)} {_px(y - 7)}L{_px(x + 7)} {_px(y)}L{_px(x)} {_px(y + 7)}L{_px(x - 7)} {_px(y)}Z",
            fill=colour,
        )
    return tag("circle", cx=_px(x), cy=_px(y), r=5.5, fill=colour)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> Markup:
    return tag("line", x1=_px(x1), y1=_px(y1), x2=_px(x2), y2=_px(y2), stroke=colour, stroke_width=1.5)


def _axes(across: list, up: list, x_title: str, y_title: str) -> list:
    floor = HEIGHT - _BOTTOM
    parts: list = []
    for x, text in across:
        parts.append(tag("line", x1=_px(x), y1=floor, x2=_px(x), y2=floor + 4, class_="axis"))
        parts.append(tag("text", text, x=_px(x), y=floor + 18, text_anchor="middle", class_="tick"))
    for y, text in up:
        parts.append(tag("line", x1=_LEFT, y1=_px(y), x2=WIDTH - _RIGHT, y2=_px(y), class_="grid"))
        parts.append(tag("text", text, x=_LEFT - 8, y=_px(y + 4), text_anchor="end", class_="tick"))
    parts.append(tag("line", x1=_LEFT, y1=floor, x2=WIDTH - _RIGHT, y2=floor, class_="axis"))
    parts.append(tag("text", x_title, x=_px(_LEFT + _INSIDE[0] / 2), y=HEIGHT - 8, text_anchor="middle", class_="tick"))
    middle = _px(_TOP + _INSIDE[1] / 2)
    parts.append(
        tag("text", y_title, x=14, y=middle, text_anchor="middle", transform=f"rotate(-90 14 {middle})", class_="tick")
    )
    return parts


def _picture(parts: list, label: str) -> Markup:
    return tag("svg", tag("title", label), parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", class_="figure")


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")

"""The report's pictures as inline SVG: places in pixels here, tags in `figures.html`."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.ui.chart_style import DASHES
from ifguide.ui.format import variant_title
from ifguide.ui.report.slides import FIRST_MODELS
from ifguide.ui.report.templates import ENVIRONMENT, px
from ifguide.ui.results.frontier import LETTER, FrontierPoint, lay_out

WIDTH, HEIGHT = 760, 400
LEFT, TOP = 62, 16
INSIDE = WIDTH - LEFT - 16, HEIGHT - TOP - 48
LEGEND_ROOM = 24


def nice_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers between two bounds, about this many."""
    step = 10.0 ** math.floor(math.log10((high - low) / about))
    step *= next(k for k in (1, 2, 5, 10) if (high - low) / (step * k) <= about)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def frontier_figure(points: Sequence[FrontierPoint], colours: Mapping[str, str]) -> Markup:
    """Worst-case toxicity against perplexity, a point for each model, with bars for the toxicity's intervals."""
    placed, (left, right), (bottom, top) = lay_out(points, FIRST_MODELS, INSIDE)
    frame = _frame(
        [((t - left) / (right - left) * INSIDE[0], f"{t:g}") for t in nice_ticks(left, right)],
        [((top - t) / (top - bottom) * INSIDE[1], f"{t:g}") for t in nice_ticks(bottom, top)],
        "perplexity on harmless text (lower is more fluent)",
        "worst-case toxicity (EMT)",
    )
    return _draw("frontier", frame, placed, colours)


def toxicity_figure(shares: Mapping[str, np.ndarray], colours: Mapping[str, str], unit: str) -> Markup:
    """Outlines of the toxicity's distribution: for each model, shares of some unit over equal bins from 0 to 1."""
    most = max(0.01, *(float(values.max()) for values in shares.values()))

    def down(value: float) -> float:
        return LEGEND_ROOM + (1 - value / most) * (INSIDE[1] - LEGEND_ROOM)

    outlines, at = [], 0.0
    for i, (name, values) in enumerate(shares.items()):
        steps = (f"V{px(down(value))}H{px(b / len(values) * INSIDE[0])}" for b, value in enumerate(values.tolist(), 1))
        path = f"M0 {px(down(0))}{''.join(steps)}V{px(down(0))}"
        dash, title = list(DASHES.values())[i % len(DASHES)], variant_title(name)
        outlines.append({"path": path, "colour": colours[name], "dash": dash, "title": title, "at": at})
        at += 54 + LETTER * len(title)
    frame = _frame(
        [(t * INSIDE[0], f"{t:g}") for t in nice_ticks(0, 1)],
        [(down(t), f"{t:.0%}") for t in nice_ticks(0, most, 5)],
        f"toxicity ({TOXIC_FROM} or more counts as toxic)",
        f"share of {unit}",
    )
    return _draw("toxicity", frame, outlines, TOXIC_FROM * INSIDE[0], unit)


def _frame(across: list, up: list, x_title: str, y_title: str) -> dict:
    """The picture's size, and its axes: ticks as (pixel, text)."""
    size = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "top": TOP, "right": INSIDE[0], "floor": INSIDE[1]}
    return {**size, "across": across, "up": up, "x_title": x_title, "y_title": y_title}


def _draw(name: str, *arguments) -> Markup:
    return getattr(ENVIRONMENT.get_template("figures.html").module, name)(*arguments).strip()

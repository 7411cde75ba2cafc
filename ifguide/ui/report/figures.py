"""The report's pictures as inline SVG: pixels here, tags in `figures.html`."""

import math
from collections.abc import Container, Mapping, Sequence

import numpy as np
from markupsafe import Markup

from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.ui.chart_style import DASHES, variant_markers
from ifguide.ui.format import variant_title
from ifguide.ui.report.slides import FIRST_MODELS
from ifguide.ui.report.templates import ENVIRONMENT, px
from ifguide.ui.results.frontier import FrontierPoint, pull_in

WIDTH, HEIGHT = 760, 400
LEFT, TOP = 62, 16
INSIDE = WIDTH - LEFT - 16, HEIGHT - TOP - 48
LEGEND_COLUMNS, LEGEND_ROW = 3, 22


def nice_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers between two bounds, about this many."""
    step = 10.0 ** math.floor(math.log10((high - low) / about))
    step *= next(k for k in (1, 2, 5, 10) if (high - low) / (step * k) <= about)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def padded_range(values: Sequence[float]) -> tuple[float, float]:
    """The range of some values with room at both ends."""
    low, high = min(values), max(values)
    room = 0.12 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def frontier_figure(points: Sequence[FrontierPoint], colours: Mapping[str, str], edited: Container[str] = ()) -> Markup:
    """Worst-case toxicity against perplexity, a point for each model, with bars for the toxicity's intervals."""
    points, far = pull_in(points, FIRST_MODELS)
    emts = [emt for point in points for emt in (point.emt, point.emt_low, point.emt_high) if emt is not None]
    (left, right), (bottom, top) = padded_range([point.perplexity for point in points]), padded_range(emts)
    markers = variant_markers(colours, edited)

    def across(perplexity: float) -> float:
        return (perplexity - left) / (right - left) * INSIDE[0]

    def down(emt: float) -> float:
        return (top - emt) / (top - bottom) * INSIDE[1]

    models = [
        {
            "x": across(point.perplexity),
            "y": down(point.emt),
            "bar": [down(emt) for emt in (point.emt_high, point.emt_low) if emt is not None],
            "far": far.get(point.name),
            "symbol": markers[point.name],
            "colour": colours[point.name],
            "title": variant_title(point.name, point.name in edited),
        }
        for point in points
    ]
    frame = _frame(
        [(across(tick), f"{tick:g}") for tick in nice_ticks(left, right)],
        [(down(tick), f"{tick:g}") for tick in nice_ticks(bottom, top)],
        "perplexity on harmless text (lower is more fluent)",
        "worst-case toxicity (EMT)",
        models,
    )
    return _draw("frontier", frame)


def toxicity_figure(
    shares: Mapping[str, np.ndarray], colours: Mapping[str, str], unit: str, edited: Container[str] = ()
) -> Markup:
    """Outlines of the toxicity's distribution: for each model, shares of some unit over equal bins from 0 to 1."""
    most = max(0.01, *(float(values.max()) for values in shares.values()))

    def down(value: float) -> float:
        return (1 - value / most) * INSIDE[1]

    models = []
    for i, (name, values) in enumerate(shares.items()):
        steps = (f"V{px(down(value))}H{px(b / len(values) * INSIDE[0])}" for b, value in enumerate(values.tolist(), 1))
        path = f"M0 {px(down(0))}{''.join(steps)}V{px(down(0))}"
        dash = list(DASHES.values())[i % len(DASHES)]
        models.append(
            {"path": path, "colour": colours[name], "dash": dash, "title": variant_title(name, name in edited)}
        )
    frame = _frame(
        [(tick * INSIDE[0], f"{tick:g}") for tick in nice_ticks(0, 1)],
        [(down(tick), f"{tick:.0%}") for tick in nice_ticks(0, most, 5)],
        f"toxicity ({TOXIC_FROM} or more counts as toxic)",
        f"share of {unit}",
        models,
    )
    return _draw("toxicity", frame, TOXIC_FROM * INSIDE[0], unit)


def _frame(x_ticks: list, y_ticks: list, x_title: str, y_title: str, models: list[dict]) -> dict:
    """A picture's size, its axes with ticks as (pixel, text), and its models, each with its place in the legend."""
    width = WIDTH / LEGEND_COLUMNS
    for number, model in enumerate(models):
        row, place = divmod(number, LEGEND_COLUMNS)
        model["legend"] = place * width, INSIDE[1] + 66 + row * LEGEND_ROW
    return {
        "width": WIDTH,
        "height": HEIGHT + 12 + LEGEND_ROW * math.ceil(len(models) / LEGEND_COLUMNS),
        "left": LEFT,
        "top": TOP,
        "right": INSIDE[0],
        "floor": INSIDE[1],
        "x_ticks": x_ticks,
        "y_ticks": y_ticks,
        "x_title": x_title,
        "y_title": y_title,
        "models": models,
    }


def _draw(name: str, *arguments) -> Markup:
    return getattr(ENVIRONMENT.get_template("figures.html").module, name)(*arguments).strip()

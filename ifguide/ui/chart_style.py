"""What the charts have in common: line patterns, markers, size and legend."""

import itertools
from collections.abc import Container, Iterable, Sequence

import plotly.graph_objects as go

from ifguide.ui.palette import COUNTERS, TEACHES

CONFIG = {"displayModeBar": False}
"""Plotly's own toolbar is off: the page has a control for every range."""
DASHES = {"dot": "2 3", "solid": None, "dash": "7 4", "dashdot": "7 3 2 3", "longdash": "11 4"}
"""Plotly's name -> SVG pattern of the first, second, … model's line, so that models differ not only in colour."""
_MARKERS = {"base": "square", "oracle": "diamond"}
_MORE_MARKERS = ("circle", "triangle-up", "x", "cross", "triangle-down")


def variant_markers(names: Iterable[str], edited: Container[str] = ()) -> dict[str, str]:
    """A Plotly marker for each of a study's models, given in the study's order; like `palette.variant_colours`. Edited
    models have hollow ones."""
    more = itertools.cycle(_MORE_MARKERS)
    markers = {name: _MARKERS.get(name) or next(more) for name in names}
    return {name: f"{marker}-open" if name in edited else marker for name, marker in markers.items()}


def error_bars(
    values: Sequence[float], low: Sequence, high: Sequence, *, colour: str | None = None, width: int = 4
) -> dict:
    """Plotly's error bars from the ends of intervals."""
    up = [b - a for a, b in zip(values, high, strict=True)]
    down = [a - b for a, b in zip(values, low, strict=True)]
    ends = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
    return {**ends, "thickness": 1.2, "width": width, "color": colour}


def loss_chart(steps: list[int], selected: list[float | None], other: list[float | None]) -> go.Figure:
    """Loss of selected and of other tokens by step, one value for each line of the training log."""
    figure = go.Figure()
    lines = ("selected tokens", selected, TEACHES, "dot"), ("other tokens", other, COUNTERS, "solid")
    for name, values, colour, dash in lines:
        if any(value is not None for value in values):
            figure.add_scatter(
                x=steps,
                y=values,
                name=name,
                mode="lines",
                connectgaps=True,
                line={"color": colour, "width": 2, "dash": dash},
                hovertemplate="step %{x}: %{y:.3f} nats<extra></extra>",
            )
    figure.update_yaxes(title="loss in nats", rangemode="tozero")
    figure.update_xaxes(title="optimiser step")
    return calm(figure, height=280)


def calm(figure: go.Figure, height: int) -> go.Figure:
    """Give a chart the app's size, margins, legend and hover labels; it cannot be dragged."""
    return figure.update_layout(
        height=height,
        margin={"l": 10, "r": 10, "t": 34, "b": 10},
        bargap=0,
        barmode="overlay",
        dragmode=False,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        hoverlabel={"align": "left"},
    )

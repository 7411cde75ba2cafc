"""What the charts have in common: line patterns, markers, and how every Plotly chart looks."""

from collections.abc import Sequence

import plotly.graph_objects as go

from ifguide.ui.palette import COUNTERS, TEACHES

CONFIG = {"displayModeBar": False}
"""Plotly's own toolbar is off: the page has a control for every range."""
DASHES = {"dot": "2 3", "solid": None, "dash": "7 4", "dashdot": "7 3 2 3", "longdash": "11 4"}
"""Plotly's name -> SVG pattern of the first, second, … model's line, so that not only colour tells them apart."""
MARKERS = {"base": "square", "oracle": "diamond"}
"""Markers of the two models that bound the others: no suppression, and the best case; the others are circles."""
_LEGEND = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"}
_LOOK = {"bargap": 0, "barmode": "overlay", "dragmode": False, "legend": _LEGEND, "hoverlabel": {"align": "left"}}


def error_bars(values: Sequence[float], low: Sequence, high: Sequence, **more) -> dict:
    """Plotly's error bars from the ends of intervals."""
    up = [b - a for a, b in zip(values, high, strict=True)]
    down = [a - b for a, b in zip(values, low, strict=True)]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.2, "width": 4, **more}


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


def calm(figure: go.Figure, height: int, margin: dict | None = None) -> go.Figure:
    """Give a chart the app's size, margins, legend and hover labels; it cannot be dragged."""
    figure.update_layout(height=height, margin={"l": 10, "r": 10, "t": 34, "b": 10} | (margin or {}), **_LOOK)
    return figure

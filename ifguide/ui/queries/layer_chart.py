"""How likely completions are after each layer, a line a model. No streamlit here."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from ifguide.ui.chart_style import DASHES, calm, error_bars
from ifguide.ui.format import variant_title
from ifguide.ui.palette import variant_colours

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")


def shared_limits(sets: Sequence[dict[str, dict]]) -> tuple[float, float]:
    """Lowest and highest probability of all intervals of several sets, so that charts side by side have one axis."""
    lows = [value for layers in sets for values in layers.values() for value in values["log_probability_low"]]
    highs = [value for layers in sets for values in layers.values() for value in values["log_probability_high"]]
    return math.exp(min(lows)), math.exp(max(highs))


def layer_chart(layers: dict[str, dict], limits: tuple[float, float]) -> go.Figure:
    """Geometric mean probability of a completion's token after each layer, with 95% intervals.

    Args:
        layers: for each model the lists `log_probability`, `log_probability_low` and `log_probability_high` (nats) over
            layers.
        limits: lowest and highest probability that the axis shows.
    """
    figure, colours = go.Figure(), variant_colours(layers)
    for i, (name, values) in enumerate(layers.items()):
        middle, low, high = (
            [math.exp(value) for value in values[f"log_probability{end}"]] for end in ("", "_low", "_high")
        )
        figure.add_scatter(
            x=list(range(len(middle))),
            y=middle,
            mode="lines+markers",
            name=variant_title(name),
            line={"color": colours[name], "width": 2, "dash": list(DASHES)[i % len(DASHES)]},
            marker={"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 7},
            error_y=error_bars(middle, low, high, thickness=1, width=3),
            hovertemplate="after layer %{x}: %{y:.3g}<extra>%{fullData.name}</extra>",
        )
    n_layers = len(next(iter(layers.values()))["log_probability"])
    every = max(1, math.ceil(n_layers / 12))
    places = list(range(0, n_layers, every))
    names = ["embedding", *map(str, places[1:])]
    figure.update_xaxes(title="layer", tickvals=places, ticktext=names)
    bottom, top = (math.log10(limit) for limit in limits)
    room = 0.05 * (top - bottom) + 0.05
    figure.update_yaxes(
        title="probability of a token", type="log", exponentformat="power", dtick=1, range=[bottom - room, top + room]
    )
    return calm(figure, height=320, margin={"t": 60})

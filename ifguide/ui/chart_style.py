"""What every Plotly chart has in common."""

import plotly.graph_objects as go

from ifguide.ui.palette import COUNTERS, TEACHES

CONFIG = {"displayModeBar": False}
"""Plotly's own toolbar is switched off: every range has a control on the page."""


def loss_chart(steps: list[int], selected: list[float | None], other: list[float | None]) -> go.Figure:
    """Loss of selected and of other tokens by step, one value a line of the training's log."""
    figure = go.Figure()
    for name, values, colour, dash in (
        ("selected tokens", selected, TEACHES, "dot"),
        ("other tokens", other, COUNTERS, "solid"),
    ):
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
    figure.update_layout(
        height=height,
        margin={"l": 10, "r": 10, "t": 34, "b": 10},
        bargap=0,
        barmode="overlay",
        dragmode=False,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        hoverlabel={"align": "left"},
    )
    return figure

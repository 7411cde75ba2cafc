"""The charts, drawn from binned counts only: no chart grows with the corpus. No streamlit here."""

import numpy as np
import plotly.graph_objects as go

from ifguide.ui.format import variant_title
from ifguide.ui.palette import COUNTERS, MUTED, TEACHES, variant_colour

CONFIG = {"displayModeBar": False}
"""Plotly's own toolbar is switched off: every range has a control on the page."""


def toxicity_chart(values: dict[str, np.ndarray], *, n_bins: int = 25, unit: str = "completions") -> go.Figure:
    """Toxicity of two models, each as shares over equal bins from 0 to 1, one outline on the other."""
    figure = go.Figure()
    edges = np.linspace(0, 1, n_bins + 1)
    for i, (name, toxicity) in enumerate(values.items()):
        counts, _ = np.histogram(toxicity, bins=edges)
        shares = counts / max(1, counts.sum())
        colour = variant_colour(name)
        figure.add_scatter(
            x=np.append(edges[:-1], 1.0), y=np.append(shares, shares[-1]), name=variant_title(name), mode="lines",
            line={"shape": "hv", "color": colour, "width": 2, "dash": "solid" if i else "dot"},
            fill="tozeroy", fillcolor=_clear(colour, 0.22),
            hovertemplate=f"%{{y:.1%}} of {unit}<br>from %{{x:.2f}} on<extra></extra>",
        )  # fmt: skip
    figure.add_vline(
        x=0.5,
        line={"color": MUTED, "width": 1, "dash": "dash"},
        annotation_text="counts as toxic →",
        annotation_position="top right",
    )
    figure.update_yaxes(title=f"share of {unit}", tickformat=".0%", rangemode="tozero")
    figure.update_xaxes(title="toxicity", range=[0, 1])
    return _calm(figure, height=300)


def loss_chart(steps: list[int], selected: list[float | None], other: list[float | None]) -> go.Figure:
    """Loss of selected and of other tokens by step, one value a line of the training's log."""
    figure = go.Figure()
    for name, values, colour, dash in (
        ("selected tokens", selected, TEACHES, "dot"),
        ("other tokens", other, COUNTERS, "solid"),
    ):
        if any(value is not None for value in values):
            figure.add_scatter(
                x=steps, y=values, name=name, mode="lines", connectgaps=True,
                line={"color": colour, "width": 2, "dash": dash},
                hovertemplate="step %{x}: %{y:.3f} nats<extra></extra>",
            )  # fmt: skip
    figure.update_yaxes(title="loss in nats", rangemode="tozero")
    figure.update_xaxes(title="optimiser step")
    return _calm(figure, height=280)


def _clear(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def _calm(figure: go.Figure, height: int) -> go.Figure:
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

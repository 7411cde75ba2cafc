"""The charts, drawn from binned counts only: no chart grows with the corpus. No streamlit here."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from ifguide.ui.format import variant_title
from ifguide.ui.palette import MUTED, TEACHES, variant_colour

CONFIG = {"displayModeBar": False}
"""Plotly's own toolbar is switched off: every range has a control on the page."""


@dataclass(frozen=True)
class ScoreBins:
    """Exact counts of valid scores between edges; one edge is the threshold."""

    edges: np.ndarray
    """float64 (B+1,)."""
    counts: np.ndarray
    """int64 (B,)."""
    threshold: float


def bin_scores(sorted_scores: np.ndarray, threshold: float, *, low: float, high: float, n_bins: int = 120) -> ScoreBins:
    """Count scores in equal bins between `low` and `high`, cut once more at the threshold.

    Args:
        sorted_scores: float32 (n,), ascending; read in B places only, so a memory map stays on disk.
        threshold: scores strictly above it are hits.
        low: left end.
        high: right end, included.
        n_bins: bins before the cut.
    """
    edges = np.linspace(low, high, n_bins + 1)
    if low < threshold < high:
        edges = np.unique(np.append(edges, threshold))
    below = np.searchsorted(sorted_scores, edges.astype(np.float32), side="right")
    below[0] = np.searchsorted(sorted_scores, np.float32(low), side="left")
    return ScoreBins(edges, np.diff(below), threshold)


def score_chart(bins: ScoreBins) -> go.Figure:
    """Distribution of scores with a logarithmic count axis, coloured at the threshold."""
    figure = go.Figure()
    centres, widths = (bins.edges[:-1] + bins.edges[1:]) / 2, np.diff(bins.edges)
    above = bins.edges[:-1] >= bins.threshold
    for part, name, colour in ((~above, "below the threshold", MUTED), (above, "above the threshold", TEACHES)):
        figure.add_bar(
            x=centres[part], y=bins.counts[part], width=widths[part], name=name, marker={"color": colour, "line": {"width": 0}},
            customdata=np.stack([bins.edges[:-1][part], bins.edges[1:][part]], axis=-1),
            hovertemplate="score %{customdata[0]:.3g} to %{customdata[1]:.3g}<br>%{y:,} tokens<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=bins.threshold, line={"color": TEACHES, "width": 1.5, "dash": "dash"})
    figure.update_yaxes(
        type="log",
        title="tokens (log scale)",
        dtick=1,
        tickformat=",",
        range=[-0.2, float(np.log10(max(1, bins.counts.max()))) + 0.1],
    )
    figure.update_xaxes(title="score of the token")
    return _calm(figure, height=300)


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

"""The charts, drawn from binned counts only: no chart grows with the corpus. No streamlit here."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from ifguide.ui.chart_style import calm
from ifguide.ui.compare.frontier import FrontierPoint, bounds_of, label_points, padded_range, place_labels, pull_in
from ifguide.ui.compare.tables import toxicity_shares
from ifguide.ui.format import variant_title
from ifguide.ui.palette import MUTED, variant_colours

DASHES = ("dot", "solid", "dash", "dashdot")
"""Of the first, second, … model's line, so that colour is not all that tells them apart."""
MARKERS = {"base": "square", "oracle": "diamond"}
"""Signs of the two models that say how bad it was and how good it could be; the others are circles."""
_LETTER, _LINE = 7.2, 22.0
"""Width of a letter and height of a line in pixels, about, at the labels' size."""


def toxicity_chart(
    values: dict[str, np.ndarray],
    *,
    n_bins: int = 25,
    unit: str = "completions",
    colours: Mapping[str, str] | None = None,
) -> go.Figure:
    """Toxicity of some models, each as shares over equal bins from 0 to 1, one outline on the other."""
    figure = go.Figure()
    edges = np.linspace(0, 1, n_bins + 1)
    colours = colours or variant_colours(values)
    for i, (name, toxicity) in enumerate(values.items()):
        shares = toxicity_shares(toxicity, n_bins)
        figure.add_scatter(
            x=np.append(edges[:-1], 1.0),
            y=np.append(shares, shares[-1]),
            name=variant_title(name),
            mode="lines",
            line={"shape": "hv", "color": colours[name], "width": 2, "dash": DASHES[i % len(DASHES)]},
            fill="tozeroy",
            fillcolor=_clear(colours[name], 0.3 / len(values)),
            hovertemplate=f"%{{y:.1%}} of {unit}<br>from %{{x:.2f}} on<extra></extra>",
        )
    figure.add_vline(
        x=0.5,
        line={"color": MUTED, "width": 1, "dash": "dash"},
        annotation_text="counts as toxic →",
        annotation_position="top right",
    )
    figure.update_yaxes(title=f"share of {unit}", tickformat=".0%", rangemode="tozero")
    figure.update_xaxes(title="toxicity", range=[0, 1])
    return calm(figure, height=320)


def frontier_chart(
    points: Sequence[FrontierPoint], *, colours: Mapping[str, str], chosen: Sequence[str] = (), width: float = 520.0
) -> go.Figure:
    """Expected maximum toxicity against perplexity, a point a model, intervals of the former as bars, names beside the
    points.

    Args:
        points: all measured models.
        colours: of each.
        chosen: models that are being compared; the others are paler.
        width: of the plot in pixels at its narrowest; a wider one only moves the names further apart.
    """
    height, margin = 400, {"l": 60, "r": 14, "t": 14, "b": 46}
    named = [*chosen, *MARKERS]
    points, far = pull_in(points, named)
    inside = width - margin["l"] - margin["r"], height - margin["t"] - margin["b"]
    across, up = padded_range(bounds_of(points, "perplexity")), padded_range(bounds_of(points, "emt"))

    def to_pixels(x: float, y: float) -> tuple[float, float]:
        return (x - across[0]) / (across[1] - across[0]) * inside[0], (up[1] - y) / (up[1] - up[0]) * inside[1]

    places = [to_pixels(point.perplexity, point.emt) for point in points]
    known = label_points(points, {point.name: variant_title(point.name) for point in points}, named)
    titles = [
        f"{known[point.name]} ({far[point.name]:.1f} →)" if point.name in far else known[point.name] for point in points
    ]
    bars = []
    for point, (x, _) in zip(points, places, strict=True):
        if point.emt_low is not None and point.emt_high is not None:
            bars.append((x - 3, to_pixels(0, point.emt_high)[1], x + 3, to_pixels(0, point.emt_low)[1]))
    labels = place_labels(places, [_LETTER * len(title) + 6 for title in titles], height=_LINE, size=inside, bars=bars)
    figure = go.Figure()
    for point, (x, y), (cx, cy), title in zip(points, places, labels, titles, strict=True):
        colour, strong = colours[point.name], not chosen or point.name in chosen
        figure.add_scatter(
            x=[point.perplexity],
            y=[point.emt],
            mode="markers",
            name=variant_title(point.name),
            showlegend=False,
            opacity=1.0 if strong else 0.55,
            marker={
                "color": colour,
                "size": 11,
                "symbol": "triangle-right" if point.name in far else MARKERS.get(point.name, "circle"),
                "line": {"width": 0},
            },
            error_y=_bar(point.emt, point.emt_low, point.emt_high, colour),
            hovertemplate=(
                f"{_escape(variant_title(point.name))}<br>perplexity"
                f" {far.get(point.name, point.perplexity):.2f}<br>expected max. toxicity %{{y:.3f}}<extra></extra>"
            ),
        )
        figure.add_annotation(
            x=point.perplexity,
            y=point.emt,
            ax=cx - x,
            ay=cy - y,
            text=_escape(title),
            showarrow=True,
            arrowhead=0,
            arrowwidth=1,
            arrowcolor=MUTED,
            standoff=6,
            font={"size": 13},
            borderpad=1,
            opacity=1.0 if strong else 0.75,
        )
    figure.update_xaxes(title="perplexity on harmless text  (lower is more fluent)", range=list(across), zeroline=False)
    figure.update_yaxes(title="expected max. toxicity", range=list(up), zeroline=False)
    calm(figure, height=height)
    figure.update_layout(margin=margin)
    return figure


def _bar(value: float, low: float | None, high: float | None, colour: str) -> dict | None:
    if low is None or high is None:
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value],
        "arrayminus": [value - low],
        "color": colour,
        "thickness": 1.2,
        "width": 4,
    }


def _escape(text: str) -> str:
    """Plotly reads a little HTML in labels."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clear(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:.3g})"

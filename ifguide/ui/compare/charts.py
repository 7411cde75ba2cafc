"""The Compare page's charts, drawn from binned counts only: no chart grows with the corpus. No streamlit here."""

import html
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.ui.chart_style import DASHES, MARKERS, calm, error_bars
from ifguide.ui.format import variant_title
from ifguide.ui.palette import MUTED
from ifguide.ui.results.frontier import FrontierPoint, lay_out
from ifguide.ui.results.tables import toxicity_shares

NARROWEST = 520
"""Pixels; in a wider chart the models' names are only further apart."""
_LINE = {"showarrow": True, "arrowhead": 0, "arrowwidth": 1, "arrowcolor": MUTED, "standoff": 6}
_NAME = {**_LINE, "font": {"size": 13}, "borderpad": 1}


def toxicity_chart(values: dict[str, np.ndarray], *, unit: str, colours: Mapping[str, str]) -> go.Figure:
    """Toxicity of some models, each as shares over equal bins from 0 to 1, as overlaid outlines."""
    figure = go.Figure()
    for i, (name, toxicity) in enumerate(values.items()):
        shares = toxicity_shares(toxicity)
        red, green, blue = (int(colours[name][at : at + 2], 16) for at in (1, 3, 5))
        figure.add_scatter(
            x=np.linspace(0, 1, len(shares) + 1),
            y=np.append(shares, shares[-1]),
            name=html.escape(variant_title(name)),
            mode="lines",
            line={"shape": "hv", "color": colours[name], "width": 2, "dash": list(DASHES)[i % len(DASHES)]},
            fill="tozeroy",
            fillcolor=f"rgba({red},{green},{blue},{0.3 / len(values):.3g})",
            hovertemplate=f"%{{y:.1%}} of {unit}<br>from %{{x:.2f}} on<extra></extra>",
        )
    note: dict = {"annotation_text": "counts as toxic →", "annotation_position": "top right"}
    figure.add_vline(x=TOXIC_FROM, line={"color": MUTED, "width": 1, "dash": "dash"}, **note)
    figure.update_yaxes(title=f"share of {unit}", tickformat=".0%", rangemode="tozero")
    figure.update_xaxes(title="toxicity", range=[0, 1])
    return calm(figure, height=320)


def frontier_chart(
    points: Sequence[FrontierPoint], *, colours: Mapping[str, str], chosen: Sequence[str] = ()
) -> go.Figure:
    """Worst-case toxicity against perplexity of all measured models: a point for each, its toxicity's interval as a
    bar, its name beside it. Those that are not `chosen` are paler."""
    height, margin = 400, {"l": 60, "r": 14, "t": 14, "b": 46}
    size = NARROWEST - margin["l"] - margin["r"], height - margin["t"] - margin["b"]
    placed, across, up = lay_out(points, [*chosen, *MARKERS], size)
    figure = go.Figure()
    for shown in placed:
        point, colour, title = shown.point, colours[shown.point.name], html.escape(variant_title(shown.point.name))
        strong = not chosen or point.name in chosen
        known = point.emt_low is not None and point.emt_high is not None
        figure.add_scatter(
            x=[point.perplexity],
            y=[point.emt],
            mode="markers",
            name=title,
            showlegend=False,
            opacity=1.0 if strong else 0.55,
            marker={"color": colour, "size": 11, "symbol": shown.symbol, "line": {"width": 0}},
            error_y=error_bars([point.emt], [point.emt_low], [point.emt_high], color=colour) if known else None,
            hovertemplate=(
                f"{title}<br>perplexity {shown.far or point.perplexity:.2f}<br>worst-case toxicity"
                " %{y:.3f}<extra></extra>"
            ),
        )
        figure.add_annotation(
            x=point.perplexity,
            y=point.emt,
            ax=shown.label[0] - shown.at[0],
            ay=shown.label[1] - shown.at[1],
            text=html.escape(shown.title, quote=False),
            opacity=1.0 if strong else 0.75,
            **_NAME,
        )
    figure.update_xaxes(title="perplexity on harmless text  (lower is more fluent)", range=list(across), zeroline=False)
    figure.update_yaxes(title="worst-case toxicity (EMT)", range=list(up), zeroline=False)
    return calm(figure, height=height, margin=margin)

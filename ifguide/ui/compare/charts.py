"""The Compare page's charts, drawn from binned counts: no chart grows with the corpus. No streamlit here."""

import html
from collections.abc import Container, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from ifguide.config.attributions import describe_kind
from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.study.analysis.dose import EDITED, Measured
from ifguide.ui.chart_style import DASHES, calm, error_bars, variant_markers
from ifguide.ui.format import variant_title
from ifguide.ui.palette import MUTED, kind_colours
from ifguide.ui.results.dose import made_alike
from ifguide.ui.results.frontier import FrontierPoint, pull_in
from ifguide.ui.results.tables import toxicity_shares


def toxicity_chart(
    values: dict[str, np.ndarray], *, unit: str, colours: Mapping[str, str], edited: Container[str] = ()
) -> go.Figure:
    """Distribution of the toxicity of some models' completions over equal bins from 0 to 1, as overlaid outlines."""
    figure = go.Figure()
    for i, (name, toxicity) in enumerate(values.items()):
        shares = toxicity_shares(toxicity)
        red, green, blue = (int(colours[name][at : at + 2], 16) for at in (1, 3, 5))
        figure.add_scatter(
            x=np.linspace(0, 1, len(shares) + 1),
            y=np.append(shares, shares[-1]),
            name=html.escape(variant_title(name, name in edited)),
            mode="lines",
            line={"shape": "hv", "color": colours[name], "width": 2, "dash": list(DASHES)[i % len(DASHES)]},
            fill="tozeroy",
            fillcolor=f"rgba({red},{green},{blue},{0.3 / len(values):.3g})",
            hovertemplate=f"%{{y:.1%}} of {unit}<br>from %{{x:.2f}} on<extra></extra>",
        )
    note, dashed = "counts as toxic →", {"color": MUTED, "width": 1, "dash": "dash"}
    figure.add_vline(x=TOXIC_FROM, line=dashed, annotation_text=note, annotation_position="top right")
    figure.update_yaxes(title=f"share of {unit}", tickformat=".0%", rangemode="tozero")
    figure.update_xaxes(title="toxicity", range=[0, 1])
    return calm(figure, height=320)


def frontier_chart(
    points: Sequence[FrontierPoint],
    *,
    colours: Mapping[str, str],
    chosen: Sequence[str] = (),
    edited: Container[str] = (),
) -> go.Figure:
    """Worst-case toxicity against perplexity of all measured models, with the toxicity's interval as a bar. Models that
    are not `chosen` are paler; one far to the right is drawn at the edge, beside its perplexity."""
    points, far = pull_in(points, chosen)
    markers = variant_markers(colours, edited)
    figure = go.Figure()
    for point in points:
        name, colour, perplexity = point.name, colours[point.name], far.get(point.name, point.perplexity)
        bounded = point.emt_low is not None and point.emt_high is not None
        figure.add_scatter(
            x=[point.perplexity],
            y=[point.emt],
            mode="markers+text",
            name=html.escape(variant_title(name, name in edited)),
            text=[f"{perplexity:.1f} →" if name in far else ""],
            textposition="middle left",
            opacity=1.0 if name in chosen or not chosen else 0.55,
            marker={"color": colour, "size": 11, "symbol": markers[name]},
            error_y=error_bars([point.emt], [point.emt_low], [point.emt_high], colour=colour) if bounded else None,
            hovertemplate=(
                f"%{{fullData.name}}<br>perplexity {perplexity:.2f}<br>worst-case toxicity %{{y:.3f}}<extra></extra>"
            ),
        )
    figure.update_xaxes(title="perplexity on harmless text  (lower is more fluent)", zeroline=False)
    figure.update_yaxes(title="worst-case toxicity (EMT)", zeroline=False)
    return calm(figure, height=400)


def dose_chart(points: Sequence[Measured]) -> go.Figure:
    """Prompts with a toxic answer by the number of tokens taken out: trained models are dots, edited ones rings, and
    dashed lines, straight in the logarithm of the tokens, are interpolations."""
    figure, colours = go.Figure(), kind_colours(point.kind for point in points)
    named = set()
    for group in made_alike(points):
        made, colour = "edited" if group[0].method == EDITED else "retrained", colours[group[0].kind]
        values, low, high = zip(*(point.tp for point in group), strict=True)
        figure.add_scatter(
            x=[point.tokens_above for point in group],
            y=values,
            mode="lines+markers",
            name=f"{html.escape(describe_kind(group[0].kind).title)}, {made}",
            showlegend=(made, colour) not in named,
            line={"color": colour, "width": 1.5, "dash": "dash"},
            marker={"color": colour, "size": 11, "symbol": "circle-open" if made == "edited" else "circle"},
            error_y=error_bars(values, low, high, colour=colour),
            text=[html.escape(variant_title(point.model)) for point in group],
            hovertemplate=f"%{{text}} ({made})<br>%{{x:,}} tokens<br>%{{y:.1%}} of prompts<extra></extra>",
        )
        named.add((made, colour))
    ticks = [factor * 10**power for power in range(10) for factor in (1, 2, 5)]
    figure.update_xaxes(title="tokens above the threshold", type="log", tickvals=ticks, tickformat=",")
    figure.update_yaxes(title="prompts with a toxic answer", tickformat=".0%", rangemode="tozero")
    return calm(figure, height=360)

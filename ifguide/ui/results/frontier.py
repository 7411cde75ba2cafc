"""Toxicity against perplexity: a point for each model, for the Compare page and the report. No drawing here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ifguide.ui.format import finite


@dataclass(frozen=True, kw_only=True)
class FrontierPoint:
    """One evaluated model. Further left and lower is better."""

    name: str
    perplexity: float
    """On held-out text. No interval: all models read the same texts, so their perplexities move together, and only the
    interval of a difference says something. The comparison's table has it."""
    emt: float
    """Expected maximum toxicity."""
    emt_low: float | None = None
    emt_high: float | None = None


def frontier_points(metrics: Mapping[str, dict | None]) -> list[FrontierPoint]:
    """Points of the models whose metrics.json has a finite perplexity and EMT."""
    points = []
    for name, values in metrics.items():
        perplexity, emt, low, high = (
            finite((values or {}).get(key)) for key in ("perplexity", "emt", "emt_low", "emt_high")
        )
        if perplexity is not None and emt is not None:
            points.append(FrontierPoint(name=name, perplexity=perplexity, emt=emt, emt_low=low, emt_high=high))
    return points


FAR = 1.25
"""A model with more than this many times the base model's perplexity is drawn at the right edge."""


def pull_in(points: Sequence[FrontierPoint], fixed: Sequence[str]) -> tuple[list[FrontierPoint], dict[str, float]]:
    """Points with those of very high perplexity moved to the right edge, so that the others have room (`fixed` ones
    stay); and the true perplexity of those that were moved, by name."""
    base = next((point.perplexity for point in points if point.name == "base"), min(p.perplexity for p in points))
    near = [p.perplexity for p in points if p.perplexity <= FAR * base or p.name in fixed]
    low, high = min(p.perplexity for p in points), max(near)
    edge = high + 0.1 * max(high - low, 0.05 * base)
    far = {point.name: point.perplexity for point in points if point.perplexity > edge}
    return [replace(point, perplexity=edge) if point.name in far else point for point in points], far

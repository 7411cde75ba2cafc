"""Dose and response: what each measured model of a study does, against how many tokens it was made without."""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ifguide.config.names import BASE, DEFAULT
from ifguide.errors import InputError
from ifguide.evaluation.statistics import Interval
from ifguide.study.analysis.comparison import compare_perplexity
from ifguide.study.variants import UNSELECTED, recipe

if TYPE_CHECKING:
    from ifguide.study.reading import Study

EDITED, TRAINED = "edited", "trained"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One measured model, made against the tokens above a threshold."""

    model: str
    kind: str
    """The kind of scores."""
    method: str
    """`EDITED` or `TRAINED`."""
    seed: int
    """Of the training, beside the study's own; 0 for an edit."""
    tokens_above: int
    """Tokens above the threshold."""
    n_tokens: int
    """Tokens taken: with their neighbours, within the budget."""
    threshold: float
    """The score of the threshold."""
    tp: Interval
    """Prompts with a toxic answer, as a share, with its 95% interval over prompts."""
    emt: Interval
    """Worst-case toxicity, likewise."""
    rise: Interval | None
    """Perplexity above the base model's on the same held-out texts, as a share of it; None without such text."""
    series: str = ""
    """What it shares with models between which something can be interpolated: all settings of how it was made, but for
    the tokens and the seed."""
    effect: float | None
    """Sum of the taken tokens' own-loss influence: to first order, what the model unlearns. None where the study has no
    such scores."""


def measured_points(study: "Study") -> list[Measured]:
    """Every measured model that was made against tokens above a threshold, by the number of tokens."""
    heldout, points = study.heldout_losses(BASE) if BASE in study.evaluation_names() else None, []
    influence = study.scores("own_loss") if study.has_scores("own_loss") else None
    for model in study.evaluation_names():
        variant = None if model in UNSELECTED else recipe(study.config, model)
        if variant is None or variant.onto or variant.selection not in study.selection_names():
            continue
        selection = study.selection(variant.selection)
        made = selection.settings
        if made.get("kind") not in ("influence", made.get("attribution")) or made.get("tokens_above") is None:
            continue  # drawn at random, marked by people, borrowed: no threshold chose it
        metrics = study.metrics(model) or {}
        mask = np.flatnonzero(selection.mask)
        points.append(
            Measured(
                model=model,
                kind=made["attribution"],
                method=EDITED if variant.method == "edit" else TRAINED,
                seed=variant.seed,
                series=repr(
                    (dataclasses.replace(variant, selection=DEFAULT, seed=0), made["window"], made["max_tokens"])
                ),
                tokens_above=made["tokens_above"],
                n_tokens=made["n_selected"],
                threshold=made["threshold"],
                tp=_interval(metrics, "tp"),
                emt=_interval(metrics, "emt"),
                rise=compare_perplexity(heldout, study.heldout_losses(model))[1],
                effect=None if influence is None else float(np.asarray(influence[mask], np.float64).sum()),
            )
        )
    return sorted(points, key=lambda point: (point.tokens_above, point.kind, point.method, point.model))


COLUMNS = (
    *("model", "kind", "method", "seed", "tokens_above", "n_tokens", "threshold"),
    *("tp", "tp_low", "tp_high", "emt", "emt_low", "emt_high", "rise", "rise_low", "rise_high", "effect"),
)
"""Of the table of measured models."""


def table_row(point: Measured) -> dict:
    """A measured model as a row of that table."""
    row = {name: getattr(point, name) for name in COLUMNS[:7]}
    for name in ("tp", "emt", "rise"):
        interval = getattr(point, name) or (None, None, None)
        row |= {f"{name}{end}": value for end, value in zip(("", "_low", "_high"), interval, strict=True)}
    return row | {"effect": point.effect}


def _interval(metrics: dict, key: str) -> Interval:
    return Interval(metrics[key], metrics.get(f"{key}_low", metrics[key]), metrics.get(f"{key}_high", metrics[key]))


@dataclass(frozen=True, kw_only=True)
class Between:
    """A value read off between two measured models of one kind: an interpolation, and to be shown as one."""

    tp: Interval
    rise: float | None
    below: Measured
    above: Measured


def interpolate(points: Iterable[Measured], kind: str, method: str, tokens_above: int) -> Between | None:
    """What is between the measured neighbours of a threshold, straight in the logarithm of the tokens; bounds are
    those of the neighbours. None outside the measured range."""
    own = [point for point in points if (point.kind, point.method) == (kind, method)]
    below = max((p for p in own if p.tokens_above <= tokens_above), key=lambda p: p.tokens_above, default=None)
    above = min((p for p in own if p.tokens_above >= tokens_above), key=lambda p: p.tokens_above, default=None)
    if below is None or above is None:
        return None
    ends = (math.log(max(1, point.tokens_above)) for point in (below, above))
    low, high = ends
    share = (math.log(max(1, tokens_above)) - low) / (high - low) if high > low else 0.0
    mix = [a + share * (b - a) for a, b in zip(below.tp, above.tp, strict=True)]
    rises = [point.rise.value for point in (below, above) if point.rise]
    rise = rises[0] + share * (rises[1] - rises[0]) if len(rises) == 2 else None
    return Between(tp=Interval(*mix), rise=rise, below=below, above=above)


def cheapest_within(points: Iterable[Measured], budget: float) -> Measured | None:
    """The measured model with the fewest toxic answers whose perplexity has risen by at most `budget`, the one of fewer
    tokens among equals; None: no measured model is within it."""
    within = [point for point in points if point.rise is not None and point.rise.value <= budget]
    return min(within, key=lambda point: (point.tp.value, point.emt.value, point.n_tokens), default=None)


def best_measured(study: "Study", kind: str, budget: float) -> Measured:
    """`cheapest_within` among the study's models by one kind of scores. An InputError: there is none."""
    if best := cheapest_within((point for point in measured_points(study) if point.kind == kind), budget):
        return best
    raise InputError(
        f"no measured model by {kind} scores has raised perplexity by {budget:.1%} at most; measure some with"
        f" `ifguide sweep {study.name} --attribution {kind}`, or allow more"
    )


def rank_agreement(points: Iterable[Measured]) -> tuple[float, int] | None:
    """How well the sums of influence rank the measured models by their toxic answers: Spearman's correlation of the
    sums with fewer of them, and the number of models; None for fewer than three."""
    import pandas as pd

    pairs = [(point.effect, -point.emt.value) for point in points if point.effect is not None]
    if len(pairs) < 3:
        return None
    rho = float(pd.DataFrame(pairs).corr("spearman").iloc[0, 1])
    return None if math.isnan(rho) else (rho, len(pairs))

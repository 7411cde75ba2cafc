"""Tables that compare several models, as columns and rows for `record_table` and the report. No streamlit here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from ifguide.evaluation.outcomes import Outcomes
from ifguide.evaluation.statistics import INTERVALS, TOXIC_FROM, Interval
from ifguide.study.analysis.comparison import Comparison
from ifguide.ui.format import (
    column,
    count,
    count_of,
    model_cell,
    number,
    per_cent,
    share,
    signed,
    variant_note,
    variant_title,
)
from ifguide.ui.palette import variant_colours
from ifguide.ui.results.frontier import MANY, frontier_points, order_points

Table = tuple[list[dict], list[dict]]
"""Columns and rows."""


@dataclass(frozen=True)
class Metric:
    """A number of metrics.json."""

    key: str
    title: str
    note: str
    digits: int = 3
    per_cent: bool = False

    def text(self, value: float | None) -> str:
        """The number, or a dash when it was not measured."""
        return per_cent(value) if self.per_cent and value is not None else number(value, self.digits)

    def cell(self, values: Mapping) -> list[str]:
        """The number and its 95% interval, for an `interval` column."""
        low, high = values.get(f"{self.key}_low"), values.get(f"{self.key}_high")
        known = low is not None and high is not None
        return [self.text(values.get(self.key)), f"{self.text(low)} – {self.text(high)}" if known else ""]

    def change(self, value: float) -> str:
        """A difference with its sign, in percentage points where the number is per cent."""
        return f"{signed(100 * value, 1).removesuffix('.0')} pp" if self.per_cent else signed(value, self.digits)


METRICS = (
    Metric(
        "emt",
        "Worst-case toxicity (EMT)",
        "Expected maximum toxicity: the highest toxicity among a prompt's completions, averaged over prompts. Lower is"
        " better. Interval: bootstrap over prompts.",
    ),
    Metric(
        "tp",
        "Prompts with a toxic answer",
        f"Prompts with a completion rated {TOXIC_FROM} or more. Lower is better. Interval: Wilson over prompts.",
        per_cent=True,
    ),
    Metric("mean_toxicity", "Mean toxicity", "Of all completions. Lower is better. Interval: bootstrap over prompts."),
    Metric(
        "implicit_emt",
        "Implicit: worst case (EMT)",
        "EMT by the second classifier: hate in polite words. Lower is better. Interval: bootstrap over prompts.",
    ),
    Metric(
        "implicit_tp",
        "Implicit: prompts with a toxic answer",
        "The same by the second classifier. Lower is better. Interval: Wilson over prompts.",
        per_cent=True,
    ),
    Metric("implicit_mean_toxicity", "Implicit: mean", "By the second classifier. Interval: bootstrap over prompts."),
    Metric(
        "perplexity",
        "Perplexity",
        "How much harmless held-out text surprises the model. Lower is better. Interval: bootstrap over those texts.",
        digits=2,
    ),
    Metric(
        "distinct_1",
        "Distinct words",
        "Different words as a share of all words of the completions. Much lower than the base model's is duller text.",
    ),
    Metric("distinct_2", "Distinct pairs", "Different word pairs as a share of all word pairs of the completions."),
    Metric(
        "repetition",
        "Repetition",
        "Share of four-word runs that repeat an earlier one in the same completion. Near 1 means the model loops.",
    ),
    Metric(
        "lambada_accuracy",
        "Last words",
        "LAMBADA: passages whose last word is the likeliest one. Higher is better. Interval: Wilson over them.",
    ),
)
HEADLINE = ("emt", "tp", "perplexity")


def known_metrics(metrics: Mapping[str, dict], keys: Sequence[str] | None = None) -> list[Metric]:
    """The entries of `METRICS`, or of those with these keys, that any model has."""
    wanted = [m for m in METRICS if keys is None or m.key in keys]
    return [m for m in wanted if any(_is_number(values.get(m.key)) for values in metrics.values())]


def is_clear(change: Interval | None) -> bool:
    """Whether a difference's 95% interval leaves out zero."""
    return change is not None and (change.low > 0 or change.high < 0)


def headline(metrics: Mapping[str, dict], name: str, found: Comparison | None) -> list[str]:
    """The result of one model in a few sentences: toxic answers, fluency, and the random control. `found` is it against
    the first model of `metrics`, where they completed the same prompts."""
    before, after = next(iter(metrics.values())), metrics[name]
    ends = f"from {per_cent(before['tp'])} to {per_cent(after['tp'])} of prompts"
    moved = "fell" if after["tp"] < before["tp"] else "rose"
    if after["tp"] == before["tp"]:
        said = [f"Prompts with a toxic answer: {per_cent(after['tp'])}, before and after."]
    elif found is None or is_clear(found.tp):
        said = [f"Toxic answers {moved} {ends}."]
    else:
        said = [f"Toxic answers {moved} {ends}, which may be chance."]
    if found is not None and found.perplexity is not None:
        ends = f"perplexity {number(before.get('perplexity'), 2)} → {number(after.get('perplexity'), 2)}"
        change = "better" if found.perplexity.value > 0 else "worse"
        said.append(f"Fluency: {change if is_clear(found.perplexity) else 'no clear change'} ({ends}).")
    if name != "random" and "random" in metrics:
        said.append(f"Random tokens, same amount: {per_cent(metrics['random']['tp'])}.")
    return said


def _is_number(value) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def metric_table(
    metrics: Mapping[str, dict],
    keys: Sequence[str] | None = None,
    colours: Mapping[str, str] | None = None,
    *,
    notes: bool = True,
) -> Table:
    """The table of models: each number (all, or those of `keys`) with its 95% interval below, where there is one;
    `notes` say what each model was trained on."""
    chosen = known_metrics(metrics, keys)
    colours = colours or variant_colours(metrics)
    columns = [column("Model", "titled"), *(column(m.title, "interval", m.note) for m in chosen)]
    rows = []
    for name, values in metrics.items():
        model = model_cell(name, colours, variant_note(name) if notes else "")
        rows.append({"key": name, "cells": [model, *(m.cell(values) for m in chosen)]})
    return columns, rows


def difference_rows(metrics: Mapping[str, dict], differences: Mapping[str, Comparison]) -> list[dict]:
    """The table's last rows: every further model minus the first, with the interval of the paired difference where
    `differences` have one."""
    chosen = known_metrics(metrics)
    first, *others = metrics
    rows = []
    for name in others:
        cells: list = [[f"{variant_title(name)} − {variant_title(first)}", "Intervals: paired bootstrap.", ""]]
        for m in chosen:
            before, after = metrics[first].get(m.key), metrics[name].get(m.key)
            drop = getattr(differences.get(name), m.key, None)  # from the first model; the table shows the change
            if drop is not None:
                bounds = f"{m.change(-drop.high)} – {m.change(-drop.low)}"
                cells.append([m.change(-drop.value), bounds, *([] if is_clear(drop) else ["no clear change"])])
            elif _is_number(before) and _is_number(after):
                cells.append([m.change(after - before), ""])
            else:
                cells.append(["–", ""])
        rows.append({"key": f"difference {name}", "cells": cells})
    return rows


def oracle_text(name: str, part: Interval | None) -> str:
    """How much of the best case's drop in worst-case toxicity a model reaches, or nothing; `part` is `share_of_oracle`
    of its comparison with the base."""
    if part is None or not math.isfinite(part.value) or name == "oracle":
        return ""
    known = math.isfinite(part.low) and math.isfinite(part.high)
    bounds = f" (95% interval: {share(part.low)} – {share(part.high)})" if known else ""
    said = (
        f"{variant_title(name)} reaches {share(part.value)} of the drop in worst-case toxicity that training against"
        f" human labels gives{bounds}."
    )
    return said.replace(" -", " −")


def toxic_text(values: Mapping[str, np.ndarray]) -> list[str]:
    """How much of each model's completions, or of its prompts' worst ones, counts as toxic."""
    return [f"{variant_title(name)}: {share(float((v >= TOXIC_FROM).mean()))}" for name, v in values.items()]


def facts_text(facts: dict) -> str:
    """How the numbers of a model were measured."""
    said = (
        f"{count_of(facts['n_samples'], 'completion')} for each of {count(facts['n_prompts'])} prompts, rated by"
        f" {facts['scorer']}. Small numbers are {INTERVALS}"
    )
    heldout = facts.get("heldout_tokens")
    return said + (f" Perplexity on {count_of(heldout, 'held-out token')}." if heldout else "")


def outcome_table(outcomes: Mapping[str, Outcomes], first: str, colours: Mapping[str, str]) -> Table:
    """How many prompts each further model won, tied and lost against the first."""
    margin = number(next(iter(outcomes.values())).margin, 2)
    columns = [
        column(f"vs. {variant_title(first)}", "titled"),
        column("Less toxic", "interval", f"Wins: prompts whose highest toxicity is lower by more than {margin}"),
        column("Tie", "interval", f"Prompts whose highest toxicity differs by at most {margin}"),
        column("More toxic", "interval", f"Losses: prompts whose highest toxicity is higher by more than {margin}"),
    ]
    rows = []
    for name, found in outcomes.items():
        cells: list = [model_cell(name, colours, f"on {count_of(len(found.prompts), 'prompt')}")]
        cells += [[count(n), share(n, len(found.prompts))] for n in found.counts()]
        rows.append({"key": name, "cells": cells})
    return columns, rows


def frontier_rows(metrics: Mapping[str, dict | None], colours: Mapping[str, str]) -> Table:
    """The frontier's values as a table, the least toxic model first; models without both numbers come last."""
    known = {name: values for name, values in metrics.items() if values}
    columns, rows = metric_table(known, ("emt", "perplexity"), colours, notes=False)
    points = frontier_points(metrics)
    places = {point.name: place for place, point in enumerate(order_points(points))}
    rows.sort(key=lambda row: (places.get(row["key"], len(places)), known[row["key"]].get("emt") or 0.0))
    if len(points) > MANY:
        for place, row in enumerate(rows, 1):
            row["cells"][0][0] = f"{place}. {row['cells'][0][0]}"
    return columns, rows


def toxicity_shares(toxicity: np.ndarray, n_bins: int = 25) -> np.ndarray:
    """Shares float64 (n_bins,) of toxicities in equal bins from 0 to 1."""
    counts, _ = np.histogram(toxicity, bins=np.linspace(0, 1, n_bins + 1))
    return counts / max(1, counts.sum())


RATINGS = {"toxicity": "the first classifier", "implicit_toxicity": "the second classifier (implicit)"}
"""Column of the samples -> whose ratings it holds."""


def group_table(metrics: Mapping[str, dict], key: str = "emt") -> Table | None:
    """One metric for every group of prompts: a row for each group, a column for each model; None where no prompts are
    grouped."""
    groups = {name: values.get("groups") or {} for name, values in metrics.items()}
    sizes: dict[str, int] = {}
    for found in groups.values():
        for group, values in found.items():
            sizes.setdefault(group, values.get("n_prompts") or 0)
    if not sizes:
        return None
    metric = next(m for m in METRICS if m.key == key)
    columns = [column("Group", "titled"), *(column(variant_title(name), "interval") for name in metrics)]
    rows = []
    for group, n_prompts in sizes.items():
        cells = [metric.cell(found.get(group) or {}) for found in groups.values()]
        rows.append({"key": group, "cells": [[group, count_of(n_prompts, "prompt"), ""], *cells]})
    return columns, rows


def harness_table(metrics: Mapping[str, dict]) -> Table | None:
    """What the harness measured: a row for each task's metric, a column for each model with the standard error; None
    where it did not run."""
    tasks = [values.get("harness") or {} for values in metrics.values()]
    measured = [(task, *item) for by_task in tasks for task, found in by_task.items() for item in found.items()]
    lines = dict.fromkeys(
        (task, name)
        for task, name, value in measured
        if _is_number(value) and name != "n_samples" and not name.endswith("_stderr")
    )
    if not lines:
        return None
    columns = [column("Task", "titled")]
    columns += [column(variant_title(name), "interval", "Small numbers: one standard error") for name in metrics]
    rows = []
    for task, name in lines:
        found = [by_task.get(task) or {} for by_task in tasks]
        examples = next((f["n_samples"] for f in found if _is_number(f.get("n_samples"))), None)
        note = name if examples is None else f"{name} on {count(examples)} examples"
        errors = [f.get(f"{name}_stderr") for f in found]
        cells = [
            [number(f.get(name)), f"± {number(e)}" if _is_number(e) else ""] for f, e in zip(found, errors, strict=True)
        ]
        rows.append({"key": f"{task} {name}", "cells": [[task, note, ""], *cells]})
    return columns, rows

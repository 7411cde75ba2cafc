"""Tables that compare several models, as columns and rows for `record_table` and the report. No streamlit here."""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from ifguide.evaluation.outcomes import Outcomes
from ifguide.evaluation.statistics import INTERVALS, TOXIC_FROM, Interval
from ifguide.selection.audit import Agreement
from ifguide.study.analysis.comparison import Comparison
from ifguide.study.judgements import judge_title
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
from ifguide.ui.results.frontier import frontier_points

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
        return per_cent(value) if self.per_cent and value is not None else number(value, self.digits)

    def cell(self, values: Mapping) -> list[str]:
        low, high = values.get(f"{self.key}_low"), values.get(f"{self.key}_high")
        note = values.get(f"{self.key}_note", "")
        bounds = note if low is None or high is None else f"{self.text(low)} – {self.text(high)}"
        return [self.text(values.get(self.key)), bounds]

    def change(self, value: float) -> str:
        """A difference with its sign, in percentage points if the number is a percentage."""
        return f"{signed(100 * value, 1).removesuffix('.0')} pp" if self.per_cent else signed(value, self.digits)


_EMT = "A prompt's most toxic completion, averaged over prompts (expected maximum toxicity). Lower is better."
_TP = f"Prompts with a completion rated {TOXIC_FROM} or more. Lower is better."
_DISTINCT = (
    "Different words as a share of all words of the completions. Much lower than for the base model: duller text."
)
_REPETITION = "Share of four-word sequences that repeat an earlier one in a completion. Near 1: the model loops."
METRICS = (
    Metric("emt", "Worst-case toxicity (EMT)", _EMT),
    Metric("tp", "Prompts with a toxic answer", _TP, per_cent=True),
    Metric("mean_toxicity", "Mean toxicity", "Of all completions. Lower is better."),
    Metric("implicit_emt", "Implicit: worst case (EMT)", "EMT by the second classifier: hate in polite words."),
    Metric("implicit_tp", "Implicit: prompts with a toxic answer", "By the second classifier.", per_cent=True),
    Metric("implicit_mean_toxicity", "Implicit: mean", "By the second classifier."),
    Metric("perplexity", "Perplexity", "How much harmless held-out text surprises the model. Lower is better.", 2),
    Metric("distinct_1", "Distinct words", _DISTINCT),
    Metric("distinct_2", "Distinct pairs", "Different word pairs as a share of all word pairs of the completions."),
    Metric("repetition", "Repetition", _REPETITION),
    Metric("words", "Words in an answer", "Much fewer than for the base model: it says less.", 1),
    Metric("mentions", "Answers that name a group", "Answers with a word for a group of people.", per_cent=True),
    Metric("lambada_accuracy", "Last words", "LAMBADA: last words that the model finds likeliest. Higher is better."),
)
HEADLINE = ("emt", "tp", "perplexity")


def measured_metrics(metrics: Mapping[str, dict], keys: Sequence[str] | None = None) -> list[Metric]:
    """The entries of `METRICS`, or of those with these keys, that any model has."""
    chosen = [m for m in METRICS if keys is None or m.key in keys]
    return [m for m in chosen if any(_is_number(values.get(m.key)) for values in metrics.values())]


def is_clear(change: Interval | None) -> bool:
    """Whether a difference's 95% interval excludes zero."""
    return change is not None and (change.low > 0 or change.high < 0)


def headline(metrics: Mapping[str, dict], name: str, difference: Comparison | None) -> list[str]:
    """The result of one model in a few sentences: toxic answers, fluency, and the random control. `difference` compares
    it with the first model of `metrics`; None if they completed different prompts."""
    before, after = next(iter(metrics.values())), metrics[name]
    moved = "fell" if after["tp"] < before["tp"] else "rose"
    doubt = "" if difference is None or is_clear(difference.tp) else ", which may be chance"
    claim = f"Toxic answers {moved} from {per_cent(before['tp'])} to {per_cent(after['tp'])} of prompts{doubt}."
    same = f"Prompts with a toxic answer: {per_cent(after['tp'])}, before and after."
    sentences = [same if after["tp"] == before["tp"] else claim]
    if difference is not None and difference.perplexity is not None:
        ends = f"perplexity {number(before.get('perplexity'), 2)} → {number(after.get('perplexity'), 2)}"
        change = "better" if difference.perplexity.value > 0 else "worse"
        sentences.append(f"Fluency: {change if is_clear(difference.perplexity) else 'no clear change'} ({ends}).")
    if difference is not None and (words := _share_words(difference.share_of_added)):
        sentences.append(f"Of the worst-case toxicity that training on the corpus added, {words} is gone.")
    if after.get("edited"):
        sentences.append("Edited, not retrained.")
    if name != "random" and "random" in metrics:
        sentences.append(f"Random tokens, same amount: {per_cent(metrics['random']['tp'])}.")
    return sentences


def _is_number(value) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def metric_table(
    metrics: Mapping[str, dict],
    keys: Sequence[str] | None = None,
    colours: Mapping[str, str] | None = None,
    *,
    notes: bool = True,
) -> Table:
    """The table of models: each number (all, or those of `keys`) above its 95% interval, if it has one. With `notes` it
    says what each model was trained on."""
    chosen = measured_metrics(metrics, keys)
    colours = colours or variant_colours(metrics)
    columns = [column("Model", "titled"), *(column(m.title, "interval", m.note) for m in chosen)]
    rows = []
    for name, values in metrics.items():
        edited = bool(values.get("edited"))
        model = model_cell(name, colours, variant_note(name, edited) if notes else "", edited)
        rows.append({"key": name, "cells": [model, *(m.cell(values) for m in chosen)]})
    return columns, rows


def difference_rows(metrics: Mapping[str, dict], differences: Mapping[str, Comparison]) -> list[dict]:
    """The table's last rows: every other model minus the first, with the interval of the paired difference if
    `differences` has one."""
    chosen, titles = measured_metrics(metrics), metric_titles(metrics)
    first, *others = metrics
    rows = []
    for name in others:
        cells: list = [[f"{titles[name]} − {titles[first]}", "Intervals: paired bootstrap.", ""]]
        for m in chosen:
            before, after = metrics[first].get(m.key), metrics[name].get(m.key)
            drop = getattr(differences.get(name), m.key, None)  # from the first model; the table shows the rise
            if drop is not None:
                bounds = f"{m.change(-drop.high)} – {m.change(-drop.low)}"
                cells.append([m.change(-drop.value), bounds, *([] if is_clear(drop) else ["no clear change"])])
            elif _is_number(before) and _is_number(after):
                cells.append([m.change(after - before), ""])
            else:
                cells.append(["–", ""])
        rows.append({"key": f"difference {name}", "cells": cells})
    return rows


def metric_titles(metrics: Mapping[str, dict]) -> dict[str, str]:
    return {name: variant_title(name, bool(values.get("edited"))) for name, values in metrics.items()}


def share_texts(differences: Mapping[str, Comparison]) -> list[str]:
    """Of models compared with the base: how much of the worst-case toxicity that training on the corpus added is gone,
    and how much of the best case's drop each reaches, where these are known."""
    texts = []
    for name, change in differences.items():
        title = variant_title(name)
        if name != "untouched" and (words := _share_words(change.share_of_added)):
            texts.append(f"{title} loses {words} of the worst-case toxicity that training on the corpus added.")
        if name not in ("oracle", "untouched") and (words := _share_words(change.share_of_oracle)):
            drop = "of the drop in worst-case toxicity that training against human labels gives."
            texts.append(f"{title} reaches {words} {drop}")
    return texts


def _share_words(part: Interval | None) -> str:
    if part is None or not math.isfinite(part.value):
        return ""
    bounded = math.isfinite(part.low) and math.isfinite(part.high)
    return f"{share(part.value)}{f' [{share(part.low)}, {share(part.high)}]' * bounded}".replace("-", "−")


def agreement_table(agreements: Iterable[Agreement]) -> Table:
    """Cohen's κ of each person with each judge, from `judge_agreement`."""
    note = "Cohen's κ: 1 is full agreement, 0 what chance gives; with its 95% interval, over all of the models' answers"
    columns = [column("Judge", "text"), column("Rated by", "text"), column("κ", "interval", note)]
    columns.append(column("The same", "interval", "What both call toxic, or both do not; unsure is left out"))
    rows = []
    for i, one in enumerate(agreements):
        bounds = " – ".join(number(bound, 2) for bound in one.bounds or ())
        same = [share(one.same, one.n), f"{count(one.same)} of {count(one.n)}"]
        cells = [one.reviewers[1], one.reviewers[0] or "without a name", [number(one.kappa, 2), bounds], same]
        rows.append({"key": str(i), "cells": cells})
    return columns, rows


def toxic_text(values: Mapping[str, np.ndarray], edited: Container[str] = ()) -> list[str]:
    """The share of each model's values, one a completion or prompt, that counts as toxic."""
    shares = {name: share(float((v >= TOXIC_FROM).mean())) for name, v in values.items()}
    return [f"{variant_title(name, name in edited)}: {part}" for name, part in shares.items()]


def facts_text(facts: dict) -> str:
    """How the numbers of a model were measured."""
    heldout = facts.get("heldout_tokens")
    perplexity = f" Perplexity on {count_of(heldout, 'held-out token')}." if heldout else ""
    return (
        f"{count_of(facts['n_samples'], 'completion')} of {count_of(facts['max_new_tokens'], 'token')} for each of"
        f" {count_of(facts['n_prompts'], 'prompt')}, rated by {judge_title(facts)}."
        f" Small numbers and bars are {INTERVALS}{perplexity}"
    )


def outcome_table(
    outcomes: Mapping[str, Outcomes], first: str, colours: Mapping[str, str], edited: Container[str] = ()
) -> Table:
    """On how many prompts each other model won, tied and lost against the first."""
    margin = number(next(iter(outcomes.values())).margin, 2)
    columns = [
        column(f"vs. {variant_title(first)}", "titled"),
        column("Less toxic", "interval", f"Wins: prompts whose highest toxicity is lower by more than {margin}"),
        column("Tie", "interval", f"Prompts whose highest toxicity differs by at most {margin}"),
        column("More toxic", "interval", f"Losses: prompts whose highest toxicity is higher by more than {margin}"),
    ]
    rows = []
    for name, outcome in outcomes.items():
        cells: list = [model_cell(name, colours, f"on {count_of(len(outcome.prompts), 'prompt')}", name in edited)]
        cells += [[count(n), share(n, len(outcome.prompts))] for n in outcome.counts()]
        rows.append({"key": name, "cells": cells})
    return columns, rows


def frontier_rows(metrics: Mapping[str, dict | None], colours: Mapping[str, str]) -> Table:
    """The frontier's values as a table, the least toxic model first; models without both numbers come last."""
    points = sorted(frontier_points(metrics), key=lambda point: (point.emt, point.perplexity))
    names = dict.fromkeys([*(point.name for point in points), *metrics])
    ordered = {name: values for name in names if (values := metrics[name])}
    return metric_table(ordered, ("emt", "perplexity"), colours, notes=False)


def toxicity_shares(toxicity: np.ndarray, n_bins: int = 25) -> np.ndarray:
    """Shares float64 (n_bins,) of toxicities in equal bins from 0 to 1."""
    counts, _ = np.histogram(toxicity, bins=np.linspace(0, 1, n_bins + 1))
    return counts / max(1, counts.sum())


RATINGS = {"toxicity": "the first classifier", "implicit_toxicity": "the second classifier (implicit)"}
"""Column of the samples -> the classifier whose ratings it holds."""


def with_speech(metrics: Mapping[str, dict], speech: Mapping[str, dict]) -> dict[str, dict]:
    """Metrics with what each model says about each group of prompts, from `speech_by_group`."""
    return {
        name: values | {"groups": {group: of | speech[name].get(group, {}) for group, of in values["groups"].items()}}
        for name, values in metrics.items()
        if values.get("groups")
    }


def group_table(metrics: Mapping[str, dict], key: str = "emt") -> Table | None:
    """One metric for every group of prompts: a row for each group, a column for each model; None without groups."""
    groups = {name: values.get("groups") or {} for name, values in metrics.items()}
    sizes: dict[str, int] = {}
    for by_group in groups.values():
        for group, values in by_group.items():
            sizes.setdefault(group, values.get("n_prompts") or 0)
    if not sizes:
        return None
    metric = next(m for m in METRICS if m.key == key)
    columns = [column("Group", "titled"), *(column(title, "interval") for title in metric_titles(metrics).values())]
    rows = []
    for group, n_prompts in sizes.items():
        cells = [metric.cell(by_group.get(group) or {}) for by_group in groups.values()]
        rows.append({"key": group, "cells": [[group, count_of(n_prompts, "prompt"), ""], *cells]})
    return columns, rows


def harness_table(metrics: Mapping[str, dict]) -> Table | None:
    """What the harness measured: a row for each task's metric, a column for each model, with standard errors; None if
    it did not run."""
    tasks = [values.get("harness") or {} for values in metrics.values()]
    measured = [(task, *item) for by_task in tasks for task, values in by_task.items() for item in values.items()]
    lines = dict.fromkeys(
        (task, name)
        for task, name, value in measured
        if _is_number(value) and name != "n_samples" and not name.endswith("_stderr")
    )
    if not lines:
        return None
    columns = [column("Task", "titled")]
    titles = metric_titles(metrics).values()
    columns += [column(title, "interval", "Small numbers: one standard error") for title in titles]
    rows = []
    for task, name in lines:
        results = [by_task.get(task) or {} for by_task in tasks]
        examples = next((r["n_samples"] for r in results if _is_number(r.get("n_samples"))), None)
        note = name if examples is None else f"{name} on {count(examples)} examples"
        cells = [[task, note, ""]]
        for result in results:
            error = result.get(f"{name}_stderr")
            cells.append([number(result.get(name)), f"± {number(error)}" if _is_number(error) else ""])
        rows.append({"key": f"{task} {name}", "cells": cells})
    return columns, rows

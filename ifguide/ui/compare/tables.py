"""Several models' completions to the same prompts, made comparable. No streamlit here."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeGuard

import numpy as np
import pandas as pd

from ifguide.evaluation.outcomes import OUTCOMES, Outcomes
from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.evaluation.toxic_spans import Span, read_spans
from ifguide.study.analysis.comparison import Comparison
from ifguide.ui.compare.frontier import MANY, frontier_points, order_points
from ifguide.ui.compare.word_diff import diff_words
from ifguide.ui.format import count, count_of, interval, number, share, signed, variant_note, variant_title
from ifguide.ui.palette import variant_colours

FIRST_SAMPLES = 3
"""Completions of a prompt shown before the reader asks for all."""
MODELS_MOST = 4
"""Models that can stand side by side."""

METRICS = (
    (
        "emt",
        "Expected max. toxicity",
        3,
        "EMT: for each prompt the highest toxicity among its completions, averaged over prompts. Lower is better.",
    ),
    (
        "tp",
        "Toxic prompts",
        3,
        f"TP: share of prompts with at least one completion rated {TOXIC_FROM} or more. Lower is better.",
    ),
    ("mean_toxicity", "Mean toxicity", 3, "Toxicity averaged over all completions. Lower is better."),
    (
        "implicit_emt",
        "Implicit: expected max.",
        3,
        "EMT by the second classifier, which knows hate in clean words. Lower is better.",
    ),
    ("implicit_tp", "Implicit: toxic prompts", 3, "TP by the second classifier. Lower is better."),
    ("implicit_mean_toxicity", "Implicit: mean", 3, "Mean toxicity by the second classifier. Lower is better."),
    (
        "perplexity",
        "Perplexity",
        2,
        "On harmless held-out text: how surprised the model is by normal language. Lower is better.",
    ),
    (
        "distinct_1",
        "Distinct words",
        3,
        (
            "Different words as a share of all words of the completions. Much lower than the base model's means duller"
            " text."
        ),
    ),
    ("distinct_2", "Distinct pairs", 3, "Different word pairs as a share of all word pairs of the completions."),
    (
        "repetition",
        "Repetition",
        3,
        "Share of four-word runs that repeat an earlier one in the same completion. Near 1 means the model loops.",
    ),
    (
        "lambada_accuracy",
        "Last words",
        3,
        (
            "LAMBADA: share of passages whose last word the model's likeliest continuation gives exactly. Higher is"
            " better."
        ),
    ),
)
"""Key in metrics.json, title, decimals, explanation."""
HEADLINE = ("emt", "tp", "perplexity")
OUTCOME_WORDS = {"less": "less toxic", "alike": "alike", "more": "more toxic"}
"""What happened on a prompt, seen from the first model."""


def known_metrics(metrics: Mapping[str, dict], keys: Sequence[str] | None = None) -> list[tuple[str, str, int, str]]:
    """The rows of `METRICS` that any model has, then every further number that was measured with an interval."""
    found = [m for m in METRICS if any(_is_number(values.get(m[0])) for values in metrics.values())]
    titled = {key for key, *_ in METRICS}
    others = dict.fromkeys(
        key
        for values in metrics.values()
        for key in values
        if key not in titled and f"{key}_low" in values and _is_number(values[key])
    )
    found += [(key, key.replace("_", " ").capitalize(), 3, f"{key} in metrics.json") for key in others]
    return [m for m in found if keys is None or m[0] in keys]


def _is_number(value) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def metric_table(
    metrics: Mapping[str, dict], keys: Sequence[str] | None = None, colours: Mapping[str, str] | None = None
) -> tuple[list[dict], list[dict]]:
    """Columns and rows of the table of models: each number with its 95% interval below, where there is one."""
    chosen = known_metrics(metrics, keys)
    colours = colours or variant_colours(metrics)
    columns = [{"label": "Model", "kind": "titled"}]
    columns += [{"label": title, "kind": "interval", "help": note} for _, title, _, note in chosen]
    rows = []
    for name, values in metrics.items():
        cells = [[variant_title(name), variant_note(name), colours[name]]]
        for key, _, digits, _ in chosen:
            cells.append(
                [number(values.get(key), digits), interval(values.get(f"{key}_low"), values.get(f"{key}_high"), digits)]
            )
        rows.append({"key": name, "cells": cells})
    return columns, rows


def difference_rows(metrics: Mapping[str, dict], differences: Mapping[str, Comparison]) -> list[dict]:
    """The table's last rows: every further model minus the first, with the interval of the paired difference where
    there is one.

    Args:
        metrics: of the models in the table, the first one first.
        differences: a further model's name -> it against the first.
    """
    chosen = known_metrics(metrics)
    first, *others = metrics
    rows = []
    for name in others:
        cells: list = [[f"{variant_title(name)} − {variant_title(first)}", "Difference on the same prompts.", ""]]
        for key, _, digits, _ in chosen:
            before, after = metrics[first].get(key), metrics[name].get(key)
            drop = getattr(differences.get(name), key, None)  # a drop from the first model; the table shows the change
            if drop is not None:
                cells.append(
                    [signed(-drop.value, digits), f"{signed(-drop.high, digits)} – {signed(-drop.low, digits)}"]
                )
            elif not _is_number(before) or not _is_number(after):
                cells.append(["–", ""])
            else:
                cells.append([signed(after - before, digits), ""])
        rows.append({"key": f"difference {name}", "cells": cells})
    return rows


def oracle_text(name: str, part) -> str:
    """How much of the known spans' drop in expected maximum toxicity a model reaches, or nothing.

    Args:
        name: the model.
        part: `share_of_oracle` of its comparison with the base.
    """
    if part is None or not math.isfinite(part.value) or name == "oracle":
        return ""
    known = math.isfinite(part.low) and math.isfinite(part.high)
    bounds = f" (95% interval: {share(part.low)} – {share(part.high)})" if known else ""
    said = (
        f"{variant_title(name)} reaches {share(part.value)} of the drop that training against the known toxic spans"
        f" gives{bounds}."
    )
    return said.replace(" -", " −").replace(": -", ": −")


def facts_text(facts: dict) -> str:
    """How the numbers of a model were measured."""
    heldout = (
        f" Perplexity on {count_of(facts['heldout_tokens'], 'held-out token')}." if facts.get("heldout_tokens") else ""
    )
    return (
        f"{count_of(facts['n_samples'], 'completion')} for each of {count(facts['n_prompts'])} prompts, rated by"
        f" {facts['scorer']}. Small numbers: 95% intervals.{heldout}"
    )


def outcome_table(
    outcomes: Mapping[str, Outcomes], first: str, colours: Mapping[str, str]
) -> tuple[list[dict], list[dict]]:
    """How many prompts each further model won, tied and lost against the first."""
    margin = number(next(iter(outcomes.values())).margin, 2)
    columns = [
        {"label": f"Against {variant_title(first)}", "kind": "titled"},
        {
            "label": "Less toxic",
            "kind": "interval",
            "help": f"Wins: prompts whose highest toxicity is lower by more than {margin}",
        },
        {
            "label": "Alike",
            "kind": "interval",
            "help": f"Ties: prompts whose highest toxicity differs by at most {margin}",
        },
        {
            "label": "More toxic",
            "kind": "interval",
            "help": f"Losses: prompts whose highest toxicity is higher by more than {margin}",
        },
    ]
    rows = []
    for name, found in outcomes.items():
        cells: list = [[variant_title(name), f"on {count_of(len(found.prompts), 'prompt')}", colours[name]]]
        cells += [[count(n), share(n, len(found.prompts))] for n in found.counts()]
        rows.append({"key": name, "cells": cells})
    return columns, rows


def frontier_rows(metrics: Mapping[str, dict | None], colours: Mapping[str, str]) -> tuple[list[dict], list[dict]]:
    """The frontier's values as a table, the least toxic model first; models without both numbers come last."""
    known = {name: values for name, values in metrics.items() if values}
    columns, rows = metric_table(known, ("emt", "perplexity"), colours)
    points = frontier_points(metrics)
    places = {point.name: place for place, point in enumerate(order_points(points))}
    ordered = sorted(rows, key=lambda row: (places.get(row["key"], len(places)), known[row["key"]].get("emt") or 0.0))
    many = len(points) > MANY
    for number_, row in enumerate(ordered, 1):
        row["cells"][0][1] = ""
        if many:
            row["cells"][0][0] = f"{number_}. {row['cells'][0][0]}"
    return columns, ordered


def toxicity_shares(toxicity: np.ndarray, n_bins: int = 25) -> np.ndarray:
    """Shares float64 (n_bins,) of toxicities in equal bins from 0 to 1."""
    counts, _ = np.histogram(toxicity, bins=np.linspace(0, 1, n_bins + 1))
    return counts / max(1, counts.sum())


def prompt_texts(samples: pd.DataFrame) -> dict[int, str]:
    """Prompt index -> the prompt."""
    once = samples.drop_duplicates("prompt_index")
    return dict(zip(once["prompt_index"].tolist(), once["prompt"].tolist(), strict=True))


def change_text(values: Sequence[float]) -> str:
    """The models' highest toxicities of a prompt, in the models' order."""
    return "highest " + " → ".join(number(value, 2) for value in values)


def prompt_payload(
    samples: Mapping[str, pd.DataFrame],
    prompt: int,
    *,
    by_toxicity: bool = True,
    differ: bool = False,
    ratings: bool = True,
    spans: bool = False,
) -> dict:
    """One prompt with its completions for the side-by-side component: a row a sample, a cell a model.

    Sample k of every model was drawn with the same random numbers, so it stands in one row.

    Args:
        samples: of each model, the first one first.
        prompt: its index.
        by_toxicity: rows with the highest toxicity of any model first; otherwise in the order they were drawn.
        differ: mark the words that a completion does not share with the first model's.
        ratings: tell how toxic each is.
        spans: mark what is toxic in each, where its evaluation looked for that.
    """
    sides = [
        frame[frame["prompt_index"] == prompt].set_index("sample_index").sort_index() for frame in samples.values()
    ]
    numbers = sorted(set().union(*(side.index for side in sides)))
    if by_toxicity:
        worst = {n: max(float(side.at[n, "toxicity"]) for side in sides if n in side.index) for n in numbers}
        numbers.sort(key=lambda n: (-worst[n], n))
    rows = []
    for n in numbers:
        texts = [side.at[n, "completion"] if n in side.index else None for side in sides]
        runs = mark_differences(texts, pairwise=len(sides) == 2) if differ else [t and [[t, False]] for t in texts]
        rated = [float(side.at[n, "toxicity"]) if n in side.index else None for side in sides]
        if spans:
            runs = [run and cut_runs(run, spans_of(side, n)) for side, run in zip(sides, runs, strict=True)]
        cells = [
            (
                None
                if text is None
                else {
                    "runs": run or [],
                    "toxicity": number(rate, 2) if ratings else "",
                    "high": bool(ratings and rate is not None and rate >= TOXIC_FROM),
                }
            )
            for text, run, rate in zip(texts, runs, rated, strict=True)
        ]
        rows.append({"sample": int(n), "cells": cells})
    highest = [float(side["toxicity"].max()) if len(side) else None for side in sides]
    return {
        "prompt": next(side["prompt"].iloc[0] for side in sides if len(side)),
        "highest": [number(value, 2) if ratings else "" for value in highest],
        "rows": rows,
    }


def spans_of(side: pd.DataFrame, row) -> list[Span]:
    """What is toxic in the completion of a row; nothing where its evaluation did not look for it."""
    return read_spans(side.at[row, "toxic_spans"], side.at[row, "completion"]) if "toxic_spans" in side else []


def cut_runs(runs: Sequence[Sequence], spans: Sequence[Span]) -> list[list]:
    """Runs cut where a toxic span begins or ends, each with the span it stands in as `START-END`, or nothing.

    Args:
        runs: of text, each with whether its words stand in this text only.
        spans: ascending, apart, in characters of the joined text.
    """
    edges = sorted({place for span in spans for place in span})
    names = {start: f"{start}-{end}" for start, end in spans}
    cut, at, name = [], 0, ""
    for text, only in runs:
        stop = at + len(text)
        for end in [*(edge for edge in edges if at < edge < stop), stop]:
            name = names.get(at, "" if at in edges else name)
            cut.append([text[len(text) - (stop - at) : len(text) - (stop - end)], only, name])
            at = end
    return cut


def mark_differences(texts: Sequence[str | None], *, pairwise: bool) -> list[list | None]:
    """Completions as runs of text, each with whether its words stand in this one only, not in the first.

    Args:
        texts: of the models, the first model's first; None where there is none.
        pairwise: there are two models, so the first one is marked too.
    """
    first = texts[0]
    marked: list[list | None] = [None if text is None else [[text, False]] for text in texts]
    for i, text in enumerate(texts[1:], 1):
        if first is None or text is None:
            continue
        mine, theirs = diff_words(first, text)
        marked[i] = [list(run) for run in theirs]
        if pairwise:
            marked[0] = [list(run) for run in mine]
    return marked


def outcome_of(found: Outcomes, place: int) -> str:
    """What happened on one prompt, in words."""
    return OUTCOME_WORDS[OUTCOMES[int(found.kinds[place])]]


def matching_prompts(texts: Mapping[int, str], search: str) -> np.ndarray:
    """int64, ascending indexes of the prompts that contain a text, capitals or not."""
    wanted = search.casefold()
    return np.array(sorted(i for i, text in texts.items() if wanted in text.casefold()), dtype=np.int64)


RATINGS = {"toxicity": "the first classifier", "implicit_toxicity": "the second classifier (implicit)"}
"""Columns of the samples that can be looked at -> who rated."""


def group_table(metrics: Mapping[str, dict], key: str = "emt") -> tuple[list[dict], list[dict]] | None:
    """One metric for every group of prompts: a row a group, a column a model; None where no prompts are grouped.

    Args:
        metrics: model -> its metrics.json.
        key: which metric.
    """
    sizes: dict[str, int] = {}
    for values in metrics.values():
        for group, found in (values.get("groups") or {}).items():
            sizes.setdefault(group, found.get("n_prompts") or 0)
    if not sizes:
        return None
    columns = [
        {"label": "Group", "kind": "titled"},
        *({"label": variant_title(name), "kind": "interval"} for name in metrics),
    ]
    rows = []
    for group, n_prompts in sizes.items():
        cells: list = [[group, count_of(n_prompts, "prompt"), ""]]
        for values in metrics.values():
            found = (values.get("groups") or {}).get(group) or {}
            cells.append([number(found.get(key)), interval(found.get(f"{key}_low"), found.get(f"{key}_high"))])
        rows.append({"key": group, "cells": cells})
    return columns, rows


def harness_table(metrics: Mapping[str, dict]) -> tuple[list[dict], list[dict]] | None:
    """What the harness measured: a row a task's metric, a column a model with the standard error; None where it did not
    run."""
    lines: dict[tuple[str, str], None] = {}
    for values in metrics.values():
        for task, found in (values.get("harness") or {}).items():
            names = [
                name
                for name, value in found.items()
                if _is_number(value) and name != "n_samples" and not name.endswith("_stderr")
            ]
            lines |= dict.fromkeys((task, name) for name in names)
    if not lines:
        return None
    columns = [{"label": "Task", "kind": "titled"}]
    columns += [
        {"label": variant_title(name), "kind": "interval", "help": "Small numbers: one standard error"}
        for name in metrics
    ]
    rows = []
    for task, name in lines:
        found = [(values.get("harness") or {}).get(task) or {} for values in metrics.values()]
        examples = next((f["n_samples"] for f in found if _is_number(f.get("n_samples"))), None)
        note = name if examples is None else f"{name} on {count(examples)} examples"
        errors = [f.get(f"{name}_stderr") for f in found]
        cells = [
            [number(f.get(name)), f"± {number(e)}" if _is_number(e) else ""] for f, e in zip(found, errors, strict=True)
        ]
        rows.append({"key": f"{task} {name}", "cells": [[task, note, ""], *cells]})
    return columns, rows

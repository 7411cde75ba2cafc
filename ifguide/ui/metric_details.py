"""Tables of what metrics.json holds beside the headline: groups of prompts, tasks of the harness. No streamlit here."""

from collections.abc import Mapping

from ifguide.ui.format import count, count_of, interval, number, variant_title

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
    columns = [{"label": "Group", "kind": "titled"}, *({"label": variant_title(name), "kind": "interval"} for name in metrics)]  # fmt: skip
    rows = []
    for group, n_prompts in sizes.items():
        cells: list = [[group, count_of(n_prompts, "prompt"), ""]]
        for values in metrics.values():
            found = (values.get("groups") or {}).get(group) or {}
            cells.append([number(found.get(key)), interval(found.get(f"{key}_low"), found.get(f"{key}_high"))])
        rows.append({"key": group, "cells": cells})
    return columns, rows


def harness_table(metrics: Mapping[str, dict]) -> tuple[list[dict], list[dict]] | None:
    """What the harness measured: a row a task's metric, a column a model with the standard error; None where it did not run."""
    lines: dict[tuple[str, str], None] = {}
    for values in metrics.values():
        for task, found in (values.get("harness") or {}).items():
            names = [name for name, value in found.items() if _is_number(value) and name != "n_samples" and not name.endswith("_stderr")]  # fmt: skip
            lines |= dict.fromkeys((task, name) for name in names)
    if not lines:
        return None
    columns = [{"label": "Task", "kind": "titled"}]
    columns += [{"label": variant_title(name), "kind": "interval", "help": "Small numbers: one standard error"} for name in metrics]  # fmt: skip
    rows = []
    for task, name in lines:
        found = [(values.get("harness") or {}).get(task) or {} for values in metrics.values()]
        examples = next((f["n_samples"] for f in found if _is_number(f.get("n_samples"))), None)
        note = name if examples is None else f"{name} on {count(examples)} examples"
        errors = [f.get(f"{name}_stderr") for f in found]
        cells = [[number(f.get(name)), f"± {number(e)}" if _is_number(e) else ""] for f, e in zip(found, errors, strict=True)]  # fmt: skip
        rows.append({"key": f"{task} {name}", "cells": [[task, note, ""], *cells]})
    return columns, rows


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

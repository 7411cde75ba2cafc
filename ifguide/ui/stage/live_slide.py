"""The slide on which models answer the room's own prompt, several draws each, and where the worst answer comes from."""

from typing import Any

import numpy as np

from ifguide.config.names import BASE, DEFAULT
from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.study.analysis.trace import find_obstacle
from ifguide.study.stages.evaluating import missing_weights
from ifguide.ui.compare.live import describe_progress, row_of
from ifguide.ui.documents.loaders import marked_words
from ifguide.ui.excerpts import excerpt_coloured
from ifguide.ui.format import count, count_of, score, variant_title
from ifguide.ui.loaders import Loaded
from ifguide.ui.models_process import ENDED, ask, read
from ifguide.ui.palette import variant_colours
from ifguide.ui.report.slides import cell_runs
from ifguide.ui.results.side_by_side import completion_cell
from ifguide.ui.veil import mark_offensive

DRAWS = 8
"""Answers of each model."""
TRACED = 3
"""Documents shown that pushed toward the worst answer."""
CONTROLS = ("random", "edited-random", "oracle")
"""Models that are there to compare with."""
TITLE = "Ask it yourselves"
ABOUT = (
    f"Each model answers {DRAWS} times with the same random numbers, and a classifier rates the answers as they come."
)


def choose_models(loaded: Loaded) -> list[str]:
    """The base model, and the one with the fewest toxic answers, the suppressed one among equals; empty where their
    weights are not there."""
    there = [name for name in loaded.study.evaluation_names() if not missing_weights(loaded.study, name)]
    metrics = {name: loaded.study.metrics(name) or {} for name in there if name not in (BASE, *CONTROLS)}
    if BASE not in there or not metrics:
        return []
    return [BASE, min(metrics, key=lambda name: (metrics[name]["tp"], name != DEFAULT, metrics[name]["emt"]))]


def ask_room(loaded: Loaded, rounds: list[dict], prompt: str) -> None:
    """Ask the models; a prompt that was asked before gets the draws after its last ones."""
    if rounds and rounds[-1]["state"] not in ENDED:
        read(rounds[-1], cancel=True)
    request = {"models": choose_models(loaded), "prompt": prompt}
    request["sample"] = DRAWS * sum(one["ask"]["prompt"] == prompt for one in rounds)
    rounds.append({"ask": request} | ask(loaded, **request, draws=DRAWS))


def trace_worst(loaded: Loaded, round: dict) -> None:
    """Trace the base model's most toxic answer, or go back from the trace to the answers."""
    if "trace" in round:
        round["traced"] = not round["traced"]
    elif round["state"] == "done":
        worst = max(round["cells"][:DRAWS], key=lambda cell: cell["toxicity"])
        answer = {"prompt": round["ask"]["prompt"], "completion": worst["text"]}
        if reason := find_obstacle(loaded.study):
            trace: dict[str, Any] = {"state": "failed", "message": reason, "cells": []}
        else:
            trace = ask(loaded, models=[], trace=answer)
        round |= {"traced": True, "worst": worst, "trace": trace}


def follow(rounds: list[dict]) -> bool:
    """Bring the last round up to date; returns whether something is still running."""
    last = [state for one in rounds[-1:] for state in (one, one.get("trace")) if state]
    for state in last:
        if state["state"] not in ENDED:
            read(state)
    return any(state["state"] not in ENDED for state in last)


def describe_round(loaded: Loaded, round: dict) -> dict:
    """A round for `present_slides.js`: the prompt's runs, status and count as text, the models' columns with their
    answers, and the texts of the trace where it is shown."""
    models, cells = round["ask"]["models"], round["cells"]
    colours = variant_colours(loaded.study.evaluation_names())
    columns, counts = [], []
    for place, name in enumerate(models):
        own = cells[place * DRAWS : (place + 1) * DRAWS]
        counts.append(f"{sum(cell['toxicity'] >= TOXIC_FROM for cell in own)} of {DRAWS} toxic")
        looks = {"title": variant_title(name, name in loaded.edited), "colour": colours[name]}
        growing = round["state"] not in ENDED
        answers = [
            [cell_runs(shown), shown["toxicity"], shown["high"], growing and not cell["ended"]]
            for cell in own
            for shown in [completion_cell(row_of(cell))]
        ]
        columns.append(
            looks | {"hollow": name in loaded.edited, "count": counts[-1] if own else "", "answers": answers}
        )
    prompt = [[text, False, bool(mark)] for text, mark in mark_offensive(round["ask"]["prompt"])]
    described = {"prompt": prompt, "columns": columns, "texts": [], "status": _status(loaded, round)}
    described["count"] = " → ".join([counts[0].removesuffix(" toxic"), *counts[1:]]) if cells else ""
    if round.get("traced"):
        described["texts"] = _trace_texts(loaded, round)
    return described


def _status(loaded: Loaded, round: dict) -> str:
    if round.get("traced"):
        return _trace_status(round["trace"])
    if round["state"] == "failed":
        return round["message"]
    if round["state"] != "done":
        return describe_progress(round)
    first, config = round["ask"]["sample"], loaded.study.config.evaluate
    again = "Asked before, so these are new draws: " if first else ""
    return (
        f"{again}{'n' if again else 'N'}umbers {first + 1} to {first + DRAWS} of seed {config.seed}, the same random"
        f" numbers for both models; rated by {config.scorer}."
    )


def _trace_status(trace: dict) -> str:
    if trace["state"] == "done":
        return (
            f"{count_of(len(trace['cells']), 'document')} scored; these pushed the base model most toward the answer."
        )
    if trace["state"] in ENDED:
        return f"The answer cannot be traced: {trace['message'] or 'it was stopped'}."
    done, _, total = trace["message"].removeprefix("documents ").partition(" ")
    return f"Scored {count(int(done))} of {count_of(int(total), 'document')}" if total else "Starting the trace…"


def _trace_texts(loaded: Loaded, round: dict) -> list[list]:
    worst = completion_cell(row_of(round["worst"]))
    texts, corpus, words = (
        [["The worst answer", cell_runs(worst), f"toxicity {worst['toxicity']}"]],
        loaded.corpus(),
        None,
    )
    chosen = loaded.selection(DEFAULT).mask if DEFAULT in loaded.study.selection_names() else None
    for cell in [cell for cell in round["trace"]["cells"][:TRACED] if cell.get("scores")]:
        words = words or marked_words(loaded)
        index, scores = corpus.index_of(cell["document"]), np.array(cell["scores"])
        here = slice(int(corpus.offsets[index]), int(corpus.offsets[index + 1]))
        taken = np.zeros(len(scores), bool) if chosen is None else np.asarray(chosen[here])
        steps = (scores >= max(scores.max() / 2, 1e-12)).astype(int)
        runs = excerpt_coloured(corpus, index, steps=steps, centre=int(scores.argmax()), taken=taken, words=words)
        texts.append([cell["document"], [[t, bool(m), bool(h)] for t, m, h in runs], f"pushed {score(cell['score'])}"])
    return texts

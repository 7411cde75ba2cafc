"""The slide on which models answer the room's own prompt, several draws each, and where the worst answer comes from."""

import numpy as np

from ifguide.config.names import BASE, DEFAULT
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
ABOUT = f"Each model answers {DRAWS} times with the same random numbers. A classifier rates the answers as they come."


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
    for state in _running(rounds):
        read(state, cancel=True)
    request = {"models": choose_models(loaded), "prompt": prompt}
    request["sample"] = DRAWS * sum(one["ask"]["prompt"] == prompt for one in rounds)
    rounds.append({"ask": request} | ask(loaded, **request, draws=DRAWS))


def trace_worst(loaded: Loaded, rounds: list[dict]) -> None:
    """Trace the base model's most toxic answer of the last round, or go back from the trace to the answers."""
    for last in rounds[-1:]:
        if "trace" in last:
            last["traced"] = not last["traced"]
        elif last["state"] == "done":
            worst = max(last["cells"][:DRAWS], key=lambda cell: cell["toxicity"])
            answer = {"prompt": last["ask"]["prompt"], "completion": worst["text"]}
            reason = find_obstacle(loaded.study)
            failed = {"state": "failed", "message": reason, "cells": []}
            last |= {"traced": True, "worst": worst}
            last["trace"] = failed if reason else ask(loaded, models=[], trace=answer)


def _running(rounds: list[dict]) -> list[dict]:
    last = [state for one in rounds[-1:] for state in (one, one.get("trace")) if state]
    return [state for state in last if state["state"] not in ENDED]


def follow(rounds: list[dict]) -> bool:
    """Bring the last round up to date; returns whether something is still running."""
    for state in _running(rounds):
        read(state)
    return bool(_running(rounds))


def describe_round(loaded: Loaded, round: dict) -> dict:
    """A round for `present_slides.js`: the prompt's runs, status, models as title, colour and whether their dot is
    hollow, their answers, model by model, as runs, toxicity, whether that is high, and whether they still grow; and the
    trace, if there is one, as status and texts."""
    growing, edited = round["state"] not in ENDED, loaded.edited
    colours = variant_colours(loaded.study.evaluation_names())
    answers = []
    for cell in round["cells"]:
        shown = completion_cell(row_of(cell))
        answers.append([cell_runs(shown), shown["toxicity"], shown["high"], growing and not cell["ended"]])
    return {
        "prompt": [[text, False, bool(mark)] for text, mark in mark_offensive(round["ask"]["prompt"])],
        "status": _status(loaded, round),
        "models": [[variant_title(n, n in edited), colours[n], n in edited] for n in round["ask"]["models"]],
        "answers": answers,
        "trace": [_trace_status(round["trace"]), _trace_texts(loaded, round)] if "trace" in round else None,
        "traced": round.get("traced", False),
    }


def _status(loaded: Loaded, round: dict) -> str:
    if round["state"] != "done":
        return round["message"] if round["state"] == "failed" else describe_progress(round)
    first, config = round["ask"]["sample"], loaded.study.config.evaluate
    numbers = f"umbers {first + 1} to {first + DRAWS} of seed {config.seed}, the same random numbers for both models"
    begin = "Asked before, so these are new draws: n" if first else "N"
    return f"{begin}{numbers}; rated by {config.scorer}."


def _trace_status(trace: dict) -> str:
    if trace["state"] == "done":
        scored = count_of(len(trace["cells"]), "document")
        return f"{scored} scored; these pushed the base model most toward the answer."
    if trace["state"] in ENDED:
        return f"The answer cannot be traced: {trace['message'] or 'it was stopped'}."
    done, _, total = trace["message"].removeprefix("documents ").partition(" ")
    return f"Scored {count(int(done))} of {count_of(int(total), 'document')}" if total else "Starting the trace…"


def _trace_texts(loaded: Loaded, round: dict) -> list[list]:
    worst, corpus, words = completion_cell(row_of(round["worst"])), loaded.corpus(), marked_words(loaded)
    texts = [["The worst answer", cell_runs(worst), f"toxicity {worst['toxicity']}"]]
    chosen = loaded.selection(DEFAULT).mask if DEFAULT in loaded.study.selection_names() else None
    for cell in [cell for cell in round["trace"]["cells"][:TRACED] if cell.get("scores")]:
        index, scores = corpus.index_of(cell["document"]), np.array(cell["scores"])
        here = slice(int(corpus.offsets[index]), int(corpus.offsets[index + 1]))
        taken = np.zeros(len(scores), bool) if chosen is None else np.asarray(chosen[here])
        steps = (scores >= max(scores.max() / 2, 1e-12)).astype(int)
        runs = excerpt_coloured(corpus, index, steps=steps, centre=int(scores.argmax()), taken=taken, words=words)
        texts.append([cell["document"], [[t, bool(m), bool(h)] for t, m, h in runs], f"pushed {score(cell['score'])}"])
    return texts

"""The stage's slides: what the room asks and votes, which slides are shown, and measured models by tokens."""

import dataclasses
import json

import pytest

from ifguide.study.folder import list_studies
from ifguide.study.lineage import Unit
from ifguide.study.sharing.packed import pack_study, unpack_study
from ifguide.ui.loaders import load_study
from ifguide.ui.report.slides import make_slides
from ifguide.ui.results import pins
from ifguide.ui.stage import deck, live_slide, vote_slide
from tests.app.fake_study import write_study
from tests.study.test_sweep import EDITED, point

RUNNING = {"state": "running"}


@pytest.fixture
def loaded(cache, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(cache))
    return load_study("fake")


def answers(*toxicities):
    return [{"text": f" you fool {t}", "toxicity": t, "spans": [[5, 9]], "ended": True} for t in toxicities]


def ask_twice(loaded, use_worker, *then):
    worker = use_worker({"state": "done", "cells": answers(*[0.1] * 3, 0.9, 0.7, *[0.2] * 11)}, *then)
    rounds = []
    for _ in range(2):
        live_slide.ask_room(loaded, rounds, "You stupid")
        assert not live_slide.follow(rounds)
    return worker, rounds


def test_a_repeated_prompt_gets_new_draws_and_says_so(loaded, use_worker):
    worker, rounds = ask_twice(loaded, use_worker)
    assert live_slide.choose_models(loaded) == ["base", "default"]
    request = {"study": str(loaded.study.root), "models": ["base", "default"], "prompt": "You stupid", "draws": 8}
    assert worker.asked == [request | {"sample": sample} for sample in (0, 8)]
    first, again = (live_slide.describe_round(loaded, one) for one in rounds)
    assert first["status"].startswith("Numbers 1 to 8 of seed 0") and len(first["answers"]) == 16
    assert "Asked before, so these are new draws: numbers 9 to 16" in again["status"]
    assert first["prompt"] == [["You ", False, False], ["stupid", False, True]]
    assert [title for title, *_ in first["models"]] == ["Base model", "Suppressed"]
    assert first["answers"][3] == [
        [[" you ", False, False], ["fool", True, True], [" 0.9", False, False]],
        "0.90",
        True,
        False,
    ]


def test_a_prompt_that_still_runs_is_cancelled_by_the_next(loaded, use_worker):
    worker, rounds = use_worker(RUNNING), []
    live_slide.ask_room(loaded, rounds, "One")
    assert live_slide.follow(rounds) and live_slide.describe_round(loaded, rounds[0])["answers"] == []
    live_slide.ask_room(loaded, rounds, "Two")
    assert worker.cancelled == ["1.1"] and [one["ask"]["sample"] for one in rounds] == [0, 0]


def test_the_worst_answer_of_the_base_model_is_traced_or_the_reason_is_told(loaded, use_worker, monkeypatch):
    worker, rounds = ask_twice(loaded, use_worker)
    monkeypatch.setattr(live_slide, "find_obstacle", lambda study: "run `ifguide run fake`")
    live_slide.trace_worst(loaded, rounds)
    status, texts = live_slide.describe_round(loaded, rounds[-1])["trace"]
    assert status == "The answer cannot be traced: run `ifguide run fake`." and len(texts) == 1
    assert len(worker.asked) == 2
    monkeypatch.setattr(live_slide, "find_obstacle", lambda study: "")
    scores = [0.0] * int(loaded.corpus().offsets[1])
    scores[1] = 2.0
    worker.answers = [
        {
            "state": "running",
            "message": "documents 1 62",
            "cells": [{"document": "doc-000", "score": 2.0, "scores": scores}],
        }
    ]
    del rounds[-1]
    live_slide.trace_worst(loaded, rounds)
    assert worker.asked[-1]["trace"] == {"prompt": "You stupid", "completion": " you fool 0.9"}
    assert live_slide.follow(rounds)
    shown = live_slide.describe_round(loaded, rounds[0])
    status, (worst, document) = shown["trace"]
    assert shown["traced"] and status == "Scored 1 of 62 documents"
    assert worst[0] == "The worst answer" and (document[0], document[2]) == ("doc-000", "pushed +2.00")
    assert [text for text, marked, _ in document[1] if marked] == [" the"]
    live_slide.trace_worst(loaded, rounds)
    assert not live_slide.describe_round(loaded, rounds[0])["traced"] and len(worker.asked) == 3
    live_slide.ask_room(loaded, rounds, "Next")
    assert worker.cancelled == ["1.1"]  # the trace does not hold up the next prompt


def test_models_without_weights_are_not_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(tmp_path / "cache"))
    study = write_study(tmp_path / "cache")
    (study.folder(Unit("model")) / "models.json").unlink()
    assert live_slide.choose_models(load_study("fake")) == []


def test_votes_are_counted_for_the_models_behind_the_letters(loaded):
    pairs = vote_slide.choose_pairs({name: loaded.samples(name) for name in ("base", "default")}, 3)
    assert len(pairs) == vote_slide.PAIRS and {ballot.order[0] for ballot, _ in pairs} == {"base", "default"}
    assert vote_slide.check_votes(["A", "=", "C", 1, ["B"], *"B" * 30]) == ["A", "=", *"B" * 8]
    letters = ["AB"[ballot.order.index("default")] for ballot, _ in pairs[:3]]
    room = {"pairs": pairs, "votes": [*letters, "="], "revealed": False}
    blind = vote_slide.describe_vote(loaded, room)
    assert "bars" not in blind and "Suppressed" not in json.dumps(blind) and len(blind["ballots"]) == len(pairs)
    told = vote_slide.describe_vote(loaded, room | {"revealed": True})
    assert [bar[:3] for bar in told["bars"]] == [
        ["Base model", "0", "0.0% – 56.1%"],
        ["Suppressed", "3", "43.9% – 100.0%"],
    ]
    assert all(names["AB".index(letter)] == "Suppressed" for names, letter in zip(told["names"], letters, strict=False))


SLIDES = [{"key": key} for key in ("claim", "pair", "costs")]


@pytest.mark.parametrize("damaged", ["{", "[]", '{"order": 3, "hidden": [["claim"]], "notes": "x"}'])
def test_a_plan_that_cannot_be_read_is_the_usual_one(tmp_path, damaged):
    (tmp_path / deck.FILE).write_text(damaged, encoding="utf-8")
    assert deck.arrange(SLIDES[::-1], tmp_path) == [slide | {"hidden": False, "note": ""} for slide in SLIDES]


def test_slides_are_ordered_hidden_and_have_their_notes(tmp_path):
    plan = {"order": ["costs", "claim", "nothing"], "hidden": ["pair"], "notes": {"claim": "hello", "nothing": "x"}}
    deck.save_plan(tmp_path, plan)
    assert [(slide["key"], slide["hidden"], slide["note"]) for slide in deck.arrange(SLIDES, tmp_path)] == [
        ("costs", False, ""),
        ("claim", False, "hello"),
        ("pair", True, ""),
    ]


def test_notes_stay_out_of_packs_and_on_a_recorded_study_until_the_next_talk(tmp_path):
    study = write_study(tmp_path / "mine")
    deck.save_plan(study.root, {"notes": {"claim": "mine"}})
    file, cache = pack_study(study, tmp_path / "fake.ifguide"), tmp_path / "theirs"
    root = cache / unpack_study(file, cache)
    assert [slide["note"] for slide in deck.arrange(SLIDES, root)] == ["", "", ""]
    deck.save_plan(root, {"notes": {"claim": "theirs"}})
    unpack_study(file, cache)
    assert deck.arrange(SLIDES, root)[0]["note"] == "theirs" and list_studies(cache) == [root.name]


def test_measured_models_are_bars_by_tokens_and_edited_ones_are_hollow(loaded):
    pair, names = pins.pinned_pair(loaded.study, loaded.samples), ("default", "random")
    points = [
        dataclasses.replace(point(100, 0.2, 0.01, EDITED), model=names[1]),
        dataclasses.replace(point(400, 0.1, 0.0), model=names[0], rise=None),
    ]
    metrics = loaded.metrics(loaded.study.evaluation_names())
    metrics["random"] |= {"edited": True}
    slides = make_slides(loaded.study, metrics, None, pair["models"], pair, points)
    (dose,) = [slide for slide in slides if slide["key"] == "dose"]
    assert [(bar[0], bar[4], bar[5]) for bar in dose["bars"]] == [
        ("none", False, metrics["base"]["tp"]),
        ("100", True, metrics["random"]["tp"]),
        ("400", False, metrics["default"]["tp"]),
    ]
    _, (edited, answer), (trained, _) = dose["steps"]
    assert edited.startswith("Without 100 tokens, edited, not retrained · ") and edited.endswith("perplexity +1.0%")
    assert trained.startswith("Without 400 tokens, retrained · ") and "perplexity" not in trained
    samples = loaded.samples("random")
    same = (samples["prompt"] == pair["prompt"]) & (samples["sample_index"] == pair["rows"][0]["sample"])
    assert "".join(run[0] for run in answer[0][1]) == samples[same]["completion"].item()

"""The models' process, from the inside: the same draws for all models, one queue, what ends, what is freed."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from ifguide.errors import InputError, StaleError
from ifguide.evaluation.generation import generate_completions
from ifguide.serving import worker as serving
from ifguide.serving.worker import Models, Request, Worker, rate
from ifguide.study.analysis.likelihood import read_likelihoods
from ifguide.study.lineage import Unit
from ifguide.study.stages.evaluating import load_evaluated, missing_weights
from tests.tiny_study import write_two_models


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_two_models(tmp_path_factory.mktemp("serving"), "evaluate.max_new_tokens=9")


class FoxScorer:
    """Finds foxes toxic."""

    name = "foxes"

    def score(self, texts):
        return np.array([0.9 if "fox" in text else 0.1 for text in texts])


class ScriptedWorker(Worker):
    """Its models write one word whenever the test says so."""

    def __init__(self, **more):
        super().__init__(**more)
        self.models.scorer = lambda study: FoxScorer()
        self.turn, self.started = threading.Semaphore(0), []

    def stream(self, study, name, config, request):
        self.started.append((request.prompt, name))

        def words():
            text = ""
            for word in request.prompt.split():
                self.turn.acquire(timeout=60)
                text += f" {word}"
                yield [text] * request.draws

        return words()


def wait_for(worker, id, *states):
    """The answer once a request is in one of some states."""
    ended = threading.Event()
    for _ in range(6000):
        if (found := worker.answer({"id": id}))["state"] in states:
            return found
        ended.wait(0.01)
    raise AssertionError(f"still {found}")


def in_background(worker):
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    return thread


def ask(study, prompt="the dog", models=("base", "default"), **more):
    return {"ask": {"study": str(study.root), "models": list(models), "prompt": prompt, **more}}


def test_all_models_take_the_draws_of_the_evaluation(study):
    worker = Worker(idle_seconds=0)
    settings = {"temperature": 0.9, "top_p": 0.8, "max_new_tokens": 12}
    asked = [{"sample": 0}, {"sample": 2, "draws": 2}]
    ids = [worker.answer(ask(study, "You are", settings=settings, **more))["id"] for more in asked]
    worker.run()
    config = replace(study.config.evaluate, n_samples=4, **settings)
    expected = {
        name: generate_completions(*load_evaluated(study, name), ["You are"], config) for name in ("base", "default")
    }
    for id, samples in zip(ids, ([0], [2, 3]), strict=True):
        found = worker.answer({"id": id})
        assert (found["state"], found["message"]) == ("done", "") and all(cell["ended"] for cell in found["cells"])
        texts = [expected[name][sample].completion for name in expected for sample in samples]
        assert [cell["text"] for cell in found["cells"]] == texts


def test_models_that_were_loaded_ahead_answer_the_first_prompt(study):
    worker = Worker(idle_seconds=0)
    first = worker.answer({"ask": {"study": str(study.root), "models": ["base", "default"], "load": True}})["id"]
    worker.run()
    assert worker.answer({"id": first})["state"] == "done" and worker.answer({"id": first})["cells"] == []
    kept = dict(worker.models._kept)
    assert len(kept) == 3  # two models and the classifier
    id = worker.answer(ask(study, "You are"))["id"]
    worker.run()
    assert worker.answer({"id": id})["state"] == "done" and worker.models._kept == kept


def test_requests_of_two_readers_wait_in_one_queue(study):
    worker = ScriptedWorker()
    first, second = (worker.answer(ask(study, prompt))["id"] for prompt in ("one fox", "two dogs"))
    in_background(worker)
    wait_for(worker, first, "running")
    waiting = {"state": "waiting", "message": "", "cells": [], "figures": {}, "ahead": 1}
    assert worker.answer({"id": second}) == waiting
    worker.turn.release(100)
    assert [c["text"] for c in wait_for(worker, second, "done")["cells"]] == [" two dogs"] * 2
    assert worker.started == [
        ("one fox", "base"),
        ("one fox", "default"),
        ("two dogs", "base"),
        ("two dogs", "default"),
    ]
    assert worker.answer({"id": first})["cells"][1] == {
        "text": " one fox",
        "toxicity": 0.9,
        "spans": [(5, 8)],
        "ended": True,
    }


def test_a_cancelled_request_ends_and_the_next_one_starts(study):
    worker = ScriptedWorker()
    first, second, third = (worker.answer(ask(study, prompt))["id"] for prompt in ("a b c", "d", "e"))
    in_background(worker)
    wait_for(worker, first, "running")
    assert worker.answer({"id": first, "cancel": True})["state"] == "cancelled"
    assert worker.answer({"id": second, "cancel": True})["state"] == "cancelled"
    worker.turn.release(4)
    assert wait_for(worker, third, "done")["cells"][0]["text"] == " e"
    assert {prompt for prompt, _ in worker.started} == {"a b c", "e"}
    assert worker.answer({"id": third, "cancel": True})["state"] == "done"


def test_a_request_whose_reader_left_is_cancelled(study, monkeypatch):
    monkeypatch.setattr(serving, "UNREAD_SECONDS", -1.0)
    worker = ScriptedWorker(idle_seconds=0)
    id = worker.answer(ask(study))["id"]
    worker.run()
    assert worker.answer({"id": id})["state"] == "cancelled" and worker.started == []


def test_without_a_request_the_process_ends(study):
    thread = in_background(ScriptedWorker(idle_seconds=0.01))
    thread.join(timeout=60)
    assert not thread.is_alive()


def test_errors_are_told_and_the_next_request_is_answered(study):
    worker = Worker(idle_seconds=0)
    asked = [ask(study, models=["base", "nobody"]), ask(study, settings={"max_new_tokens": 10**6}), ask(study)]
    ids = [worker.answer(message)["id"] for message in asked]
    worker.run()
    found = [worker.answer({"id": id}) for id in ids]
    assert [f["state"] for f in found] == ["failed", "failed", "done"]
    assert "has no suppress" in found[0]["message"] and "max_new_tokens: expected at most" in found[1]["message"]


def test_growing_texts_end_with_a_whole_word_and_are_never_newer_than_their_spans():
    texts = [" a fox and a fo", " a", " two foxes"]
    cells = rate(FoxScorer(), texts, {0, 1})
    assert [cell["text"] for cell in cells] == [" a fox and a ", " ", " two foxes"]
    assert [[cell["text"][a:b] for a, b in cell["spans"]] for cell in cells] == [["fox"], [], ["foxes"]]
    assert [cell["ended"] for cell in cells] == [False, False, True]


def test_models_are_loaded_once_and_the_oldest_is_freed_when_memory_is_short(study):
    free = [10**12]  # taken from the end
    models = Models(lambda folder: {"host": free.pop() if len(free) > 1 else free[0]})
    base, default = models.load(study, "base"), models.load(study, "default")
    assert models.load(study, "default") is default and models.load(study, "base") is base  # default is the oldest now
    free.append(0)
    models.scorer(study)
    assert models.load(study, "base") is base and models.load(study, "default") is not default
    with pytest.raises(InputError, match=r"0\.4 GB of memory.* 0\.0 GB.*fewer models"):
        Models(lambda folder: {"host": 10**6}).load(study, "base")


def test_token_probabilities_are_kept_in_the_study(study):
    worker = Worker(idle_seconds=0)
    id = worker.answer({"ask": {"study": str(study.root), "models": ["base", "default"], "number": 1}})["id"]
    worker.run()
    assert worker.answer({"id": id})["state"] == "done"
    assert read_likelihoods(study, 1, ["base", "default"])["prompt"] == "prompt 1 is"


def test_missing_weights_are_named_with_the_remedy(tmp_path):
    study = write_two_models(tmp_path)
    assert missing_weights(study, "base") == missing_weights(study, "default") == ""
    for name, unit, command in (
        ("default", Unit("suppress", "default"), "ifguide suppress tiny"),
        ("base", Unit("model"), "ifguide run tiny"),
    ):
        (study.folder(unit) / "final" / "model.safetensors").unlink()
        assert f"model.safetensors is missing); make them again with `{command}`" in missing_weights(study, name)
    assert "`ifguide compare tiny --with words`" in missing_weights(study, "words")
    with pytest.raises(StaleError):
        Models().load(study, "words")


def test_ended_requests_are_forgotten_after_a_while(study, monkeypatch):
    monkeypatch.setattr(serving, "KEPT", 2)
    worker = ScriptedWorker()
    for _ in range(5):
        worker.answer({"id": worker.answer(ask(study))["id"], "cancel": True})
    worker.answer(ask(study))
    assert list(worker._requests) == [4, 5, 6]
    assert all(isinstance(request, Request) for request in worker._requests.values())

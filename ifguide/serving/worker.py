"""The process that holds the models: `python -m ifguide.serving.worker`, started by `ifguide.serving.client`.

Every line of its standard input is a message in JSON, answered at once with a line on its standard output; see
`Worker.answer`. Requests of all readers wait in one queue. To free memory, the process ends after `IDLE_SECONDS`
without a request; it also ends with its input, and so with the app."""

import gc
import itertools
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Container, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.config.names import BASE, DEFAULT
from ifguide.config.schema import EvaluateConfig
from ifguide.data.word_index import WordIndex
from ifguide.errors import IFGuideError, InputError, explain_system_error
from ifguide.evaluation.toxic_spans import find_toxic_spans
from ifguide.evaluation.toxicity import ToxicityScorer
from ifguide.serving.preview import Preview
from ifguide.storage import artifacts
from ifguide.storage.peak_memory import free_memory
from ifguide.study.analysis.document_map import read_meaning
from ifguide.study.analysis.likelihood import compute_likelihoods
from ifguide.study.analysis.trace import Answer, Tracer, describe_traced, noise_floor, word_index
from ifguide.study.lineage import Unit, weights_unit
from ifguide.study.planning.model_facts import known_facts
from ifguide.study.reading import Study
from ifguide.study.stages.evaluating import load_evaluated, load_rater, load_steering
from ifguide.study.stages.select import preview_selection
from ifguide.study.variants import STEERED, edit_recipe

IDLE_SECONDS = 600.0
UNREAD_SECONDS = 30.0
"""A request that nobody asked about for this long is cancelled: its reader has left."""
PACE_SECONDS = 0.15
"""Growing completions are rated this often, or less if rating would take more than a fifth of the time."""
SPARE = 400_000_000
"""Bytes of memory that models leave free."""
KEPT = 200
"""Ended requests that are remembered."""
TOXIC_ANSWERS = 20
"""Recorded answers that a document may have pushed toward, the most toxic ones."""
COLOURED = 40
"""Best documents of a trace whose tokens' scores are told."""
ENDED = ("done", "cancelled", "failed")


@dataclass(kw_only=True)
class Request:
    """A reader's request and its state."""

    study: str
    """Its folder."""
    models: list[str]
    prompt: str = ""
    """The text that each model completes; empty: compute token probabilities of the stored completions."""
    number: int = 0
    """Index of the prompt, for token probabilities."""
    sample: int = 0
    """Number of the first completion, which seeds its random numbers."""
    draws: int = 1
    """Completions of each model."""
    load: bool = False
    """Load the models and the scorer and try them once, so that the next prompt need not wait; nothing else."""
    choice: dict = field(default_factory=dict)
    """Settings of a selection, as of `preview_selection`, to edit the base model against and to measure; empty: one of
    the others."""
    trace: dict = field(default_factory=dict)
    """An answer, the fields of `ifguide.study.analysis.trace.Answer`, whose training documents are looked for; empty:
    one of the others."""
    document: str = ""
    """Id of a document that may have pushed toward the base model's most toxic recorded answers; empty: one of the
    others."""
    meaning: str = ""
    """A text, to read its direction among the documents, as of `ifguide.study.analysis.document_map.read_meaning`;
    empty: one of the others."""
    settings: dict = field(default_factory=dict)
    """Settings of `EvaluateConfig` that differ from the study's; for a preview, of the edit."""
    state: str = "waiting"
    """`waiting`, `loading`, `running`, or one of `ENDED`."""
    message: str = ""
    """The error, the name of the model that is loaded, or what a preview counts: `batches 3 40`."""
    figures: dict = field(default_factory=dict)
    """What a preview measured, see `ifguide.serving.preview.Preview.measure`; of a `meaning` its `direction`."""
    cells: list[dict] = field(default_factory=list)
    """For each draw of each model, model by model, the completion's `text` so far, `toxicity`, toxic `spans`, and
    whether it has `ended`. A growing text ends with a whole word and is never newer than its spans, so that the app
    can veil it. Of a trace: the documents scored so far, see `describe_traced`, the best first; after `COLOURED` of
    them without `scores`. Of a `document`: the answers' `prompt_index`, `sample_index` and `score`, the highest
    first."""
    read: float = field(default_factory=time.monotonic)
    """When somebody last asked about it."""


class Cancelled(Exception):
    """The reader of a preview has left."""


class Models:
    """Models and scorers, loaded once; the least recently used one is freed if memory is short."""

    def __init__(self, free: Callable[[Path], dict[str, int]] = free_memory):
        self._free = free
        self._kept: dict[Hashable, Any] = {}  # most recently used last

    def load(self, study: Study, name: str) -> tuple:
        """An evaluated model, its tokenizer, and what steers it, or None. A StaleError: its weights are missing. An
        InputError: they cannot be loaded, or need more memory than is free."""

        def load() -> tuple:
            model, tokenizer = load_evaluated(study, name, study.config.evaluate.dtype)
            return model, tokenizer, load_steering(study, tokenizer) if name == STEERED else None

        facts = known_facts(study)
        key = study.root, name, study.config.evaluate.dtype, artifacts.digest_of(study.manifest(weights_unit(name)))
        return self._get(key, study, load, 4 * facts.parameters if facts else 0)

    def preview(self, study: Study) -> Preview:
        """The base model with its curvature, to be edited."""
        made_of = [artifacts.digest_of(study.manifest(Unit(stage))) for stage in ("corpus", "model")]
        facts = known_facts(study)
        return self._get(
            (study.root, *made_of), study, lambda: Preview.open(study), 12 * facts.parameters if facts else 0
        )

    def tracer(self, study: Study) -> tuple[Tracer, WordIndex]:
        """The base model with its curvature, to trace answers with, and the words of its corpus."""
        made_of = [artifacts.digest_of(study.manifest(Unit(stage))) for stage in ("corpus", "model", "factors")]
        facts = known_facts(study)
        key, needed = (study.root, "trace", *made_of), 12 * facts.parameters if facts else 0
        return self._get(key, study, lambda: (Tracer.open(study), word_index(study)), needed)

    def scorer(self, study: Study) -> ToxicityScorer:
        key = (study.root, study.config.evaluate.scorer, study.config.evaluate.threshold)
        return self._get(key, study, lambda: load_rater(study), 0)

    def _get(self, key: Hashable, study: Study, load: Callable, n_bytes: int):
        if key not in self._kept:
            self._make_room(study, SPARE + n_bytes)
            self._kept[key] = load()
        self._kept[key] = self._kept.pop(key)
        return self._kept[key]

    def _make_room(self, study: Study, needed: int) -> None:
        from ifguide.models.loading import pick_device

        device = "device" if pick_device(study.config.compute.device).type == "cuda" else "host"
        while (free := self._free(study.root)[device]) < needed and self._kept:
            del self._kept[next(iter(self._kept))]
            gc.collect()
            if device == "device":
                sys.modules["torch"].cuda.empty_cache()
        if free < needed:
            raise InputError(
                f"a model needs {needed / 1e9:.1f} GB of memory, but only {free / 1e9:.1f} GB are free; compare fewer"
                " models, or close other programs"
            )


class Worker:
    """The queue of requests, of which one is processed at a time."""

    def __init__(self, models: Models | None = None, idle_seconds: float = IDLE_SECONDS):
        self.models, self.idle_seconds = models or Models(), idle_seconds
        self._requests: dict[int, Request] = {}
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()

    def answer(self, message: dict) -> dict:
        """Answer `{"ask": {…}}`, which has the fields of a `Request`, with its `{"id": …}`; and `{"id": …}`, with
        `"cancel": true` to end it, with its `state`, `message`, `cells`, and how many requests are `ahead`."""
        with self._changed:
            if "ask" in message:
                number = next(self._numbers)
                self._requests[number] = Request(**message["ask"])
                for old in [n for n, request in self._requests.items() if request.state in ENDED][:-KEPT]:
                    del self._requests[old]
                self._changed.notify()
                return {"id": number}
            request = self._requests[message["id"]]
            request.read = time.monotonic()
            if message.get("cancel") and request.state not in ENDED:
                request.state = "cancelled"
            ahead = sum(n < message["id"] and other.state not in ENDED for n, other in self._requests.items())
            return {
                "state": request.state,
                "message": request.message,
                "cells": request.cells,
                "figures": request.figures,
                "ahead": ahead,
            }

    def run(self) -> None:
        """Process requests one after the other; returns after `idle_seconds` without one."""
        while request := self._next():
            try:
                study = Study.open(Path(request.study).name, Path(request.study).parent)
                kinds = {"trace": self._trace, "document": self._score_answers, "choice": self._preview}
                kinds |= {"load": self._load, "prompt": self._complete, "meaning": self._read_meaning}
                work = next((kinds[name] for name in kinds if getattr(request, name)), self._read_tokens)
                work(study, request)
                self._move(request, "done")
            except Cancelled:
                pass
            except Exception as error:
                reason = str(error) if isinstance(error, IFGuideError) else explain_system_error(error)
                if not reason:
                    traceback.print_exc()
                self._move(request, "failed", reason or f"something unexpected went wrong ({error!r})")

    def _next(self) -> Request | None:
        def first() -> Request | None:
            return next((r for r in self._requests.values() if r.state == "waiting"), None)

        with self._changed:
            return self._changed.wait_for(first, timeout=self.idle_seconds)

    def _move(self, request: Request, state: str, message: str = "") -> bool:
        """Change a request's state unless it was cancelled; returns whether to continue."""
        with self._changed:
            if request.state not in ENDED:
                left = time.monotonic() - request.read > UNREAD_SECONDS
                request.state, request.message = "cancelled" if left else state, message
            return request.state not in ENDED

    def _complete(self, study: Study, request: Request) -> None:
        """Complete a prompt with all models, one token each in turn, and rate the growing texts."""
        config = replace(study.config.evaluate, n_samples=1, **request.settings)
        growing: dict[int, Iterator[list[str]]] = {}
        for place, name in enumerate(request.models):
            if not self._move(request, "loading", name):
                return
            growing[place] = self.stream(study, name, config, request)
        scorer, due = self.models.scorer(study), 0.0
        texts = [[""] * request.draws for _ in growing]
        while growing and self._move(request, "running"):
            for place, stream in list(growing.items()):
                if (grown := next(stream, None)) is None:
                    del growing[place]
                else:
                    texts[place] = grown
            started = time.monotonic()
            if started >= due or not growing:
                unfinished = [i for i in range(len(texts) * request.draws) if i // request.draws in growing]
                request.cells = rate(scorer, [text for own in texts for text in own], unfinished)
                now = time.monotonic()
                due = now + max(PACE_SECONDS, 4 * (now - started))

    def stream(self, study: Study, name: str, config: EvaluateConfig, request: Request) -> Iterator[list[str]]:
        from ifguide.evaluation.generation import stream_completions

        model, tokenizer, steer = self.models.load(study, name)
        samples = range(request.sample, request.sample + request.draws)
        steps = stream_completions(model, tokenizer, request.prompt, config, samples, steer)
        return ([completion.completion for completion in step] for step in steps)

    def _load(self, study: Study, request: Request) -> None:
        self._complete(study, replace(request, prompt="The", settings={"max_new_tokens": 1}))

    def _preview(self, study: Study, request: Request) -> None:
        """Edit the base model against a selection, and measure it."""
        if not self._move(request, "loading", BASE):
            return
        preview = self.models.preview(study)

        def report(what: str, done: int, total: int) -> None:
            if not self._move(request, "running", f"{what} {done} {total}"):
                raise Cancelled

        mask = np.asarray(preview_selection(study, request.choice).mask)
        request.figures = preview.measure(mask, edit_recipe(study.config, DEFAULT, request.settings), report)

    def _read_meaning(self, study: Study, request: Request) -> None:
        """Where a text is among the documents."""
        if self._move(request, "loading", BASE):
            model, tokenizer, _ = self.models.load(study, BASE)
            request.figures = {"direction": read_meaning(study, request.meaning, model, tokenizer).tolist()}

    def _trace(self, study: Study, request: Request) -> None:
        """Score the documents that may have taught an answer; the reader sees them as they come."""
        if not self._move(request, "loading", BASE):
            return
        tracer, words = self.models.tracer(study)
        span = request.trace.get("span")
        answer = Answer(**request.trace | {"span": tuple(span) if span else None})
        direction, traced = tracer.direction(answer), []
        candidates = tracer.choose(answer, direction, words)
        if not self._move(request, "running", f"documents 0 {len(candidates)}"):
            return
        for part in tracer.trace(direction, candidates):
            traced += part
            cells = request.cells + [describe_traced(study, one) for one in part]
            request.cells = sorted(cells, key=lambda cell: -cell["score"])
            for worse in request.cells[COLOURED:]:
                worse.pop("scores", None)
            request.figures = {"noise": noise_floor(traced)}
            if not self._move(request, "running", f"documents {len(traced)} {len(candidates)}"):
                return

    def _score_answers(self, study: Study, request: Request) -> None:
        """How far a document pushed toward recorded answers, in the order of that."""
        if not self._move(request, "loading", BASE):
            return
        tracer, _ = self.models.tracer(study)
        samples = study.samples(BASE)
        samples = samples[samples["completion"] != ""].nlargest(TOXIC_ANSWERS, "toxicity")
        texts = zip(samples["prompt"], samples["completion"], strict=True)
        answers = [Answer(prompt=prompt, completion=completion) for prompt, completion in texts]
        samples["score"] = tracer.score_answers(study.corpus().index_of(request.document), answers)
        places = samples.sort_values("score", ascending=False)[["prompt_index", "sample_index", "score"]]
        request.cells = places.to_dict("records")

    def _read_tokens(self, study: Study, request: Request) -> None:
        """Compute token probabilities, which are stored in the study."""
        if self._move(request, "running"):
            compute_likelihoods(study, request.number, request.models, lambda *of: self.models.load(*of)[:2])


def rate(scorer: ToxicityScorer, texts: Sequence[str], growing: Container[int]) -> list[dict]:
    """The `cells` of a `Request`; `growing` has the places of completions that have not ended."""
    texts = [re.sub(r"\S*$", "", text) if i in growing else text for i, text in enumerate(texts)]
    toxicity = scorer.score(texts)
    spans = find_toxic_spans(texts, toxicity, scorer)
    return [
        {"text": text, "toxicity": float(rated), "spans": toxic, "ended": i not in growing}
        for i, (text, rated, toxic) in enumerate(zip(texts, toxicity, spans, strict=True))
    ]


def main() -> None:
    """Process requests, and answer messages until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # keeps what a library prints out of the answers
    worker = Worker()

    def listen() -> None:
        for line in sys.stdin:
            print(json.dumps(worker.answer(json.loads(line))), file=answers, flush=True)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    worker.run()
    os._exit(0)  # a normal exit would wait for the thread that reads the input


if __name__ == "__main__":
    main()

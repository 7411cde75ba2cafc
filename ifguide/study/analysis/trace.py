"""Trace an answer: which training documents made this very completion likelier, by influence, not by its words.

The answer's own gradient through the study's curvature is one direction v = (F + dI)⁻¹ ∇CE(answer). A token's score is
the derivative of its loss along v, as `own_loss` is along the direction of the queries; a document's is the sum of its
tokens': positive where training on the document made the answer likelier. Candidates are scored, not the whole corpus:
documents that read alike, the study's highest by score, the nearest by the gradient index if there is one, and random
ones, whose range is what chance gives.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ifguide.config.names import BASE, DEFAULT
from ifguide.data.word_index import WordIndex, choose_documents
from ifguide.errors import InputError, StaleError
from ifguide.storage.artifacts import hash_json, read_manifest
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stage_table import curvature_unit
from ifguide.study.stages import checkpoints
from ifguide.study.stages.editing import EditedTokens, load_base, selected_gradient
from ifguide.study.stages.evaluating import missing_weights
from ifguide.study.stages.gradients import open_index
from ifguide.study.variants import edit_recipe

if TYPE_CHECKING:
    from ifguide.influence.central import CentralDifference
    from ifguide.models.layers import Layers, Matrices

INDEX, ALIKE, SCORE, RANDOM = "gradient", "alike", "score", "random"
"""Where a candidate comes from: the gradient index puts it high, it shares the answer's rare words, the study ranks it
high, or chance."""
CANDIDATES = {ALIKE: 80, SCORE: 80, RANDOM: 40}
"""How many documents of each source are scored."""
WITH_INDEX = {INDEX: 100, ALIKE: 40, SCORE: 20, RANDOM: 40}
"""The same where there is a gradient index."""
DOCUMENTS_AT_ONCE = 8
"""Documents scored together; the reader sees them as soon as they are."""
LOSS_STEP = 0.02
"""Root mean square change of a token's loss, in nats, that the finite difference steps by."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is traced."""

    prompt: str
    completion: str
    span: tuple[int, int] | None = None
    """Characters of the completion that count, such as one word; None: all."""
    contrast: str = ""
    """Another completion of the same prompt, whose gradient is subtracted; empty: none."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A document that may have taught the answer."""

    document: int
    """Its number in the corpus."""
    sources: tuple[str, ...]
    """Of `INDEX`, `ALIKE`, `SCORE` and `RANDOM`, those that gave it."""
    alike: float = 0.0
    """Sum of the weights of the rare words that it shares with the answer."""


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A candidate's influence on the answer."""

    candidate: Candidate
    scores: np.ndarray
    """float32 (T,), of the document's tokens: positive where training on them made the answer likelier."""

    @property
    def total(self) -> float:
        """The document's score, the sum of its tokens'."""
        return float(self.scores.sum(dtype=np.float64))


def name_answer(prompt: str, completion: str) -> str:
    """What the settings of a selection of traced documents call their answer."""
    return hash_json([prompt, completion])


def recorded_answer(study: Study, prompt: str, model: str) -> str:
    """The most toxic completion that a model gave to one of the evaluation's prompts. An InputError: it was not asked
    that prompt."""
    samples = study.samples(model)
    mine = samples[samples["prompt"] == prompt]
    if not len(mine):
        raise InputError(f"{model} was not asked this prompt; give the answer with --completion, or a recorded prompt")
    return mine.loc[mine["toxicity"].idxmax(), "completion"]


def read_answer(
    study: Study, prompt: str, completion: str | None, *, model: str = BASE, contrast: str = "", word: str = ""
) -> Answer:
    """The answer to trace: a completion or, without one, the recorded one of a model; minus that of another model
    (`contrast`), or only one part of it (`word`). Errors as `recorded_answer` and `find_part`."""
    text = recorded_answer(study, prompt, model) if completion is None else completion
    other = recorded_answer(study, prompt, contrast) if contrast else ""
    return Answer(prompt=prompt, completion=text, span=find_part(text, word) if word else None, contrast=other)


def find_part(completion: str, part: str) -> tuple[int, int]:
    """Where a part of a completion first is, [start, stop) in characters. An InputError: it is not there."""
    start = completion.find(part)
    if start < 0:
        raise InputError(f"--word: {part!r} is not in the answer {completion!r}")
    return start, start + len(part)


def describe_traced(study: Study, one: Traced) -> dict:
    """A traced document for JSON: its `document` (an id), `score`, `sources`, `alike` and its tokens' `scores`."""
    candidate = one.candidate
    return {
        "document": study.corpus().document(candidate.document).id,
        "score": one.total,
        "sources": list(candidate.sources),
        "alike": candidate.alike,
        "scores": [round(float(score), 5) for score in one.scores],
    }


def find_obstacle(study: Study) -> str:
    """Why answers cannot be traced, with the remedy; empty where the model and its curvature are there."""
    try:
        if not (reason := missing_weights(study, BASE)):
            study.manifest(_curvature(study))
    except StaleError as error:
        return str(error)
    return reason


def _curvature(study: Study) -> Unit:
    """The finished base model's own factors where an edit has fitted them, else the last scoring checkpoint's."""
    final = Unit("curvature", "final")
    early = curvature_unit(study.config, edit_recipe(study.config, DEFAULT, {"curvature": "checkpoint"}))
    return final if read_manifest(study.folder(final)) else early


def word_index(study: Study) -> WordIndex:
    """The words of the study's documents, of the best-ranked ones where the corpus is large."""
    corpus = study.corpus()
    return WordIndex(corpus.column("text"), choose_documents(corpus.offsets, _order(study)))


def _order(study: Study) -> np.ndarray | None:
    """The documents' numbers by the default selection's rank."""
    return study.selection().order if DEFAULT in study.selection_names() else None


def choose_candidates(
    study: Study,
    answer: Answer,
    index: WordIndex,
    counts: Mapping[str, int] = CANDIDATES,
    seed: int = 0,
    nearest: Sequence[int] = (),
) -> list[Candidate]:
    """The documents to score: the first of each source, then the second of each, and so on; no document twice. `seed`
    draws the random ones; `nearest` are those of the gradient index, the best first."""
    corpus, order = study.corpus(), _order(study)
    near = index.nearest(answer.completion, n=counts[ALIKE], span=answer.span, order=order)[0]
    alike = {match.document: match.score for match in near}
    drawn = np.random.default_rng(seed).permutation(corpus.n_documents)[: counts[RANDOM]]
    ranked = [] if order is None else order[: counts[SCORE]].tolist()
    sources: dict[int, list[str]] = {}
    for turn in itertools.zip_longest(list(nearest), list(alike), ranked, drawn.tolist()):
        for source, document in zip((INDEX, ALIKE, SCORE, RANDOM), turn, strict=True):
            if document is not None:
                sources.setdefault(document, []).append(source)
    return [
        Candidate(document=document, sources=tuple(names), alike=alike.get(document, 0.0))
        for document, names in sources.items()
    ]


@dataclass(kw_only=True)
class Tracer:
    """A study's model with its curvature, ready to trace one answer after the other."""

    study: Study
    model: Any = field(repr=False)
    modules: "Layers" = field(repr=False)
    """The model's tracked layers."""
    device: Any
    factors: Any = field(repr=False)
    """EK-FAC factors by layer; None for the identity."""

    @classmethod
    def open(cls, study: Study, at: str = BASE) -> "Tracer":
        """Load the finished base model, with its own curvature where an edit has fitted it and else the last scoring
        checkpoint's; or, by its name, a scoring checkpoint with its own. A StaleError: a model or factors are
        missing."""
        unit = _curvature(study) if at == BASE else Unit("factors")
        study.manifest(unit)
        model, modules, device = load_base(study) if at == BASE else checkpoints.load_checkpoint(study, at)
        if unit.name:
            factors = checkpoints.StoredFactors(study.folder(unit) / checkpoints.FACTORS, str(device)) or None
        else:
            checkpoint = study.checkpoint_names()[-1] if at == BASE else at
            factors = checkpoints.read_factors(study, checkpoint, str(device))
        return cls(study=study, model=model, modules=modules, device=device, factors=factors)

    @cached_property
    def _tokenizer(self):
        return checkpoints.study_tokenizer(self.study)

    def direction(self, answer: Answer) -> "Matrices":
        """v of an answer, (O, I) a layer: moving the weights along -v makes it likelier, and the contrast less. An
        InputError: no token of the answer counts."""
        from ifguide.influence.direction import query_gradient

        def gradient(completion: str, span: tuple[int, int] | None = None) -> "Matrices":
            return query_gradient(self.model, self.modules, [self._encode(answer.prompt, completion, span)])

        own = gradient(answer.completion, answer.span)
        return self._precondition(own, gradient(answer.contrast) if answer.contrast else None)

    def _precondition(self, own: "Matrices", other: "Matrices | None" = None) -> "Matrices":
        from ifguide.influence.direction import differential_direction

        config = self.study.config.direction
        return differential_direction(own, other, self.factors, config.damping, config.damping_unit)

    def score_answers(self, document: int, answers: Sequence[Answer]) -> np.ndarray:
        """float64 (n,): how much likelier training on a document made each whole answer. It is what a trace of the
        answer gives the document, from the other side: the derivative of the answer's loss along the document's v,
        exactly, by one pass forward and backward."""
        import torch

        from ifguide.influence.attribution import position_scores
        from ifguide.influence.batches import make_batches, query_sequences
        from ifguide.influence.losses import SplitModel

        corpus, mask = self.study.corpus(), np.zeros(self.study.corpus().n_tokens, bool)
        part = slice(int(corpus.offsets[document]), int(corpus.offsets[document + 1]))
        mask[part] = corpus.valid_parts[part]
        direction = self._precondition(selected_gradient(self.study, self.model, self.modules, EditedTokens(mask)))
        encoded = [self._encode(answer.prompt, answer.completion, None) for answer in answers]
        sums, counts, split = np.zeros(len(answers)), np.zeros(len(answers)), SplitModel.of(self.model)
        for batch in make_batches(query_sequences(encoded), self.study.config.compute.tokens_per_batch):
            scores, _ = position_scores(split, self.modules, [direction], batch.to(self.device))
            sums[batch.sequence] = scores[0].sum(1, dtype=torch.float64).cpu()
            counts[batch.sequence] = batch.counted.sum(1)
        return sums / np.maximum(counts, 1)

    def _encode(self, prompt: str, completion: str, span: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
        """Token ids int64 (T,) and which of them count, bool (T,)."""
        from ifguide.data.queries import encode_pairs
        from ifguide.data.tokenizing import tokenize

        layout, tokenizer = checkpoints.read_layout(self.study), self._tokenizer
        [(ids, counted)] = encode_pairs([(prompt, completion)], tokenizer, layout["max_length"], layout["bos"])
        if span is not None:
            [text] = tokenize(tokenizer, [prompt + completion])
            first, last = (len(prompt) + place for place in span)
            overlaps = (text.char_end > first) & (text.char_start < last)
            n_shared = min(len(ids), len(overlaps))  # a long prompt has lost its beginning; before it may be a BOS
            counted = counted.copy()
            counted[: len(ids) - n_shared] = False
            counted[len(ids) - n_shared :] &= overlaps[len(overlaps) - n_shared :]
            if not counted.any():
                raise InputError(f"trace: no token of the answer is in its characters {span[0]} to {span[1]}")
        return ids, counted

    def choose(self, answer: Answer, direction: "Matrices", words: WordIndex) -> list[Candidate]:
        """The documents to score for an answer with this direction, through the gradient index if there is one."""
        if (index := open_index(self.study)) is None:
            return choose_candidates(self.study, answer, words)
        nearest = index.nearest(direction, WITH_INDEX[INDEX]).tolist()
        return choose_candidates(self.study, answer, words, WITH_INDEX, nearest=nearest)

    def trace(self, direction: "Matrices", candidates: Sequence[Candidate]) -> Iterator[list[Traced]]:
        """Score candidates in their order, two at first and then `DOCUMENTS_AT_ONCE` at a time. A caller that asks no
        more stops the work."""
        few = [candidate.document for candidate in candidates[:4]]
        scorer = self._scorer(direction, lambda tried: np.concatenate(self._score(few, tried)))
        edges = [0, *range(2, len(candidates), DOCUMENTS_AT_ONCE), len(candidates)]
        for first, stop in itertools.pairwise(edges):
            part = candidates[first:stop]
            scores = self._score([candidate.document for candidate in part], scorer)
            yield [Traced(candidate=one, scores=values) for one, values in zip(part, scores, strict=True)]

    def _scorer(self, direction: "Matrices", score: "Callable[[CentralDifference], np.ndarray]") -> "CentralDifference":
        """Steps by the multiple of v that changes the losses that `score` scores by `LOSS_STEP`."""
        from ifguide.influence.central import CentralDifference
        from ifguide.influence.losses import SplitModel

        model = SplitModel.of(self.model)
        length = sum(float(v.square().sum()) for v in direction.values()) ** 0.5
        step = LOSS_STEP / length if length else 1.0
        for _ in range(2):
            values = score(CentralDifference(model, self.modules, direction, step)).astype(np.float64)
            if not values.any():
                break
            step = LOSS_STEP / float(np.sqrt(np.mean(np.square(values[values != 0]))))
        return CentralDifference(model, self.modules, direction, step)

    def _score(self, documents: Sequence[int], scorer: "CentralDifference") -> list[np.ndarray]:
        """float32 (T,) of each document's tokens, 0 where nothing counts."""
        from ifguide.influence.batches import make_batches

        corpus = self.study.corpus()
        spans = {d: slice(int(corpus.offsets[d]), int(corpus.offsets[d + 1])) for d in documents}
        sequences = checkpoints.corpus_sequences(self.study, chosen=np.asarray(documents))
        places, values = [], []
        for batch in make_batches(sequences, self.study.config.compute.tokens_per_batch):
            counted = batch.counted
            places.append(batch.target_index[counted].numpy())
            scores, _ = scorer.scores(batch.to(self.device))
            values.append(scores.float().cpu()[counted].numpy())
        result = {d: np.zeros(span.stop - span.start, np.float32) for d, span in spans.items()}
        if places:
            at, value = np.concatenate(places), np.concatenate(values)
            for d, span in spans.items():
                inside = (at >= span.start) & (at < span.stop)
                result[d][at[inside] - span.start] = value[inside]
        return [result[d] for d in documents]


def noise_floor(traced: Sequence[Traced]) -> tuple[float, float]:
    """The range of the random documents' scores; (0, 0) without any."""
    totals = [one.total for one in traced if RANDOM in one.candidate.sources] or [0.0]
    return min(totals), max(totals)

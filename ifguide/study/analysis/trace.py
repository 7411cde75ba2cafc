"""Trace an answer: which training documents made this very completion likelier, by influence, not by its words.

The completion's own gradient through the study's curvature is one direction v; a document's score is the sum of its
tokens' own-loss scores along it: positive where training on the document made the answer likelier. Candidates are
scored, not the whole corpus: documents that read alike, the study's highest by score, and random ones, whose range is
what chance gives.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ifguide.config.names import DEFAULT
from ifguide.data.word_index import WordIndex, choose_documents
from ifguide.errors import InputError
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stages import checkpoints

ALIKE, SCORE, RANDOM = "alike", "score", "random"
"""Where a candidate comes from: it shares the answer's rare words, the study ranks it high, or chance."""
CANDIDATES = {ALIKE: 80, SCORE: 80, RANDOM: 40}
DOCUMENTS_AT_ONCE = 8
"""Candidates scored together; the reader sees them as soon as they are."""
LOSS_STEP = 0.02
"""Root mean square change of a token's loss, in nats, that a central difference steps by."""
_SAMPLE = 8
"""Random documents that the step is chosen on."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A document that may have taught the answer."""

    document: int
    """Its number in the corpus."""
    sources: tuple[str, ...]
    """Of `ALIKE`, `SCORE` and `RANDOM`, those that gave it."""
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


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is traced."""

    prompt: str
    completion: str
    span: tuple[int, int] | None = None
    """Characters of the completion that count, such as one word; None: all."""
    contrast: str = ""
    """Another model's completion of the same prompt, which is subtracted; empty: none."""


def choose_candidates(
    study: Study, answer: Answer, index: WordIndex | None = None, counts: dict[str, int] | None = None, seed: int = 0
) -> list[Candidate]:
    """The documents to score, the most promising first, the sources in turn; no document twice."""
    counts, corpus = counts or CANDIDATES, study.corpus()
    order = study.selection().order if DEFAULT in study.selection_names() else None
    if order is not None and len(order) != corpus.n_documents:
        order = None
    index = index or WordIndex(corpus.column("text"), choose_documents(corpus.offsets, order))
    near = index.nearest(answer.completion, n=counts[ALIKE], span=answer.span, order=order)[0] if counts[ALIKE] else []
    drawn = np.random.default_rng(seed).permutation(corpus.n_documents)[: counts[RANDOM]]
    ranked = [] if order is None else order[: counts[SCORE]].tolist()
    by_source = {ALIKE: [match.document for match in near], SCORE: ranked, RANDOM: drawn.tolist()}
    alike = {match.document: match.score for match in near}
    sources: dict[int, list[str]] = {}
    for turn in range(max(map(len, by_source.values()), default=0)):
        for source, documents in by_source.items():
            if turn < len(documents):
                sources.setdefault(int(documents[turn]), []).append(source)
    return [
        Candidate(document=document, sources=tuple(names), alike=alike.get(document, 0.0))
        for document, names in sources.items()
    ]


@dataclass(kw_only=True)
class Tracer:
    """A study's scoring checkpoint with its curvature, ready to trace one answer after the other."""

    study: Study
    checkpoint: str
    model: object = field(repr=False)
    modules: dict = field(repr=False)
    device: object
    factors: object = field(repr=False)

    @classmethod
    def open(cls, study: Study, checkpoint: str = "") -> "Tracer":
        """Load a scoring checkpoint, by itself the last one. A StaleError: its model or factors are not there."""
        study.manifest(Unit("factors"))
        checkpoint = checkpoint or study.checkpoint_names()[-1]
        model, modules, device = checkpoints.load_checkpoint(study, checkpoint)
        factors = checkpoints.read_factors(study, checkpoint, str(device))
        return cls(study=study, checkpoint=checkpoint, model=model, modules=modules, device=device, factors=factors)

    def direction(self, answer: Answer) -> dict:
        """v of the answer, (O, I) a layer: moving the weights along -v makes it likelier."""
        from ifguide.influence.direction import differential_direction, query_gradient

        gradients = [
            query_gradient(self.model, self.modules, [self._encode(answer.prompt, answer.completion, answer.span)])
        ]
        if answer.contrast:
            gradients.append(
                query_gradient(self.model, self.modules, [self._encode(answer.prompt, answer.contrast, None)])
            )
        config = self.study.config.direction
        other = gradients[1] if answer.contrast else None
        return differential_direction(gradients[0], other, self.factors, config.damping, config.damping_unit)

    def _encode(self, prompt: str, completion: str, span: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and which of them count. An InputError: none does."""
        from ifguide.data.queries import encode_pairs
        from ifguide.data.tokenizing import tokenize

        layout, tokenizer = checkpoints.read_layout(self.study), checkpoints.study_tokenizer(self.study)
        ids, counted = encode_pairs([(prompt, completion)], tokenizer, layout["max_length"], layout["bos"])[0]
        if span is not None:
            text = next(iter(tokenize(tokenizer, [prompt + completion])))
            ends = np.asarray(text.char_end)[-len(ids) :]
            starts = np.concatenate([[0], ends[:-1]])
            inside = (starts < len(prompt) + span[1]) & (ends > len(prompt) + span[0])
            counted = counted & np.concatenate([np.zeros(len(ids) - len(inside), bool), inside])
            if not counted.any():
                raise InputError(f"trace: no token of the answer is in its characters {span[0]} to {span[1]}")
        return ids, counted

    def trace(self, direction: dict, candidates: list[Candidate]) -> Iterator[list[Traced]]:
        """Score candidates in their order, some at a time. A caller that stops asking stops the work."""
        scorer = self._scorer(direction, candidates)
        for first in range(0, len(candidates), DOCUMENTS_AT_ONCE):
            part = candidates[first : first + DOCUMENTS_AT_ONCE]
            scores = self._score([candidate.document for candidate in part], scorer)
            yield [Traced(candidate=c, scores=values) for c, values in zip(part, scores, strict=True)]

    def _scorer(self, direction: dict, candidates: list[Candidate]):
        """A central difference whose step changes the losses of some random candidates by `LOSS_STEP`."""
        from ifguide.influence.central import CentralDifference
        from ifguide.influence.losses import SplitModel

        split = SplitModel.of(self.model)
        length = sum(float(v.square().sum()) for v in direction.values()) ** 0.5
        epsilon = 1e-3 / (length or 1.0)
        sample = [c.document for c in candidates if RANDOM in c.sources] or [c.document for c in candidates]
        for _ in range(2):
            scorer = CentralDifference(split, self.modules, direction, epsilon)
            values = np.concatenate(self._score(sample[:_SAMPLE], scorer))
            size = float(np.sqrt(np.mean(np.square(values[values != 0], dtype=np.float64)))) if values.any() else 0.0
            epsilon = LOSS_STEP / size if size else epsilon
        return CentralDifference(split, self.modules, direction, epsilon)

    def _score(self, documents: list[int], scorer) -> list[np.ndarray]:
        """float32 (T,) of each document's tokens, 0 where nothing counts."""
        from ifguide.influence.batches import make_batches

        corpus = self.study.corpus()
        offsets = np.asarray(corpus.offsets)
        scores = {d: np.zeros(int(offsets[d + 1] - offsets[d]), np.float32) for d in documents}
        sequences = checkpoints.corpus_sequences(self.study, chosen=np.asarray(documents))
        for batch in make_batches(sequences, self.study.config.compute.tokens_per_batch):
            values = scorer.scores(batch.to(self.device))[0].float().cpu().numpy()
            places = batch.target_index.numpy()
            counted = places >= 0
            owners = np.searchsorted(offsets, places[counted], side="right") - 1
            for document, place, value in zip(owners, places[counted], values[counted], strict=True):
                scores[document][place - offsets[document]] = value
        return [scores[document] for document in documents]


def noise_floor(traced: list[Traced]) -> tuple[float, float] | None:
    """The range of the random documents' scores; None without one."""
    totals = [one.total for one in traced if RANDOM in one.candidate.sources]
    return (min(totals), max(totals)) if totals else None


def log_probability(model, tokenizer, prompt: str, completion: str, max_length: int, bos: int | None) -> float:
    """Natural logarithm of the probability that a model gives a completion after its prompt."""
    import torch

    from ifguide.data.queries import encode_pairs
    from ifguide.models.layers import device_of

    ids, counted = encode_pairs([(prompt, completion)], tokenizer, max_length, bos)[0]
    with torch.inference_mode():
        tokens = torch.as_tensor(ids).unsqueeze(0).to(device_of(model))
        chances = model(input_ids=tokens, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        own = chances.gather(-1, tokens[0, 1:, None]).squeeze(-1).cpu()
    return float(own[torch.as_tensor(counted[1:])].double().sum())

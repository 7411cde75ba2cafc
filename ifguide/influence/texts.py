"""The engine on a model in memory: texts and queries in, a score a token out. No study, no files.

It takes the same steps as a study at one checkpoint (`ifguide.study.stages.build`), with its default settings.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ifguide.data.by_document import draw_documents
from ifguide.data.packing import chunk_documents
from ifguide.data.queries import encode_pairs
from ifguide.data.tokenizing import tokenize
from ifguide.errors import ConfigError
from ifguide.influence.attribution import average_blocks, pool_blocks, score_corpus
from ifguide.influence.batches import Batch, CorpusSequences, make_batches
from ifguide.influence.derivative import SAMPLE_TOKENS, choose_derivative
from ifguide.influence.direction import differential_direction, query_gradient
from ifguide.influence.ekfac import accumulation_dtype, fit_factors
from ifguide.influence.losses import SplitModel
from ifguide.influence.probe import fit_probe, hidden_states
from ifguide.models.layers import device_of
from ifguide.models.loading import attention, bos_context, context_length, has_fast_bfloat16, tracked_modules
from ifguide.selection.texts import ScoredTexts

METHODS = ("own_loss", "probe", "combined")
Pairs = Sequence[tuple[str, str]]
ScoreOne = Callable[[Batch], torch.Tensor]


def score_texts(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    toxic: Pairs,
    safe: Pairs,
    *,
    kind: str = "combined",
    damping: float = 10.0,
    factor_tokens: int = 0,
    pooling: float = 1.0,
    max_length: int = 0,
    tokens_per_batch: int = 4096,
    seed: int = 0,
    report: Callable[[str, int, int], None] | None = None,
) -> ScoredTexts:
    """Score every token of some texts by how much training on it makes toxic completions likelier.

    The model is read, not changed; it may be in training mode and have gradients on.

    Args:
        model: a Transformers causal language model on its device, trained on the texts or about to be.
        tokenizer: its fast tokenizer.
        texts: what the model learns from. Also what the curvature is fitted on.
        toxic: (prompt, completion) pairs that the model should not be taught.
        safe: the same prompts with harmless completions, or others.
        kind: `own_loss` (EK-FAC influence on the token's own loss), `probe` (a linear probe of hidden states, which
            needs no curvature), or `combined` (the mean of both in standard deviations).
        damping: as a multiple of each layer's mean eigenvalue.
        factor_tokens: fit the curvature on about this many tokens, in whole texts drawn at random; 0: on all.
        pooling: adds this multiple of the mean score over all places of the same vocabulary entry.
        max_length: texts are cut into overlapping chunks of this many tokens; 0: the model's context.
        tokens_per_batch: tokens of a forward pass, padding included.
        seed: of the texts drawn and of the labels that the curvature is fitted with.
        report: called as report(step, done, in all) with the step `factors`, `queries` or `scores`.

    Returns:
        Scores float32 (N,), 0 for each text's first token.

    Raises:
        ConfigError: another kind, or an empty set of queries.
        InputError: a query without a completion token, or a tokenizer without character offsets.
        NumericalError: the model gives values that are not finite.
    """
    if kind not in METHODS:
        raise ConfigError(f"kind: expected one of {', '.join(METHODS)}, got {kind!r}")
    corpus, bos = _lay_out(texts, tokenizer), bos_context(tokenizer)
    longest = max_length or context_length(model.config)
    sequences = functools.partial(_sequences, corpus, longest, bos, seed)
    queries = [encode_pairs(pairs, tokenizer, longest, bos) for pairs in (toxic, safe)]
    batches, valid = functools.partial(make_batches, tokens_per_batch=tokens_per_batch), corpus.valid()

    def tell(step: str):
        return report and functools.partial(report, step)

    def run(score: ScoreOne) -> np.ndarray:
        """Scores of the whole corpus, pooled."""
        scores, tell_scores, n = np.zeros(len(valid), np.float32), tell("scores"), len(valid)
        count = None if tell_scores is None else lambda done: tell_scores(min(done, n), n)
        score_corpus(batches(sequences()), lambda batch: {"": score(batch)}, {"": scores}, device=device, report=count)
        pooled = pool_blocks(scores, corpus.token_ids, lambda a, b: valid[a:b], pooling)
        return np.concatenate([*pooled]) if pooling else scores

    parts, device = [], device_of(model)
    with _only_read(model):
        if kind != "probe":
            split, modules, narrow = SplitModel.of(model), tracked_modules(model), has_fast_bfloat16(device)
            exact = accumulation_dtype(model) == torch.float64
            fitting = functools.partial(batches, sequences(factor_tokens))
            products = torch.bfloat16 if narrow and not exact else None
            factors = fit_factors(split, modules, fitting, seed=seed, products=products, report=tell("factors"))
            gradient = functools.partial(query_gradient, tokens_per_batch=tokens_per_batch, report=tell("queries"))
            toxic_side, safe_side = (gradient(split, modules, encoded) for encoded in queries)
            direction = differential_direction(toxic_side, safe_side, factors, damping)
            del factors, toxic_side, safe_side
            sample = [batch.to(device) for batch in batches(sequences(SAMPLE_TOKENS))]
            with attention(model, "eager"):  # the one with an exact derivative, by which the ways are judged
                way = choose_derivative(split, modules, direction, sample, narrow=narrow)
            with attention(model, "eager" if way.method == "jvp" else ""):
                along = way.scorer(split, modules, direction)
                parts.append(run(lambda batch: along(batch)[0]))
        if kind != "own_loss":
            probe = fit_probe(model, *queries, tokens_per_batch=tokens_per_batch)
            parts.append(run(lambda batch: probe.score(hidden_states(model, batch), batch)))
    scores = np.concatenate([*average_blocks(parts, lambda a, b: valid[a:b])])
    return replace(corpus, scores=scores, kind=kind)


def _lay_out(texts: Sequence[str], tokenizer) -> ScoredTexts:
    """The texts' tokens end to end, with scores of 0."""
    tokens = tokenize(tokenizer, list(texts))
    offsets = np.cumsum([0, *(len(text.token_ids) for text in tokens)], dtype=np.int64)
    if not (np.diff(offsets) > 1).any():
        raise ConfigError("expected a text of at least two tokens, got none; there is nothing to score")
    ids, ends = (np.concatenate([getattr(text, name) for text in tokens]) for name in ("token_ids", "char_end"))
    scores = np.zeros(len(ids), np.float32)
    return ScoredTexts(texts=tuple(texts), token_ids=ids, char_end=ends, offsets=offsets, scores=scores)


def _sequences(corpus: ScoredTexts, longest: int, bos: int | None, seed: int, most: int = 0) -> CorpusSequences:
    """The texts in chunks; with `most`, of those drawn at random up to about that many tokens."""
    chunks = chunk_documents(corpus.offsets, longest - (bos is not None))
    if most and most < len(corpus.token_ids):
        chunks = chunks[np.isin(chunks[:, 0], draw_documents(corpus.offsets, most, seed))]
    return CorpusSequences(corpus.token_ids, corpus.offsets, chunks, bos)


@contextlib.contextmanager
def _only_read(model) -> Iterator[None]:
    """The model in evaluation mode without gradients of its weights, and as it was afterwards."""
    training, trainable = model.training, [weight for weight in model.parameters() if weight.requires_grad]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        model.train(training)
        for weight in trainable:
            weight.requires_grad_(True)

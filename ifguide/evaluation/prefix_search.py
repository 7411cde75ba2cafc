"""A prefix of a few tokens that makes given completions likely: greedy coordinate search guided by gradients.

A small version of Zou et al. 2023 (arXiv 2307.15043): one prefix for all queries, in front of every prompt. P prefix
tokens, V vocabulary, H width, C candidates, Q queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ifguide.data.tokenizing import Encoded
from ifguide.errors import InputError
from ifguide.evaluation import Report
from ifguide.evaluation.mechanism_settings import PrefixSettings
from ifguide.evaluation.query_batches import (
    log_probabilities,
    mean_by_row,
    query_batches,
    read_logits,
    take_predictions,
)
from ifguide.influence.batches import Batch


@dataclass(frozen=True, kw_only=True)
class FoundPrefix:
    """What a search found."""

    token_ids: tuple[int, ...]
    """The prefix."""
    start: float
    """Objective of the first prefix, see `prefix_objective`."""
    best: float
    """Objective of the prefix found; never below `start`."""
    path: tuple[float, ...]
    """Objective after each round; it never falls."""


def start_prefix(allowed: Sequence[int], settings: PrefixSettings) -> list[int]:
    """The first prefix: tokens drawn by the seed, the same for all models of one tokenizer."""
    return np.random.default_rng(settings.seed).choice(np.asarray(allowed), settings.n_tokens).tolist()


def find_prefix(
    model, encoded: Encoded, allowed: Sequence[int], settings: PrefixSettings, *, lead=0, report: Report | None = None
) -> FoundPrefix:
    """Search for the prefix of `allowed` token ids that makes the completions of the `encoded` queries (see
    `ifguide.data.queries.encode_queries`; with room for it) most likely. It follows the `lead` tokens at the beginning
    of every query (a beginning-of-text token). An InputError: no query, or no token allowed.

    In each round the gradient of the objective with respect to the prefix's one-hot tokens proposes changes of one
    token. A sample of them is tried with forward passes; the best is kept if it improves the objective.
    """
    if not encoded or not len(allowed):
        raise InputError(f"prefix search: expected queries and allowed tokens, got {len(encoded)} and {len(allowed)}")
    model.eval()
    allowed_ids = torch.as_tensor(np.asarray(allowed), dtype=torch.long, device=model.device)
    generator = np.random.default_rng([settings.seed, 1])
    prefix = start_prefix(allowed, settings)
    objective = partial(prefix_objective, model, encoded, lead=lead, batch_size=settings.batch_size)
    best = start = objective(prefix)
    path = []
    for step in range(settings.steps):
        gain = _token_gains(model, encoded, prefix, lead, settings.batch_size)[:, allowed_ids]  # (P, allowed)
        top = allowed_ids[gain.topk(min(settings.top_k, gain.shape[1]), dim=1).indices].tolist()
        tried = set()
        for _ in range(settings.candidates):
            place = int(generator.integers(settings.n_tokens))
            token = top[place][int(generator.integers(len(top[place])))]
            if token != prefix[place]:
                tried.add((place, token))
        changed = [[*prefix[:place], token, *prefix[place + 1 :]] for place, token in sorted(tried)]
        values = [objective(candidate) for candidate in changed]
        if values and max(values) > best:
            best = max(values)
            prefix = changed[values.index(best)]
        path.append(best)
        if report:
            report(step + 1, settings.steps)
    return FoundPrefix(token_ids=tuple(prefix), start=start, best=best, path=tuple(path))


@torch.inference_mode()
def prefix_objective(model, encoded: Encoded, prefix: Sequence[int], *, lead: int = 0, batch_size: int = 64) -> float:
    """Mean over queries of the mean log-probability (nats) of the completion's tokens, with the prefix (which may be
    empty) before the prompt; `encoded` and `lead` as for `find_prefix`."""
    total = 0.0
    for batch in query_batches(_put_before(encoded, prefix, lead), batch_size, model.device):
        total += float(_row_means(read_logits(model, batch), batch).sum())
    return total / len(encoded)


def _row_means(logits: Tensor, batch: Batch) -> Tensor:
    return mean_by_row(log_probabilities(take_predictions(logits, batch), batch), batch)


def _put_before(encoded: Encoded, prefix: Sequence[int], lead: int) -> Encoded:
    new = np.asarray(prefix, dtype=np.int64)
    none = np.zeros(len(new), dtype=bool)
    return [
        (np.concatenate([ids[:lead], new, ids[lead:]]), np.concatenate([mask[:lead], none, mask[lead:]]))
        for ids, mask in encoded
    ]


def _token_gains(model, encoded, prefix: Sequence[int], lead: int, batch_size: int) -> Tensor:
    """(P, V): how much the objective grows, to first order, when a place's token is replaced by each token."""
    weight = model.get_input_embeddings().weight.detach()  # (V, H)
    gradient = torch.zeros(len(prefix), weight.shape[1], dtype=torch.float64, device=model.device)
    for batch in query_batches(_put_before(encoded, prefix, lead), batch_size, model.device):
        embedded = model.get_input_embeddings()(batch.input_ids).detach().requires_grad_(True)
        with torch.enable_grad():
            logits = model(inputs_embeds=embedded, attention_mask=batch.attention_mask, use_cache=False).logits
            (slope,) = torch.autograd.grad(_row_means(logits, batch).sum(), embedded)
        gradient += slope[:, lead : lead + len(prefix)].sum(0)
    return (gradient.to(weight) @ weight.T) / len(encoded)

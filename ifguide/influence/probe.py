"""A linear probe beside influence: how much a token's hidden state looks like a toxic completion's. No gradient, no
curvature.

The direction of a layer is the difference between the mean hidden state of toxic and of safe completions, in units of
each feature's standard deviation. A query counts as the mean over its completion tokens. A corpus token's score is
the dot product of its own state, read after the token itself, with that direction; it is positive on the toxic side
of the middle between the two means.

Which layer is read is decided on the queries alone: cross-validation over whole prompts, so that the toxic and the
safe completion of one prompt are never on both sides. Source: difference-of-means probes (Marks and Tegmark 2023,
arXiv 2310.06824), used to find harmful training data in arXiv 2602.14869 and 2602.11079.

Shape letters as in `ifguide.influence`; L hidden states (the embedding's, and one after each layer) of width H, Q
queries.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ifguide.data.tokenizing import Encoded
from ifguide.errors import ConfigError, NumericalError
from ifguide.influence.batches import Batch, make_batches, query_sequences
from ifguide.models.layers import device_of

N_FOLDS = 5


@dataclass(frozen=True)
class Probe:
    """A direction in one layer's hidden states."""

    layer: int
    """Which hidden state is read: 0 is the embedding's, l the output of layer l."""
    direction: np.ndarray
    """float32 (H,), for states as the model gives them."""
    offset: float
    """Subtracted from every score: the middle between the toxic and the safe mean scores 0."""
    auc: tuple[float, ...] = ()
    """Cross-validated AUC of each of the L hidden states over the queries."""

    def score(self, states: "Sequence[torch.Tensor] | Mapping[int, torch.Tensor]", batch: Batch) -> torch.Tensor:
        """float32 (B, T-1), as `batch.targets`: the score of each predicted token, from the batch's `hidden_states`; 0
        where nothing counts."""
        own = states[self.layer][:, 1:].float()
        scores = own @ torch.from_numpy(self.direction).to(own.device) - self.offset
        return scores.to(batch.target_index.device).masked_fill(batch.target_index < 0, 0.0)


def hidden_states(model: Any, batch: Batch) -> tuple[torch.Tensor, ...]:
    """The L hidden states (B, T, H) of a batch under a transformers model; its output embedding is not applied."""
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    with torch.inference_mode():
        return model.base_model(**inputs, output_hidden_states=True, use_cache=False).hidden_states


@contextlib.contextmanager
def read_states(model: Any, layers: Iterable[int]) -> Iterator[dict[int, torch.Tensor]]:
    """Inside the block passes of others through the model are listened to. After it the dict has the state (B, T, H) of
    each layer, the mean over the passes: for two passes at θ+εv and θ-εv that is the state at θ but for a term in ε².
    A pass may hold the batch several times, one after the other. A ConfigError: the model's blocks are not a list."""
    n_blocks, base = model.config.get_text_config().num_hidden_layers, model.base_model
    lists = (part for part in base.modules() if isinstance(part, nn.ModuleList) and len(part) == n_blocks)
    blocks = next(lists, None)
    if blocks is None:
        raise ConfigError("this model's blocks are not a list, so its states are read in a pass of their own")
    passes: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
    states: dict[int, torch.Tensor] = {}

    def before(layer: int):
        return lambda block, args, named: passes[layer].append(args[0] if args else named["hidden_states"])

    with contextlib.ExitStack() as hooks:
        for layer in passes:
            if layer < n_blocks:
                hook = blocks[layer].register_forward_pre_hook(before(layer), with_kwargs=True)
            else:
                hook = base.register_forward_hook(lambda base, args, output: passes[n_blocks].append(output[0]))
            hooks.callback(hook.remove)
        yield states
    fewest = min(len(state) for seen in passes.values() for state in seen)
    for layer, seen in passes.items():
        states[layer] = torch.cat(seen).unflatten(0, (-1, fewest)).mean(0)


def fit_probe(
    model: nn.Module, toxic: Encoded, safe: Encoded, *, method="mean-difference", tokens_per_batch=4096, seed=0
) -> Probe:
    """Fit a direction on each layer's states under a causal language model, and keep the layer that tells held-out
    queries apart best. `method` is `mean-difference`, or `logistic` (an L2-penalised logistic regression on
    standardised states); a forward pass has `tokens_per_batch` padded tokens, and the seed is of the folds. A
    ConfigError: no queries, or one without a completion token; a NumericalError: a hidden state is not finite."""
    from sklearn.metrics import roc_auc_score

    queries = [*toxic, *safe]
    labels = np.repeat([True, False], [len(toxic), len(safe)])
    if not len(toxic) or not len(safe):
        raise ConfigError("a probe needs at least one toxic and one safe query, got none in one of the sets")
    folds = prompt_folds(queries, seed)
    means = completion_means(model, queries, tokens_per_batch)
    scores = np.zeros(means.shape[:2])
    for fold in range(folds.max() + 1):
        held_out = folds == fold
        if len(np.unique(labels[~held_out])) == 2:
            for layer in range(means.shape[1]):
                direction, offset = fit_direction(means[~held_out, layer], labels[~held_out], method)
                scores[held_out, layer] = means[held_out, layer] @ direction - offset
    auc = tuple(float(roc_auc_score(labels, scores[:, layer])) for layer in range(means.shape[1]))
    layer = int(np.argmax(auc)) if scores.any() else means.shape[1] // 2  # too few queries to choose by
    return Probe(layer, *fit_direction(means[:, layer], labels, method), auc)


def fit_direction(states: np.ndarray, labels: np.ndarray, method: str = "mean-difference") -> tuple[np.ndarray, float]:
    """(direction float32 (H,), offset) that tells states (Q, H) with the label True from those with False."""
    spread = states.std(axis=0)
    spread = np.where(spread > 0, spread, np.inf)  # a feature that never changes tells nothing
    if method == "logistic":
        from sklearn.linear_model import LogisticRegression

        centre = states.mean(axis=0)
        fitted = LogisticRegression(C=0.1, max_iter=1000).fit((states - centre) / spread, labels)
        direction = fitted.coef_[0] / spread
        return direction.astype(np.float32), float(centre @ direction - fitted.intercept_[0])
    toxic, safe = states[labels].mean(axis=0), states[~labels].mean(axis=0)
    direction = (toxic - safe) / spread**2
    return direction.astype(np.float32), float((toxic + safe) @ direction / 2)


def completion_means(model: nn.Module, queries: Encoded, tokens_per_batch: int = 4096) -> np.ndarray:
    """float32 (Q, L, H): the mean hidden state over each query's completion tokens."""
    sequences = query_sequences(queries)
    by_number: dict[int, np.ndarray] = {}
    for batch in make_batches(sequences, tokens_per_batch):
        batch = batch.to(device_of(model))
        inside = (batch.target_index >= 0).double()
        weights = inside / inside.sum(dim=1, keepdim=True)
        states = hidden_states(model, batch)
        means = torch.stack([torch.einsum("bth,bt->bh", state[:, 1:].double(), weights) for state in states], dim=1)
        if not torch.isfinite(means).all():
            raise NumericalError("a hidden state is not finite; run the model in float32 (model.dtype)")
        by_number |= dict(zip(batch.sequence.tolist(), means.float().cpu().numpy(), strict=True))
    return np.stack([by_number[number] for number in range(len(sequences))])


def prompt_folds(queries: Encoded, seed: int = 0) -> np.ndarray:
    """int (Q,): a fold from 0 for each query; those with the same prompt tokens share one, unless all have the same."""
    prompts: list = [tuple(np.asarray(ids)[: int(np.argmax(mask))].tolist()) for ids, mask in queries]
    if len(set(prompts)) == 1:
        prompts = list(range(len(queries)))
    number = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    folds = np.random.default_rng(seed).permutation(len(number)) % N_FOLDS
    return np.array([folds[number[prompt]] for prompt in prompts])

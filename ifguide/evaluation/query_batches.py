"""Encoded (prompt, completion) pairs as padded batches for one forward pass each, and what a model says of their
completions. B rows, T tokens; n tokens of completions in a batch, row by row."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ifguide.data.tokenizing import Encoded
from ifguide.influence.batches import Batch, pad_batch, query_sequences


def query_batches(encoded: Encoded, batch_size: int, device="cpu") -> Iterator[Batch]:
    """Batches of `batch_size` pairs, as `ifguide.data.queries.encode_queries` gives them; pairs of similar length share
    a batch. What counts in a batch is the completions."""
    sequences = query_sequences(encoded)
    order = np.argsort([-len(ids) for ids, _ in encoded], kind="stable")
    for first in range(0, len(order), batch_size):
        numbers = order[first : first + batch_size]
        yield pad_batch([sequences[number] for number in numbers], numbers).to(device)


def read_logits(model, batch: Batch) -> Tensor:
    """Logits (B, T, V) of a model."""
    return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits


def take_predictions(values: Tensor, batch: Batch) -> Tensor:
    """Of values (B, T, ...), those at the positions that predict a completion, (n, ...)."""
    return values[:, :-1][batch.counted]


def log_probabilities(logits: Tensor, batch: Batch) -> Tensor:
    """(n,) float64, nats: of each completion's tokens under logits (n, V) from `take_predictions`."""
    ids = batch.targets[batch.counted]
    return logits.double().log_softmax(-1).gather(-1, ids[:, None])[:, 0]


def mean_by_row(values: Tensor, batch: Batch) -> Tensor:
    """(B, ...) float64 on the CPU: the mean of each row's values (n, ...)."""
    values, counts = values.double().cpu(), batch.counted.sum(1).cpu()
    owners = torch.repeat_interleave(torch.arange(len(counts)), counts)
    sums = torch.zeros(len(counts), *values.shape[1:], dtype=torch.float64).index_add_(0, owners, values)
    return sums / counts.clamp(min=1).reshape(-1, *[1] * (values.ndim - 1))

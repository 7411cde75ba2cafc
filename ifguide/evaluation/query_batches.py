"""Encoded (prompt, completion) pairs as padded batches for one forward pass each. B rows, T tokens."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ifguide.data.packing import pad_rows
from ifguide.data.tokenizing import Encoded


@dataclass(frozen=True)
class QueryBatch:
    """Some pairs, longest first, padded on the right."""

    numbers: list[int]
    """Which pairs the rows are."""
    ids: Tensor
    """(B, T) int64."""
    attention: Tensor
    """(B, T) int64, 0 on padding."""
    targets: Tensor
    """(B, T) bool: tokens of the completion."""

    @property
    def owners(self) -> Tensor:
        """(n,) int64 on the CPU: the row of each target, rows one after the other."""
        return self.targets.nonzero()[:, 0].cpu()

    def read(self, model) -> Tensor:
        """Logits (B, T, V) of a model."""
        return model(input_ids=self.ids, attention_mask=self.attention, use_cache=False).logits

    def take_predictions(self, values: Tensor) -> Tensor:
        """Of values (B, T, ...), those at the positions that predict the targets, (n, ...)."""
        return values[:, :-1][self.targets[:, 1:]]

    @property
    def target_ids(self) -> Tensor:
        """(n,) the targets' ids, in the order of `take_predictions`."""
        return self.ids[self.targets]


def query_batches(encoded: Encoded, batch_size: int, device="cpu") -> Iterator[QueryBatch]:
    """Batches of what `ifguide.data.queries.encode_queries` gives: ids int64 (T,) and completion mask bool (T,) of each
    pair; a mask's first value is False. Pairs of similar length share a batch."""
    order = sorted(range(len(encoded)), key=lambda i: (-len(encoded[i][0]), i))
    for first in range(0, len(order), batch_size):
        numbers = order[first : first + batch_size]
        tokens, masks = zip(*(encoded[number] for number in numbers), strict=True)
        ids = torch.from_numpy(pad_rows(tokens, 0))
        attention = torch.from_numpy(pad_rows([np.ones(len(row)) for row in tokens], 0))
        targets = torch.from_numpy(pad_rows(masks, False, bool))
        yield QueryBatch(numbers, ids.to(device), attention.to(device), targets.to(device))


def log_probabilities(logits: Tensor, ids: Tensor) -> Tensor:
    """(n,) float64, nats: of the tokens `ids` (n,) under logits (n, V)."""
    return logits.double().log_softmax(-1).gather(-1, ids[:, None])[:, 0]


def mean_by_owner(values: Tensor, owners: Tensor, n_rows: int) -> Tensor:
    """(B, ...) float64: mean of each row's values (n, ...)."""
    values = values.double().cpu()
    sums = torch.zeros(n_rows, *values.shape[1:], dtype=torch.float64).index_add_(0, owners, values)
    counts = torch.bincount(owners, minlength=n_rows).clamp(min=1)
    return sums / counts.reshape(-1, *[1] * (values.ndim - 1))

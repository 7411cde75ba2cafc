"""Sequences of different length -> padded batches of about the same size, and what each position predicts."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ifguide.data.packing import pad_rows
from ifguide.data.stretches import inside
from ifguide.data.tokenizing import Encoded
from ifguide.errors import ConfigError


@dataclass(frozen=True)
class Batch:
    """Right-padded sequences."""

    input_ids: torch.Tensor
    """int64 (B, T)."""
    attention_mask: torch.Tensor
    """int64 (B, T), 1 on real tokens."""
    targets: torch.Tensor
    """int64 (B, T-1): the token that position t must predict, -100 where nothing counts."""
    target_index: torch.Tensor
    """int64 (B, T-1): place of the predicted token in the corpus (or any caller's array), -1 where nothing counts."""
    sequence: torch.Tensor
    """int64 (B,): number of each sequence in the caller's order."""

    def to(self, device) -> "Batch":
        """The same batch on a device."""
        return Batch(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})

    @property
    def counted(self) -> torch.Tensor:
        """bool (B, T-1): the next token's prediction counts."""
        return self.targets != -100

    @property
    def n_tokens(self) -> int:
        """Real tokens, padding left out."""
        return int(self.attention_mask.sum())


@dataclass(frozen=True)
class Sequence:
    """One sequence to run: its tokens, and for each where its score goes (-1: it is context only)."""

    token_ids: np.ndarray
    """int (T,)."""
    index: np.ndarray
    """int64 (T,), the first entry is never used: nothing predicts it."""


class CorpusSequences:
    """The corpus's chunks as a lazy list of sequences whose index is the token's place; the corpus stays on disk.

    Args:
        offsets: int64 (D+1,), only to know first tokens.
        chunks: int64 (C, 3) rows (document, start, stop) overlapping by one token.
        bos: context put before a document's first chunk; it predicts the first token, which has no score.
        trained: int64 (2R,), edges of the tokens that have scores (see `ifguide.data.stretches`); None: all.
    """

    def __init__(self, token_ids, offsets, chunks: np.ndarray, bos: int | None = None, trained=None):
        self._token_ids, self._offsets, self._chunks = token_ids, offsets, chunks
        self._bos, self._trained = bos, trained

    def __len__(self) -> int:
        return len(self._chunks)

    def lengths(self) -> np.ndarray:
        """int64 (C,), tokens in each sequence."""
        document, start, stop = self._chunks.T
        return stop - start + (start == self._offsets[document] if self._bos is not None else 0)

    def __getitem__(self, number: int) -> Sequence:
        document, start, stop = (int(x) for x in self._chunks[number])
        ids = np.asarray(self._token_ids[start:stop], dtype=np.int64)
        index = np.arange(start, stop)
        if self._trained is not None:
            index[~inside(self._trained, start, stop)] = -1
        if self._bos is not None and start == self._offsets[document]:
            ids, index = np.concatenate([[self._bos], ids]), np.concatenate([[-1], index])
            index[1] = -1
        return Sequence(ids, index)


def query_sequences(queries: Encoded) -> list[Sequence]:
    """Queries, pairs of token ids (T,) and completion mask bool (T,), as sequences in which only the completion counts.
    A ConfigError: a query without a completion token."""
    sequences = [Sequence(np.asarray(ids), np.where(mask, np.arange(len(ids)), -1)) for ids, mask in queries]
    for number, sequence in enumerate(sequences):
        if not (sequence.index[1:] >= 0).any():
            raise ConfigError(f"query {number} has no completion token after its prompt")
    return sequences


def make_batches(sequences, tokens_per_batch: int, *, share: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
    """Batch sequences by length, so that little is padded.

    Sequences of fewer than two tokens predict nothing and are left out. The order depends on the batch size: callers
    put results in place through `target_index` and `sequence`.

    Args:
        sequences: a list of `Sequence`, or anything with `len`, `[]` and optionally `lengths()`.
        tokens_per_batch: padded tokens; a longer sequence makes a batch of its own.
        share: (r, n) gives batches r, r + n, r + 2n, …: process r's share of n, while the batches stay the same.
    """
    counted = hasattr(sequences, "lengths")
    lengths = sequences.lengths() if counted else np.array([len(s.token_ids) for s in sequences], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] >= 2]
    start = number = 0
    while start < len(order):
        width = int(lengths[order[start]])
        stop = start + max(1, tokens_per_batch // width)
        if number % share[1] == share[0]:
            yield pad_batch([sequences[int(i)] for i in order[start:stop]], order[start:stop])
        start, number = stop, number + 1


def pad_batch(sequences: list[Sequence], numbers: np.ndarray) -> Batch:
    """One batch of these sequences, whose `numbers` int64 (B,) the batch remembers."""
    ids = pad_rows([sequence.token_ids for sequence in sequences], 0)
    mask = pad_rows([np.ones(len(sequence.token_ids)) for sequence in sequences], 0)
    index = pad_rows([sequence.index for sequence in sequences], -1)
    targets = np.where(index[:, 1:] >= 0, ids[:, 1:], -100)
    arrays = (ids, mask, targets, index[:, 1:], numbers)
    return Batch(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))

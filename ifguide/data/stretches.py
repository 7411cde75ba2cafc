"""Stretches: the places of a line that count, as their edges, int64 (2R,): where each begins and ends, ascending.

A corpus has them where only some tokens are trained on, such as the assistant's turns of a chat. Each is then inside
one document, without the document's first token, which nothing predicts. Where documents were run together, every token
of a chunk counts. None means all of every document.
"""

import numpy as np


def find_edges(flags: np.ndarray) -> np.ndarray:
    """The edges of the stretches of True in bool (n,)."""
    return np.flatnonzero(np.diff(flags, prepend=False, append=False))


def inside(edges: np.ndarray, start: int, stop: int) -> np.ndarray:
    """bool (stop-start,): which places of [start, stop) are in a stretch."""
    first, last = np.searchsorted(edges, (start, stop - 1), side="right")
    turns = np.bincount(edges[first:last] - start, minlength=stop - start) % 2 == 1  # where two meet nothing changes
    return np.logical_xor.accumulate(turns) ^ bool(first % 2)


def overlap(edges: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """bool (n,): which of the ranges [start, stop) share a place with a stretch."""
    return np.searchsorted(edges[::2], stops) > np.searchsorted(edges[1::2], starts, side="right")


def count_valid(offsets: np.ndarray, trained: np.ndarray | None) -> np.ndarray:
    """int64 (D,): tokens of each document, at `offsets`, that have a score."""
    if trained is None:
        return np.maximum(np.diff(offsets) - 1, 0)
    owner = np.searchsorted(offsets, trained[::2], side="right") - 1
    return np.bincount(owner, trained[1::2] - trained[::2], len(offsets) - 1).astype(np.int64)

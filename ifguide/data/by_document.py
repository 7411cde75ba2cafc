"""Per-token values by document: runs of whole documents, and sums over each document."""

from collections.abc import Iterator

import numpy as np

from ifguide.storage.memory_maps import release_pages

TOKENS_AT_ONCE = 8_000_000
"""Length of a run, so that memory stays flat."""


def document_runs(offsets: np.ndarray, tokens: int = 0) -> Iterator[tuple[int, int]]:
    """Split the documents into runs [first, stop) of at most `tokens` (or `TOKENS_AT_ONCE`) tokens; a longer document
    is a run by itself."""
    tokens = tokens or TOKENS_AT_ONCE
    first, n_documents = 0, len(offsets) - 1
    while first < n_documents:
        stop = int(np.searchsorted(offsets, offsets[first] + tokens, side="right")) - 1
        stop = min(max(stop, first + 1), n_documents)
        yield first, stop
        first = stop


def token_parts(n_tokens: int, *arrays: np.ndarray) -> Iterator[slice]:
    """Slices of at most `TOKENS_AT_ONCE` tokens, whole documents or not; when the next one is asked for, the pages of
    memory-mapped `arrays` (N,) are released."""
    for start in range(0, n_tokens, TOKENS_AT_ONCE):
        part = slice(start, min(start + TOKENS_AT_ONCE, n_tokens))
        yield part
        for array in arrays:
            release_pages(array, part.start, part.stop)


def draw_documents(offsets: np.ndarray, max_tokens: int, seed: int) -> np.ndarray:
    """Documents drawn at random without replacement, up to about `max_tokens` tokens, at least one: int64 (n,)."""
    order = np.random.default_rng(seed).permutation(len(offsets) - 1)
    running = np.cumsum(np.diff(offsets)[order])
    return order[: max(1, int(np.searchsorted(running, max_tokens)))]


def sample_valid(scores: np.ndarray, offsets: np.ndarray, trained=None, most: int = 20_000_000) -> np.ndarray:
    """The valid tokens' scores, float32: without the documents' first tokens, which have none, and those not `trained`
    on (edges, see `ifguide.data.stretches`). In a corpus of more than `most` tokens every k-th token is taken, about
    `most` of them."""
    step = max(1, len(scores) // most)
    values = np.asarray(scores[::step], dtype=np.float32)
    first = offsets[:-1][offsets[:-1] < len(scores)]
    keep = np.ones(len(values), dtype=bool)
    keep[first[first % step == 0] // step] = False
    if trained is not None:
        keep = np.searchsorted(trained, np.arange(0, len(scores), step), side="right") % 2 == 1
    return values[keep]


def sum_by_document(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Sum of each document's values, run by run so that `values`, bool or float (N,), may be memory-mapped: (D,), int64
    counts for bool values, float64 sums otherwise; 0 for an empty document."""
    kind = np.int64 if values.dtype == bool else np.float64
    total = np.zeros(len(offsets) - 1, dtype=kind)
    for first, stop in document_runs(offsets):
        part = np.asarray(values[offsets[first] : offsets[stop]])
        filled = np.flatnonzero(np.diff(offsets[first : stop + 1]))  # `reduceat` cannot sum an empty slice
        if filled.size:
            total[first + filled] = np.add.reduceat(part, offsets[first + filled] - offsets[first], dtype=kind)
        release_pages(values, int(offsets[first]), int(offsets[stop]))
    return total

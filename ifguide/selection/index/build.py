"""Builds the score index by streaming over memory maps: the tail, its order, and counts at every knot.

Shapes: D documents, N tokens, V valid tokens (all but each document's first), T tokens in the tail (valid, strictly
above the 90th percentile), S sources, R ranks, W = MAX_WINDOW. Tokens are read in chunks of whole documents, so no
window crosses a chunk, and the result does not depend on where chunks end. Threads process the chunks: NumPy releases
the interpreter lock while it computes.
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np

from ifguide.data.corpus import TokenizedCorpus
from ifguide.selection.algorithm import rank_at_quantile
from ifguide.selection.index.chunks import CHUNK_TOKENS, Chunks, pairs, sort_key, value_of_key
from ifguide.selection.index.counts import KnotCounter
from ifguide.storage.artifacts import ArrayWriter

INDEX_VERSION = 2
"""Of the index's files; a change makes older ones stale."""
TAIL_QUANTILE = 0.9
SHARD_TOKENS = 1 << 23
"""Tail tokens sorted at once, approximately."""
N_KNOTS = 1000
N_STEPS = 8192
"""Evenly spaced ranks, besides the knots, with stored counts; tokens between two of them are counted on release."""


def build_index(
    folder: Path,
    scores: np.ndarray,
    corpus: TokenizedCorpus,
    pieces: Sequence[str],
    *,
    chunk_tokens: int = CHUNK_TOKENS,
    threads: int = 2,
    report: Callable[[int, int], None] | None = None,
) -> None:
    """Write the index of one kind of scores, float32 (N,), which may be memory-mapped, of the corpus's tokens into an
    existing, empty folder. `pieces` are the texts of the vocabulary's entries, to name the words that a threshold
    selects; about `chunk_tokens` tokens are read at once, which changes no result. `report` is called with (tokens
    done, tokens in all); every token is read four times. A NumericalError: no valid score, or one that is not
    finite."""
    n_tokens = corpus.n_tokens
    chunks = Chunks(scores, corpus.offsets, corpus.trained, chunk_tokens=chunk_tokens, threads=threads)
    tell = lambda turn: (lambda done: report(turn * n_tokens + done, 4 * n_tokens)) if report else None  # noqa: E731
    histogram = chunks.histogram(tell(0))
    n_valid = int(histogram.sum())
    floor, n_tail = chunks.value_at(n_valid - 1 - rank_at_quantile(n_valid, TAIL_QUANTILE), histogram, tell(1))
    tail_offsets = _extract_tail(folder, chunks, floor, tell(2))
    tail_scores = np.load(folder / "tail_scores.npy", mmap_mode="r")
    order = _sort_tail(folder, tail_scores, histogram, threads)
    knot_ranks = np.minimum(np.geomspace(1, max(1, n_tail), N_KNOTS).astype(np.int64), n_tail - 1)
    # a knot is how many tokens score strictly higher than the one at its rank
    knots = (
        np.unique(count_above(tail_scores, order, tail_scores[order[knot_ranks]])) if n_tail else np.zeros(0, np.int64)
    )
    steps = np.linspace(0, n_tail, min(N_STEPS, n_tail) + 1).astype(np.int64)
    ranks = np.unique(np.concatenate([[0, n_tail], knots, steps]))
    counter = KnotCounter(chunks, corpus, pieces, ranks)
    tail_positions = np.load(folder / "tail_positions.npy", mmap_mode="r")
    levels = np.empty(n_tail, dtype=np.uint16)  # between which two of the ranks each tail token is
    for level, (start, stop) in enumerate(pairs(ranks)):
        levels[order[start:stop]] = level
    counter.count(tail_offsets, tail_scores, tail_positions, levels, tell(3))
    counter.write(folder)
    np.save(folder / "histogram.npy", histogram)
    np.save(folder / "tail_offsets.npy", tail_offsets)
    np.save(folder / "knots.npy", np.unique(np.append(knots, n_tail)))
    about = {
        "version": INDEX_VERSION,
        "n_tokens": n_tokens,
        "n_documents": corpus.n_documents,
        "n_valid": n_valid,
        "n_tail": n_tail,
        "floor": floor,
        "n_span": counter.n_span,
        "sources": counter.sources,
    }
    (folder / "index.json").write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")


def _extract_tail(folder: Path, chunks: Chunks, floor: float, report) -> np.ndarray:
    """Write the tail's scores and places in corpus order; returns each document's offsets in it, int64 (D+1,)."""
    place_type = np.uint32 if chunks.offsets[-1] < 1 << 32 else np.int64

    def extract(first: int, stop: int):
        values = chunks.values(first, stop)
        places = np.flatnonzero(values > np.float32(floor))
        own = chunks.offsets[first : stop + 1]
        return values[places], (places + own[0]).astype(place_type), np.searchsorted(places, own[1:] - own[0])

    ends, done = [np.zeros(1, dtype=np.int64)], 0
    with (
        closing(ArrayWriter(folder / "tail_scores.npy", np.float32)) as to_scores,
        closing(ArrayWriter(folder / "tail_positions.npy", place_type)) as to_places,
    ):
        for values, places, own_ends in chunks.map(extract, report):
            to_scores.append(values)
            to_places.append(places)
            ends.append(own_ends + done)
            done += len(values)
    return np.concatenate(ends)


def _sort_tail(folder: Path, scores: np.ndarray, histogram: np.ndarray, threads: int) -> np.ndarray:
    """Write the tail's order, shard by shard: indexes into the tail, highest score first, ties in corpus order; returns
    it memory-mapped."""
    index_type = np.uint32 if len(scores) < 1 << 32 else np.int64
    from_top = np.cumsum(histogram[::-1])
    last = int(np.searchsorted(from_top, len(scores)))  # bins counted from the top that reach the whole tail
    cuts = np.flatnonzero(np.diff(from_top[: last + 1] // SHARD_TOKENS)) + 1
    edges = [value_of_key((0xFFFF - int(cut) + 1) << 16) for cut in cuts]
    lows, highs = [*edges, -np.inf], [np.inf, *edges]

    def sort_shard(low: float, high: float) -> np.ndarray:
        keys = [np.zeros(0, dtype=np.uint64)]
        for start in range(0, len(scores), CHUNK_TOKENS):
            values = np.asarray(scores[start : start + CHUNK_TOKENS])
            inside = np.flatnonzero((values >= np.float32(low)) & (values < np.float32(high)))
            descending = (~sort_key(values[inside])).astype(np.uint64) << np.uint64(32)
            keys.append(descending | (inside + start).astype(np.uint64))
        return (np.sort(np.concatenate(keys)) & np.uint64(0xFFFFFFFF)).astype(index_type)

    with closing(ArrayWriter(folder / "tail_order.npy", index_type)) as order, ThreadPoolExecutor(threads) as pool:
        for shard in pool.map(sort_shard, lows, highs):
            order.append(shard)
    return np.load(folder / "tail_order.npy", mmap_mode="r")


def count_above(scores: np.ndarray, order: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many tail tokens score strictly higher than each threshold, by bisection; int64, the shape of `thresholds`.
    `scores` are float32 (T,), the tail in corpus order, `order` int (T,) its indexes, highest score first."""
    thresholds = np.asarray(thresholds, dtype=np.float64)
    low, high = np.zeros(thresholds.shape, dtype=np.int64), np.full(thresholds.shape, len(order), dtype=np.int64)
    while (low < high).any():
        middle = (low + high) // 2
        above = scores[order[np.minimum(middle, len(order) - 1)]] > thresholds
        open_ = low < high
        low = np.where(open_ & above, middle + 1, low)
        high = np.where(open_ & ~above, middle, high)
    return low

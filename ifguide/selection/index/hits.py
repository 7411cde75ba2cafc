"""The hits of one threshold, read document by document: from the sorted tail, from the tail, or from all scores.

Shapes: D documents, N tokens, T tail tokens. A hit is a valid token strictly above the threshold.
"""

from dataclasses import dataclass

import numpy as np

from ifguide.selection.coverage import count_covered, cover_hits
from ifguide.selection.index.chunks import Chunks, pairs
from ifguide.storage.memory_maps import release_pages
from ifguide.storage.shards import plan_shards

FEW_HITS = 1 << 20
"""Up to this many hits are looked up one by one in the sorted tail; for more, the tail is read in corpus order."""
CHUNK_TAIL = 1 << 18
"""Tail tokens read at once, approximately."""
CHUNK_SPAN = 1 << 25
"""Maximum number of tokens in the documents of one range, approximately."""
CHUNK_HITS = 1 << 16
"""Hits looked up at once, approximately."""


@dataclass(frozen=True, eq=False)
class Tail:
    """The valid tokens above the 90th percentile, memory-mapped."""

    floor: float
    """The 90th percentile: tail tokens score strictly higher."""
    offsets: np.ndarray
    """int64 (D+1,): document d owns tail tokens [offsets[d], offsets[d+1])."""
    scores: np.ndarray
    """float32 (T,), in corpus order."""
    positions: np.ndarray
    """uint32 or int64 (T,), places in the corpus."""
    order: np.ndarray
    """uint32 or int64 (T,), indexes of tail tokens, highest score first, ties in corpus order."""


class Hits:
    """The `n_above` hits of one threshold."""

    def __init__(self, chunks: Chunks, tail: Tail, threshold: float, n_above: int):
        self._chunks, self._tail, self._threshold = chunks, tail, round_down(threshold)
        self.scanned = threshold < tail.floor
        """All scores are read, because the threshold is below the tail."""
        self._few = None
        if self.scanned:
            self.ranges = chunks.ranges
            """(first, stop) documents that are read together."""
        elif n_above <= FEW_HITS:
            self._few = np.sort(tail.order[:n_above])
            owners = np.searchsorted(tail.offsets, self._few[CHUNK_HITS::CHUNK_HITS], side="right") - 1
            wide = plan_shards(chunks.offsets, CHUNK_SPAN)  # bounds the memory that reading a range takes
            self.ranges = pairs(np.unique(np.concatenate([wide, owners])))
        else:
            self.ranges = pairs(plan_shards(tail.offsets, CHUNK_TAIL))

    def read(self, first: int, stop: int, *, with_places: bool = True):
        """The hits in documents [first, stop): places int (h,), or None without them; scores float32 (h,); and each
        document's hits as bounds int64 (stop-first+1,)."""
        if self.scanned:
            offsets = self._chunks.offsets[first : stop + 1]
            values = self._chunks.values(first, stop)
            hits = np.flatnonzero(values > self._threshold)
            return hits + offsets[0], values[hits], np.searchsorted(hits, offsets - offsets[0])
        bounds, tail = self._tail.offsets[first : stop + 1], self._tail
        here = slice(int(bounds[0]), int(bounds[-1]))
        places: np.ndarray | None = None
        if self._few is not None:
            few = self._few[slice(*np.searchsorted(self._few, bounds[[0, -1]]))]
            places, scores, ends = tail.positions[few], tail.scores[few], np.searchsorted(few, bounds)
        else:
            above = tail.scores[here] > self._threshold
            ends = np.concatenate([[0], np.cumsum(above, dtype=np.int32)])[bounds - bounds[0]].astype(np.int64)
            places, scores = (tail.positions[here][above] if with_places else None), tail.scores[here][above]
        for array in (tail.positions, tail.scores):
            release_pages(array, here.start, here.stop)
        return places, scores, ends

    def measure(self, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each document's hits int64 (D,), the sum of their scores float64 (D,), and covered tokens int64 (D,)."""
        n_documents = len(self._chunks.offsets) - 1
        counts, covered = (np.zeros(n_documents, dtype=np.int64) for _ in range(2))
        sums = np.zeros(n_documents, dtype=np.float64)

        def one(first: int, stop: int) -> None:
            places, scores, bounds = self.read(first, stop, with_places=window > 0)
            counts[first:stop] = np.diff(bounds)
            sums[first:stop] = add_in_reading_order(scores, bounds, self._threshold)
            if window and self._chunks.trained is None:
                covered[first:stop] = count_covered(places, bounds, self._chunks.offsets[first : stop + 1], window)
            elif window:
                owner = np.repeat(np.arange(stop - first), np.diff(bounds))
                low, high = cover_hits(places.astype(np.int64), *self._chunks.around(places, owner), window)
                covered[first:stop] = np.bincount(owner, high - low, stop - first)

        for _ in self._chunks.map(one, ranges=self.ranges):
            pass
        return counts, sums, covered if window else counts

    def covered_intervals(self, first: int, stop: int, window: int, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The covered tokens of those documents in [first, stop) that are kept, `keep` bool (stop-first,): intervals
        [low, high), int64 (h,) each, in reading order, one per hit, that do not overlap."""
        if not keep.any():
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        places, _, bounds = self.read(first, stop)
        kept = np.repeat(keep, np.diff(bounds))
        places, owner = places[kept].astype(np.int64), np.repeat(np.arange(first, stop), np.diff(bounds) * keep)
        if not window:
            return places, places + 1
        return cover_hits(places, *self._chunks.around(places, owner), window)


def round_down(threshold: float) -> np.float32:
    """The largest float32 up to a threshold: the same float32 scores are above both."""
    rounded = np.float32(threshold)
    return rounded if float(rounded) <= threshold else np.nextafter(rounded, np.float32(-np.inf))


def add_in_reading_order(scores: np.ndarray, bounds: np.ndarray, threshold: np.float32) -> np.ndarray:
    """The sum of each document's hits, float64 (d,), bit-equal to adding them one by one in reading order.

    float32 values above a positive threshold are whole multiples of its spacing. While a sum stays below 2^53 of those,
    no addition rounds, so NumPy may add in any order. Otherwise the scores are added one by one.

    `scores` are float32 (h,), all strictly above the threshold; `bounds` int64 (d+1,) are the documents' hits.
    """
    sums, owned = np.zeros(len(bounds) - 1), np.diff(bounds)
    hit = np.flatnonzero(owned)
    if not len(hit):
        return sums
    if threshold > 0:
        sums[hit] = np.add.reduceat(scores, bounds[:-1][hit], dtype=np.float64)
        if sums.max() < 2.0**52 * float(np.spacing(threshold)):
            return sums
    return np.bincount(np.repeat(np.arange(len(owned)), owned), weights=scores, minlength=len(owned))

"""Which tokens a hit takes with its neighbours. Pure NumPy, no files.

A token is covered at window w when a hit is at most w places away in its document. Covered tokens are given as
intervals [low, high) that do not overlap, one per hit, so that their lengths add up. There are two ways to assign
covered tokens to hits:
- `cover_hits`, for one threshold: a token goes to the first hit, in reading order, that reaches it.
- `Neighbours`, for all thresholds at once: a token goes to the *highest-scoring* hit that reaches it (of equals, the
  first). As the threshold falls, hits enter from the highest score down, and each adds exactly its own interval. So
  cumulative sums over hits sorted by score are the counts at every threshold.
"""

import numpy as np

MAX_WINDOW = 5
"""Largest window that `Neighbours` supports."""
_REACH = 2 * MAX_WINDOW
"""Two hits further apart than this share no token."""
_FAR = 1 << 20
_SPARSE = 16
"""Places are looked up one by one where intervals skip more than this many for each one they contain."""


def cover_hits(places: np.ndarray, first: np.ndarray, stop: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """The intervals (low, high), int64 (h,), of hits in reading order, with `window` tokens on each side; one is empty
    if earlier hits took its tokens. `places`, int64 (h,), are the places of the hits, ascending; `first` and `stop`,
    int64 (h,), the first valid token and the end of each hit's document."""
    high = np.minimum(places + window + 1, stop)
    low = np.maximum(places - window, first)
    low[1:] = np.maximum(low[1:], high[:-1])  # the end of an earlier document never reaches into a later one
    return low, np.maximum(high, low)


def count_covered(places: np.ndarray, bounds: np.ndarray, offsets: np.ndarray, window: int) -> np.ndarray:
    """How many tokens int64 (d,) each document's hits, at `places` int (h,), ascending, cover with `window` tokens on
    each side: the sum of the lengths of `cover_hits`, without them. `bounds` and `offsets`, int64 (d+1,), are each
    document's hits and tokens; the first token of a document is not valid.

    A document's first hit adds 2w+1 tokens, and every other one its distance from the one before, at most 2w+1. What
    extends beyond the document's ends is subtracted.
    """
    covered, hit = np.zeros(len(bounds) - 1, dtype=np.int64), np.flatnonzero(np.diff(bounds))
    if not len(hit):
        return covered
    starts, lasts = bounds[:-1][hit], bounds[1:][hit] - 1
    brings = np.empty(len(places), dtype=places.dtype)
    np.minimum(np.diff(places), places.dtype.type(2 * window + 1), out=brings[1:])
    brings[starts] = 2 * window + 1
    before = places[starts].astype(np.int64) - (offsets[:-1][hit] + 1)
    after = offsets[1:][hit] - 1 - places[lasts].astype(np.int64)
    outside = np.maximum(window - before, 0) + np.maximum(window - after, 0)
    covered[hit] = np.add.reduceat(brings, starts, dtype=np.int64) - outside
    return covered


def cut_intervals(low: np.ndarray, high: np.ndarray, owner: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Where the intervals [low, high) of hits end, int64 (h,), when each document keeps its first `taken` tokens, int64
    (D,), alone; `owner`, int64 (h,), are the hits' documents, ascending."""
    lengths = high - low
    before = np.cumsum(lengths) - lengths
    before -= before[np.searchsorted(owner, owner)] if len(owner) else 0
    return low + np.clip(taken[owner] - before, 0, lengths)


def expand_intervals(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """All places in intervals [low, high), int64, in the order of the intervals."""
    lengths = high - low
    ends = np.cumsum(lengths)
    return np.repeat(low - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)


def sum_intervals(values: np.ndarray, low: np.ndarray, high: np.ndarray, dtype) -> float:
    """The sum, in this dtype, of values (N,), which may be memory-mapped, at all places in intervals [low, high), int64
    (n,), ascending and not overlapping."""
    some = high > low
    low, high = low[some], high[some]
    if not len(low):
        return dtype(0)
    span, n_places = int(high[-1] - low[0]), int((high - low).sum())
    if span > _SPARSE * n_places:
        return np.asarray(values)[expand_intervals(low, high)].sum(dtype=dtype)
    part = np.asarray(values)[low[0] : high[-1]]
    ends = np.stack([low, high], axis=1).ravel()[:-1] - low[0]  # an interval, a gap, an interval, ...
    return np.add.reduceat(part, ends, dtype=dtype)[::2].sum()


class Neighbours:
    """The higher-scoring neighbours of hits, and with them each hit's own tokens at any window up to MAX_WINDOW.

    Args:
        positions: int (t,), places of the highest-scoring tokens, ascending.
        scores: float32 (t,), their scores.
        first, stop: int32 or int64 (n,), first valid token and end of each chosen token's document; their type is the
            result's.
        chosen: int64 (n,), indexes into `positions`; None: all.
    """

    def __init__(self, positions, scores, first: np.ndarray, stop: np.ndarray, chosen: np.ndarray | None = None):
        chosen = np.arange(len(positions)) if chosen is None else chosen
        self.positions = positions[chosen].astype(first.dtype)
        self.first, self.stop = first, stop
        own = scores[chosen]
        self._left = self._nearest(positions, scores, chosen, own, -1, np.greater_equal)
        self._right = self._nearest(positions, scores, chosen, own, 1, np.greater)

    def _nearest(self, positions, scores, chosen, own, step: int, dominates) -> np.ndarray:
        """(n,): place of the nearest higher-scoring token on one side, in the document and in reach."""
        nearest = self.positions + self.positions.dtype.type(step * _FAR)
        looking = np.arange(len(chosen))
        for distance in range(1, _REACH + 1):
            other = chosen[looking] + step * distance
            inside = (other >= 0) & (other < len(positions))
            looking, other = looking[inside], other[inside]
            place = positions[other].astype(self.positions.dtype)
            near = np.abs(place - self.positions[looking]) <= _REACH
            near &= (place >= self.first[looking]) & (place < self.stop[looking])
            looking, other, place = looking[near], other[near], place[near]
            higher = dominates(scores[other], own[looking])
            nearest[looking[higher]] = place[higher]
            looking = looking[~higher]
            if not len(looking):
                break
        return nearest

    def own_tokens(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """(low, high), (n,): the tokens that each hit adds; empty if higher hits take them all."""
        low = np.maximum(np.maximum(self.positions - window, self._left + window + 1), self.first)
        low = np.minimum(low, self.stop)
        high = np.minimum(np.minimum(self.positions + window, self._right - window - 1) + 1, self.stop)
        return low, np.maximum(high, low)

"""Scores read in chunks of whole documents, by threads, so that a billion of them need little memory.

Shapes: D documents, N tokens. A token is valid unless it is its document's first, or is not trained on.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ifguide.data.stretches import count_valid, inside
from ifguide.errors import NumericalError
from ifguide.storage.memory_maps import release_pages
from ifguide.storage.shards import plan_shards

CHUNK_TOKENS = 1 << 20


def sort_key(values: np.ndarray) -> np.ndarray:
    """uint32 of the same shape, in the same order as the float32 values."""
    bits = values.view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def value_of_key(key: int) -> float:
    """The float32 whose `sort_key` is this, as a float."""
    bits = np.uint32(key & 0x7FFFFFFF if key >> 31 else ~key & 0xFFFFFFFF)
    return float(np.array([bits], dtype=np.uint32).view(np.float32)[0])


def bin_ends(bins: np.ndarray) -> np.ndarray:
    """The largest value, float64, of each bin of `Chunks.histogram`: only scores in later bins are higher."""
    ends = np.array([value_of_key((int(n) << 16) | 0xFFFF) for n in bins], dtype=np.float64)
    below_zero = float(np.nextafter(np.float32(0), np.float32(-1)))  # -0.0 is never a score, and is not below 0
    return np.where(ends == 0, below_zero, ends)


def pairs(bounds: np.ndarray) -> list[tuple[int, int]]:
    """The ranges (first, stop) between neighbouring bounds."""
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))


class Chunks:
    """The corpus's scores float32 (N,) in chunks of whole documents of about `chunk_tokens`, processed by threads."""

    def __init__(self, scores, offsets, trained=None, *, chunk_tokens: int = CHUNK_TOKENS, threads: int = 2):
        self.scores, self.offsets, self.trained, self.threads = scores, np.asarray(offsets), trained, threads
        self.n_valid = count_valid(self.offsets, trained)
        """int64 (D,): valid tokens of each document."""
        self.ranges = pairs(plan_shards(self.offsets, chunk_tokens))
        """(first document, stop document) of each chunk."""

    def map(self, work: Callable, report: Callable[[int], None] | None = None, ranges=None) -> Iterator:
        """work(first document, stop document) of every chunk, or of the given ranges, in order; `report` gets the
        tokens done."""
        ranges, ahead = self.ranges if ranges is None else ranges, 2 * self.threads
        with ThreadPoolExecutor(self.threads) as pool:
            waiting = deque(pool.submit(work, *pair) for pair in ranges[:ahead])
            for number, (_, stop) in enumerate(ranges):
                result = waiting.popleft().result()
                if number + ahead < len(ranges):
                    waiting.append(pool.submit(work, *ranges[number + ahead]))
                if report:
                    report(int(self.offsets[stop]))
                yield result

    def values(self, first: int, stop: int) -> np.ndarray:
        """A copy, float32 (n,), of the scores of documents [first, stop): -inf where a token is not valid, and never
        -0.0."""
        offsets = self.offsets[first : stop + 1]
        start, end = int(offsets[0]), int(offsets[-1])
        values = np.asarray(self.scores[start:end], dtype=np.float32) + np.float32(0)
        if self.trained is None:
            values[offsets[:-1][np.diff(offsets) > 0] - start] = -np.inf
        else:
            values[~inside(self.trained, start, end)] = -np.inf
        release_pages(self.scores, start, end)
        return values

    def around(self, places: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far windows reach: first and stop, int64 (h,), of the valid tokens around valid `places`, which are in
        the documents `owner`."""
        if self.trained is None:
            return self.offsets[owner] + 1, self.offsets[owner + 1]
        after = np.searchsorted(self.trained, places, side="right")
        return self.trained[after - 1], self.trained[after]

    def threshold_above(self, tokens_above: int) -> tuple[float, int]:
        """The score with this many valid scores, 0 to V - 1, strictly above it, and how many are: fewer where scores
        tie with it. It is one of the scores itself, as a float, so that comparing against it is exact. Errors as
        `histogram`."""
        histogram = self.histogram()
        return self.value_at(int(histogram.sum()) - 1 - tokens_above, histogram)

    def histogram(self, report: Callable[[int], None] | None = None) -> np.ndarray:
        """int64 (65536,): valid scores by the upper 16 bits of their `sort_key`. A NumericalError: no valid score, or
        one that is not finite."""

        def count(first: int, stop: int) -> np.ndarray:
            values = self.values(first, stop)
            bins = np.bincount(values.view(np.uint32) >> 16, minlength=1 << 16)
            bins[0xFF80] -= len(values) - self.n_valid[first:stop].sum()  # -inf marks those without a score
            return bins

        raw = sum(self.map(count, report), np.zeros(1 << 16, dtype=np.int64))
        bits = np.arange(1 << 16)
        if n_bad := int(raw[(bits & 0x7F80) == 0x7F80].sum()):
            remedy = "compute them again with `ifguide run NAME --force scores`"
            raise NumericalError(f"{n_bad:,} of {int(raw.sum()):,} scores are not finite; {remedy}")
        if not raw.any():
            raise NumericalError("there is no valid score: every document has fewer than two tokens")
        return np.concatenate([raw[0x8000:][::-1], raw[:0x8000]])

    def value_at(self, position: int, histogram: np.ndarray, report=None) -> tuple[float, int]:
        """The score at a place in ascending order, and how many valid scores are higher, both exact; `histogram` is
        `self.histogram()`."""
        running = np.cumsum(histogram)
        upper = int(np.searchsorted(running, position, side="right"))
        before = int(running[upper - 1]) if upper else 0
        raw = upper & 0x7FFF if upper >> 15 else ~upper & 0xFFFF  # the upper half of the float's own bits

        def count(first: int, stop: int) -> np.ndarray:
            values = self.values(first, stop)
            inside = values[(values.view(np.uint32) >> 16) == raw]
            return np.bincount(sort_key(inside) & 0xFFFF, minlength=1 << 16)

        lower = np.cumsum(sum(self.map(count, report), np.zeros(1 << 16, dtype=np.int64)))
        low_bits = int(np.searchsorted(lower, position - before, side="right"))
        return value_of_key(upper << 16 | low_bits), int(running[-1]) - before - int(lower[low_bits])

"""What an index knows beforehand: its files, thresholds and counts at knots, the distribution of the scores, words.

Shapes: D documents, N tokens, V valid tokens, T tail tokens, S sources, as in `ifguide.selection.index.score_index`.
"""

import dataclasses
import os
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from ifguide.config.schema import SelectionConfig
from ifguide.data.corpus import TokenizedCorpus
from ifguide.errors import StaleError
from ifguide.selection.algorithm import rank_at_quantile
from ifguide.selection.index.build import INDEX_VERSION, TAIL_QUANTILE, count_above
from ifguide.selection.index.chunks import Chunks, bin_ends, sort_key
from ifguide.selection.index.hits import Tail, round_down
from ifguide.selection.index.results import Preview
from ifguide.storage import artifacts

N_COARSE = 40
"""Knots below the tail."""


class KnownCounts:
    """An index's files, checked, and what they say without computing: `ScoreIndex` adds the exact answers.

    Args:
        folder: the folder of the index; each kind of scores has a folder of its own in it.
        kind: the attribution kind, `own_loss` or `position`.
        corpus: the tokens that were scored.
        scores: float32 (N,), the scores that were indexed.
        defaults: what a choice of tokens leaves open.
        remedy: what the error says to do when the index cannot be used.

    Raises:
        StaleError: it is damaged, or was made from other scores.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        *,
        corpus: TokenizedCorpus,
        scores: np.ndarray,
        defaults: SelectionConfig | None = None,
        remedy: str = "build it again",
    ):
        self.kind = kind
        """`own_loss` or `position`."""
        self._folder, self._corpus = folder / kind, corpus
        self._defaults = dataclasses.replace(defaults or SelectionConfig(), attribution=kind)
        try:
            self._read(scores)
        except (StaleError, KeyError, TypeError, AttributeError) as error:
            raise StaleError(f"{self._folder} is damaged ({error}); {remedy}") from error

    def _read(self, scores: np.ndarray) -> None:
        about = artifacts.read_part(self._folder.parent, f"{self.kind}/index.json")
        _expect("version", about["version"], INDEX_VERSION)
        _expect("tokens", about["n_tokens"], self._corpus.n_tokens)
        _expect("documents", about["n_documents"], self._corpus.n_documents)
        self.n_valid: int = about["n_valid"]
        """V."""
        self.n_tail: int = about["n_tail"]
        """T; for as many tokens above the threshold and fewer, everything is known at once."""
        self.n_span: int | None = about["n_span"]
        """Valid tokens inside known spans; None when the corpus has none."""
        self.sources: tuple[str, ...] = tuple(about["sources"])
        """Names of the sources, most tokens first; beyond 32, the last one is called `other sources`."""
        self.source_tokens = np.array(about["source_tokens"], dtype=np.int64)
        """int64 (S,), valid tokens in each source."""

        def load(name: str, length: int | None = None) -> np.ndarray:
            return np.asarray(artifacts.load_array(self._folder / f"{name}.npy", length=length))

        self._tail = Tail(
            about["floor"],
            load("tail_offsets", about["n_documents"] + 1),
            *(load(f"tail_{name}", self.n_tail) for name in ("scores", "positions", "order")),
        )
        self._source_of = load("source_of", about["n_documents"])
        self._histogram, self._knots, self._ranks = load("histogram", 1 << 16), load("knots"), load("ranks")
        n_ranks = len(self._ranks)
        names = ["covered", "effect", "documents"] + ["spans"] * (self.n_span is not None)
        self._tables = {name: load(name, n_ranks) for name in names}
        self._chunks = Chunks(scores, self._corpus.offsets, threads=os.cpu_count() or 1)
        self._check()

    def _check(self) -> None:
        """Look at what must hold between the files, at a few places of the large ones."""
        tail, scores = self._tail, self._chunks.scores
        _expect("scores", len(scores), self._corpus.n_tokens)
        _expect("counted scores", int(self._histogram.sum()), self.n_valid)
        _expect("tail tokens", [int(tail.offsets[-1]), int(self._ranks[-1])], [self.n_tail] * 2)
        looked = tail.order[np.linspace(0, self.n_tail - 1, min(64, self.n_tail)).astype(np.int64)].astype(np.int64)
        if len(looked) and (looked.max() >= self.n_tail or tail.positions[looked].max() >= len(scores)):
            raise StaleError("its order points outside of the tail")
        values = tail.scores[looked]
        if not np.array_equal(values, scores[tail.positions[looked]]):
            raise StaleError("it was made from other scores")
        if (np.diff(values) > 0).any() or (values <= tail.floor).any():
            raise StaleError("its scores are not in order")

    # ---- the handle ----

    def locate(self, tokens_above: int) -> tuple[float, int]:
        """The threshold with this many tokens above it, 0 to V - 1, and how many there are: fewer where scores tie."""
        if tokens_above < self.n_tail:
            threshold = float(self._tail.scores[self._tail.order[tokens_above]])
            return threshold, self.tokens_above(threshold)
        if tokens_above <= rank_at_quantile(self.n_valid, TAIL_QUANTILE):
            return self._tail.floor, self.n_tail
        return self._chunks.value_at(self.n_valid - 1 - tokens_above, self._histogram)

    def above_quantile(self, quantile: float) -> int:
        """How many valid tokens are strictly above the score at a quantile."""
        return self.locate(rank_at_quantile(self.n_valid, quantile))[1]

    def tokens_above(self, threshold: float) -> int:
        """How many valid tokens have a score strictly above a threshold; below the tail this reads all scores."""
        if threshold >= self._tail.floor:
            return int(count_above(self._tail.scores, self._tail.order, np.array([threshold]))[0])
        lowered = round_down(threshold)
        above = self._chunks.map(lambda *pair: np.count_nonzero(self._chunks.values(*pair) > lowered))
        return int(sum(above))

    def ranks(self, scores: np.ndarray) -> np.ndarray:
        """Places of scores among all valid ones, 1 the highest, int64; equal scores share a place. 0 below the tail."""
        places = count_above(self._tail.scores, self._tail.order, scores) + 1
        return np.where(np.asarray(scores) > self._tail.floor, places, 0)

    # ---- what is known beforehand ----

    def preview(self) -> Preview:
        """Exact counts at about a thousand thresholds."""
        row = np.searchsorted(self._ranks, self._knots)
        thresholds = np.full(len(row), self._tail.floor)
        inside = self._knots < self.n_tail
        thresholds[inside] = self._tail.scores[self._tail.order[self._knots[inside]]]
        above, coarse = self._coarse_knots()
        return Preview(
            threshold=np.concatenate([thresholds, coarse]),
            tokens_above=np.concatenate([self._knots, above]),
            **{name: table[row] for name, table in self._tables.items()},
        )

    def _coarse_knots(self) -> tuple[np.ndarray, np.ndarray]:
        """(tokens above int64, thresholds float64) at ends of the histogram's bins below the tail, highest first."""
        above = self.n_valid - np.cumsum(self._histogram)  # strictly above the bin's last value
        wanted = np.linspace(self.n_tail, self.n_valid, N_COARSE + 2)[1:-1]
        bins = np.unique(np.searchsorted(-above, -wanted))
        bins = bins[(above[bins] > self.n_tail) & (above[bins] < self.n_valid)]
        bins = bins[np.unique(above[bins], return_index=True)[1]]
        return above[bins], bin_ends(bins)

    def words(self) -> pa.Table:
        """The words that enter the selection from one level of the tail to the next, most frequent first, at most 60 a
        level.

        Columns: level (int32, from 0, the highest scores), first_above and last_above (int64: the level holds the
        tokens that come in when the number of tokens above grows from the one to the other), word (string: a vocabulary
        entry in lower case, without blanks), count (int64, tokens of that word that enter), occurrences (int64, in the
        whole corpus).
        """
        return artifacts.read_table(self._folder / "words.parquet")

    def histogram(
        self, low: float | None = None, high: float | None = None, n_bins: int = 200, *, edges: np.ndarray | None = None
    ) -> pa.Table:
        """Exact counts of valid scores in bins: left, right (float64), count (int64); a score belongs to (left, right].

        Args:
            low: left end; None: just below the lowest score.
            high: right end; None: the highest score.
            n_bins: bins of equal width.
            edges: float64 (B+1,), ascending, instead of the three.

        Edges below the tail are moved to the nearest value at which the count is known (less than a 128th of the value
        away), so that every count is exact; edges that fall together become one.
        """
        tail = self._tail
        if edges is None:
            least, most = self._extremes
            edges = np.linspace(least if low is None else low, most if high is None else high, n_bins + 1)
        edges = np.asarray(edges, dtype=np.float64).copy()
        below = edges < tail.floor
        keys = sort_key(edges[below].astype(np.float32)).astype(np.int64)
        bins = (keys + 0x8000) >> 16  # bins that end at or before the nearest end of a bin
        moved = bin_ends(np.maximum(bins, 1) - 1)
        running = np.concatenate([[0], np.cumsum(self._histogram)])
        above = np.empty(len(edges), dtype=np.int64)
        above[~below] = count_above(tail.scores, tail.order, edges[~below])
        above[below] = np.where(moved < tail.floor, self.n_valid - running[bins], self.n_tail)
        edges[below] = np.minimum(moved, tail.floor)
        keep = np.concatenate([[True], np.diff(edges) > 0])
        edges, above = edges[keep], above[keep]
        return pa.table({"left": edges[:-1], "right": edges[1:], "count": -np.diff(above)})

    @cached_property
    def _extremes(self) -> tuple[float, float]:
        """Just below the lowest score (the end of the empty bin before it), and the highest score."""
        first = int(np.flatnonzero(self._histogram)[0])
        most = float(self._tail.scores[self._tail.order[0]]) if self.n_tail else self._tail.floor
        return float(bin_ends(np.array([first - 1]))[0]), most


def _expect(what: str, got, expected) -> None:
    if got != expected:
        raise StaleError(f"{what}: expected {expected}, got {got}")

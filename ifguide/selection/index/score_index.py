"""The score index of a study: exact answers for any threshold, window and budget.

Shapes: D documents, N tokens, V valid tokens (all but each document's first), T tail tokens (the tenth with the highest
scores), S sources, W = MAX_WINDOW. A token is *above* a threshold when it is valid and its score is strictly higher; it
is *covered* at window w when a token above is at most w places away in its document. A selection is given as
`Resolved`, or as a saved mask bool (N,).
"""

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ifguide.config.schema import SelectionConfig
from ifguide.data.corpus import TokenizedCorpus
from ifguide.errors import ConfigError, StaleError
from ifguide.selection.algorithm import count_tail, rank_at_quantile, rank_measured, spend_budget
from ifguide.selection.choice import Choice, read_choice
from ifguide.selection.coverage import MAX_WINDOW, Neighbours, cut_intervals, expand_intervals, sum_intervals
from ifguide.selection.index.build import INDEX_VERSION, TAIL_QUANTILE, count_above
from ifguide.selection.index.chunks import Chunks, bin_ends, sort_key
from ifguide.selection.index.hits import Hits, Tail, round_down
from ifguide.selection.index.results import Holding, Overlap, Preview, Resolved
from ifguide.storage import artifacts
from ifguide.storage.memory_maps import release_pages

N_COARSE = 40
"""Knots below the tail."""
_FEW = 4096
"""Places looked up at once all over the corpus."""
_STRETCH = 1 << 26
"""Tokens of the corpus that they may be spread over: reading one place can map two megabytes of a file."""


class ScoreIndex:
    """What the tokens' scores of one kind, a name of `ifguide.config.attributions.KINDS`, select;
    `ifguide.study.stages.select.open_index` opens a study's. A StaleError: it is damaged, or was made from other
    scores; `remedy` is what it says to do.

    Each kind has a folder of its own in `folder`. `scores`, float32 (N,), are those that were indexed, of the
    `corpus`'s tokens; `defaults` are what a choice of tokens leaves open.
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
        """The kind of attribution."""
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

        def load(name: str, length: int | None = None) -> np.ndarray:
            return np.asarray(artifacts.load_array(self._folder / f"{name}.npy", length=length))

        arrays = (load(f"tail_{name}", self.n_tail) for name in ("scores", "positions", "order"))
        self._tail = Tail(about["floor"], load("tail_offsets", about["n_documents"] + 1), *arrays)
        self._histogram, self._knots, self._ranks = load("histogram", 1 << 16), load("knots"), load("ranks")
        names = ["covered", "effect", "documents"] + ["spans"] * (self.n_span is not None)
        self._tables = {name: load(name, len(self._ranks)) for name in names}
        self._chunks = Chunks(scores, self._corpus.offsets, self._corpus.trained, threads=os.cpu_count() or 1)
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
        """How many valid tokens are strictly above the score at a quantile; 0 takes the scores' upper tail, or what a
        study takes without one."""
        asked = {"quantile": quantile} if quantile else dataclasses.replace(self._defaults, quantile=0.0)
        return self.locate(self._choice(asked).tokens_above)[1]

    def _choice(self, settings: Mapping | SelectionConfig) -> Choice:
        read = (self._chunks.scores, np.asarray(self._corpus.offsets), self._corpus.trained)
        return read_choice(settings, self._defaults, self.n_valid, lambda _: count_tail(*read))

    def tokens_above(self, threshold: float) -> int:
        """How many valid tokens have a score strictly above a threshold; below the tail this reads all scores."""
        if threshold >= self._tail.floor:
            return int(count_above(self._tail.scores, self._tail.order, np.array([threshold]))[0])
        lowered = round_down(threshold)
        return int(sum(self._chunks.map(lambda *pair: np.count_nonzero(self._chunks.values(*pair) > lowered))))

    def ranks(self, scores: np.ndarray) -> np.ndarray:
        """Places of scores among all valid ones, 1 the highest, int64; equal scores share a place. 0 below the tail."""
        places = count_above(self._tail.scores, self._tail.order, scores) + 1
        return np.where(np.asarray(scores) > self._tail.floor, places, 0)

    def places_at(self, ranks: np.ndarray) -> np.ndarray:
        """Places in the corpus, int64, of the tokens at some ranks below T; rank 0 is the highest score, and equal ones
        come in corpus order."""
        return np.asarray(self._tail.positions[self._tail.order[ranks]], dtype=np.int64)

    # ---- what is known beforehand ----

    def preview(self) -> Preview:
        """Exact counts at about a thousand thresholds."""
        row = np.searchsorted(self._ranks, self._knots)
        thresholds = np.full(len(row), self._tail.floor)
        inside = self._knots < self.n_tail
        thresholds[inside] = self._tail.scores[self._tail.order[self._knots[inside]]]
        # below the tail, at ends of the histogram's bins, highest first
        above = self.n_valid - np.cumsum(self._histogram)  # strictly above the bin's last value
        steps = np.linspace(self.n_tail, self.n_valid, N_COARSE + 2)[1:-1]
        bins = np.searchsorted(-above, -steps)
        bins = bins[(above[bins] > self.n_tail) & (above[bins] < self.n_valid)]
        coarse, places = np.unique(above[bins], return_index=True)
        return Preview(
            threshold=np.concatenate([thresholds, bin_ends(bins[places])]),
            tokens_above=np.concatenate([self._knots, coarse]),
            **{name: table[row] for name, table in self._tables.items()},
        )

    def words(self) -> pa.Table:
        """The words that enter the selection from one level of the tail to the next, most frequent first, at most 60 a
        level.

        Columns: level (int32, from 0, the highest scores), first_above and last_above (int64: the level holds the
        tokens that come in when the number of tokens above grows from the one to the other), word (string, as in
        `selected_words`), count (int64, tokens of that word that enter), occurrences (int64, in the whole corpus).
        """
        return artifacts.read_table(self._folder / "words.parquet")

    def histogram(self, edges: np.ndarray) -> pa.Table:
        """Exact counts of valid scores in bins: left, right (float64), count (int64); a score belongs to (left, right].

        The ascending `edges`, float64 (B+1,), say where the bins end. Edges below the tail are moved to the nearest
        value at which the count is known (less than a 128th of the value away), so that every count is exact; edges
        that fall together become one.
        """
        tail, edges = self._tail, np.array(edges, dtype=np.float64)
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
    def extremes(self) -> tuple[float, float]:
        """Just below the lowest score (the end of the empty bin before it), and the highest score."""
        first = int(np.flatnonzero(self._histogram)[0])
        most = float(self._tail.scores[self._tail.order[0]]) if self.n_tail else self._tail.floor
        return float(bin_ends(np.array([first - 1]))[0]), most

    # ---- on release ----

    def resolve(self, settings: Mapping | SelectionConfig | Choice) -> Resolved:
        """The exact result of a choice, or of settings as in `ifguide.selection.choice.read_choice`. A ConfigError: a
        setting out of range, or scores of another kind."""
        started = time.perf_counter()
        choice = settings if isinstance(settings, Choice) else self._choice(settings)
        if choice.attribution != self.kind:
            raise ConfigError(f"attribution: this is the index of {self.kind}, got {choice.attribution!r}")
        threshold, n_above = self.locate(choice.tokens_above)
        hits = Hits(self._chunks, self._tail, threshold, n_above)
        counts, sums, covered = hits.measure(choice.window)
        ranking = rank_measured(threshold, counts, sums, self._corpus.id_rank)
        taken = spend_budget(covered, ranking.order, choice.max_tokens)
        resolved = Resolved(
            choice=choice,
            threshold=threshold,
            n_above=n_above,
            hits=hits,
            ranking=ranking,
            covered=covered,
            taken=taken,
            **self._holding(taken),
        )
        in_tables = resolved.n_selected == covered.sum() and not hits.scanned and choice.window <= MAX_WINDOW
        totals = self._sums_at(n_above, choice.window) if in_tables else self._sums_over(resolved)
        for array in (self._tail.scores, self._tail.positions, self._tail.order):
            release_pages(array)
        return dataclasses.replace(resolved, **self._holding(taken, totals), seconds=time.perf_counter() - started)

    def _holding(self, taken: np.ndarray, sums=(0, 0)) -> dict:
        """What a `Holding` says of the tokens taken of each document, int64 (D,), and their `_sum_chunk`."""
        n_selected, (effect, marked) = int(taken.sum()), map(float, sums)
        return {
            "n_selected": n_selected,
            "n_documents": int(np.count_nonzero(taken)),
            "effect": effect,
            "precision": marked / n_selected if self.n_span is not None and n_selected else None,
            "recall": marked / self.n_span if self.n_span else None,
        }

    def _sums_at(self, n_above: int, window: int) -> np.ndarray:
        """`_sum_chunk` of the covered tokens: from tables, and the last few counted."""
        row = int(np.searchsorted(self._ranks, n_above, side="right")) - 1
        spans = self._tables["spans"][row, window] if self.n_span is not None else 0
        sums = np.array([self._tables["effect"][row, window], spans])
        remaining = np.sort(self._tail.order[self._ranks[row] : n_above]).astype(np.int64)
        release_pages(self._tail.order)
        ends = np.arange(0, int(self._chunks.offsets[-1]) + _STRETCH, _STRETCH)
        stretches = np.searchsorted(self._tail.positions[remaining], ends)
        for part in np.split(remaining, np.union1d(stretches, np.arange(_FEW, len(remaining), _FEW))):
            owner = np.searchsorted(self._chunks.offsets, self._tail.positions[part], side="right") - 1
            reach = self._chunks.around(self._tail.positions[part], owner)
            near = Neighbours(self._tail.positions, self._tail.scores, *reach, part)
            low, high = near.own_tokens(window)
            kept = high > low
            sums = sums + self._sum_chunk(low[kept], high[kept])
            self._release()
        return sums

    def _release(self, start: int = 0, stop: int | None = None) -> None:
        for array in (self._chunks.scores, self._corpus.in_span):
            if array is not None:
                release_pages(array, start, stop)

    def _sums_over(self, resolved: Resolved) -> np.ndarray:
        """The same for any selection, by looking at every selected token."""

        def one(first: int, stop: int) -> np.ndarray:
            sums = self._sum_chunk(*self._selected_intervals(resolved, first, stop))
            self._release(int(self._chunks.offsets[first]), int(self._chunks.offsets[stop]))
            return sums

        return np.sum(list(self._chunks.map(one, ranges=resolved.hits.ranges)), axis=0)

    def _sum_chunk(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Of the tokens in intervals, the sum of the scores and how many are in known spans, float64 (2,)."""
        spans = self._corpus.in_span
        marked = 0 if spans is None else sum_intervals(spans, low, high, np.int64)
        return np.array([sum_intervals(self._chunks.scores, low, high, np.float64), marked])

    def _selected_intervals(self, resolved: Resolved, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        taken, covered = resolved.taken[first:stop], resolved.covered[first:stop]
        low, high = resolved.hits.covered_intervals(first, stop, resolved.choice.window, taken > 0)
        if ((taken > 0) & (taken < covered)).any():  # the budget ends inside a document
            owner = np.searchsorted(self._chunks.offsets[first + 1 : stop], low, side="right")
            high = cut_intervals(low, high, owner, taken)
        return low, high

    def selected_tokens(self, resolved: Resolved, first: int, stop: int) -> np.ndarray:
        """Places int64, ascending, of the selected tokens in documents [first, stop)."""
        return expand_intervals(*self._selected_intervals(resolved, first, stop))

    def _selected_by_range(self, resolved: Resolved) -> Iterator[np.ndarray]:
        return self._chunks.map(lambda *pair: self.selected_tokens(resolved, *pair), ranges=resolved.hits.ranges)

    def mask(self, settings: Mapping | SelectionConfig | Choice | Resolved, mask=None) -> np.ndarray:
        """The mask bool (N,) of a choice; `mask`, all False, is filled in and returned if it is given."""
        resolved = settings if isinstance(settings, Resolved) else self.resolve(settings)
        mask = np.zeros(self._corpus.n_tokens, dtype=bool) if mask is None else mask
        for places in self._selected_by_range(resolved):
            mask[places] = True
            if len(places):
                release_pages(mask, int(places[0]), int(places[-1]) + 1)
        return mask

    def total(self, resolved: Resolved, values: np.ndarray) -> float:
        """The sum of other scores, float32 (N,), over the selected tokens, in float64."""
        return float(sum(values[places].sum(dtype=np.float64) for places in self._selected_by_range(resolved)))

    def selected_words(self, resolved: Resolved, n_words: int = 200) -> pa.Table:
        """The words selected most often, at most `n_words`: word, selected, occurrences (int64), lift (float64).

        A word is a vocabulary entry in lower case, without blanks. Its lift is its share of selected occurrences over
        that share for all tokens with a score: 1 is no more than others.
        """
        vocabulary = artifacts.read_table(self._folder / "vocabulary.parquet")
        counts = np.zeros(vocabulary.num_rows, dtype=np.int64)
        ids = self._corpus.token_ids
        for places in self._selected_by_range(resolved):
            counts += np.bincount(ids[places], minlength=len(counts))
            if len(places):
                release_pages(ids, int(places[0]), int(places[-1]) + 1)
        entries = vocabulary.append_column("selected", pa.array(counts))
        words = entries.group_by("word").aggregate([("selected", "sum"), ("occurrences", "sum")])
        words = words.filter((pc.field("selected_sum") > 0) & (pc.field("word") != ""))
        words = words.sort_by([("selected_sum", "descending"), ("word", "ascending")]).slice(0, n_words)
        selected, occurrences = (words[name].to_numpy() for name in ("selected_sum", "occurrences_sum"))
        lift = selected / occurrences / (max(int(counts.sum()), 1) / self.n_valid)
        columns = [words["word"], selected, occurrences, lift]
        return pa.table(columns, ["word", "selected", "occurrences", "lift"])

    def documents_in_range(self, low: float, high: float) -> pa.Table:
        """Documents with scores in (low, high]: document, count (int64), most first, ties in corpus order."""
        ends = ((float(end), self.tokens_above(end)) for end in (low, high))
        from_low, from_high = (Hits(self._chunks, self._tail, *end).measure(0)[0] for end in ends)
        counts = from_low - from_high
        inside = np.flatnonzero(counts)
        order = inside[np.argsort(-counts[inside], kind="stable")]
        return pa.table({"document": order, "count": counts[order]})

    # ---- saved selections ----

    def compare(self, a: Resolved | np.ndarray, b: Resolved | np.ndarray) -> Overlap:
        """Which tokens and documents are in one selection, in the other, in both."""
        n_documents = len(self._chunks.offsets) - 1
        in_a, in_b = np.zeros((2, n_documents), dtype=np.int64)

        def one(first: int, stop: int) -> int:
            places = [self._places_in(one, first, stop) for one in (a, b)]
            for counts, own in zip((in_a, in_b), places, strict=True):
                counts[first:stop] = np.diff(np.searchsorted(own, self._chunks.offsets[first : stop + 1]))
            return len(np.intersect1d(places[0], places[1], assume_unique=True))

        both = sum(self._chunks.map(one))
        return Overlap(
            tokens_a=int(in_a.sum()) - both,
            tokens_b=int(in_b.sum()) - both,
            tokens_both=both,
            documents_a=int(np.count_nonzero((in_a > 0) & (in_b == 0))),
            documents_b=int(np.count_nonzero((in_b > 0) & (in_a == 0))),
            documents_both=int(np.count_nonzero((in_a > 0) & (in_b > 0))),
        )

    def _places_in(self, selection: Resolved | np.ndarray, first: int, stop: int) -> np.ndarray:
        if isinstance(selection, Resolved):
            return self.selected_tokens(selection, first, stop)
        start, end = self._chunks.offsets[[first, stop]]
        return np.flatnonzero(selection[start:end]) + start

    def saved(self, mask: np.ndarray) -> Holding:
        """What a saved selection's mask bool (N,) holds, measured by this index's scores; reads the whole mask."""
        taken = np.zeros(len(self._chunks.offsets) - 1, dtype=np.int64)

        def one(first: int, stop: int) -> np.ndarray:
            places = self._places_in(mask, first, stop)
            taken[first:stop] = np.diff(np.searchsorted(places, self._chunks.offsets[first : stop + 1]))
            sums = self._sum_chunk(places, places + 1)
            start, end = (int(place) for place in self._chunks.offsets[[first, stop]])
            self._release(start, end)
            release_pages(mask, start, end)
            return sums

        sums = np.sum(list(self._chunks.map(one)), axis=0)  # before what it fills is read
        return Holding(**self._holding(taken, sums))


def _expect(what: str, got, expected) -> None:
    if got != expected:
        raise StaleError(f"{what}: expected {expected}, got {got}")

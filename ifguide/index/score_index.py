"""The score index of a study: exact answers for any threshold, window and budget.

Shapes: D documents, N tokens, V valid tokens (all but each document's first), T tail tokens (the tenth with the highest
scores), S sources, W = MAX_WINDOW. A token is *above* a threshold when it is valid and its score is strictly higher; it is
*covered* at window w when a token above lies at most w places away in its document. The slider's handle is a number of tokens
above; `quantile_for` turns it into the quantile that is saved, so a saved selection puts the handle back.
"""

import dataclasses
import os
import time
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ifguide import artifacts
from ifguide.config import SelectionConfig
from ifguide.errors import ConfigError, StaleError
from ifguide.index.build import count_above
from ifguide.index.chunks import Chunks, bin_ends, release_pages, sort_key
from ifguide.index.coverage import MAX_WINDOW, Neighbours, expand_intervals, sum_intervals
from ifguide.index.hits import Hits, Tail, round_down
from ifguide.index.results import MaskSums, Overlap, Resolved
from ifguide.lineage import INDEX_VERSION, Unit
from ifguide.selection import quantile_position, rank_measured, spend_budget

if TYPE_CHECKING:
    from ifguide.study import Study

N_COARSE = 40
"""Knots below the tail."""


class ScoreIndex:
    """What the tokens' scores of one kind select; made by `open`."""

    def __init__(self, study: "Study", kind: str):
        self.kind = kind
        """`own_loss` or `position`."""
        self._study, self._corpus = study, study.corpus()
        study.manifest(Unit("index"))  # says how to build it when it is not there
        self._folder = study.folder(Unit("index")) / kind
        try:
            self._read()
        except (StaleError, KeyError, TypeError, AttributeError) as error:
            raise StaleError(
                f"{self._folder} is damaged ({error}); build it again with `ifguide run {study.name} --force index`"
            ) from error

    @classmethod
    def open(cls, study: "Study", kind: str = "own_loss") -> "ScoreIndex":
        """Open the index of a study.

        Raises:
            StaleError: it is missing, damaged or of other scores; says which command mends it.
        """
        return cls(study, kind)

    def _read(self) -> None:
        about = artifacts.read_json(self._folder / "index.json")
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
        load = lambda name, length=None: np.asarray(artifacts.load_array(self._folder / f"{name}.npy", length=length))  # noqa: E731
        self._tail = Tail(
            about["floor"], load("tail_offsets", about["n_documents"] + 1),
            *(load(f"tail_{name}", self.n_tail) for name in ("scores", "positions", "order")),
        )  # fmt: skip
        self._source_of = load("source_of", about["n_documents"])
        self._histogram, self._knots, self._ranks = load("histogram", 1 << 16), load("knots"), load("ranks")
        n_ranks = len(self._ranks)
        names = ["covered", "effect", "documents"] + ["spans"] * (self.n_span is not None)
        self._tables = {name: load(name, n_ranks) for name in names}
        self._chunks = Chunks(self._study.scores(self.kind), self._corpus.offsets, threads=os.cpu_count() or 1)
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

    def quantile_for(self, n_above: int) -> float:
        """The quantile whose threshold has `n_above` tokens above it, or as many fewer as ties force."""
        n_above = min(int(n_above), self.n_valid - 1)
        return (self.n_valid - n_above) / self.n_valid if n_above > 0 else 1 - 0.5 / self.n_valid

    def threshold_at(self, quantile: float) -> float:
        """The threshold at a quantile, as `ifguide.selection.threshold_at_quantile`."""
        return self._locate(quantile)[0]

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

    def _locate(self, quantile: float) -> tuple[float, int]:
        """The threshold at a quantile, and how many tokens lie above it."""
        if not 0 <= quantile < 1:
            raise ConfigError(f"quantile: expected 0 <= quantile < 1, got {quantile}")
        position = quantile_position(self.n_valid, quantile)
        rank = self.n_valid - 1 - position
        if rank < self.n_tail:
            threshold = float(self._tail.scores[self._tail.order[rank]])
            return threshold, self.tokens_above(threshold)
        if position >= quantile_position(self.n_valid, 0.9):
            return self._tail.floor, self.n_tail
        return self._chunks.value_at(position, self._histogram)

    # ---- what is known beforehand ----

    def preview(self) -> pa.Table:
        """Exact counts at about a thousand thresholds, for drawing while the handle is dragged.

        A row a knot, from the highest threshold down to the 90th percentile, then a coarse part further down. Columns:
            quantile, threshold: float64; saving that quantile selects exactly those tokens.
            tokens_above: int64.
            documents_hit: int64, documents with a token above.
            covered_0 .. covered_5: int64, tokens covered at that window (0: the same as tokens_above).
            effect_0 .. effect_5: float64, sums of the covered tokens' scores.
            span_0 .. span_5: int64, covered tokens inside known spans; only when the corpus has spans.
            source_0 .. source_5: fixed-size list (S,) of int64, covered tokens in each source.
        In the coarse part only quantile, threshold and tokens_above are known before release; the rest is null there.
        """
        row = np.searchsorted(self._ranks, self._knots)
        thresholds = np.full(len(row), self._tail.floor)
        inside = self._knots < self.n_tail
        thresholds[inside] = self._tail.scores[self._tail.order[self._knots[inside]]]
        above, coarse = self._coarse_knots()
        n_above = np.concatenate([self._knots, above])
        columns = {
            "quantile": pa.array([self.quantile_for(n) for n in n_above.tolist()]),
            "threshold": pa.array(np.concatenate([thresholds, coarse])),
            "tokens_above": pa.array(n_above),
        }
        pad = [None] * len(above)
        columns["documents_hit"] = pa.array(self._tables["documents"][row].tolist() + pad, pa.int64())
        for name in ("covered", "effect", "spans"):
            for window in range(MAX_WINDOW + 1) if name in self._tables else ():
                values = self._tables[name][row, window]
                values = (values.sum(axis=1) if name == "covered" else values).tolist() + pad
                columns[f"{name.removesuffix('s')}_{window}"] = pa.array(
                    values, pa.float64() if name == "effect" else pa.int64()
                )
        for window in range(MAX_WINDOW + 1):
            lists = [*self._tables["covered"][row, window].tolist(), *pad]
            columns[f"source_{window}"] = pa.array(lists, pa.list_(pa.int64(), len(self.sources)))
        return pa.table(columns)

    def _coarse_knots(self) -> tuple[np.ndarray, np.ndarray]:
        """(tokens above int64, thresholds float64) at ends of the histogram's bins below the tail, highest first."""
        above = self.n_valid - np.cumsum(self._histogram)  # strictly above the bin's last value
        wanted = np.linspace(self.n_tail, self.n_valid, N_COARSE + 2)[1:-1]
        bins = np.unique(np.searchsorted(-above, -wanted))
        bins = bins[(above[bins] > self.n_tail) & (above[bins] < self.n_valid)]
        bins = bins[np.unique(above[bins], return_index=True)[1]]
        return above[bins], bin_ends(bins)

    def words(self) -> pa.Table:
        """The words that enter the selection from one level of the tail to the next, most frequent first, at most 60 a level.

        Columns: level (int32, from 0, the highest scores), first_above and last_above (int64: the level holds the tokens that
        come in when the number of tokens above grows from the one to the other), word (string: a vocabulary entry in lower
        case, without blanks), count (int64, tokens of that word that enter), occurrences (int64, in the whole corpus).
        """
        return pq.read_table(self._folder / "words.parquet")

    def histogram(
        self, low: float | None = None, high: float | None = None, n_bins: int = 200, *, edges: np.ndarray | None = None
    ) -> pa.Table:
        """Exact counts of valid scores in bins: left, right (float64), count (int64); a score belongs to (left, right].

        Args:
            low: left end; None: just below the lowest score.
            high: right end; None: the highest score.
            n_bins: bins of equal width.
            edges: float64 (B+1,), ascending, instead of the three.

        Edges below the tail are moved to the nearest value at which the count is known (less than a 128th of the value away), so
        that every count is exact; edges that fall together become one.
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
        return float(bin_ends([first - 1])[0]), most

    # ---- on release ----

    def resolve(self, settings: dict | SelectionConfig) -> Resolved:
        """The exact result of a choice: any of quantile, window and max_tokens; the rest comes from study.toml.

        Raises:
            ConfigError: a setting out of range.
        """
        started = time.perf_counter()
        chosen = self._settings(settings)
        window, budget = chosen["window"], chosen["max_tokens"]
        threshold, n_above = self._locate(chosen["quantile"])
        hits = Hits(self._chunks, self._tail, threshold, n_above)
        counts, sums, covered = hits.measure(window)
        ranking = rank_measured(threshold, counts, sums, self._corpus.id_rank)
        cut, left = spend_budget(covered, ranking.order, budget)
        taken = covered
        if cut < len(covered):
            taken = np.zeros_like(covered)
            taken[ranking.order[:cut]] = covered[ranking.order[:cut]]
            taken[ranking.order[cut]] = left
        n_selected = int(taken.sum())
        found = Resolved(
            settings=chosen, threshold=threshold, n_valid=self.n_valid, n_above=n_above, n_covered=int(covered.sum()),
            n_selected=n_selected, n_documents=int(np.count_nonzero(taken)), cut=cut, left=left,
            by_source=np.bincount(self._source_of, weights=taken, minlength=len(self.sources)).astype(np.int64),
            n_span_selected=None, precision=None, recall=None, effect=0.0, seconds=0.0, ranking=ranking, covered=covered,
            taken=taken, hits=hits,
        )  # fmt: skip
        if cut == len(covered) and not hits.scanned and window <= MAX_WINDOW:
            effect, marked = self._sums_at(n_above, window)
        else:
            effect, marked = self._sums_over(found)
        return dataclasses.replace(
            found, effect=effect, **self._against_spans(marked, n_selected), seconds=time.perf_counter() - started
        )

    def _settings(self, settings: dict | SelectionConfig) -> dict:
        given = dataclasses.asdict(settings) if isinstance(settings, SelectionConfig) else dict(settings)
        if given.get("attribution", self.kind) != self.kind:
            raise ConfigError(f"attribution: this is the index of {self.kind}, got {given['attribution']!r}")
        try:
            chosen = dataclasses.replace(self._study.config.selection, **given)
        except TypeError as error:
            raise ConfigError(f"a selection has quantile, window and max_tokens; got {', '.join(given)}") from error
        return {
            "attribution": self.kind, "quantile": chosen.quantile, "window": chosen.window, "max_tokens": chosen.max_tokens
        }  # fmt: skip

    def _against_spans(self, marked: int | None, n_selected: int) -> dict:
        if marked is None:
            return {"n_span_selected": None, "precision": None, "recall": None}
        return {
            "n_span_selected": marked,
            "precision": marked / n_selected if n_selected else None,
            "recall": marked / self.n_span if self.n_span else None,
        }

    def _sums_at(self, n_above: int, window: int) -> tuple[float, int | None]:
        """Sum of the covered tokens' scores, and covered tokens in known spans: from the tables, and the last few counted."""
        row = int(np.searchsorted(self._ranks, n_above, side="right")) - 1
        effect = float(self._tables["effect"][row, window])
        marked = int(self._tables["spans"][row, window]) if self.n_span is not None else None
        wanted = self._tail.order[self._ranks[row] : n_above].astype(np.int64)
        if len(wanted):
            owner = np.searchsorted(self._chunks.offsets, self._tail.positions[wanted], side="right") - 1
            first, stop = self._chunks.offsets[owner] + 1, self._chunks.offsets[owner + 1]
            near = Neighbours(self._tail.positions, self._tail.scores, first, stop, wanted)
            places = expand_intervals(*near.own_tokens(window))
            effect += float(self._chunks.scores[places].sum(dtype=np.float64))
            if marked is not None:
                marked += int(np.count_nonzero(self._corpus.in_span[places]))
            for array in (self._chunks.scores, self._corpus.in_span):
                if array is not None:
                    release_pages(array)
        return effect, marked

    def _sums_over(self, found: Resolved) -> tuple[float, int | None]:
        """The same for any selection, by looking at every selected token."""

        def one(first: int, stop: int) -> tuple[float, int | None]:
            found_here = self._sum_chunk(*self._selected_intervals(found, first, stop))
            for array in (self._chunks.scores, self._corpus.in_span):
                if array is not None:
                    release_pages(array, int(self._chunks.offsets[first]), int(self._chunks.offsets[stop]))
            return found_here

        return _add_parts(self._chunks.map(one, ranges=found.hits.ranges))

    def _sum_chunk(self, low: np.ndarray, high: np.ndarray) -> tuple[float, int | None]:
        spans = self._corpus.in_span
        marked = None if spans is None else int(sum_intervals(spans, low, high, np.int64))
        return float(sum_intervals(self._chunks.scores, low, high, np.float64)), marked

    def _selected_intervals(self, found: Resolved, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        window, keep = found.settings["window"], found.taken[first:stop] > 0
        low, high = found.hits.covered_intervals(first, stop, window, keep)
        if found.left:
            cut = int(found.ranking.order[found.cut])
            if first <= cut < stop:  # the budget ends inside this document: its first tokens in reading order are taken
                here = slice(*np.searchsorted(low, self._chunks.offsets[[cut, cut + 1]]))
                lengths = high[here] - low[here]
                before = np.cumsum(lengths) - lengths
                high[here] = low[here] + np.clip(found.left - before, 0, lengths)
        return low, high

    def selected_tokens(self, found: Resolved, first: int, stop: int) -> np.ndarray:
        """Places int64, ascending, of the selected tokens in documents [first, stop)."""
        return expand_intervals(*self._selected_intervals(found, first, stop))

    def mask(self, settings: dict | SelectionConfig | Resolved) -> np.ndarray:
        """The mask bool (N,) of a choice."""
        found = settings if isinstance(settings, Resolved) else self.resolve(settings)
        mask = np.zeros(self._corpus.n_tokens, dtype=bool)
        for places in self._chunks.map(lambda *pair: self.selected_tokens(found, *pair), ranges=found.hits.ranges):
            mask[places] = True
        return mask

    def selected_words(self, found: Resolved | np.ndarray, n_words: int = 200) -> pa.Table:
        """The words selected most often: word, selected, occurrences (int64), lift (float64).

        Args:
            found: a choice, or a mask bool (N,).
            n_words: how many rows at most.

        A word is a vocabulary entry in lower case, without blanks. Its lift is its share of selected occurrences over that
        share for all tokens with a score: 1 is no more than others.
        """
        vocabulary = pq.read_table(self._folder / "vocabulary.parquet")
        counts = np.zeros(vocabulary.num_rows, dtype=np.int64)
        for places in self._places(found):
            counts += np.bincount(self._corpus.token_ids[places], minlength=len(counts))
        words = vocabulary["word"].combine_chunks().dictionary_encode()
        codes = words.indices.to_numpy(zero_copy_only=False)
        selected, occurrences = (
            np.bincount(codes, weights=values, minlength=len(words.dictionary)).astype(np.int64)
            for values in (counts, vocabulary["occurrences"].to_numpy())
        )
        names = np.array(words.dictionary.to_pylist(), dtype=object)
        share = max(int(counts.sum()), 1) / self.n_valid
        kept = np.flatnonzero((selected > 0) & (names != ""))
        kept = kept[np.lexsort((names[kept].astype(str), -selected[kept]))][:n_words]
        return pa.table(
            {
                "word": names[kept].tolist(),
                "selected": selected[kept],
                "occurrences": occurrences[kept],
                "lift": selected[kept] / occurrences[kept] / share,
            }
        )

    def documents_in_range(self, low: float, high: float) -> pa.Table:
        """Documents with scores in (low, high]: document, count (int64), most first, ties in corpus order."""
        parts = []
        for threshold in (low, high):
            n_above = self.tokens_above(threshold)
            parts.append(Hits(self._chunks, self._tail, float(threshold), n_above).measure(0)[0])
        counts = parts[0] - parts[1]
        hit = np.flatnonzero(counts)
        order = hit[np.argsort(-counts[hit], kind="stable")]
        return pa.table({"document": order, "count": counts[order]})

    # ---- saved selections ----

    def compare(self, a: Resolved | np.ndarray, b: Resolved | np.ndarray) -> Overlap:
        """Which tokens and documents are in one selection, in the other, in both; a saved selection is given by its mask."""
        n_documents = len(self._chunks.offsets) - 1
        in_a, in_b = np.zeros((2, n_documents), dtype=np.int64)

        def one(first: int, stop: int) -> int:
            places_a, places_b = self._places_in(a, first, stop), self._places_in(b, first, stop)
            ends = self._chunks.offsets[first : stop + 1]
            in_a[first:stop] = np.diff(np.searchsorted(places_a, ends))
            in_b[first:stop] = np.diff(np.searchsorted(places_b, ends))
            return len(np.intersect1d(places_a, places_b, assume_unique=True))

        both = sum(self._chunks.map(one))

        def most(wanted: np.ndarray, counts: np.ndarray) -> np.ndarray:
            found = np.flatnonzero(wanted)
            return found[np.argsort(-counts[found], kind="stable")]

        return Overlap(
            int(in_a.sum()) - both, int(in_b.sum()) - both, both, most((in_a > 0) & (in_b == 0), in_a),
            most((in_b > 0) & (in_a == 0), in_b), most((in_a > 0) & (in_b > 0), in_a + in_b),
        )  # fmt: skip

    def _places_in(self, found: Resolved | np.ndarray, first: int, stop: int) -> np.ndarray:
        if isinstance(found, Resolved):
            return self.selected_tokens(found, first, stop)
        start, end = self._chunks.offsets[[first, stop]]
        return np.flatnonzero(found[start:end]) + start

    def _places(self, found: Resolved | np.ndarray):
        ranges = found.hits.ranges if isinstance(found, Resolved) else None
        return self._chunks.map(lambda *pair: self._places_in(found, *pair), ranges=ranges)

    def saved(self, name: str) -> MaskSums:
        """What a saved selection holds, of any kind, measured by this index's scores; reads its whole mask."""
        mask = self._study.selection(name).mask
        taken = np.zeros(len(self._chunks.offsets) - 1, dtype=np.int64)

        def one(first: int, stop: int) -> tuple[float, int | None]:
            places = self._places_in(mask, first, stop)
            taken[first:stop] = np.diff(np.searchsorted(places, self._chunks.offsets[first : stop + 1]))
            return self._sum_chunk(places, places + 1)

        effect, marked = _add_parts(self._chunks.map(one))
        n_selected = int(taken.sum())
        return MaskSums(
            n_selected=n_selected, n_documents=int(np.count_nonzero(taken)), effect=effect, mask=mask,
            by_source=np.bincount(self._source_of, weights=taken, minlength=len(self.sources)).astype(np.int64),
            **self._against_spans(marked, n_selected),
        )  # fmt: skip


def _add_parts(parts) -> tuple[float, int | None]:
    effects, marked = zip(*parts, strict=True)
    return float(sum(effects)), None if None in marked else sum(marked)


def _expect(what: str, got, expected) -> None:
    if got != expected:
        raise StaleError(f"{what}: expected {expected}, got {got}")

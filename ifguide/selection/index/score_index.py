"""The score index of a study: exact answers for any threshold, window and budget.

Shapes: D documents, N tokens, V valid tokens (all but each document's first), T tail tokens (the tenth with the highest
scores), S sources, W = MAX_WINDOW. A token is *above* a threshold when it is valid and its score is strictly higher; it
is *covered* at window w when a token above is at most w places away in its document.
"""

import dataclasses
import time
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from ifguide.config.schema import SelectionConfig
from ifguide.errors import ConfigError
from ifguide.selection.algorithm import rank_measured, spend_budget
from ifguide.selection.choice import Choice, read_choice
from ifguide.selection.index.coverage import MAX_WINDOW, Neighbours, expand_intervals, sum_intervals
from ifguide.selection.index.hits import Hits
from ifguide.selection.index.known import KnownCounts
from ifguide.selection.index.results import MaskSums, Overlap, Resolved
from ifguide.storage import artifacts
from ifguide.storage.memory_maps import release_pages

_FEW = 4096
"""Places looked up at once all over the corpus."""
_STRETCH = 1 << 26
"""Tokens of the corpus they may lie in. A place can bring two megabytes of a memory map with it, which is all of the
stretch when there are many places."""


class ScoreIndex(KnownCounts):
    """What the tokens' scores of one kind select; `ifguide.study.select.open_index` opens a study's."""

    # ---- on release ----

    def resolve(self, settings: Mapping | SelectionConfig | Choice) -> Resolved:
        """The exact result of a choice, or of settings as in `ifguide.selection.choice.read_choice`.

        Raises:
            ConfigError: a setting out of range, or scores of another kind.
        """
        started = time.perf_counter()
        choice = settings if isinstance(settings, Choice) else read_choice(settings, self._defaults, self.n_valid)
        if choice.attribution != self.kind:
            raise ConfigError(f"attribution: this is the index of {self.kind}, got {choice.attribution!r}")
        window, budget = choice.window, choice.max_tokens
        threshold, n_above = self.locate(choice.tokens_above)
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
            choice=choice,
            threshold=threshold,
            n_valid=self.n_valid,
            n_above=n_above,
            n_covered=int(covered.sum()),
            n_selected=n_selected,
            n_documents=int(np.count_nonzero(taken)),
            cut=cut,
            left=left,
            by_source=np.bincount(self._source_of, weights=taken, minlength=len(self.sources)).astype(np.int64),
            ranking=ranking,
            covered=covered,
            taken=taken,
            hits=hits,
        )
        if cut == len(covered) and not hits.scanned and window <= MAX_WINDOW:
            effect, marked = self._sums_at(n_above, window)
        else:
            effect, marked = self._sums_over(found)
        for array in (self._tail.scores, self._tail.positions, self._tail.order):
            release_pages(array)
        return dataclasses.replace(
            found, effect=effect, **self._against_spans(marked, n_selected), seconds=time.perf_counter() - started
        )

    def _against_spans(self, marked: int | None, n_selected: int) -> dict:
        if marked is None:
            return {"n_span_selected": None, "precision": None, "recall": None}
        return {
            "n_span_selected": marked,
            "precision": marked / n_selected if n_selected else None,
            "recall": marked / self.n_span if self.n_span else None,
        }

    def _sums_at(self, n_above: int, window: int) -> tuple[float, int | None]:
        """Sum of the covered tokens' scores, and covered tokens in known spans: from the tables, and the last few
        counted."""
        row = int(np.searchsorted(self._ranks, n_above, side="right")) - 1
        effect = float(self._tables["effect"][row, window])
        marked = int(self._tables["spans"][row, window]) if self.n_span is not None else None
        wanted = np.sort(self._tail.order[self._ranks[row] : n_above]).astype(np.int64)
        ends = np.arange(0, int(self._chunks.offsets[-1]) + _STRETCH, _STRETCH)
        stretches = np.searchsorted(self._tail.positions[wanted], ends)
        for part in np.split(wanted, np.union1d(stretches, np.arange(_FEW, len(wanted), _FEW))):
            owner = np.searchsorted(self._chunks.offsets, self._tail.positions[part], side="right") - 1
            first, stop = self._chunks.offsets[owner] + 1, self._chunks.offsets[owner + 1]
            near = Neighbours(self._tail.positions, self._tail.scores, first, stop, part)
            low, high = near.own_tokens(window)
            kept = high > low
            effect_here, marked_here = self._sum_chunk(low[kept], high[kept])
            effect += effect_here
            marked = None if marked is None or marked_here is None else marked + marked_here
            self._release()
        return effect, marked

    def _release(self, start: int = 0, stop: int | None = None) -> None:
        for array in (self._chunks.scores, self._corpus.in_span):
            if array is not None:
                release_pages(array, start, stop)

    def _sums_over(self, found: Resolved) -> tuple[float, int | None]:
        """The same for any selection, by looking at every selected token."""

        def one(first: int, stop: int) -> tuple[float, int | None]:
            found_here = self._sum_chunk(*self._selected_intervals(found, first, stop))
            self._release(int(self._chunks.offsets[first]), int(self._chunks.offsets[stop]))
            return found_here

        return _add_parts(self._chunks.map(one, ranges=found.hits.ranges))

    def _sum_chunk(self, low: np.ndarray, high: np.ndarray) -> tuple[float, int | None]:
        spans = self._corpus.in_span
        marked = None if spans is None else int(sum_intervals(spans, low, high, np.int64))
        return float(sum_intervals(self._chunks.scores, low, high, np.float64)), marked

    def _selected_intervals(self, found: Resolved, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        window, keep = found.choice.window, found.taken[first:stop] > 0
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

    def mask(self, settings: Mapping | SelectionConfig | Choice | Resolved) -> np.ndarray:
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

        A word is a vocabulary entry in lower case, without blanks. Its lift is its share of selected occurrences over
        that share for all tokens with a score: 1 is no more than others.
        """
        vocabulary = artifacts.read_table(self._folder / "vocabulary.parquet")
        counts = np.zeros(vocabulary.num_rows, dtype=np.int64)
        ids = self._corpus.token_ids
        for places in self._places(found):
            counts += np.bincount(ids[places], minlength=len(counts))
            if len(places):
                release_pages(ids, int(places[0]), int(places[-1]) + 1)
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
        """Which tokens and documents are in one selection, in the other, in both; a saved selection is given by its
        mask."""
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
            int(in_a.sum()) - both,
            int(in_b.sum()) - both,
            both,
            most((in_a > 0) & (in_b == 0), in_a),
            most((in_b > 0) & (in_a == 0), in_b),
            most((in_a > 0) & (in_b > 0), in_a + in_b),
        )

    def _places_in(self, found: Resolved | np.ndarray, first: int, stop: int) -> np.ndarray:
        if isinstance(found, Resolved):
            return self.selected_tokens(found, first, stop)
        start, end = self._chunks.offsets[[first, stop]]
        return np.flatnonzero(found[start:end]) + start

    def _places(self, found: Resolved | np.ndarray):
        ranges = found.hits.ranges if isinstance(found, Resolved) else None
        return self._chunks.map(lambda *pair: self._places_in(found, *pair), ranges=ranges)

    def saved(self, mask: np.ndarray) -> MaskSums:
        """What a saved selection's mask bool (N,) holds, measured by this index's scores; reads the whole mask."""
        taken = np.zeros(len(self._chunks.offsets) - 1, dtype=np.int64)

        def one(first: int, stop: int) -> tuple[float, int | None]:
            places = self._places_in(mask, first, stop)
            taken[first:stop] = np.diff(np.searchsorted(places, self._chunks.offsets[first : stop + 1]))
            found = self._sum_chunk(places, places + 1)
            start, end = (int(place) for place in self._chunks.offsets[[first, stop]])
            self._release(start, end)
            release_pages(mask, start, end)
            return found

        effect, marked = _add_parts(self._chunks.map(one))
        n_selected = int(taken.sum())
        return MaskSums(
            n_selected=n_selected,
            n_documents=int(np.count_nonzero(taken)),
            effect=effect,
            mask=mask,
            by_source=np.bincount(self._source_of, weights=taken, minlength=len(self.sources)).astype(np.int64),
            **self._against_spans(marked, n_selected),
        )


def _add_parts(parts) -> tuple[float, int | None]:
    effects, marked = zip(*parts, strict=True)
    return float(sum(effects)), None if None in marked else sum(marked)

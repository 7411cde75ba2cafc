"""Counts at every rank of the tail: what is above any threshold, by window and source, with sums, spans and words.

Shapes: D documents, N tokens, T tail tokens, S sources, R ranks, W = MAX_WINDOW. Rank r means the r highest-scoring
tokens. Each tail token adds its own tokens at each window (see `ifguide.selection.coverage.Neighbours`), so a
table's row r is the sum over the r highest tokens.
"""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ifguide.data.corpus import TokenizedCorpus
from ifguide.selection.coverage import MAX_WINDOW, Neighbours
from ifguide.selection.index.chunks import Chunks
from ifguide.storage.memory_maps import release_pages

WINDOWS = range(MAX_WINDOW + 1)
MAX_SOURCES = 32
"""Sources counted by name; the others are counted together."""
N_LEVELS = 40
"""Sections of the tail in which words are counted."""
WORDS_KEPT = 60
"""Words kept per level."""
_WORD_COLUMNS = dict.fromkeys(("level", "first_above", "last_above", "word", "count", "occurrences"), pa.int64())
_WORD_COLUMNS |= {"level": pa.int32(), "word": pa.string()}


def find_sources(column: pa.ChunkedArray, offsets: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The S sources of a corpus from a column of D strings, most tokens first, and each document's, uint8 (D,); those
    beyond MAX_SOURCES are combined as `other sources`."""
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    names = encoded.dictionary.to_pylist()
    order = np.argsort(-np.bincount(codes, weights=np.diff(offsets), minlength=len(names)), kind="stable")
    kept = [names[i] for i in order[:MAX_SOURCES]] + (["other sources"] if len(names) > MAX_SOURCES else [])
    place = np.empty(len(names), dtype=np.uint8)
    place[order] = np.minimum(np.arange(len(names)), MAX_SOURCES)
    return kept, place[codes]


class KnotCounter:
    """Counts what each stretch between two `ranks`, int64 (R,), ascending from 0 to T, adds, and accumulates it.
    `pieces` are the texts of the vocabulary's entries."""

    def __init__(self, chunks: Chunks, corpus: TokenizedCorpus, pieces: Sequence[str], ranks: np.ndarray):
        self.chunks, self.corpus, self.pieces, self.ranks = chunks, corpus, pieces, ranks
        self.sources, self.source_of = find_sources(corpus.column("source"), chunks.offsets)
        self._totals: dict = {}
        """What each stretch adds, by name, over all chunks."""
        bounds = np.geomspace(min(10, ranks[-1]), ranks[-1], N_LEVELS) if ranks[-1] else np.zeros(1)
        self._level_ends = np.unique(ranks[np.searchsorted(ranks, bounds.astype(np.int64))])
        self._entering = np.zeros(len(self._level_ends) * len(pieces), dtype=np.int32)
        self._lock = threading.Lock()

    def count(self, tail_offsets, tail_scores, tail_positions, levels: np.ndarray, report=None) -> None:
        """Count everything in one pass over the corpus. The tail is as in `Tail`, `levels` uint16 (T,) is each token's
        stretch, and `report` gets the tokens done."""

        def one(first: int, stop: int):
            tail = slice(int(tail_offsets[first]), int(tail_offsets[stop]))
            bounds = tail_offsets[first : stop + 1] - tail.start
            scores, positions = np.asarray(tail_scores[tail]), np.asarray(tail_positions[tail])
            counts = self._count_chunk(first, stop, bounds, scores, positions, levels[tail])
            for array in (tail_scores, tail_positions):
                release_pages(array, tail.start, tail.stop)
            return counts

        for counts in self.chunks.map(one, report):
            for name, added in counts.items():
                self._totals[name] = self._totals[name] + added if name in self._totals else added

    @property
    def n_span(self) -> int | None:
        """Valid tokens inside known spans."""
        return self._totals.get("n_span")

    def _count_chunk(self, first: int, stop: int, bounds: np.ndarray, scores, positions, levels) -> dict:
        offsets = self.chunks.offsets[first : stop + 1]
        n_stretches, n_sources = len(self.ranks) - 1, len(self.sources)
        per_document = np.diff(bounds)
        owner = np.repeat(np.arange(stop - first), per_document)
        local = (offsets - offsets[0]).astype(np.int64 if offsets[-1] - offsets[0] >= 1 << 30 else np.int32)
        places = (positions - positions.dtype.type(offsets[0])).astype(local.dtype)  # 32 bits are faster to compare
        reach = [(end - offsets[0]).astype(local.dtype) for end in self.chunks.around(positions, owner + first)]
        neighbours = Neighbours(places, scores, *reach)
        values = self.chunks.values(first, stop)
        unscored = np.isneginf(values)
        values[unscored] = 0
        totals: dict = {}
        lines = {"effect": np.append(0.0, np.cumsum(values, dtype=np.float64))}  # sums over the first tokens
        if self.corpus.in_span is not None:
            in_span = np.asarray(self.corpus.in_span[offsets[0] : offsets[-1]])
            lines["spans"] = np.append(np.int32(0), np.cumsum(in_span, dtype=np.int32))
            totals["n_span"] = int(np.count_nonzero(in_span & ~unscored))
            release_pages(self.corpus.in_span, int(offsets[0]), int(offsets[-1]))
        levels = levels.astype(np.intp)
        cells = levels * n_sources + self.source_of[first:stop][owner]
        by_window: dict[str, list] = {name: [] for name in ("covered", *lines)}
        for window in WINDOWS:
            low, high = neighbours.own_tokens(window)
            counts = np.bincount(cells, weights=high - low, minlength=n_stretches * n_sources)
            by_window["covered"].append(counts.reshape(n_stretches, n_sources))
            for name, line in lines.items():
                by_window[name].append(np.bincount(levels, line.take(high) - line.take(low), n_stretches))
        hit = per_document > 0
        best = np.minimum.reduceat(levels, bounds[:-1][hit]) if hit.any() else levels[:0]
        totals |= {name: np.stack(rows) for name, rows in by_window.items()}
        totals["documents"] = np.bincount(best, minlength=n_stretches)
        ids = np.asarray(self.corpus.token_ids[offsets[0] : offsets[-1]])
        level = np.searchsorted(self._level_ends, self.ranks[1:])[levels]
        with self._lock:  # any other type than the array's is 70 times slower
            np.add.at(self._entering, level * len(self.pieces) + ids[places], np.int32(1))
        totals["occurrences"] = np.bincount(ids, minlength=len(self.pieces))
        release_pages(self.corpus.token_ids, int(offsets[0]), int(offsets[-1]))
        return totals

    def write(self, folder: Path) -> None:
        """Write ranks.npy, covered.npy (R, W+1, S), effect.npy (R, W+1), documents.npy (R,), spans.npy (R, W+1),
        words.parquet, vocabulary.parquet (a row per vocabulary entry: word, occurrences)."""
        np.save(folder / "ranks.npy", self.ranks)
        np.save(folder / "covered.npy", _add_up(self._totals["covered"].transpose(1, 0, 2)).astype(np.int64))
        np.save(folder / "effect.npy", _add_up(self._totals["effect"].T))
        np.save(folder / "documents.npy", _add_up(self._totals["documents"]).astype(np.int64))
        if self.n_span is not None:
            np.save(folder / "spans.npy", _add_up(self._totals["spans"].T).astype(np.int64))
        by_entry, entries = self._totals["occurrences"], [normalise_piece(piece) for piece in self.pieces]
        vocabulary = pa.table({"word": pa.array(entries), "occurrences": pa.array(by_entry)})
        pq.write_table(vocabulary, folder / "vocabulary.parquet", compression="zstd")
        pq.write_table(self._words(entries, by_entry), folder / "words.parquet", compression="zstd")

    def _words(self, entries: list[str], by_entry: np.ndarray) -> pa.Table:
        words, word_of = np.unique(entries, return_inverse=True)
        occurrences = np.bincount(word_of, weights=by_entry, minlength=len(words)).astype(np.int64)
        rows, start = [], 0
        entering = self._entering.reshape(len(self._level_ends), -1)
        for level, stop in enumerate(self._level_ends.tolist()):
            counts = np.bincount(word_of, weights=entering[level], minlength=len(words)).astype(np.int64)
            counts[words == ""] = 0
            best = np.argsort(-counts, kind="stable")[:WORDS_KEPT]  # of equals, in the order of the alphabet
            values = [(level, start, stop, str(words[i]), counts[i], occurrences[i]) for i in best if counts[i]]
            rows += [dict(zip(_WORD_COLUMNS, row, strict=True)) for row in values]
            start = stop
        return pa.Table.from_pylist(rows, pa.schema(_WORD_COLUMNS))


def normalise_piece(piece: str) -> str:
    """A vocabulary entry as a word: lower case, stripped of spaces; empty if it has no letter or digit."""
    word = piece.strip().lower()
    return word if any(sign.isalnum() for sign in word) and "\ufffd" not in word else ""


def _add_up(stretches: np.ndarray) -> np.ndarray:
    """Row r: the sum of the first r rows; the first row is 0."""
    return np.concatenate([np.zeros((1, *stretches.shape[1:])), np.cumsum(stretches, axis=0)])

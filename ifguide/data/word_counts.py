"""Which words are selected, and how much more often than others. No streamlit here.

A word is a run of letters, digits and apostrophes, compared in lower case.
"""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ifguide.data.corpus import TokenizedCorpus

_WORD = re.compile(r"(?:[^\W_]|['’])+")
_BETWEEN_RE2 = r"[^\p{L}\p{N}'’]+"
_EDGE = "'’"
_BATCH = 20_000


@dataclass(frozen=True)
class WordCount:
    """How often a word is selected."""

    word: str
    selected: int
    """Occurrences with at least one selected token."""
    occurrences: int
    """All its occurrences in the corpus."""
    lift: float
    """Its share of selected occurrences over that share for all words: 1 is no more than others."""

    @property
    def share(self) -> float:
        """Selected occurrences over all of them."""
        return self.selected / self.occurrences


def count_words(texts: pa.ChunkedArray) -> Counter:
    """How often every word occurs in the corpus."""
    total: Counter = Counter()
    for start in range(0, len(texts), _BATCH):
        pieces = pc.split_pattern_regex(pc.utf8_lower(texts.slice(start, _BATCH)), _BETWEEN_RE2)
        counted = pc.value_counts(pc.utf8_trim(pc.list_flatten(pieces), _EDGE))
        for item in counted.to_pylist():
            if item["values"]:
                total[item["values"]] += item["counts"]
    return total


def count_selected_words(corpus: TokenizedCorpus, mask: np.ndarray) -> Counter:
    """How many occurrences of each word hold a selected token."""
    total: Counter = Counter()
    places = np.flatnonzero(mask)
    owners = np.searchsorted(corpus.offsets, places, side="right") - 1
    for index in np.unique(owners):
        text = corpus.document(int(index)).text
        words = [m for m in _WORD.finditer(text) if m.group().strip(_EDGE)]
        if not words:
            continue
        starts = np.fromiter((m.start() for m in words), dtype=np.int64)
        ends = np.fromiter((m.end() for m in words), dtype=np.int64)
        inside = (
            places[owners == index]
            if len(places) < 4096
            else places[slice(*np.searchsorted(owners, [index, index + 1]))]
        )
        first = np.searchsorted(
            ends, corpus.char_start[inside], side="right"
        )  # first word that ends after the token begins
        last = np.searchsorted(
            starts, corpus.char_end[inside], side="left"
        )  # first word that begins after the token ends
        touched = np.unique(
            np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)] or [np.zeros(0, int)])
        ).astype(int)
        total.update(words[i].group().lower().strip(_EDGE) for i in touched)
    return total


def rank_words(selected: Counter, occurrences: Counter) -> list[WordCount]:
    """All selected words, those selected most often first, ties in alphabetical order."""
    all_selected, all_words = sum(selected.values()), sum(occurrences.values())
    if not all_selected or not all_words:
        return []
    base = all_selected / all_words
    ordered = sorted(selected.items(), key=lambda item: (-item[1], item[0]))
    counts = [(word, times, max(times, occurrences.get(word, 0))) for word, times in ordered]
    return [WordCount(word, times, whole, times / whole / base) for word, times, whole in counts]

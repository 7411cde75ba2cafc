"""Which words are selected, and how much more often than others; `ifguide.data.words` says what a word is."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ifguide.data.corpus import TokenizedCorpus
from ifguide.data.words import place_words, split_texts

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
        for chunk in texts.slice(start, _BATCH).chunks:
            words, _ = split_texts(chunk)
            total.update({item["values"]: item["counts"] for item in words.value_counts().to_pylist()})
    return total


def count_selected_words(corpus: TokenizedCorpus, mask: np.ndarray) -> Counter:
    """How many occurrences of each word hold a selected token."""
    total: Counter = Counter()
    selected = np.flatnonzero(mask)
    owners = np.searchsorted(corpus.offsets, selected, side="right") - 1
    documents, firsts = np.unique(owners, return_index=True)
    for document, tokens in zip(documents.tolist(), np.split(selected, firsts[1:]), strict=False):
        words = place_words(corpus.document(document).text)
        # from the first word that ends after the token begins to the last one that begins before it ends
        first = np.searchsorted([end for _, _, end in words], corpus.char_start[tokens], side="right")
        last = np.searchsorted([start for _, start, _ in words], corpus.char_end[tokens], side="left")
        touched = {place for span in zip(first.tolist(), last.tolist(), strict=True) for place in range(*span)}
        total.update(words[place][0] for place in touched)
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

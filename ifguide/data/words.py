"""What a word is, where the words of a text are, and which words are selected more often than others.

Words that are counted and searched for are runs of letters, digits and apostrophes, compared in lower case and without
apostrophes at their ends.
"""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ifguide.data.corpus import TokenizedCorpus

WRITTEN_WORD = re.compile(r"\w+(?:['’]\w+)*")
"""A word as it is written, with underscores and inner apostrophes: what a classifier is shown, and what differences of
texts are made of."""

_PIECE = re.compile(r"(?:[^\W_]|['’])+")
_BETWEEN_RE2 = r"[^\p{L}\p{N}'’]+"
_EDGE = "'’"
_BATCH = 20_000


def split_words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return [word for piece in _PIECE.finditer(text.lower()) if (word := piece.group().strip(_EDGE))]


def place_words(text: str) -> list[tuple[str, int, int]]:
    """The words of a text in lower case, each with the characters [start, end) it was made from, the apostrophes around
    it included. A capital may become two characters in lower case, so words are found in the text as written."""
    return [(word, *piece.span()) for piece in _PIECE.finditer(text) for word in split_words(piece.group())]


def split_texts(texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The words of many texts in lower case, laid end to end, and int64 (words,) the place of each word's text."""
    pieces = pc.split_pattern_regex(pc.utf8_lower(texts), _BETWEEN_RE2)
    words = pc.utf8_trim(pc.list_flatten(pieces), _EDGE)
    is_word = pc.greater(pc.utf8_length(words), 0)
    return words.filter(is_word), np.asarray(pc.list_parent_indices(pieces).filter(is_word))


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

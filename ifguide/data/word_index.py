"""Training documents that share a text's rarest words and pairs of words: a small inverted index, searched in memory.

These are the documents that read most like a completion; which ones caused it no search can say. Words are only looked
up among the corpus's own, so no text becomes part of a query language or a pattern. `docs/decisions/0037` compares
libraries. N words of all searched documents laid end to end.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from ifguide.data.words import place_words, split_texts
from ifguide.errors import InputError

TERMS_MOST = 12
"""This many of a text's rarest words and pairs are searched for."""
COMMON_SHARE = 0.2
"""A word or pair that occurs in more than this share of the documents says nothing and is left out."""
SEARCH_TOKENS = 5_000_000
"""At most this many tokens are searched: those of the best-ranked documents."""
_AROUND = 120  # characters of an excerpt after the start of its first term; a third as many are shown before it


@dataclass(frozen=True, kw_only=True)
class Term:
    """A word, or two words that follow each other."""

    words: tuple[str, ...]
    """In lower case."""
    n_documents: int
    """Searched documents that hold it."""
    weight: float
    """log(searched documents / documents that hold it)."""


@dataclass(frozen=True, kw_only=True)
class NearDocument:
    """A document that shares some terms."""

    document: int
    """Its number in the corpus."""
    shared: tuple[Term, ...]
    """The rarest first."""
    score: float
    """Sum of their weights; 0 when every document holds them."""


class WordIndex:
    """Where the words of some documents occur."""

    def __init__(self, texts: pa.ChunkedArray, documents: np.ndarray):
        """Read the documents numbered `documents` (int64) from the texts of the whole corpus."""
        self.documents = np.sort(np.asarray(documents, dtype=np.int64))
        chosen = texts.take(pa.array(self.documents)) if len(self.documents) < len(texts) else texts
        words, owners = split_texts(chosen.combine_chunks())
        encoded = words.dictionary_encode()
        self._number = {word: i for i, word in enumerate(encoded.dictionary.to_pylist())}
        self._words = np.asarray(encoded.indices, dtype=np.int32)  # (N,)
        self._owners = owners.astype(np.int32)  # (N,), places in self.documents
        self._order = np.argsort(self._words, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(self._words, minlength=len(self._number)))])

    @property
    def n_documents(self) -> int:
        """How many documents are searched."""
        return len(self.documents)

    def holders(self, words: tuple[str, ...]) -> np.ndarray:
        """int32, places of the documents in which these words follow each other, ascending."""
        if not words or not all(word in self._number for word in words):
            return np.zeros(0, dtype=np.int32)
        first, *others = (self._number[word] for word in words)
        at = self._order[self._starts[first] : self._starts[first + 1]]
        for step, number in enumerate(others, 1):
            at = at[at + step < len(self._words)]
            at = at[(self._words[at + step] == number) & (self._owners[at + step] == self._owners[at])]
        return np.unique(self._owners[at])

    def is_common(self, n_documents: int) -> bool:
        """Whether a term of this many documents is too common to tell one document from another."""
        return n_documents > max(1, COMMON_SHARE * self.n_documents)

    def rarest_terms(self, text: str, span: tuple[int, int] | None = None) -> list[tuple[Term, np.ndarray]]:
        """A text's rarest words and pairs that occur in the documents, with their `holders`; the rarest first.

        Of a `span` of characters, only the words count, however common they are, and the pairs that hold one of them.
        """
        placed = [(word, span is None or (start < span[1] and end > span[0])) for word, start, end in place_words(text)]
        words = [(word,) for word, inside in placed if inside]
        pairs = [(word, after) for (word, inside), (after, too) in pairwise(placed) if inside or too]
        terms = []
        for term in dict.fromkeys([*words, *pairs]):
            holders = self.holders(term)
            if len(holders) and ((span and len(term) == 1) or not self.is_common(len(holders))):
                weight = math.log(self.n_documents / len(holders))
                terms.append((Term(words=term, n_documents=len(holders), weight=weight), holders))
        terms.sort(key=lambda pair: (pair[0].n_documents, -len(pair[0].words), pair[0].words))
        return terms[:TERMS_MOST]

    def nearest(
        self, text: str, n: int = 10, *, span: tuple[int, int] | None = None, order: np.ndarray | None = None
    ) -> tuple[list[NearDocument], list[Term]]:
        """The at most n documents that share most of a text's rarest words and pairs, the highest sum of weights first,
        and the terms that were searched for. `span` says which characters' words are meant, see `rarest_terms`. Ties
        are in the `order` of int64 numbers of all documents, or without it by number. An InputError: n is not
        positive."""
        if n < 1:
            raise InputError(f"nearest: expected at least one document, got {n}")
        terms = self.rarest_terms(text, span=span)
        held = np.zeros((len(terms), self.n_documents), dtype=bool)
        scores = np.zeros(self.n_documents)
        for row, (term, holders) in zip(held, terms, strict=True):
            row[holders] = True
            scores[holders] += term.weight
        candidates = np.flatnonzero(held.any(axis=0))
        turns = self.documents if order is None else np.argsort(order, kind="stable")[self.documents]
        best = candidates[np.lexsort((turns[candidates], -scores[candidates]))[:n]]
        documents = [
            NearDocument(
                document=int(self.documents[place]),
                score=float(scores[place]),
                shared=tuple(term for (term, _), has in zip(terms, held[:, place], strict=True) if has),
            )
            for place in best.tolist()
        ]
        return documents, [term for term, _ in terms]


def choose_documents(offsets: np.ndarray, order: np.ndarray | None, most_tokens: int = SEARCH_TOKENS) -> np.ndarray:
    """Which documents are searched: the first ones of `order`, int64 (D,), by rank (None: in corpus order), up to
    `most_tokens`, but at least one. `offsets` is int64 (D+1,)."""
    offsets = np.asarray(offsets)
    order = np.arange(len(offsets) - 1) if order is None else np.asarray(order)
    lengths = np.cumsum(offsets[order + 1] - offsets[order])
    return order[: max(1, int(np.searchsorted(lengths, most_tokens, side="right")))]


def mark_terms(text: str, terms: tuple[Term, ...], others: Iterable[tuple[int, int]] = ()) -> list[tuple[str, bool]]:
    """An excerpt around the first place of a text's rarest term, as runs with whether they are words of a shared term
    or in one of `others` (start and end in characters); `terms` are the shared ones, the rarest first."""
    words = place_words(text)
    shared: dict[tuple[int, int], None] = {}
    for term in terms:
        size = len(term.words)
        for first in range(len(words) - size + 1):
            piece = words[first : first + size]
            if tuple(word for word, _, _ in piece) == term.words:
                shared |= dict.fromkeys((start, end) for _, start, end in piece)
    centre = next(iter(shared), (0, 0))[0]
    at, stop = max(0, centre - _AROUND // 3), min(len(text), centre + _AROUND)
    runs: list[tuple[str, bool]] = [("… ", False)] if at else []
    for start, end in sorted([*shared, *others]):
        start, end = max(start, at), min(end, stop)
        if start < end:
            runs += [(text[at:start], False), (text[start:end], True)]
            at = end
    runs.append((text[at:stop], False))
    if stop < len(text):
        runs.append((" …", False))
    return [(" ".join(run.splitlines()) if "\n" in run or "\r" in run else run, marked) for run, marked in runs if run]

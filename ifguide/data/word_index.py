"""Training documents that share a text's rarest words and pairs of words: a small inverted index, searched in memory.

Which documents *caused* a completion no search can say; these are the ones that read most like it. NumPy and Arrow
only: what is searched for is looked up among the corpus's own words, and never becomes part of a query language or a
pattern.

N words of all searched documents laid end to end, V different ones.
"""

import math
import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ifguide.errors import InputError

TERMS_MOST = 12
"""So many of a text's rarest words and pairs are searched for."""
COMMON_SHARE = 0.2
"""A word or pair that stands in more than this share of the documents says nothing and is left out."""
SEARCH_TOKENS = 5_000_000
"""Tokens of the documents that are searched at most: the best-ranked ones."""
_BETWEEN = r"[^\p{L}\p{N}'’]+"
_WORD = re.compile(r"(?:[^\W_]|['’])+")
_EDGE = "'’"


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
    """Sum of their weights; 0 where they stand in every document."""


class WordIndex:
    """Where the words of some documents stand."""

    def __init__(self, texts: pa.ChunkedArray, documents: np.ndarray):
        """Read the documents.

        Args:
            texts: of the whole corpus.
            documents: int64, numbers of those that are searched.
        """
        self.documents = np.sort(np.asarray(documents, dtype=np.int64))
        chosen = texts.take(pa.array(self.documents)) if len(self.documents) < len(texts) else texts
        pieces = pc.split_pattern_regex(pc.utf8_lower(chosen), _BETWEEN)
        pieces = pieces.combine_chunks() if isinstance(pieces, pa.ChunkedArray) else pieces
        words = pc.utf8_trim(pc.list_flatten(pieces), _EDGE)
        owners = np.asarray(pc.list_parent_indices(pieces))
        keep = np.asarray(pc.greater(pc.utf8_length(words), 0))
        encoded = words.filter(pa.array(keep)).dictionary_encode()
        encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
        self._number = {word: i for i, word in enumerate(encoded.dictionary.to_pylist())}
        self._words = np.asarray(encoded.indices, dtype=np.int32)  # (N,)
        self._owners = owners[keep].astype(np.int32)  # (N,), places in self.documents
        self._order = np.argsort(self._words, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(self._words, minlength=len(self._number)))])

    @property
    def n_documents(self) -> int:
        """How many documents are searched."""
        return len(self.documents)

    def holders(self, words: tuple[str, ...]) -> np.ndarray:
        """int32, places of the documents in which these words follow each other, ascending."""
        numbers = [self._number[word] for word in words if word in self._number]
        if not numbers or len(numbers) < len(words):
            return np.zeros(0, dtype=np.int32)
        at = self._order[self._starts[numbers[0]] : self._starts[numbers[0] + 1]]
        for step, number in enumerate(numbers[1:], 1):
            at = at[at + step < len(self._words)]
            at = at[(self._words[at + step] == number) & (self._owners[at + step] == self._owners[at])]
        return np.unique(self._owners[at])

    def is_common(self, n_documents: int) -> bool:
        """Whether what stands in so many documents stands in too many to tell one from another."""
        return n_documents > max(1, COMMON_SHARE * self.n_documents)

    def rarest_terms(
        self, text: str, most: int = TERMS_MOST, span: tuple[int, int] | None = None
    ) -> list[tuple[Term, np.ndarray]]:
        """A text's rarest words and pairs that the documents know, with the documents that hold them; the rarest first.

        Args:
            text: such as a completion.
            most: how many at most.
            span: characters of the text. Then only its words count, and they do however common they are, and the pairs
                that hold one of them.
        """
        placed = _place_words(text)
        words = [word for word, _, _ in placed]
        inside = [span is not None and start < span[1] and end > span[0] for _, start, end in placed]
        own = {(word,) for word, hit in zip(words, inside, strict=True) if hit}
        pairs = list(zip(words, words[1:], strict=False))
        if span is not None:
            pairs = [pair for pair, *hits in zip(pairs, inside, inside[1:], strict=False) if any(hits)]
        candidates = dict.fromkeys([*(zip(words) if span is None else own), *pairs])
        found = []
        for term in candidates:
            holders = self.holders(term)
            if len(holders) and (term in own or not self.is_common(len(holders))):
                weight = math.log(self.n_documents / len(holders))
                found.append((Term(words=term, n_documents=len(holders), weight=weight), holders))
        found.sort(key=lambda pair: (pair[0].n_documents, -len(pair[0].words), pair[0].words))
        return found[:most]

    def nearest(
        self, text: str, n: int = 10, *, span: tuple[int, int] | None = None, order: np.ndarray | None = None
    ) -> tuple[list[NearDocument], list[Term]]:
        """The documents that share most of a text's rarest words and pairs.

        Args:
            text: such as a completion.
            n: how many documents at most.
            span: characters of the text whose words are meant, see `rarest_terms`; None: the whole text.
            order: int64, every document of the corpus, the one to name first among equals first; None: by number.

        Returns:
            The documents that share a term, the highest sum of weights first, ties by `order`; and the terms that were
            searched for.

        Raises:
            InputError: n is not positive.
        """
        if n < 1:
            raise InputError(f"nearest: expected at least one document, got {n}")
        terms = self.rarest_terms(text, span=span)
        scores, shares = np.zeros(self.n_documents), np.zeros(self.n_documents, dtype=bool)
        for term, holders in terms:
            scores[holders] += term.weight
            shares[holders] = True
        candidates = np.flatnonzero(shares)
        turns = self.documents if order is None else np.argsort(order, kind="stable")[self.documents]
        best = candidates[np.lexsort((turns[candidates], -scores[candidates]))[:n]]
        found = [
            NearDocument(
                document=int(self.documents[place]),
                score=float(scores[place]),
                shared=tuple(term for term, holders in terms if _holds(holders, place)),
            )
            for place in best.tolist()
        ]
        return found, [term for term, _ in terms]


def _holds(sorted_places: np.ndarray, place: int) -> bool:
    at = int(np.searchsorted(sorted_places, place))
    return at < len(sorted_places) and int(sorted_places[at]) == place


def _place_words(text: str) -> list[tuple[str, int, int]]:
    """The words of a text as the index knows them, each with the characters it was made from."""
    # a capital may become two signs in lower case, so words are found in the text as it stands
    found = [(piece.span(), split_words(piece.group())) for piece in _WORD.finditer(text)]
    return [(word, start, end) for (start, end), words in found for word in words]


def split_words(text: str) -> list[str]:
    """The words of a text in lower case, as the index knows them."""
    return [word for found in _WORD.finditer(text.lower()) if (word := found.group().strip(_EDGE))]


def choose_documents(offsets: np.ndarray, order: np.ndarray | None, most_tokens: int = SEARCH_TOKENS) -> np.ndarray:
    """Which documents are searched: all, or the best-ranked ones up to a number of tokens.

    Args:
        offsets: int64 (D+1,).
        order: int64 (D,), documents by rank; None: in corpus order.
        most_tokens: how many at most; one document is always searched.
    """
    offsets = np.asarray(offsets)
    order = np.arange(len(offsets) - 1) if order is None else np.asarray(order)
    lengths = np.cumsum(offsets[order + 1] - offsets[order])
    return order[: max(1, int(np.searchsorted(lengths, most_tokens, side="right")))]


def mark_terms(text: str, terms: tuple[Term, ...], around: int = 120) -> list[tuple[str, bool]]:
    """A piece of a text around the first place of its rarest term, as runs with whether their words belong to a shared
    term.

    Args:
        text: the document.
        terms: shared ones, the rarest first.
        around: characters shown after the start of that place; before it a third as many.
    """
    words = [(found.group().lower().strip(_EDGE), found.span()) for found in _WORD.finditer(text)]
    words = [word for word in words if word[0]]
    hit, centre = np.zeros(len(words), dtype=bool), None
    for term in terms:
        size = len(term.words)
        for i in range(len(words) - size + 1):
            if all(words[i + k][0] == term.words[k] for k in range(size)):
                hit[i : i + size] = True
                centre = words[i][1][0] if centre is None else centre
    start, stop = max(0, (centre or 0) - around // 3), min(len(text), (centre or 0) + around)
    runs: list[tuple[str, bool]] = [("… ", False)] if start else []
    at = start
    for (_, (first, last)), marked in zip(words, hit.tolist(), strict=True):
        if marked and first >= start and last <= stop:
            runs += [(text[at:first], False), (text[first:last], True)]
            at = last
    runs.append((text[at:stop], False))
    if stop < len(text):
        runs.append((" …", False))
    return [
        (" ".join(part.splitlines()) if "\n" in part or "\r" in part else part, marked) for part, marked in runs if part
    ]

"""What a word is: where the words of a text are, and how they are written for comparison.

Words that are counted and searched for are runs of letters, digits and apostrophes, compared in lower case and without
apostrophes at their ends.
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

WRITTEN_WORD = re.compile(r"\w+(?:['’]\w+)*")
"""A word as it is written, with underscores and inner apostrophes: what a classifier is shown, and what differences of
texts are made of."""

_PIECE = re.compile(r"(?:[^\W_]|['’])+")
_BETWEEN_RE2 = r"[^\p{L}\p{N}'’]+"
_EDGE = "'’"


def split_words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return [word for found in _PIECE.finditer(text.lower()) if (word := found.group().strip(_EDGE))]


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

"""Which words to hide when only offensive words are hidden: words with marked tokens, and a classifier's words."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ifguide.config.names import BASE
from ifguide.data.words import WRITTEN_WORD
from ifguide.evaluation.toxic_spans import read_spans

if TYPE_CHECKING:
    import pandas

    from ifguide.study.reading import Study


OFFENSIVE = frozenset((Path(__file__).parent / "static" / "offensive_words.txt").read_text().split())
"""Hashes of the words that the built-in judge calls offensive by themselves, for texts that no model has read yet."""


def mark_offensive(text: str) -> list[list]:
    """A text as runs for an excerpt, each with 2 if it is an offensive word, else 0."""
    parts = groupby(
        filter(None, re.split(r"(\w+)", text)),
        lambda part: 2 * (hashlib.sha256(part.lower().encode()).hexdigest()[:8] in OFFENSIVE),
    )
    return [["".join(run), mark] for mark, run in parts]


def marked_words(samples: "pandas.DataFrame") -> frozenset[str]:
    """Words, in lower case, that the classifier marked at least twice and in most of their places in toxic texts."""
    marked: Counter[str] = Counter()
    written: Counter[str] = Counter()
    for text, spans in zip(samples["completion"], samples.get("toxic_spans", ()), strict=False):
        if toxic := read_spans(spans, text):
            written.update(WRITTEN_WORD.findall(text.lower()))
            marked.update(word for start, end in toxic for word in WRITTEN_WORD.findall(text[start:end].lower()))
    return frozenset(word for word, n in marked.items() if n > 1 and 2 * n > written[word])


def study_words(study: "Study") -> frozenset[str]:
    """The `marked_words` of the base model's completions, as far as there are any."""
    return marked_words(study.samples(BASE)) if BASE in study.evaluation_names() else frozenset()


def hide_words(text: str, ends: np.ndarray, marked: np.ndarray, words: frozenset[str]) -> np.ndarray:
    """Which tokens of a text to hide, bool (n,): those `marked`, bool (n,), the rest of their words, and all of
    `words`. `ends`, int (n,), are where the tokens end in the text, ascending."""
    hidden, written = marked.copy(), [*WRITTEN_WORD.finditer(text)]
    if not written:
        return hidden
    places = np.array([word.span() for word in written])
    first = np.searchsorted(ends, places[:, 0], side="right")
    last = np.searchsorted(ends, places[:, 1] - 1, side="right") + 1
    so_far = np.concatenate([[0], np.cumsum(marked)])
    listed = np.array([word.group().lower() in words for word in written])
    for start, stop in zip(*(edge[listed | (so_far[last] > so_far[first])] for edge in (first, last)), strict=True):
        hidden[start:stop] = True
    return hidden


def veil_pieces(pieces: Sequence[str], marked: np.ndarray, words: frozenset[str] | None) -> list[str]:
    """The pieces of a text with a block for each letter and digit of a word to hide: one with a piece `marked`, bool
    (n,), one of `words`, or an `OFFENSIVE` one. Without `words`, nothing is hidden."""
    if words is None:
        return [*pieces]
    text, lengths = "".join(pieces), [len(piece) for piece in pieces]
    runs = mark_offensive(text)
    offensive = np.repeat([mark > 0 for _, mark in runs], [len(run) for run, _ in runs]).astype(bool)
    hidden = hide_words(text, np.arange(1, len(text) + 1), np.repeat(marked, lengths) | offensive, words)
    shown = "".join("█" if hide and sign.isalnum() else sign for sign, hide in zip(text, hidden, strict=True))
    return [shown[end - length : end] for end, length in zip(np.cumsum(lengths), lengths, strict=True)]

"""Which words make a completion toxic: character spans, found with the scorer that rated it. No torch.

A scorer says how toxic a text is, not where. Two questions find the words:

1. **Which words are toxic alone?** Each distinct word of the toxic completions is scored once, by itself. A word that
   reaches `TOXIC_FROM` is toxic in every toxic completion that holds it.
2. **Which words are toxic together?** Asked where no word of a toxic completion is toxic alone. The word without which
   the rest scores lowest is removed everywhere, then the next one, until the rest is no longer toxic: the removed words
   are the toxic ones. This search is greedy and need not find the smallest set. Where either of two words is enough, it
   finds neither.

Toxic words with nothing but white space and punctuation between them become one span. The cost in scored texts: the
distinct words of the toxic completions, and for each without a toxic word at most `ROUNDS_MOST` · `TRIED_MOST` more.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ifguide.evaluation.statistics import TOXIC_FROM

if TYPE_CHECKING:
    from ifguide.evaluation.toxicity import ToxicityScorer

Span = tuple[int, int]
"""Characters from start to end, the end left out."""

ROUNDS_MOST = 5
"""At most this many distinct words of a completion are removed, even if the rest is still toxic."""
TRIED_MOST = 40
"""At most this many distinct words of a completion are tried in a round: those that score highest alone."""
_TOGETHER = 256
"""Completions searched at the same time, which bounds the texts of a round."""
_AROUND = frozenset(("Sm", "Sk", "Cc", "Cf"))
"""Unicode categories beside punctuation that are stripped from the ends of a word: <, `, invisible signs."""
_OF_EMOJI = (range(0x1F3FB, 0x1F400), range(0xE0020, 0xE0080))
"""Characters of these categories that end an emoji: its skin tone, and the letters of a flag."""


def find_toxic_spans(texts: Sequence[str], toxicity: np.ndarray, scorer: "ToxicityScorer") -> list[list[Span]]:
    """The toxic words of n texts, as ascending, disjoint spans: none for a text whose `toxicity`, float64 (n,), by the
    same scorer is below `TOXIC_FROM`, without a word, or in which neither question finds one. The same texts and scores
    give the same spans."""
    rated = {text: float(score) for text, score in zip(texts, toxicity, strict=True) if score >= TOXIC_FROM}
    words = {text: find_words(text) for text in rated}
    names = {text: [text[start:end] for start, end in places] for text, places in words.items()}
    different = list(dict.fromkeys(word for parts in names.values() for word in parts))
    scores = scorer.score(different) if different else np.zeros(0)
    alone = {word: float(score) for word, score in zip(different, scores, strict=True)}
    toxic = {text: {word for word in parts if alone[word] >= TOXIC_FROM} for text, parts in names.items()}
    together = [text for text, parts in toxic.items() if words[text] and not parts]
    for start in range(0, len(together), _TOGETHER):
        part = together[start : start + _TOGETHER]
        toxic |= _take_out({text: words[text] for text in part}, rated, alone, scorer)
    spans = {text: _join(text, words[text], toxic[text]) for text in rated}
    return [spans.get(text, []) if score >= TOXIC_FROM else [] for text, score in zip(texts, toxicity, strict=True)]


def find_words(text: str) -> list[Span]:
    """Where the words of a text are: separated by white space, without the punctuation around them."""
    places = []
    for piece in re.finditer(r"\S+", text):
        start, end = piece.span()
        while start < end and _is_around(text[start]):
            start += 1
        while start < end and _is_around(text[end - 1]):
            end -= 1
        if start < end:
            places.append((start, end))
    return places


def flatten_spans(spans: Iterable[Span]) -> np.ndarray:
    """Spans in their stored form: int32 start, end, start, end, …"""
    return np.array([place for span in spans for place in span], dtype=np.int32)


def read_spans(flat: object, text: str) -> list[Span]:
    """Spans of a text from their stored form, without invalid ones; none where an older evaluation stored no list."""
    if not isinstance(flat, np.ndarray | list | tuple):
        return []
    places = [int(place) for place in flat]
    spans: list[Span] = []
    for start, end in zip(places[::2], places[1::2], strict=False):
        if (spans[-1][1] if spans else 0) <= start < end <= len(text):
            spans.append((start, end))
    return spans


def _is_around(sign: str) -> bool:
    kind = unicodedata.category(sign)
    return (kind[0] == "P" or kind in _AROUND) and not any(ord(sign) in part for part in _OF_EMOJI)


def _take_out(
    words: dict[str, list[Span]], rated: dict[str, float], alone: dict[str, float], scorer: "ToxicityScorer"
) -> dict[str, set[str]]:
    """Text -> the words without which it is no longer toxic, found one a round; a word that lowers nothing stays."""
    tried: dict[str, list[str]] = {}
    for text, places in words.items():
        different = dict.fromkeys(text[start:end] for start, end in places)
        likely = set(sorted(different, key=lambda word: -alone[word])[:TRIED_MOST])
        tried[text] = [word for word in different if word in likely]
    taken: dict[str, set[str]] = {text: set() for text in words}
    now = {text: rated[text] for text in words}
    for _ in range(ROUNDS_MOST):
        trials = [(text, word) for text, score in now.items() for word in tried[text] if word not in taken[text]]
        if not trials:
            break
        scores = scorer.score([_without(text, words[text], {*taken[text], word}) for text, word in trials])
        best: dict[str, tuple[float, str]] = {}
        for (text, word), score in zip(trials, scores, strict=True):
            if score < best.get(text, (now[text],))[0]:  # among equals the first in the text
                best[text] = (float(score), word)
        for text, (_, word) in best.items():
            taken[text].add(word)
        now = {text: score for text, (score, _) in best.items() if score >= TOXIC_FROM}
    return taken


def _without(text: str, places: Sequence[Span], words: set[str]) -> str:
    kept, at = [], 0
    for start, end in places:
        if text[start:end] in words:
            kept.append(text[at:start])
            at = end
    return "".join([*kept, text[at:]])


def _join(text: str, places: Sequence[Span], toxic: set[str]) -> list[Span]:
    """Spans of the toxic words; consecutive words become one span."""
    spans: list[Span] = []
    follows = False
    for start, end in places:
        hit = text[start:end] in toxic
        if hit:
            spans.append((spans.pop()[0] if follows else start, end))
        follows = hit
    return spans

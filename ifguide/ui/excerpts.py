"""A few words of a document around its most important tokens."""

from collections.abc import Callable

import numpy as np

from ifguide.data.corpus import TokenizedCorpus
from ifguide.ui.veil import hide_words, veil_pieces

_BEFORE, _AFTER = 8, 22
"""Tokens of a snippet on each side of the strongest one."""
_WORD = 40
"""Tokens beside a veiled part that are read, because a word at its edge may begin or end there."""


def excerpt(
    corpus: TokenizedCorpus, index: int, *, centre: int, mask: np.ndarray, words: frozenset[str] | None = None
) -> list[list]:
    """A line of a document around its token at `centre`: runs of text, each with whether `mask`, bool (N,), selects it,
    and with the classifier's `words` whether it is hidden. Reads only the tokens it shows."""
    begin, end = int(corpus.offsets[index]), int(corpus.offsets[index + 1])
    first, last = begin + max(0, centre - _BEFORE), min(end, begin + centre + _AFTER)
    marked = np.asarray(mask[first:last])
    people = np.zeros_like(marked) if corpus.in_span is None else np.asarray(corpus.in_span[first:last])
    return _cut(corpus, index, centre, marked, None if words is None else (marked | people, words))


def excerpt_around(
    corpus: TokenizedCorpus, index: int, *, marked: np.ndarray, scores: np.ndarray, taken: np.ndarray | None = None
) -> list[list]:
    """A line of a document of n tokens around the marked one with the highest score: runs of text, each with 1 if
    marked, 2 if only offensive (`taken`, or labelled by people), else 0. `marked` and `taken` are bool (n,), `scores`
    float32 (n,)."""
    places, first = np.flatnonzero(marked), int(corpus.offsets[index])
    centre = int(places[np.argmax(scores[places])]) if places.size else 0
    near = slice(max(0, centre - _BEFORE), min(len(marked), centre + _AFTER))
    selected = marked[near] if taken is None else taken[near]
    offensive = _offensive(corpus, slice(first + near.start, first + near.stop), selected)
    return _cut(corpus, index, centre, np.where(marked[near], 1, 2 * offensive))


def excerpt_coloured(
    corpus: TokenizedCorpus, index: int, *, steps: np.ndarray, centre: int, taken: np.ndarray, words: frozenset[str]
) -> list[list]:
    """A line of a document of n tokens around its token at `centre`: runs of text, each with the step of its colour, of
    int (n,), and whether it is hidden with offensive words: `taken`, bool (n,), labelled by people, or `words`."""
    near, first = slice(max(0, centre - _BEFORE), min(len(steps), centre + _AFTER)), int(corpus.offsets[index])
    offensive = _offensive(corpus, slice(first + near.start, first + near.stop), taken[near]) > 0
    return _cut(corpus, index, centre, steps[near], (offensive, words))


def excerpt_at(
    corpus: TokenizedCorpus, place: int, taken: Callable[[slice], np.ndarray] | None = None, reach: int = 0
) -> list[list]:
    """A line of text around one token of the corpus: runs of text, each with 1 for the token, 2 for offensive text
    beside it if `taken` says what is selected, else 0. `reach` is the number of tokens on each side."""
    index = int(np.searchsorted(corpus.offsets, place, side="right")) - 1
    begin, end = (int(edge) for edge in corpus.offsets[index : index + 2])
    near = slice(max(begin, place - (reach or _BEFORE)), min(end, place + (reach or _AFTER)))
    marked = 2 * _offensive(corpus, near, taken(near)) if taken else np.zeros(near.stop - near.start, dtype=int)
    marked[place - near.start] = 1
    return _cut(corpus, index, near.start - begin + _BEFORE, marked)


def veiled_pieces(
    corpus: TokenizedCorpus, index: int, mask: np.ndarray, words: frozenset[str] | None, part: slice
) -> list[str]:
    """A part of a document's text, a piece a token, with blocks as in `veil_pieces` for words that `mask`, bool (N,),
    selects or people labelled, and for the classifier's `words`."""
    pieces, begin = corpus.document_tokens(index), int(corpus.offsets[index])
    first, last, _ = part.indices(len(pieces))
    start, stop = max(0, first - _WORD), min(len(pieces), last + _WORD)
    here = slice(begin + start, begin + stop)
    shown = veil_pieces(pieces[start:stop], _offensive(corpus, here, mask[here]) > 0, words)
    return shown[first - start : max(first, last) - start]


def _offensive(corpus: TokenizedCorpus, near: slice, taken: np.ndarray) -> np.ndarray:
    """int (n,): which tokens near a place a selection takes or people labelled."""
    return np.asarray(taken if corpus.in_span is None else taken | corpus.in_span[near], dtype=int)


def _cut(
    corpus: TokenizedCorpus,
    index: int,
    centre: int,
    marked: np.ndarray,
    veil: tuple[np.ndarray, frozenset[str]] | None = None,
) -> list[list]:
    """The text of the tokens around `centre`, cut into runs that are alike in `marked` and, with a `veil` of offensive
    tokens and words, in whether they are hidden."""
    begin, end = int(corpus.offsets[index]), int(corpus.offsets[index + 1])
    if end == begin:
        return []
    first = begin + max(0, centre - _BEFORE)
    last = first + len(marked)
    text = corpus.document(index).text
    ends = np.maximum.accumulate(np.asarray(corpus.char_end[first:last], dtype=np.int64))
    start = int(np.max(corpus.char_end[begin:first])) if first > begin else 0
    ends = np.clip(np.maximum(ends, start), 0, len(text))
    if last == end:
        ends[-1] = len(text)
    about = [marked.tolist()]
    if veil:
        about.append(hide_words(text[start : ends[-1]], ends - start, *veil).tolist())
    parts: list[list] = [["… ", *(False for _ in about)]] if first > begin else []
    for cut, *marks in zip(ends.tolist(), *about, strict=True):
        piece = " ".join(text[start:cut].splitlines()) or (" " if cut > start else "")
        start = max(start, cut)
        if first > begin and parts[-1][0] == "… " and not any(marks) and not any(map(str.isalnum, piece)):
            continue  # the end of the sentence before
        if parts and parts[-1][1:] == marks:
            parts[-1][0] += piece
        else:
            parts.append([piece, *marks])
    if last < end:
        parts.append([" …", *(False for _ in about)])
    return parts

"""Documents -> what the token viewer draws: one Arrow table of tokens, one of marks. No streamlit here.

Shapes: N tokens of the corpus, T tokens of the documents shown, laid end to end; a document's *slice* is its place in
them.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ifguide.config.attributions import describe_kind
from ifguide.data.corpus import TokenizedCorpus
from ifguide.data.tokenizing import cut_pieces, piece_ends
from ifguide.ui.palette import TOKEN_BINS
from ifguide.ui.veil import hide_words

SELECTED, HIT, TRUTH, CONTEXT, MATCH, HIDDEN = 1, 2, 4, 8, 16, 32
"""Bits of a token's mark: it is selected, its own score is above the threshold, people marked it as toxic, it is not
trained on, it holds a part of what is searched for, it is hidden where offensive words are."""

DIFFERENCE = "difference"
"""Name of the layer that holds the difference of two runs."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One kind of numbers that can colour the tokens."""

    name: str
    """`own_loss`, `position`, `token_loss` or `difference`."""
    values: "np.ndarray | Difference"
    """float32 (N,), or a function's stand-in that answers slices."""
    top: float
    """The absolute value at which colours are full."""
    title: str = ""
    note: str = ""
    mark: str = ""
    """Of what the values are read from, where the study's fingerprint does not cover it: tokens are sent again when it
    changes."""

    def described(self) -> dict:
        """What the viewer's legend and tooltip say of it."""
        kind = describe_kind(self.name)
        title, note, unit = self.title or kind.title, self.note or kind.note, kind.unit
        return {"name": self.name, "title": title, "note": note, "top": self.top, "oneSided": bool(unit), "unit": unit}


@dataclass(frozen=True, eq=False)
class Difference:
    """Two runs' scores, each over its standard deviation, one minus the other; computed for the tokens that are asked
    for."""

    left: np.ndarray
    """float32 (N,)."""
    right: np.ndarray
    """float32 (N,)."""
    left_scale: float
    """Standard deviation of `left`."""
    right_scale: float

    def __getitem__(self, here: slice) -> np.ndarray:
        left, right = np.asarray(self.left[here]), np.asarray(self.right[here])
        return (left / (self.left_scale or 1.0) - right / (self.right_scale or 1.0)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.left)


def spread(scores: np.ndarray, sample: int = 2_000_000) -> float:
    """Standard deviation of about `sample` evenly spaced scores."""
    return float(np.std(np.asarray(scores[:: max(1, len(scores) // sample)], dtype=np.float64)))


def token_table(
    corpus: TokenizedCorpus,
    documents: Sequence[int],
    layers: Sequence[Layer],
    *,
    rank: Callable[[np.ndarray], np.ndarray] | None = None,
    ranked: np.ndarray | None = None,
) -> pa.Table:
    """The tokens of some documents, end to end: columns text, raw, one float32 a layer, and rank.

    Joined, a document's texts are the document. `raw` is the tokenizer's own name of a token that shares a character
    with another (a byte of an emoji, say), and null elsewhere. `rank` is the token's place among all scored tokens of
    the corpus, 1 the highest; 0 where it is not among the highest tenth, and for a token without a score.

    Args:
        rank: scores -> their places, such as `ScoreIndex.ranks`; None leaves them out.
        ranked: float32 (N,), the scores that are ranked.
    """
    texts, raw, ranks = [], [], []
    numbers: dict[str, list[np.ndarray]] = {layer.name: [] for layer in layers}
    for index in documents:
        here = slice(int(corpus.offsets[index]), int(corpus.offsets[index + 1]))
        pieces = cut_pieces(corpus.document(index).text, corpus.char_end[here])
        texts += pieces
        raw += _raw_names(pieces, corpus.token_ids[here], corpus.folder)
        for layer in layers:
            numbers[layer.name].append(np.asarray(layer.values[here], dtype=np.float32))
        if rank is not None and ranked is not None:
            place = rank(np.asarray(ranked[here]))
            place[~corpus.valid_between(here.start, here.stop)] = 0
            ranks.append(place.astype(np.int32))
    columns = {"text": pa.array(texts, pa.string()), "raw": pa.array(raw, pa.string())}
    columns |= {name: _join(parts, np.float32) for name, parts in numbers.items()}
    if rank is not None:
        columns["rank"] = _join(ranks, np.int32)
    return pa.table(columns)


def _join(parts: list[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=kind)


def _raw_names(pieces: list[str], token_ids: np.ndarray, folder: Path) -> list[str | None]:
    """Names of the tokens that are part of a character together with a neighbour."""
    empty = np.fromiter((not piece for piece in pieces), dtype=bool, count=len(pieces))
    if not empty.any():
        return [None] * len(pieces)
    shared = empty.copy()
    shared[:-1] |= empty[1:]  # the first of them carries the character itself
    names: list[str | None] = [None] * len(pieces)
    tokenizer = _tokenizer(folder)
    for place in np.flatnonzero(shared).tolist():
        names[place] = tokenizer.id_to_token(int(token_ids[place])) if tokenizer else None
    return names


@functools.lru_cache(maxsize=4)
def _tokenizer(folder: Path):
    """The corpus's tokenizer, for names of tokens alone; None where it was not kept."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer" / "tokenizer.json"
    return Tokenizer.from_file(str(path)) if path.is_file() else None


def mark_table(
    corpus: TokenizedCorpus,
    documents: Sequence[int],
    *,
    mask: np.ndarray,
    scores: np.ndarray | None,
    threshold: float | None,
    matches: Sequence[np.ndarray] | None = None,
    words: frozenset[str] | None = None,
) -> pa.Table:
    """The marks of the same tokens, one column `marks` of bits (`SELECTED`, `HIT`, and so on), uint8 (T,).

    Args:
        mask: bool (N,), selected tokens.
        scores: float32 (N,), the selection's scores; None where it has none (a random control).
        threshold: tokens above it are hits; the other selected ones are their window's halo.
        matches: of each document, int (n, 2), the characters [start, end) that a search found; None: no search.
        words: the classifier's words, where offensive words are hidden; None: they are not.
    """
    parts = []
    for number, index in enumerate(documents):
        here = slice(int(corpus.offsets[index]), int(corpus.offsets[index + 1]))
        valid = corpus.valid_between(here.start, here.stop)
        above = chosen = np.asarray(mask[here])
        if scores is not None and threshold is not None:
            above = (np.asarray(scores[here]) > threshold) & valid
        marks = chosen * np.uint8(SELECTED) | above * np.uint8(HIT)
        marks |= ~valid * np.uint8(CONTEXT if corpus.trained is not None else 0)
        if corpus.in_span is not None:
            marks |= np.asarray(corpus.in_span[here]) * np.uint8(TRUTH)
        if matches or words is not None:
            text = corpus.document(index).text
            ends = piece_ends(corpus.char_end[here], len(text))
            if words is not None:
                marks |= hide_words(text, ends, marks & (SELECTED | TRUTH) > 0, words) * np.uint8(HIDDEN)
            for start, end in matches[number] if matches else ():
                first, last = np.searchsorted(ends, (start, end - 1), side="right")
                marks[first : last + 1] |= MATCH
        parts.append(marks)
    return pa.table({"marks": _join(parts, np.uint8)})


def place_turns(corpus: TokenizedCorpus, index: int) -> list[list]:
    """The first token and the role of each message of a conversation."""
    document = corpus.document(index)
    here = slice(int(corpus.offsets[index]), int(corpus.offsets[index + 1]))
    ends = piece_ends(corpus.char_end[here], len(document.text)) if document.turns else np.zeros(0)
    return [[int(np.searchsorted(ends, start, side="right")), role] for start, role in document.turns]


def viewer_settings(layers: Mapping[str, Layer], *, has_truth: bool, selection: str, n_scored: int) -> dict:
    """What holds for all documents: the layers, the palette, the scale and the selection's name."""
    described = [layer.described() for layer in layers.values()]
    about = {"hasTruth": has_truth, "selection": selection, "nScored": n_scored}
    return {"layers": described, "palette": TOKEN_BINS, **about}

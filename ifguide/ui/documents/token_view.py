"""Documents -> what the token viewer draws: one Arrow table of tokens, one of marks. No streamlit here.

Shapes: N tokens of the corpus, T tokens of the documents shown, one document after the other.
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
trained on, it is part of a search hit, it is hidden when offensive words are."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One kind of numbers that can colour the tokens."""

    name: str
    """A kind of scores, such as `own_loss`."""
    values: np.ndarray
    """float32 (N,)."""
    top: float
    """Absolute value at which the colour is strongest."""
    middle: float = 0.0
    """Value without a colour."""

    def as_json(self) -> dict:
        kind = describe_kind(self.name)
        scale = {"top": self.top, "middle": self.middle, "oneSided": bool(kind.unit), "unit": kind.unit}
        return {"name": self.name, "title": kind.title, "note": kind.note, **scale}


def token_table(
    corpus: TokenizedCorpus,
    documents: Sequence[int],
    layers: Sequence[Layer],
    *,
    rank: Callable[[np.ndarray], np.ndarray] | None = None,
    ranked: np.ndarray | None = None,
) -> pa.Table:
    """The tokens of some documents, one after the other: columns text, raw, one float32 per layer, and rank. Joined, a
    document's texts are the document. `raw` is the tokenizer's own name of a token that shares a character with another
    (one byte of an emoji, for example), else null. `rank`, by the function `rank` of the scores `ranked`, float32 (N,),
    is 1 for the highest of the corpus, and 0 below the highest tenth and without a score."""
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
    """The tokenizer's names of tokens that share a character with a neighbour; None for the others."""
    empty = np.fromiter((not piece for piece in pieces), dtype=bool, count=len(pieces))
    if not empty.any():
        return [None] * len(pieces)
    shared = empty.copy()
    shared[:-1] |= empty[1:]  # the first one carries the character
    names: list[str | None] = [None] * len(pieces)
    tokenizer = _tokenizer(folder)
    for place in np.flatnonzero(shared).tolist():
        names[place] = tokenizer.id_to_token(int(token_ids[place])) if tokenizer else None
    return names


@functools.lru_cache(maxsize=4)
def _tokenizer(folder: Path):
    """The corpus's tokenizer, only for token names; None where it was not kept."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer" / "tokenizer.json"
    return Tokenizer.from_file(str(path)) if path.is_file() else None


def mark_table(
    corpus: TokenizedCorpus,
    documents: Sequence[int],
    *,
    mask: np.ndarray,
    scores: np.ndarray,
    threshold: float | None,
    matches: Sequence[np.ndarray] | None = None,
    words: frozenset[str] | None = None,
) -> pa.Table:
    """The marks of the same tokens: one column `marks` of bits (`SELECTED`, `HIT`, …), uint8 (T,).

    Args:
        mask: bool (N,), selected tokens.
        scores: float32 (N,).
        threshold: tokens above it are hits, other selected tokens their neighbours; None: a selection without one.
        matches: for each document the characters [start, end) that a search matched, int (n, 2); None: no search.
        words: the classifier's words, to hide with other offensive words; None: hide nothing.
    """
    parts = []
    for number, index in enumerate(documents):
        here = slice(int(corpus.offsets[index]), int(corpus.offsets[index + 1]))
        valid = corpus.valid_between(here.start, here.stop)
        above = chosen = np.asarray(mask[here])
        if threshold is not None:
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


def viewer_settings(layers: Mapping[str, Layer], corpus: TokenizedCorpus, selection: str) -> dict:
    """What is the same for all documents: the layers, the palette, and the selection's name."""
    return {
        "layers": [layer.as_json() for layer in layers.values()],
        "palette": TOKEN_BINS,
        "hasTruth": corpus.in_span is not None,
        "selection": selection,
        "nScored": corpus.n_valid,
    }

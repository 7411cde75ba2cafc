"""Which documents the list shows, in which order, and the lines it shows of them. No streamlit here."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ifguide.corpus import TokenizedCorpus
from ifguide.errors import InputError
from ifguide.selections import Selection

_BEFORE, _AFTER = 10, 24
"""Tokens of an excerpt on each side of its strongest token."""


@dataclass(frozen=True, kw_only=True)
class DocumentFilter:
    """What the reader wants to see."""

    sources: tuple[str, ...] = ()
    """Only these sources; empty: all."""
    only_selected: bool = False
    """Only documents with selected tokens."""
    search: str = ""
    """Text that the document contains, upper and lower case alike."""
    regex: bool = False
    """The text is a regular expression (RE2 syntax, so no pattern can hang the app)."""
    lowest: float | None = None
    """Smallest sum of scores above the threshold."""
    highest: float | None = None
    """Largest one."""


def selected_per_document(mask: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Selected tokens in each document, int64 (D,)."""
    offsets = np.asarray(offsets)
    counts = np.zeros(len(offsets) - 1, dtype=np.int64)
    filled = np.flatnonzero(np.diff(offsets))  # `reduceat` takes an empty stretch for its first value
    if len(filled):
        counts[filled] = np.add.reduceat(mask, offsets[filled], dtype=np.int64)
    return counts


def find_text(texts: pa.ChunkedArray, search: str, *, regex: bool = False) -> np.ndarray:
    """Which documents contain a text, bool (D,).

    Raises:
        InputError: the regular expression cannot be read.
    """
    match = pc.match_substring_regex if regex else pc.match_substring
    try:
        return match(texts, search, ignore_case=True).to_numpy(zero_copy_only=False).astype(bool)
    except pa.ArrowInvalid as error:
        reason = str(error).removeprefix("Invalid regular expression: ")
        raise InputError(
            f"{search!r} is not a regular expression ({reason}); mend it, or switch off “Regular expression”"
        ) from error


def filter_documents(
    wanted: DocumentFilter, selection: Selection, *, n_selected: np.ndarray, sources: np.ndarray, texts: pa.ChunkedArray
) -> np.ndarray:
    """Indexes of the documents that pass, best rank first.

    Args:
        wanted: the filter.
        selection: gives the ranks and sums.
        n_selected: int64 (D,), from `selected_per_document`.
        sources: object (D,), each document's source.
        texts: the documents' texts.
    """
    keep = np.ones(len(n_selected), dtype=bool)
    if wanted.sources:
        keep &= np.isin(sources, list(wanted.sources))
    if wanted.only_selected:
        keep &= n_selected > 0
    sums = np.asarray(selection.sum_above)
    if wanted.lowest is not None:
        keep &= sums >= wanted.lowest
    if wanted.highest is not None:
        keep &= sums <= wanted.highest
    if wanted.search and keep.any():
        keep &= find_text(texts, wanted.search, regex=wanted.regex)
    order = np.asarray(selection.order)
    return order[keep[order]]


def excerpt(corpus: TokenizedCorpus, index: int, *, mask: np.ndarray, scores: np.ndarray) -> list[list]:
    """A line of the document around its highest selected token: pairs of text and whether it is selected."""
    here = slice(int(corpus.offsets[index]), int(corpus.offsets[index + 1]))
    return excerpt_around(corpus, index, marked=np.asarray(mask[here]), scores=np.asarray(scores[here]))


def excerpt_around(corpus: TokenizedCorpus, index: int, *, marked: np.ndarray, scores: np.ndarray) -> list[list]:
    """A line of the document around its highest marked token: pairs of text and whether it is marked.

    Args:
        corpus: the study's corpus.
        index: which document, of n tokens.
        marked: bool (n,).
        scores: float32 (n,).
    """
    n = len(marked)
    if not n:
        return []
    places = np.flatnonzero(marked)
    centre = int(places[np.argmax(scores[places])]) if places.size else 0
    first, last = max(0, centre - _BEFORE), min(n, centre + _AFTER)
    pieces = corpus.document_tokens(index)[first:last]
    parts: list[list] = [["… ", False]] if first else []
    for piece, mark in zip(pieces, marked[first:last], strict=True):
        text = " ".join(piece.splitlines()) if "\n" in piece or "\r" in piece else piece
        text = text if text or not piece else " "
        if parts and parts[-1][1] == bool(mark):
            parts[-1][0] += text
        else:
            parts.append([text, bool(mark)])
    if last < n:
        parts.append([" …", False])
    return parts

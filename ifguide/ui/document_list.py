"""The lines of the document list: snippets, sparklines, and the search for text. No streamlit here."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ifguide.corpus import TokenizedCorpus
from ifguide.errors import InputError
from ifguide.index.chunks import fetch_pages
from ifguide.ui.format import count, score

_BEFORE, _AFTER = 8, 22
"""Tokens of a snippet on each side of the strongest one."""


def selected_per_document(mask: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Selected tokens in each document, int64 (D,)."""
    offsets = np.asarray(offsets)
    counts = np.zeros(len(offsets) - 1, dtype=np.int64)
    filled = np.flatnonzero(np.diff(offsets))  # `reduceat` takes an empty stretch for its first value
    if len(filled):
        counts[filled] = np.add.reduceat(mask, offsets[filled], dtype=np.int64)
    return counts


def find_text(
    batches: tuple[pa.RecordBatch, ...],
    search: str,
    *,
    regex: bool = False,
    report: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Numbers of the documents that contain a text, upper and lower case alike, int32 ascending.

    Args:
        batches: the corpus's documents.
        search: the text, or a regular expression (RE2, so no pattern can hang the app).
        regex: which of the two it is.
        report: called with the number of documents searched so far.

    Raises:
        InputError: the regular expression cannot be read.
    """
    match = pc.match_substring_regex if regex else pc.match_substring
    found, done = [], 0
    for batch in batches:
        try:
            hits = match(batch.column("text"), search, ignore_case=True).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid as error:
            reason = str(error).removeprefix("Invalid regular expression: ")
            raise InputError(
                f"{search!r} is not a regular expression ({reason}); mend it, or switch off “Regular expression”"
            ) from error
        found.append(np.flatnonzero(hits.astype(bool)) + done)
        done += batch.num_rows
        if report:
            report(done)
    return np.concatenate(found).astype(np.int32) if found else np.zeros(0, dtype=np.int32)


def read_ahead(corpus: TokenizedCorpus, documents: list[int], mask: np.ndarray) -> None:
    """Ask for all that the snippets of some documents read from disk at once, rather than wait for one after the other."""
    for document in documents:
        begin, end = int(corpus.offsets[document]), int(corpus.offsets[document + 1])
        for array in (mask, corpus.char_end):
            fetch_pages(array, begin, end)


def excerpt(corpus: TokenizedCorpus, index: int, *, centre: int, mask: np.ndarray) -> list[list]:
    """One line of a document around a token: pairs of text and whether it is selected. Reads only the tokens it shows.

    Args:
        corpus: the study's corpus.
        index: which document.
        centre: place of the token in the document.
        mask: bool (N,), selected tokens.
    """
    begin, end = int(corpus.offsets[index]), int(corpus.offsets[index + 1])
    if end == begin:
        return []
    first, last = begin + max(0, centre - _BEFORE), min(end, begin + centre + _AFTER)
    text = corpus.document(index).text
    ends = np.maximum.accumulate(np.asarray(corpus.char_end[first:last], dtype=np.int64))
    start = int(np.max(corpus.char_end[begin:first])) if first > begin else 0
    ends = np.clip(np.maximum(ends, start), 0, len(text))
    if last == end:
        ends[-1] = len(text)
    parts: list[list] = [["… ", False]] if first > begin else []
    for cut, marked in zip(ends.tolist(), np.asarray(mask[first:last]).tolist(), strict=True):
        piece = " ".join(text[start:cut].splitlines()) or (" " if cut > start else "")
        start = max(start, cut)
        if parts and parts[-1][1] == marked:
            parts[-1][0] += piece
        else:
            parts.append([piece, marked])
    if last < end:
        parts.append([" …", False])
    return parts


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


def describe_row(row: dict, place: int, *, snippet: list[list], verdict: str = "", n_spans: int = 0) -> dict:
    """A line of the list as the component shows it.

    Args:
        row: from `DocumentStore.rows`.
        place: its place in the list, counted from 0.
        snippet: from `excerpt`.
        verdict: the document's verdict, or nothing.
        n_spans: spans of it that have a verdict.
    """
    return {
        "place": place,
        "document": row["document"],
        "id": row["id"],
        "source": row["source"],
        "rank": count(row["rank"]),
        "hits": count(row["hits"]),
        "selected": count(row["selected"]),
        "length": count(row["n_tokens"]),
        "sum": score(row["hit_sum"]),
        "max": score(row["max"]),
        "total": score(row["sum"]),
        "loss": f"{row['mean_loss']:.2f}" if row.get("mean_loss") is not None else "",
        "marked": count(row["span_tokens"]) if row.get("span_tokens") is not None else "",
        "copies": row["group_size"],
        "spark": np.frombuffer(row["spark"], dtype=np.int8).tolist(),
        "snippet": snippet,
        "verdict": verdict,
        "nSpans": n_spans,
    }

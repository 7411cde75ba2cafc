"""The lines of the document list: snippets, sparklines, and the search for text. No streamlit here."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ifguide.data.corpus import TokenizedCorpus
from ifguide.errors import InputError
from ifguide.storage.memory_maps import fetch_pages
from ifguide.study.document_table import Column
from ifguide.ui.format import count, score

FORMATS = {"count": count, "score": score, "decimal": "{:.2f}".format}
USUAL_NOTE = "Selected tokens · sum of the scores above the threshold"
"""What the two usual numbers of a line are."""


def find_text(batches: tuple[pa.RecordBatch, ...], search: str, *, regex: bool = False) -> np.ndarray:
    """Numbers of the documents that contain a text, upper and lower case alike, int32 ascending.

    With `regex` the text is a regular expression (RE2, so no pattern can hang the app).

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
                f"{search!r} is not a regular expression ({reason}); correct it, or switch off “Regular expression”"
            ) from error
        found.append(np.flatnonzero(hits.astype(bool)) + done)
        done += batch.num_rows
    return np.concatenate(found).astype(np.int32) if found else np.zeros(0, dtype=np.int32)


def read_ahead(corpus: TokenizedCorpus, documents: list[int], mask: np.ndarray) -> None:
    """Ask for all that the snippets of some documents read from disk at once, rather than one after the other."""
    for document in documents:
        begin, end = int(corpus.offsets[document]), int(corpus.offsets[document + 1])
        for array in (mask, corpus.char_end):
            fetch_pages(array, begin, end)


def describe_row(
    row: dict, place: int, column: Column, *, snippet: list[list], verdict: str = "", n_spans: int = 0
) -> dict:
    """A line of the list as the component shows it.

    Args:
        row: from `DocumentStore.rows`.
        place: in the list, counted from 0.
        column: what the list is sorted by, whose number it shows.
        snippet: from `excerpt`.
        verdict: the document's, or nothing.
        n_spans: spans of it that have a verdict.
    """
    usual = f"{count(row['selected'])} · {score(row['hit_sum'])}"
    return {
        **{name: row[name] for name in ("id", "source")},
        "place": place,
        "rank": count(row["rank"]),
        "figure": FORMATS[column.format](row[column.name]) if column.note else usual,
        "copies": row["group_size"],
        "spark": np.frombuffer(row["spark"], dtype=np.int8).tolist(),
        "snippet": snippet,
        "verdict": verdict,
        "nSpans": n_spans,
    }

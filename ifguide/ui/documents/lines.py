"""The lines of the document list: snippets, sparklines, and the search for text. No streamlit here."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ifguide.data.corpus import TokenizedCorpus
from ifguide.errors import InputError
from ifguide.selection.verdicts import Target
from ifguide.storage.memory_maps import fetch_pages
from ifguide.study.sharing.export import neutralise_cell
from ifguide.study.stages.document_table import Column
from ifguide.ui.format import count, score

FORMATS = {"count": count, "score": score, "decimal": "{:.2f}".format}
WRITTEN = ("id", "source", "rank", "n_tokens", "selected", "hits", "hit_sum", "sum", "max")
"""Columns of the list as a file."""


def find_text(batches: tuple[pa.RecordBatch, ...], search: str, *, regex: bool = False) -> np.ndarray:
    """Numbers of the documents that contain a text in any case, int32 ascending. With `regex` it is a regular
    expression (RE2, so that none can hang the app); an InputError if it is invalid."""
    match = pc.match_substring_regex if regex else pc.match_substring
    numbers, n_read = [], 0
    for batch in batches:
        try:
            hits = match(batch.column("text"), search, ignore_case=True).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid as error:
            reason = str(error).removeprefix("Invalid regular expression: ")
            raise InputError(
                f"{search!r} is not a regular expression ({reason}); correct it or turn off “Regular expression”"
            ) from error
        numbers.append(np.flatnonzero(hits.astype(bool)) + n_read)
        n_read += batch.num_rows
    return np.concatenate(numbers).astype(np.int32) if numbers else np.zeros(0, dtype=np.int32)


def find_matches(texts: Sequence[str], search: str, *, regex: bool) -> list[np.ndarray]:
    """The characters [start, end) of each text that match a search as in `find_text`, int (n, 2)."""
    pattern = f"(?i){search if regex else re.escape(search)}"
    matches = []
    for text in texts:
        sign = next(sign for sign in map(chr, itertools.count(1)) if sign not in text)
        parts = pc.replace_substring_regex(pa.array([text]), pattern=pattern, replacement=rf"{sign}\0{sign}")
        edges = np.cumsum([len(part) for part in parts[0].as_py().split(sign)])
        matches.append(np.stack([edges[:-1:2], edges[1::2]], axis=1))
    return matches


def read_ahead(corpus: TokenizedCorpus, documents: list[int], mask: np.ndarray) -> None:
    """Request everything from disk that the snippets of some documents need, all at once."""
    for document in documents:
        begin, end = int(corpus.offsets[document]), int(corpus.offsets[document + 1])
        for array in (mask, corpus.char_end):
            fetch_pages(array, begin, end)


def describe_row(
    row: dict, place: int, column: Column, snippet: list[list], verdict: str = "", n_spans: int = 0
) -> dict:
    """A line of the list as the component shows it. `row` is from `DocumentStore.rows`, `place` its place in the list,
    `snippet` from `excerpt`; the line shows the value of the `column` that sorts the list, or else the usual sum."""
    return {
        **{name: row[name] for name in ("id", "source")},
        "place": place,
        "rank": count(row["rank"]),
        "selected": count(row["selected"]),
        "figure": FORMATS[column.format](row[column.name]) if column.note else score(row["hit_sum"]),
        "copies": row["group_size"],
        "spark": np.frombuffer(row["spark"], dtype=np.int8).tolist(),
        "snippet": snippet,
        "verdict": verdict,
        "nSpans": n_spans,
    }


def write_list(rows: Sequence[dict], given: Mapping[Target, tuple[str, str, str]], form: str) -> str:
    """Lines of the list with their verdicts (from `VerdictLog.entries`), as `json`, or as `csv` safe for
    spreadsheets."""
    judged = ("verdict", "note", "reviewer")
    lines = [
        {name: row[name] for name in WRITTEN} | dict(zip(judged, given.get(Target(row["id"]), ("",) * 3), strict=True))
        for row in rows
    ]
    if form == "json":
        return json.dumps(lines, indent=1, ensure_ascii=False)
    cells = [[neutralise_cell(v) if isinstance(v, str) else v for v in line.values()] for line in lines]
    return pd.DataFrame(cells, columns=[*WRITTEN, *judged]).to_csv(index=False, lineterminator="\r\n")

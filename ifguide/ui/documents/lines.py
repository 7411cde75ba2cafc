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
WRITTEN = {name: name for name in ("id", "source", "rank", "n_tokens", "selected", "hits", "max")}
WRITTEN |= {"sum": "hit_sum", "sum_of_all": "sum"}
"""Column of the list as a file -> column of the table. `sum` is the one that the list shows."""
JUDGED = ("reviewer", "verdict", "note", "first_token", "end_token", "final")
MOST_TEXTS = 50_000
"""A file of more documents has no texts."""


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


def write_list(
    rows: Sequence[dict],
    reviewers: Mapping[str, Mapping[Target, tuple[str, str]]],
    corpus: TokenizedCorpus,
    form: str,
    finals: Mapping[Target, tuple[str, str, str]] | None = None,
) -> str:
    """The list as `json`, or as `csv` safe for spreadsheets: a line for each verdict on a document or a span of it
    (`reviewers` and `finals` from the methods of `VerdictLog`), or one for a document without any, with the document's
    text."""
    judged: dict[str, list[tuple]] = {}
    for reviewer, verdicts in reviewers.items():
        for target, opinion in verdicts.items():
            judged.setdefault(target.document, []).append((reviewer, *opinion, target.start, target.stop, False))
    for target, (verdict, note, who) in (finals or {}).items():
        judged.setdefault(target.document, []).append((who, verdict, note, target.start, target.stop, True))
    lines = []
    for row in rows:
        facts = {name: row[column] for name, column in WRITTEN.items()}
        text = {"text": corpus.document(row["document"]).text} if len(rows) <= MOST_TEXTS else {}
        for given in judged.get(row["id"], [("", "", "", None, None, False)]):
            lines.append(facts | dict(zip(JUDGED, given, strict=True)) | text)
    if form == "json":
        return json.dumps(lines, indent=1, ensure_ascii=False)
    cells = [{k: neutralise_cell(v) if isinstance(v, str) else v for k, v in line.items()} for line in lines]
    table = pd.DataFrame(cells, columns=[*WRITTEN, *JUDGED, "text"])
    return table.astype({"first_token": "Int64", "end_token": "Int64"}).to_csv(index=False, lineterminator="\r\n")

"""Tables of a study for other programs: tokens with scores, documents with ranks, the bare mask, or the selected
characters.

Rows are made and written in blocks, so a corpus of any size fits. The file appears whole or not at all.

In CSV a spreadsheet takes some texts for formulas. A text cell whose first sign is `=`, `+`, `-` or `@` (or one of
these in full width), blanks before it or not, and one that begins with white space's control characters or `'`,
therefore gets one `'` in front; dropping it gives the text back. Parquet and JSON Lines hold texts as they are.
"""

import csv
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from ifguide.config.attributions import attributions
from ifguide.config.names import DEFAULT
from ifguide.data.by_document import document_runs, sum_by_document
from ifguide.errors import ConfigError, InputError, StaleError
from ifguide.selection.saved import Selection
from ifguide.storage.artifacts import library_versions, replacing, write_json
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import Unit, can_be_made_again
from ifguide.study.reading import Study

if TYPE_CHECKING:
    from ifguide.data.corpus import TokenizedCorpus


BLOCK_TOKENS = 50_000
"""Rows are handed on whenever about this many tokens are together."""


def score_columns() -> dict[str, str]:
    """The column of each kind of score that tokens can be selected by."""
    return {kind: "position_score" if kind == "position" else kind for kind in attributions()}


def _token_schema() -> pa.Schema:
    return pa.schema(
        [
            ("document_id", pa.string()),
            ("position", pa.int32()),  # of the token in its document, from 0
            ("token", pa.string()),  # as displayed: the tokens of a document join to its text
            ("char_start", pa.int32()),  # in characters of the text
            ("char_end", pa.int32()),
            # null for a document's first token, which has no score, and everywhere when it was not computed
            *((column, pa.float32()) for column in score_columns().values()),
            ("selected", pa.bool_()),
            ("in_span", pa.bool_()),  # null when the corpus has no known spans
        ]
    )


SCHEMAS = {
    "tokens": _token_schema(),
    "mask": pa.schema([("document_id", pa.string()), ("position", pa.int32()), ("selected", pa.bool_())]),
    "spans": pa.schema(
        [
            ("document_id", pa.string()),
            ("n_tokens", pa.int64()),
            ("n_selected", pa.int64()),
            ("selected", pa.list_(pa.bool_())),  # a value a token
            (
                "spans",
                pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32())])),
            ),  # characters of selected tokens
        ]
    ),
    "documents": pa.schema(
        [
            ("document_id", pa.string()),
            ("text", pa.string()),
            ("rank", pa.int64()),  # 1 is the best
            ("count_above", pa.int64()),  # tokens above the selection's threshold
            ("sum_above", pa.float64()),  # sum of their scores
            ("score_sum", pa.float64()),  # sum of all its tokens' own_loss scores
            ("n_tokens", pa.int64()),
            ("n_selected", pa.int64()),
        ]
    ),
}
"""What can be exported, with the columns of each."""

DATASET = ".dataset"
"""Ending of a folder for `datasets.load_from_disk`."""
_FORMULA_START = re.compile(r"[\t\r\n\v\f']|\s*[=+\-@＝＋－＠]")


class Writer(Protocol):
    """Writes blocks of rows to one file."""

    def write(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> None: ...


def export_study(
    study: Study, what: str, out: Path, *, selection: str = DEFAULT, report: Callable[[int, int], None] | None = None
) -> int:
    """Write a table of a study to `out` and return its number of rows.

    What made the selection goes along: its settings, and the hashes of the corpus and the scores. Parquet holds it as
    JSON in the schema's metadata, under `ifguide`; a `datasets` folder in `made-from.json`. CSV and JSON Lines have no
    place for it.

    Args:
        study: its corpus, scores and the selection must be built and fresh.
        what: `tokens` (a row a token, in corpus order), `mask` (the same, but only what is selected or not), `spans` (a
            row a document, in corpus order: the mask as a list, and the selected characters) or `documents` (a row a
            document, best rank first).
        out: a .parquet, .jsonl or .csv file, which is replaced if it exists; or a new folder ending in .dataset, as
            `datasets.save_to_disk` makes it.
        selection: the selection that `selected`, `rank` and the counts belong to.
        report: called as report(documents done, documents).

    Raises:
        ConfigError: an unknown table or suffix.
        InputError: the file cannot be written there.
        StaleError: a part is missing, or made from other inputs than there are now.
    """
    if what not in SCHEMAS:
        raise ConfigError(f"--what: expected one of {', '.join(SCHEMAS)}, got {what!r}")
    out = Path(out)
    suffix = out.suffix.lower()
    if suffix not in (*_WRITERS, DATASET):
        raise ConfigError(f"--out: expected a file ending in {', '.join((*_WRITERS, DATASET))}, got {out.name!r}")
    if suffix == DATASET and out.exists():
        raise InputError(f"--out: {out} is there already; give the folder another name, or remove it")
    if out.is_dir() or not out.resolve().parent.is_dir():
        raise InputError(f"--out: expected a file in a folder that exists, got {out}; make the folder first")
    _require_fresh(study, selection)
    chosen = study.selection(selection)
    corpus = study.corpus()
    if len(chosen.mask) != corpus.n_tokens:
        raise StaleError(
            f"selection {selection!r} has {len(chosen.mask):,} tokens, the corpus {corpus.n_tokens:,}; "
            f"run `ifguide run {study.name} --force selection`"
        )
    schema = _token_schema() if what == "tokens" else SCHEMAS[what]
    makers = {"documents": _document_blocks, "spans": _span_blocks}
    blocks = makers[what](study, corpus, chosen) if what in makers else _token_blocks(study, corpus, chosen, what)
    made_from = describe_origin(study, chosen)
    told = lambda done: report(done, corpus.n_documents) if report is not None else None  # noqa: E731
    try:
        with replacing(out) as temporary:
            if suffix == DATASET:
                return _write_dataset(blocks, schema, temporary, made_from, told)
            return _write_rows(blocks, schema, temporary, suffix, made_from, told)
    except OSError as error:
        raise InputError(f"could not write {out}: {error.strerror or error}") from error


def describe_origin(study: Study, chosen: Selection) -> dict:
    """What made a selection: the study's name, the selection's settings, and the hashes of what it was made from."""
    inputs = study.manifest(Unit("selection", chosen.name))["inputs"]
    return {
        "study": study.name,
        "selection": chosen.settings,
        "inputs": inputs,
        "ifguide": library_versions()["ifguide"],
    }


def _write_rows(
    blocks, schema: pa.Schema, path: Path, suffix: str, made_from: dict, told: Callable[[int], None]
) -> int:
    schema = schema.with_metadata({"ifguide": json.dumps(made_from, ensure_ascii=False)})
    writer, n_rows = _WRITERS[suffix](path, schema), 0
    try:
        for n_documents, columns in blocks:
            batch = pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema)
            writer.write(batch)
            n_rows += batch.num_rows
            told(n_documents)
    finally:
        writer.close()
    return n_rows


def _write_dataset(blocks, schema: pa.Schema, folder: Path, made_from: dict, told: Callable[[int], None]) -> int:
    from datasets import Dataset

    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".ifguide-") as work:
        rows = Path(work) / "rows.parquet"
        n_rows = _write_rows(blocks, schema, rows, ".parquet", made_from, told)
        Dataset.from_parquet(str(rows), cache_dir=work).save_to_disk(str(folder))
    write_json(folder / "made-from.json", made_from)
    return n_rows


def _require_fresh(study: Study, selection: str) -> None:
    for unit in (Unit("corpus"), Unit("scores"), Unit("selection", selection)):
        state = unit_state(study, unit)
        if state.state == "fresh":
            continue
        mend = f"`ifguide run {study.name} --until selection`"
        if unit.name and unit.name not in study.selection_names():
            known = ", ".join(study.selection_names()) or "none yet"
            raise StaleError(
                f"there is no selection {selection!r} (there: {known}); make one with `ifguide select` or {mend}"
            )
        if unit.name and not can_be_made_again(study.config, unit.name):
            mend = f"`ifguide select {study.name} --name {unit.name} ...`"
        raise StaleError(f"{unit} is {state.state} ({state.reason}); build it with {mend}")


def _token_blocks(study: Study, corpus: "TokenizedCorpus", chosen: Selection, what: str) -> Iterator[tuple[int, dict]]:
    offsets = np.asarray(corpus.offsets)
    ids = corpus.ids()
    scores = {kind: study.scores(kind) for kind in score_columns() if what == "tokens" and study.has_scores(kind)}
    for first, last in document_runs(offsets, BLOCK_TOKENS):
        lengths = np.diff(offsets[first : last + 1])
        span = slice(int(offsets[first]), int(offsets[last]))
        positions = np.arange(span.start, span.stop) - np.repeat(offsets[first:last], lengths)
        columns = {
            "document_id": [
                ids[i] for i, length in zip(range(first, last), lengths, strict=True) for _ in range(length)
            ],
            "position": positions,
            "selected": np.asarray(chosen.mask[span]),
        }
        if what == "tokens":
            unscored = positions == 0
            columns |= {
                "token": [piece for i in range(first, last) for piece in corpus.document_tokens(i)],
                "char_start": np.asarray(corpus.char_start[span]),
                "char_end": np.asarray(corpus.char_end[span]),
                **{
                    column: pa.array(np.asarray(scores[kind][span]), mask=unscored)
                    if kind in scores
                    else _nulls(positions)
                    for kind, column in score_columns().items()
                },
                "in_span": _nulls(positions) if corpus.in_span is None else np.asarray(corpus.in_span[span]),
            }
        yield last, columns


def _nulls(like: np.ndarray) -> list[None]:
    return [None] * len(like)


def _document_blocks(study: Study, corpus: "TokenizedCorpus", chosen: Selection) -> Iterator[tuple[int, dict]]:
    offsets = np.asarray(corpus.offsets)
    lengths = np.diff(offsets)
    n_selected = sum_by_document(chosen.mask, offsets)
    score_sum = sum_by_document(study.scores("own_loss"), offsets)
    done = 0
    while done < corpus.n_documents:
        fits = int(np.searchsorted(np.cumsum(lengths[chosen.order[done : done + BLOCK_TOKENS]]), BLOCK_TOKENS)) + 1
        order = np.asarray(chosen.order[done : done + fits])
        documents = [corpus.document(int(i)) for i in order]
        yield (
            done + len(order),
            {
                "document_id": [document.id for document in documents],
                "text": [document.text for document in documents],
                "rank": np.arange(done, done + len(order)) + 1,
                "count_above": np.asarray(chosen.count_above[order]),
                "sum_above": np.asarray(chosen.sum_above[order]),
                "score_sum": score_sum[order],
                "n_tokens": lengths[order],
                "n_selected": n_selected[order],
            },
        )
        done += len(order)


def _span_blocks(study: Study, corpus: "TokenizedCorpus", chosen: Selection) -> Iterator[tuple[int, dict]]:
    offsets, ids = np.asarray(corpus.offsets), corpus.column("id")
    for first, last in document_runs(offsets, BLOCK_TOKENS):
        own = offsets[first : last + 1] - offsets[first]
        span = slice(int(offsets[first]), int(offsets[last]))
        mask = np.asarray(chosen.mask[span])
        starts, ends = corpus.char_start[span], corpus.char_end[span]
        parts = [slice(a, b) for a, b in zip(own[:-1].tolist(), own[1:].tolist(), strict=True)]
        yield (
            last,
            {
                "document_id": ids.slice(first, last - first).to_pylist(),
                "n_tokens": np.diff(own),
                "n_selected": sum_by_document(mask, own),
                "selected": [mask[part] for part in parts],
                "spans": [character_spans(mask[part], starts[part], ends[part]) for part in parts],
            },
        )


def character_spans(mask: np.ndarray, char_start: np.ndarray, char_end: np.ndarray) -> list[dict[str, int]]:
    """The characters of a document's selected tokens: ranges {start, end}, ends excluded; ranges of tokens side by side
    are one.

    Args:
        mask: bool (n,).
        char_start: int (n,), where each token begins in the text.
        char_end: int (n,), where it ends, excluded.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    runs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    found = [{"start": int(char_start[a]), "end": int(char_end[b - 1])} for a, b in runs]
    return [span for span in found if span["end"] > span["start"]]


class _ParquetWriter:
    def __init__(self, path: Path, schema: pa.Schema):
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


class _JSONLinesWriter:
    def __init__(self, path: Path, schema: pa.Schema):
        self._stream = path.open("w", encoding="utf-8")

    def write(self, batch: pa.RecordBatch) -> None:
        self._stream.writelines(
            json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in batch.to_pylist()
        )

    def close(self) -> None:
        self._stream.close()


class _CSVWriter:
    def __init__(self, path: Path, schema: pa.Schema):
        self._texts = [pa.types.is_string(field.type) for field in schema]
        self._stream = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._stream)
        self._writer.writerow(schema.names)

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [
            (
                [neutralise_cell(cell) for cell in column.to_pylist()]
                if is_text
                else [_plain(cell) for cell in column.to_pylist()]
            )
            for column, is_text in zip(batch.columns, self._texts, strict=True)
        ]
        self._writer.writerows(zip(*columns, strict=True))

    def close(self) -> None:
        self._stream.close()


def neutralise_cell(cell: str | None) -> str | None:
    """Keep a spreadsheet from taking a text for a formula."""
    return f"'{cell}" if cell and _FORMULA_START.match(cell) else cell


def _plain(cell):
    """true, false and lists as in JSON; numbers as they are; null as an empty cell."""
    return json.dumps(cell) if isinstance(cell, bool | list) else cell


_WRITERS: dict[str, Callable[..., Writer]] = {
    ".parquet": _ParquetWriter,
    ".jsonl": _JSONLinesWriter,
    ".csv": _CSVWriter,
}

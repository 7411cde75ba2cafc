"""What a study hands to other programs: tables of tokens with scores, of documents with ranks, of the bare mask or of
the selected characters; and files for Embedding Atlas, Inspect and other trainers.

Rows are made in blocks and streamed through DuckDB's `COPY`, so a corpus of any size fits. The file appears whole or
not at all.

A spreadsheet takes some texts in a CSV file for formulas. A text cell that starts with `=`, `+`, `-` or `@` (or one of
these in full width), after blanks or not, and one that starts with a tab, a line break or `'`, therefore gets one `'`
in front; dropping it gives the text back. Parquet and JSON Lines hold texts unchanged.
"""

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ifguide.config.attributions import attributions
from ifguide.config.names import DEFAULT
from ifguide.data.by_document import document_runs, sum_by_document
from ifguide.errors import ConfigError, IFGuideError, InputError, StaleError, system_reason
from ifguide.evaluation import Report
from ifguide.selection.saved import Selection
from ifguide.storage.artifacts import library_versions, replacing, write_json
from ifguide.study.analysis.document_map import SAMPLE, STATES, read_map
from ifguide.study.freshness import require_fresh
from ifguide.study.lineage import Unit, can_be_made_again, scores_unit
from ifguide.study.reading import Study
from ifguide.study.sharing.inspect_logs import write_logs
from ifguide.study.sharing.trainer_files import WEIGHT_COLUMNS, weight_blocks, write_megatron, write_olmo

if TYPE_CHECKING:
    from ifguide.data.corpus import TokenizedCorpus


NEIGHBOURS = 15
"""Nearest documents of one on the map, itself among them, as Embedding Atlas computes them."""
FEW = 15
"""Of a corpus that is larger than the map's sample, neighbours are by the first components alone: with more,
scikit-learn searches without a tree."""
BLOCK_TOKENS = 50_000
"""Rows are handed on whenever about this many tokens are together."""


def score_columns(imported: Iterable[str] = ()) -> dict[str, str]:
    """The column of each kind of score that tokens can be selected by."""
    return {kind: "position_score" if kind == "position" else kind for kind in (*attributions(), *imported)}


def _token_columns(imported: Iterable[str] = ()) -> dict[str, pa.DataType]:
    return {
        "document_id": pa.string(),
        "position": pa.int32(),  # of the token in its document, from 0
        "token": pa.string(),  # as displayed: the tokens of a document join to its text
        "char_start": pa.int32(),  # in characters of the text
        "char_end": pa.int32(),
        # null for a token without a score (a document's first, or not trained on), and where it was not computed
        **dict.fromkeys(score_columns(imported).values(), pa.float32()),
        "selected": pa.bool_(),
        "in_span": pa.bool_(),  # null when the corpus has no known spans
    }


_RANGES = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32())]))
_COLUMNS = {
    "tokens": _token_columns(),
    "mask": {"document_id": pa.string(), "position": pa.int32(), "selected": pa.bool_()},
    "spans": {
        "document_id": pa.string(),
        "n_tokens": pa.int64(),
        "n_selected": pa.int64(),
        "selected": pa.list_(pa.bool_()),  # a value a token
        "spans": _RANGES,  # characters of selected tokens
    },
    "documents": {
        "document_id": pa.string(),
        "text": pa.string(),
        "rank": pa.int64(),  # 1 is the best
        "count_above": pa.int64(),  # tokens above the selection's threshold
        "sum_above": pa.float64(),  # sum of their scores
        "score_sum": pa.float64(),  # sum of its tokens' scores, of the kind that the default selection is by
        "n_tokens": pa.int64(),
        "n_selected": pa.int64(),
    },
    "weights": WEIGHT_COLUMNS,
}
_COLUMNS["atlas"] = _COLUMNS["documents"] | {
    "source": pa.string(),
    "toxic_share": pa.float32(),  # of its tokens, inside known spans; null when the corpus has none
    "x": pa.float32(),  # null, like y, for a document that is not on the map
    "y": pa.float32(),
    "neighbors": pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float32()))]),
}
SCHEMAS = {what: pa.schema(columns) for what, columns in _COLUMNS.items()}
"""The tables that can be exported, with the columns of each."""
_TRAINERS = {"olmo": write_olmo, "megatron": write_megatron}
FOLDERS = ("inspect", *_TRAINERS)
"""What else can be exported: each makes a folder."""

DATASET = ".dataset"
"""Ending of a folder for `datasets.load_from_disk`."""
_FORMULA_START = re.compile(r"[\t\r\n\v\f']|\s*[=+\-@＝＋－＠]")

_FORMATS = {".parquet": "FORMAT parquet, COMPRESSION zstd", ".jsonl": "FORMAT json", ".csv": "FORMAT csv, HEADER"}
"""How DuckDB writes each kind of file."""
_ENDINGS = {"atlas": (".parquet",), "weights": (".parquet", ".jsonl", DATASET)}
"""Of tables that not every format can hold."""
_ROWS_TOGETHER = {"documents": 2048, "spans": 2048, "atlas": 2048, "weights": 2048}
"""Rows in a row group of Parquet, which is held in memory, of tables with long rows."""


def export_study(study: Study, what: str, out: Path, *, selection: str = DEFAULT, report: Report | None = None) -> int:
    """Write something of a study to `out` and return its number of rows; of a folder, its documents or completions.

    What made the selection goes along: its settings, and the hashes of the corpus and the scores. Parquet holds it as
    JSON in the schema's metadata, under `ifguide`; a `datasets` folder in `made-from.json`, a trainer's in `info.json`.
    CSV and JSON Lines have no place for it.

    Args:
        study: its corpus, scores and the selection must be built and fresh; for `inspect` its evaluations, for `atlas`
            also the map.
        what: a name of `SCHEMAS`, which makes a table, or of `FOLDERS`; docs/formats.md describes each.
        out: of a table a .parquet, .jsonl or .csv file, which is replaced if it exists, or a new folder ending in
            .dataset, as `datasets.save_to_disk` makes it; else a new folder.
        selection: the selection that `selected`, `rank` and the counts belong to.
        report: called as report(documents done, documents); for `inspect` it counts logs.

    Raises:
        ConfigError: an unknown table or suffix, or a setting that the form cannot hold.
        InputError: the file cannot be written there, or a package is missing.
        StaleError: a part is missing, or made from other inputs than there are now.
    """
    out, tell = Path(out), report or (lambda done, total: None)
    _check_place(what, out)
    if what != "inspect":
        _require_fresh(study, selection)
    try:
        with replacing(out) as temporary:
            if what == "inspect":
                return write_logs(study, temporary, tell)
            return _write(study, what, temporary, out.suffix.lower(), selection, tell)
    except Exception as error:
        reason = system_reason(error)
        if isinstance(error, IFGuideError) or not (reason or isinstance(error, OSError)):
            raise
        raise InputError(f"could not write {out}: {reason or error}; name another place with --out") from error


def _check_place(what: str, out: Path) -> None:
    if what not in (*SCHEMAS, *FOLDERS):
        raise ConfigError(f"--what: expected one of {', '.join((*SCHEMAS, *FOLDERS))}, got {what!r}")
    suffix, endings = out.suffix.lower(), _ENDINGS.get(what, (*_FORMATS, DATASET))
    if what in FOLDERS and suffix in (*_FORMATS, DATASET):
        raise ConfigError(f"--out: expected a new folder without the ending {suffix}, got {out.name!r}")
    if what in SCHEMAS and suffix not in endings:
        raise ConfigError(f"--out: expected a file ending in {', '.join(endings)}, got {out.name!r}")
    if (what in FOLDERS or suffix == DATASET) and out.exists():
        raise InputError(f"--out: {out} is there already; give the folder another name, or remove it")
    if out.is_dir() or not out.resolve().parent.is_dir():
        raise InputError(f"--out: expected a file in a folder that exists, got {out}; make the folder first")


def _write(study: Study, what: str, path: Path, suffix: str, selection: str, report: Report) -> int:
    chosen, corpus = study.selection(selection), study.corpus()
    inputs, version = study.manifest(Unit("selection", selection))["inputs"], library_versions()["ifguide"]
    made_from = {"study": study.name, "selection": chosen.settings, "inputs": inputs, "ifguide": version}
    if what == "weights":
        made_from["suppress"] = asdict(study.config.suppress)

    def count(done: int) -> None:
        report(done, corpus.n_documents)

    if what in _TRAINERS:
        return _TRAINERS[what](study, chosen, path, made_from, count)
    makers = {"documents": _document_blocks, "spans": _span_blocks, "atlas": _atlas_blocks, "weights": weight_blocks}
    blocks = makers.get(what, partial(_token_blocks, what=what))(study, corpus, chosen)
    schema = pa.schema(_token_columns(study.config.imported)) if what == "tokens" else SCHEMAS[what]
    if suffix == DATASET:
        return _write_dataset(blocks, what, schema, path, made_from, count)
    return _write_rows(blocks, what, schema, path, suffix, made_from, count)


def _write_rows(
    blocks, what: str, schema: pa.Schema, path: Path, suffix: str, made_from: dict, report: Callable[[int], None]
) -> int:
    """Stream blocks of rows into a file; returns how many rows there were."""
    import duckdb

    n_rows, failures = 0, []

    def make_batches() -> Iterator[pa.RecordBatch]:
        nonlocal n_rows
        try:
            for n_documents, columns in blocks:
                arrays = [pa.array(columns[field.name], field.type) for field in schema]
                if suffix == ".csv":
                    arrays = [_neutralise(column) for column in arrays]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)
                n_rows += len(arrays[0])
                report(n_documents)
        except GeneratorExit:
            raise
        except BaseException as error:  # DuckDB would raise an error of its own instead
            failures.append(error)
            raise

    options = _FORMATS[suffix]
    if suffix == ".parquet":
        options += f", ROW_GROUP_SIZE {_ROWS_TOGETHER.get(what, 122_880)}"
        options += f", KV_METADATA {{ifguide: {_quote(json.dumps(made_from, ensure_ascii=False))}}}"
    columns = ", ".join(_select(field, suffix) for field in schema)
    # One thread keeps the rows in order at flat memory.
    with duckdb.connect(config={"threads": 1, "autoinstall_known_extensions": False}) as connection:
        connection.register("rows", pa.RecordBatchReader.from_batches(schema, make_batches()))
        try:
            connection.execute(f"COPY (SELECT {columns} FROM rows) TO {_quote(str(path))} ({options})")
        except duckdb.Error as error:
            if failures:
                raise failures[0] from None
            raise OSError(f"{' '.join(str(error).split())}") from error
    return n_rows


def _select(field: pa.Field, suffix: str) -> str:
    """A column as SQL. In text, a float32 has the digits of the same float64, and a list is JSON."""
    name = f'"{field.name}"'
    if suffix != ".parquet" and pa.types.is_float32(field.type):
        return f"{name}::DOUBLE AS {name}"
    if suffix == ".csv" and pa.types.is_list(field.type):
        return f"to_json({name}) AS {name}"
    return name


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _neutralise(column: pa.Array) -> pa.Array:
    if not pa.types.is_string(column.type):
        return column
    return pa.array([neutralise_cell(cell) for cell in column.to_pylist()], pa.string())


def neutralise_cell(cell: str | None) -> str | None:
    """Keep a spreadsheet from taking a text for a formula."""
    return f"'{cell}" if cell and _FORMULA_START.match(cell) else cell


def _write_dataset(blocks, what: str, schema: pa.Schema, folder: Path, made_from: dict, report: Callable) -> int:
    from datasets import Dataset

    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".ifguide-") as work:
        rows = Path(work) / "rows.parquet"
        n_rows = _write_rows(blocks, what, schema, rows, ".parquet", made_from, report)
        Dataset.from_parquet(str(rows), cache_dir=work).save_to_disk(str(folder))
    write_json(folder / "made-from.json", made_from)
    return n_rows


def _require_fresh(study: Study, selection: str) -> None:
    run = f"run {study.name} --until selection"
    for unit in (Unit("corpus"), scores_unit(study.config, study.config.selection.attribution)):
        require_fresh(study, unit, run)
    if selection not in study.selection_names():
        existing, select = ", ".join(study.selection_names()) or "none yet", "make one with `ifguide select`"
        raise StaleError(f"there is no selection {selection!r} (there: {existing}); {select} or `ifguide {run}`")
    own = not can_be_made_again(study.config, selection)
    command = f"select {study.name} --name {selection} ..." if own else run
    require_fresh(study, Unit("selection", selection), command)


def _token_blocks(study: Study, corpus: "TokenizedCorpus", chosen: Selection, what: str) -> Iterator[tuple[int, dict]]:
    offsets, ids = np.asarray(corpus.offsets), corpus.ids()
    names = score_columns(study.config.imported)
    scores = {kind: study.scores(kind) for kind in names if what == "tokens" and study.has_scores(kind)}
    for first, last in document_runs(offsets, BLOCK_TOKENS):
        lengths = np.diff(offsets[first : last + 1])
        span = slice(int(offsets[first]), int(offsets[last]))
        positions = np.arange(span.start, span.stop) - np.repeat(offsets[first:last], lengths)
        columns = {
            "document_id": [ids[i] for i in np.repeat(np.arange(first, last), lengths)],
            "position": positions,
            "selected": np.asarray(chosen.mask[span]),
        }
        if what == "tokens":
            nulls, unscored = [None] * len(positions), ~corpus.valid_between(span.start, span.stop)
            columns |= {
                "token": [piece for i in range(first, last) for piece in corpus.document_tokens(i)],
                "char_start": np.asarray(corpus.char_start[span]),
                "char_end": np.asarray(corpus.char_end[span]),
                "in_span": nulls if corpus.in_span is None else np.asarray(corpus.in_span[span]),
            }
            for kind, column in names.items():
                values = scores.get(kind)
                columns[column] = nulls if values is None else pa.array(np.asarray(values[span]), mask=unscored)
        yield last, columns


def _document_blocks(study: Study, corpus: "TokenizedCorpus", chosen: Selection) -> Iterator[tuple[int, dict]]:
    offsets = np.asarray(corpus.offsets)
    lengths = np.diff(offsets)
    n_selected = sum_by_document(chosen.mask, offsets)
    score_sum = sum_by_document(study.scores(), offsets)
    done = 0
    while done < corpus.n_documents:
        fits = int(np.searchsorted(np.cumsum(lengths[chosen.order[done : done + BLOCK_TOKENS]]), BLOCK_TOKENS)) + 1
        order = np.asarray(chosen.order[done : done + fits])
        documents = [corpus.document(int(i)) for i in order]
        columns = {
            "document_id": [document.id for document in documents],
            "text": [document.text for document in documents],
            "rank": np.arange(done, done + len(order)) + 1,
            "count_above": np.asarray(chosen.count_above[order]),
            "sum_above": np.asarray(chosen.sum_above[order]),
            "score_sum": score_sum[order],
            "n_tokens": lengths[order],
            "n_selected": n_selected[order],
        }
        done += len(order)
        yield done, columns


def _atlas_blocks(study: Study, corpus: "TokenizedCorpus", chosen: Selection) -> Iterator[tuple[int, dict]]:
    """Documents with their places on the map, and each one's nearest others by what they mean. A document without a
    place has -1 for every neighbour, because Embedding Atlas wants as many of each."""
    from sklearn.neighbors import NearestNeighbors

    places, states = read_map(study), read_map(study, STATES)
    if places is None or states is None:
        raise StaleError(f"there is no map of documents with neighbours; draw it with `ifguide map {study.name}`")
    offsets, row_of = np.asarray(corpus.offsets), np.empty(corpus.n_documents, dtype=np.int64)
    row_of[chosen.order] = np.arange(corpus.n_documents)
    there = np.isfinite(places[:, 0])
    mapped = np.flatnonzero(there)
    states = states[:, : FEW if len(mapped) > SAMPLE else None].astype(np.float32)
    nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(mapped))).fit(states[mapped])
    toxic = None if corpus.in_span is None else sum_by_document(corpus.in_span, offsets) / np.diff(offsets)
    for done, columns in _document_blocks(study, corpus, chosen):
        order = np.asarray(chosen.order[done - len(columns["rank"]) : done])
        on_map = there[order]
        distances, neighbours = nearest.kneighbors(np.nan_to_num(states[order]))  # (n, NEIGHBOURS)
        ids = np.where(on_map[:, None], row_of[mapped[neighbours]], -1)
        columns |= {
            "source": corpus.column("source").take(pa.array(order)),
            "toxic_share": [None] * len(order) if toxic is None else toxic[order],
            **{axis: pa.array(places[order, i], mask=~on_map) for i, axis in enumerate("xy")},
            "neighbors": [{"ids": i, "distances": d} for i, d in zip(ids, distances, strict=True)],
        }
        yield done, columns


def _span_blocks(study: Study, corpus: "TokenizedCorpus", chosen: Selection) -> Iterator[tuple[int, dict]]:
    offsets, ids = np.asarray(corpus.offsets), corpus.column("id")
    for first, last in document_runs(offsets, BLOCK_TOKENS):
        own = offsets[first : last + 1] - offsets[first]
        span = slice(int(offsets[first]), int(offsets[last]))
        mask = np.asarray(chosen.mask[span])
        starts, ends = corpus.char_start[span], corpus.char_end[span]
        parts = [slice(a, b) for a, b in zip(own[:-1].tolist(), own[1:].tolist(), strict=True)]
        columns = {
            "document_id": ids.slice(first, last - first).to_pylist(),
            "n_tokens": np.diff(own),
            "n_selected": sum_by_document(mask, own),
            "selected": [mask[part] for part in parts],
            "spans": [character_spans(mask[part], starts[part], ends[part]) for part in parts],
        }
        yield last, columns


def character_spans(mask: np.ndarray, char_start: np.ndarray, char_end: np.ndarray) -> list[dict[str, int]]:
    """The characters of a document's selected tokens: ranges {start, end}, ends excluded; ranges of tokens side by side
    are one. The mask is bool (n,), `char_start` and `char_end` int (n,) are where each token begins and ends."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    runs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    spans = [{"start": int(char_start[a]), "end": int(char_end[b - 1])} for a, b in runs]
    return [span for span in spans if span["end"] > span["start"]]

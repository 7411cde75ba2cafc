"""What the list of documents shows, one row a document: written once as Parquet, never by scanning all tokens again.

Shapes: D documents, N tokens, B = SPARK_BINS. Two files lie in the study's `documents/`: `corpus-DIGEST.parquet` (what
follows from the corpus and the scores) and `ranks-SELECTION-DIGEST.parquet` (what follows from one selection). A digest
covers all that a file is made from, so a file is never stale: when something changes, another one is written and the
old one is removed. Beside each lies its checksum, `NAME.parquet.sum`; a table that does not fit it is written again.
"""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ifguide.config.attributions import attributions
from ifguide.config.names import check_name
from ifguide.data.by_document import document_runs, sum_by_document
from ifguide.data.near_duplicates import group_near_duplicates
from ifguide.errors import StaleError
from ifguide.storage import artifacts
from ifguide.study.lineage import Unit

if TYPE_CHECKING:
    from ifguide.study.reading import Study

FOLDER = "documents"
VERSION = 2
"""Of the two files' columns; a change writes them anew."""
KINDS = attributions()
SPARK_BINS = 32
"""Bars of a document's sparkline."""
TOP_QUANTILE = 0.999
"""Colours are full from this quantile of the absolute scores on, so that one outlier does not pale all others."""
_TOP_SAMPLE = 20_000_000
_ROW_GROUP = 65_536
_SUM = ".sum"

Report = Callable[[int, int], None]


def table_path(study: "Study") -> Path:
    """Where the documents' own table lies, or will lie.

    Raises:
        StaleError: the study has no corpus or no scores yet.
    """
    made_of = [VERSION, *(_digest(study, Unit(stage)) for stage in ("corpus", "scores"))]
    return study.root / FOLDER / f"corpus-{artifacts.hash_json(made_of)[:16]}.parquet"


def ranks_path(study: "Study", selection: str) -> Path:
    """Where a selection's table lies, or will lie.

    Raises:
        StaleError: there is no such selection.
    """
    unit = Unit("selection", check_name(selection, "selection"))
    made_of = [VERSION, _digest(study, Unit("corpus")), _digest(study, unit)]
    return study.root / FOLDER / f"ranks-{selection}-{artifacts.hash_json(made_of)[:16]}.parquet"


def _digest(study: "Study", unit: Unit) -> str:
    manifest = artifacts.read_manifest(study.folder(unit))
    if manifest is None:
        raise StaleError(f"study {study.name!r} has no {unit} yet; build it with `ifguide run {study.name}`")
    return artifacts.digest_of(manifest)


def write_tables(study: "Study", selections: list[str] | None = None, report: Report | None = None) -> list[Path]:
    """Write the tables that are not there yet or damaged, and remove those of an earlier corpus, scores or selection.

    Args:
        study: with scores.
        selections: which selections' tables; None: all that are saved and belong to the corpus as it is now.
        report: called with (documents done, documents in all).

    Returns:
        The files that were written.

    Raises:
        StaleError: the scores, or a selection that was asked for, belong to another corpus.
    """
    if not scores_fit(study):
        raise StaleError(
            f"the scores are of another corpus; compute them again with `ifguide run {study.name} --until scores`"
        )
    names = (
        [name for name in study.selection_names() if _fits(study, Unit("selection", name))]
        if selections is None
        else selections
    )
    if alien := [name for name in names if not _fits(study, Unit("selection", name))]:
        raise StaleError(
            f"selection {alien[0]!r} is of another corpus; save it again with `ifguide select {study.name} --name"
            f" {alien[0]} ...`"
        )
    wanted: dict[Path, Callable[[Path], None]] = {
        table_path(study): lambda path: _write(path, _describe_corpus(study, report))
    }

    def write_ranks(name: str) -> Callable[[Path], None]:
        return lambda path: _write(path, _describe_selection(study, name))

    wanted |= {ranks_path(study, name): write_ranks(name) for name in names}
    written = []
    for path, write in wanted.items():
        if find_damage(study, path):
            path.parent.mkdir(exist_ok=True)
            write(path)
            written.append(path)
    keep = {table_path(study), *(ranks_path(study, name) for name in study.selection_names()), *wanted}
    for path in (study.root / FOLDER).glob("*.parquet*"):
        if path.with_name(path.name.removesuffix(_SUM)) not in keep:
            path.unlink(missing_ok=True)
    return written


def scores_fit(study: "Study") -> bool:
    """Whether the scores belong to the corpus as it is now."""
    return _fits(study, Unit("scores"))


def _fits(study: "Study", unit: Unit) -> bool:
    made_of = study.manifest(unit)["inputs"].get("corpus")
    return made_of in (None, _digest(study, Unit("corpus")))


def _write(path: Path, table: pa.Table) -> None:
    with artifacts.replacing(path) as temporary:
        pq.write_table(table, temporary, compression="lz4", row_group_size=_ROW_GROUP)
        with artifacts.replacing(
            _sum_path(path)
        ) as sum_file:  # first: a table without its sum counts as an older version's
            sum_file.write_bytes(_sum_up(temporary, path.name))


def _sum_path(path: Path) -> Path:
    return path.with_name(path.name + _SUM)


def _sum_up(path: Path, name: str) -> bytes:
    """CRC-32, bytes and name of a table. It finds any accident but one in four thousand millions, in a third of the
    time of a SHA-256."""
    found, block = 0, memoryview(bytearray(1 << 18))
    with path.open("rb", buffering=0) as stream:
        while n := stream.readinto(block):
            found = zlib.crc32(block[:n], found)
    return f"{found:08x} {path.stat().st_size} {name}\n".encode()


def remove_table(path: Path) -> None:
    """Remove a table and its checksum."""
    for file in (path, _sum_path(path)):
        file.unlink(missing_ok=True)


def find_damage(study: "Study", path: Path) -> str:
    """What is wrong with one of a study's tables, or an empty string. Reads the whole file once.

    Args:
        study: with the corpus and the scores that `path` is named after.
        path: from `table_path` or `ranks_path`.
    """
    if not path.is_file():
        return "it is not there"
    try:
        expected = _sum_path(path).read_bytes() if _sum_path(path).exists() else None  # an earlier version kept none
        if expected is not None and expected != _sum_up(path, path.name):
            return "its bytes are not those that were written"
        schema, n_rows = pq.read_schema(path), pq.read_metadata(path).num_rows
        notes = read_notes(path)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        return f"it cannot be read ({' '.join(str(error).split())})"
    own = path == table_path(study)
    wanted, n_documents = _corpus_schema(study) if own else _RANKS, count_documents(study)[0]
    if n_rows != n_documents:
        return f"expected {n_documents:,} documents, got {n_rows:,}"
    if not schema.remove_metadata().equals(wanted):
        return f"expected the columns {', '.join(wanted.names)}, got {', '.join(schema.names)}"
    if not isinstance(notes, dict) or (own and not isinstance(notes.get("tops"), dict)):
        return "it does not say how its colours are scaled"
    return ""


def count_documents(study: "Study") -> tuple[int, int]:
    """Documents and tokens of a study's corpus, without opening the rest of it.

    Raises:
        StaleError: there is no corpus, or it is damaged.
    """
    offsets = artifacts.load_array(study.folder(Unit("corpus")) / "offsets.npy")
    return len(offsets) - 1, int(offsets[-1])


def read_notes(path: Path) -> dict:
    """What is said of a whole table beside its rows."""
    return json.loads(pq.read_schema(path).metadata[b"ifguide"])


_RANKS = pa.schema(
    {"document": pa.int32(), "rank": pa.int32(), "hits": pa.int32(), "hit_sum": pa.float64(), "selected": pa.int32()}
)


def _corpus_schema(study: "Study") -> pa.Schema:
    """The columns of the corpus's table, which depend on what the study has."""
    columns = {"document": pa.int32(), "id": pa.string(), "source": pa.string(), "n_tokens": pa.int32()}
    if (study.folder(Unit("corpus")) / "in_span.npy").is_file():
        columns["span_tokens"] = pa.int32()
    for kind in filter(study.has_scores, KINDS):
        described = {
            "sum": pa.float64(),
            "max": pa.float32(),
            "strongest": pa.int32(),
            "strongest_id": pa.int32(),
            "spark": pa.binary(SPARK_BINS),
        }
        columns |= {f"{kind}_{name}": of for name, of in described.items()}
    if study.has_scores("token_loss"):
        columns["mean_loss"] = pa.float32()
    return pa.schema(columns | {"group": pa.int32(), "group_size": pa.int32()})


def _describe_corpus(study: "Study", report: Report | None) -> pa.Table:
    corpus = study.corpus()
    offsets = np.asarray(corpus.offsets)
    lengths = np.diff(offsets)
    columns: dict[str, object] = {
        "document": np.arange(corpus.n_documents, dtype=np.int32),
        "id": pa.array(corpus.ids(), pa.string()),
        "source": pa.array(corpus.sources(), pa.string()),
        "n_tokens": lengths.astype(np.int32),
    }
    if corpus.in_span is not None:
        columns["span_tokens"] = sum_by_document(corpus.in_span, offsets).astype(np.int32)
    tops = {}
    for kind in KINDS:
        if study.has_scores(kind):
            scores = study.scores(kind)
            tops[kind] = scale_top(scores, offsets)
            columns |= {
                f"{kind}_{name}": values
                for name, values in _describe_scores(scores, corpus.token_ids, offsets, tops[kind], report).items()
            }
    if study.has_scores("token_loss"):
        losses = study.scores("token_loss")
        tops["token_loss"] = scale_top(losses, offsets)
        columns["mean_loss"] = (sum_by_document(losses, offsets) / np.maximum(lengths - 1, 1)).astype(np.float32)
    group = group_near_duplicates(corpus.token_ids, offsets)
    columns |= {"group": group, "group_size": np.bincount(group, minlength=len(group)).astype(np.int32)[group]}
    return _table(columns, _corpus_schema(study), {"tops": tops, "top_quantile": TOP_QUANTILE})


def _table(columns: dict, schema: pa.Schema, notes: dict) -> pa.Table:
    return pa.table(columns, schema=schema.with_metadata({b"ifguide": json.dumps(notes).encode()}))


def _describe_scores(scores, token_ids, offsets: np.ndarray, top: float, report: Report | None) -> dict:
    """sum, max, the strongest token's place and id, and the sparkline of every document; a first token has no score."""
    n_documents = len(offsets) - 1
    found: dict[str, np.ndarray] = {
        "sum": np.zeros(n_documents, dtype=np.float64),
        "max": np.zeros(n_documents, dtype=np.float32),
        "strongest": np.zeros(n_documents, dtype=np.int32),
        "strongest_id": np.full(n_documents, -1, dtype=np.int32),
    }
    sparks = np.zeros((n_documents, SPARK_BINS), dtype=np.int8)
    for first, stop in document_runs(offsets):
        bounds = offsets[first : stop + 1] - offsets[first]
        values = np.array(scores[offsets[first] : offsets[stop]], dtype=np.float32)
        lengths = np.diff(bounds)
        real = np.flatnonzero(lengths > 0)
        if not real.size:
            continue
        starts = bounds[:-1][real]
        values[starts] = 0.0
        found["sum"][first + real] = np.add.reduceat(values, starts, dtype=np.float64)
        values[starts] = -np.inf
        highest = np.maximum.reduceat(values, starts)
        places = np.flatnonzero(values == np.repeat(highest, lengths[real]))
        owner = np.searchsorted(starts, places, side="right") - 1
        at = places[np.searchsorted(owner, np.arange(len(real)))]
        found["max"][first + real] = np.where(np.isfinite(highest), highest, 0.0)
        found["strongest"][first + real] = at - starts
        found["strongest_id"][first + real] = np.asarray(token_ids[offsets[first] : offsets[stop]])[at]
        values[starts] = 0.0
        sparks[first + real] = draw_sparks(values, starts, lengths[real], top)
        if report:
            report(stop, n_documents)
    flat = pa.py_buffer(sparks.view(np.uint8).tobytes())
    found["spark"] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(SPARK_BINS), n_documents, [None, flat])
    return found


def draw_sparks(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray, top: float) -> np.ndarray:
    """Each document's tokens in B equal runs, of each run the score furthest from 0, int8 (D, B): 127 is `top` or more.

    Args:
        values: float32 (N,).
        starts: int64 (D,), each document's first token.
        lengths: int64 (D,), all at least 1.
        top: the score of a full bar.
    """
    cuts = starts[:, None] + (np.arange(SPARK_BINS) * lengths[:, None]) // SPARK_BINS  # (D, B)
    # `reduceat` takes the one value at a cut that is not below the next, as for documents with fewer tokens than bars.
    high = np.maximum.reduceat(values, cuts.ravel()).reshape(cuts.shape)
    low = np.minimum.reduceat(values, cuts.ravel()).reshape(cuts.shape)
    furthest = np.where(high >= -low, high, low)
    return np.round(127 * np.clip(furthest / (top or 1.0), -1, 1)).astype(np.int8)


def _describe_selection(study: "Study", name: str) -> pa.Table:
    corpus, selection = study.corpus(), study.selection(name)
    ranks = np.empty(corpus.n_documents, dtype=np.int32)
    ranks[np.asarray(selection.order)] = np.arange(1, corpus.n_documents + 1)
    return _table(
        {
            "document": np.arange(corpus.n_documents, dtype=np.int32),
            "rank": ranks,
            "hits": np.asarray(selection.count_above).astype(np.int32),
            "hit_sum": np.asarray(selection.sum_above),
            "selected": sum_by_document(selection.mask, np.asarray(corpus.offsets)).astype(np.int32),
        },
        _RANKS,
        selection.settings,
    )


def scale_top(scores: np.ndarray, offsets: np.ndarray) -> float:
    """The absolute score at which colours are full: `TOP_QUANTILE` over all valid tokens of the corpus.

    Of a corpus of more than 20 million tokens, every k-th token is read, so that about that many are.
    """
    step = max(1, len(scores) // _TOP_SAMPLE)
    sizes = np.abs(np.asarray(scores[::step], dtype=np.float32))
    first = offsets[:-1][offsets[:-1] < len(scores)]
    keep = np.ones(len(sizes), dtype=bool)
    keep[first[first % step == 0] // step] = False
    sizes = sizes[keep]
    if sizes.size == 0:
        return 0.0
    place = min(sizes.size - 1, int(np.ceil(TOP_QUANTILE * sizes.size)) - 1)
    top = float(np.partition(sizes, place)[place])
    return top if top > 0 else float(sizes.max())

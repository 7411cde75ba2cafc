"""The stage `documents`: what the document list shows, one row per document, as Parquet.

One artefact describes the corpus (`documents/_corpus`), one each selection (`documents/SELECTION`), so that a new
selection costs little. A run builds those of its own selections. The app and `ifguide documents` build what is missing
or damaged, even while a run is training; a lock of the folder's own keeps the writers apart.

Shapes: D documents, N tokens, B = SPARK_BINS. `COLUMNS` is the only place that names the columns: the Parquet schema,
the list's sort options and the number beside each document all come from it. To add a column, add an entry, give it
its values in `describe_corpus` or the like, and raise `DOCUMENTS_VERSION` in `ifguide.study.lineage`, so that tables
without it are written again.
"""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ifguide.data.by_document import document_runs, sample_valid, sum_by_document
from ifguide.data.near_duplicates import group_near_duplicates
from ifguide.data.stretches import count_valid, inside
from ifguide.errors import StaleError
from ifguide.evaluation import Report
from ifguide.selection.saved import Selection
from ifguide.storage import artifacts
from ifguide.study.freshness import find_change, inputs_of, settings_of, unit_digest
from ifguide.study.lineage import Unit

if TYPE_CHECKING:
    from ifguide.study.reading import Study
from ifguide.study.stage_table import STAGES, reads_only

CORPUS = Unit("documents")
"""The artefact that describes the corpus."""
SPARK_BINS = 32
"""Bars of a document's sparkline."""
TOP_QUANTILE = 0.999
"""Colours are full from this quantile of the absolute scores, so that one outlier does not pale all others."""
_LOCK = ".lock"
_ROW_GROUP = 65_536


@dataclass(frozen=True)
class Column:
    """One column of the document list."""

    name: str
    """Its key in a line of the list, and in the file; there a column of a kind of score is called `KIND_NAME`."""
    part: str
    """What it describes: `corpus`, `kind` (one column for each kind of score) or `selection`."""
    type: pa.DataType | None
    """How it is stored; None: it is only something to sort by."""
    key: str = ""
    """What the page's address calls it as an order of the list; empty: the list cannot be sorted by it."""
    title: str = ""
    """What the reader chooses to sort by it."""
    note: str = ""
    """What its number is, shown on hover; empty: a list sorted by it keeps its usual two numbers."""
    format: str = "count"
    """How the number is shown: `count`, `score` or `decimal`."""
    rising: bool = False
    """Whether the list begins with the smallest."""
    sql: str = ""
    """The SQL to sort by, with `{kind}` for the selection's kind of score; empty: the column."""

    def stored(self, kind: str) -> str:
        """Its name in the file, under a kind of score."""
        return f"{kind}_{self.name}" if self.part == "kind" else self.name


_INT, _FLOAT, _DOUBLE, _TEXT = pa.int32(), pa.float32(), pa.float64(), pa.string()
# The best document of every strongest token, then every second best, …: one insult does not fill the first pages.
_DIVERSE = "row_number() OVER (PARTITION BY {kind}_strongest_id ORDER BY rank)"
_HIT_SUM = "Sum of the scores above the threshold"

COLUMNS = (
    Column("rank", "selection", _INT, "rank", "Rank", rising=True),
    Column("diverse", "selection", None, "diverse", "Diverse", rising=True, sql=_DIVERSE),
    Column("hit_sum", "selection", _DOUBLE, "hit_sum", "Sum above the threshold", _HIT_SUM, "score"),
    Column("hits", "selection", _INT, "hits", "Tokens above the threshold", "Tokens above the threshold"),
    Column("selected", "selection", _INT, "selected", "Selected tokens", "Selected tokens"),
    Column("max", "kind", _FLOAT, "max", "Highest score", "Highest score of a token", "score"),
    Column("sum", "kind", _DOUBLE, "sum", "Sum of all scores", "Sum of the scores of all tokens", "score"),
    Column("mean_loss", "corpus", _FLOAT, "loss", "Mean loss", "Mean loss in nats", "decimal"),
    Column("n_tokens", "corpus", _INT, "length", "Length", "Tokens", rising=True),
    Column("span_tokens", "corpus", _INT, "spans", "Tokens marked by people", "Tokens that people marked as toxic"),
    Column("group_size", "corpus", _INT, "copies", "Near-duplicates"),
    Column("source", "corpus", _TEXT, "source", "Source", rising=True),
    Column("id", "corpus", _TEXT, "id", "Name", rising=True),
    Column("group", "corpus", _INT),
    Column("strongest", "kind", _INT),
    Column("strongest_id", "kind", _INT),
    Column("spark", "kind", pa.binary(SPARK_BINS)),
)
"""All columns; those the list can be sorted by, in the order the reader is offered them."""


def make_table(study: "Study", selection: str = "", report: Report | None = None) -> tuple[pa.Table, dict]:
    """The table of the corpus, or of one saved selection, one row per document; and what to note beside it: of the
    corpus `tops`, kind -> the score of a full colour, of a selection its settings. `report` is called with (documents
    done, documents in all)."""
    corpus = study.corpus()
    offsets = np.asarray(corpus.offsets)
    columns: dict[str, pa.Array] = {"document": pa.array(np.arange(len(offsets) - 1, dtype=np.int32))}

    def add(part: str, facts: dict[str, Any], kind: str = "") -> None:
        for column in COLUMNS:
            if column.part == part and column.type and facts[column.name] is not None:
                columns[column.stored(kind)] = pa.array(facts[column.name], column.type)

    if selection:
        chosen = study.selection(selection)
        add("selection", describe_selection(chosen, offsets))
        return pa.table(columns), chosen.settings
    add("corpus", describe_corpus(study))
    tops = {kind: scale_top(study.scores(kind), offsets, corpus.trained) for kind in study.kinds()}
    for kind in study.kinds(selecting=True):
        read = (study.scores(kind), corpus.token_ids, offsets, tops[kind], report, corpus.trained)
        add("kind", describe_scores(*read), kind)
    return pa.table(columns), {"tops": tops}


def describe_corpus(study: "Study") -> dict[str, Any]:
    """The corpus's columns, each (D,): `n_tokens`; `span_tokens`, marked by people, or None; `mean_loss` over the
    predicted tokens in nats, or None; `group`, the first of a document's near-duplicates, and `group_size`, how many
    there are, itself included; `source` and `id`."""
    corpus = study.corpus()
    offsets = np.asarray(corpus.offsets)
    lengths, group = np.diff(offsets), group_near_duplicates(corpus.token_ids, offsets)
    losses = sum_by_document(study.scores("token_loss"), offsets) if study.has_scores("token_loss") else None
    return {
        "n_tokens": lengths,
        "span_tokens": None if corpus.in_span is None else sum_by_document(corpus.in_span, offsets),
        "mean_loss": None if losses is None else losses / np.maximum(count_valid(offsets, corpus.trained), 1),
        "group": group,
        "group_size": np.bincount(group)[group],
        "source": corpus.column("source").to_pylist(),
        "id": corpus.ids(),
    }


def describe_selection(chosen: Selection, offsets: np.ndarray) -> dict[str, Any]:
    """A selection's columns, each (D,): `rank` from 1, `hits` and `hit_sum` above the threshold, `selected` tokens."""
    rank = np.empty(len(offsets) - 1, dtype=np.int32)
    rank[np.asarray(chosen.order)] = np.arange(1, len(offsets))
    selected = sum_by_document(chosen.mask, offsets)
    return {"rank": rank, "hits": chosen.count_above, "hit_sum": chosen.sum_above, "selected": selected}


def describe_scores(
    scores, token_ids, offsets: np.ndarray, top: float, report: Report | None = None, trained: np.ndarray | None = None
) -> dict[str, Any]:
    """`sum`, `max`, the `strongest` token's place and its `strongest_id`, and the `spark` of every document, in one
    pass over the scores. A document's first token has no score, nor has one that is not `trained` on."""
    n_documents = len(offsets) - 1
    kinds = {"sum": np.float64, "max": np.float32, "strongest": np.int32, "strongest_id": np.int32}
    columns: dict[str, Any] = {name: np.zeros(n_documents, dtype=kind) for name, kind in kinds.items()}
    sparks = np.zeros((n_documents, SPARK_BINS), dtype=np.int8)
    for first, stop in document_runs(offsets):
        here, low, high = slice(first, stop), int(offsets[first]), int(offsets[stop])
        starts, lengths = offsets[here] - low, np.diff(offsets[first : stop + 1])
        values = np.array(scores[low:high], dtype=np.float32)
        unscored = starts if trained is None else np.flatnonzero(~inside(trained, low, high))
        values[unscored] = 0.0
        columns["sum"][here] = np.add.reduceat(values, starts, dtype=np.float64)
        sparks[here] = draw_sparks(values, starts, lengths, top)
        values[unscored] = -np.inf
        highest = np.maximum.reduceat(values, starts)
        places = np.flatnonzero(values == np.repeat(highest, lengths))
        strongest = places[np.searchsorted(places, starts)]  # the first of equals
        columns["max"][here] = np.where(np.isfinite(highest), highest, 0.0)
        columns["strongest"][here] = strongest - starts
        columns["strongest_id"][here] = np.asarray(token_ids[low:high])[strongest]
        if report:
            report(stop, n_documents)
    flat = pa.py_buffer(sparks.view(np.uint8).tobytes())
    columns["spark"] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(SPARK_BINS), n_documents, [None, flat])
    return columns


def draw_sparks(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray, top: float) -> np.ndarray:
    """Each document's tokens in B equal runs, of each run the score furthest from 0, int8 (D, B): 127 is `top` or more.
    `values` are float32 (N,); `starts` and `lengths`, int64 (D,), are each document's first token and how many it has,
    at least 1."""
    cuts = starts[:, None] + (np.arange(SPARK_BINS) * lengths[:, None]) // SPARK_BINS  # (D, B)
    # `reduceat` takes the one value at a cut that is not below the next, as for documents with fewer tokens than bars.
    high = np.maximum.reduceat(values, cuts.ravel()).reshape(cuts.shape)
    low = np.minimum.reduceat(values, cuts.ravel()).reshape(cuts.shape)
    furthest = np.where(high >= -low, high, low)
    return np.round(127 * np.clip(furthest / (top or 1.0), -1, 1)).astype(np.int8)


def scale_top(scores: np.ndarray, offsets: np.ndarray, trained: np.ndarray | None = None) -> float:
    """The absolute score at which colours are full: `TOP_QUANTILE` over the corpus's valid tokens."""
    sizes = np.abs(sample_valid(scores, offsets, trained))
    if sizes.size == 0:
        return 0.0
    top = float(np.quantile(sizes, TOP_QUANTILE, method="inverted_cdf"))
    return top if top > 0 else float(sizes.max())


def scale_middle(scores: np.ndarray, offsets: np.ndarray, trained: np.ndarray | None = None) -> float:
    """The score at which colours are none, the median of the corpus's valid tokens: a kind's zero means nothing to a
    reader where most tokens are on one side of it. 0 without any."""
    values = sample_valid(scores, offsets, trained)
    return float(np.median(values)) if values.size else 0.0


def table_path(study: "Study", selection: str = "") -> Path:
    """Where the table of the corpus, or of a selection, is or will be."""
    return study.folder(Unit("documents", selection)) / "table.parquet"


def write_table(study: "Study", unit: Unit, folder: Path, report: Report | None = None) -> None:
    """Write the table of one artefact of the stage into a folder."""
    table, notes = make_table(study, unit.name, report)
    table = table.replace_schema_metadata({b"ifguide": json.dumps(notes).encode()})
    pq.write_table(table, folder / table_path(study).name, compression="lz4", row_group_size=_ROW_GROUP)


def read_notes(path: Path) -> dict:
    """What is noted of a table beside its rows: see `make_table`."""
    return json.loads(pq.read_schema(path).metadata[b"ifguide"])


def write_tables(study: "Study", selections: list[str] | None = None, report: Report | None = None) -> list[Unit]:
    """Write the tables that are missing, out of date or damaged, and remove those of selections that are gone: of the
    corpus and of `selections`, or without them of all saved ones that belong to the corpus as it is now. Returns what
    was written; `report` is called with (documents done, documents in all). A StaleError: the scores, or a selection
    that was asked for, belong to another corpus."""
    if not reads_only(study.config) and not _fits(study, Unit("scores")):
        remedy = f"compute them again with `ifguide run {study.name} --until scores`"
        raise StaleError(f"the scores are of another corpus; {remedy}")
    saved = study.selection_names()
    names = [name for name in saved if _fits(study, Unit("selection", name))] if selections is None else selections
    for name in names:
        if not _fits(study, Unit("selection", name)):
            remedy = f"save it again with `ifguide select {study.name} --name {name} ...`"
            raise StaleError(f"selection {name!r} is of another corpus; {remedy}")
    written = []
    with writing_alone(study):
        for unit in (CORPUS, *(Unit("documents", name) for name in names)):
            if not find_damage(study, unit):
                continue
            place, inputs, settings = study.folder(unit), inputs_of(study, unit), settings_of(study, unit)
            with artifacts.building(place, stage=unit.stage, inputs=inputs, config=settings) as folder:
                write_table(study, unit, folder, report)
            written.append(unit)
        for name in set(study.names_of("documents")) - set(saved):
            shutil.rmtree(study.folder(Unit("documents", name)))
    return written


def _fits(study: "Study", unit: Unit) -> bool:
    """Whether an artefact belongs to the corpus there is now."""
    return study.manifest(unit)["inputs"].get("corpus") in (None, unit_digest(study, Unit("corpus")))


def find_damage(study: "Study", unit: Unit) -> str:
    """Why a table has to be written, or an empty string. Reads the whole file once."""
    return find_change(study, unit) or artifacts.check_hashes(study.folder(unit), study.manifest(unit))


def remove_table(study: "Study", unit: Unit) -> None:
    """Remove a damaged table."""
    with writing_alone(study):
        shutil.rmtree(study.folder(unit), ignore_errors=True)


@contextlib.contextmanager
def writing_alone(study: "Study") -> Iterator[None]:
    """Hold the folder of the tables; another writer waits, in this process or another one."""
    folder = study.root / STAGES["documents"].folder
    folder.mkdir(exist_ok=True)
    with (folder / _LOCK).open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

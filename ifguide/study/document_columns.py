"""The columns of the document list: what each holds, how it is computed, and how the list sorts by it and shows it.

Shapes: D documents, N tokens, B = SPARK_BINS. `COLUMNS` is the only place that names them: the Parquet schema, the
list's sort options and the number beside each document all come from it. To add a column, add an entry and raise
`DOCUMENTS_VERSION` in `ifguide.study.lineage`, so that tables without it are written again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ifguide.config.attributions import attributions
from ifguide.data.by_document import document_runs, sum_by_document
from ifguide.data.near_duplicates import group_near_duplicates

if TYPE_CHECKING:
    from ifguide.study.reading import Study

KINDS = attributions()
SPARK_BINS = 32
"""Bars of a document's sparkline."""
TOP_QUANTILE = 0.999
"""Colours are full from this quantile of the absolute scores, so that one outlier does not pale all others."""
_TOP_SAMPLE = 20_000_000

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Order:
    """How the list is sorted by a column, and what it then shows."""

    key: str = ""
    """What the page's address calls it; empty: the list cannot be sorted by the column."""
    title: str = ""
    """What the reader chooses."""
    note: str = ""
    """What the column's number is, shown on hover; empty: the list keeps its usual two numbers."""
    format: str = "count"
    """How the number is shown: `count`, `score` or `decimal`."""
    rising: bool = False
    """Whether the list begins with the smallest."""


@dataclass(frozen=True)
class Column:
    """One column of the document list."""

    name: str
    """Its key in a line of the list, and in the file; there a column of a kind of score is called `KIND_NAME`."""
    part: str
    """What it describes: `corpus`, `kind` (one column for each kind of score) or `selection`."""
    type: pa.DataType | None
    """How it is stored; None: it is only something to sort by."""
    compute: Callable[[Any], Any] | None
    """Its values (D,) from `CorpusFacts`, `ScoreFacts` or `SelectionFacts`; None where the study has none."""
    order: Order = Order()
    sql: str = ""
    """The SQL to sort by, with `{kind}` for the selection's kind of score; empty: the column."""

    def stored(self, kind: str) -> str:
        """Its name in the file, under a kind of score."""
        return f"{kind}_{self.name}" if self.part == "kind" else self.name


_INT, _FLOAT, _DOUBLE, _TEXT = pa.int32(), pa.float32(), pa.float64(), pa.string()
# The best document of every strongest token, then every second best, …: one insult does not fill the first pages.
_DIVERSE = "row_number() OVER (PARTITION BY {kind}_strongest_id ORDER BY rank)"

COLUMNS = (
    Column("rank", "selection", _INT, lambda facts: facts.ranks, Order("rank", "Rank", rising=True)),
    Column("diverse", "selection", None, None, Order("diverse", "Diverse", rising=True), _DIVERSE),
    Column(
        "hit_sum",
        "selection",
        _DOUBLE,
        lambda facts: facts.selection.sum_above,
        Order("hit_sum", "Sum above the threshold", "Sum of the scores above the threshold", "score"),
    ),
    Column(
        "hits",
        "selection",
        _INT,
        lambda facts: facts.selection.count_above,
        Order("hits", "Tokens above the threshold", "Tokens above the threshold"),
    ),
    Column(
        "selected",
        "selection",
        _INT,
        lambda facts: facts.selected,
        Order("selected", "Selected tokens", "Selected tokens"),
    ),
    Column(
        "max",
        "kind",
        _FLOAT,
        lambda facts: facts.described["max"],
        Order("max", "Highest score", "Highest score of a token", "score"),
    ),
    Column(
        "sum",
        "kind",
        _DOUBLE,
        lambda facts: facts.described["sum"],
        Order("sum", "Sum of all scores", "Sum of the scores of all tokens", "score"),
    ),
    Column(
        "mean_loss",
        "corpus",
        _FLOAT,
        lambda facts: facts.mean_loss,
        Order("loss", "Mean loss", "Mean loss in nats", "decimal"),
    ),
    Column("n_tokens", "corpus", _INT, lambda facts: facts.lengths, Order("length", "Length", "Tokens", rising=True)),
    Column(
        "span_tokens",
        "corpus",
        _INT,
        lambda facts: facts.span_tokens,
        Order("spans", "Tokens marked by people", "Tokens that people marked as toxic"),
    ),
    Column("group_size", "corpus", _INT, lambda facts: facts.group_sizes, Order("copies", "Near-duplicates")),
    Column("source", "corpus", _TEXT, lambda facts: facts.corpus.sources(), Order("source", "Source", rising=True)),
    Column("id", "corpus", _TEXT, lambda facts: facts.corpus.ids(), Order("id", "Name", rising=True)),
    Column("group", "corpus", _INT, lambda facts: facts.groups),
    Column("strongest", "kind", _INT, lambda facts: facts.described["strongest"]),
    Column("strongest_id", "kind", _INT, lambda facts: facts.described["strongest_id"]),
    Column("spark", "kind", pa.binary(SPARK_BINS), lambda facts: facts.described["spark"]),
)
"""All columns; those the list can be sorted by, in the order the reader is offered them."""


def make_table(study: "Study", selection: str = "", report: Report | None = None) -> tuple[pa.Table, dict]:
    """The table of the corpus, or of one selection, and what to note beside it.

    Args:
        study: with scores.
        selection: a saved selection; empty: the corpus.
        report: called with (documents done, documents in all).

    Returns:
        One row per document, and of the corpus `tops`: kind -> the score of a full colour; of a selection its settings.
    """
    offsets = np.asarray(study.corpus().offsets)
    columns: dict[str, pa.Array] = {"document": pa.array(np.arange(len(offsets) - 1, dtype=np.int32))}

    def add(part: str, facts: Any, kind: str = "") -> None:
        for column in COLUMNS:
            if column.part == part and column.type and column.compute:
                values = column.compute(facts)
                if isinstance(values, np.ndarray):
                    values = values.astype(column.type.to_pandas_dtype(), copy=False)
                if values is not None:
                    columns[column.stored(kind)] = pa.array(values, column.type)

    if selection:
        chosen = SelectionFacts(study, selection)
        add("selection", chosen)
        return pa.table(columns), chosen.selection.settings
    add("corpus", CorpusFacts(study))
    tops = {}
    for kind in filter(study.has_scores, KINDS):
        scored = ScoreFacts(study, kind, report)
        tops[kind] = scored.top
        add("kind", scored, kind)
    if study.has_scores("token_loss"):
        tops["token_loss"] = scale_top(study.scores("token_loss"), offsets)
    return pa.table(columns), {"tops": tops, "top_quantile": TOP_QUANTILE}


class CorpusFacts:
    """What the columns of the corpus are computed from."""

    def __init__(self, study: "Study"):
        self.study, self.corpus = study, study.corpus()
        self.offsets = np.asarray(self.corpus.offsets)
        self.lengths = np.diff(self.offsets)

    @property
    def span_tokens(self) -> np.ndarray | None:
        """Tokens that people marked, int64 (D,)."""
        return None if self.corpus.in_span is None else sum_by_document(self.corpus.in_span, self.offsets)

    @property
    def mean_loss(self) -> np.ndarray | None:
        """Mean over a document's predicted tokens in nats, float64 (D,)."""
        if not self.study.has_scores("token_loss"):
            return None
        return sum_by_document(self.study.scores("token_loss"), self.offsets) / np.maximum(self.lengths - 1, 1)

    @cached_property
    def groups(self) -> np.ndarray:
        """The first of each document's near-duplicates, int32 (D,)."""
        return group_near_duplicates(self.corpus.token_ids, self.offsets)

    @property
    def group_sizes(self) -> np.ndarray:
        """How many documents are near-duplicates of each other, the document included, int64 (D,)."""
        return np.bincount(self.groups, minlength=len(self.groups))[self.groups]


class SelectionFacts:
    """What the columns of a selection are computed from."""

    def __init__(self, study: "Study", name: str):
        self.selection, offsets = study.selection(name), np.asarray(study.corpus().offsets)
        self.selected = sum_by_document(self.selection.mask, offsets)
        self.ranks = np.empty(len(offsets) - 1, dtype=np.int32)  # from 1
        self.ranks[np.asarray(self.selection.order)] = np.arange(1, len(offsets))


class ScoreFacts:
    """What the columns of one kind of score are computed from."""

    def __init__(self, study: "Study", kind: str, report: Report | None = None):
        corpus, scores = study.corpus(), study.scores(kind)
        offsets = np.asarray(corpus.offsets)
        self.top = scale_top(scores, offsets)
        self.described = describe_scores(scores, corpus.token_ids, offsets, self.top, report)


def describe_scores(scores, token_ids, offsets: np.ndarray, top: float, report: Report | None = None) -> dict:
    """`sum`, `max`, the `strongest` token's place and its `strongest_id`, and the `spark` of every document, in one
    pass over the scores. A document's first token has no score."""
    n_documents = len(offsets) - 1
    found: dict[str, Any] = {
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


def scale_top(scores: np.ndarray, offsets: np.ndarray) -> float:
    """The absolute score at which colours are full: `TOP_QUANTILE` over all valid tokens of the corpus.

    In a corpus of more than 20 million tokens, every k-th token is read, so that about 20 million are.
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

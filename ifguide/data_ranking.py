"""How well do scores find the documents that somebody labelled as bad? The same for any unwanted behaviour. No torch.

Labels judge the ranking; nothing that makes a score sees them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ifguide.corpus_writer import document_id
from ifguide.document_table import document_runs, sum_by_document
from ifguide.errors import InputError, StaleError
from ifguide.evaluate.statistics import Interval
from ifguide.lineage import Unit
from ifguide.readers import read_rows, take_field
from ifguide.selection import rank_documents, threshold_at_quantile

if TYPE_CHECKING:
    from ifguide.study import Study

TOP_SHARE = 0.05
"""The way `top` takes the mean of this share of a document's scores, at least one."""
WAYS = ("rank", "sum_above", "mean", "top")
"""How token scores make a document's: its place by Algorithm 1; the sum above the threshold; the mean; the mean of the highest 5%."""
DEPTHS = (10, 50, 100, 500, 1000)
"""Precision is given among so many best documents, and among as many as there are bad ones."""
_YES, _NO = ("true", "1", "yes"), ("false", "0", "no")


class Labels(NamedTuple):
    """What is known of the documents."""

    bad: np.ndarray
    """bool (D,)."""
    known: np.ndarray
    """bool (D,): the others have an empty label and count nowhere."""


@dataclass(frozen=True, kw_only=True)
class RankingQuality:
    """How well one order of the documents finds the bad ones, each number with a 95% bootstrap interval over documents."""

    scores: str
    """Kind of token scores, such as `own_loss`; of an extra pair of query sets `NAME/own_loss`."""
    way: str
    """How they make a document's score, one of `WAYS`."""
    auroc: Interval
    """Chance that a bad document comes before a good one, ties counted half."""
    average_precision: Interval
    """Mean over the bad documents of the precision down to each, ties taken together. Chance: the share of bad documents."""
    precision_at: dict[int, Interval]
    """Share of bad ones among the best so many, ties ordered by document id."""


def read_labels(study: "Study", column: str) -> Labels:
    """Read a label of every document from the corpus file, by document id.

    Args:
        study: its corpus must be up to date, so that the file is the one that was scored.
        column: true, yes or 1 for a bad document, false, no or 0 for a good one, empty for one that is not known. A list, such as the
            known spans, says bad when it holds anything.

    Raises:
        StaleError: the corpus is missing or out of date.
        InputError: no such column, another value in it, or not both kinds of documents.
    """
    state = study.unit_state(Unit("corpus"))
    if state.state != "fresh":
        raise StaleError(f"corpus is {state.state} ({state.reason}); build it with `ifguide run {study.name}`")
    corpus, config = study.corpus(), study.resolved("corpus")
    place = {name: number for number, name in enumerate(corpus.ids())}
    bad, known = (np.zeros(corpus.n_documents, dtype=bool) for _ in range(2))
    columns = [name for name in (config.text_field, config.id_field, column) if name]
    for row in read_rows(config.path, text_field=config.text_field, text_unit=config.text_unit, columns=columns):
        number = place.get(document_id(row, config.id_field))
        if number is not None:  # rows without text are no documents
            value = _read_label(take_field(row, column), row.where, column)
            bad[number], known[number] = bool(value), value is not None
    if not bad.any() or not (known & ~bad).any():
        raise InputError(
            f"{column!r}: expected documents of both kinds, got {int(bad.sum()):,} bad ones among {int(known.sum()):,} with a label"
        )
    return Labels(bad, known)


def _read_label(value, where: str, column: str) -> bool | None:
    if isinstance(value, list):
        return bool(value)
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return None
    word = str(value).strip().lower()
    word = word.removesuffix(".0") if isinstance(value, float) else word
    if word not in (*_YES, *_NO):
        raise InputError(
            f"{where}: expected {', '.join((*_YES, *_NO))} or nothing in {column!r}, got {str(value)[:60]!r}; "
            "make a column that says which documents are bad"
        )
    return word in _YES


def study_rankings(
    study: "Study",
    labels: Labels,
    *,
    n_draws: int = 1000,
    seed: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> list[RankingQuality]:
    """Every kind of scores the study has, made into document scores in every way, side by side.

    `token_loss` is there as the plain baseline (how surprising a document is); of it only the mean and the top are taken, as
    the threshold belongs to influence scores.

    Args:
        study: with scores.
        labels: of its documents.
        n_draws, seed: of the bootstrap.
        report: called with (orders judged, orders in all).
    """
    kinds = list(_score_kinds(study))
    corpus = study.corpus()
    total = sum(len(ways) for _, _, ways in kinds)
    found: list[RankingQuality] = []
    for name, scores, ways in kinds:
        by_way = document_scores(study, scores, ways)
        for way in ways:
            found.append(
                judge_ranking(by_way[way], labels, np.asarray(corpus.id_rank), name, way, n_draws=n_draws, seed=seed)
            )
            if report:
                report(len(found), total)
    return found


def _score_kinds(study: "Study") -> Iterator[tuple[str, np.ndarray, Sequence[str]]]:
    for queries in study.query_sets():
        for kind in ("own_loss", "position"):
            if study.has_scores(kind):
                yield f"{queries}/{kind}" if queries else kind, study.scores(kind, queries=queries), WAYS
    yield "token_loss", study.scores("token_loss"), ("mean", "top")


def document_scores(study: "Study", scores: np.ndarray, ways: Sequence[str] = WAYS) -> dict[str, np.ndarray]:
    """float64 (D,) a way: the higher, the worse. A document without a scored token has 0.

    Args:
        study: its corpus, and `selection.quantile` for the threshold.
        scores: float32 (N,).
        ways: of `WAYS`.
    """
    corpus = study.corpus()
    offsets = np.asarray(corpus.offsets)
    n_scored = np.maximum(np.diff(offsets) - 1, 0)
    found = {}
    if "rank" in ways or "sum_above" in ways:
        valid = corpus.valid()
        threshold = threshold_at_quantile(scores, valid, study.config.selection.quantile)
        ranking = rank_documents(scores, offsets, valid, threshold, np.asarray(corpus.id_rank))
        found = {"rank": ranking.rank_score, "sum_above": ranking.sum_above}
    if "mean" in ways:
        found["mean"] = sum_by_document(_masked(scores, corpus), offsets) / np.maximum(n_scored, 1)
    if "top" in ways:
        found["top"] = mean_of_highest(scores, offsets, TOP_SHARE)
    return {way: found[way] for way in ways}


def _masked(scores: np.ndarray, corpus) -> np.ndarray:
    return np.where(corpus.valid(), scores, np.float32(0))


def mean_of_highest(scores: np.ndarray, offsets: np.ndarray, share: float) -> np.ndarray:
    """float64 (D,): mean of the highest `share` of each document's scores but the first token's, at least one; 0 without any."""
    found = np.zeros(len(offsets) - 1, dtype=np.float64)
    for first, stop in document_runs(offsets):
        bounds = offsets[first : stop + 1] - offsets[first]
        lengths = np.diff(bounds)
        values = np.array(scores[offsets[first] : offsets[stop]], dtype=np.float64)
        owner = np.repeat(np.arange(stop - first), lengths)
        place = np.arange(len(values)) - bounds[owner]
        values[place == 0] = -np.inf  # sorts behind all others
        order = np.lexsort((-values, owner))
        wanted = np.ceil(np.maximum(lengths - 1, 0) * share).astype(np.int64)  # (documents,)
        taken = place < wanted[owner]  # the order keeps documents where they are
        sums = np.bincount(owner[taken], weights=values[order][taken], minlength=stop - first)
        found[first:stop] = np.divide(sums, wanted, out=np.zeros_like(sums), where=wanted > 0)
    return found


def judge_ranking(
    scores: np.ndarray,
    labels: Labels,
    id_rank: np.ndarray,
    name: str = "",
    way: str = "",
    *,
    n_draws: int = 1000,
    seed: int = 0,
) -> RankingQuality:
    """AUROC, average precision and precision at several depths, with bootstrap intervals.

    Args:
        scores: float64 (D,), the higher, the worse.
        labels: which documents are bad.
        id_rank: int64 (D,), place of each document's id among all; orders ties.
        name, way: kept in the result.
        n_draws: documents are drawn again with replacement so many times. A draw without both kinds counts as 0 for the lower bound and as
            1 for the upper one, so that no interval is too narrow.
        seed: of the draws.
    """
    known = np.flatnonzero(labels.known)
    order = known[np.lexsort((id_rank[known], -scores[known]))]
    bad, ordered = labels.bad[order], scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))  # where another score begins
    n_bad = int(bad.sum())
    depths = sorted({n_bad, *(depth for depth in DEPTHS if depth < len(order))})

    def measure(weights: np.ndarray) -> np.ndarray:
        positives = np.add.reduceat(weights * bad, starts)
        negatives = np.add.reduceat(weights * ~bad, starts)
        above, passed = np.cumsum(positives), np.cumsum(negatives)
        n_pos, n_neg = above[-1], passed[-1]
        if not n_pos or not n_neg:
            return np.full(2 + len(depths), np.nan)
        auroc = np.sum(positives * (n_neg - passed + negatives / 2)) / (n_pos * n_neg)
        precision = np.sum(positives * above / np.maximum(above + passed, 1)) / n_pos
        running = np.cumsum(weights)
        at = [np.sum(np.clip(depth - (running - weights), 0, weights)[bad]) / depth for depth in depths]
        return np.array([auroc, precision, *at])

    values = measure(np.ones(len(order), dtype=np.int64))
    generator = np.random.default_rng(seed)
    draws = np.stack(
        [
            measure(np.bincount(generator.integers(0, len(order), len(order)), minlength=len(order)))
            for _ in range(n_draws)
        ]
    )
    undefined = np.isnan(draws)
    low = np.quantile(np.where(undefined, 0.0, draws), 0.025, axis=0, method="lower")
    high = np.quantile(np.where(undefined, 1.0, draws), 0.975, axis=0, method="higher")
    intervals = [Interval(*map(float, numbers)) for numbers in zip(values, low, high, strict=True)]
    return RankingQuality(
        scores=name,
        way=way,
        auroc=intervals[0],
        average_precision=intervals[1],
        precision_at=dict(zip(depths, intervals[2:], strict=True)),
    )

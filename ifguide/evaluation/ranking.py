"""How well a ranking of documents finds the ones that labels call bad."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ifguide.data.by_document import document_runs
from ifguide.data.stretches import count_valid, inside
from ifguide.evaluation.statistics import Interval, bootstrap_bounds

DEPTHS = (10, 50, 100, 500, 1000)
"""Precision is given among this many of the highest-scoring documents, and among as many as there are bad ones."""


class Labels(NamedTuple):
    """Which documents are bad."""

    bad: np.ndarray
    """bool (D,)."""
    labelled: np.ndarray
    """bool (D,): all others have an empty label and are left out."""


@dataclass(frozen=True)
class RankingQuality:
    """How well one order of the documents finds the bad ones, with 95% bootstrap intervals over documents."""

    scores: str
    """Kind of token scores, such as `own_loss`; for an extra pair of query sets, `NAME/own_loss`."""
    way: str
    """How they make a document's score, one of `WAYS`."""
    auroc: Interval
    """Chance that a bad document comes before a good one, ties counted half."""
    average_precision: Interval
    """Mean over the bad documents of the precision down to each, ties taken together. Chance: the share of bad
    documents."""
    precision_at: dict[int, Interval]
    """Depth -> share of bad ones among this many of the highest-scoring documents, ties ordered by document id."""


def mean_of_highest(scores: np.ndarray, offsets: np.ndarray, share: float, trained=None) -> np.ndarray:
    """float64 (D,): mean of the highest `share` of each document's scores but the first token's and those not `trained`
    on, at least one; 0 without any."""
    n_valid = count_valid(offsets, trained)
    means = np.zeros(len(offsets) - 1, dtype=np.float64)
    for first, stop in document_runs(offsets):
        bounds = offsets[first : stop + 1] - offsets[first]
        lengths = np.diff(bounds)
        values = np.array(scores[offsets[first] : offsets[stop]], dtype=np.float64)
        owner = np.repeat(np.arange(stop - first), lengths)
        place = np.arange(len(values)) - bounds[owner]
        valid = place > 0 if trained is None else inside(trained, int(offsets[first]), int(offsets[stop]))
        values[~valid] = -np.inf  # sorts behind all others
        order = np.lexsort((-values, owner))
        counts = np.ceil(n_valid[first:stop] * share).astype(np.int64)  # (documents,)
        taken = place < counts[owner]  # the order keeps documents where they are
        sums = np.bincount(owner[taken], weights=values[order][taken], minlength=stop - first)
        means[first:stop] = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    return means


def judge_ranking(
    scores: np.ndarray, labels: Labels, id_rank: np.ndarray, name="", way="", *, n_draws=1000, seed=0
) -> RankingQuality:
    """AUROC, average precision and precision at several depths, with bootstrap intervals.

    Args:
        scores: float64 (D,), the higher, the worse.
        id_rank: int64 (D,), place of each document's id among all; orders ties.
        name, way: kept in the result.
        n_draws: how often the documents are drawn with replacement. A draw without both kinds counts as 0 for the
            lower bound and as 1 for the upper one, so that no interval is too narrow.
        seed: of the draws.
    """
    documents = np.flatnonzero(labels.labelled)
    order = documents[np.lexsort((id_rank[documents], -scores[documents]))]
    bad, ordered = labels.bad[order], scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))  # where another score begins
    n_bad = int(bad.sum())
    depths = sorted({n_bad, *(depth for depth in DEPTHS if depth < len(order))})

    def measure(rows: np.ndarray) -> np.ndarray:
        weights = np.bincount(rows, minlength=len(order))
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

    bounds = bootstrap_bounds(measure, len(order), n=n_draws, seed=seed, undefined=(0.0, 1.0))
    values = measure(np.arange(len(order)))
    intervals = [Interval(*map(float, numbers)) for numbers in zip(values, *bounds, strict=True)]
    auroc, average_precision, *precisions = intervals
    return RankingQuality(name, way, auroc, average_precision, dict(zip(depths, precisions, strict=True)))

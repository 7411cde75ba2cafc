"""Algorithm 1 of IF-Guide: scores -> threshold -> ranked documents -> selected tokens. Pure NumPy, no files.

D documents, N tokens laid end to end. Arguments that mean the same everywhere:
    scores: float32 (N,), one a token
    valid: tokens that have a score, see `Flags`
    offsets: int64 (D+1,), document d is at [offsets[d], offsets[d+1])
    id_rank: int64 (D,), a permutation: place of each document's id among the sorted ids; breaks ties
    threshold: tokens strictly above it are hits
    max_tokens: the budget; 0 is none
Masks are bool (N,). Tokens are read in runs of whole documents, so that arrays may be memory-mapped: memory grows with
documents and hits, not with tokens.

The rules, which the slow reference in tests/reference.py states again:
- A hit is a valid token whose score is strictly above the threshold.
- A document's two measures are its number of hits and the sum of their scores (float64, added in reading order).
  Each is min-max normalised over all documents; the rank score is the harmonic mean of the two. A measure that is the
  same for all documents normalises to 0, and the harmonic mean of 0 and 0 is 0.
- Documents are ordered by rank score, largest first; ties by document id in code point order.
- Going through the documents in that order and through each one's hits in reading order, every hit takes the tokens at
  most `window` places before and after it with only valid ones between, left to right, until `max_tokens` are taken.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ifguide.data.by_document import document_runs, sample_valid, token_parts
from ifguide.data.stretches import count_valid, find_edges
from ifguide.errors import ConfigError
from ifguide.selection.coverage import cover_hits, cut_intervals, expand_intervals
from ifguide.storage.memory_maps import release_pages


class Flags(Protocol):
    """bool (N,), or what gives parts of it, as `TokenizedCorpus.valid_parts` does."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Ranking:
    """Documents ordered by how strongly they teach toxicity at one threshold."""

    threshold: float
    """Tokens strictly above it are hits."""
    count_above: np.ndarray
    """int64 (D,), hits in each document."""
    sum_above: np.ndarray
    """float64 (D,), sum of the hits' scores."""
    rank_score: np.ndarray
    """float64 (D,) in [0, 1], harmonic mean of the normalised count and sum."""
    order: np.ndarray
    """int64 (D,), document indexes, best first."""


def rank_at_quantile(n: int, quantile: float) -> int:
    """How many of n descending values come before the one at a quantile: the lowest with a share of at least `quantile`
    at or below it. A ConfigError: a quantile out of range."""
    if not 0 <= quantile < 1:
        raise ConfigError(f"quantile: expected 0 <= quantile < 1, got {quantile}")
    return n - 1 - bisect_left(range(1, n), quantile, key=lambda at_or_below: at_or_below / n)


def rank_at_linear_quantile(n: int, quantile: float) -> int:
    """How many of n different values are strictly above NumPy's quantile, which is between two of them."""
    return n - 1 - math.floor(quantile * (n - 1))


TAIL = 3.0
"""Lower semi-deviations above the median at which the upper tail of the scores begins."""
MOST_IN_TAIL = 0.12
"""Share of the tokens that a tail holds at most: of exponentially distributed scores, of which none stands out, 13.6%
are beyond `TAIL`, of normal ones .1%, of real corpora so far up to 9.8%."""


def count_tail(scores: np.ndarray, offsets: np.ndarray, trained: np.ndarray | None = None) -> int:
    """How many valid tokens are in the upper tail of the scores: the operating point that needs no labels.

    They score more than `TAIL` lower semi-deviations above the median: the root mean square distance of the scores
    below the median from it. The scores below show how far noise alone reaches, since toxic tokens score above; of
    normally distributed scores the tail holds one in 740. `trained` are the edges of the tokens that have scores (see
    `ifguide.data.stretches`), int64 (2R,); None: all but the documents' first.

    Raises:
        ConfigError: there is no such tail: no score is below the median, as where most are equal; or none is in the
            tail, or more than `MOST_IN_TAIL` are.
    """
    return round(tail_share(sample_valid(scores, offsets, trained)) * count_valid(offsets, trained).sum())


def tail_share(values: np.ndarray) -> float:
    """The share of scores float32 (n,) in their upper tail; errors as `count_tail`."""
    remedy = "choose how many with --tokens, --share or --quantile"
    middle = np.median(values) if len(values) else 0.0
    below = middle - values[values < middle].astype(np.float64)
    if not len(below):
        raise ConfigError(f"no score is below the median, so nothing tells high scores from noise; {remedy}")
    share = np.count_nonzero(values > middle + TAIL * np.sqrt(np.mean(below**2))) / len(values)
    if not 0 < share <= MOST_IN_TAIL:
        raise ConfigError(f"{share:.2%} of the scores are far above the median, so no token stands out; {remedy}")
    return share


def quantile_of_share(per_cent: float) -> float:
    """The quantile above which this share of all values is."""
    return round(1 - per_cent / 100, 14)


def rank_documents(
    scores: np.ndarray, offsets: np.ndarray, valid: Flags, threshold: float, id_rank: np.ndarray
) -> Ranking:
    """Rank documents by the harmonic mean of the normalised count and sum of their scores above a threshold."""
    offsets = np.asarray(offsets)
    counts, sums = np.zeros(len(offsets) - 1, dtype=np.int64), np.zeros(len(offsets) - 1)
    for first, stop, tokens in _runs(offsets, scores):
        hits = find_hits(scores[tokens], valid[tokens], threshold)
        owner = np.searchsorted(offsets[first : stop + 1] - tokens.start, hits, side="right") - 1
        counts[first:stop] = np.bincount(owner, minlength=stop - first)
        sums[first:stop] = np.bincount(owner, np.asarray(scores[tokens][hits], dtype=np.float64), stop - first)
    return rank_measured(threshold, counts, sums, id_rank)


def _runs(offsets: np.ndarray, *arrays: np.ndarray) -> Iterator[tuple[int, int, slice]]:
    """Runs of documents [first, stop) with their tokens; then the pages of memory-mapped `arrays` are released."""
    for first, stop in document_runs(offsets):
        tokens = slice(int(offsets[first]), int(offsets[stop]))
        yield first, stop, tokens
        for array in arrays:
            release_pages(array, tokens.start, tokens.stop)


def rank_measured(threshold: float, counts: np.ndarray, sums: np.ndarray, id_rank: np.ndarray) -> Ranking:
    """Rank documents by their hits, `counts` int64 (D,), and the sums of the hits' scores, `sums` float64 (D,)."""
    rank_score = harmonic_mean(normalise(counts.astype(np.float64)), normalise(sums))
    by_id = np.empty(len(counts), dtype=np.int64)
    by_id[id_rank] = np.arange(len(counts))
    ranked = rank_score[by_id] > 0  # most documents have no hit: they stay in the order of their ids
    best = by_id[ranked]
    order = np.concatenate([best[np.argsort(-rank_score[best], kind="stable")], by_id[~ranked]])
    return Ranking(float(threshold), counts, sums, rank_score, order)


def find_hits(scores: np.ndarray, valid: np.ndarray, threshold: float) -> np.ndarray:
    """Indexes int64 of the valid tokens whose score is strictly above the threshold, ascending."""
    return np.flatnonzero((np.asarray(scores, dtype=np.float64) > threshold) & np.asarray(valid))


def normalise(values: np.ndarray) -> np.ndarray:
    """Min-max normalisation float64 (D,) to [0, 1]; all zeros when every value is the same."""
    if values.size == 0:
        return values
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def harmonic_mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """2ab/(a+b), and 0 where both are 0."""
    total = a + b
    return np.divide(2.0 * a * b, total, out=np.zeros_like(total), where=total > 0)


def select_tokens(
    scores: np.ndarray,
    offsets: np.ndarray,
    valid: Flags,
    ranking: Ranking,
    *,
    window: int = 0,
    max_tokens: int = 0,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """The mask of selected tokens, `window` tokens on each side of a hit included; `ranking` is of the same scores.
    `mask`, all False, is filled in and returned if it is given."""
    offsets, mask = np.asarray(offsets), np.zeros(len(scores), dtype=bool) if mask is None else mask
    taken = ranking.count_above
    if max_tokens:
        covered = np.zeros_like(taken)
        for owner, low, high in _find_windows(scores, offsets, valid, ranking, window):
            np.add.at(covered, owner, high - low)
        taken = spend_budget(covered, ranking.order, max_tokens)
    for owner, low, high in _find_windows(scores, offsets, valid, ranking, window):
        if max_tokens:  # windows grow to the right: "hit by hit, left to right" takes them in reading order
            high = cut_intervals(low, high, owner, taken)
        mask[expand_intervals(low, high)] = True
        release_pages(mask, int(low[0]) if len(low) else 0, int(high[-1]) if len(high) else 0)
    return mask


def _find_windows(
    scores: np.ndarray, offsets: np.ndarray, valid: Flags, ranking: Ranking, window: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Run by run, of each hit in reading order: its document, and the tokens [low, high) that it takes and no hit
    before it has taken, int64 (hits,) each."""
    for _, _, tokens in _runs(offsets, scores):
        here = valid[tokens]
        hits = find_hits(scores[tokens], here, ranking.threshold)
        edges, owner = find_edges(here) + tokens.start, np.searchsorted(offsets, hits + tokens.start, side="right") - 1
        after = np.searchsorted(edges, hits + tokens.start, side="right")
        reach = np.maximum(edges[after - 1], offsets[owner]), np.minimum(edges[after], offsets[owner + 1])
        yield owner, *cover_hits(hits + tokens.start, *reach, window)


def whole_window_budget(
    scores: np.ndarray, offsets: np.ndarray, valid: Flags, ranking: Ranking, *, window: int, max_tokens: int
) -> int:
    """The largest budget up to `max_tokens` that cuts no hit's window: what is taken before the first hit, in the order
    of `select_tokens`, whose window would go beyond."""
    windows = [(owner, high - low) for owner, low, high in _find_windows(scores, offsets, valid, ranking, window)]
    owner, lengths = map(np.concatenate, zip(*windows, strict=True))
    taken = np.cumsum(lengths[np.argsort(np.argsort(ranking.order)[owner], kind="stable")])
    return int(taken[taken <= max_tokens].max(initial=0))


def spend_budget(covered: np.ndarray, order: np.ndarray, max_tokens: int) -> np.ndarray:
    """int64 (D,): of each document's `covered` tokens, int64 (D,), how many are taken, going through the documents in
    `order`, int64 (D,), until `max_tokens` are; 0: all."""
    if not max_tokens:
        return covered
    taken, in_order = np.empty_like(covered), covered[order]
    taken[order] = np.clip(max_tokens - (np.cumsum(in_order) - in_order), 0, in_order)
    return taken


def select_random(valid: Flags, n_tokens: int, seed: int, mask: np.ndarray | None = None) -> np.ndarray:
    """A mask of `n_tokens` valid tokens drawn without replacement: the control of every selection. In a corpus larger
    than `TOKENS_AT_ONCE` each part of that size gives its share. `mask` as for `select_tokens`."""
    mask = np.zeros(len(valid), dtype=bool) if mask is None else mask
    before = np.cumsum([0, *(np.count_nonzero(valid[part]) for part in token_parts(len(valid)))])
    shares = np.diff(before * min(n_tokens, int(before[-1])) // max(1, int(before[-1])))
    draw = np.random.default_rng(seed)
    for part, size in zip(token_parts(len(valid), mask), shares, strict=True):
        places = part.start + np.flatnonzero(valid[part])
        mask[draw.choice(places, size=size, replace=False)] = True
    return mask


def keep_best(scores: np.ndarray, valid: Flags, kth: float, n_tokens: int, kept: np.ndarray) -> float:
    """Copy the best scores to `kept`, float32 (N,), and -inf to all other places; returns a threshold below them. The
    best are the `n_tokens` highest of valid tokens that are above 0 (fewer if there are fewer); of equal scores the
    first. `kth` is the lowest of the `n_tokens` highest."""
    least, ties = max(kth, 0.0), n_tokens
    for part in token_parts(len(valid), scores):
        ties -= int(np.count_nonzero((scores[part] > least) & valid[part]))
    for part in token_parts(len(valid), scores, kept):
        here, counted = np.asarray(scores[part]), valid[part]
        best = (here > least) & counted
        if least > 0:
            equal = np.flatnonzero((here == least) & counted)[:ties]
            best[equal], ties = True, ties - len(equal)
        kept[part] = np.where(best, here, -np.inf)
    return float(np.nextafter(np.float32(least), np.float32(-np.inf))) if least > 0 else 0.0


def precision_recall(mask: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> tuple[float | None, float | None]:
    """Precision and recall of a mask against known tokens, over valid tokens; None where the denominator is 0."""
    mask, truth = np.asarray(mask) & valid, np.asarray(truth) & valid
    both, n_mask, n_truth = (int(np.count_nonzero(tokens)) for tokens in (mask & truth, mask, truth))
    return both / n_mask if n_mask else None, both / n_truth if n_truth else None

"""What share of what was judged is toxic: of all verdicts, of a stratified random sample, or of the tokens above any
threshold; and how far reviewers agree. No files.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A value and its 95% bounds."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """How far two reviewers agree on what both judged."""

    reviewers: tuple[str, str]
    n: int
    """What both judged."""
    same: int
    """What both judged alike."""
    kappa: float | None
    """Cohen's κ: 1 is full agreement, 0 what chance gives; None where both always gave one and the same verdict."""


def find_agreement(verdicts: Mapping[str, Mapping[Any, tuple[str, str]]]) -> list[Agreement]:
    """The agreement of every two reviewers with names who judged the same; `verdicts` as `VerdictLog.reviewers`."""
    agreements = []
    for first, second in itertools.combinations(sorted(filter(None, verdicts)), 2):
        mine, theirs = verdicts[first], verdicts[second]
        if both := [target for target in mine if target in theirs]:
            from sklearn.metrics import cohen_kappa_score  # takes a second to load

            a, b = ([given[target][0] for target in both] for given in (mine, theirs))
            kappa = float(cohen_kappa_score(a, b)) if len({*a, *b}) > 1 else None
            agreements.append(Agreement((first, second), len(both), sum(map(str.__eq__, a, b)), kappa))
    return agreements


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share (Wilson 1927); `n` may be an effective sample size, not whole."""
    z = NormalDist().inv_cdf(1 - (1 - level) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


STEPS = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Where the strata of an audit of tokens end: multiples of the number of tokens above the threshold it starts from."""


@dataclass(frozen=True, eq=False)
class TokenSample:
    """Tokens drawn for judging from H strata of the ranked scores; rank 0 is the highest score."""

    edges: np.ndarray
    """int64 (H+1,), from 0: stratum h has the ranks [edges[h], edges[h+1])."""
    ranks: np.ndarray
    """int64 (n,), in the order of judging."""


def draw_tokens(above: int, most: int, n: int, seed: int = 0) -> TokenSample:
    """Draw `n` tokens (all if there are fewer) around a threshold with `above` tokens over it, none beyond rank `most`.

    Every H in a row are one of each stratum in random order, so that an audit can stop early. A larger `n` draws the
    same ones first.
    """
    edges = np.unique([0, *np.clip(np.rint(above * np.array(STEPS)), 1, most)]).astype(np.int64)
    n_strata, drawn = len(edges) - 1, []
    members = [
        first + np.random.default_rng([seed, h]).permutation(size)[:n]
        for h, (first, size) in enumerate(zip(edges, np.diff(edges), strict=False))
    ]
    for turn in range(max(map(len, members))):
        here = [ranks[turn] for ranks in members if turn < len(ranks)]
        drawn += np.random.default_rng([seed, n_strata + turn]).permutation(here).tolist()
    return TokenSample(edges, np.array(drawn[:n], dtype=np.int64))


def precision_above(sample: TokenSample, numbers: np.ndarray, toxic: np.ndarray, above: int) -> Interval | None:
    """The share of toxic ones among the `above` tokens of the highest scores, from verdicts on a sample; None while a
    stratum among them has no verdict, or where they reach beyond the sample.

    A stratum weighs as many of its tokens as are above the threshold, and the share of toxic ones inside a stratum is
    taken to be even. The interval is Wilson's, with the size of a simple random sample of the same variance (the
    effective sample size), at most the number of verdicts; no bootstrap over strata, which would be empty where five
    verdicts agree. In simulations it covers the truth at least 90% of the time at each threshold, from 40 verdicts on.

    Args:
        numbers: int (m,), places in `sample.ranks` of the tokens with a verdict.
        toxic: bool (m,).
    """
    sizes = np.clip(above - sample.edges[:-1], 0, np.diff(sample.edges))
    strata, real = np.searchsorted(sample.edges, sample.ranks[numbers], side="right") - 1, sizes > 0
    counts = np.bincount(strata, minlength=len(sizes))[real]
    hits = np.bincount(strata, weights=toxic, minlength=len(sizes))[real]
    if above > sample.edges[-1] or not counts.all():
        return None
    weights, n = sizes[real] / above, int(counts.sum())
    value = float((weights * hits / counts).sum())
    smoothed = (hits + 0.5) / (counts + 1)  # a stratum with verdicts of one kind is not certain
    variance = float((weights**2 * smoothed * (1 - smoothed) / counts).sum())
    pooled = (value * n + 0.5) / (n + 1)
    effective = min(float(n), pooled * (1 - pooled) / variance)
    return Interval(value, *wilson(value * effective, effective))

"""How a judge's scores compare with ratings of the same texts by others, such as Perspective's, with 95% bootstrap
intervals over texts. Pure NumPy."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ifguide.errors import ConfigError
from ifguide.evaluation.statistics import TOXIC_FROM, bootstrap_bounds
from ifguide.storage.artifacts import read_json

FILE = "calibration.json"
"""In a judge's folder: what `calibrate` gives, with `reference`, which says what the ratings are."""
N_BINS = 10


def calibrate(scores: np.ndarray, ratings: np.ndarray, categories: Mapping[str, np.ndarray], **draws: int) -> dict:
    """Measure a judge against ratings.

    Args:
        scores: the judge's, float64 (n,).
        ratings: the others', float64 (n,); a text is toxic if its rating is at least `TOXIC_FROM`.
        categories: ratings of kinds of toxicity, (n,) each.
        draws: see `ifguide.evaluation.statistics.bootstrap_bounds`.

    Returns:
        n_texts, n_toxic; `auc`, `ece` (expected calibration error over `N_BINS` equal bins), `threshold` (from which
        the judge flags as many texts as are toxic) and `share_flagged` at `TOXIC_FROM`, each [value, low, high];
        `bins`, rows of mean score, share toxic and number of texts; `categories`: n, `auc` against the texts that are
        not toxic, and `flagged` at `TOXIC_FROM` and `flagged_calibrated` at the threshold, as shares.
    """
    toxic = ratings >= TOXIC_FROM

    def measure(rows: np.ndarray | slice) -> np.ndarray:
        s, t = scores[rows], toxic[rows]
        return np.array([auc(s, t), calibration_error(s, t), matching_threshold(s, t), (s >= TOXIC_FROM).mean()])

    names = ("auc", "ece", "threshold", "share_flagged")
    values = _with_bounds(names, measure, len(scores), draws)
    by_kind = {}
    for kind, of_kind in categories.items():
        members = of_kind >= TOXIC_FROM
        rows, from_value = members | ~toxic, values["threshold"][0]
        s, t = scores[rows], members[rows]
        flags = {"flagged": TOXIC_FROM, "flagged_calibrated": from_value}
        shares = {name: float((scores[members] >= at).mean()) if members.any() else None for name, at in flags.items()}
        measured = _with_bounds(("auc",), lambda r, s=s, t=t: np.array([auc(s[r], t[r])]), len(s), draws)
        by_kind[kind] = {"n": int(members.sum()), **measured, **shares}
    bins = [[float(scores[b].mean()), float(toxic[b].mean()), int(b.sum())] for b in _bins(scores) if b.any()]
    counts = {"n_texts": len(scores), "n_toxic": int(toxic.sum())}
    return counts | values | {"bins": bins, "categories": by_kind}


def _with_bounds(names: Sequence[str], measure, n_rows: int, draws: Mapping[str, int]) -> dict[str, list[float]]:
    bounds = bootstrap_bounds(measure, n_rows, undefined=(0.0, 1.0), **draws)
    rows = zip(measure(slice(None)).tolist(), *(edge.tolist() for edge in bounds), strict=True)
    return dict(zip(names, map(list, rows), strict=True))


def auc(scores: np.ndarray, toxic: np.ndarray) -> float:
    """Area under the ROC curve: how often a toxic text scores higher than another one, a tie counting half; NaN without
    both."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    n = int(toxic.sum())
    others = len(toxic) - n
    return float((ranks[toxic].sum() - n * (n + 1) / 2) / (n * others)) if n and others else float("nan")


def calibration_error(scores: np.ndarray, toxic: np.ndarray) -> float:
    """Expected calibration error: the mean over texts of |mean score − share toxic| of their bin."""
    return sum(abs(float(scores[b].sum() - toxic[b].sum())) for b in _bins(scores)) / len(scores)


def _bins(scores: np.ndarray) -> list[np.ndarray]:
    number = np.minimum((scores * N_BINS).astype(int), N_BINS - 1)
    return [number == place for place in range(N_BINS)]


def matching_threshold(scores: np.ndarray, toxic: np.ndarray) -> float:
    """The score from which as many texts are flagged as are toxic (more where scores are equal); 1 where none is."""
    n = int(toxic.sum())
    return float(np.sort(scores)[-n]) if n else 1.0


def read_threshold(folder: Path | None, name: str) -> float:
    """The calibrated threshold that is kept with a judge. A ConfigError: none is, or it is not inside 0 to 1."""
    path = folder / FILE if folder else None
    value = read_json(path)["threshold"][0] if path and path.is_file() else None
    if value is None or not 0 < value < 1:
        expected = f"a judge with {FILE} in its folder, with a threshold inside 0 to 1"
        raise ConfigError(f"evaluate.threshold: expected {expected}, got {name}; name a number, such as 0.5")
    return float(value)


class ShiftedJudge:
    """A judge whose scores are shifted so that its threshold becomes `TOXIC_FROM`: the odds of every score are divided
    by the threshold's. The order of texts stays."""

    def __init__(self, judge, threshold: float):
        self._judge, self._threshold = judge, threshold
        self.name, self.digest = f"{judge.name} (toxic from {threshold:.4g})", getattr(judge, "digest", "")

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """float64 (n,): the shifted scores."""
        scores, at = self._judge.score(texts), self._threshold
        return scores * (1 - at) / (scores * (1 - at) + (1 - scores) * at)

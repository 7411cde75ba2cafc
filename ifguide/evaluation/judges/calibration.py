"""How a judge's scores compare with ratings of the same texts by others, such as Perspective's; and scores shifted by
the threshold that follows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ifguide.errors import ConfigError
from ifguide.evaluation.ranking import Labels, judge_ranking
from ifguide.evaluation.statistics import TOXIC_FROM, bootstrap_bounds
from ifguide.storage.artifacts import read_json

FILE = "calibration.json"
"""In a judge's folder: what `calibrate` gives, with `reference`, which says what the ratings are."""
N_BINS = 10


def calibrate(scores: np.ndarray, ratings: np.ndarray) -> dict:
    """Measure a judge's scores, float64 (n,), against ratings (n,): a text is toxic if its rating is at least
    `TOXIC_FROM`. Returns n_texts and n_toxic; with 95% bootstrap bounds over texts, as [value, low, high], `auc`, `ece`
    (expected calibration error over `N_BINS` equal bins), `threshold` (from which the judge flags as many texts as are
    toxic) and `share_flagged` at `TOXIC_FROM`; and `bins`, rows of mean score, share toxic and number of texts."""
    toxic = ratings >= TOXIC_FROM

    def bins(s: np.ndarray) -> list[np.ndarray]:
        number = np.minimum((s * N_BINS).astype(int), N_BINS - 1)
        return [number == place for place in np.unique(number)]

    def measure(rows: np.ndarray | slice) -> np.ndarray:
        s, t = scores[rows], toxic[rows]
        ece = sum(abs(s[b].sum() - t[b].sum()) for b in bins(s)) / len(s)
        threshold = np.sort(s)[-t.sum()] if t.any() else 1.0
        return np.array([ece, threshold, (s >= TOXIC_FROM).mean()])

    auc = judge_ranking(scores, Labels(toxic, np.ones_like(toxic)), np.arange(len(scores))).auroc
    others = np.stack([measure(slice(None)), *bootstrap_bounds(measure, len(scores))], axis=1).tolist()
    return {
        "n_texts": len(scores),
        "n_toxic": int(toxic.sum()),
        **dict(zip(("auc", "ece", "threshold", "share_flagged"), map(list, (auc, *others)), strict=True)),
        "bins": [[float(scores[b].mean()), float(toxic[b].mean()), int(b.sum())] for b in bins(scores)],
    }


def read_threshold(folder: Path, name: str) -> float:
    """The calibrated threshold that is kept with a judge. A ConfigError: none is, or it is not inside 0 to 1."""
    value = read_json(folder / FILE)["threshold"][0] if (folder / FILE).is_file() else 0
    if not 0 < value < 1:
        expected = f"a judge with {FILE} in its folder, and a threshold inside 0 to 1 there"
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

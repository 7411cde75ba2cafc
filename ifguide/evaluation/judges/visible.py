"""Scoring the texts that have something to see."""

from collections.abc import Callable, Sequence

import numpy as np

from ifguide.errors import NumericalError


def score_visible(texts: Sequence[str], score: Callable, batch_size: int = 4096) -> np.ndarray:
    """Scores of the texts with a visible character, in batches of similar length; 0 for the others. A score outside 0
    to 1 is a NumericalError."""
    scores = np.zeros(len(texts), dtype=np.float64)
    visible = [i for i, text in enumerate(texts) if text.strip()]
    visible.sort(key=lambda i: -len(texts[i]))  # longest first: short padding, and too little memory shows at once
    for start in range(0, len(visible), batch_size):
        part = visible[start : start + batch_size]
        scores[part] = score([texts[i] for i in part])
    if not ((scores >= 0) & (scores <= 1)).all():
        got = f"{scores.min()} to {scores.max()}"
        raise NumericalError(f"toxicity: expected scores from 0 to 1, got {got}; is the scorer damaged?")
    return scores

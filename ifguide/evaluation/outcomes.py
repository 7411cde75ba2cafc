"""Prompt by prompt: was another model less toxic than the first, more toxic, or about as toxic? No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ifguide.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

TIE_MARGIN = 0.05
"""Two models are alike on a prompt when their highest toxicities differ by no more than this."""
OUTCOMES = ("less", "alike", "more")
"""What can happen on a prompt: the other model's worst completion is less toxic, about as toxic, or more toxic."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """One model against the first, in ascending order of the prompts both completed."""

    prompts: np.ndarray
    """int64 (P,), prompt indexes."""
    first: np.ndarray
    """float64 (P,), highest toxicity among the first model's completions."""
    other: np.ndarray
    """float64 (P,), of the other model's."""
    margin: float = TIE_MARGIN
    """Largest difference that counts as alike."""

    @property
    def change(self) -> np.ndarray:
        """float64 (P,): other minus first. Negative: less toxic."""
        return self.other - self.first

    @property
    def kinds(self) -> np.ndarray:
        """int8 (P,): place in `OUTCOMES` of what happened on each prompt."""
        change = self.change
        return (1 + (change > self.margin).astype(np.int8) - (change < -self.margin)).astype(np.int8)

    def counts(self) -> tuple[int, int, int]:
        """Prompts with each of `OUTCOMES`."""
        less, alike, more = np.bincount(self.kinds, minlength=3).tolist()
        return less, alike, more

    def arrange(self, order: str = "largest", outcome: str = "") -> np.ndarray:
        """int64, places of the prompts with an outcome (empty: all): the `largest` change in either direction first,
        the largest `drop` or `rise`, or in the file's order (`prompt`), as ties are. An unknown order or outcome is an
        InputError."""
        change = self.change
        ranks = {"largest": -np.abs(change), "drop": change, "rise": -change, "prompt": np.zeros(len(change))}
        if order not in ranks or outcome not in ("", *OUTCOMES):
            expected = f"an order ({', '.join(ranks)}) and an outcome ({', '.join(OUTCOMES)})"
            raise InputError(f"expected {expected}, got {order!r} and {outcome!r}")
        sequence = np.lexsort((self.prompts, ranks[order]))
        return sequence[self.kinds[sequence] == OUTCOMES.index(outcome)] if outcome else sequence


def highest_toxicity(samples: "pd.DataFrame") -> "pd.Series":
    """Prompt index -> the highest toxicity among its completions, ascending by prompt."""
    return samples.groupby("prompt_index")["toxicity"].max()


def compare_prompts(first: "pd.DataFrame", other: "pd.DataFrame", *, margin: float = TIE_MARGIN) -> Outcomes:
    """Pair two models' samples (columns prompt_index and toxicity) prompt by prompt; a margin outside 0 to 1 is an
    InputError."""
    if not 0 <= margin <= 1:
        raise InputError(f"margin: expected a difference of toxicity from 0 to 1, got {margin}")
    mine, theirs = highest_toxicity(first), highest_toxicity(other)
    both = mine.index.intersection(theirs.index).sort_values()
    highest, others = (scores.loc[both].to_numpy(dtype=np.float64) for scores in (mine, theirs))
    return Outcomes(both.to_numpy(dtype=np.int64), highest, others, margin)


def compare_with_first(samples: Mapping[str, "pd.DataFrame"], *, margin: float = TIE_MARGIN) -> dict[str, Outcomes]:
    """Every further model against the first one of `samples`."""
    first, *others = samples
    return {name: compare_prompts(samples[first], samples[name], margin=margin) for name in others}

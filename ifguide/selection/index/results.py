"""What the index answers: the exact result of a choice, and how two selections overlap.

Shapes: D documents, S sources.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ifguide.selection.algorithm import Ranking
from ifguide.selection.choice import Choice
from ifguide.selection.index.hits import Hits


@dataclass(frozen=True, eq=False, kw_only=True)
class Preview:
    """Counts at K thresholds, from the highest down, for drawing while the handle is dragged.

    The first T of them are in the highest tenth of the scores; further down only the threshold and the number of tokens
    above it are known before release. Covered tokens are counted at the windows 0 to W.
    """

    threshold: np.ndarray
    """float64 (K,)."""
    tokens_above: np.ndarray
    """int64 (K,)."""
    documents: np.ndarray
    """int64 (T,), documents with a token above."""
    covered: np.ndarray
    """int64 (T, W+1, S), covered tokens in each source."""
    effect: np.ndarray
    """float64 (T, W+1), sums of the covered tokens' scores."""
    spans: np.ndarray | None = None
    """int64 (T, W+1), covered tokens inside known spans; None when the corpus has none."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Holding:
    """What a selection holds."""

    n_selected: int
    """Selected tokens: the budget used."""
    n_documents: int
    """Documents with at least one selected token."""
    precision: float | None = None
    """Share of the selected tokens that is in known spans; None without spans or selected tokens."""
    recall: float | None = None
    """Share of the tokens in known spans that is selected; None without any."""
    effect: float = 0.0
    """Sum of the selected tokens' scores, float64."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Resolved(Holding):
    """The exact result of one choice of settings, bit-equal to `ifguide.selection.algorithm`."""

    choice: Choice
    """What was asked for."""
    threshold: float
    """Tokens strictly above it are hits."""
    n_above: int
    """Hits: the choice's `tokens_above`, or fewer where scores tie at the threshold."""
    seconds: float = 0.0
    """How long it took."""
    ranking: Ranking = field(repr=False)
    """All documents, best first, with counts and sums above."""
    covered: np.ndarray = field(repr=False)
    """int64 (D,), tokens that hits and windows cover in each document, before the budget."""
    taken: np.ndarray = field(repr=False)
    """int64 (D,), selected tokens in each document."""
    hits: Hits = field(repr=False)
    """Where the hits are read from."""

    def documents(self, places: slice | np.ndarray) -> pa.Table:
        """Places of the rank list: rank (1 is the best), document, count_above, sum_above, rank_score, n_selected."""
        order = self.ranking.order[places]
        columns = {"rank": np.arange(len(self.ranking.order))[places] + 1, "document": order}
        columns |= {key: getattr(self.ranking, key)[order] for key in ("count_above", "sum_above", "rank_score")}
        return pa.table(columns | {"n_selected": self.taken[order]})


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Two selections compared, token by token."""

    tokens_a: int
    """Only in A."""
    tokens_b: int
    """Only in B."""
    tokens_both: int
    documents_a: int
    """Documents with selected tokens in A alone."""
    documents_b: int
    documents_both: int
    """Documents with selected tokens in both."""

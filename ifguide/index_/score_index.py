"""The index behind the threshold slider: what any threshold selects, without a scan of all tokens.

Shapes: D documents, N tokens, V valid tokens (all but each document's first), S sources, W = MAX_WINDOW. A token is *above* a
threshold when it is valid and its score is strictly higher; a token is *covered* at window w when a token above lies at most w
places away in its document. The handle lives in "number of tokens above": `quantile_for` turns that number into the quantile
that is saved, so a saved selection restores the handle.
"""

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ifguide.config import SelectionConfig
from ifguide.selection import Ranking, precision_recall, rank_documents, select_tokens, threshold_at_quantile

if TYPE_CHECKING:
    from ifguide.study import Study

MAX_WINDOW = 5
"""Largest window whose counts are kept for every threshold; larger ones are counted on release."""
N_KNOTS = 1000
TAIL_QUANTILE = 0.9


@dataclass(frozen=True, eq=False)
class Resolved:
    """The exact result of one choice of settings, bit-equal to `ifguide.selection`."""

    settings: dict
    """attribution, quantile, window, max_tokens."""
    threshold: float
    """Tokens strictly above it are hits."""
    n_valid: int
    """V, tokens that have a score."""
    n_above: int
    """Hits."""
    n_covered: int
    """Hits and their windows, before the budget."""
    n_selected: int
    """The same after the budget: the budget used."""
    n_documents: int
    """Documents with at least one selected token."""
    by_source: np.ndarray
    """int64 (S,), selected tokens in each source."""
    n_span_selected: int | None
    """Selected tokens inside known spans; None when the corpus has none."""
    precision: float | None
    """Share of the selected tokens that is in known spans."""
    recall: float | None
    """Share of the tokens in known spans that is selected."""
    effect: float
    """Sum of the selected tokens' scores."""
    cut: int
    """Place in `order` of the first document that the budget does not take whole; D without one."""
    seconds: float
    """How long it took."""
    scanned: bool
    """All tokens were read, because the threshold lies below the tail."""
    ranking: Ranking = field(repr=False)
    """All documents, best first, with counts and sums above."""
    taken: np.ndarray = field(repr=False)
    """int64 (D,), selected tokens in each document."""

    def documents(self, first: int, stop: int) -> pa.Table:
        """A slice of the rank list: rank (1 is the best), document, count_above, sum_above, rank_score, n_selected."""
        order = self.ranking.order[first:stop]
        return pa.table(
            {
                "rank": np.arange(first, first + len(order)) + 1,
                "document": order,
                "count_above": self.ranking.count_above[order],
                "sum_above": self.ranking.sum_above[order],
                "rank_score": self.ranking.rank_score[order],
                "n_selected": self.taken[order],
            }
        )

    def rank_curve(self, n_points: int = 300) -> pa.Table:
        """Selected tokens in the best documents: documents (how many), tokens (selected in them, int64)."""
        places = np.unique(np.linspace(0, len(self.taken), n_points).astype(np.int64))
        running = np.concatenate([[0], np.cumsum(self.taken[self.ranking.order])])
        return pa.table({"documents": places, "tokens": running[places]})


@dataclass(frozen=True)
class Overlap:
    """Two selections compared."""

    tokens_a: int
    """Only in A."""
    tokens_b: int
    """Only in B."""
    tokens_both: int
    documents_a: np.ndarray
    """int64, documents with selected tokens in A alone, best in A first."""
    documents_b: np.ndarray
    documents_both: np.ndarray
    """int64, documents with selected tokens in both."""


class ScoreIndex:
    """What the tokens' scores of one kind select at any threshold; made by `open`."""

    def __init__(self, study: "Study", kind: str):
        corpus = study.corpus()
        self.kind = kind
        """`own_loss` or `position`."""
        self._defaults = study.config.selection
        self._corpus, self._scores = corpus, np.asarray(study.scores(kind))
        self._offsets, self._valid = np.asarray(corpus.offsets), corpus.valid()
        self._descending = np.sort(self._scores[self._valid])[::-1]
        names, codes = np.unique(np.array(corpus.sources(), dtype=object).astype(str), return_inverse=True)
        self.sources: tuple[str, ...] = tuple(names.tolist())
        """Names of the sources, most tokens first; beyond 32, the last one is called `other sources`."""
        self._source_of = codes

    @classmethod
    def open(cls, study: "Study", kind: str = "own_loss") -> "ScoreIndex":
        """Open the index of a study.

        Raises:
            StaleError: it is missing, damaged or of other scores; says which command mends it.
        """
        return cls(study, kind)

    @property
    def n_valid(self) -> int:
        """V."""
        return len(self._descending)

    @property
    def n_tail(self) -> int:
        """Tokens above the 90th percentile; for as many tokens above the threshold and fewer, everything is known at once."""
        return int(np.searchsorted(-self._descending, -self.threshold_at(TAIL_QUANTILE), side="left"))

    @property
    def n_span(self) -> int | None:
        """Valid tokens inside known spans; None when the corpus has none."""
        spans = self._corpus.in_span
        return None if spans is None else int(np.count_nonzero(np.asarray(spans) & self._valid))

    @property
    def source_tokens(self) -> np.ndarray:
        """int64 (S,), valid tokens in each source."""
        owner = np.repeat(self._source_of, np.diff(self._offsets))
        return np.bincount(owner[self._valid], minlength=len(self.sources)).astype(np.int64)

    def quantile_for(self, n_above: int) -> float:
        """The quantile whose threshold has `n_above` tokens above it, or as many fewer as ties force."""
        n_above = min(int(n_above), self.n_valid - 1)
        return (self.n_valid - n_above) / self.n_valid if n_above > 0 else 1 - 0.5 / self.n_valid

    def tokens_above(self, threshold: float) -> int:
        """How many valid tokens have a score strictly above a threshold."""
        return int(np.searchsorted(-self._descending, -np.float64(threshold), side="left"))

    def threshold_at(self, quantile: float) -> float:
        """The threshold at a quantile, as `ifguide.selection.threshold_at_quantile`."""
        return threshold_at_quantile(self._scores, self._valid, quantile)

    def preview(self) -> pa.Table:
        """Exact counts at about a thousand thresholds, for drawing while the handle is dragged.

        A row a knot, from the highest threshold (one token above) down to the 90th percentile, then a coarse part down to the
        lowest. Columns:
            quantile, threshold: float64; saving that quantile gives exactly that threshold.
            tokens_above: int64.
            documents_hit: int64, documents with a token above.
            covered_0 .. covered_5: int64, tokens covered at that window (0: the same as tokens_above).
            effect_0 .. effect_5: float64, sums of the covered tokens' scores.
            span_0 .. span_5: int64, covered tokens inside known spans; only when the corpus has spans.
            source_0 .. source_5: fixed-size list (S,) of int64, covered tokens in each source.
        In the coarse part only quantile, threshold and tokens_above are known before release; the rest is null there.
        """
        return _plain_preview(self)

    def words(self) -> pa.Table:
        """The words that enter the selection between neighbouring coarse knots, most frequent first, at most 40 a knot.

        Columns: level (int32, from 0, the highest scores), first_above and last_above (int64: the level holds the tokens that
        come in when the number of tokens above grows from the one to the other), word (string, lower case, without blanks),
        count (int64, tokens of that word that enter), occurrences (int64, in the whole corpus).
        """
        return _plain_words(self)

    def histogram(self, low: float | None = None, high: float | None = None, n_bins: int = 200) -> pa.Table:
        """Exact counts of valid scores in bins: left, right (float64), count (int64); a score belongs to (left, right].

        Args:
            low: left end; None: the lowest score.
            high: right end; None: the highest score.
            n_bins: about so many bins; below the tail edges are moved to the nearest ones that are counted exactly.
        """
        least, most = float(self._descending[-1]), float(self._descending[0])
        low, high = least if low is None else low, most if high is None else high
        edges = np.linspace(low, high, n_bins + 1)
        above = np.searchsorted(-self._descending, -edges, side="left")
        count = -np.diff(above)
        if low <= least:
            count[0] += self.n_valid - above[0]
        return pa.table({"left": edges[:-1], "right": edges[1:], "count": count.astype(np.int64)})

    def resolve(self, settings: dict | SelectionConfig) -> Resolved:
        """The exact result of a choice: any of quantile, window, max_tokens; the rest comes from study.toml.

        Raises:
            ConfigError: a setting out of range.
        """
        started = time.perf_counter()
        chosen = self._settings(settings)
        threshold = self.threshold_at(chosen["quantile"])
        ranking = rank_documents(self._scores, self._offsets, self._valid, threshold, self._corpus.id_rank)
        limits = {key: chosen[key] for key in ("window", "max_tokens")}
        mask = select_tokens(self._scores, self._offsets, self._valid, ranking, **limits)
        covered = select_tokens(self._scores, self._offsets, self._valid, ranking, window=chosen["window"])
        taken = np.diff(np.concatenate([[0], np.cumsum(mask)])[self._offsets])
        whole = np.diff(np.concatenate([[0], np.cumsum(covered)])[self._offsets])
        short = np.flatnonzero((taken < whole)[ranking.order])
        spans = self._corpus.in_span
        precision, recall = (None, None) if spans is None else precision_recall(mask, spans, self._valid)
        return Resolved(
            settings=chosen, threshold=threshold, n_valid=self.n_valid, n_above=int(ranking.count_above.sum()),
            n_covered=int(covered.sum()), n_selected=int(mask.sum()), n_documents=int(np.count_nonzero(taken)),
            by_source=np.bincount(self._source_of, weights=taken, minlength=len(self.sources)).astype(np.int64),
            n_span_selected=None if spans is None else int(np.count_nonzero(mask & spans)), precision=precision, recall=recall,
            effect=float(self._scores[mask].sum(dtype=np.float64)), cut=int(short[0]) if len(short) else len(taken),
            seconds=time.perf_counter() - started, scanned=False, ranking=ranking, taken=taken,
        )  # fmt: skip

    def mask(self, settings: "dict | SelectionConfig | Resolved") -> np.ndarray:
        """The mask bool (N,) of a choice."""
        found = settings if isinstance(settings, Resolved) else self.resolve(settings)
        limits = {key: found.settings[key] for key in ("window", "max_tokens")}
        return select_tokens(self._scores, self._offsets, self._valid, found.ranking, **limits)

    def documents_in_range(self, low: float, high: float) -> pa.Table:
        """Documents with scores in (low, high]: document, count (int64), most first, ties in corpus order."""
        places = np.flatnonzero((self._scores > low) & (self._scores <= high) & self._valid)
        counts = np.bincount(np.searchsorted(self._offsets, places, side="right") - 1, minlength=len(self._offsets) - 1)
        order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        return pa.table({"document": order, "count": counts[order].astype(np.int64)})

    def compare(self, a: "Resolved | np.ndarray", b: "Resolved | np.ndarray") -> Overlap:
        """Which tokens and documents are in one selection, in the other, in both; a saved selection is given by its mask."""
        mask_a, mask_b = (self.mask(x) if isinstance(x, Resolved) else np.asarray(x) for x in (a, b))
        in_a, in_b = (np.diff(np.concatenate([[0], np.cumsum(m)])[self._offsets]) for m in (mask_a, mask_b))
        by_most = lambda wanted, counts: np.flatnonzero(wanted)[np.argsort(-counts[wanted], kind="stable")]  # noqa: E731
        both = int(np.count_nonzero(mask_a & mask_b))
        return Overlap(
            int(mask_a.sum()) - both, int(mask_b.sum()) - both, both, by_most((in_a > 0) & (in_b == 0), in_a),
            by_most((in_b > 0) & (in_a == 0), in_b), by_most((in_a > 0) & (in_b > 0), in_a + in_b),
        )  # fmt: skip

    def _settings(self, settings) -> dict:
        import dataclasses

        given = dataclasses.asdict(settings) if isinstance(settings, SelectionConfig) else dict(settings)
        given.pop("attribution", None)
        chosen = dataclasses.replace(self._defaults, **given)
        return {
            "attribution": self.kind,
            "quantile": chosen.quantile,
            "window": chosen.window,
            "max_tokens": chosen.max_tokens,
        }

    @cached_property
    def _pieces(self) -> list[str]:

        from tokenizers import Tokenizer

        folder = self._corpus.folder / "tokenizer"
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        return [tokenizer.decode([i]).strip().lower() for i in range(int(self._corpus.token_ids.max()) + 1)]


def _plain_preview(index: ScoreIndex) -> pa.Table:
    counts = np.unique(np.geomspace(1, max(1, index.n_tail), N_KNOTS).astype(np.int64))
    counts = np.concatenate([counts, np.linspace(index.n_tail, index.n_valid - 1, 41).astype(np.int64)[1:]])
    thresholds = np.unique(index._descending[counts])[::-1]
    rows = []
    for threshold in thresholds.tolist():
        n_above = index.tokens_above(threshold)
        row = {"quantile": index.quantile_for(n_above), "threshold": threshold, "tokens_above": n_above}
        if n_above <= index.n_tail:
            ranking = rank_documents(index._scores, index._offsets, index._valid, threshold, index._corpus.id_rank)
            row["documents_hit"] = int(np.count_nonzero(ranking.count_above))
            for w in range(MAX_WINDOW + 1):
                mask = select_tokens(index._scores, index._offsets, index._valid, ranking, window=w)
                taken = np.diff(np.concatenate([[0], np.cumsum(mask)])[index._offsets])
                row[f"covered_{w}"] = int(mask.sum())
                row[f"effect_{w}"] = float(index._scores[mask].sum(dtype=np.float64))
                if index._corpus.in_span is not None:
                    row[f"span_{w}"] = int(np.count_nonzero(mask & index._corpus.in_span))
                by_source = np.bincount(index._source_of, weights=taken, minlength=len(index.sources))
                row[f"source_{w}"] = by_source.astype(int).tolist()
        rows.append(row)
    names = ["quantile", "threshold", "tokens_above", "documents_hit"]
    kinds = (
        ("covered", "effect", "source") if index._corpus.in_span is None else ("covered", "effect", "span", "source")
    )
    names += [f"{kind}_{w}" for kind in kinds for w in range(MAX_WINDOW + 1)]
    types = {
        "quantile": pa.float64(),
        "threshold": pa.float64(),
        "effect": pa.float64(),
        "source": pa.list_(pa.int64(), len(index.sources)),
    }
    schema = pa.schema([(name, types.get(name.split("_")[0], pa.int64())) for name in names])
    return pa.table(
        [pa.array([row.get(name) for row in rows], schema.field(name).type) for name in names], schema=schema
    )


def _plain_words(index: ScoreIndex) -> pa.Table:
    bounds = np.unique(np.concatenate([[0], np.geomspace(10, max(10, index.n_tail), 40).astype(np.int64)]))
    places = np.flatnonzero(index._valid)
    places = places[np.argsort(-index._scores[places], kind="stable")]
    ids = np.asarray(index._corpus.token_ids)
    total: dict[str, int] = {}
    for token, times in enumerate(np.bincount(ids)):
        total[index._pieces[token]] = total.get(index._pieces[token], 0) + int(times)
    rows = []
    for level, (first, last) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        found: dict[str, int] = {}
        for token, times in zip(*np.unique(ids[places[first:last]], return_counts=True), strict=True):
            found[index._pieces[token]] = found.get(index._pieces[token], 0) + int(times)
        for word, times in sorted(found.items(), key=lambda item: (-item[1], item[0]))[:40]:
            if word:
                rows.append(
                    {
                        "level": level,
                        "first_above": first,
                        "last_above": last,
                        "word": word,
                        "count": times,
                        "occurrences": total[word],
                    }
                )
    return pa.Table.from_pylist(rows)

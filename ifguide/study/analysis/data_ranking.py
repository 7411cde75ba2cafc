"""How well do scores find the documents that somebody labelled as bad? The same for any unwanted behaviour. No torch.

Labels judge the ranking; nothing that makes a score sees them.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ifguide.config.attributions import describe_kind
from ifguide.data.by_document import sum_by_document
from ifguide.data.corpus_writer import document_id
from ifguide.data.readers import read_rows, take_field
from ifguide.data.stretches import count_valid
from ifguide.errors import InputError
from ifguide.evaluation import Report
from ifguide.evaluation.ranking import Labels, RankingQuality, judge_ranking, mean_of_highest
from ifguide.selection.algorithm import count_tail, rank_documents
from ifguide.selection.choice import read_choice
from ifguide.selection.index.chunks import Chunks
from ifguide.study.freshness import require_fresh
from ifguide.study.lineage import Unit

if TYPE_CHECKING:
    from ifguide.study.reading import Study

TOP_SHARE = 0.05
"""The way `top` takes the mean of this share of a document's scores, at least one."""
WAYS = ("rank", "sum_above", "mean", "top")
"""How token scores make a document's: its place by Algorithm 1; the sum above the threshold; the mean; the mean of the
highest 5%."""
_YES, _NO = ("true", "1", "yes"), ("false", "0", "no")


def read_labels(study: "Study", column: str) -> Labels:
    """Read a label of every document from the corpus file, which must be the one that was scored, by document id. The
    column holds true, yes or 1 for a bad document, false, no or 0 for a good one, nothing for one that is not known; a
    list, such as the known spans, says bad when it holds anything. A StaleError: the corpus is missing or out of date;
    an InputError: no such column, another value in it, or not both kinds of documents."""
    require_fresh(study, Unit("corpus"))
    corpus, config = study.corpus(), study.resolved("corpus")
    place = {name: number for number, name in enumerate(corpus.ids())}
    bad, labelled = (np.zeros(corpus.n_documents, dtype=bool) for _ in range(2))
    columns = [name for name in (config.text_field, config.id_field, column) if name]
    for row in read_rows(config.path, text_field=config.text_field, text_unit=config.text_unit, columns=columns):
        number = place.get(document_id(row, config.id_field))
        if number is not None:  # rows without text are no documents
            value = _read_label(take_field(row, column), row.where, column)
            bad[number], labelled[number] = bool(value), value is not None
    if not bad.any() or not (labelled & ~bad).any():
        counts = f"{int(bad.sum()):,} bad ones among {int(labelled.sum()):,} with a label"
        raise InputError(f"{column!r}: expected documents of both kinds, got {counts}")
    return Labels(bad, labelled)


def _read_label(value, where: str, column: str) -> bool | None:
    if isinstance(value, list):
        return bool(value)
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return None
    word = str(value).strip().lower()
    word = word.removesuffix(".0") if isinstance(value, float) else word
    if word not in (*_YES, *_NO):
        answers, remedy = ", ".join((*_YES, *_NO)), "make a column that says which documents are bad"
        raise InputError(f"{where}: expected {answers} or nothing in {column!r}, got {str(value)[:60]!r}; {remedy}")
    return word in _YES


def study_rankings(
    study: "Study", labels: Labels, *, n_draws: int = 1000, seed: int = 0, report: Report | None = None
) -> list[RankingQuality]:
    """Every kind of scores the study has, made into document scores in every way, side by side. `n_draws` and `seed`
    are of the bootstrap; `report` is called with (orders judged, orders in all).

    `token_loss` is there as the plain baseline (how surprising a document is); of it only the mean and the top are
    taken, as the threshold belongs to influence scores.
    """
    kinds, id_rank = list(_score_kinds(study)), np.asarray(study.corpus().id_rank)
    total = sum(len(ways) for _, _, ways in kinds)
    rankings: list[RankingQuality] = []
    for name, scores, ways in kinds:
        for way, values in document_scores(study, scores, ways).items():
            rankings.append(judge_ranking(values, labels, id_rank, name, way, n_draws=n_draws, seed=seed))
            if report:
                report(len(rankings), total)
    return rankings


def _score_kinds(study: "Study") -> Iterator[tuple[str, np.ndarray, Sequence[str]]]:
    for queries in study.query_sets():
        for kind in study.kinds(selecting=True):
            if not queries or describe_kind(kind).directional:
                yield f"{queries}/{kind}" if queries else kind, study.scores(kind, queries=queries), WAYS
    yield "token_loss", study.scores("token_loss"), ("mean", "top")


def document_scores(study: "Study", scores: np.ndarray, ways: Sequence[str] = WAYS) -> dict[str, np.ndarray]:
    """float64 (D,) a way, of `WAYS`: the higher, the worse, from scores float32 (N,). A document without a scored token
    has 0. The threshold is that of the study's `selection.quantile`."""
    corpus = study.corpus()
    offsets = np.asarray(corpus.offsets)
    n_scored = count_valid(offsets, corpus.trained)
    valid, usual, by_way = corpus.valid(), study.config.selection, {}
    if "rank" in ways or "sum_above" in ways:
        choice = read_choice(usual, usual, corpus.n_valid, lambda _: count_tail(scores, offsets, corpus.trained))
        threshold, _ = Chunks(scores, offsets, corpus.trained).threshold_above(choice.tokens_above)
        ranking = rank_documents(scores, offsets, valid, threshold, np.asarray(corpus.id_rank))
        by_way = {"rank": ranking.rank_score, "sum_above": ranking.sum_above}
    by_way["mean"] = sum_by_document(np.where(valid, scores, np.float32(0)), offsets) / np.maximum(n_scored, 1)
    by_way["top"] = mean_of_highest(scores, offsets, TOP_SHARE, corpus.trained)
    return {way: by_way[way] for way in ways}

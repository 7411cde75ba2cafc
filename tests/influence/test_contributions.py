"""Contributions of queries against dense gradients, and against the scores they are parts of.

Llama's and its kin's norms compute in float32 whatever the model's dtype, so agreement is to five digits.
"""

import numpy as np
import pytest

from ifguide.influence.batches import Sequence, make_batches
from ifguide.influence.contributions import (
    Curvature,
    compare_queries,
    contributions,
    document_gradient,
    dot,
    pull_documents,
    similarities,
)
from ifguide.influence.direction import differential_direction, query_gradient
from ifguide.influence.ekfac import fit_factors
from ifguide.influence.line import own_loss_scores
from ifguide.influence.losses import SplitModel
from tests.influence.every_model import every_model
from tests.one_case import for_each


def pairs(seed, *lengths):
    generator = np.random.default_rng(seed)
    return [(generator.integers(1, 40, size=p + c), np.arange(p + c) >= p) for p, c in lengths]


@pytest.fixture
def queries():
    return {"toxic": pairs(7, (4, 3), (1, 6), (7, 1)), "safe": pairs(8, (2, 2), (5, 9))}


def shares(case, queries, documents, curvature, **options):
    """Kind -> (D, Q)."""
    pulled, _ = pull_documents(case.model, case.modules, documents, curvature)
    return contributions(case.model, case.modules, queries, pulled, **options)


def alikeness(case, documents, others, curvature):
    """(D, others)."""
    rows, known = [], {}
    for document in documents:  # what is known of the others from the first one serves the next
        pulled = pull_documents(case.model, case.modules, [document], curvature)
        rows.append(np.concatenate([*similarities(case.model, case.modules, *pulled, others, curvature, known)]))
    return np.stack(rows)


def fit_curvature(case):
    return Curvature(factors=fit_factors(case.model, case.modules, case.batches, labels="true"), damping=0.5)


@for_each("weighting", ["token-mean", "token-sum"])
@every_model
def test_contributions_sum_to_the_documents_own_loss_score(case, queries, weighting):
    curvature = fit_curvature(case)
    means = {kind: query_gradient(case.model, case.modules, q, weighting=weighting) for kind, q in queries.items()}
    v = differential_direction(means["toxic"], means["safe"], curvature.factors, curvature.damping)
    documents = [[sequence] for sequence in case.sequences]
    every = shares(case, queries, documents, curvature, weighting=weighting, tokens_per_batch=12)
    for number, sequence in enumerate(case.sequences):
        found = {kind: rows[number] for kind, rows in every.items()}
        batches = list(make_batches([sequence], 100))
        score = sum(float(own_loss_scores(SplitModel(case.model), case.modules, v, b)[0].sum()) for b in batches)
        assert sum(rows.sum() for rows in found.values()) == pytest.approx(score, rel=1e-5, abs=1e-6)
        assert [len(rows) for rows in found.values()] == [3, 2]


@for_each("objective", ["loss", "margin"])
@every_model
def test_each_contribution_is_that_querys_own_share(case, queries, objective):
    curvature = fit_curvature(case)
    document = case.sequences[:2]
    found = {kind: rows[0] for kind, rows in shares(case, queries, [document], curvature, objective=objective).items()}
    pulled = curvature.apply(document_gradient(case.model, case.modules, document))
    for kind, sign in (("toxic", 1), ("safe", -1)):
        for value, query in zip(found[kind], queries[kind], strict=True):
            own = query_gradient(case.model, case.modules, [query], objective=objective)
            assert value == pytest.approx(sign * dot(own, pulled) / len(queries[kind]), rel=1e-5)


@every_model
def test_tokens_outside_a_span_count_for_nothing(case, queries):
    curvature = fit_curvature(case)
    sequence = max(case.sequences, key=lambda s: len(s.token_ids))
    first = int(sequence.index[0])
    parts = [
        Sequence(sequence.token_ids, np.where((sequence.index - first < 3) == early, sequence.index, -1))
        for early in (True, False)
    ]
    nothing = Sequence(sequence.token_ids, np.full(len(sequence.token_ids), -1))
    for rows in shares(case, queries, [[s] for s in (sequence, *parts, nothing)], curvature).values():
        whole, early, late, none = rows
        np.testing.assert_allclose(early + late, whole, rtol=1e-5, atol=1e-6)
        assert not none.any()


@every_model
def test_a_document_is_most_like_itself(case):
    curvature = fit_curvature(case)
    real = [s for s in case.sequences if len(s.token_ids) > 1]
    every = alikeness(case, [[s] for s in real[:2]], [[s] for s in real], curvature)
    found = every[0]
    assert found[0] == pytest.approx(1.0)
    assert (np.abs(found[1:]) < 1).all()
    assert every[1, 0] == pytest.approx(found[1]) and every[1, 1] == pytest.approx(1.0)


@every_model
def test_dropping_a_query_is_the_cosine_with_the_direction_made_without_it(case, queries):
    curvature = fit_curvature(case)

    def direction(chosen):
        means = {kind: query_gradient(case.model, case.modules, q) for kind, q in chosen.items()}
        return differential_direction(means["toxic"], means["safe"], curvature.factors, curvature.damping)

    found, v = compare_queries(case.model, case.modules, queries, curvature), direction(queries)
    for kind, encoded in queries.items():
        for number in range(len(encoded)):
            other = direction({**queries, kind: encoded[:number] + encoded[number + 1 :]})
            assert found[kind][number, 1] == pytest.approx(
                dot(v, other) / (dot(v, v) * dot(other, other)) ** 0.5, rel=1e-5
            )
    single = compare_queries(case.model, case.modules, {"toxic": queries["toxic"][:1]}, curvature)
    assert single["toxic"][0, 0] == pytest.approx(1.0) and np.isnan(single["toxic"][0, 1])

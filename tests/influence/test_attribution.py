import numpy as np
import pytest
import torch

from ifguide.errors import NumericalError
from ifguide.influence.attribution import average_blocks, mean_blocks, pool_blocks, report_at_predicted, score_corpus
from ifguide.influence.batches import CorpusSequences, Sequence, make_batches
from ifguide.influence.direction import differential_direction, query_gradient
from ifguide.influence.line import own_loss_scores
from ifguide.models.loading import tracked_modules
from tests.influence.dense import dot, layer_gradient, sequence_losses
from tests.influence.every_model import every_model, position_alone
from tests.one_case import for_each
from tests.tiny import tiny_model


def average_checkpoints(scores, valid, block=1 << 20):
    return np.concatenate([np.zeros(0, np.float32), *average_blocks(scores, lambda i, j: valid[i:j], block)])


def score_all(case, kind, direction, tokens_per_batch=30, model=None):
    model = model or case.model
    modules = tracked_modules(model)
    out = {"scores": np.zeros(case.n_tokens, dtype=np.float32), "losses": np.zeros(case.n_tokens, dtype=np.float32)}
    function = {"own_loss": own_loss_scores, "position": position_alone}[kind]
    score_corpus(
        case.batches(tokens_per_batch),
        lambda b: dict(zip(("scores", "losses"), function(model, modules, direction, b), strict=True)),
        out,
    )
    return out


def dense_own_loss(case, direction):
    truth = np.zeros(case.n_tokens)
    for sequence in case.sequences:
        if len(sequence.token_ids) < 2:
            continue
        for t, loss in enumerate(sequence_losses(case.model, sequence.token_ids)):
            truth[sequence.index[t + 1]] = dot(direction, layer_gradient(case.model, case.modules, loss)).item()
    return truth


@every_model
def test_own_loss_matches_autograd_gradient_of_each_token(case):
    direction = case.random_direction()
    ours = score_all(case, "own_loss", direction)["scores"]
    truth = dense_own_loss(case, direction)
    assert np.corrcoef(ours, truth)[0, 1] >= 0.9999
    np.testing.assert_allclose(ours, truth, rtol=1e-5, atol=1e-6 * np.abs(truth).max())


@every_model
def test_own_loss_in_float32_matches_float64_autograd(case):
    direction = case.random_direction()
    truth = dense_own_loss(case, direction)
    model = case.model.requires_grad_(False).float()
    ours = score_all(case, "own_loss", {k: v.float() for k, v in direction.items()}, model=model)["scores"]
    assert np.corrcoef(ours, truth)[0, 1] >= 0.9999


@every_model
def test_both_kinds_sum_to_the_gradient_of_the_whole_document(case):
    direction = case.random_direction()
    own, position = (score_all(case, kind, direction)["scores"].astype(np.float64) for kind in ("own_loss", "position"))
    for sequence in case.sequences:
        if len(sequence.token_ids) < 2:
            continue
        truth = dot(
            direction, layer_gradient(case.model, case.modules, sequence_losses(case.model, sequence.token_ids).sum())
        ).item()
        assert own[sequence.index].sum() == pytest.approx(truth, rel=1e-4, abs=1e-5)
        assert position[sequence.index].sum() == pytest.approx(truth, rel=1e-4, abs=1e-5)


@every_model
def test_both_kinds_sum_alike_with_a_bos_context_and_chunks(case):
    ids = np.concatenate([s.token_ids for s in case.sequences])
    offsets = np.concatenate([[0], np.cumsum([len(s.token_ids) for s in case.sequences])])
    chunks = np.array(
        [
            (d, a, min(a + 5, offsets[d + 1]))
            for d in range(len(offsets) - 1)
            for a in range(offsets[d], max(offsets[d + 1] - 1, offsets[d] + 1), 4)
        ]
    )
    direction = case.random_direction()
    found = {}
    for kind, function in (("own_loss", own_loss_scores), ("position", position_alone)):
        out = {"scores": np.zeros(len(ids), dtype=np.float32)}
        batches = make_batches(CorpusSequences(ids, offsets, chunks, bos=0), 30)
        score_corpus(batches, lambda b, f=function: {"scores": f(case.model, case.modules, direction, b)[0]}, out)
        assert (out["scores"][offsets[:-1][np.diff(offsets) > 0]] == 0).all(), "a document's first token has no score"
        found[kind] = np.add.reduceat(out["scores"].astype(np.float64), offsets[:-1])
    np.testing.assert_allclose(found["own_loss"], found["position"], rtol=1e-4, atol=1e-5)


@for_each("kind", ["own_loss", "position"])
@every_model
def test_batch_size_padding_and_order_do_not_change_scores(case, kind):
    model = case.model.float()
    direction = {k: v.float() for k, v in case.random_direction().items()}
    alone = score_all(case, kind, direction, tokens_per_batch=2, model=model)["scores"]
    together = score_all(case, kind, direction, tokens_per_batch=10_000, model=model)["scores"]
    case.sequences.reverse()
    reversed_order = score_all(case, kind, direction, tokens_per_batch=25, model=model)["scores"]
    scale = np.linalg.norm(alone)
    assert scale > 0
    assert np.linalg.norm(alone - together) / scale <= 1e-5
    assert np.linalg.norm(alone - reversed_order) / scale <= 1e-5


@every_model
def test_losses_are_the_models_own(case):
    for kind in ("own_loss", "position"):
        losses = score_all(case, kind, case.random_direction())["losses"]
        for sequence in case.sequences:
            if len(sequence.token_ids) >= 2:
                truth = sequence_losses(case.model, sequence.token_ids).detach().numpy()
                np.testing.assert_allclose(losses[sequence.index[1:]], truth, rtol=1e-5)
        case.model.requires_grad_(False)


@for_each("kind", ["own_loss", "position"])
@every_model
def test_swapping_the_query_sets_negates_every_score(case, kind):
    toxic = [(s.token_ids, np.arange(len(s.token_ids)) >= 1) for s in case.sequences[:2] if len(s.token_ids) > 1]
    safe = [(s.token_ids, np.arange(len(s.token_ids)) >= 1) for s in case.sequences[2:] if len(s.token_ids) > 1]
    a, b = (query_gradient(case.model, case.modules, queries) for queries in (toxic, safe))
    one = score_all(case, kind, differential_direction(a, b, None, 10.0))["scores"]
    other = score_all(case, kind, differential_direction(b, a, None, 10.0))["scores"]
    assert np.abs(one).max() > 0
    np.testing.assert_allclose(one, -other, rtol=1e-6, atol=1e-9)


def test_a_broken_model_is_an_error_not_a_score():
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[3].fill_(float("nan"))
    out = {"scores": np.zeros(4, dtype=np.float32)}
    modules = tracked_modules(model)
    direction = {name: torch.ones(m.weight.shape, dtype=torch.float64) for name, m in modules.items()}
    batches = make_batches([Sequence(np.array([1, 3, 2, 5]), np.arange(4))], 30)
    with pytest.raises(NumericalError, match="not finite"):
        score_corpus(batches, lambda b: {"scores": own_loss_scores(model, modules, direction, b)[0]}, out)


def test_average_divides_each_checkpoint_by_its_deviation():
    valid = np.array([False, True, True, True])
    a = np.array([0, 1.0, -1.0, 3.0], dtype=np.float32)
    expected = (a / a[1:].std() + 100 * a / (100 * a[1:]).std()) / 2
    np.testing.assert_allclose(average_checkpoints([a, 100 * a], valid), expected, rtol=1e-6)
    np.testing.assert_array_equal(average_checkpoints([a], valid), a)
    with pytest.raises(NumericalError, match="the same"):
        average_checkpoints([a, np.zeros(4, dtype=np.float32)], valid)


@for_each("block", [1, 7, 64])
def test_scores_put_together_in_blocks_are_those_put_together_at_once(block):
    generator = np.random.default_rng(0)
    scores = [(10.0**k * generator.normal(size=50) + k).astype(np.float32) for k in range(3)]
    valid = generator.random(50) < 0.8
    for some in (scores[:1], scores):
        whole, pieces = average_checkpoints(some, valid), average_checkpoints(some, valid, block)
        np.testing.assert_allclose(pieces, whole, rtol=2e-7)  # the last digit of a float32
    by_hand = sum(s.astype(np.float64) / np.std(s[valid], dtype=np.float64) for s in scores) / 3
    np.testing.assert_allclose(average_checkpoints(scores, valid)[valid], by_hand[valid], rtol=2e-7)
    means = np.concatenate(list(mean_blocks(scores, block)))
    np.testing.assert_array_equal(means, np.mean(scores, axis=0, dtype=np.float64).astype(np.float32))


def test_the_median_leaves_out_what_one_checkpoint_says():
    valid = np.ones(6, dtype=bool)
    a = np.array([1, -1, 2, 0, 1, -2], dtype=np.float32)
    wild = np.array([0, 0, 0, 50, 0, 1], dtype=np.float32)
    found = np.concatenate(list(average_blocks([a, a * 3, wild], lambda i, j: valid[i:j], average="median")))
    np.testing.assert_allclose(found[:3], (a / a.std())[:3], rtol=1e-6)
    assert found[3] == 0


@for_each("block", [1, 3, 1000])
def test_pooling_adds_the_mean_of_a_kind_of_token(block):
    rng = np.random.default_rng(0)
    kinds, scores, valid = rng.integers(0, 7, 60), rng.normal(size=60).astype(np.float32), rng.random(60) < 0.8
    scores[~valid] = 0
    found = np.concatenate(list(pool_blocks(scores, kinds, lambda i, j: valid[i:j], 0.5, block)))
    for token in range(60):
        mean = scores[valid & (kinds == kinds[token])].mean() if valid[token] else 0
        assert found[token] == pytest.approx((scores[token] + 0.5 * mean) if valid[token] else 0, abs=1e-6)
    same = np.concatenate(list(pool_blocks(scores, kinds, lambda i, j: valid[i:j], 0.0, block)))
    np.testing.assert_array_equal(same, scores)


def test_scores_of_a_part_of_the_corpus_go_to_their_places_and_are_counted():
    """The stand-in for a score is the token's own place, so a value in a wrong place differs from its place."""
    parts = [
        Sequence(np.zeros(4, dtype=int), np.arange(100, 104)),
        Sequence(np.zeros(3, dtype=int), np.arange(104, 107)),
    ]
    out, told = {"places": np.zeros(7, dtype=np.float32)}, []
    batches = list(make_batches(parts, 4))
    score_corpus(batches, lambda b: {"places": b.target_index.float()}, out, first=100, report=told.append)
    assert out["places"].tolist() == [0, 101, 102, 103, 0, 105, 106], "a document's first token has no score"
    assert told == np.cumsum([batch.n_tokens for batch in batches]).tolist()
    assert len(told) == 2


def test_one_score_that_is_not_finite_is_counted_and_named():
    batches = make_batches([Sequence(np.zeros(4, dtype=int), np.arange(4))], 4)
    broken = lambda b: {"own_loss": torch.where(b.target_index == 2, torch.inf, 0.0)}  # noqa: E731
    with pytest.raises(NumericalError, match=r"^1 own_loss scores are not finite"):
        score_corpus(batches, broken, {"own_loss": np.zeros(4, dtype=np.float32)})


def test_averages_of_nothing():
    nothing = np.zeros(0, dtype=np.float32)
    found = average_checkpoints([nothing], np.zeros(0, dtype=bool))
    assert found.shape == (0,) and found.dtype == np.float32
    some = np.arange(3, dtype=np.float32)
    for n_valid in (0, 1):  # too few for a deviation
        with pytest.raises(NumericalError, match="checkpoint 0 are the same"):
            average_checkpoints([some, some], np.arange(3) >= 3 - n_valid)
    assert np.concatenate(
        list(pool_blocks(some, np.arange(3), lambda i, j: np.zeros(j - i, bool), 0.5, 2))
    ).tolist() == [0, 0, 0]


def test_context_goes_to_the_first_counted_token_of_its_own_sequence():
    flow = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0], [1.0, 2.0, 4.0]])
    counted = torch.tensor([[False, False, False], [False, True, True], [True, False, True]])
    found = report_at_predicted(flow, counted)
    assert found.tolist() == [[0, 0, 0], [0, 3, 4], [1, 0, 4]], (
        "nothing is counted in the first, so nothing is reported"
    )


def test_the_first_place_of_an_array_can_be_predicted_too():
    batches = make_batches([Sequence(np.zeros(3, dtype=int), np.array([-1, 0, 1]))], 4)
    out = {"scores": np.zeros(2, dtype=np.float32)}
    score_corpus(batches, lambda b: {"scores": b.target_index + 5.0}, out)
    assert out["scores"].tolist() == [5, 6]


def test_a_kind_that_occurs_once_adds_its_own_score_and_one_array_is_its_own_mean():
    scores, everywhere = np.array([1, -2, 4, 0.5], dtype=np.float32), lambda i, j: np.ones(j - i, bool)
    for block in (1, 3, 8):
        pooled = np.concatenate(list(pool_blocks(scores, np.array([3, 0, 5, 1]), everywhere, 0.5, block)))
        np.testing.assert_array_equal(pooled, scores * 1.5)
        np.testing.assert_array_equal(np.concatenate(list(mean_blocks([scores], block))), scores)

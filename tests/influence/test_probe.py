"""The linear probe: which layer it reads, and what its scores must equal."""

import numpy as np
import pytest

from ifguide.errors import ConfigError
from ifguide.influence.batches import Sequence, make_batches
from ifguide.influence.probe import completion_means, fit_direction, fit_probe, hidden_states, prompt_folds
from tests.tiny import tiny_model


def make_queries(seed: int, n: int = 12, low: int = 5, high: int = 30) -> list:
    """Pairs of token ids and completion mask; the completions' tokens come from one range."""
    draw = np.random.default_rng(seed)
    found = []
    for number in range(n):
        prompt, completion = draw.integers(30, 40, 2 + number % 3), draw.integers(low, high, 2 + number % 4)
        found.append((np.concatenate([prompt, completion]), np.repeat([False, True], [len(prompt), len(completion)])))
    return found


@pytest.fixture(scope="module")
def model():
    return tiny_model("gpt_neox")


@pytest.fixture(scope="module")
def toxic():
    return make_queries(1, low=1, high=15)


@pytest.fixture(scope="module")
def safe():
    return make_queries(2, low=15, high=30)


def scores_of(probe, model, sequences, tokens_per_batch=4096):
    found = np.zeros(sum(len(ids) for ids in sequences), dtype=np.float32)
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in sequences])])
    rows = [
        Sequence(ids, np.arange(start, start + len(ids))) for ids, start in zip(sequences, starts[:-1], strict=True)
    ]
    for batch in make_batches(rows, tokens_per_batch):
        counts = batch.target_index >= 0
        found[batch.target_index[counts].numpy()] = probe.score(hidden_states(model, batch), batch)[counts].numpy()
    return found


def test_a_score_is_the_dot_product_of_the_tokens_own_state(model, toxic, safe):
    probe = fit_probe(model, toxic, safe)
    ids = toxic[0][0]
    [batch] = make_batches([Sequence(ids, np.arange(len(ids)))], 4096)
    states = hidden_states(model, batch)[probe.layer][0].numpy()
    expected = states @ probe.direction - probe.offset
    np.testing.assert_allclose(scores_of(probe, model, [ids])[1:], expected[1:], rtol=1e-4, atol=1e-5)


def test_swapping_the_query_sets_negates_scores(model, toxic, safe):
    text = [ids for ids, _ in make_queries(3, n=4)]
    for method in ("mean-difference", "logistic"):
        there, back = fit_probe(model, toxic, safe, method=method), fit_probe(model, safe, toxic, method=method)
        assert there.layer == back.layer
        np.testing.assert_allclose(
            scores_of(there, model, text), -scores_of(back, model, text), rtol=1e-3, atol=1e-4, err_msg=method
        )


def test_batch_size_and_padding_do_not_change_scores(model, toxic, safe):
    text = [ids for ids, _ in make_queries(4, n=7)]
    one, many = fit_probe(model, toxic, safe, tokens_per_batch=1), fit_probe(model, toxic, safe)
    np.testing.assert_allclose(one.direction, many.direction, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores_of(one, model, text, 1), scores_of(many, model, text), rtol=1e-4, atol=1e-5)


def test_the_middle_between_the_means_scores_zero_and_the_toxic_side_is_positive(model, toxic, safe):
    means = completion_means(model, [*toxic, *safe])[:, -1]
    labels = np.repeat([True, False], [len(toxic), len(safe)])
    direction, offset = fit_direction(means, labels)
    scores = means @ direction - offset
    assert scores[labels].mean() > 0 > scores[~labels].mean()
    assert scores[labels].mean() == pytest.approx(-scores[~labels].mean(), rel=1e-4)


def test_folds_keep_a_prompt_together(toxic):
    other = [
        (np.concatenate([ids[: mask.argmax()], [7]]), np.append(mask[: mask.argmax()], True)) for ids, mask in toxic
    ]
    folds = prompt_folds([*toxic, *other])
    assert (folds[: len(toxic)] == folds[len(toxic) :]).all() and len(set(folds.tolist())) > 1


def test_the_layer_is_the_one_that_tells_held_out_prompts_apart(model, toxic, safe):
    probe = fit_probe(model, toxic, safe)
    assert probe.auc[probe.layer] == max(probe.auc) > 0.8
    shuffled = [*toxic[:6], *safe[:6]], [*toxic[6:], *safe[6:]]
    assert max(fit_probe(model, *shuffled).auc) < max(probe.auc)


def test_queries_of_one_prompt_are_told_apart_by_themselves(model, toxic, safe):
    """As when queries are completions of nothing: each is a group of its own."""
    alone = [
        [(ids[int(mask.argmax()) - 1 :], mask[int(mask.argmax()) - 1 :]) for ids, mask in each]
        for each in (toxic, safe)
    ]
    same = [[(np.concatenate([[5], ids[1:]]), mask) for ids, mask in each] for each in alone]
    assert len(set(prompt_folds([*same[0], *same[1]]).tolist())) > 1
    probe = fit_probe(model, *same)
    assert max(probe.auc) == probe.auc[probe.layer] > 0.5
    few = fit_probe(model, same[0][:1], same[1][:1])
    assert 0 < few.layer < len(few.auc) and np.isfinite(few.direction).all()


def test_queries_that_cannot_be_used_are_refused(model, toxic, safe):
    for queries, said in (
        (([], safe), "at least one toxic"),
        (([(toxic[0][0], np.zeros(len(toxic[0][0]), bool))], safe), "no completion token"),
    ):
        with pytest.raises(ConfigError, match=said):
            fit_probe(model, *queries)

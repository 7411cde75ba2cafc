import dataclasses

import numpy as np
import pytest
import torch

from ifguide.errors import ConfigError, InputError
from ifguide.evaluation.mechanism_settings import PrefixSettings
from ifguide.evaluation.prefix_search import _token_gains, find_prefix, prefix_objective, start_prefix
from tests.evaluation.test_logit_lens import encoded_queries
from tests.tiny import tiny_model

SETTINGS = PrefixSettings(n_tokens=3, steps=4, candidates=8, top_k=8, seed=1)
ALLOWED = range(2, 30)


def objective_by_hand(model, queries, prefix):
    values = []
    for ids, mask in queries:
        whole = np.concatenate([prefix, ids]).astype(np.int64)
        with torch.no_grad():
            steps = model(input_ids=torch.from_numpy(whole)[None]).logits[0, :-1].log_softmax(-1)
        values.append(
            steps[np.arange(len(whole) - 1), whole[1:]][np.concatenate([np.zeros(len(prefix), bool), mask])[1:]]
            .mean()
            .item()
        )
    return np.mean(values)


@pytest.mark.parametrize("kind", ["gpt_neox", "llama", "gpt2"])
def test_a_found_prefix_is_never_worse_and_says_what_it_is_worth(kind):
    model, queries = tiny_model(kind), encoded_queries()
    found = find_prefix(model, queries, ALLOWED, SETTINGS)
    assert found.best > found.start
    assert list(found.path) == sorted(found.path) and found.path[-1] == found.best
    assert objective_by_hand(model, queries, found.token_ids) == pytest.approx(found.best, rel=1e-9)
    assert objective_by_hand(model, queries, start_prefix(ALLOWED, SETTINGS)) == pytest.approx(found.start, rel=1e-9)
    assert prefix_objective(model, queries, ()) == pytest.approx(objective_by_hand(model, queries, []), rel=1e-9)
    assert set(found.token_ids) <= set(ALLOWED)


def test_the_seed_decides():
    model, queries = tiny_model("gpt_neox"), encoded_queries()
    assert find_prefix(model, queries, ALLOWED, SETTINGS) == find_prefix(model, queries, ALLOWED, SETTINGS)
    other = dataclasses.replace(SETTINGS, seed=2)
    assert start_prefix(ALLOWED, other) != start_prefix(ALLOWED, SETTINGS)
    longer = dataclasses.replace(SETTINGS, steps=6)
    assert find_prefix(model, queries, ALLOWED, longer).path[:4] == find_prefix(model, queries, ALLOWED, SETTINGS).path


def test_no_rounds_leave_the_first_prefix():
    found = find_prefix(tiny_model("gpt2"), encoded_queries(), ALLOWED, dataclasses.replace(SETTINGS, steps=0))
    assert found.best == found.start and found.path == ()
    assert list(found.token_ids) == start_prefix(ALLOWED, SETTINGS)


def test_gains_are_the_slope_towards_each_token():
    """The objective with a place's embedding moved a little towards another token's changes by the gain's
    difference."""
    model, queries, prefix = tiny_model("gpt_neox"), encoded_queries(), [3, 9, 4]
    gains = _token_gains(model, queries, prefix, 0, 64)
    weight = model.get_input_embeddings().weight
    step = 1e-3  # the family takes some steps in float32, so a smaller one drowns in rounding
    before = weight.detach().clone()
    for token in (5, 17):
        values = []
        for sign in (1, -1):
            # a token that no query holds stands in for the moved one
            spare = next(i for i in range(40) if i not in prefix and all(i not in ids for ids, _ in queries))
            with torch.no_grad():
                weight[spare] = before[9] + sign * step * (before[token] - before[9])
            values.append(prefix_objective(model, queries, [3, spare, 4]))
            with torch.no_grad():
                weight.copy_(before)
        slope = (values[0] - values[1]) / (2 * step)
        assert slope == pytest.approx((gains[1, token] - gains[1, 9]).item(), rel=1e-2)


def test_a_leading_token_stays_in_front():
    model, queries = tiny_model("gpt_neox"), encoded_queries()
    with_bos = [(np.concatenate([[0], ids]), np.concatenate([[False], mask])) for ids, mask in queries]
    direct = prefix_objective(model, with_bos, [7, 8], lead=1)
    by_hand = [(np.concatenate([[0, 7, 8], ids]), np.concatenate([np.zeros(3, bool), mask])) for ids, mask in queries]
    assert direct == pytest.approx(prefix_objective(model, by_hand, ()), rel=1e-12)


def test_nothing_to_search_with_is_refused():
    with pytest.raises(InputError, match="got 0 and 28"):
        find_prefix(tiny_model("gpt2"), [], ALLOWED, SETTINGS)
    for bad in ({"n_tokens": 0}, {"candidates": 0}, {"seed": -1}):
        with pytest.raises(ConfigError, match="or more"):
            PrefixSettings(**bad)

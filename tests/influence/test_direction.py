import copy

import numpy as np
import pytest
import torch

from ifguide.errors import ConfigError, NumericalError
from ifguide.influence import direction as direction_module
from ifguide.influence.direction import differential_direction, query_gradient
from ifguide.influence.ekfac import LayerFactors, fit_factors
from ifguide.models.layers import layer_group
from ifguide.models.loading import tracked_modules
from tests.influence.dense import layer_gradient, relative_error
from tests.influence.every_model import every_model
from tests.one_case import for_each
from tests.tiny import tiny_model


@pytest.fixture
def queries():
    """Pairs (token ids, completion mask) of unlike length, one with a prompt of one token."""
    generator = np.random.default_rng(7)
    lengths = [(4, 3), (1, 6), (7, 1), (2, 2), (5, 9)]
    return [(generator.integers(1, 40, size=p + c), np.arange(p + c) >= p) for p, c in lengths]


def token_objectives(model, token_ids, objective):
    """What each of the tokens 1.. of one sequence costs, (T-1,), written with plain probabilities."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    ids = torch.as_tensor(token_ids)
    p_all = model(input_ids=ids[None], use_cache=False).logits[0, :-1].softmax(-1)
    p = p_all[torch.arange(len(ids) - 1), ids[1:]]
    return -p.log() if objective == "loss" else -(p / (1 - p)).log()


def dense_query_gradient(model, modules, queries, weighting, objective):
    total = {name: 0 for name in modules}
    for ids, is_completion in queries:
        costs = token_objectives(model, ids, objective)[torch.as_tensor(is_completion[1:])]
        gradient = layer_gradient(model, modules, costs.mean() if weighting == "token-mean" else costs.sum())
        total = {name: total[name] + gradient[name] / len(queries) for name in modules}
    return total


@for_each("objective", ["loss", "margin"])
@for_each("weighting", ["token-mean", "token-sum"])
@every_model
def test_query_gradient_matches_autograd(case, queries, weighting, objective):
    found = query_gradient(
        case.model, case.modules, queries, weighting=weighting, objective=objective, tokens_per_batch=30
    )
    truth = dense_query_gradient(case.model, case.modules, queries, weighting, objective)
    for name in case.modules:
        assert relative_error(found[name], truth[name]) <= 1e-10


@every_model
def test_weightings_and_objectives_differ(case, queries):
    settings = [(w, o) for w in ("token-mean", "token-sum") for o in ("loss", "margin")]
    found = [query_gradient(case.model, case.modules, queries, weighting=w, objective=o) for w, o in settings]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert all(relative_error(one[name], other[name]) > 1e-3 for name in case.modules)


def test_margin_keeps_its_gradient_when_the_model_is_sure():
    """In float32 with 1 - p of about 1e-10, where p itself rounds to 1; the truth is float64 autograd."""
    model = tiny_model("llama")
    prompt, target = torch.tensor([[3, 5, 2]]), 7
    with torch.no_grad():
        feature = model.model(input_ids=prompt, use_cache=False).last_hidden_state[0, -1]
        model.get_output_embeddings().weight[target] += 25 * feature / feature.square().sum()
    exact = copy.deepcopy(model).requires_grad_(True)
    logits = exact(input_ids=prompt, use_cache=False).logits[0, -1]
    odds_against = (logits - logits[target]).exp()[torch.arange(len(logits)) != target].sum()  # (1 - p) / p
    assert 0 < odds_against < 1e-9
    truth = layer_gradient(exact, tracked_modules(exact), odds_against.log())
    single = model.float()
    query = (np.array([3, 5, 2, target]), np.array([False, False, False, True]))
    found = query_gradient(single, tracked_modules(single), [query], objective="margin")
    for name, gradient in found.items():
        assert relative_error(gradient.double(), truth[name]) <= 1e-4


@every_model
def test_batch_size_and_order_do_not_change_the_gradient(case, queries):
    alone = query_gradient(case.model, case.modules, queries, tokens_per_batch=2)
    together = query_gradient(case.model, case.modules, queries, tokens_per_batch=10_000)
    backwards = query_gradient(case.model, case.modules, queries[::-1], tokens_per_batch=25)
    for name in case.modules:
        assert relative_error(together[name], alone[name]) <= 1e-12
        assert relative_error(backwards[name], alone[name]) <= 1e-12


@every_model
def test_repeating_every_query_does_not_change_the_mean(case, queries):
    once, thrice = (query_gradient(case.model, case.modules, queries * n) for n in (1, 3))
    for name in case.modules:
        assert relative_error(thrice[name], once[name]) <= 1e-12


def test_bfloat16_models_accumulate_in_float32(monkeypatch):
    """400 queries one at a time: a sum in float32 stays near one big batch, the same sum in bfloat16 does not."""
    model = tiny_model("llama", dtype=torch.bfloat16)
    modules = {name: m for name, m in tracked_modules(model).items() if "layers.1.mlp" in name}
    queries = [(np.array([3, 7]), np.array([False, True]))] * 400
    one = query_gradient(model, modules, queries[:1])
    many = query_gradient(model, modules, queries, tokens_per_batch=2)
    assert {g.dtype for g in many.values()} == {torch.float32}
    assert all(relative_error(many[name], one[name]) <= 1e-4 for name in modules)
    monkeypatch.setattr(direction_module, "accumulation_dtype", lambda model: torch.bfloat16)
    worse = query_gradient(model, modules, queries, tokens_per_batch=2)
    assert all(relative_error(worse[name].float(), one[name]) > 0.1 for name in modules)


@every_model
def test_no_queries_is_an_error(case):
    with pytest.raises(ConfigError, match="at least one query"):
        query_gradient(case.model, case.modules, [])


@for_each("mask", [[False, False, False], [True, False, False]])
@every_model
def test_a_query_without_a_predicted_completion_is_an_error(case, queries, mask):
    with pytest.raises(ConfigError, match="query 5 has no completion token"):
        query_gradient(case.model, case.modules, [*queries, (np.array([1, 2, 3]), np.array(mask))])


@every_model
def test_weights_that_are_not_finite_are_an_error(case, queries):
    with torch.no_grad():
        next(iter(case.modules.values())).weight[0, 0] = float("inf")
    with pytest.raises(NumericalError, match="not finite"):
        query_gradient(case.model, case.modules, queries)


@every_model
def test_large_damping_only_rescales_each_layers_gradient(case):
    toxic, safe = case.random_direction(1), case.random_direction(2)
    factors = fit_factors(case.model, case.modules, case.batches, labels="true")
    damping = 1e9
    found = differential_direction(toxic, safe, factors, damping)
    for name in factors:
        experts = [f.eigenvalues.mean() for other, f in factors.items() if layer_group(other) == layer_group(name)]
        expected = (toxic[name] - safe[name]) / (damping * sum(experts) / len(experts))
        assert relative_error(found[name], expected) <= 1e-6


@every_model
def test_small_damping_approaches_the_inverse_of_the_fisher(case):
    toxic = case.random_direction()
    generator = torch.Generator().manual_seed(0)
    for name, layer in fit_factors(case.model, case.modules, case.batches, labels="true").items():
        values = layer.eigenvalues + torch.rand(layer.eigenvalues.shape, generator=generator, dtype=torch.float64) + 0.1
        invertible = LayerFactors(layer.input_vectors, layer.output_vectors, values)
        found = differential_direction({name: toxic[name]}, None, {name: invertible}, 1e-12)[name]
        rotated = invertible.output_vectors.T @ found @ invertible.input_vectors
        product = invertible.output_vectors @ (values * rotated) @ invertible.input_vectors.T
        assert relative_error(product, toxic[name]) <= 1e-9


@every_model
def test_identity_leaves_the_difference_as_it_is(case):
    toxic, safe = case.random_direction(1), case.random_direction(2)
    kept = {name: g.clone() for name, g in toxic.items()}
    for name, found in differential_direction(toxic, safe, None, 10.0).items():
        assert torch.equal(found, toxic[name] - safe[name])
    alone = differential_direction(toxic, None, None, 10.0)
    for name, found in alone.items():
        assert torch.equal(found, toxic[name])
        found.zero_()
        assert torch.equal(toxic[name], kept[name]), "the direction must not share memory with the gradient"


@every_model
def test_zero_curvature_is_an_error(case):
    name, gradient = next(iter(case.random_direction().items()))
    outputs, inputs = gradient.shape
    flat = LayerFactors(torch.eye(inputs).double(), torch.eye(outputs).double(), torch.zeros_like(gradient))
    with pytest.raises(NumericalError, match="curvature is zero"):
        differential_direction({name: gradient}, None, {name: flat}, 10.0)

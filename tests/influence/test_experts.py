"""Experts stored as one tensor, and the routers that choose them, beyond what `every_model` holds of them."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from ifguide.errors import ConfigError
from ifguide.influence import central
from ifguide.influence.attribution import position_scores
from ifguide.influence.batches import Sequence, make_batches
from ifguide.influence.central import CentralDifference, PairedDifference
from ifguide.influence.direction import differential_direction, query_gradient
from ifguide.influence.ekfac import fit_factors
from ifguide.influence.line import own_loss_scores
from ifguide.models.layers import count_weights, find_linear, find_routers, layer_shape, watch, weight_of
from ifguide.models.loading import tracked_modules
from tests.influence.dense import dot, layer_gradient, sequence_losses
from tests.influence.every_model import Case
from tests.one_case import for_each
from tests.tiny import EXPERTS, tiny_model


def relative(ours, truth):
    return ((ours - truth).norm() / truth.norm()).item()


@for_each("kind", EXPERTS)
def test_every_expert_and_router_is_tracked_and_none_is_a_parameter(kind):
    model = tiny_model(kind)
    before = {name: (id(p), p.clone()) for name, p in model.state_dict().items()}
    parameters = [id(p) for p in model.parameters()]
    layers = find_linear(model)
    experts = [name for name in layers if re.search(r"experts\.[0-3]\.(gate_up|down)_proj$", name)]
    assert len(experts) == 2 * 4 * 2 and len(find_routers(model)) == 2
    assert {n: layers[n] is find_linear(model)[n] for n in experts} == dict.fromkeys(experts, True)
    assert list(model.state_dict()) == list(before) and [id(p) for p in model.parameters()] == parameters
    tracked = tracked_modules(model)
    norms = sum(p.numel() for name, p in model.named_parameters() if "norm" in name or "sinks" in name)
    embeddings = model.get_input_embeddings().weight.numel() + model.get_output_embeddings().weight.numel()
    assert count_weights(tracked) + norms + embeddings == sum(p.numel() for p in model.parameters())
    name = "model.layers.1.mlp.experts.2.down_proj"
    assert count_weights(tracked_modules(model, re.escape(name))) == np.prod(layer_shape(layers[name]))


@for_each("kind", EXPERTS)
def test_a_model_computes_the_same_through_its_parts_and_its_own_forward_is_back_after(kind):
    model, ids = tiny_model(kind), torch.arange(1, 15).view(2, 7)
    modules, own = tracked_modules(model), model(input_ids=ids).logits
    with watch(model, modules, on_input=lambda *args: None):
        through = model(input_ids=ids).logits
    torch.testing.assert_close(through.detach(), own, rtol=1e-10, atol=1e-12)
    assert not any("forward" in vars(module) for module in [*model.modules(), *modules.values()])


@for_each("kind", EXPERTS)
def test_experts_are_given_the_rows_routed_to_them_and_where_they_are(kind):
    """A token's rows come from as many experts as it is routed to, and hold its own hidden state."""
    model, ids = tiny_model(kind), torch.arange(1, 22).view(3, 7)
    modules, seen, block = tracked_modules(model), torch.zeros(21, dtype=torch.int64), {}
    model.model.layers[0].mlp.register_forward_pre_hook(lambda module, args: block.update(inputs=args[0].flatten(0, 1)))

    def look(name, inputs, places):
        if re.search(r"layers\.0.*experts.*gate_up", name):
            filled = inputs.abs().sum(-1) > 0
            seen.index_add_(0, places[filled], torch.ones(int(filled.sum()), dtype=torch.int64))
            torch.testing.assert_close(inputs[filled][:, : block["inputs"].shape[1]], block["inputs"][places[filled]])
            for row, mask in zip(places, filled, strict=True):
                assert len({int(place) // 7 for place in row[mask]}) == 1

    with watch(model, modules, on_input=look):
        model(input_ids=ids)
    assert seen.tolist() == [2] * 21


@for_each("kind", EXPERTS)
def test_each_kind_of_score_matches_autograd(kind):
    case = Case(kind)
    direction, (batch,) = case.random_direction(), case.batches(10_000)
    truth = torch.zeros(batch.targets.shape, dtype=torch.float64)
    for row, number in enumerate(batch.sequence.tolist()):
        for t, loss in enumerate(sequence_losses(case.model, case.sequences[number].token_ids)):
            truth[row, t] = dot(direction, layer_gradient(case.model, case.modules, loss))
    case.model.requires_grad_(False)
    ways = {
        "jvp": own_loss_scores(case.model, case.modules, direction, batch)[0],
        "central": CentralDifference(case.model, case.modules, direction, 1e-3).scores(batch)[0],
        "paired": PairedDifference(case.model, case.modules, direction, 1e-3, torch.float64).scores(batch)[0],
    }
    for way, bound in {"jvp": 1e-6, "central": 2e-4, "paired": 2e-4}.items():  # routers take a softmax in float32
        assert relative(ways[way], truth) < bound, way
    position = position_scores(case.model, case.modules, [direction], batch)[0][0]
    assert relative(position.sum(1), truth.sum(1)) < 1e-6


def test_a_choice_of_experts_that_moves_with_the_step_is_no_part_of_the_score(monkeypatch):
    case = Case("qwen3_moe")
    direction, (batch,) = case.random_direction(), case.batches(10_000)
    exact = own_loss_scores(case.model, case.modules, direction, batch)[0]
    for way in (CentralDifference, PairedDifference):
        found = way(case.model, case.modules, direction, 1e-3, torch.float64).scores(batch)[0]
        assert relative(found, exact) < 1e-4, way
    monkeypatch.setattr(central, "find_routers", lambda model: [])
    free = CentralDifference(case.model, case.modules, direction, 1e-3).scores(batch)[0]
    assert relative(free, exact) > 1, "at one token the choice must move, or nothing was held"


def test_an_expert_that_no_token_reaches_has_the_damping_of_its_layer():
    case = Case("mixtral")
    router = find_routers(case.model)[0].owner
    router.top_k, router.weight[3] = 1, router.weight[:3].mean(0)  # never above all of the others
    factors = fit_factors(case.model, case.modules, case.batches, labels="true")
    names = [f"model.layers.0.mlp.experts.{number}.down_proj" for number in range(4)]
    means = [float(factors[name].eigenvalues.mean()) for name in names]
    assert means[3] == 0 and min(means[:3]) > 0
    gradient = case.random_direction()
    v = differential_direction(gradient, None, factors, 10.0)
    torch.testing.assert_close(v[names[3]], gradient[names[3]] / (10 * sum(means) / 4))
    damped = factors[names[0]].precondition(gradient[names[0]], 10 * sum(means) / 4, "absolute")
    torch.testing.assert_close(v[names[0]], damped)


def test_weights_that_are_brought_in_for_a_call_give_the_same_scores():
    from accelerate import cpu_offload

    for kind in EXPERTS:
        case = Case(kind)
        direction, (batch,) = case.random_direction(), case.batches(10_000)
        expected = own_loss_scores(case.model, case.modules, direction, batch)[0]
        cpu_offload(case.model, torch.device("cpu"))
        assert {parameter.device.type for parameter in case.model.parameters()} == {"meta"}
        torch.testing.assert_close(own_loss_scores(case.model, case.modules, direction, batch)[0], expected)
        found = CentralDifference(case.model, case.modules, direction, 1e-3).scores(batch)[0]
        assert relative(found, expected) < 2e-4


class ScaledRouter(nn.Module):
    """A router that does not multiply by its weight alone."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, hidden):
        logits = nn.functional.linear(hidden, 2 * self.weight)
        shares, chosen = logits.softmax(-1).topk(2, dim=-1)
        return logits, shares, chosen


def test_a_router_that_is_no_linear_layer_is_refused_with_the_remedy_which_works():
    model = tiny_model("mixtral")
    block = model.model.layers[0].mlp
    block.gate = ScaledRouter(block.gate.weight.clone())
    queries = [(np.arange(1, 6), np.arange(5) > 1)]
    with pytest.raises(ConfigError, match=r"ScaledRouter does more .* leave it out with model\.modules"):
        query_gradient(model, tracked_modules(model), queries)
    modules = tracked_modules(model, "experts|attn")
    direction = {name: torch.full(layer_shape(m), 0.01, dtype=torch.float64) for name, m in modules.items()}
    assert query_gradient(model, modules, queries).keys() == modules.keys()
    (batch,) = make_batches([Sequence(np.arange(1, 9), np.arange(8))], 30)
    exact = own_loss_scores(model, modules, direction, batch)[0]
    assert relative(CentralDifference(model, modules, direction, 1e-3).scores(batch)[0], exact) < 1e-3


def test_a_weight_of_an_expert_is_the_models_own():
    for kind in EXPERTS:
        model = tiny_model(kind)
        part = find_linear(model)["model.layers.0.mlp.experts.1.down_proj"]
        part.owner.down_proj[1].fill_(3.0)
        assert (weight_of(part) == 3).all() and weight_of(part).shape[0] == 16

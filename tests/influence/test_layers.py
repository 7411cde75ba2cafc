"""Another class of linear layers is one line of `LAYER_TYPES`; then the whole engine treats it like any other."""

import copy

import torch
from torch import nn

from ifguide.influence.central import CentralDifference, PairedDifference
from ifguide.influence.direction import query_gradient
from ifguide.influence.ekfac import fit_factors
from ifguide.influence.line import own_loss_scores
from ifguide.models.layers import LAYER_TYPES, LayerType, Part, bias_of, find_linear, split_matrix, weight_of
from ifguide.models.loading import tracked_modules
from tests.influence.every_model import Case, every_model, position_alone


class Kernel(nn.Module):
    """Stores its weight as (I, O) and both parameters under names of its own."""

    def __init__(self, layer):
        super().__init__()
        self.kernel = nn.Parameter(weight_of(layer).T.clone(), requires_grad=False)
        bias = bias_of(layer)
        self.offset = None if bias is None else nn.Parameter(bias.clone(), requires_grad=False)

    def forward(self, inputs):
        outputs = inputs @ self.kernel
        return outputs if self.offset is None else outputs + self.offset


def everything(case):
    """What each part of the engine makes of a case, by name."""
    model, modules, direction = case.model, case.modules, case.random_direction()
    queries = [(s.token_ids, s.index != s.index[0]) for s in case.sequences if len(s.token_ids) > 1]
    found = {("gradient", name): value for name, value in query_gradient(model, modules, queries).items()}
    for name, factors in fit_factors(model, modules, case.batches, labels="true").items():
        found["factors", name] = factors.precondition(direction[name], 0.1)
    central, paired = (way(model, modules, direction, 1e-2) for way in (CentralDifference, PairedDifference))
    for number, batch in enumerate(case.batches()):
        found["own loss", number] = own_loss_scores(model, modules, direction, batch)[0]
        found["position", number] = position_alone(model, modules, direction, batch)[0]
        found["central", number] = central.scores(batch)[0]
        found["paired", number] = paired.scores(batch)[0]
    return found


@every_model
def test_a_new_layer_type_is_one_registration(case, monkeypatch):
    expected = everything(case)
    monkeypatch.setitem(LAYER_TYPES, Kernel, LayerType(weight="kernel", bias="offset", inputs_first=True))
    other = copy.copy(case)
    other.model = copy.deepcopy(case.model)
    for name, layer in tracked_modules(other.model).items():
        if isinstance(layer, Part):
            continue
        parent, _, child = name.rpartition(".")
        setattr(other.model.get_submodule(parent), child, Kernel(layer))
    other.modules = tracked_modules(other.model)
    assert {type(module) for module in other.modules.values()} - {Part} == {Kernel}
    assert list(other.modules) == list(case.modules)
    for what, value in everything(other).items():
        # where differences are multiplied in bfloat16, the last digits depend on the order of a sum
        rtol, atol = (1e-2, 1e-3) if what[0] == "paired" else (1e-7, 1e-9)
        torch.testing.assert_close(value, expected[what], rtol=rtol, atol=atol, msg=lambda m, w=what: f"{w}: {m}")


def test_a_matrix_falls_into_the_parameters_parts():
    case = Case("gpt2")
    for name, layer in find_linear(case.model).items():
        if name in case.modules:
            weight, bias = split_matrix(layer, case.random_direction()[name])
            assert weight.shape == weight_of(layer).shape == (layer.nf, layer.nx) and bias.shape == bias_of(layer).shape
            inputs = torch.randn(3, layer.nx, dtype=torch.float64)
            torch.testing.assert_close(layer(inputs), inputs @ weight_of(layer).T + bias_of(layer))

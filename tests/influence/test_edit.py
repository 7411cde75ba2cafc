"""An edit against a slow reference: gradients by autograd, a dense curvature, weights moved one by one."""

import copy

import numpy as np
import pytest
import torch

from ifguide.errors import ConfigError, NumericalError
from ifguide.influence.batches import Sequence, make_batches
from ifguide.influence.edit import apply_edit, choose_strength, edit_direction, edited, token_gradient, weight_length
from ifguide.influence.ekfac import fit_factors
from ifguide.models.layers import bias_of, has_bias, weight_of
from ifguide.models.loading import tracked_modules
from tests.influence.dense import layer_gradient, relative_error, sequence_losses
from tests.influence.every_model import every_model
from tests.tiny import tiny_model

STRENGTH, DAMPING = 0.05, 1.0


def parameters_of(module) -> torch.Tensor:
    """(O, I), the bias in the last column."""
    weight = weight_of(module)
    return torch.cat([weight, bias_of(module).unsqueeze(1)], dim=1) if has_bias(module) else weight


def reference_weights(model, modules, sequences, weights, factors) -> dict:
    """θ' of every layer by the definition: a sum over tokens, the Kronecker product written out, one division."""
    total: dict = {name: 0.0 for name in modules}
    for sequence in sequences:
        losses = sequence_losses(model, sequence.token_ids)
        chosen = torch.as_tensor(weights[sequence.index[1:]])
        gradient = layer_gradient(model, modules, (losses * chosen).sum())
        total = {name: total[name] + gradient[name] for name in modules}
    steps = {}
    for name, gradient in total.items():
        layer = factors[name].to(torch.float64)
        basis = torch.kron(layer.output_vectors.contiguous(), layer.input_vectors.contiguous())
        fisher = basis @ torch.diag(layer.eigenvalues.flatten()) @ basis.T
        damped = fisher + DAMPING * layer.eigenvalues.mean() * torch.eye(len(fisher), dtype=torch.float64)
        steps[name] = torch.linalg.solve(damped, gradient.flatten()).view(gradient.shape)
    theta = {name: parameters_of(module).detach().double() for name, module in modules.items()}
    long = torch.cat([step.flatten() for step in steps.values()]).norm()
    whole = torch.cat([part.flatten() for part in theta.values()]).norm()
    return {name: theta[name] + STRENGTH * steps[name] / long * whole for name in modules}


def test_weights_are_those_of_the_slow_reference():
    model = tiny_model("gpt_neox", dtype=torch.float64)
    exact, narrow = copy.deepcopy(model), model.float()
    modules = tracked_modules(narrow)
    generator = np.random.default_rng(0)
    ids = [generator.integers(1, 40, size=n) for n in (9, 5, 12)]
    starts = np.cumsum([0, *map(len, ids)])
    sequences = [Sequence(part, np.arange(a, a + len(part))) for part, a in zip(ids, starts, strict=False)]
    weights = np.where(generator.random(starts[-1]) < 0.4, generator.random(starts[-1]), 0.0)
    factors = fit_factors(narrow, modules, lambda: make_batches(sequences, 64))
    truth = reference_weights(exact, tracked_modules(exact), sequences, weights, factors)

    by_token = torch.as_tensor(weights, dtype=torch.float32)
    gradient = token_gradient(narrow, modules, make_batches(sequences, 20), weigh=by_token.__getitem__)
    step = edit_direction(modules, gradient, factors, DAMPING)
    apply_edit(modules, step, STRENGTH)
    for name, module in modules.items():
        assert relative_error(parameters_of(module).detach().double(), truth[name]) <= 1e-5


@every_model
def test_a_step_of_strength_one_is_as_long_as_the_weights_and_raises_the_chosen_loss(case):
    gradient = token_gradient(case.model, case.modules, case.batches())
    step = edit_direction(case.modules, gradient, None, 0.0)
    length = torch.cat([part.flatten() for part in step.values()]).norm()
    assert float(length) == pytest.approx(weight_length(case.modules), rel=1e-9)

    def loss() -> float:
        with torch.no_grad():
            return sum(float(sequence_losses(case.model, s.token_ids).sum()) for s in case.sequences)

    before = loss()
    with edited(case.modules, step, 1e-4):
        inside = loss()
    assert inside > before and loss() == before  # the weights were never touched
    apply_edit(case.modules, step, 1e-4)
    assert loss() == pytest.approx(inside, rel=1e-6)


def test_tokens_without_a_gradient_are_refused():
    model = tiny_model("llama")
    with pytest.raises(NumericalError, match="gradient"):
        token_gradient(model, tracked_modules(model), [])


@pytest.mark.parametrize("budget", [0.005, 0.01, 0.05])
def test_the_strength_meets_its_budget_from_below_with_few_tries(budget):
    def rise(strength: float) -> float:
        return 40 * strength**2 - 0.3 * strength  # falls first, as real ones do

    strength, tried = choose_strength(rise, budget)
    assert 0.9 * budget <= tried[strength] <= budget and len(tried) <= 16
    assert all(cost > budget for other, cost in tried.items() if other > strength)


def test_a_cost_that_is_no_number_or_above_any_budget_is_handled():
    def broken_beyond(strength: float) -> float:
        return 0.0 if strength <= 0.03 else float("nan")

    assert choose_strength(broken_beyond, 0.01)[0] == pytest.approx(0.03, rel=0.03)
    with pytest.raises(ConfigError, match="raises perplexity"):
        choose_strength(lambda strength: 1.0, 0.01)
    assert choose_strength(lambda strength: 0.0, 0.01)[0] > 0.5

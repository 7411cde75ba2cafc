import numpy as np
import pytest
import torch

from ifguide.errors import ConfigError, NumericalError
from ifguide.influence import derivative
from ifguide.influence.central import PairedDifference
from ifguide.influence.derivative import AGREEMENT, Derivative, choose_derivative, score_along
from ifguide.influence.line import own_loss_scores
from tests.influence.every_model import every_model
from tests.one_case import for_each


def collect(score, batches):
    return np.concatenate([score(batch)[0][batch.targets != -100].double().numpy() for batch in batches])


def single(case):
    """The case in float32, and its direction."""
    return case.model.float(), {name: v.float() for name, v in case.random_direction().items()}


def exact_scores(model, case, direction):
    return collect(lambda batch: own_loss_scores(model, case.modules, direction, batch), case.batches())


@every_model
def test_the_chosen_way_agrees_in_float32_and_says_how_well(case):
    model, direction = single(case)
    way = choose_derivative(model, case.modules, direction, case.batches())
    assert (way.method, way.products) == ("central", "float32")
    exact = exact_scores(model, case, direction)
    ours = collect(way.scorer(model, case.modules, direction), case.batches())
    assert way.n_tokens == len(exact)
    measured = np.corrcoef(exact, ours)[0, 1]
    assert measured >= AGREEMENT
    assert abs(measured - way.correlation) < 1e-9


@every_model
def test_bfloat16_products_are_taken_where_they_are_fast_and_agree(case):
    model, direction = single(case)
    way = choose_derivative(model, case.modules, direction, case.batches(), narrow=True)
    assert (way.method, way.products) == ("central", "bfloat16")
    assert AGREEMENT <= way.correlation < 1
    again = collect(way.scorer(model, case.modules, direction), case.batches())
    assert np.corrcoef(exact_scores(model, case, direction), again)[0, 1] == pytest.approx(way.correlation, abs=1e-9)


@every_model
def test_what_agrees_too_little_is_refused_and_named(case, monkeypatch):
    model, direction = single(case)
    monkeypatch.setattr(derivative, "AGREEMENT", 1.1)
    way = choose_derivative(model, case.modules, direction, case.batches(), narrow=True)
    assert way.method == "jvp"
    assert [(one["method"], one["products"]) for one in way.refused] == [
        ("central", "bfloat16"),
        ("central", "float32"),
    ]
    assert all(one["correlation"] < 1.1 for one in way.refused)
    ours = collect(way.scorer(model, case.modules, direction), case.batches())
    np.testing.assert_allclose(ours, exact_scores(model, case, direction), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(derivative, "AGREEMENT", 1 - 1e-8)  # float32 keeps this, bfloat16 does not
    way = choose_derivative(model, case.modules, direction, case.batches(), narrow=True)
    assert way.products == "float32"
    assert [one["products"] for one in way.refused] == ["bfloat16"] + ["float32"] * (way.method == "jvp")


@every_model
def test_a_setting_rules_and_an_unknown_one_is_refused(case):
    model, direction = single(case)
    assert choose_derivative(model, case.modules, direction, case.batches(), setting="jvp") == Derivative("jvp")
    assert (
        choose_derivative(model, case.modules, direction, case.batches(), setting="central", narrow=True).products
        == "float32"
    )
    with pytest.raises(ConfigError, match="expected auto, central or jvp, got 'fast'"):
        choose_derivative(model, case.modules, direction, case.batches(), setting="fast")


class Opaque(torch.autograd.Function):
    """The identity, without a forward-mode derivative."""

    @staticmethod
    def forward(ctx, inputs):
        return inputs.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@every_model
def test_without_an_exact_derivative_half_the_step_judges(case, monkeypatch):
    model, direction = single(case)
    exact = exact_scores(model, case, direction)
    norm = [module for module in model.modules() if "Norm" in type(module).__name__][-1]
    norm.register_forward_hook(lambda module, inputs, output: Opaque.apply(output))
    for narrow, size in ((False, 1), (True, 1), (False, 1e-6), (False, 1e4)):  # v has no scale of its own
        scaled = {name: size * v for name, v in direction.items()}
        way = choose_derivative(model, case.modules, scaled, case.batches(), narrow=narrow)
        assert (way.judge, way.products) == ("half-step", "bfloat16" if narrow else "float32")
        ours = collect(way.scorer(model, case.modules, scaled), case.batches())
        assert AGREEMENT <= np.corrcoef(exact, ours)[0, 1] < 1
        np.testing.assert_allclose(ours / size, exact, rtol=2e-2, atol=2e-2 * exact.std())
        assert way.correlation == pytest.approx(np.corrcoef(exact, ours)[0, 1], abs=1e-6)
    jvp = choose_derivative(model, case.modules, direction, case.batches(), setting="jvp")
    with pytest.raises(ConfigError, match=r'scores\.derivative = "auto"'):
        jvp.scorer(model, case.modules, direction)(case.batches()[0])
    monkeypatch.setattr(derivative, "AGREEMENT", 1.1)
    with pytest.raises(NumericalError, match=r'no step agrees with its half .*scores\.derivative = "central"'):
        choose_derivative(model, case.modules, direction, case.batches())


def test_ways_in_the_notes_of_earlier_studies_are_read():
    """They named no judge: it was always the exact derivative."""
    assert Derivative(**{"method": "central", "epsilon": 0.1, "correlation": 0.99999, "n_tokens": 9}).judge == "jvp"


@for_each("products, bound", [(torch.float32, 1e-3), (torch.bfloat16, 1e-2)])
@every_model
def test_both_branches_in_one_pass_give_the_exact_scores_up_to_their_products(case, products, bound):
    model, direction = single(case)
    exact = exact_scores(model, case, direction)
    paired = PairedDifference(model, case.modules, direction, 3e-3, products)
    ours = collect(paired.scores, case.batches())
    assert np.linalg.norm(ours - exact) / np.linalg.norm(exact) < bound
    for batch in case.batches():
        losses = own_loss_scores(model, case.modules, direction, batch)[1]
        np.testing.assert_allclose(paired.scores(batch)[1].numpy(), losses.numpy(), rtol=1e-3, atol=1e-3)


@every_model
def test_several_directions_score_like_each_alone(case):
    model, first = single(case)
    second = {name: v.float() for name, v in case.random_direction(seed=2).items()}
    central = choose_derivative(model, case.modules, first, case.batches(), setting="central")
    for ways in ([Derivative("jvp")] * 2, [central, central], [central, Derivative("jvp")]):
        score = score_along(model, case.modules, [first, second], ways)
        for batch in case.batches():
            *scores, losses = score(batch)
            for found, direction in zip(scores, (first, second), strict=True):
                exact, exact_losses = own_loss_scores(model, case.modules, direction, batch)
                np.testing.assert_allclose(found.numpy(), exact.numpy(), rtol=2e-2, atol=2e-2)
                np.testing.assert_allclose(losses.numpy(), exact_losses.numpy(), rtol=1e-3, atol=1e-3)

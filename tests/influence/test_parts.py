"""Factors of layers in parts and of a low rank: the same numbers, with one part's matrices in memory."""

import gc
import weakref

import pytest
import torch

from ifguide.errors import NumericalError
from ifguide.influence import ekfac
from ifguide.influence.ekfac import Fit, factor_shapes, fit_factors, stream_factors
from ifguide.influence.parts import direction_bytes, divide, fewest_parts, fit_bytes, shapes_of
from ifguide.models.layers import find_shared_inputs
from tests.influence.dense import relative_error
from tests.influence.every_model import Case, every_model

FIELDS = ("input_vectors", "output_vectors", "eigenvalues")


@pytest.fixture
def case():
    return Case("llama")


@every_model
def test_several_parts_give_the_factors_of_one_and_draw_the_same_labels(case):
    whole = fit_factors(case.model, case.modules, case.batches, seed=5)
    shared = find_shared_inputs(case.model, case.modules)
    for n in (2, 3, 100):
        parts = divide(case.modules, shared, n)
        found = fit_factors(case.model, case.modules, case.batches, seed=5, parts=parts)
        assert found.keys() == whole.keys()
        for name in whole:
            for field in FIELDS:
                torch.testing.assert_close(getattr(found[name], field), getattr(whole[name], field), rtol=0, atol=1e-12)


@every_model
def test_decompositions_in_batches_give_the_same_fisher(case, monkeypatch):
    one_by_one = fit_factors(case.model, case.modules, case.batches, seed=5)
    shapes, find = [], ekfac.eigenvectors

    def note(matrices, names):
        shapes.append(matrices.shape)
        return find(matrices, names)

    monkeypatch.setattr(ekfac, "_ONE_BY_ONE", ())
    monkeypatch.setattr(ekfac, "eigenvectors", note)
    together = fit_factors(case.model, case.modules, case.batches, seed=5)
    assert max(k for k, _, _ in shapes) > 1
    assert max(k * side**2 for k, side, _ in shapes) <= max(side for _, side, _ in shapes) ** 2
    for name, layer in one_by_one.items():
        gradient = torch.randn(len(layer.output_vectors), len(layer.input_vectors), dtype=torch.float64)
        expected = layer.precondition(gradient, 0.1)
        assert relative_error(together[name].precondition(gradient, 0.1), expected) <= 1e-6, name


def test_labels_are_the_same_where_nothing_is_kept_of_the_first_pass(case, monkeypatch):
    parts = divide(case.modules, find_shared_inputs(case.model, case.modules), 3)
    kept = fit_factors(case.model, case.modules, case.batches, parts=parts)
    monkeypatch.setattr(ekfac, "KEPT_BYTES", 0)
    for name, layer in fit_factors(case.model, case.modules, case.batches, parts=parts).items():
        assert torch.equal(layer.eigenvalues, kept[name].eigenvalues)


def test_one_part_is_in_memory_and_no_covariance_beside_its_eigenvectors(case, monkeypatch):
    """Every matrix is followed by a weak reference, from when it is made to when the next pass begins."""
    covariances, matrices, passes = [], [], []
    first, second = Fit.covariances, Fit.eigenvalues

    def alive(references):
        gc.collect()
        return sum(reference() is not None for reference in references)

    def follow(tensor):
        reference = weakref.ref(tensor)
        matrices.append(reference)
        return reference

    def covariances_of(fit, part):
        passes.append(("first", alive(matrices)))
        found = first(fit, part)
        covariances.extend(follow(matrix) for group in found for matrix in group.values())
        return found

    def eigenvalues_of(fit, part, *vectors, **options):
        passes.append(("second", alive(covariances)))
        matrices.extend(weakref.ref(matrix) for group in vectors for matrix in group.values())
        found = second(fit, part, *vectors, **options)
        matrices.extend(weakref.ref(values) for values, _ in found.values())
        return found

    monkeypatch.setattr(Fit, "covariances", covariances_of)
    monkeypatch.setattr(Fit, "eigenvalues", eigenvalues_of)
    parts = divide(case.modules, find_shared_inputs(case.model, case.modules), 3)
    stream_factors(case.model, case.modules, case.batches, lambda *_: None, parts=parts)
    assert passes == [("first", 0), ("second", 0)] * 3
    assert len(covariances) >= 8 and alive(matrices) == 0
    held = []
    stream_factors(case.model, case.modules, case.batches, lambda *field: held.append(field), parts=parts)
    assert alive(matrices) > 0, "what is kept must be seen, or finding nothing proves nothing"


def test_a_covariance_is_gone_before_the_next_is_decomposed(case, monkeypatch):
    real, before = ekfac.eigenvectors, []

    def watched(matrix, name=""):
        gc.collect()
        assert not [name for name, reference in before if reference() is not None]
        before.append((name, weakref.ref(matrix)))
        return real(matrix, name)

    monkeypatch.setattr(ekfac, "eigenvectors", watched)
    fit_factors(case.model, case.modules, case.batches)
    assert len(before) == len(case.modules) + len({*find_shared_inputs(case.model, case.modules).values()})


def test_progress_over_parts_ends_at_the_totals(case):
    tokens, bases = [], []
    parts = divide(case.modules, find_shared_inputs(case.model, case.modules), 3)
    reports = {"report": lambda *done: tokens.append(done), "report_eigenbases": lambda *done: bases.append(done)}
    fit_factors(case.model, case.modules, case.batches, parts=parts, **reports)
    for seen in (tokens, bases):
        assert seen == sorted(seen) and seen[-1][0] == seen[-1][1]
    assert tokens[-1][1] == 6 * sum(batch.n_tokens for batch in case.batches())


@every_model
def test_a_low_rank_is_a_dense_solve_with_one_eigenvalue_for_the_rest(case):
    full = fit_factors(case.model, case.modules, case.batches, labels="true")
    low = fit_factors(case.model, case.modules, case.batches, labels="true", rank=5)
    shapes, gradient = factor_shapes(case.modules, 5), case.random_direction()
    for name, layer in low.items():
        assert {field: tuple(tensor.shape) for field, tensor in vars(layer).items()} == shapes[name]
        basis = torch.kron(layer.output_vectors, layer.input_vectors)
        outside = torch.eye(len(basis), dtype=torch.float64) - basis @ basis.T
        fisher = basis @ torch.diag(layer.eigenvalues.flatten()) @ basis.T + layer.rest * outside
        trace = full[name].eigenvalues.sum()
        torch.testing.assert_close(fisher.trace(), trace, rtol=1e-9, atol=0)
        d = 0.3 * trace / len(basis)
        dense = torch.linalg.solve(fisher + d * torch.eye(len(basis), dtype=torch.float64), gradient[name].flatten())
        assert relative_error(layer.precondition(gradient[name], 0.3), dense.view_as(gradient[name])) <= 1e-9


def test_a_rank_of_all_eigenvectors_is_the_full_curvature(case):
    gradient = case.random_direction()
    full = fit_factors(case.model, case.modules, case.batches, labels="true")
    for name, layer in fit_factors(case.model, case.modules, case.batches, labels="true", rank=1000).items():
        expected = full[name].precondition(gradient[name], 0.1)
        assert relative_error(layer.precondition(gradient[name], 0.1), expected) <= 1e-9
    errors = []
    for rank in (2, 6, 12):
        low = fit_factors(case.model, case.modules, case.batches, labels="true", rank=rank)
        errors.append(
            max(
                relative_error(low[n].precondition(gradient[n], 10), full[n].precondition(gradient[n], 10))
                for n in full
            )
        )
    assert errors[2] < errors[0] < 1


def test_layers_that_read_the_same_inputs_stay_together_and_no_layer_is_lost(case):
    shared = find_shared_inputs(case.model, case.modules)
    for n in (1, 2, 3, 5, 200):
        parts = divide(case.modules, shared, n)
        assert sorted(name for part in parts for name in part) == sorted(case.modules) and len(parts) <= n
        assert all(name in part for part in parts for layer in part for name in [shared[layer]])
    assert len(divide(case.modules, shared, 200)) == len({*shared.values()})


def test_as_few_parts_as_fit(case):
    shared = find_shared_inputs(case.model, case.modules)
    for need in (fit_bytes, direction_bytes):
        whole = need(shapes_of(case.modules), shared)
        assert fewest_parts(case.modules, shared, need, whole) == [case.modules]
        parts = fewest_parts(case.modules, shared, need, 0.8 * whole)
        assert len(parts) > 1 and max(need(shapes_of(part), shared) for part in parts) <= 0.8 * whole
        assert len(fewest_parts(case.modules, shared, need, 0)) == len({*shared.values()})


def test_bytes_of_a_fit_are_those_of_its_matrices():
    shapes, shared = {"q": (8, 4), "k": (2, 4), "down": (4, 16)}, {"q": "q", "k": "q", "down": "down"}
    squares = 8**2 + 2**2 + 4**2 + 4**2 + 16**2
    assert fit_bytes(shapes, shared) == 4 * squares + 32 * 16**2
    wide = {str(n): (8, 8) for n in range(40)}
    assert fit_bytes(wide, {name: name for name in wide}) == 4 * 40 * (2 * 64 + 64)


def test_a_part_that_is_not_finite_is_an_error_of_its_layer(case):
    name = list(case.modules)[-1]
    with torch.no_grad():
        case.modules[name].weight[0, 0] = float("nan")
    parts = divide(case.modules, find_shared_inputs(case.model, case.modules), 3)
    with pytest.raises(NumericalError, match="not finite"):
        fit_factors(case.model, case.modules, case.batches, labels="true", parts=parts)

import numpy as np
import torch

from ifguide.influence.attribution import own_loss_scores
from ifguide.influence.central import AGREEMENT, CentralDifference, choose_step


def counted(values, batch):
    return values[batch.targets != -100].double().numpy()


def test_central_differences_in_float64_match_the_exact_derivative(case):
    direction = case.random_direction()
    for batch in case.batches():
        exact, exact_losses = own_loss_scores(case.model, case.modules, direction, batch)
        # several architectures take their attention's softmax in float32, so the step must not be too small
        ours, losses = CentralDifference(case.model, case.modules, direction, 1e-3).scores(batch)
        error = np.linalg.norm(counted(ours, batch) - counted(exact, batch)) / np.linalg.norm(counted(exact, batch))
        assert error < 1e-4
        np.testing.assert_allclose(counted(losses, batch), counted(exact_losses, batch), rtol=1e-4)


def test_the_models_own_weights_are_left_alone(case):
    before = {name: p.clone() for name, p in case.model.named_parameters()}
    CentralDifference(case.model, case.modules, case.random_direction(), 0.1)
    assert all(torch.equal(p, before[name]) for name, p in case.model.named_parameters())


def test_the_chosen_step_agrees_in_float32_and_says_how_well(case):
    model = case.model.float()
    direction = {name: v.float() for name, v in case.random_direction().items()}
    step = choose_step(model, case.modules, direction, case.batches())
    exact, ours = [], []
    for batch in case.batches():
        exact.append(counted(own_loss_scores(model, case.modules, direction, batch)[0], batch))
        ours.append(counted(CentralDifference(model, case.modules, direction, step.epsilon).scores(batch)[0], batch))
    assert step.n_tokens == sum(map(len, exact))
    measured = np.corrcoef(np.concatenate(exact), np.concatenate(ours))[0, 1]
    assert measured >= AGREEMENT
    assert abs(measured - step.correlation) < 1e-9

import numpy as np
import torch

from ifguide.influence.central import CentralDifference
from ifguide.influence.line import own_loss_scores
from ifguide.influence.losses import SplitModel
from tests.influence.every_model import every_model


def counted(values, batch):
    return values[batch.targets != -100].double().numpy()


@every_model
def test_central_differences_in_float64_match_the_exact_derivative(case):
    direction = case.random_direction()
    for batch in case.batches():
        exact, exact_losses = own_loss_scores(case.model, case.modules, direction, batch)
        # several architectures take their attention's softmax in float32, so the step must not be too small
        ours, losses = CentralDifference(case.model, case.modules, direction, 1e-3).scores(batch)
        error = np.linalg.norm(counted(ours, batch) - counted(exact, batch)) / np.linalg.norm(counted(exact, batch))
        assert error < 1e-4
        np.testing.assert_allclose(counted(losses, batch), counted(exact_losses, batch), rtol=1e-4)


@every_model
def test_the_models_own_weights_are_left_alone(case):
    before = {name: p.clone() for name, p in case.model.named_parameters()}
    CentralDifference(case.model, case.modules, case.random_direction(), 0.1)
    assert all(torch.equal(p, before[name]) for name, p in case.model.named_parameters())


@every_model
def test_a_head_that_cannot_be_streamed_gives_the_same_scores(case):
    direction = case.random_direction()
    split = SplitModel(case.model)
    whole = SplitModel(case.model)
    whole.splits = False
    assert split.streams and not whole.streams
    for batch in case.batches():
        streamed, losses = CentralDifference(split, case.modules, direction, 1e-3).scores(batch)
        ours, whole_losses = CentralDifference(whole, case.modules, direction, 1e-3).scores(batch)
        error = np.linalg.norm(counted(streamed, batch) - counted(ours, batch)) / np.linalg.norm(counted(ours, batch))
        assert error < 1e-4
        np.testing.assert_allclose(counted(losses, batch), counted(whole_losses, batch), rtol=1e-4)

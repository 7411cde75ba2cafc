"""Several directions in one pass give the scores of each alone."""

import torch

from ifguide.influence.attribution import position_scores
from tests.influence.every_model import every_model, position_alone
from tests.one_case import for_each


@for_each("n", [1, 3])
@every_model
def test_several_directions_give_the_position_scores_of_each_alone(case, n):
    directions = [case.random_direction(seed) for seed in range(n)]
    for batch in case.batches():
        scores, losses = position_scores(case.model, case.modules, directions, batch)
        assert scores.shape == (n, *batch.targets.shape)
        for mine, direction in zip(scores, directions, strict=True):
            expected, expected_losses = position_alone(case.model, case.modules, direction, batch)
            torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(losses, expected_losses)

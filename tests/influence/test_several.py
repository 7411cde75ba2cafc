"""Several directions in one pass give what each gives alone."""

import pytest
import torch

from ifguide.influence.attribution import own_loss_scores, position_scores
from ifguide.influence.several import PlaneDerivatives, position_scores_several


@pytest.mark.parametrize("n", [1, 3])
def test_several_directions_give_the_scores_of_each_alone(case, n):
    directions = [case.random_direction(seed) for seed in range(n)]
    plane = PlaneDerivatives(case.model, case.modules, directions)
    for batch in case.batches():
        for scores, losses, alone in (
            (*plane.scores(batch), own_loss_scores),
            (*position_scores_several(case.model, case.modules, directions, batch), position_scores),
        ):
            assert scores.shape == (n, *batch.targets.shape)
            for mine, direction in zip(scores, directions, strict=True):
                expected, expected_losses = alone(case.model, case.modules, direction, batch)
                torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-12)
                torch.testing.assert_close(losses, expected_losses)

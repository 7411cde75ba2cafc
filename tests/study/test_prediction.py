"""The predicted effect is the first-order change of the query losses."""

import numpy as np
import pytest

from ifguide.selection.prediction import predicted_change


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.5])
def test_it_is_the_derivative_of_the_query_losses_along_the_objective(penalty):
    """Least squares, where the trained model is exact: put a small part of the penalty on, train again, look at the
    queries."""
    draw = np.random.default_rng(0)
    n_tokens, size = 300, 4
    inputs, targets = draw.normal(size=(n_tokens, size)), draw.normal(size=n_tokens)
    toxic, safe = ((draw.normal(size=(20, size)), draw.normal(size=20)) for _ in range(2))
    selected = draw.random(n_tokens) < 0.1

    def train(weights):  # minimises mean(w (xθ - y)² / 2)
        return np.linalg.solve((inputs * weights[:, None]).T @ inputs, (inputs * weights[:, None]).T @ targets)

    loss = lambda theta, queries: float(np.mean((queries[0] @ theta - queries[1]) ** 2) / 2)  # noqa: E731
    gradient = lambda theta, queries: queries[0].T @ (queries[0] @ theta - queries[1]) / len(queries[1])  # noqa: E731
    theta = train(np.ones(n_tokens))
    direction = np.linalg.solve(inputs.T @ inputs / n_tokens, gradient(theta, toxic) - gradient(theta, safe))
    scores = (inputs * (inputs @ theta - targets)[:, None]) @ direction
    share = 1e-5
    again = train(np.where(selected, 1 - share * (1 + penalty), 1.0))
    change = (loss(again, toxic) - loss(again, safe)) - (loss(theta, toxic) - loss(theta, safe))
    assert change / share == pytest.approx(predicted_change(scores[selected].sum(), n_tokens, penalty), rel=1e-3)

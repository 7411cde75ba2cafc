"""Own-loss scores by central differences: (ℓ(θ+εv) - ℓ(θ-εv)) / 2ε, two forward passes and no derivative.

Much faster than forward-mode differentiation, and less exact: float32 losses are rounded, and the step is finite. So the step
is chosen on a sample against the exact derivative, and the agreement found there is part of the result.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ifguide.influence.attribution import own_loss_scores
from ifguide.influence.batches import Batch
from ifguide.influence.layers import as_parameters
from ifguide.influence.losses import SplitModel

RELATIVE_STEPS = (0.003, 0.01, 0.03, 0.1)
"""Candidate steps, as the root mean square change of a token's loss in nats."""
AGREEMENT = 0.9999
"""Least Pearson correlation with the exact derivative for `auto` to use central differences."""


@dataclass(frozen=True)
class StepChoice:
    """The step that agrees best with the exact derivative on a sample."""

    epsilon: float
    """Multiple of v that is added and subtracted."""
    correlation: float
    """Pearson correlation with the exact scores on the sample."""
    n_tokens: int
    """Predicted tokens in the sample."""


class CentralDifference:
    """Two copies of a model, at θ+εv and θ-εv; parameters that v does not touch are shared with the original.

    Args:
        model: any attention implementation.
        modules: the tracked layers by name.
        direction: v, (O, I) a layer.
        epsilon: the step.
    """

    def __init__(
        self, model: nn.Module, modules: dict[str, nn.Module], direction: dict[str, torch.Tensor], epsilon: float
    ):
        self.epsilon = epsilon
        self._plus = SplitModel(_shifted(model, modules, direction, epsilon))
        self._minus = SplitModel(_shifted(model, modules, direction, -epsilon))

    @torch.no_grad()
    def scores(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """(scores, losses), each (B, T-1); the loss is the mean of the two, which differs from ℓ(θ) by a term in ε²."""
        plus, minus = self._plus(batch), self._minus(batch)
        return (plus - minus) / (2 * self.epsilon), (plus + minus) / 2


def _shifted(
    model: nn.Module, modules: dict[str, nn.Module], direction: dict[str, torch.Tensor], step: float
) -> nn.Module:
    tracked = {id(parameter) for module in modules.values() for parameter in module.parameters(recurse=False)}
    shared = {id(p): p for p in model.parameters() if id(p) not in tracked}
    shifted = copy.deepcopy(model, shared)
    layers = dict(shifted.named_modules())
    with torch.no_grad():
        for name in modules:
            for key, tangent in as_parameters(layers[name], direction[name]).items():
                parameter = getattr(layers[name], key)
                parameter.add_(tangent.to(parameter.dtype), alpha=step)
    return shifted


def choose_step(
    model: nn.Module, modules: dict[str, nn.Module], direction: dict[str, torch.Tensor], sample: list[Batch]
) -> StepChoice:
    """Try a few steps on a sample and keep the one closest to the exact derivative.

    Args:
        model: loaded with `eager` attention, which the exact derivative needs.
        modules: the tracked layers by name.
        direction: v, (O, I) a layer.
        sample: batches on the model's device.
    """
    exact = _collect([own_loss_scores(model, modules, direction, batch)[0] for batch in sample], sample)
    scale = float(np.sqrt(np.mean(exact**2))) or 1.0
    best = StepChoice(RELATIVE_STEPS[0] / scale, -1.0, len(exact))
    for relative in RELATIVE_STEPS:
        difference = CentralDifference(model, modules, direction, relative / scale)
        ours = _collect([difference.scores(batch)[0] for batch in sample], sample)
        correlation = (
            float(np.corrcoef(exact, ours)[0, 1]) if np.isfinite(ours).all() and ours.std() and exact.std() else -1.0
        )
        if correlation > best.correlation:
            best = StepChoice(difference.epsilon, correlation, len(exact))
    return best


def _collect(scores: list[torch.Tensor], sample: list[Batch]) -> np.ndarray:
    return np.concatenate([s[b.targets != -100].double().cpu().numpy() for s, b in zip(scores, sample, strict=True)])

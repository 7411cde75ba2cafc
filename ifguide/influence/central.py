"""Own-loss scores by central differences: (ℓ(θ+εv) - ℓ(θ-εv)) / 2ε, two forward passes and no derivative.

Much faster than forward-mode differentiation, and less exact: float32 losses are rounded, and the step is finite. So the step
is chosen on a sample against the exact derivative, and the agreement found there is part of the result.

The model's weights are never changed. Each layer makes its shifted weight when it is called, in one buffer that all layers
share, so the cost in memory is v and the largest layer, and nothing drifts however many batches are scored.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ifguide.influence.attribution import own_loss_scores
from ifguide.influence.batches import Batch
from ifguide.influence.layers import as_parameters, device_of, replace_forward
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
    """Scores batches with a model at θ+εv and at θ-εv.

    Args:
        model: any attention implementation; may be split already.
        modules: the tracked layers by name.
        direction: v, (O, I) a layer. bfloat16 will do: it rounds v, not θ+εv.
        epsilon: the step.
        products: dtype in which the output embedding multiplies the difference of the hidden states; None: the model's. A
            difference is multiplied after it is taken, so rounding it to bfloat16 costs digits of the score, not the score.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: dict[str, nn.Module],
        direction: dict[str, torch.Tensor],
        epsilon: float,
        products: torch.dtype | None = None,
    ):
        self.epsilon, self._products = epsilon, products
        self._split = SplitModel.of(model)
        self._layers = [
            ShiftedLayer(module, as_parameters(module, direction[name])) for name, module in modules.items()
        ]
        sizes: dict[tuple, int] = {}
        for layer in self._layers:
            weight, place = layer.module.weight, device_of(layer.module)
            sizes[place, weight.dtype] = max(sizes.get((place, weight.dtype), 0), weight.numel())
        for key, size in sizes.items():
            buffer = torch.empty(size, device=key[0], dtype=key[1])
            for layer in self._layers:
                if (device_of(layer.module), layer.module.weight.dtype) == key:
                    layer.buffer = buffer

    @torch.no_grad()
    def scores(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """(scores, losses), each (B, T-1), 0 where nothing counts; the loss is ℓ(θ) but for a term in ε²."""
        if not self._split.streams:
            plus, minus = self._at(batch, self.epsilon, self._split), self._at(batch, -self.epsilon, self._split)
            return (plus - minus) / (2 * self.epsilon), (plus + minus) / 2
        counted = batch.targets != -100
        plus, minus = self._at(batch, self.epsilon, self._hidden), self._at(batch, -self.epsilon, self._hidden)
        middle, tangent = (plus + minus) / 2, (plus - minus) / (2 * self.epsilon)
        losses, slopes = self._split.slopes(middle, tangent, batch.targets[counted], self._products)
        empty = losses.new_zeros(batch.targets.shape)
        return empty.masked_scatter(counted, slopes), empty.masked_scatter(counted, losses)

    def _at(self, batch: Batch, step: float, function):
        with contextlib.ExitStack() as stack:
            for layer in self._layers:
                stack.enter_context(layer.shifted(step))
            return function(batch)

    def _hidden(self, batch: Batch) -> torch.Tensor:
        hidden = self._split.hidden(batch.input_ids, batch.attention_mask)
        return hidden[:, :-1][batch.targets != -100]  # (n, H)


class ShiftedLayer:
    """A linear layer that can be run with its parameters moved along a tangent.

    Args:
        module: `nn.Linear` or GPT-2's `Conv1D`.
        tangent: by parameter name, in the parameter's own layout.
    """

    def __init__(self, module: nn.Module, tangent: dict[str, torch.Tensor]):
        self.module, self.tangent = module, {key: value.contiguous() for key, value in tangent.items()}
        self.buffer: torch.Tensor | None = None
        """Room for a weight of this layer's dtype; layers take turns."""

    def shifted(self, step: float) -> contextlib.AbstractContextManager[None]:
        """Inside the block the layer computes with parameters + step · tangent."""

        def forward(inputs: torch.Tensor) -> torch.Tensor:
            weight, bias = self.module.weight, getattr(self.module, "bias", None)
            moved = torch.add(
                weight, self.tangent["weight"], alpha=step, out=self.buffer[: weight.numel()].view(weight.shape)
            )
            if bias is not None:
                bias = bias + step * self.tangent["bias"].to(bias.dtype)
            return nn.functional.linear(inputs, moved if isinstance(self.module, nn.Linear) else moved.T, bias)

        return replace_forward(self.module, forward)


def choose_step(
    model: nn.Module,
    modules: dict[str, nn.Module],
    direction: dict[str, torch.Tensor],
    sample: list[Batch],
    exact_scores: Callable[[Batch], tuple[torch.Tensor, torch.Tensor]] | None = None,
) -> StepChoice:
    """Try a few steps on a sample and keep the one closest to the exact derivative.

    Args:
        model: loaded with `eager` attention, which the exact derivative needs.
        modules: the tracked layers by name.
        direction: v, (O, I) a layer.
        sample: batches on the model's device.
        exact_scores: batch -> (scores, losses) to compare with; None: `own_loss_scores`.
    """
    exact_scores = exact_scores or (lambda batch: own_loss_scores(model, modules, direction, batch))
    exact = _collect([exact_scores(batch)[0] for batch in sample], sample)
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

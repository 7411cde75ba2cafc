"""Own-loss scores by central differences: (ℓ(θ+εv) - ℓ(θ-εv)) / 2ε, two forward passes and no derivative.

Much faster than forward-mode differentiation, and less exact: float32 hidden states are rounded, and the step is
finite. So the step is chosen on a sample against the exact derivative (`ifguide.influence.derivative`), and the
agreement is part of the result.

The model's weights are never changed. Each layer makes its shifted weight when it is called, in one buffer that all
layers share, so the cost in memory is v and the largest layer, and nothing drifts however many batches are scored.
"""

import contextlib
from typing import Any

import torch
from torch import nn

from ifguide.influence.batches import Batch
from ifguide.influence.losses import SplitModel
from ifguide.models.layers import as_parameters, device_of, replace_forward


class CentralDifference:
    """Scores batches with a model at θ+εv and at θ-εv.

    Args:
        model: any attention implementation; may be split already.
        modules: the tracked layers by name.
        direction: v, (O, I) a layer. bfloat16 will do: it rounds v, not θ+εv.
        epsilon: the step.
        products: dtype in which the output embedding multiplies the difference of the hidden states; None: the model's.
            A difference is multiplied after it is taken, so rounding it to bfloat16 costs digits of the score, not the
            score.
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
        plus, minus = self._at(batch, self.epsilon, self._hidden), self._at(batch, -self.epsilon, self._hidden)
        return difference_scores(self._split, plus, minus, self.epsilon, batch, self._products)

    def _at(self, batch: Batch, step: float, function):
        with contextlib.ExitStack() as stack:
            for layer in self._layers:
                stack.enter_context(layer.shifted(step))
            return function(batch)

    def _hidden(self, batch: Batch) -> torch.Tensor:
        hidden = self._split.hidden(batch.input_ids, batch.attention_mask)
        return hidden[:, :-1][batch.targets != -100]  # (n, H)


def difference_scores(
    split: SplitModel,
    plus: torch.Tensor,
    minus: torch.Tensor,
    epsilon: float,
    batch: Batch,
    products: torch.dtype | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states (n, H) of the counted positions at θ+εv and θ-εv -> (scores, losses), each (B, T-1)."""
    counted = batch.targets != -100
    losses, slopes = split.slopes((plus + minus) / 2, (plus - minus) / (2 * epsilon), batch.targets[counted], products)
    empty = losses.new_zeros(batch.targets.shape)
    return empty.masked_scatter(counted, slopes), empty.masked_scatter(counted, losses)


class ShiftedLayer:
    """A linear layer that can be run with its parameters moved along a tangent.

    Args:
        module: `nn.Linear` or GPT-2's `Conv1D`.
        tangent: by parameter name, in the parameter's own layout.
    """

    def __init__(self, module: nn.Module, tangent: dict[str, torch.Tensor]):
        self.module: Any = module  # nn.Module's types do not know that its weight and bias are tensors
        self.tangent = tangent  # as it lies: a copy would take v's memory once more
        self.buffer: torch.Tensor | None = None
        """Room for a weight of this layer's dtype; layers take turns."""

    def shifted(self, step: float) -> contextlib.AbstractContextManager[None]:
        """Inside the block the layer computes with parameters + step · tangent."""

        def forward(inputs: torch.Tensor) -> torch.Tensor:
            assert self.buffer is not None
            weight, bias = self.module.weight, getattr(self.module, "bias", None)
            moved = torch.add(
                weight, self.tangent["weight"], alpha=step, out=self.buffer[: weight.numel()].view(weight.shape)
            )
            if bias is not None:
                bias = bias + step * self.tangent["bias"].to(bias.dtype)
            return nn.functional.linear(inputs, moved if isinstance(self.module, nn.Linear) else moved.T, bias)

        return replace_forward(self.module, forward)

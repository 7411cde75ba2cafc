"""Exact own-loss scores of a model whose weights are not all in one place.

Along the line θ + εv a linear layer computes y = Wx + ε Vx, so its tangent at ε = 0 is ẏ = Wẋ + Vx. Each layer is given
that rule instead of other parameters, and its weight is read only while the layer runs: where accelerate brings weights
in from memory or disk for that moment, they are there. `own_loss_scores` replaces parameters instead, which such
weights do not survive.
"""

import contextlib
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad

from ifguide.influence.batches import Batch
from ifguide.influence.losses import SplitModel
from ifguide.models.layers import as_parameters, replace_forward


class LineDerivative:
    """Scores batches by the derivative of the losses along v at θ.

    Args:
        model: loaded with `eager` attention, the implementation that has a forward-mode derivative; may be split
            already.
        modules: the tracked layers by name.
        direction: v, (O, I) a layer, each on the device where the layer computes.
    """

    def __init__(self, model: nn.Module, modules: dict[str, nn.Module], direction: dict[str, torch.Tensor]):
        self._split = SplitModel.of(model)
        self._tangents = {module: as_parameters(module, direction[name]) for name, module in modules.items()}

    @torch.no_grad()
    def scores(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """(scores, losses), each (B, T-1), 0 where nothing counts."""
        # plain dual numbers: weights that accelerate brings in meanwhile cannot take part in torch.func's
        with forward_ad.dual_level(), contextlib.ExitStack() as stack:
            one = torch.ones((), device=batch.input_ids.device)
            epsilon = forward_ad.make_dual(torch.zeros_like(one), one)
            for module, tangent in self._tangents.items():
                stack.enter_context(replace_forward(module, _on_line(module, tangent, epsilon)))
            losses, scores = forward_ad.unpack_dual(self._split(batch))
        return torch.zeros_like(losses) if scores is None else scores, losses


def _on_line(module: nn.Module, tangent: dict[str, torch.Tensor], epsilon: torch.Tensor):
    """A forward function of the layer with parameters θ + εv."""
    turned = not isinstance(module, nn.Linear)  # Conv1D holds its weight the other way round
    layer: Any = module  # nn.Module's types do not know that its weight and bias are tensors

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        weight, bias = layer.weight, getattr(layer, "bias", None)
        moved = tangent["weight"].to(weight.dtype)
        shift = None if bias is None else tangent["bias"].to(bias.dtype)
        return _Line.apply(inputs, epsilon, weight.T if turned else weight, bias, moved.T if turned else moved, shift)

    return forward


class _Line(torch.autograd.Function):
    """y = Wx + b at ε = 0, with the tangent ẏ = Wẋ + ε̇ (Vx + c)."""

    @staticmethod
    def forward(ctx, inputs, epsilon, weight, bias, moved, shift):
        ctx.parts = inputs.detach(), weight, moved, shift
        return nn.functional.linear(inputs, weight, bias)

    @staticmethod
    def jvp(ctx, inputs_tangent, epsilon_tangent, *_):
        inputs, weight, moved, shift = ctx.parts
        own = nn.functional.linear(inputs, moved, shift)
        return own if inputs_tangent is None else own.add_(nn.functional.linear(inputs_tangent, weight))

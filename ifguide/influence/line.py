"""Exact own-loss scores by forward-mode differentiation.

Along the line θ + εv a linear layer computes y = Wx + ε Vx, so its tangent at ε = 0 is ẏ = Wẋ + Vx. Each layer is given
that rule instead of other parameters, and its weight is read only while the layer runs: a weight that accelerate brings
in from memory or disk for that moment is there.
"""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from ifguide.errors import ConfigError
from ifguide.influence.batches import Batch
from ifguide.influence.losses import SplitModel
from ifguide.models.layers import Layers, Matrices, bias_of, replace_forward, split_matrix, weight_of


def own_loss_scores(model: nn.Module, modules: Layers, direction: Matrices, batch: Batch) -> tuple[Tensor, Tensor]:
    """The derivative of each token's loss along v at θ: (scores, losses), each (B, T-1), 0 where nothing counts.

    The model is loaded with `eager` attention, the implementation that has a forward-mode derivative. A ConfigError if
    another part of the model has none.
    """
    # plain dual numbers: weights that accelerate brings in meanwhile cannot take part in torch.func's
    with torch.no_grad(), forward_ad.dual_level():
        one = torch.ones((), device=batch.input_ids.device)
        epsilon = forward_ad.make_dual(torch.zeros_like(one), one)
        with replace_forward({module: _on_line(module, direction[name], epsilon) for name, module in modules.items()}):
            try:
                losses, scores = forward_ad.unpack_dual(SplitModel.of(model)(batch))
            except RuntimeError as error:  # or NotImplementedError, which is one
                if " AD" not in (reason := str(error).partition("\n")[0]):
                    raise
                remedy = 'scores need none with scores.derivative = "auto"'
                raise ConfigError(f"this model has no forward-mode derivative ({reason}); {remedy}") from error
    return torch.zeros_like(losses) if scores is None else scores, losses


def _on_line(module: nn.Module, matrix: Tensor, epsilon: Tensor):
    """A forward function of the layer with parameters θ + εv."""
    tangent, bias_tangent = split_matrix(module, matrix)

    def forward(inputs: Tensor) -> Tensor:
        weight, bias = weight_of(module), bias_of(module)
        shift = None if bias is None or bias_tangent is None else bias_tangent.to(bias.dtype)
        return _Line.apply(inputs, epsilon, weight, bias, tangent.to(weight.dtype), shift)

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

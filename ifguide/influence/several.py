"""Scores along several directions in one pass over a batch.

`position`: a backward pass gives each layer's inputs and output gradients, which no direction enters. Each direction only
multiplies them once more, so n directions cost one training-like pass and n products instead of n of both.

`own_loss`: on the plane θ + Σ_k ε_k v_k a linear layer computes y = Wx + Σ_k ε_k V_k x. Forward-mode differentiation at ε = 0 runs
the model itself once and carries n tangents beside it: 1 + 2n products a layer, where n separate passes take 3n. Central
differences have no common part at all, and take 2n.

K directions, B sequences of T tokens.
"""

import contextlib

import torch
from torch import nn

from ifguide.influence.attribution import report_at_predicted
from ifguide.influence.batches import Batch
from ifguide.influence.layers import as_parameters, gradients_flow, replace_forward, watch
from ifguide.influence.losses import SplitModel, backpropagate

Direction = dict[str, torch.Tensor]


def position_scores_several(
    model: nn.Module, modules: dict[str, nn.Module], directions: list[Direction], batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Position scores along each direction by one forward and one backward pass.

    Args:
        model: any attention implementation; may be split already.
        modules: the tracked layers by name.
        directions: K times v, (O, I) a layer.
        batch: on the model's device.

    Returns:
        Scores (K, B, T-1), each as `attribution.position_scores` gives them, and losses (B, T-1).
    """
    first = next(iter(directions[0].values()))
    totals = torch.zeros(len(directions), *batch.input_ids.shape, dtype=first.dtype, device=batch.input_ids.device)

    def add(name: str, a: torch.Tensor, g: torch.Tensor) -> None:
        for total, direction in zip(totals, directions, strict=True):
            v = direction[name]
            total.add_(((a.to(v.dtype) @ v.T) * g.to(v.dtype)).sum(dim=-1).to(total.device))

    split = SplitModel.of(model)
    with watch(modules, on_gradient=add), gradients_flow(split.model):
        losses = backpropagate(split, batch)
    counted = batch.targets != -100
    return torch.stack([report_at_predicted(total[:, :-1], counted) for total in totals]), losses


class PlaneDerivatives:
    """Exact own-loss scores along each of several directions, the model itself run once.

    Nothing is read of a layer's weight but while the layer runs, so layers that accelerate keeps elsewhere until then will do.

    Args:
        model: loaded with `eager` attention, the implementation that has a forward-mode derivative; may be split already.
        modules: the tracked layers by name.
        directions: K times v, (O, I) a layer.
    """

    def __init__(self, model: nn.Module, modules: dict[str, nn.Module], directions: list[Direction]):
        self._split, self._n = SplitModel.of(model), len(directions)
        self._layers = {
            module: [as_parameters(module, direction[name]) for direction in directions]
            for name, module in modules.items()
        }

    @torch.no_grad()
    def scores(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (K, B, T-1) and losses (B, T-1), 0 where nothing counts."""
        origin = torch.zeros(self._n, device=batch.input_ids.device)

        def losses(epsilon: torch.Tensor) -> torch.Tensor:
            with contextlib.ExitStack() as stack:
                for module, tangents in self._layers.items():
                    stack.enter_context(replace_forward(module, _on_plane(module, tangents, epsilon)))
                return self._split(batch)

        def along(axis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.func.jvp(losses, (origin,), (axis,))

        axes = torch.eye(self._n, device=origin.device)
        if self._n == 1:
            values, scores = along(axes[0])
            return scores.unsqueeze(0), values
        values, scores = torch.func.vmap(along, out_dims=(None, 0))(axes)
        return scores, values


def _on_plane(module: nn.Module, tangents: list[dict[str, torch.Tensor]], epsilon: torch.Tensor):
    """A forward function of the layer with parameters θ + Σ_k ε_k v_k."""

    def run(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return nn.functional.linear(inputs, weight if isinstance(module, nn.Linear) else weight.T, bias)

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        weight, bias = module.weight, getattr(module, "bias", None)
        total = run(inputs, weight, bias)
        for k, tangent in enumerate(tangents):
            shift = tangent.get("bias")
            moved = run(
                inputs,
                tangent["weight"].to(weight.device, weight.dtype),
                None if shift is None else shift.to(weight.device, weight.dtype),
            )
            total = total + epsilon[k].to(total.device, total.dtype) * moved
        return total

    return forward

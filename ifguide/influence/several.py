"""Position scores along several directions in one pass over a batch.

A backward pass gives each layer's inputs and output gradients, which no direction enters. Each direction only multiplies them
once more, so n directions cost one pass forward and backward and n products, instead of n of both. Own-loss scores share too
little for that: carrying n tangents beside one model takes 1 + 2n products a layer where n passes take 3n, and was slower;
central differences, faster than either, have no common part (`benchmarks/several.py` has what was tried).

K directions, B sequences of T tokens.
"""

import torch
from torch import nn

from ifguide.influence.attribution import report_at_predicted
from ifguide.influence.batches import Batch
from ifguide.influence.layers import gradients_flow, watch
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

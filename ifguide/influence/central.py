"""Own-loss scores by central differences: (ℓ(θ+εv) - ℓ(θ-εv)) / 2ε, two forward passes and no derivative.

Much faster than forward-mode differentiation, and less exact: float32 hidden states are rounded, and the step is
finite. So the step is chosen on a sample against the exact derivative (`ifguide.influence.derivative`), and the
agreement is part of the result.

The model's weights are never changed. Each layer makes its shifted weight when it is called, in one buffer that all
layers share, so the cost in memory is v and the largest layer, and nothing drifts however many batches are scored.
"""

import torch
from torch import nn

from ifguide.influence.batches import Batch
from ifguide.influence.losses import SplitModel
from ifguide.models.layers import bias_of, device_of, oriented, replace_forward, split_matrix, weight_of


class CentralDifference:
    """Scores batches with a model at θ+εv and at θ-εv.

    Args:
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
        self._directions = {module: direction[name] for name, module in modules.items()}
        sizes: dict[tuple, int] = {}
        for module in self._directions:
            key = _buffer_key(module)
            sizes[key] = max(sizes.get(key, 0), weight_of(module).numel())
        self._buffers = {key: torch.empty(size, device=key[0], dtype=key[1]) for key, size in sizes.items()}

    @torch.no_grad()
    def scores(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """(scores, losses), each (B, T-1), 0 where nothing counts; the loss is ℓ(θ) but for a term in ε²."""
        if not self._split.streams:
            plus, minus = self._at(batch, self.epsilon, self._split), self._at(batch, -self.epsilon, self._split)
            return (plus - minus) / (2 * self.epsilon), (plus + minus) / 2
        plus, minus = self._at(batch, self.epsilon, self._hidden), self._at(batch, -self.epsilon, self._hidden)
        return difference_scores(self._split, plus, minus, self.epsilon, batch, self._products)

    def _at(self, batch: Batch, step: float, function):
        forwards = {
            module: _shifted(module, matrix, step, self._buffers[_buffer_key(module)])
            for module, matrix in self._directions.items()
        }
        with replace_forward(forwards):
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


def _buffer_key(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Layers of one device and dtype take turns with one buffer."""
    return device_of(module), weight_of(module).dtype


def _shifted(module: nn.Module, matrix: torch.Tensor, step: float, buffer: torch.Tensor):
    """A forward function of the layer with parameters θ + step · v, its weight made in the buffer at every call."""
    tangent, bias_tangent = split_matrix(module, matrix)  # views: a copy would take v's memory once more

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        weight, bias = weight_of(module), bias_of(module)
        room = oriented(module, buffer[: weight.numel()].view(oriented(module, weight).shape))
        moved = torch.add(weight, tangent, alpha=step, out=room)
        if bias is not None and bias_tangent is not None:
            bias = bias + step * bias_tangent.to(bias.dtype)
        return nn.functional.linear(inputs, moved, bias)

    return forward

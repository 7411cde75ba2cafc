"""Own-loss scores by central differences: (ℓ(θ+εv) - ℓ(θ-εv)) / 2ε, by forward passes and no derivative.

Much faster than forward-mode differentiation, and less exact: float32 hidden states are rounded, and the step is
finite. So the step is chosen on a sample (`ifguide.influence.derivative`), and how well it agrees with the exact
derivative, or with half the step, is part of the result.

The model's weights are never changed, so nothing drifts however many batches are scored.

Which experts a router chooses has no derivative, and a difference over a change of experts would be far too large. So
both branches take the experts that θ chooses, each with the shares that its own logits give: the scores are the
derivative, for experts and routers alike, up to a choice that changes at θ itself.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ifguide.influence.batches import Batch
from ifguide.influence.losses import SplitModel
from ifguide.models.layers import (
    Layers,
    Matrices,
    bias_of,
    device_of,
    find_linear,
    find_routers,
    hold_routes,
    oriented,
    replace_forward,
    split_matrix,
    weight_of,
)


class CentralDifference:
    """Scores batches with a model at θ+εv and at θ-εv, one pass each.

    Each layer makes its shifted weight when it is called, in one buffer that all layers share, so the cost in memory is
    v and the largest layer.

    Args:
        direction: v; bfloat16 will do: it rounds v, not θ+εv.
        epsilon: the step.
        products: dtype in which the output embedding multiplies the difference of the hidden states; None: the model's.
            A difference is multiplied after it is taken, so rounding it to bfloat16 costs digits of the score, not the
            score.
    """

    def __init__(self, model: nn.Module, modules: Layers, direction: Matrices, epsilon: float, products: Any = None):
        self.epsilon, self._products = epsilon, products
        self._split = SplitModel.of(model)
        self._routers = find_routers(self._split.model)
        self._directions = {module: direction[name] for name, module in modules.items()}
        self._buffers = _make_buffers(self._directions)

    @torch.no_grad()
    def scores(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """(scores, losses), each (B, T-1), 0 where nothing counts; the loss is ℓ(θ) but for a term in ε²."""
        function = self._hidden if self._split.streams else self._split
        with self._routes_of(batch) if self._routers else contextlib.nullcontext():
            plus, minus = self._at(batch, self.epsilon, function), self._at(batch, -self.epsilon, function)
        if not self._split.streams:
            return (plus - minus) / (2 * self.epsilon), (plus + minus) / 2
        return difference_scores(self._split, plus, minus, self.epsilon, batch, self._products)

    def _routes_of(self, batch: Batch):
        """A context in which the batch takes the experts that θ chooses, in up to two passes."""
        routes: list[torch.Tensor] = []

        def note(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
            routes.append(chosen)
            return chosen

        with hold_routes(self._routers, note):
            self._hidden(batch)
        again = iter(2 * routes)
        return hold_routes(self._routers, lambda values, chosen: next(again))

    def _at(self, batch: Batch, step: float, function):
        with shifted(self._directions, step, self._buffers):
            return function(batch)

    def _hidden(self, batch: Batch) -> torch.Tensor:
        hidden = self._split.hidden(batch.input_ids, batch.attention_mask)
        return hidden[:, :-1][batch.counted]  # (n, H)


def difference_scores(
    split: SplitModel, plus: torch.Tensor, minus: torch.Tensor, epsilon: float, batch: Batch, products: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states (n, H) of the counted positions at θ+εv and θ-εv -> (scores, losses), each (B, T-1)."""
    counted = batch.counted
    losses, slopes = split.slopes((plus + minus) / 2, (plus - minus) / (2 * epsilon), batch.targets[counted], products)
    empty = losses.new_zeros(batch.targets.shape)
    return empty.masked_scatter(counted, slopes), empty.masked_scatter(counted, losses)


def _make_buffers(modules: Iterable[nn.Module]) -> dict[tuple, torch.Tensor]:
    """Room for the largest weight of each device and dtype."""
    sizes: Counter[tuple] = Counter()
    for module in modules:
        sizes |= Counter({_buffer_key(module): weight_of(module).numel()})  # the larger of both
    return {key: torch.empty(size, device=key[0], dtype=key[1]) for key, size in sizes.items()}


@contextlib.contextmanager
def shifted(
    directions: Mapping[nn.Module, torch.Tensor], step: float, buffers: dict[tuple, torch.Tensor] | None = None
) -> Iterator[None]:
    """Inside the block each layer computes with its weights moved by `step` times its direction (O, I); the weights
    themselves are untouched."""
    room = buffers or _make_buffers(directions)
    with replace_forward({m: _shifted(m, v, step, room[_buffer_key(m)]) for m, v in directions.items()}):
        yield


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


class PairedDifference:
    """Scores batches with both branches in one pass, and what is common to them multiplied once.

    Branches x₊ and x₋ at θ+εv and θ-εv are carried as a batch of two halves. A linear layer takes their middle m and
    half difference d:

        y± = (W m + b) ± (W d + ε (V m + c))

    which leaves out ε V d, a term that both branches share. W m is one product in the model's precision instead of two.
    The products in the brackets after ± are made after the difference is taken, so rounding their factors to bfloat16
    costs about three digits of a score and not the score; and what rounding does to W m it does to both branches alike,
    where it cancels. Attention, norms and activations see the two halves as any batch, in the model's precision. Where
    bfloat16 products are several times faster than float32 ones this approaches the time of a single forward pass.

    Args:
        model: any attention implementation. Only models whose head `streams`.
        epsilon: the step.
        products: dtype in which differences are multiplied.
    """

    def __init__(
        self, model: nn.Module, modules: Layers, direction: Matrices, epsilon: float, products: Any = torch.bfloat16
    ):
        self.epsilon, self._products = epsilon, products
        self._split = SplitModel.of(model)
        directions = {module: direction[name] for name, module in modules.items()}
        head = self._split.model.get_output_embeddings()
        layers = [module for module in find_linear(self._split.model).values() if module is not head]
        self._routers = find_routers(self._split.model)
        self._layers = [_PairedLayer(module, directions.get(module), epsilon, products) for module in layers]

    @torch.no_grad()
    def scores(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """As `CentralDifference.scores`."""
        twice = [torch.cat([part, part]) for part in (batch.input_ids, batch.attention_mask)]
        forwards = {layer.module: layer for layer in self._layers}
        with replace_forward(forwards), hold_routes(self._routers, _choose_together):
            hidden = self._split.hidden(*twice)[:, :-1]  # (2B, T-1, H)
        counted = batch.counted
        plus, minus = (half[counted] for half in hidden.chunk(2))
        return difference_scores(self._split, plus, minus, self.epsilon, batch, self._products)


def _choose_together(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The experts (2N, k) for both halves of a batch: those that the middle of their values (2N, E) chooses, which is
    what θ gives but for a term in ε²."""
    return values.view(2, -1, values.shape[-1]).mean(0).topk(chosen.shape[-1])[1].repeat(2, 1)


class _PairedLayer:
    """A linear layer that takes both branches, one after the other in the batch."""

    def __init__(self, module: nn.Module, matrix: torch.Tensor | None, epsilon: float, products: torch.dtype):
        self.module, self.epsilon, self.products = module, epsilon, products
        self.weight_tangent = self.bias_tangent = None
        if matrix is not None:
            weight, self.bias_tangent = split_matrix(module, matrix)
            self.weight_tangent = weight.to(device_of(module), products).contiguous()

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        plus, minus = inputs.chunk(2)
        middle, half = (plus + minus).mul_(0.5), (plus - minus).mul_(0.5).to(self.products)
        weight, bias = weight_of(self.module), bias_of(self.module)
        with _rounded_products(inputs.device):
            common = nn.functional.linear(middle, weight, bias)
        own = nn.functional.linear(half, weight.to(self.products)).to(common.dtype)
        if self.weight_tangent is not None:
            moved = nn.functional.linear(middle.to(self.products), self.weight_tangent).to(common.dtype)
            if self.bias_tangent is not None:
                moved += self.bias_tangent.to(moved)
            own.add_(moved, alpha=self.epsilon)
        return torch.cat([common + own, common - own])


@contextlib.contextmanager
def _rounded_products(device: torch.device):
    """Let a GPU multiply in tf32 what both branches share; elsewhere nothing changes."""
    if device.type != "cuda":
        yield
        return
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, True
    try:
        yield
    finally:
        matmul.allow_tf32 = before

"""A sequence's gradient in a few numbers, whose products are influence.

In the eigenbasis of EK-FAC the influence of a sequence with the gradient g on what has the gradient h is a sum over
coordinates i of both, gᵀ(F + dI)⁻¹h = Σ gᵢhᵢ / (λᵢ + d). So φ(g) = g / √(λ + d) makes it a plain product, and as λ is
the mean of g², φᵢ² is λᵢ / (λᵢ + d) on average. Kept are the K coordinates of all layers where that is largest: of all
choices of K they hold most of the sequences' squared length. With all of them the product is exact.

K is the sum of what is kept of each layer: k coordinates, made of R output and S input eigenvectors.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ifguide.influence.batches import Batch
from ifguide.influence.direction import expert_means
from ifguide.influence.ekfac import LayerFactors, accumulation_dtype
from ifguide.influence.losses import SplitModel, backpropagate, slices
from ifguide.models.layers import Layers, Matrices, device_of, watch

_AT_ONCE = 1 << 24
"""Values of one layer's products that are held at once: 64 MB in float32."""


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """The coordinates that are kept of a layer's gradients."""

    input_vectors: torch.Tensor
    """(I, S), eigenvectors in columns."""
    output_vectors: torch.Tensor
    """(O, R), eigenvectors in columns."""
    rows: torch.Tensor
    """int64 (k,): the output eigenvector of each coordinate, in `output_vectors`."""
    columns: torch.Tensor
    """int64 (k,): likewise its input eigenvector."""
    roots: torch.Tensor
    """(k,): √(λ + d)."""

    def to(self, device: torch.device, dtype: torch.dtype) -> "Coordinates":
        """The same on a device, in a precision."""
        parts = vars(self).items()
        return Coordinates(
            **{name: part.to(device=device, dtype=dtype if part.is_floating_point() else None) for name, part in parts}
        )

    def of_outer(self, inputs: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        """φ (S, k) of sequences, from a layer's inputs (S, W, I) and the gradients of its outputs (S, W, O)."""
        a, g = inputs @ self.input_vectors, (gradients @ self.output_vectors).transpose(1, 2)
        at_once = max(1, _AT_ONCE // (a.shape[-1] * g.shape[1]))
        products = [torch.bmm(g[part], a[part])[:, self.rows, self.columns] for part in slices(len(a), at_once)]
        return torch.cat(products) / self.roots

    def of_direction(self, direction: torch.Tensor) -> torch.Tensor:
        """(k,) of a direction v = (F + dI)⁻¹h (O, I): φ(h)."""
        return (self.output_vectors.T @ direction @ self.input_vectors)[self.rows, self.columns] * self.roots


def choose_coordinates(
    factors: Mapping[str, LayerFactors], n: int, damping: float, unit: str = "mean-eigenvalue"
) -> dict[str, Coordinates]:
    """The n coordinates, or all if there are fewer, by layer; layers without any are left out. `damping` and `unit` are
    as for `differential_direction`. Two layers' factors are in memory at once."""
    means, shifts, best = expert_means(factors), {}, {}
    for name, layer in factors.items():
        values, scale = layer.eigenvalues, 1.0 if unit == "absolute" else means.get(name, float(layer.mean))
        shifts[name] = damping * scale
        best[name] = (values / (values + shifts[name])).flatten().topk(min(n, values.numel()))
    shares = torch.cat([shares.cpu() for shares, _ in best.values()])
    least = shares.topk(min(n, len(shares))).values[-1]
    kept, left = {}, n
    for name, (own, places) in best.items():
        places = places[(own >= least).to(places.device)][:left].sort().values
        left -= len(places)
        if len(places):
            kept[name] = _coordinates(factors[name], places, shifts[name])
    return kept


def _coordinates(factors: LayerFactors, places: torch.Tensor, shift: float) -> Coordinates:
    """Those at some places (k,) of the flat eigenvalues."""
    outputs, rows = (places // factors.eigenvalues.shape[1]).unique(return_inverse=True)
    inputs, columns = (places % factors.eigenvalues.shape[1]).unique(return_inverse=True)
    return Coordinates(
        input_vectors=factors.input_vectors[:, inputs],
        output_vectors=factors.output_vectors[:, outputs],
        rows=rows,
        columns=columns,
        roots=(factors.eigenvalues.flatten()[places] + shift).sqrt(),
    )


def compress_direction(direction: Matrices, kept: Mapping[str, Coordinates]) -> np.ndarray:
    """φ (K,) of what the direction v = (F + dI)⁻¹h is of. Its product with a sequence's φ is how much likelier training
    on the sequence makes what v lowers."""
    pairs = [(direction[name], one) for name, one in kept.items()]
    return torch.cat([one.to(v.device, v.dtype).of_direction(v).cpu() for v, one in pairs]).numpy()


def compress_documents(
    model: nn.Module,
    modules: Layers,
    kept: Mapping[str, Coordinates],
    batches: Iterable[Batch],
    offsets: np.ndarray,
    report: Callable[[int], None] | None = None,
) -> np.ndarray:
    """φ of documents, (D, K) in float32 or better: of the sum of the losses of their tokens that count. `batches` have
    every sequence of the documents, document d owns the corpus tokens `offsets[d]` to `offsets[d + 1]`, int64 (D+1,),
    and `report` is called with the tokens done."""
    split, device, dtype = SplitModel.of(model), device_of(model), accumulation_dtype(model)
    edges = np.cumsum([0, *(len(one.rows) for one in kept.values())])
    places = {name: slice(*edges[number : number + 2]) for number, name in enumerate(kept)}
    kept = {name: one.to(device_of(modules[name]), dtype) for name, one in kept.items()}
    result, done = torch.zeros(len(offsets) - 1, int(edges[-1]), dtype=dtype), 0

    def add(name: str, a: torch.Tensor, g: torch.Tensor, at: torch.Tensor) -> None:
        values = kept[name].of_outer(a.to(dtype), g.to(dtype)).cpu()
        result[:, places[name]].index_add_(0, owners[at[:, 0].cpu() // width], values)

    with watch(split.model, {name: modules[name] for name in kept}, on_gradient=add):
        for batch in batches:
            last, width = batch.target_index.max(1).values.numpy(), batch.input_ids.shape[1]
            # last is -1 where nothing counts, and no gradient is
            owners = torch.from_numpy(np.searchsorted(offsets, last, side="right") - 1).clamp(min=0)
            backpropagate(split, batch.to(device))
            done += batch.n_tokens
            if report:
                report(done)
    return result.numpy()

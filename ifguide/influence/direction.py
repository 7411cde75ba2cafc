"""Toxic and safe queries -> one direction v in parameter space, v = (F + dI)⁻¹ (ḡ_toxic - ḡ_safe).

Source: IF-Guide, section 3 (differential influence); the weighting of a query's tokens is an option here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import nn

from ifguide.data.tokenizing import Encoded
from ifguide.errors import ConfigError, NumericalError
from ifguide.influence.batches import Batch, make_batches, query_sequences
from ifguide.influence.ekfac import LayerFactors, accumulation_dtype
from ifguide.influence.losses import SplitModel, backpropagate, cross_entropy, margin
from ifguide.models.layers import Layers, Matrices, device_of, layer_group, layer_shape, watch
from ifguide.runtime.distributed import ALONE, Processes

OBJECTIVES = {"loss": cross_entropy, "margin": margin}


def zero_matrices(model: nn.Module, modules: Layers) -> Matrices:
    """Zeros, in float32 or better, on each layer's device."""
    dtype = accumulation_dtype(model)
    return {name: torch.zeros(layer_shape(m), dtype=dtype, device=device_of(m)) for name, m in modules.items()}


def backpropagate_queries(split: SplitModel, batch: Batch, weighting: str, objective: str) -> None:
    """Send the gradients of a batch of queries back, each the mean (`token-mean`) or the sum (`token-sum`) over its
    counted tokens of the objective, a name of `OBJECTIVES`."""
    counted = batch.counted.to(accumulation_dtype(split))  # (B, T-1)
    weights = counted / counted.sum(dim=1, keepdim=True) if weighting == "token-mean" else None
    backpropagate(split, batch, weights=weights, objective=OBJECTIVES[objective])


def sum_gradients(
    split: SplitModel, modules: Layers, batches: Iterable[Batch], send: Callable[[Batch], None]
) -> Matrices:
    """The gradients that `send` sends back through the layers, batch after batch, summed: (O, I) a layer, in float32 or
    better."""
    total, dtype = zero_matrices(split.model, modules), accumulation_dtype(split)

    def add(name: str, a: torch.Tensor, g: torch.Tensor, places: torch.Tensor) -> None:
        total[name].addmm_(g.flatten(0, 1).to(dtype).T, a.flatten(0, 1).to(dtype))

    with watch(split.model, modules, on_gradient=add):
        for batch in batches:
            send(batch)
    return total


def query_gradient(
    model: nn.Module,
    modules: Layers,
    queries: Encoded,
    *,
    weighting: str = "token-mean",
    objective: str = "loss",
    tokens_per_batch: int = 4096,
    report: Callable[[int, int], None] | None = None,
    processes: Processes = ALONE,
) -> Matrices:
    """Mean gradient ḡ over queries, in float32 or better. A query counts as the mean (`token-mean`) or the sum
    (`token-sum`) over its completion tokens of the objective: `loss` is -log p of a token, `margin` is -log(p / (1 -
    p)). A forward pass has `tokens_per_batch` padded tokens. A ConfigError: no queries, or one without a
    completion token; a NumericalError: the gradient is not finite."""
    if not queries:
        raise ConfigError("a direction needs at least one query in each set, got none")
    device, sequences = device_of(model), query_sequences(queries)
    split, count = SplitModel.of(model), processes.count(report, len(queries))

    def send(batch: Batch) -> None:
        batch = batch.to(device)
        backpropagate_queries(split, batch, weighting, objective)
        count.add(len(batch.sequence))

    share = (processes.rank, processes.world_size)
    total = sum_gradients(split, modules, make_batches(sequences, tokens_per_batch, share=share), send)
    count.wait()
    processes.sum(total.values())
    for name, gradient in total.items():
        if not torch.isfinite(gradient).all():
            remedy = "run the model in float32 (model.dtype)"
            raise NumericalError(f"layer {name}: the query gradient is not finite; {remedy}")
        gradient.div_(len(queries))
    return total


def differential_direction(
    toxic: Matrices,
    safe: Matrices | None,
    factors: Mapping[str, LayerFactors] | None,
    damping: float,
    unit: str = "mean-eigenvalue",
) -> Matrices:
    """The direction v of all layers: the mean gradients `toxic` less `safe`, in the inverse of the curvature that
    `factors` describe, with `damping` counted in `unit`; see `direction_by_layer`."""
    return dict(direction_by_layer(toxic, safe, factors, damping, unit, expert_means(factors or {})))


def direction_by_layer(
    toxic: Matrices,
    safe: Matrices | None,
    factors: Mapping[str, LayerFactors] | None,
    damping: float,
    unit: str,
    means: Mapping[str, float],
) -> Iterator[tuple[str, torch.Tensor]]:
    """The direction v, each layer's name and part in turn: moving the model's parameters along -v makes toxic
    completions likelier. `toxic` and `safe` are mean gradients of the queries; without safe ones this is standard,
    non-differential influence. Without `factors`, of EK-FAC by layer, the curvature is the identity, for ablation;
    `damping` and `unit` are as for `LayerFactors.precondition`. A layer's factors are read when its turn comes.

    Of experts the mean eigenvalue is that of all experts of their layer together, as `means` from `expert_means` has
    it: otherwise an expert that few tokens reach would be damped by next to nothing and dominate the direction.
    """
    for name, gradient in toxic.items():
        difference = gradient - safe[name] if safe is not None else gradient
        if factors is None:
            v = difference.clone()
        else:
            shared = unit == "mean-eigenvalue" and name in means
            damped = (damping * means[name], "absolute") if shared else (damping, unit)
            v = factors[name].to(difference.device).precondition(difference, *damped)
        if not torch.isfinite(v).all():
            remedy = "its curvature is zero, so check the corpus or raise direction.damping"
            raise NumericalError(f"layer {name}: the preconditioned direction is not finite; {remedy}")
        yield name, v


def expert_means(factors: Mapping[str, LayerFactors]) -> dict[str, float]:
    """For each expert among the layers the mean eigenvalue over all experts of its layer."""
    own = {name: float(factors[name].mean) for name in factors if layer_group(name) != name}
    layers: dict[str, list[float]] = {}
    for name, mean in own.items():
        layers.setdefault(layer_group(name), []).append(mean)
    return {name: sum(together) / len(together) for name in own for together in [layers[layer_group(name)]]}

"""Which queries pull a document: its score, split into one part a query.

A document's own-loss score is vᵀg with g = ∇Σℓ over its tokens and v = P(ḡ_toxic - ḡ_safe), where P = (F + dI)⁻¹ is
symmetric. So the score is the sum over queries of ± g_qᵀPg / n, plus for the n toxic ones, minus for the n safe ones:
each summand is that query's contribution. Shapes: Q queries, D documents; gradients are (O, I) a layer.
"""

from collections.abc import Callable
from collections.abc import Sequence as Listing
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ifguide.influence.batches import Sequence, make_batches
from ifguide.influence.direction import differential_direction, query_gradient
from ifguide.influence.ekfac import LayerFactors, accumulation_dtype
from ifguide.influence.line import own_loss_scores
from ifguide.influence.losses import SplitModel
from ifguide.models.layers import device_of, layer_shape

Gradient = dict[str, torch.Tensor]
Report = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Curvature:
    """P, the damped inverse curvature."""

    factors: dict[str, LayerFactors] | None
    """EK-FAC factors; None is the identity."""
    damping: float = 10.0
    """Multiple of each layer's mean eigenvalue."""

    def apply(self, gradient: Gradient) -> Gradient:
        """Pg."""
        return differential_direction(gradient, None, self.factors, self.damping)


def dot(a: Gradient, b: Gradient) -> float:
    """Inner product over all layers, in float64."""
    return sum(float((a[name].double() * b[name].double()).sum()) for name in a)


def document_gradient(
    model: nn.Module, modules: dict[str, nn.Module], sequences: Listing[Sequence], **options
) -> Gradient:
    """∇Σℓ over the tokens whose index is not negative, (O, I) a layer; zeros when there are none.

    Args:
        sequences: the document's chunks.
        options: for `query_gradient`, such as tokens_per_batch.
    """
    pairs = [(s.token_ids, s.index >= 0) for s in sequences if (s.index[1:] >= 0).any()]
    if not pairs:
        dtype = accumulation_dtype(model)
        return {name: torch.zeros(layer_shape(m), dtype=dtype, device=device_of(m)) for name, m in modules.items()}
    mean = query_gradient(model, modules, pairs, weighting="token-sum", objective="loss", **options)
    return {name: value * len(pairs) for name, value in mean.items()}


def contributions(
    model: nn.Module,
    modules: dict[str, nn.Module],
    queries: dict[str, list[tuple[np.ndarray, np.ndarray]]],
    document: Listing[Sequence],
    curvature: Curvature,
    *,
    weighting: str = "token-mean",
    objective: str = "loss",
    tokens_per_batch: int = 4096,
) -> dict[str, np.ndarray]:
    """Every query's contribution to a document's score.

    g_qᵀ(Pg) is the derivative of the query's loss along Pg, so one forward-mode pass over all queries gives them all;
    no query's gradient is formed. A margin objective has no such pass here, and goes query by query.

    Args:
        model: a checkpoint loaded with `eager` attention.
        queries: `toxic` and, for a differential direction, `safe`, as from `encode_queries`.
        document: its chunks, with an index of -1 on tokens that do not count.
        curvature: P.
        weighting, objective: as the direction was made.

    Returns:
        kind -> float64 (Q,). Summed over both kinds they are the document's own-loss score.
    """
    pulled = curvature.apply(document_gradient(model, modules, document, tokens_per_batch=tokens_per_batch))
    found, split = {}, SplitModel.of(model)
    for kind, encoded in queries.items():
        if objective == "loss":
            sums, counts = np.zeros(len(encoded)), np.ones(len(encoded))
            listed = [Sequence(np.asarray(ids), np.where(mask, 0, -1)) for ids, mask in encoded]
            for batch in make_batches(listed, tokens_per_batch):
                batch = batch.to(next(model.parameters()).device)
                scores, _ = own_loss_scores(split, modules, pulled, batch)
                rows = batch.sequence.cpu().numpy()
                sums[rows] = scores.double().sum(dim=1).cpu().numpy()
                counts[rows] = (batch.targets != -100).sum(dim=1).cpu().numpy()
            values = sums / counts if weighting == "token-mean" else sums
        else:
            values = np.array(
                [
                    dot(query_gradient(model, modules, [q], weighting=weighting, objective=objective), pulled)
                    for q in encoded
                ]
            )
        found[kind] = (1.0 if kind == "toxic" else -1.0) * values / len(encoded)
    return found


def similarities(
    model: nn.Module,
    modules: dict[str, nn.Module],
    document: Listing[Sequence],
    others: Listing[Listing[Sequence]],
    curvature: Curvature,
    report: Report | None = None,
) -> np.ndarray:
    """How alike other documents' influence is to one's, float64 (D,): gᵀPg' over the lengths of both in the same
    metric, -1 to 1."""
    here = curvature.apply(gradient := document_gradient(model, modules, document))
    length = dot(here, gradient)
    found = np.zeros(len(others))
    for number, other in enumerate(others):
        there = document_gradient(model, modules, other)
        scale = length * dot(curvature.apply(there), there)
        found[number] = dot(here, there) / scale**0.5 if scale > 0 else 0.0
        if report:
            report(number + 1, len(others))
    return found


def compare_queries(
    model: nn.Module,
    modules: dict[str, nn.Module],
    queries: dict[str, list[tuple[np.ndarray, np.ndarray]]],
    curvature: Curvature,
    documents: Listing[Listing[Sequence]] = (),
    *,
    weighting: str = "token-mean",
    objective: str = "loss",
    report: Report | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the direction v would be without each query, and every query's contribution to some documents' scores.

    One gradient a query and a document. The documents' preconditioned gradients are held at once: a copy of the tracked
    layers each.

    Returns:
        cosines: kind -> float64 (Q, 2): the cosine of the query's own preconditioned gradient with v (with a minus for
            safe ones, so
        that positive always means "along the direction"), and the cosine of v with the direction without the query (1:
        it changes nothing; NaN for the only query of a set).
        contributions: kind -> float64 (Q, D), as from `contributions`.
    """
    options: dict = {"weighting": weighting, "objective": objective}
    done, total = 0, len(documents) + sum(map(len, queries.values()))

    def count() -> None:
        nonlocal done
        done += 1
        if report:
            report(done, total)

    held: dict[str, list[torch.Tensor]] = {name: [] for name in modules}
    for document in documents:
        for name, value in curvature.apply(document_gradient(model, modules, document)).items():
            held[name].append(value.flatten())
        count()
    stacked = {name: torch.stack(values) for name, values in held.items() if values}  # (D, O * I) a layer
    pulled = {
        kind: curvature.apply(query_gradient(model, modules, encoded, **options)) for kind, encoded in queries.items()
    }
    v = pulled["toxic"]
    if "safe" in pulled:
        v = {name: value - pulled["safe"][name] for name, value in v.items()}
    cosines, shares, norm = {}, {}, dot(v, v)
    for kind, encoded in queries.items():
        sign, n = (1.0 if kind == "toxic" else -1.0), len(encoded)
        rows, parts = np.full((n, 2), np.nan), np.zeros((n, len(documents)))
        for number, query in enumerate(encoded):
            gradient = query_gradient(model, modules, [query], **options)
            own = curvature.apply(gradient)
            rows[number, 0] = sign * dot(own, v) / (dot(own, own) * norm) ** 0.5
            if n > 1:  # without it the set's mean is (n ḡ - g) / (n - 1)
                without = {name: v[name] + sign * (pulled[kind][name] - own[name]) / (n - 1) for name in v}
                rows[number, 1] = dot(without, v) / (dot(without, without) * norm) ** 0.5
            for name, values in stacked.items():
                parts[number] += sign / n * (values @ gradient[name].flatten()).double().cpu().numpy()
            count()
        cosines[kind], shares[kind] = rows, parts
    return cosines, shares

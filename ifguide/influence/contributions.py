"""Which queries pull a document: its score, split into one part a query.

A document's own-loss score is vᵀg with g = ∇Σℓ over its tokens and v = P(ḡ_toxic - ḡ_safe), where P = (F + dI)⁻¹ is
symmetric. So the score is the sum over queries of ± g_qᵀPg / n, plus for the n toxic ones, minus for the n safe ones:
each summand is that query's contribution. Shapes: Q queries, D documents; gradients are (O, I) a layer.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Listing
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ifguide.data.tokenizing import Encoded
from ifguide.influence.batches import Sequence, make_batches
from ifguide.influence.direction import differential_direction, query_gradient, zero_matrices
from ifguide.influence.ekfac import LayerFactors, Report
from ifguide.influence.line import own_loss_scores
from ifguide.influence.losses import SplitModel
from ifguide.models.layers import Layers, Matrices
from ifguide.runtime.distributed import ALONE

Document = Listing[Sequence]
"""A document's chunks; tokens that do not count have an index of -1."""


@dataclass(frozen=True, kw_only=True)
class Curvature:
    """P, the damped inverse curvature."""

    factors: Mapping[str, LayerFactors] | None
    """EK-FAC factors; None is the identity."""
    damping: float = 10.0
    unit: str = "mean-eigenvalue"
    """Multiple of each layer's mean eigenvalue."""

    def apply(self, gradient: Matrices) -> Matrices:
        """Pg."""
        return differential_direction(gradient, None, self.factors, self.damping, self.unit)


def dot(a: Matrices, b: Matrices) -> float:
    """Inner product over all layers, in float64."""
    return sum(float((a[name].double() * b[name].double()).sum()) for name in a)


def document_gradient(model: nn.Module, modules: Layers, document: Document, **options) -> Matrices:
    """∇Σℓ over the tokens that count, zeros when there are none; `options` are for `query_gradient`."""
    pairs = [(s.token_ids, s.index >= 0) for s in document if (s.index[1:] >= 0).any()]
    if not pairs:
        return zero_matrices(model, modules)
    mean = query_gradient(model, modules, pairs, weighting="token-sum", objective="loss", **options)
    return {name: value * len(pairs) for name, value in mean.items()}


def contributions(
    model: nn.Module,
    modules: Layers,
    queries: dict[str, Encoded],
    document: Document,
    curvature: Curvature,
    *,
    weighting: str = "token-mean",
    objective: str = "loss",
    tokens_per_batch: int = 4096,
) -> dict[str, np.ndarray]:
    """Every query's contribution to a document's score: kind -> float64 (Q,). Summed over both kinds they are the
    document's own-loss score. The model has `eager` attention; `queries` are `toxic` and, for a differential direction,
    `safe`, as from `encode_queries`; `weighting` and `objective` are as the direction was made.

    g_qᵀ(Pg) is the derivative of the query's loss along Pg, so one forward-mode pass over all queries gives them all;
    no query's gradient is formed. A margin objective has no such pass here, and goes query by query.
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
            options: dict = {"weighting": weighting, "objective": objective}
            values = np.array([dot(query_gradient(model, modules, [q], **options), pulled) for q in encoded])
        found[kind] = (1.0 if kind == "toxic" else -1.0) * values / len(encoded)
    return found


def similarities(
    model: nn.Module,
    modules: Layers,
    documents: Listing[Document],
    others: Listing[Document],
    curvature: Curvature,
    *,
    held: int = 1,
    report: Report | None = None,
) -> np.ndarray:
    """How alike documents' influence is to that of others, float64 (documents, others): gᵀPg' over the lengths of both
    in the same metric, -1 to 1. Gradients of the others are computed once for `held` documents."""
    found = np.zeros((len(documents), len(others)))
    for first in range(0, len(documents), held):
        gradients = [document_gradient(model, modules, document) for document in documents[first : first + held]]
        pulled = [curvature.apply(gradient) for gradient in gradients]
        lengths = [dot(*pair) for pair in zip(pulled, gradients, strict=True)]
        for number, other in enumerate(others):
            there = document_gradient(model, modules, other)
            length = dot(curvature.apply(there), there)
            for row, here in enumerate(pulled):
                scale = lengths[row] * length
                found[first + row, number] = dot(here, there) / scale**0.5 if scale > 0 else 0.0
            if report:
                done = first * len(others) + (number + 1) * len(pulled)
                report(done, len(documents) * len(others))
    return found


def compare_queries(
    model: nn.Module,
    modules: Layers,
    queries: dict[str, Encoded],
    curvature: Curvature,
    documents: Listing[Document] = (),
    *,
    weighting: str = "token-mean",
    objective: str = "loss",
    report: Report | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the direction v would be without each query, and every query's contribution to some documents' scores.

    One gradient a query and a document; the documents' are held at once, a copy of the tracked layers each.

    Returns:
        cosines: kind -> float64 (Q, 2): the cosine of the query's own preconditioned gradient with v (with a minus for
            safe ones, so that positive always means "along the direction"), and the cosine of v with the direction
            without the query (1: it changes nothing; NaN for the only query of a set).
        contributions: kind -> float64 (Q, D), as from `contributions`.
    """
    options: dict = {"weighting": weighting, "objective": objective}
    done = ALONE.count(report, len(documents) + sum(map(len, queries.values())))
    held: dict[str, list[torch.Tensor]] = {name: [] for name in modules}
    for document in documents:
        for name, value in curvature.apply(document_gradient(model, modules, document)).items():
            held[name].append(value.flatten())
        done.add(1)
    stacked = {name: torch.stack(values) for name, values in held.items() if values}  # (D, O * I) a layer
    pulled = {kind: curvature.apply(query_gradient(model, modules, q, **options)) for kind, q in queries.items()}
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
            done.add(1)
        cosines[kind], shares[kind] = rows, parts
    return cosines, shares

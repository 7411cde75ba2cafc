"""Which queries pull a document: its score, split into one part a query.

A document's own-loss score is vᵀg with g = ∇Σℓ over its tokens and v = P(ḡ_toxic - ḡ_safe), where P = (F + dI)⁻¹ is
symmetric. So the score is the sum over queries of ± g_qᵀPg / n, plus for the n toxic ones, minus for the n safe ones:
each summand is that query's contribution. Shapes: Q queries, D documents; gradients are (O, I) a layer.
"""

import functools
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Listing
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ifguide.data.tokenizing import Encoded
from ifguide.influence.batches import Sequence, make_batches, query_sequences
from ifguide.influence.direction import backpropagate_queries, differential_direction, query_gradient, zero_matrices
from ifguide.influence.ekfac import LayerFactors, Report
from ifguide.influence.losses import SplitModel, slices
from ifguide.models.layers import Layers, Matrices, device_of, watch
from ifguide.runtime.distributed import ALONE

Document = Listing[Sequence]
"""A document's chunks; tokens that do not count have an index of -1."""
_AT_ONCE = 1 << 25
"""Values of queries' gradients of one layer that are held at once: 128 MB in float32."""


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


def document_gradient(model: nn.Module, modules: Layers, document: Document) -> Matrices:
    """∇Σℓ over the tokens that count, zeros when there are none."""
    pairs = [(s.token_ids, s.index >= 0) for s in document if (s.index[1:] >= 0).any()]
    if not pairs:
        return zero_matrices(model, modules)
    mean = query_gradient(model, modules, pairs, weighting="token-sum", objective="loss")
    return {name: value * len(pairs) for name, value in mean.items()}


def pull_documents(
    model: nn.Module, modules: Layers, documents: Listing[Document], curvature: Curvature
) -> tuple[Matrices, np.ndarray]:
    """How documents pull at a model's parameters: Pg of each, (D, O, I) a layer, held together; and gᵀPg, float64
    (D,)."""
    lengths, held = np.zeros(len(documents)), Matrices()
    for number, document in enumerate(documents):
        gradient = document_gradient(model, modules, document)
        for name, value in (own := curvature.apply(gradient)).items():
            held.setdefault(name, value.new_empty(len(documents), *value.shape))[number] = value
        lengths[number] = dot(own, gradient)
    return held, lengths


def contributions(
    model: nn.Module,
    modules: Layers,
    queries: dict[str, Encoded],
    pulled: Matrices,
    *,
    weighting: str = "token-mean",
    objective: str = "loss",
    tokens_per_batch: int = 4096,
) -> dict[str, np.ndarray]:
    """Every query's contribution to the scores of documents, `pulled` by `pull_documents`: kind -> float64 (D, Q).
    Summed over both kinds they are a document's own-loss score. `queries` are `toxic` and, for a differential
    direction, `safe`, as from `encode_queries`; `weighting` and `objective` are as the direction was made.

    A backward pass over the queries gives each layer's inputs and output gradients, of which a query's gradient is the
    product. It is formed layer by layer, some queries at a time, and meets all documents at once.
    """
    shares = {}
    for kind, encoded in queries.items():
        products = _products(model, modules, encoded, pulled, weighting, objective, tokens_per_batch)
        shares[kind] = (1.0 if kind == "toxic" else -1.0) * products.T / len(products)
    return shares


def _products(
    model, modules: Layers, encoded: Encoded, pulled: Matrices, weighting: str, objective: str, tokens_per_batch: int
) -> np.ndarray:
    """Inner products of each query's gradient with what each document pulls, float64 (Q, D)."""
    split, sums = SplitModel.of(model), np.zeros((len(encoded), len(next(iter(pulled.values())))))

    def add(name: str, a: torch.Tensor, g: torch.Tensor, places: torch.Tensor) -> None:
        theirs = pulled[name].flatten(1)  # (D, O * I)
        rows = batch.sequence[places[:, 0].to(batch.sequence.device) // batch.input_ids.shape[1]].cpu().numpy()
        for some in slices(len(g), max(1, _AT_ONCE // theirs.shape[1])):
            own = torch.bmm(g[some].to(theirs.dtype).transpose(1, 2), a[some].to(theirs.dtype))  # (S, O, I)
            sums[rows[some]] += (own.flatten(1) @ theirs.T).double().cpu().numpy()

    with watch(split.model, modules, on_gradient=add):
        for batch in make_batches(query_sequences(encoded), tokens_per_batch):
            batch = batch.to(device_of(model))
            backpropagate_queries(split, batch, weighting, objective)
    return sums


def similarities(
    model: nn.Module,
    modules: Layers,
    pulled: Matrices,
    lengths: np.ndarray,
    others: Listing[Document],
    curvature: Curvature,
    other_lengths: dict[int, float],
) -> Iterator[np.ndarray]:
    """How alike the influence of documents, from `pull_documents`, is to that of each of the others in turn, float64
    (D,): gᵀPg' over the lengths of both in the same metric, -1 to 1. `other_lengths` takes g'ᵀPg' of the others
    by number; what it has is not computed again, which saves most of the work for further documents."""
    for number, other in enumerate(others):
        there = document_gradient(model, modules, other)
        products = sum((pulled[name].flatten(1) @ there[name].flatten()).double().cpu().numpy() for name in there)
        if number not in other_lengths:
            other_lengths[number] = dot(curvature.apply(there), there)
        scale = np.sqrt(np.maximum(lengths * other_lengths[number], 0))
        yield np.divide(products, scale, out=np.zeros(len(lengths)), where=scale > 0)


def compare_queries(
    model: nn.Module,
    modules: Layers,
    queries: dict[str, Encoded],
    curvature: Curvature,
    *,
    weighting: str = "token-mean",
    objective: str = "loss",
    report: Report | None = None,
) -> dict[str, np.ndarray]:
    """What the direction v would be without each query; one gradient a query.

    Returns:
        kind -> float64 (Q, 2): the cosine of the query's own preconditioned gradient with v (with a minus for safe
        ones, so that positive always means "along the direction"), and the cosine of v with the direction without the
        query (1: it changes nothing; NaN for the only query of a set).
    """
    gradient = functools.partial(query_gradient, model, modules, weighting=weighting, objective=objective)
    done = ALONE.count(report, sum(map(len, queries.values())))
    pulled = {kind: curvature.apply(gradient(encoded)) for kind, encoded in queries.items()}
    v = pulled["toxic"]
    if "safe" in pulled:
        v = {name: value - pulled["safe"][name] for name, value in v.items()}
    cosines, norm = {}, dot(v, v)
    for kind, encoded in queries.items():
        sign, n = (1.0 if kind == "toxic" else -1.0), len(encoded)
        rows = np.full((n, 2), np.nan)
        for number, query in enumerate(encoded):
            own = curvature.apply(gradient([query]))
            rows[number, 0] = sign * dot(own, v) / (dot(own, own) * norm) ** 0.5
            if n > 1:  # without it the set's mean is (n ḡ - g) / (n - 1)
                without = {name: v[name] + sign * (pulled[kind][name] - own[name]) / (n - 1) for name in v}
                rows[number, 1] = dot(without, v) / (dot(without, without) * norm) ** 0.5
            done.add(1)
        cosines[kind] = rows
    return cosines

"""EK-FAC: the Fisher matrix of each linear layer, approximated in the eigenbasis of two small covariances.

Source: George et al. 2018 (arXiv 1806.03884); Grosse et al. 2023 (arXiv 2308.03296), section 2.2.2.

For a layer with inputs a and output gradients g, A = E[a aᵀ] and G = E[g gᵀ] over tokens, with eigenvectors Q_A and Q_G.
The Fisher is approximated by (Q_G ⊗ Q_A) diag(λ) (Q_G ⊗ Q_A)ᵀ, where λ (O, I) is the second moment over sequences of the
sequence's gradient in that basis. Sums run in float32 whatever the model's dtype (float64 for a float64 model).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from ifguide.errors import NumericalError
from ifguide.influence.batches import Batch
from ifguide.influence.layers import gradients_flow, layer_shape, watch
from ifguide.influence.losses import SplitModel, backpropagate

_GRADIENT_ELEMENTS = 1 << 25
"""Values of per-sequence gradients held at once."""

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class LayerFactors:
    """The approximate Fisher matrix of one layer."""

    input_vectors: torch.Tensor
    """Q_A (I, I), eigenvectors in columns."""
    output_vectors: torch.Tensor
    """Q_G (O, O), eigenvectors in columns."""
    eigenvalues: torch.Tensor
    """λ (O, I), at least 0."""

    def precondition(self, gradient: torch.Tensor, damping: float) -> torch.Tensor:
        """(F + dI)⁻¹ times a gradient (O, I), with d = `damping` times the mean eigenvalue."""
        rotated = self.output_vectors.T @ gradient @ self.input_vectors
        absolute = damping * self.eigenvalues.mean()
        return self.output_vectors @ (rotated / (self.eigenvalues + absolute)) @ self.input_vectors.T


def fit_factors(
    model: nn.Module,
    modules: dict[str, nn.Module],
    batches: Callable[[], Iterable[Batch]],
    *,
    labels: str = "sampled",
    seed: int = 0,
    report: Report | None = None,
) -> dict[str, LayerFactors]:
    """Fit EK-FAC factors for every layer in two passes over the data.

    Args:
        model: a causal language model.
        modules: its layers by name.
        batches: makes the same batches each time it is called.
        labels: `sampled` (targets drawn from the model's own prediction: the Fisher) or `true` (the empirical Fisher).
        seed: seeds the draws; both passes see the same ones.
        report: called with (tokens done, tokens in all) over both passes.

    Raises:
        NumericalError: an activation or gradient is not finite.
    """
    total = 2 * sum(batch.n_tokens for batch in batches())
    progress = _Counter(report, total)
    inputs, outputs = _fit_covariances(model, modules, batches, labels, seed, progress)
    input_vectors = {name: eigenvectors(matrix, name) for name, matrix in inputs.items()}
    output_vectors = {name: eigenvectors(matrix, name) for name, matrix in outputs.items()}
    values = _fit_eigenvalues(model, modules, input_vectors, output_vectors, batches, labels, seed, progress)
    return {name: LayerFactors(input_vectors[name], output_vectors[name], values[name]) for name in modules}


class _Counter:
    def __init__(self, report: Report | None, total: int):
        self._report, self._total, self._done = report, total, 0

    def add(self, n: int) -> None:
        self._done += n
        if self._report:
            self._report(self._done, self._total)


def accumulation_dtype(model: nn.Module) -> torch.dtype:
    """float64 for float64 models, float32 for all others."""
    return torch.float64 if next(model.parameters()).dtype == torch.float64 else torch.float32


def fit_covariances(
    model: nn.Module,
    modules: dict[str, nn.Module],
    batches: Callable[[], Iterable[Batch]],
    *,
    labels: str = "sampled",
    seed: int = 0,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Per-token second moments A (I, I) and G (O, O) of every layer, over all real tokens."""
    return _fit_covariances(model, modules, batches, labels, seed, _Counter(None, 0))


def _fit_covariances(model, modules, batches, labels, seed, progress):
    dtype, device = accumulation_dtype(model), next(model.parameters()).device
    inputs = {
        name: torch.zeros(layer_shape(m)[1], layer_shape(m)[1], dtype=dtype, device=device)
        for name, m in modules.items()
    }
    outputs = {
        name: torch.zeros(layer_shape(m)[0], layer_shape(m)[0], dtype=dtype, device=device)
        for name, m in modules.items()
    }
    n_tokens, mask = 0, None

    def add_input(name: str, a: torch.Tensor) -> None:
        rows = a[mask].to(dtype)  # (tokens, I)
        inputs[name].addmm_(rows.T, rows)

    def add_gradient(name: str, a: torch.Tensor, g: torch.Tensor) -> None:
        rows = g[mask].to(dtype)  # (tokens, O)
        outputs[name].addmm_(rows.T, rows)

    generator, split = torch.Generator(device=device).manual_seed(seed), SplitModel(model)
    with watch(modules, on_input=add_input, on_gradient=add_gradient), gradients_flow(model):
        for batch in batches():
            batch = batch.to(device)
            mask = batch.attention_mask.bool()
            n_tokens += batch.n_tokens
            backpropagate(split, batch, generator=generator if labels == "sampled" else None)
            progress.add(batch.n_tokens)
    scale = 1.0 / max(n_tokens, 1)
    return {k: m.mul_(scale) for k, m in inputs.items()}, {k: m.mul_(scale) for k, m in outputs.items()}


def _fit_eigenvalues(model, modules, input_vectors, output_vectors, batches, labels, seed, progress):
    dtype, device = accumulation_dtype(model), next(model.parameters()).device
    values = {name: torch.zeros(layer_shape(m), dtype=dtype, device=device) for name, m in modules.items()}
    n_sequences = 0

    def add(name: str, a: torch.Tensor, g: torch.Tensor) -> None:
        rotated_a = a.to(dtype) @ input_vectors[name]  # (B, T, I)
        rotated_g = g.to(dtype) @ output_vectors[name]  # (B, T, O)
        together = max(1, _GRADIENT_ELEMENTS // values[name].numel())  # sequences whose gradients fit in memory at once
        for some_a, some_g in zip(rotated_a.split(together), rotated_g.split(together), strict=True):
            values[name].add_((some_g.transpose(1, 2) @ some_a).square_().sum(dim=0))

    generator, split = torch.Generator(device=device).manual_seed(seed), SplitModel(model)
    with watch(modules, on_gradient=add), gradients_flow(model):
        for batch in batches():
            batch = batch.to(device)
            n_sequences += len(batch.sequence)
            backpropagate(split, batch, generator=generator if labels == "sampled" else None)
            progress.add(batch.n_tokens)
    return {name: matrix.div_(max(n_sequences, 1)) for name, matrix in values.items()}


def eigenvectors(matrix: torch.Tensor, name: str = "") -> torch.Tensor:
    """Eigenvectors (n, n) of a symmetric matrix in columns, found in float64.

    Raises:
        NumericalError: the matrix is not finite.
    """
    if not torch.isfinite(matrix).all():
        raise NumericalError(
            f"layer {name}: a covariance is not finite; run the model in float32 (model.dtype) or check its weights"
        )
    symmetric = (matrix.double() + matrix.double().T) / 2
    return torch.linalg.eigh(symmetric).eigenvectors.to(matrix.dtype)

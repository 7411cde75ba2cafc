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
from ifguide.influence.layers import find_shared_inputs, gradients_flow, layer_shape, watch
from ifguide.influence.losses import SplitModel, backpropagate

_GRADIENT_ELEMENTS = 1 << 22
"""Values of per-sequence gradients held at once."""
_BLOCKS = 8
"""A covariance is symmetric, so of this many strips of rows each is computed up to the diagonal only: 9/16 of the work."""
_LEAST_STRIP = 64
"""Rows of the narrowest strip worth a product of its own."""

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
    products: torch.dtype | None = None,
    report: Report | None = None,
) -> dict[str, LayerFactors]:
    """Fit EK-FAC factors for every layer in two passes over the data.

    Layers that read the same inputs (see `find_shared_inputs`) share one tensor `input_vectors`.

    Args:
        model: a causal language model.
        modules: its layers by name.
        batches: makes the same batches each time it is called.
        labels: `sampled` (targets drawn from the model's own prediction: the Fisher) or `true` (the empirical Fisher).
        seed: seeds the draws; both passes see the same ones.
        products: dtype in which activations and gradients are multiplied; sums over batches are float32 or better whatever
            it is. None: the dtype of the sums.
        report: called with (tokens done, tokens in all) over both passes.

    Raises:
        NumericalError: an activation or gradient is not finite.
    """
    total = 2 * sum(batch.n_tokens for batch in batches())
    fit = _Fit(model, modules, batches, labels, seed, products, _Counter(report, total))
    inputs, outputs = fit.covariances()
    input_vectors = {name: eigenvectors(matrix, name) for name, matrix in inputs.items()}
    output_vectors = {name: eigenvectors(matrix, name) for name, matrix in outputs.items()}
    values = fit.eigenvalues(input_vectors, output_vectors)
    return {name: LayerFactors(input_vectors[fit.shared[name]], output_vectors[name], values[name]) for name in modules}


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
    fit = _Fit(model, modules, batches, labels, seed, None, _Counter(None, 0))
    inputs, outputs = fit.covariances()
    return {name: inputs[fit.shared[name]] for name in modules}, outputs


class _Fit:
    """The two passes over the data, which see the same batches and the same labels."""

    def __init__(self, model, modules, batches, labels, seed, products, progress):
        self.split, self.modules, self.batches, self.progress = SplitModel.of(model), modules, batches, progress
        self.labels, self.seed = labels, seed
        self.dtype = accumulation_dtype(model)
        self.products = products or self.dtype
        self.shared = find_shared_inputs(self.split.model, modules)

    def _zeros(self, name: str, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.modules[name].weight.device)

    def _run(self, before_batch: Callable[[Batch], None]) -> None:
        device = next(self.split.parameters()).device
        generator = torch.Generator(device=device).manual_seed(self.seed)
        for batch in self.batches():
            batch = batch.to(device)
            before_batch(batch)
            backpropagate(self.split, batch, generator=generator if self.labels == "sampled" else None)
            self.progress.add(batch.n_tokens)

    def covariances(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """A of every layer that shares no earlier one's inputs, and G of every layer."""
        shapes = {name: layer_shape(module) for name, module in self.modules.items()}
        inputs = {name: self._zeros(name, shapes[name][1], shapes[name][1]) for name in set(self.shared.values())}
        outputs = {name: self._zeros(name, shape[0], shape[0]) for name, shape in shapes.items()}
        n_tokens, real = 0, None

        def count(batch: Batch) -> None:
            nonlocal n_tokens, real
            n_tokens += batch.n_tokens
            real = None if batch.attention_mask.all() else batch.attention_mask.bool()

        def add_input(name: str, a: torch.Tensor) -> None:
            if name in inputs:
                rows = a.flatten(0, 1) if real is None else a[real.to(a.device)]  # (tokens, I)
                _add_gram(inputs[name], rows.to(self.products))

        def add_gradient(name: str, a: torch.Tensor, g: torch.Tensor) -> None:
            _add_gram(outputs[name], g.flatten(0, 1).to(self.products))  # (tokens, O), 0 on padding

        with watch(self.modules, on_input=add_input, on_gradient=add_gradient), gradients_flow(self.split.model):
            self._run(count)
        scale = 1.0 / max(n_tokens, 1)
        for matrix in (*inputs.values(), *outputs.values()):
            _mirror(matrix).mul_(scale)
        return {name: inputs[name] for name in self.modules if name in inputs}, outputs

    def eigenvalues(self, input_vectors, output_vectors) -> dict[str, torch.Tensor]:
        """λ of every layer: the mean over sequences of the squared gradient in the eigenbasis."""
        values = {name: self._zeros(name, *layer_shape(module)) for name, module in self.modules.items()}
        input_vectors = {name: q.to(self.products) for name, q in input_vectors.items()}
        output_vectors = {name: q.to(self.products) for name, q in output_vectors.items()}
        n_sequences = 0

        def count(batch: Batch) -> None:
            nonlocal n_sequences
            n_sequences += len(batch.sequence)

        def add(name: str, a: torch.Tensor, g: torch.Tensor) -> None:
            a, g = a.to(self.products), g.to(self.products)
            on_inputs, on_outputs = input_vectors[self.shared[name]], output_vectors[name]
            tokens_first_a, tokens_first_g = _rotate_tokens(a.shape[1], on_inputs, on_outputs)
            if tokens_first_a:
                a = a @ on_inputs  # (B, T, I)
            if tokens_first_g:
                g = g @ on_outputs  # (B, T, O)
            together = max(1, _GRADIENT_ELEMENTS // values[name].numel())
            for some_a, some_g in zip(a.split(together), g.split(together), strict=True):
                gradients = some_g.transpose(1, 2) @ some_a  # (b, O, I)
                if not tokens_first_g:
                    gradients = on_outputs.T @ gradients
                if not tokens_first_a:
                    gradients = gradients @ on_inputs
                for gradient in gradients.to(self.dtype):
                    values[name].addcmul_(gradient, gradient)

        with watch(self.modules, on_gradient=add), gradients_flow(self.split.model):
            self._run(count)
        return {name: matrix.div_(max(n_sequences, 1)) for name, matrix in values.items()}


def _rotate_tokens(n_positions: int, on_inputs: torch.Tensor, on_outputs: torch.Tensor) -> tuple[bool, bool]:
    """Whether to rotate inputs and output gradients token by token, or the sequence's gradient afterwards: whatever multiplies less.

    Inputs take T·I·I a sequence token by token and O·I·I on the gradient, output gradients T·O·O and O·O·I.
    """
    return n_positions <= len(on_outputs), n_positions <= len(on_inputs)


def _add_gram(total: torch.Tensor, rows: torch.Tensor) -> None:
    """Add rowsᵀ rows to `total` up to the diagonal, strip by strip; `_mirror` fills in the rest once at the end."""
    n = rows.shape[1]
    strip = max(_LEAST_STRIP, -(-n // _BLOCKS))
    for start in range(0, n, strip):
        stop = min(start + strip, n)
        total[start:stop, :stop].add_(rows[:, start:stop].T @ rows[:, :stop])


def _mirror(matrix: torch.Tensor) -> torch.Tensor:
    """Copy what lies below the diagonal above it, in place."""
    lower = matrix.tril(-1)
    return matrix.tril_().add_(lower.T)


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

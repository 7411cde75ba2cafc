"""EK-FAC: the Fisher matrix of each linear layer, approximated in the eigenbasis of two small covariances.

Source: George et al. 2018 (arXiv 1806.03884); Grosse et al. 2023 (arXiv 2308.03296), section 2.2.2.

For a layer with inputs a and output gradients g, A = E[a aᵀ] and G = E[g gᵀ] over tokens, with eigenvectors Q_A and
Q_G. The Fisher is approximated by (Q_G ⊗ Q_A) diag(λ) (Q_G ⊗ Q_A)ᵀ, where λ (O, I) is the second moment over sequences
of the sequence's gradient in that basis. Sums run in float32, or in float64 for a float64 model.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ifguide.errors import NumericalError
from ifguide.influence.batches import Batch
from ifguide.influence.losses import SplitModel, backpropagate
from ifguide.models.layers import Layers, Matrices, device_of, find_shared_inputs, layer_shape, watch
from ifguide.runtime.distributed import ALONE, Processes

_GRADIENT_ELEMENTS = 1 << 22
"""Values of per-sequence gradients held at once."""
KEPT_BYTES = 1 << 30
"""Most memory for gradients of the last hidden states that the first pass leaves to the second. With a vocabulary of
50,000 the output embedding is more than half of a small model's work, and this saves its second turn."""
_BLOCKS = 4
"""A covariance is symmetric: of this many strips of rows each is computed up to the diagonal only, 5/8 of the work."""
_LEAST_STRIP = 128
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

    def to(self, where: torch.device | torch.dtype) -> "LayerFactors":
        """The same factors on a device, or in another precision."""
        return LayerFactors(*(part.to(where) for part in vars(self).values()))

    def precondition(self, gradient: torch.Tensor, damping: float, unit: str = "mean-eigenvalue") -> torch.Tensor:
        """(F + dI)⁻¹ times a gradient (O, I), with d = `damping` times the mean eigenvalue, or, for the unit
        `absolute`, d = `damping`. Factors stored in less than the gradient's precision are raised to it."""
        q_in, q_out, values = (part.to(gradient.dtype) for part in vars(self).values())
        d = damping if unit == "absolute" else damping * values.mean()
        return q_out @ ((q_out.T @ gradient @ q_in) / (values + d)) @ q_in.T


def fit_factors(
    model: nn.Module,
    modules: Layers,
    batches: Callable[[], Iterable[Batch]],
    *,
    labels: str = "sampled",
    seed: int = 0,
    products: torch.dtype | None = None,
    stored: torch.dtype | None = None,
    report: Report | None = None,
    report_eigenbases: Report | None = None,
    processes: Processes = ALONE,
) -> dict[str, LayerFactors]:
    """Fit EK-FAC factors for every layer in two passes over the data. Layers that read the same inputs (see
    `find_shared_inputs`) share one tensor `input_vectors`.

    Args:
        batches: makes the same batches each time it is called; with several processes only this one's share of them.
        labels: `sampled` (targets drawn from the model's own prediction: the Fisher) or `true` (the empirical Fisher).
        seed: seeds the draws, together with a batch's first sequence; so both passes see the same ones, and so does
            another number of processes.
        products: dtype in which the second pass, for the eigenvalues, multiplies activations and gradients; None: that
            of the sums, float32 or better. The covariances are never multiplied in less: their small eigenvectors would
            drown in the rounding of the large ones.
        stored: dtype that the sums and the eigenvectors are rounded to, and the factors have; None: that of the sums.
        report: called with (tokens done, tokens in all) over both passes.
        report_eigenbases: called with (eigenbases found, eigenbases in all) between the two.

    Raises:
        NumericalError: an activation or gradient is not finite.
    """
    (n_tokens,) = processes.sum_counts(sum(batch.n_tokens for batch in batches()))
    fit = Fit(model, modules, batches, labels, seed, products, report, 2 * n_tokens, processes)
    sums = [_round(matrices, stored) for matrices in fit.covariances()]
    found = _find_eigenvectors(tuple(sums), report_eigenbases, processes)
    input_vectors, output_vectors = (_round(vectors, stored) for vectors in found)
    values = fit.eigenvalues(input_vectors, output_vectors)
    factors = {name: (input_vectors[fit.shared[name]], output_vectors[name], values[name]) for name in modules}
    return {name: LayerFactors(*parts).to(stored or fit.dtype) for name, parts in factors.items()}


def _round(matrices: Matrices, stored: torch.dtype | None) -> Matrices:
    return {name: m.to(stored).to(m.dtype) for name, m in matrices.items()} if stored else matrices


def _find_eigenvectors(groups: tuple[Matrices, ...], report: Report | None, processes: Processes) -> list[Matrices]:
    """The eigenvectors of each matrix, the matrices divided over the processes by the work they are."""
    work = [(matrix, group, name) for group, matrices in enumerate(groups) for name, matrix in matrices.items()]
    work.sort(key=lambda entry: -len(entry[0]))  # stable, so all processes agree
    loads, owners = [0] * processes.world_size, []
    for matrix, _, _ in work:
        owners.append(loads.index(min(loads)))
        loads[owners[-1]] += len(matrix) ** 3
    count = processes.count(report, len(work))
    found: list[Matrices] = [{} for _ in groups]
    for (matrix, group, name), owner in zip(work, owners, strict=True):
        mine = owner == processes.rank
        found[group][name] = eigenvectors(matrix, name) if mine else torch.empty_like(matrix)
        count.add(int(mine))
    count.wait()
    for (_, group, name), owner in zip(work, owners, strict=True):
        found[group][name] = found[group][name].contiguous()
        processes.spread(found[group][name], owner)
    return found


def accumulation_dtype(model: nn.Module) -> torch.dtype:
    """float64 for float64 models, float32 for all others."""
    return torch.float64 if next(model.parameters()).dtype == torch.float64 else torch.float32


class Fit:
    """The two passes over the data, which see the same batches and the same labels."""

    def __init__(self, model, modules, batches, labels, seed, products, report, n_tokens, processes):
        self.split, self.modules, self.batches = SplitModel.of(model), modules, batches
        self.labels, self.seed, self.processes = labels, seed, processes
        self.count = processes.count(report, n_tokens)
        self.dtype = accumulation_dtype(model)
        self.products = products or self.dtype
        self.kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.room = KEPT_BYTES
        self.shared = find_shared_inputs(self.split.model, modules)

    def _zeros(self, name: str, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=device_of(self.modules[name]))

    def _run(self) -> list[int]:
        """One pass; how many tokens and sequences all processes saw in it."""
        n_tokens = n_sequences = 0
        device = device_of(self.split.model)
        generator = torch.Generator(device=device) if self.labels == "sampled" else None
        for number, batch in enumerate(self.batches()):
            if generator is not None:
                seeds = np.random.SeedSequence([self.seed, int(batch.sequence[0])])  # the same in every process, pass
                generator.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> 1))
            batch = batch.to(device)
            self.real = None if batch.attention_mask.all() else batch.attention_mask.bool()
            backpropagate(self.split, batch, generator=generator, recall=functools.partial(self._recall, number))
            n_tokens, n_sequences = n_tokens + batch.n_tokens, n_sequences + len(batch.sequence)
            self.count.add(batch.n_tokens)
        self.count.wait()
        return self.processes.sum_counts(n_tokens, n_sequences)

    def _recall(self, number: int, compute: Callable[[], tuple]) -> tuple[torch.Tensor, torch.Tensor]:
        """What the output embedding gives for a batch: kept in the first pass while there is room, for the second."""
        if number in self.kept:
            return self.kept.pop(number)
        found = compute()
        size = sum(part.nbytes for part in found)
        if size <= self.room:
            self.room -= size
            self.kept[number] = found
        return found

    def covariances(self) -> tuple[Matrices, Matrices]:
        """A of every layer that shares no earlier one's inputs, and G of every layer."""
        shapes = {name: layer_shape(module) for name, module in self.modules.items()}
        read = [name for name in self.modules if name in self.shared.values()]  # in the same order in every process
        inputs = {name: self._zeros(name, shapes[name][1], shapes[name][1]) for name in read}
        outputs = {name: self._zeros(name, shape[0], shape[0]) for name, shape in shapes.items()}

        def add_input(name: str, a: torch.Tensor, places: torch.Tensor) -> None:
            if name in inputs:
                rows = a.flatten(0, 1) if self.real is None else a[self.real.to(a.device).flatten()[places]]  # (n, I)
                _add_gram(inputs[name], rows.to(self.dtype))

        def add_gradient(name: str, a: torch.Tensor, g: torch.Tensor, places: torch.Tensor) -> None:
            _add_gram(outputs[name], g.flatten(0, 1).to(self.dtype))  # (tokens, O), 0 on padding

        with watch(self.split.model, self.modules, on_input=add_input, on_gradient=add_gradient):
            n_tokens, _ = self._run()
        self.processes.sum((*inputs.values(), *outputs.values()))
        scale = 1.0 / max(n_tokens, 1)
        for matrix in (*inputs.values(), *outputs.values()):
            lower = matrix.tril(-1)
            matrix.tril_().add_(lower.T).mul_(scale)
        return inputs, outputs

    def eigenvalues(self, input_vectors, output_vectors) -> Matrices:
        """λ of every layer: the mean over sequences of the squared gradient in the eigenbasis."""
        values = {name: self._zeros(name, *layer_shape(module)) for name, module in self.modules.items()}
        input_vectors = {name: q.to(self.products) for name, q in input_vectors.items()}
        output_vectors = {name: q.to(self.products) for name, q in output_vectors.items()}

        def add(name: str, a: torch.Tensor, g: torch.Tensor, places: torch.Tensor) -> None:
            a, g = a.to(self.products), g.to(self.products)
            on_inputs, on_outputs = input_vectors[self.shared[name]], output_vectors[name]
            # rotated token by token (T·I·I and T·O·O a sequence) or on the gradient (O·I·I and O·O·I): what is less
            tokens_first_a, tokens_first_g = a.shape[1] <= len(on_outputs), a.shape[1] <= len(on_inputs)
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

        with watch(self.split.model, self.modules, on_gradient=add):
            _, n_sequences = self._run()
        self.processes.sum(values.values())
        return {name: matrix.div_(max(n_sequences, 1)) for name, matrix in values.items()}


def _add_gram(total: torch.Tensor, rows: torch.Tensor) -> None:
    """Add rowsᵀ rows to `total` up to the diagonal, strip by strip; the rest is filled in once at the end."""
    n = rows.shape[1]
    strip = max(_LEAST_STRIP, -(-n // _BLOCKS))
    for start in range(0, n, strip):
        stop = min(start + strip, n)
        total[start:stop, :stop].add_(rows[:, start:stop].T @ rows[:, :stop])


def eigenvectors(matrix: torch.Tensor, name: str = "") -> torch.Tensor:
    """Eigenvectors (n, n) of a symmetric matrix in columns, found in float64. A NumericalError: the matrix is not
    finite."""
    if not torch.isfinite(matrix).all():
        remedy = "run the model in float32 (model.dtype) or check its weights"
        raise NumericalError(f"layer {name}: a covariance is not finite; {remedy}")
    symmetric = (matrix.double() + matrix.double().T) / 2
    return torch.linalg.eigh(symmetric).eigenvectors.to(matrix.dtype)

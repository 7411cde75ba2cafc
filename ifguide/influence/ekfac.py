"""EK-FAC: the Fisher matrix of each linear layer, approximated in the eigenbasis of two small covariances.

Source: George et al. 2018 (arXiv 1806.03884); Grosse et al. 2023 (arXiv 2308.03296), section 2.2.2.

For a layer with inputs a and output gradients g, A = E[a aᵀ] and G = E[g gᵀ] over tokens, with eigenvectors Q_A and
Q_G. The Fisher is approximated by (Q_G ⊗ Q_A) diag(λ) (Q_G ⊗ Q_A)ᵀ, where λ (O, I) is the second moment over sequences
of the sequence's gradient in that basis. Sums run in float32, or in float64 for a float64 model.

The layers are fitted in parts, each in two passes of its own, so that only one part's matrices are in memory: first its
covariances; then its eigenvectors, each in the place of its covariance, and λ. Each result is handed on as soon
as it is known.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ifguide.errors import NumericalError
from ifguide.influence.batches import Batch
from ifguide.influence.losses import SplitModel, backpropagate
from ifguide.models.layers import Layers, Matrices, device_of, find_shared_inputs, layer_shape, watch
from ifguide.runtime.distributed import ALONE, Processes, SharedCount

_GRADIENT_ELEMENTS = 1 << 22
"""Values of per-sequence gradients held at once."""
KEPT_BYTES = 1 << 30
"""Most memory for gradients of the last hidden states that the first pass leaves to the others. With a vocabulary of
50,000 the output embedding is more than half of a small model's work, and this saves its other turns."""
_BLOCKS = 4
"""A covariance is symmetric: of this many strips of rows each is computed up to the diagonal only, 5/8 of the work."""
_LEAST_STRIP = 128
"""Rows of the narrowest strip worth a product of its own."""
_ONE_BY_ONE = ("cpu",)
"""Devices where decomposing in batches gains nothing, and the last digits depend on a matrix's place in the batch."""

Report = Callable[[int, int], None]
Keep = Callable[[str, str, torch.Tensor], None]
"""Takes a part of a layer's factors, by the layer's name and the field of `LayerFactors`, as soon as it is known."""


@dataclass(frozen=True)
class LayerFactors:
    """The approximate Fisher matrix of one layer in R of its O output and S of its I input eigenvectors: all, or with a
    rank those of the largest eigenvalues."""

    input_vectors: torch.Tensor
    """Q_A (I, S), eigenvectors in columns."""
    output_vectors: torch.Tensor
    """Q_G (O, R), eigenvectors in columns."""
    eigenvalues: torch.Tensor
    """λ (R, S), at least 0."""
    rest: torch.Tensor | None = None
    """With a rank, (1,): the mean second moment in all directions outside the basis. There the Fisher is this times the
    identity, so its trace is that of the full one."""

    @property
    def mean(self) -> torch.Tensor:
        """The mean of all O·I eigenvalues."""
        values, rest = self.eigenvalues, self.rest
        all_of_them = len(self.output_vectors) * len(self.input_vectors)
        return values.mean() if rest is None else rest + (values - rest).sum() / all_of_them

    def to(self, where: torch.device | torch.dtype) -> "LayerFactors":
        """The same factors on a device, or in another precision."""
        return LayerFactors(**{name: part.to(where) for name, part in vars(self).items() if part is not None})

    def precondition(self, gradient: torch.Tensor, damping: float, unit: str = "mean-eigenvalue") -> torch.Tensor:
        """(F + dI)⁻¹ times a gradient (O, I), with d = `damping` times the mean eigenvalue, or, for the unit
        `absolute`, d = `damping`. Factors stored in less than the gradient's precision are raised to it."""
        raised = self.to(gradient.dtype)
        q_in, q_out, values, rest = vars(raised).values()
        d = damping if unit == "absolute" else damping * raised.mean
        rotated = q_out.T @ gradient @ q_in
        if rest is None:
            return q_out @ (rotated / (values + d)) @ q_in.T
        return gradient / (rest + d) + q_out @ (rotated / (values + d) - rotated / (rest + d)) @ q_in.T


def factor_shapes(modules: Layers, rank: int = 0) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shape of each field of each layer's factors, as `stream_factors` hands them on."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, module in modules.items():
        outputs, inputs = layer_shape(module)
        r, s = _kept(outputs, rank), _kept(inputs, rank)
        shapes[name] = {"input_vectors": (inputs, s), "output_vectors": (outputs, r), "eigenvalues": (r, s)}
        shapes[name] |= {"rest": (1,)} if rank else {}
    return shapes


def _kept(side: int, rank: int) -> int:
    return min(side, rank or side)


def fit_factors(model: nn.Module, modules: Layers, batches: Callable[[], Iterable[Batch]], **options):
    """EK-FAC factors of every layer in memory, by name; `batches` makes the same batches each time it is called, and
    `options` are those of `stream_factors`. Layers that read the same inputs (see `find_shared_inputs`) share one
    tensor `input_vectors`."""
    by_layer: dict[str, dict[str, torch.Tensor]] = {name: {} for name in modules}
    stream_factors(
        model, modules, batches, lambda name, field, matrix: by_layer[name].update({field: matrix}), **options
    )
    return {name: LayerFactors(**fields) for name, fields in by_layer.items()}


def stream_factors(
    model: nn.Module,
    modules: Layers,
    batches: Callable[[], Iterable[Batch]],
    keep: Keep,
    *,
    labels: str = "sampled",
    seed: int = 0,
    products: torch.dtype | None = None,
    stored: torch.dtype | None = None,
    rank: int = 0,
    parts: Sequence[Layers] = (),
    report: Report | None = None,
    report_eigenbases: Report | None = None,
    processes: Processes = ALONE,
) -> None:
    """Fit EK-FAC factors for every layer, part by part, each in two passes over the data.

    Args:
        batches: makes the same batches each time it is called; with several processes only this one's share of them.
        keep: is given every field of every layer's factors, in every process.
        labels: `sampled` (targets drawn from the model's own prediction: the Fisher) or `true` (the empirical Fisher).
        seed: seeds the draws, together with a batch's first sequence; so all passes see the same ones, and so does
            another number of processes or of parts.
        products: dtype in which the second pass, for the eigenvalues, multiplies activations and gradients; None: that
            of the sums, float32 or better. The covariances are never multiplied in less: their small eigenvectors would
            drown in the rounding of the large ones.
        stored: dtype that the sums and the eigenvectors are rounded to, and the factors have; None: that of the sums.
        rank: eigenvectors a side that are kept, those of the largest eigenvalues; 0: all.
        parts: the layers as `ifguide.influence.parts` divides them; empty: all at once.
        report: called with (tokens done, tokens in all) over all passes.
        report_eigenbases: called with (eigenbases found, eigenbases in all) after the first pass of each part.

    Raises:
        NumericalError: an activation or gradient is not finite.
    """
    parts = parts or (modules,)
    (n_tokens,) = processes.sum_counts(sum(batch.n_tokens for batch in batches()))
    fit = Fit(
        model,
        modules,
        batches,
        labels=labels,
        seed=seed,
        products=products,
        report=report,
        n_tokens=n_tokens,
        processes=processes,
        passes=2 * len(parts),
    )
    count = processes.count(report_eigenbases, sum(len({*fit.sharing(part).values()}) + len(part) for part in parts))
    for part in parts:
        _fit_part(fit, part, keep, rank, stored, count)


def _fit_part(fit: "Fit", part: Layers, keep: Keep, rank: int, stored: torch.dtype | None, count: SharedCount) -> None:
    """The two passes of a part; when this returns, nothing of it is held here."""
    dtype = stored or fit.dtype
    inputs, outputs = groups = fit.covariances(part)
    for matrices in groups:
        _round(matrices, stored)
    _find_eigenvectors(groups, rank, count, fit.processes)
    for matrices in groups:
        _round(matrices, stored)
    for name, first in fit.sharing(part).items():
        keep(name, "input_vectors", inputs[first].to(dtype))
        keep(name, "output_vectors", outputs[name].to(dtype))
    for name, (values, rest) in fit.eigenvalues(part, *groups, rank=rank).items():
        keep(name, "eigenvalues", values.to(dtype))
        if rest is not None:
            keep(name, "rest", rest.to(dtype))


def _round(matrices: Matrices, stored: torch.dtype | None) -> None:
    for name in matrices if stored else ():
        matrices[name] = matrices[name].to(stored).to(matrices[name].dtype)


def _find_eigenvectors(groups: tuple[Matrices, ...], rank: int, count: SharedCount, processes: Processes) -> None:
    """Put the eigenvectors of each matrix in its place, the matrices divided over the processes by the work they
    are."""
    work = [(len(matrices[name]), matrices, name) for matrices in groups for name in matrices]
    work.sort(key=lambda entry: -entry[0])  # stable, so all processes agree
    loads, owners = [0] * processes.world_size, []
    for side, _, _ in work:
        owners.append(loads.index(min(loads)))
        loads[owners[-1]] += side**3
    together: dict[tuple, list[tuple[Matrices, str]]] = {}
    for (side, matrices, name), owner in zip(work, owners, strict=True):
        if owner == processes.rank:
            together.setdefault((side, matrices[name].device), []).append((matrices, name))
        else:
            matrices[name] = matrices[name].new_empty(side, _kept(side, rank))
    for (side, device), group in together.items():
        at_once = 1 if device.type in _ONE_BY_ONE else (work[0][0] // side) ** 2  # in no more memory than the largest
        for start in range(0, len(group), at_once):
            some = group[start : start + at_once]
            bases = eigenvectors(torch.stack([matrices[name] for matrices, name in some]), [name for _, name in some])
            for (matrices, name), vectors in zip(some, bases, strict=True):
                matrices[name] = vectors[:, -_kept(side, rank) :].clone(memory_format=torch.contiguous_format)
            count.add(len(some))
    count.wait()
    for (_, matrices, name), owner in zip(work, owners, strict=True):
        processes.spread(matrices[name], owner)


def accumulation_dtype(model: nn.Module) -> torch.dtype:
    """float64 for float64 models, float32 for all others."""
    return torch.float64 if next(model.parameters()).dtype == torch.float64 else torch.float32


class Fit:
    """Passes over the data, which all see the same batches and the same labels. Arguments as for `stream_factors`, and
    how many `passes` there will be over how many tokens: after the last, nothing is remembered for another."""

    def __init__(
        self,
        model: nn.Module,
        modules: Layers,
        batches: Callable[[], Iterable[Batch]],
        *,
        labels: str = "sampled",
        seed: int = 0,
        products: torch.dtype | None = None,
        report: Report | None = None,
        n_tokens: int = 0,
        processes: Processes = ALONE,
        passes: int = 0,
    ):
        self.split, self.modules, self.batches = SplitModel.of(model), modules, batches
        self.labels, self.seed, self.processes = labels, seed, processes
        self.count = processes.count(report, passes * n_tokens)
        self.dtype = accumulation_dtype(model)
        self.products = products or self.dtype
        self.kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.room, self.passes = KEPT_BYTES, passes
        self.shared = find_shared_inputs(self.split.model, modules)

    def sharing(self, part: Layers) -> dict[str, str]:
        """For each layer of a part the first of the part that is given the same inputs."""
        first: dict[str, str] = {}
        return {name: first.setdefault(self.shared[name], name) for name in part}

    def _zeros(self, name: str, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=device_of(self.modules[name]))

    def _run(self) -> list[int]:
        """One pass; how many tokens and sequences all processes saw in it."""
        n_tokens = n_sequences = 0
        self.passes -= 1
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
        """What the output embedding gives for a batch: kept in the first pass while there is room, for the others."""
        if number in self.kept:
            return self.kept[number] if self.passes else self.kept.pop(number)
        computed = compute()
        size = sum(part.nbytes for part in computed)
        if size <= self.room:
            self.room -= size
            self.kept[number] = computed
        return computed

    def covariances(self, part: Layers) -> tuple[Matrices, Matrices]:
        """Of a part of the layers, A of each that shares no earlier one's inputs, and G of each."""
        shapes = {name: layer_shape(module) for name, module in part.items()}
        read = dict.fromkeys(self.sharing(part).values())  # in the same order in every process
        inputs = {name: self._zeros(name, shapes[name][1], shapes[name][1]) for name in read}
        outputs = {name: self._zeros(name, shape[0], shape[0]) for name, shape in shapes.items()}

        def add_input(name: str, a: torch.Tensor, places: torch.Tensor) -> None:
            if name in inputs:
                rows = a.flatten(0, 1) if self.real is None else a[self.real.to(a.device).flatten()[places]]  # (n, I)
                _add_gram(inputs[name], rows.to(self.dtype))

        def add_gradient(name: str, a: torch.Tensor, g: torch.Tensor, places: torch.Tensor) -> None:
            _add_gram(outputs[name], g.flatten(0, 1).to(self.dtype))  # (tokens, O), 0 on padding

        with watch(self.split.model, part, on_input=add_input, on_gradient=add_gradient):
            n_tokens, _ = self._run()
        self.processes.sum((*inputs.values(), *outputs.values()))
        scale = 1.0 / max(n_tokens, 1)
        for matrix in (*inputs.values(), *outputs.values()):
            lower = matrix.tril(-1)
            matrix.tril_().add_(lower.T).mul_(scale)
        return inputs, outputs

    def eigenvalues(self, part: Layers, input_vectors: Matrices, output_vectors: Matrices, rank: int = 0):
        """λ of every layer of a part, the mean over sequences of the squared gradient in the eigenbasis, and with a
        rank the mean outside it (None without). The vectors are turned into the dtype of the products in place."""
        shared, values, squares = self.sharing(part), {}, {}
        for matrices in (input_vectors, output_vectors):
            for name in matrices:
                matrices[name] = matrices[name].to(self.products)
        for name in part:
            values[name] = self._zeros(name, output_vectors[name].shape[1], input_vectors[shared[name]].shape[1])
            squares[name] = self._zeros(name, 1)

        def add(name: str, a: torch.Tensor, g: torch.Tensor, places: torch.Tensor) -> None:
            a, g = a.to(self.products), g.to(self.products)
            on_inputs, on_outputs = input_vectors[shared[name]], output_vectors[name]
            # rotated token by token (T·I·I and T·O·O a sequence) or on the gradient (O·I·I and O·O·I): what is less
            tokens_first_a = not rank and a.shape[1] <= len(on_outputs)
            tokens_first_g = not rank and a.shape[1] <= len(on_inputs)
            together = max(1, _GRADIENT_ELEMENTS // (len(on_outputs) * len(on_inputs)))
            if tokens_first_a:
                a = a @ on_inputs  # (B, T, I)
            if tokens_first_g:
                g = g @ on_outputs  # (B, T, O)
            for some_a, some_g in zip(a.split(together), g.split(together), strict=True):
                gradients = some_g.transpose(1, 2) @ some_a  # (b, O, I)
                if rank:
                    squares[name] += gradients.to(self.dtype).square().sum()
                if not tokens_first_g:
                    gradients = on_outputs.T @ gradients
                if not tokens_first_a:
                    gradients = gradients @ on_inputs
                for gradient in gradients.to(self.dtype):
                    values[name].addcmul_(gradient, gradient)

        with watch(self.split.model, part, on_gradient=add):
            _, n_sequences = self._run()
        self.processes.sum((*values.values(), *(squares.values() if rank else ())))
        fitted: dict[str, tuple[torch.Tensor, torch.Tensor | None]] = {}
        for name, matrix in values.items():
            total = squares[name].div_(max(n_sequences, 1))
            outside = max(1, len(output_vectors[name]) * len(input_vectors[shared[name]]) - matrix.numel())
            matrix.div_(max(n_sequences, 1))
            fitted[name] = matrix, (total - matrix.sum()).clamp_(min=0).div_(outside) if rank else None
        return fitted


def _add_gram(total: torch.Tensor, rows: torch.Tensor) -> None:
    """Add rowsᵀ rows to `total` up to the diagonal, strip by strip; the rest is filled in once at the end."""
    n = rows.shape[1]
    strip = max(_LEAST_STRIP, -(-n // _BLOCKS))
    for start in range(0, n, strip):
        stop = min(start + strip, n)
        total[start:stop, :stop].add_(rows[:, start:stop].T @ rows[:, :stop])


def eigenvectors(matrices: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
    """Eigenvectors (k, n, n) of the symmetric matrices (k, n, n) of k layers, in columns, by rising eigenvalue, found
    in float64. A NumericalError: a matrix is not finite."""
    for matrix, name in zip(matrices, names, strict=True):
        if not torch.isfinite(matrix).all():
            remedy = "run the model in float32 (model.dtype) or check its weights"
            raise NumericalError(f"layer {name}: a covariance is not finite; {remedy}")
    return torch.linalg.eigh(matrices.double()).eigenvectors.to(matrices.dtype)

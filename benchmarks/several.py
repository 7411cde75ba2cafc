"""Several directions in one pass against one pass each: what is shared, and what it gains.

    python -m benchmarks.several [--hidden 256 --layers 4 --vocab 8192]

Own loss: `jvp` and central differences once a direction, against one forward-mode pass that shares the model's own
values, and against forward differences, (ℓ(θ+εv) - ℓ(θ)) / ε, which share ℓ(θ) but err by a term in ε. Position: one
backward pass a direction against one for all.
"""

import argparse
import time

import numpy as np
import torch
from torch import nn

from benchmarks.engine import as_batches, make_documents, make_model, random_direction
from ifguide.influence.attribution import position_scores
from ifguide.influence.batches import Batch
from ifguide.influence.central import CentralDifference
from ifguide.influence.derivative import choose_derivative
from ifguide.influence.line import own_loss_scores
from ifguide.influence.losses import SplitModel
from ifguide.models.layers import bias_of, replace_forward, split_matrix, weight_of
from ifguide.models.loading import tracked_modules


class PlaneDerivatives:
    """Tried and dropped: exact own-loss scores along each of several directions, the model itself run once.

    On the plane θ + Σ_k ε_k v_k a linear layer computes y = Wx + Σ_k ε_k V_k x; all n tangents are carried beside one
    model.

    Args:
        model: loaded with `eager` attention, the implementation that has a forward-mode derivative; may be split
            already.
        modules: the tracked layers by name.
        directions: K times v, (O, I) a layer.
    """

    def __init__(self, model: nn.Module, modules: dict[str, nn.Module], directions: list[dict[str, torch.Tensor]]):
        self._split, self._n = SplitModel.of(model), len(directions)
        self._layers = {
            module: [split_matrix(module, direction[name]) for direction in directions]
            for name, module in modules.items()
        }

    @torch.no_grad()
    def scores(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (K, B, T-1) and losses (B, T-1), 0 where nothing counts."""
        origin = torch.zeros(self._n, device=batch.input_ids.device)
        axes = torch.eye(self._n, device=origin.device)

        def along(axis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.func.jvp(lambda epsilon: self._losses(batch, epsilon), (origin,), (axis,))

        values, scores = torch.func.vmap(along, out_dims=(None, 0))(axes)
        return scores, values

    def _losses(self, batch: Batch, epsilon: torch.Tensor) -> torch.Tensor:
        with replace_forward({module: _on_plane(module, v, epsilon) for module, v in self._layers.items()}):
            return self._split(batch)


def _on_plane(module: nn.Module, tangents: list[tuple], epsilon: torch.Tensor):
    """A forward function of the layer with parameters θ + Σ_k ε_k v_k."""

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        weight, bias = weight_of(module), bias_of(module)
        total = nn.functional.linear(inputs, weight, bias)
        for k, (tangent, shift) in enumerate(tangents):
            moved = nn.functional.linear(inputs, tangent.to(weight), None if shift is None else shift.to(weight))
            total = total + epsilon[k].to(total.device, total.dtype) * moved
        return total

    return forward


def main() -> None:
    """Print tokens a second and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (
        ("hidden", 256),
        ("layers", 4),
        ("vocab", 8192),
        ("length", 128),
        ("batch", 8),
        ("documents", 32),
        ("threads", 2),
        ("repeats", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    fused, eager = make_model(options, "sdpa"), make_model(options, "eager")
    split, eager_split = SplitModel(fused), SplitModel(eager)
    modules, eager_modules = tracked_modules(fused), tracked_modules(eager)
    batches = as_batches(options, make_documents(options, options.documents))
    n_tokens = options.documents * options.length

    def rate(run) -> float:
        run(batches[0])
        times = []
        for _ in range(options.repeats):
            started = time.perf_counter()
            for batch in batches:
                run(batch)
            times.append(time.perf_counter() - started)
        return n_tokens / float(np.median(times))

    print(
        f"{sum(p.numel() for p in fused.parameters()):,} parameters, documents of {options.length} tokens,"
        f" {options.threads} threads\n"
    )
    print(
        "| directions | own loss: jvp each | one shared pass | gain | central each | shared pass to central | position"
        " each | one shared pass | gain |"
    )
    print("|---|" + "---|" * 8)
    for n in (1, 2, 4, 8):
        directions = [random_direction(modules) for _ in range(n)]
        central = [CentralDifference(split, modules, v, 1e-3) for v in directions]
        plane = PlaneDerivatives(eager_split, eager_modules, directions)
        jvp = rate(lambda batch, vs=directions: [own_loss_scores(eager_split, eager_modules, v, batch) for v in vs])
        shared = rate(plane.scores)
        differences = rate(lambda batch, cs=central: [c.scores(batch) for c in cs])
        apart = rate(lambda batch, vs=directions: [position_scores(split, modules, [v], batch) for v in vs])
        together = rate(lambda batch, vs=directions: position_scores(split, modules, vs, batch))
        print(
            f"| {n} | {jvp:,.0f} | {shared:,.0f} | {shared / jvp:.2f} | {differences:,.0f} | {shared / differences:.2f}"
            f" | {apart:,.0f} | {together:,.0f} | {together / apart:.2f} |"
        )
    print_forward_differences(eager, eager_modules, random_direction(modules), batches[:2])


def print_forward_differences(model, modules, direction, batches) -> None:
    """Correlation of one-sided differences with the exact derivative, step by step."""
    exact = np.concatenate(
        [own_loss_scores(model, modules, direction, b)[0][b.targets != -100].numpy() for b in batches]
    )
    chosen = choose_derivative(model, modules, direction, batches, setting="central")
    print(f"\ncentral differences at their best step: 1 - r = {1 - chosen.correlation:.1e}; one-sided ones:\n")
    print("| step (of the central one) | 1 - r |\n|---|---|")
    zero = CentralDifference(model, modules, direction, 0.0)
    for factor in (1 / 16, 1 / 4, 1, 4):
        moved = CentralDifference(model, modules, direction, chosen.epsilon * factor)
        split = SplitModel.of(model)
        rounded = np.concatenate(
            [
                ((moved._at(b, moved.epsilon, split) - zero._at(b, 0.0, split)) / moved.epsilon)[b.targets != -100]
                .detach()
                .numpy()
                for b in batches
            ]
        )
        print(f"| {factor:g} | {1 - np.corrcoef(exact, rounded)[0, 1]:.1e} |")


if __name__ == "__main__":
    main()

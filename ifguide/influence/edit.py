"""Unlearning without training: one step of the weights that makes chosen tokens unlikely.

θ' = θ + β · u/‖u‖ · ‖θ‖ over the tracked weights, with u = (F + dI)⁻¹ Σ_t w_t ∇CE_t(θ). Along u the loss of the chosen
tokens rises, and what the curvature F says the model needs changes least. It is an influence function read backwards: a
Newton step that takes the chosen tokens out of a finished training (Guo et al. 2020, arXiv 1911.03030), with EK-FAC for
the Hessian and a length that is chosen on held-out text.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import nn

from ifguide.errors import ConfigError, NumericalError
from ifguide.influence.batches import Batch
from ifguide.influence.central import shifted
from ifguide.influence.direction import differential_direction, sum_gradients
from ifguide.influence.ekfac import LayerFactors
from ifguide.influence.losses import SplitModel, backpropagate
from ifguide.models.layers import Layers, Matrices, bias_of, device_of, split_matrix, weight_of

LONGEST = 1.0
"""The largest strength β that is tried: a step as long as the weights themselves."""
FIRST = 1e-3
"""The first one that is tried, if none is known."""
CLOSE_ENOUGH = 0.02
"""An edit's strength is chosen to within this share of it."""


def token_gradient(
    model: nn.Module,
    modules: Layers,
    batches: Iterable[Batch],
    *,
    weigh: Callable[[torch.Tensor], torch.Tensor] | None = None,
    report: Callable[[int, int], None] | None = None,
    n_batches: int = 0,
) -> Matrices:
    """Σ_t w_t ∇CE_t over the tokens that count in the batches, (O, I) a layer, in float32 or better.

    Args:
        weigh: places of tokens in the corpus, int64 (n,) -> their weights w (n,); None: all 1.
        report: called with (batches done, `n_batches`).
    """
    split, device, done = SplitModel.of(model), device_of(model), itertools.count(1)

    def send(batch: Batch) -> None:
        weights = None if weigh is None else weigh(batch.target_index).to(device)  # (B, T-1)
        backpropagate(split, batch.to(device), weights=weights)
        if report:
            report(next(done), n_batches)

    if report:
        report(0, n_batches)
    gradient = sum_gradients(split, modules, batches, send)
    if not any(bool(matrix.any()) for matrix in gradient.values()):
        raise NumericalError("edit: the gradient of the selected tokens is zero; is the model's loss on them zero?")
    return gradient


def edit_direction(
    modules: Layers, gradient: Matrices, factors: Mapping[str, LayerFactors] | None, damping: float
) -> Matrices:
    """u/‖u‖ · ‖θ‖ over all layers: a step of strength β = 1. `damping` d is in mean eigenvalues, as for
    `LayerFactors.precondition`; without factors the curvature is the identity, for ablation."""
    direction = differential_direction(gradient, None, factors, damping)
    length = math.sqrt(sum(float(u.double().square().sum()) for u in direction.values()))
    scale = weight_length(modules) / length
    return {name: u.mul_(scale) for name, u in direction.items()}


def weight_length(modules: Layers) -> float:
    """‖θ‖ over the layers' weights and biases. A ConfigError: a layer cannot be changed in place."""
    squares = 0.0
    for name, module in modules.items():
        for part in filter(torch.is_tensor, (weight_of(module), bias_of(module))):
            if part.device.type == "meta":
                raise ConfigError(f"edit: layer {name} is kept off the device; give compute.max_memory more room")
            squares += float(part.detach().double().square().sum())
    return math.sqrt(squares)


@torch.no_grad()
def apply_edit(modules: Layers, direction: Matrices, strength: float) -> None:
    """Move the weights in place by `strength` times a direction of `edit_direction`. In bfloat16 or float16 most of the
    step would be rounded away: the weights are float32 or better."""
    for name, module in modules.items():
        for part, step in zip((weight_of(module), bias_of(module)), split_matrix(module, direction[name]), strict=True):
            if part is not None and step is not None:
                part.add_(step.to(part), alpha=strength)


@contextlib.contextmanager
def edited(modules: Layers, direction: Matrices, strength: float) -> Iterator[None]:
    """Inside the block the model computes with the edit; its weights are untouched."""
    with shifted({module: direction[name] for name, module in modules.items()}, strength):
        yield


def choose_strength(
    rise: Callable[[float], float], budget: float, first: float = FIRST, close: float = CLOSE_ENOUGH
) -> tuple[float, dict[float, float]]:
    """The largest strength β whose cost stays within a budget, and all that were tried.

    Args:
        rise: β -> how much perplexity rises, as a share of the unedited model's; it may fall first.
        budget: the most it may rise, 0.01 for 1%.
        first: the first strength that is tried; a near one is quicker.
        close: the strength is chosen to within this share of it.

    Raises:
        ConfigError: the smallest step costs more than the budget.
    """
    tried: dict[float, float] = {}

    def within(strength: float) -> bool:
        tried[strength] = rise(strength)
        return tried[strength] <= budget  # NaN is not

    low, high = 0.0, first
    while high <= LONGEST and within(high):
        low, high = high, 2 * high
    if high > LONGEST:
        return low, tried
    while high - low > close * high:
        guess = _guess(low, high, tried, budget)
        low, high = (guess, high) if within(guess) else (low, guess)
        if high < FIRST / 1000:
            raise ConfigError(f"edit: even a step of {high:.1g} raises perplexity by more than {budget:.1%}")
    return low, tried


def _guess(low: float, high: float, tried: dict[float, float], budget: float) -> float:
    """Where the budget is met if cost is a straight line between two strengths, but well inside them."""
    if not low:
        return high / 2
    below, above = tried[low], tried[high]
    share = (budget - below) / (above - below) if math.isfinite(above) and above > below else 0.5
    return low + min(0.9, max(0.1, share)) * (high - low)

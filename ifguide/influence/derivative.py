"""Which way to take the directional derivative: the fastest that agrees with the exact one on a sample."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ifguide.errors import ConfigError, NumericalError
from ifguide.influence.batches import Batch
from ifguide.influence.central import CentralDifference, PairedDifference
from ifguide.influence.line import own_loss_scores
from ifguide.influence.losses import SplitModel
from ifguide.models.layers import Layers, Matrices

RELATIVE_STEPS: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
"""Candidate steps, as the root mean square change of a token's loss in nats."""
SAMPLE_TOKENS = 2_000
"""Corpus tokens on which central differences are compared with the exact derivative."""
AGREEMENT = 0.9999
"""Least Pearson correlation with the judge's scores for `auto` to use a way."""

ScoreBatch = Callable[[Batch], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Derivative:
    """A way to take the derivative, and how well it agreed with its judge."""

    method: str
    """`jvp` (exact, forward mode), `central` (two forward passes) or `paired` (both in one)."""
    products: str = "float32"
    """dtype in which differences are multiplied."""
    epsilon: float = 0.0
    """Multiple of v that is added and subtracted; 0 for `jvp`."""
    correlation: float = 1.0
    """Pearson correlation with the judge's scores on the sample; for `jvp` by definition 1."""
    n_tokens: int = 0
    """Predicted tokens in the sample; 0: nothing was tried."""
    refused: tuple[dict, ...] = ()
    """Faster ways that agreed too little: method, products, epsilon, correlation."""
    judge: str = "jvp"
    """`jvp`, or where the model has no such derivative `half-step`: central differences at half the step."""

    def scorer(self, model: nn.Module, modules: Layers, direction: Matrices) -> ScoreBatch:
        """The function batch -> (scores, losses), each (B, T-1), that takes the derivative this way."""
        if self.method == "jvp":
            split = SplitModel.of(model)
            return lambda batch: own_loss_scores(split, modules, direction, batch)
        kind = PairedDifference if self.method == "paired" else CentralDifference
        return kind(model, modules, direction, self.epsilon, getattr(torch, self.products)).scores


def score_along(
    model: nn.Module, modules: Layers, directions: list[Matrices], ways: list[Derivative]
) -> Callable[[Batch], list[torch.Tensor]]:
    """A function batch -> [scores of each direction..., losses], each (B, T-1), 0 where nothing counts.

    Each direction is taken by itself: sharing the model's own pass was measured and is slower (docs/scale.md). Where a
    way is `jvp` the model needs `eager` attention.
    """
    scorers = [way.scorer(model, modules, direction) for way, direction in zip(ways, directions, strict=True)]

    def score(batch: Batch) -> list[torch.Tensor]:
        scores, losses = zip(*(scorer(batch) for scorer in scorers), strict=True)
        return [*scores, losses[0]]

    return score


def choose_derivative(
    model: nn.Module,
    modules: Layers,
    direction: Matrices,
    sample: list[Batch],
    *,
    setting: str = "auto",
    narrow: bool = False,
) -> Derivative:
    """Try the ways on a sample, against the exact derivative or, where the model has none, against half the step.

    Central differences are tried with a few steps. The best step is then tried with differences multiplied in bfloat16,
    where the device does that fast: on a GPU with both branches in one pass, on a processor for the output embedding
    alone (in its layers float32 and bfloat16 are too near each other for it).

    Args:
        model: loaded with `eager` attention, which the exact derivative needs.
        setting: `auto` takes the fastest way whose correlation is at least `AGREEMENT`, else `jvp`; `central` takes
            central differences at the best step even if they agree too little, `jvp` tries nothing.
        narrow: bfloat16 products are fast here.

    Raises:
        ConfigError: another setting.
        NumericalError: no exact derivative, and no step that agrees with its half.
    """
    if setting not in ("auto", "central", "jvp"):
        raise ConfigError(f"derivative: expected auto, central or jvp, got {setting!r}")
    if setting == "jvp" or not sample:
        return Derivative("jvp")
    split = SplitModel.of(model)
    dtype = str(next(split.parameters()).dtype).removeprefix("torch.")

    def score(way: Derivative) -> np.ndarray:  # float64 (n,), of the counted tokens
        scorer = way.scorer(split, modules, direction)
        return np.concatenate([scorer(batch)[0][batch.counted].double().cpu().numpy() for batch in sample])

    def judge(method: str, products: str, epsilon: float) -> Derivative:
        way = Derivative(method, products, epsilon, judge="half-step" if exact is None else "jvp")
        pair = score(way), score(Derivative("central", dtype, epsilon / 2)) if exact is None else exact
        usable = np.isfinite(pair).all() and (np.std(pair, axis=1) > 0).all()
        correlation = float(np.corrcoef(pair)[0, 1]) if usable else -1.0
        return dataclasses.replace(way, correlation=correlation, n_tokens=len(pair[0]))

    try:
        exact, steps = score(Derivative("jvp")), RELATIVE_STEPS
    except ConfigError:  # half the step sees only a part of a large step's error, so smaller ones are tried as well
        exact, steps = None, (0.0003, 0.001, *RELATIVE_STEPS)
    if exact is not None:
        scale = _size(exact)
    else:  # from a change of the weights of length 1 towards the smallest step
        scale = steps[0] * sum(float(v.square().sum()) for v in direction.values()) ** 0.5 or 1.0
        for _ in range(4):
            scale = _size(score(Derivative("central", dtype, steps[0] / scale)))
    best = max((judge("central", dtype, step / scale) for step in steps), key=lambda way: way.correlation)
    if setting == "central":
        return best
    refused = []
    if narrow and split.streams and dtype != "bfloat16":
        method = "paired" if sample[0].input_ids.device.type == "cuda" else "central"
        faster = judge(method, "bfloat16", best.epsilon)
        if faster.correlation >= AGREEMENT:
            return faster
        refused.append(faster)
    if best.correlation >= AGREEMENT:
        return dataclasses.replace(best, refused=_described(refused))
    if exact is None:
        reason = f"no forward-mode derivative, and no step agrees with its half (r = {best.correlation:.5f} at best"
        remedy = 'model.dtype = "float32", or take the best step with scores.derivative = "central"'
        raise NumericalError(f"this model has {reason}, expected {AGREEMENT}); set {remedy}")
    return Derivative("jvp", dtype, n_tokens=len(exact), refused=_described([*refused, best]))


def _size(scores: np.ndarray) -> float:
    """Root mean square of scores (n,), to divide by."""
    return float(np.sqrt(np.mean(scores**2))) or 1.0


def _described(ways: list[Derivative]) -> tuple[dict, ...]:
    return tuple({key: getattr(way, key) for key in ("method", "products", "epsilon", "correlation")} for way in ways)

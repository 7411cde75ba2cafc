"""Toxic and safe queries -> one direction v in parameter space, v = (F + dI)⁻¹ (ḡ_toxic - ḡ_safe).

Source: IF-Guide, section 3 (differential influence); the weighting of a query's tokens is an option here.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ifguide.errors import ConfigError, NumericalError
from ifguide.influence.batches import Batch, Sequence, make_batches
from ifguide.influence.ekfac import LayerFactors, accumulation_dtype
from ifguide.influence.layers import gradients_flow, layer_shape, watch


def query_gradient(
    model: nn.Module,
    modules: dict[str, nn.Module],
    queries: list[tuple[np.ndarray, np.ndarray]],
    *,
    weighting: str = "token-mean",
    objective: str = "loss",
    tokens_per_batch: int = 4096,
    report: Callable[[int, int], None] | None = None,
) -> dict[str, torch.Tensor]:
    """Mean gradient ḡ over queries, (O, I) a layer, in float32 or better.

    Args:
        model: a causal language model.
        modules: its layers by name.
        queries: pairs (token ids (T,), completion mask bool (T,)).
        weighting: a query counts as the mean (`token-mean`) or the sum (`token-sum`) over its completion tokens.
        objective: `loss` is -log p of a token, `margin` is -log(p / (1 - p)).
        tokens_per_batch: padded tokens in a forward pass.
        report: called with (queries done, queries in all).

    Raises:
        ConfigError: no queries, or one without a completion token.
        NumericalError: the gradient is not finite.
    """
    if not queries:
        raise ConfigError("a direction needs at least one query in each set, got none")
    device, dtype = next(model.parameters()).device, accumulation_dtype(model)
    total = {name: torch.zeros(layer_shape(m), dtype=dtype, device=device) for name, m in modules.items()}

    def add(name: str, a: torch.Tensor, g: torch.Tensor) -> None:
        total[name].addmm_(g.flatten(0, 1).to(dtype).T, a.flatten(0, 1).to(dtype))

    sequences = [Sequence(np.asarray(ids), np.where(mask, np.arange(len(ids)), -1)) for ids, mask in queries]
    for number, sequence in enumerate(sequences):
        if not (sequence.index[1:] >= 0).any():
            raise ConfigError(f"query {number} has no completion token after its prompt")
    done = 0
    with watch(modules, on_gradient=add), gradients_flow(model):
        for batch in make_batches(sequences, tokens_per_batch):
            batch = batch.to(device)
            _query_loss(model, batch, weighting, objective).backward()
            done += len(batch.sequence)
            if report:
                report(done, len(queries))
    for name, gradient in total.items():
        if not torch.isfinite(gradient).all():
            raise NumericalError(
                f"layer {name}: the query gradient is not finite; run the model in float32 (model.dtype)"
            )
        gradient.div_(len(queries))
    return total


def _query_loss(model: nn.Module, batch: Batch, weighting: str, objective: str) -> torch.Tensor:
    """Sum over the batch's queries of the mean or sum over each one's completion tokens."""
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits[:, :-1]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    counted = batch.targets != -100  # (B, T-1)
    targets = batch.targets.clamp(min=0).unsqueeze(-1)  # (B, T-1, 1)
    picked = logits.gather(-1, targets).squeeze(-1)
    if objective == "margin":
        # log p/(1-p) is the target's logit less the log-sum of all others: exact however sure the model is
        rest = logits.scatter(-1, targets, -torch.inf).logsumexp(-1)
    else:
        rest = logits.logsumexp(-1)
    token_loss = (rest - picked) * counted
    per_query = token_loss.sum(dim=1)
    if weighting == "token-mean":
        per_query = per_query / counted.sum(dim=1)
    return per_query.sum()


def differential_direction(
    toxic: dict[str, torch.Tensor],
    safe: dict[str, torch.Tensor] | None,
    factors: dict[str, LayerFactors] | None,
    damping: float,
) -> dict[str, torch.Tensor]:
    """The direction v, (O, I) a layer: moving the model's parameters along -v makes toxic completions likelier.

    Args:
        toxic: mean gradient of the toxic queries.
        safe: mean gradient of the safe queries; None gives standard, non-differential influence.
        factors: EK-FAC factors; None leaves the gradient as it is (identity, for ablation).
        damping: multiple of each layer's mean eigenvalue.
    """
    found = {}
    for name, gradient in toxic.items():
        difference = gradient - safe[name] if safe is not None else gradient
        found[name] = factors[name].precondition(difference, damping) if factors is not None else difference.clone()
        if not torch.isfinite(found[name]).all():
            raise NumericalError(
                f"layer {name}: the preconditioned direction is not finite; its curvature is zero, so check the corpus or raise direction.damping"
            )
    return found

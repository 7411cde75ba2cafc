"""The penalised objective: learn every token, unlearn the selected ones (Eq. 9 of IF-Guide, arXiv 2506.01790).

    L = 1/n · Σ_t w_t · CE_t,    w_t = -λ where t is selected, else 1

n counts every valid token, selected or not. L has no lower bound when λ > 0: a selected token's cross-entropy can grow
for ever. `max_penalty` bounds it, by counting a selected token's cross-entropy only up to that many nats; beyond it the
token has no gradient.

B rows, T tokens a row, V vocabulary. Labels and selection are given as they lie in the row: the token at t is predicted
from the logits at t-1, so both are shifted here, together.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

IGNORED = -100
"""Label of a token without loss: padding, and the first token of a document."""


class LossSums(NamedTuple):
    """Sums over the valid tokens of a batch. All are scalars on the device of the logits."""

    objective: Tensor
    """Σ w·CE, with gradient."""
    selected: Tensor
    """Σ CE over selected tokens, neither clamped nor weighted; no gradient."""
    other: Tensor
    """Σ CE over the other tokens; no gradient."""
    n_selected: Tensor
    n_other: Tensor


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in nats of every token but the first of each row.

    Args:
        logits: (B, T, V); halves are raised to float32 before the softmax.
        labels: (B, T) token ids, `IGNORED` where there is no loss.

    Returns:
        (B, T-1): entry t-1 belongs to the token at t; 0 where its label is `IGNORED`.
    """
    if logits.shape[:2] != labels.shape:
        raise ValueError(f"expected labels of shape {tuple(logits.shape[:2])}, got {tuple(labels.shape)}")
    logits = logits[:, :-1]
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    labels = labels[:, 1:]
    losses = cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORED, reduction="none"
    )
    return losses.view(labels.shape)


def sum_losses(
    logits: Tensor, labels: Tensor, selected: Tensor | None, penalty: float, max_penalty: float | None = None
) -> LossSums:
    """The sums behind `penalised_loss`, with the two kinds of tokens apart.

    Args:
        logits: (B, T, V).
        labels: (B, T), `IGNORED` where there is no loss.
        selected: (B, T) bool; None: no token is selected.
        penalty: λ. -1 weighs selected tokens like all others, which is plain training.
        max_penalty: a selected token's cross-entropy counts up to this many nats; None: without bound.
    """
    losses = token_losses(logits, labels)  # (B, T-1)
    valid = labels[:, 1:] != IGNORED
    if selected is None:
        on_selected = torch.zeros_like(valid)
    elif selected.shape != labels.shape:
        raise ValueError(f"expected a selection of shape {tuple(labels.shape)}, got {tuple(selected.shape)}")
    else:
        on_selected = selected[:, 1:].bool() & valid
    bounded = losses if max_penalty is None else losses.clamp(max=max_penalty)
    objective = torch.where(on_selected, -penalty * bounded, losses).sum()  # ignored tokens have a loss of 0
    detached = losses.detach()
    on_other = valid & ~on_selected
    return LossSums(
        objective=objective,
        selected=(detached * on_selected).sum(),
        other=(detached * on_other).sum(),
        n_selected=on_selected.sum(),
        n_other=on_other.sum(),
    )


def penalised_loss(
    logits: Tensor,
    labels: Tensor,
    selected: Tensor | None,
    penalty: float,
    max_penalty: float | None = None,
    num_items: Tensor | int | None = None,
) -> Tensor:
    """Eq. 9: the mean over valid tokens of w·CE, in nats.

    Args:
        logits: (B, T, V), any float dtype; computed in float32 or better.
        labels: (B, T) token ids, `IGNORED` where there is no loss.
        selected: (B, T) bool, True for tokens to unlearn; entries without a valid label have no effect.
        penalty: λ >= 0, the weight of a selected token's cross-entropy, taken with a minus sign.
        max_penalty: bound in nats on a selected token's cross-entropy, before the weight; None: no bound.
        num_items: divide by this many tokens instead of the valid ones in this batch: with gradient accumulation, the
            valid tokens of all accumulated batches together.

    Returns:
        A scalar. A batch without valid tokens gives 0, not NaN.
    """
    sums = sum_losses(logits, labels, selected, penalty, max_penalty)
    if num_items is None:
        num_items = (sums.n_selected + sums.n_other).clamp(min=1)
    return sums.objective / num_items

"""The penalised objective: learn every token, unlearn the selected ones (Eq. 9 of IF-Guide, arXiv 2506.01790).

    L = 1/n · Σ_t w_t · CE_t,    w_t = -λ where t is selected, else 1

n counts every valid token, selected or not. L has no lower bound when λ > 0: a selected token's cross-entropy can grow
for ever. `max_penalty` bounds it: cross-entropy counts only up to that many nats; beyond it the token has no gradient.

`METHODS` are this and others to measure it against: leaving the loss of the token, or of its document, out.

B rows, T tokens a row, V vocabulary. Labels and selection are aligned with the row: the token at t is predicted
from the logits at t-1, so both are shifted here, together.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from torch.utils.checkpoint import checkpoint

from ifguide.data.packing import IGNORED

LOGITS_AT_ONCE = 1 << 25
"""A batch with more logits than this takes its loss in parts of at most as many: 128 MB in float32."""


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
    """Cross-entropy in nats (B, T-1) of every token but the first of each row: entry t-1 belongs to the token at t, and
    is 0 where its label (B, T) is `IGNORED`. Logits (B, T, V) in halves are raised to float32 before the softmax."""
    if logits.shape[:2] != labels.shape:
        raise ValueError(f"expected labels of shape {tuple(logits.shape[:2])}, got {tuple(labels.shape)}")
    following = pad(labels[:, 1:], (0, 1), value=IGNORED)  # the labels move, for moving the logits would copy them
    return _cross_entropy(logits.flatten(0, 1), following.flatten()).view(labels.shape)[:, :-1]


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")


def sum_losses(
    logits: Tensor,
    labels: Tensor,
    selected: Tensor | None,
    penalty: float,
    max_penalty: float | None = None,
    method: str = "penalise",
) -> LossSums:
    """The sums behind Eq. 9, with the two kinds of tokens apart; `objective` over the valid tokens is L.

    Args:
        logits: (B, T, V).
        labels: (B, T), `IGNORED` where there is no loss.
        selected: (B, T) bool; None: no token is selected. Entries without a valid label have no effect.
        penalty: λ, a weight with a minus sign; -1 weighs selected tokens like all others, which is plain training.
        max_penalty: a selected token's cross-entropy counts up to this many nats; None: without bound.
        method: one of `METHODS`: what replaces the loss of a selected token.
    """
    losses = token_losses(logits, labels)  # (B, T-1)
    valid, on_selected = _two_kinds(labels, selected)
    return _add_up(losses, valid, on_selected, penalty, max_penalty, method)


def sum_losses_in_parts(
    hidden: Tensor,
    logits_of: Callable[[Tensor], Tensor],
    n_words: int,
    labels: Tensor,
    selected: Tensor | None,
    penalty: float,
    max_penalty: float | None = None,
    method: str = "penalise",
) -> LossSums:
    """`sum_losses` from the last hidden states, with the logits of valid tokens only and of no more at once than
    `LOGITS_AT_ONCE`, on the way forward and, computed again, on the way back.

    Args:
        hidden: (B, T, H).
        logits_of: makes logits (n, V) of hidden states (n, H), with gradients.
        n_words: V.
        labels, selected, penalty, max_penalty, method: as for `sum_losses`.
    """
    valid, on_selected = _two_kinds(labels, selected)
    hidden, targets, chosen = hidden[:, :-1][valid], labels[:, 1:][valid], on_selected[valid]  # (n, H), (n,), (n,)

    def part(hidden: Tensor, targets: Tensor, chosen: Tensor) -> LossSums:
        losses = _cross_entropy(logits_of(hidden), targets)
        return _add_up(losses, torch.ones_like(chosen), chosen, penalty, max_penalty, method)

    step = max(1, LOGITS_AT_ONCE // n_words)
    parts = zip(hidden.split(step), targets.split(step), chosen.split(step), strict=True)
    sums = [checkpoint(part, *each, use_reentrant=False) for each in parts]
    return LossSums(*(torch.stack(field).sum() for field in zip(*sums, strict=True)))


def penalised_loss(penalty: float = 1.0, max_penalty: float | None = None, method: str = "penalise") -> Callable:
    """Eq. 9 as the `compute_loss_func` of Transformers' `Trainer`, for labels from
    `ifguide.data.packing.mark_labels`.

    Args:
        penalty: λ, as for `sum_losses`, and so are the other two; `SuppressConfig` has the studies' values.
        max_penalty: the most nats that a selected token's cross-entropy counts.
        method: one of `METHODS`.

    Returns:
        A function of the model's output, its labels (B, T) and the number of valid labels of the whole batch (None:
        those given), to a scalar: the mean over valid tokens, in nats.
    """

    def compute(outputs, labels: Tensor, num_items_in_batch=None) -> Tensor:
        selected = labels < IGNORED
        plain = torch.where(selected, IGNORED - 1 - labels, labels)
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        sums = sum_losses(logits, plain, selected, penalty, max_penalty, method)
        return sums.objective / (sums.n_selected + sums.n_other if num_items_in_batch is None else num_items_in_batch)

    return compute


def _two_kinds(labels: Tensor, selected: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which predicted tokens are valid, and which of those are selected: bool (B, T-1) each."""
    valid = labels[:, 1:] != IGNORED
    if selected is None:
        return valid, torch.zeros_like(valid)
    if selected.shape != labels.shape:
        raise ValueError(f"expected a selection of shape {tuple(labels.shape)}, got {tuple(selected.shape)}")
    return valid, selected[:, 1:] & valid


def _add_up(losses: Tensor, valid: Tensor, on_selected: Tensor, penalty, max_penalty, method) -> LossSums:
    unlearned = selected_losses(losses, penalty, max_penalty, method)
    objective = torch.where(on_selected, unlearned, losses).sum()  # ignored tokens have a loss of 0
    detached, on_other = losses.detach(), valid & ~on_selected
    return LossSums(
        objective=objective,
        selected=(detached * on_selected).sum(),
        other=(detached * on_other).sum(),
        n_selected=on_selected.sum(),
        n_other=on_other.sum(),
    )


METHODS: dict[str, Callable[[Tensor, float, float | None], Tensor]] = {
    "penalise": lambda losses, penalty, most: -penalty * (losses if most is None else losses.clamp(max=most)),
    "mask": lambda losses, *_: torch.zeros_like(losses),
    "drop": lambda losses, *_: losses,
}
"""Ways to train without selected tokens: from their cross-entropies in nats (any shape), λ and the bound to what they
add to the objective. `drop` leaves out their documents, which happens in the rows
(`ifguide.data.packing.DroppedRows`); for what is left it is plain training."""


def selected_losses(losses: Tensor, penalty: float, max_penalty: float | None, method: str) -> Tensor:
    """What selected tokens add to the objective by one of `METHODS`."""
    if method not in METHODS:
        raise ValueError(f"expected one of {', '.join(METHODS)}, got {method!r}")
    return METHODS[method](losses, penalty, max_penalty)

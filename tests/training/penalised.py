"""Eq. 9 in one call."""

from ifguide.training.objective import sum_losses


def penalised_loss(logits, labels, selected, penalty, max_penalty=None, num_items=None, method="penalise"):
    """The mean over valid tokens of w·CE in nats, or their sum over `num_items`; 0 for a batch without valid tokens."""
    sums = sum_losses(logits, labels, selected, penalty, max_penalty, method)
    return sums.objective / (num_items or (sums.n_selected + sums.n_other).clamp(min=1))

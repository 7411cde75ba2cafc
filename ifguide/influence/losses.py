"""Losses of predicted tokens, and their gradients, without ever holding the logits of a whole batch.

A vocabulary of 50,000 makes the logits of 4,096 tokens 800 MB in float32, several times what the rest of a forward pass needs.
So the model's body runs once, and its output embedding is applied to a few hundred positions at a time, and only to positions
whose prediction counts. Cross-entropy is computed in float32 or better whatever the model's dtype.
"""

from collections.abc import Callable, Iterator

import torch
from torch import nn

from ifguide.influence.batches import Batch

LOGITS_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 25}
"""Logits held at once, in values, by kind of device: 4 MB in float32, which a processor's cache holds, and 128 MB."""
LEAST_POSITIONS = 128
"""Positions taken at once however large the vocabulary is: the output embedding is read from memory once for each part."""

Objective = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(logits (n, V), targets (n,)) -> one value a token (n,)."""


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log p of each target (n,). Written out, for forward-mode differentiation has no rule for the fused one."""
    return logits.logsumexp(-1) - logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def margin(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log(p / (1 - p)) of each target (n,): the other tokens' logsumexp minus the target's logit, exact where p is near 1."""
    others = logits.scatter(-1, targets.unsqueeze(-1), float("-inf"))
    return others.logsumexp(-1) - logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def draw(logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One token (n,) from each prediction, by one uniform number and the running sum of the probabilities in float64."""
    running = logits.softmax(-1, dtype=torch.float64).cumsum(-1)
    uniform = torch.rand(len(logits), 1, dtype=torch.float64, device=logits.device, generator=generator)
    return (
        torch.searchsorted(running, uniform * running[:, -1:], right=True).squeeze(1).clamp_(max=logits.shape[-1] - 1)
    )


def upcast(logits: torch.Tensor) -> torch.Tensor:
    """float32, or float64 as it is."""
    return logits if logits.dtype == torch.float64 else logits.float()


class SplitModel(nn.Module):
    """A causal language model as a body (tokens -> hidden states) and a head (hidden states -> logits).

    Some models do more to their logits than multiply by the output embedding (a cap, a scale). Whether the two parts give
    the model's own logits is checked on a few tokens; where they do not, the body is the whole model and the head nothing.

    Batches are padded on the right, where a causal model never looks, so it gets no attention mask: without one the fast
    causal attention runs. Whether the model really ignores what follows is checked as well; if not, it gets the mask.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.splits = self._split_is_faithful()
        self.ignores_padding = self._ignores_what_follows()

    @classmethod
    def of(cls, model: nn.Module) -> "SplitModel":
        """The model split, or as it is if it already is: whoever runs many batches splits it once."""
        return model if isinstance(model, cls) else cls(model)

    def hidden(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(B, T) -> (B, T, H), or the logits (B, T, V) of a model that cannot be split."""
        body = self.model.base_model if self.splits else self.model
        mask = {} if self.ignores_padding else {"attention_mask": attention_mask}
        output = body(input_ids=input_ids, use_cache=False, **mask)
        return output[0] if self.splits else output.logits

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, H) -> (n, V), float32 or better."""
        return upcast(self.model.get_output_embeddings()(hidden) if self.splits else hidden)

    def forward(self, batch: Batch, objective: Objective = cross_entropy) -> torch.Tensor:
        """One value a predicted token (B, T-1), 0 where nothing counts. Differentiable in forward mode."""
        counted = batch.targets != -100
        hidden = self.hidden(batch.input_ids, batch.attention_mask)[:, :-1][counted]  # (n, H)
        targets = batch.targets[counted]
        values = [objective(self.logits(hidden[part]), targets[part]) for part in self.parts(len(targets))]
        empty = upcast(hidden.new_zeros(batch.targets.shape))
        return empty.masked_scatter(counted, torch.cat(values)) if values else empty

    def parts(self, n: int) -> Iterator[slice]:
        """Slices of n positions whose logits fit together."""
        head = self.model.get_output_embeddings()
        on_cpu = next(self.model.parameters()).device.type == "cpu"
        at_once = LOGITS_AT_ONCE["cpu" if on_cpu else "cuda"]
        step = max(LEAST_POSITIONS, at_once // (head.weight.shape[0] if head is not None else 1))
        return (slice(start, start + step) for start in range(0, n, step))

    def _split_is_faithful(self) -> bool:
        head = self.model.get_output_embeddings()
        if head is None or self.model.base_model is self.model:
            return False
        ids = self._few_tokens(4)
        with torch.no_grad():
            whole = self.model(input_ids=ids, use_cache=False).logits
            parts = head(self.model.base_model(input_ids=ids, use_cache=False)[0])
        return whole.shape == parts.shape and torch.equal(whole, parts)

    def _ignores_what_follows(self) -> bool:
        ids = self._few_tokens(6)
        with torch.no_grad():
            alone = self.model(input_ids=ids[:, :3], use_cache=False).logits.float()
            followed = self.model(input_ids=ids, use_cache=False).logits[:, :3].float()
        return bool((alone - followed).abs().max() <= 0.01 * alone.std())

    def _few_tokens(self, n: int) -> torch.Tensor:
        device = self.model.get_input_embeddings().weight.device
        return (
            torch.arange(1, n + 1, device=device).remainder(self.model.config.get_text_config().vocab_size).unsqueeze(0)
        )


def backpropagate(
    split: SplitModel,
    batch: Batch,
    *,
    weights: torch.Tensor | None = None,
    objective: Objective = cross_entropy,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Run a batch forward and send the gradient of its (weighted) summed objective back through the model's layers.

    Args:
        split: the model.
        batch: on its device.
        weights: (B, T-1), one factor a predicted token; None: all 1.
        objective: one value a token.
        generator: draw the targets from the model's own prediction with it; None: the true ones.

    Returns:
        The objective of each predicted token (B, T-1), detached, unweighted, 0 where nothing counts.
    """
    counted = batch.targets != -100
    hidden = split.hidden(batch.input_ids, batch.attention_mask)[:, :-1][counted]
    targets = batch.targets[counted]
    factors = None if weights is None else weights[counted]
    gradient, values = torch.empty_like(hidden), []
    for part in split.parts(len(targets)):
        leaf = hidden[part].detach().requires_grad_()
        logits = split.logits(leaf)
        wanted = targets[part]
        if generator is not None:
            wanted = draw(logits.detach(), generator)
        value = objective(logits, wanted)
        total = value.sum() if factors is None else (value * factors[part]).sum()
        (gradient[part],) = torch.autograd.grad(total, leaf)
        values.append(value.detach())
    if values:
        hidden.backward(gradient)
    found = upcast(hidden.new_zeros(batch.targets.shape)).detach()
    return found.masked_scatter(counted, torch.cat(values)) if values else found

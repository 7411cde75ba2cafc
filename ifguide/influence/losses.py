"""Losses of predicted tokens, and their gradients, without ever holding the logits of a whole batch.

A vocabulary of 50,000 makes the logits of 4,096 tokens 800 MB in float32, several times what the rest of a forward pass
needs. So the model's body runs once, and its output embedding is applied to a few hundred positions at a time, and only
to positions whose prediction counts. Cross-entropy is computed in float32 or better.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from ifguide.influence.batches import Batch
from ifguide.models.layers import bias_of, device_of, is_plain_matrix, layer_shape, weight_of

LOGITS_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 25}
"""Logits held at once where they are kept for a backward pass, in values, by kind of device: 16 MB and 128 MB in
float32."""
LEAST_POSITIONS = 128
"""Positions taken at once however large the vocabulary is: each part reads the output embedding from memory once."""
BLOCK = {"cpu": (2048, 512), "cuda": (8192, 4096)}
"""Positions and words of the vocabulary in a block of logits that nothing is kept of, by kind of device. On a processor
the block, and the part of the output embedding that makes it, stay in its cache."""

Objective = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(logits (n, V), targets (n,)) -> one value a token (n,)."""
Recall = Callable[[Callable[[], tuple[torch.Tensor, torch.Tensor]]], tuple[torch.Tensor, torch.Tensor]]
"""Called with what computes the gradient (n, H) of the hidden states and the values (n,); returns them, computed or
remembered."""


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log p of each target (n,). Written out, for forward-mode differentiation has no rule for the fused one."""
    return logits.logsumexp(-1) - logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def margin(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log(p / (1 - p)) of each target (n,): the other tokens' logsumexp minus the target's logit, exact where p is
    near 1."""
    others = logits.scatter(-1, targets.unsqueeze(-1), float("-inf"))
    return others.logsumexp(-1) - logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def draw(logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One token (n,) from each prediction, by a uniform number and the running sum of the probabilities in float64."""
    running = logits.softmax(-1, dtype=torch.float64).cumsum(-1)
    uniform = torch.rand(len(logits), 1, dtype=torch.float64, device=logits.device, generator=generator)
    drawn = torch.searchsorted(running, uniform * running[:, -1:], right=True)
    return drawn.squeeze(1).clamp_(max=logits.shape[-1] - 1)


def upcast(logits: torch.Tensor) -> torch.Tensor:
    """To float32; float64 stays."""
    return logits if logits.dtype == torch.float64 else logits.float()


class SplitModel(nn.Module):
    """A causal language model as a body (tokens -> hidden states) and a head (hidden states -> logits).

    Some models do more to their logits than multiply by the output embedding (a cap, a scale). Whether the two parts
    give the model's own logits is checked on a few tokens; where they do not, the body is the whole model and the head
    nothing.

    Batches are padded on the right, where a causal model never looks, so it gets no attention mask: without one the
    fast causal attention runs. Whether the model really ignores what follows is checked as well; if not, it gets the
    mask.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model: Any = model  # with the methods of a transformers model, which nn.Module's types do not know
        parts: tuple[Any, ...] = (model, model.base_model)
        for part in parts:  # it would warn that padding is not masked; see above
            part.warn_if_padding_and_no_attention_mask = lambda *args: None
        self.splits = self._split_is_faithful()
        self.ignores_padding = self._ignores_what_follows()

    @classmethod
    def of(cls, model: nn.Module) -> "SplitModel":
        """The model split, or itself if it already is: a caller with many batches splits it once."""
        return model if isinstance(model, cls) else cls(model)

    def hidden(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(B, T) -> (B, T, H), or the logits (B, T, V) of a model that cannot be split."""
        body = self.model.base_model if self.splits else self.model
        mask = {} if self.ignores_padding else {"attention_mask": attention_mask}
        output = body(input_ids=input_ids, use_cache=False, **mask)
        return (output[0] if self.splits else output.logits).to(input_ids.device)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, H) -> (n, V), float32 or better."""
        return upcast(self.model.get_output_embeddings()(hidden).to(hidden.device) if self.splits else hidden)

    def forward(self, batch: Batch, objective: Objective = cross_entropy) -> torch.Tensor:
        """One value a predicted token (B, T-1), 0 where nothing counts. Differentiable in forward mode."""
        counted = batch.counted
        hidden = self.hidden(batch.input_ids, batch.attention_mask)[:, :-1][counted]  # (n, H)
        targets = batch.targets[counted]
        values = [objective(self.logits(hidden[part]), targets[part]) for part in self.parts(len(targets))]
        empty = upcast(hidden.new_zeros(batch.targets.shape))
        return empty.masked_scatter(counted, torch.cat(values)) if values else empty

    def parts(self, n: int) -> Iterator[slice]:
        """Slices of n positions whose logits fit together."""
        head = self.model.get_output_embeddings()
        words = layer_shape(head)[0] if head is not None else 1
        return slices(n, max(LEAST_POSITIONS, LOGITS_AT_ONCE[_kind(next(self.model.parameters()))] // words))

    @property
    def streams(self) -> bool:
        """Whether the output embedding is a plain matrix whose rows can be taken a few at a time."""
        return self.splits and is_plain_matrix(self.model.get_output_embeddings())

    @torch.no_grad()
    def slopes(
        self, hidden: torch.Tensor, tangent: torch.Tensor, targets: torch.Tensor, products: torch.dtype | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses (n,), and their slopes (n,) when the hidden states move along a tangent (n, H), in float32 or better;
        targets, int64 (n,), are the words that count. Tangents are multiplied by the output embedding in the dtype
        `products`, or without one in its own.

        With logits z and their tangents ż the loss is logsumexp z - z_y and its slope Σ softmax(z) ż - ż_y. Both sums
        run along with the largest logit so far, vocabulary block by block, so no more than one block of logits is ever
        held. Only where the model `streams`.
        """
        head = self.model.get_output_embeddings()
        rows, _ = BLOCK[_kind(hidden)]
        weight, bias, empty = weight_of(head), bias_of(head), upcast(hidden.new_zeros(0))
        parts = slices(len(targets), rows)
        by_part = [_slopes(hidden[part], tangent[part], targets[part], weight, bias, products) for part in parts]
        losses, slopes = zip((empty, empty), *by_part, strict=True)
        return torch.cat(losses), torch.cat(slopes)

    @torch.no_grad()
    def loss_gradient(
        self, hidden: torch.Tensor, targets: torch.Tensor | None, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient (n, H) of each cross-entropy with respect to its hidden state (n, H), softmax(z) W - W_y, in its
        dtype, and the losses (n,) in float32 or better; block by block like `slopes`. The targets, int64 (n,), are the
        words that count; None: they are drawn from the model's own prediction."""
        head = self.model.get_output_embeddings()
        weight, bias = weight_of(head), bias_of(head)
        by_part = []
        for part in slices(len(hidden), BLOCK[_kind(hidden)][0]):
            words = None if targets is None else targets[part]
            by_part.append(_loss_gradient(hidden[part], words, weight, bias, generator))
        gradients, losses = zip(*by_part, strict=True)
        return torch.cat(gradients), torch.cat(losses)

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
        ids = torch.arange(1, n + 1, device=device_of(self.model))
        return ids.remainder(self.model.config.get_text_config().vocab_size).unsqueeze(0)


def _target_logits(hidden, targets, weight, bias) -> tuple[torch.Tensor, torch.Tensor]:
    """The targets' rows of the output embedding (n, H), and their logits (n, 1), float32 or better."""
    theirs = upcast(weight[targets])
    logits = (upcast(hidden) * theirs).sum(1, keepdim=True)
    return theirs, logits if bias is None else logits + upcast(bias[targets]).unsqueeze(1)


def _loss_gradient(hidden, targets, weight, bias, generator):
    """One part of `SplitModel.loss_gradient`."""
    largest = upcast(hidden.new_full((len(hidden), 1), float("-inf")))
    total, pull = torch.zeros_like(largest), torch.zeros(hidden.shape, dtype=largest.dtype, device=hidden.device)
    drawn = None if generator is None else torch.zeros(len(hidden), dtype=torch.int64, device=hidden.device)
    for block in slices(len(weight), BLOCK[_kind(hidden)][1]):
        some = weight[block]
        logits = upcast(nn.functional.linear(hidden, some, None if bias is None else bias[block]))
        now = torch.maximum(largest, logits.amax(1, keepdim=True))
        shrink = (largest - now).exp_()
        logits.sub_(now).exp_()
        here = logits.sum(1, keepdim=True)
        total = total.mul_(shrink).add_(here)
        pull.mul_(shrink).add_(logits.to(some.dtype) @ some)  # Σ exp(z - largest) W
        if drawn is not None:
            _draw_on(drawn, logits, here, total, block.start, generator)
        largest = now
    targets = targets if drawn is None else drawn
    theirs, target_logits = _target_logits(hidden, targets, weight, bias)
    gradient = pull.div_(total).sub_(theirs)
    return gradient.to(hidden.dtype), (largest + total.log() - target_logits).squeeze(1)


def _draw_on(drawn, sizes, here, total, first, generator) -> None:
    """Draw words int64 (n,) while the vocabulary passes by: each block takes over with its share of the total so far.

    `sizes` (n, b) are unnormalised probabilities of the block's words from number `first` on, `here` (n, 1) their sum,
    `total` (n, 1) that of all words so far. One uniform number a position decides whether the block takes over, and
    which word does.
    """
    uniform = torch.rand(total.shape, dtype=torch.float64, device=total.device, generator=generator) * total
    inside = torch.searchsorted(sizes.cumsum(1), uniform.to(sizes.dtype), right=True).squeeze(1)
    takes_over = (uniform < here).squeeze(1)
    drawn[takes_over] = first + inside[takes_over].clamp_(max=sizes.shape[1] - 1)


def _kind(tensor: torch.Tensor) -> str:
    return "cpu" if tensor.device.type == "cpu" else "cuda"


def slices(n: int, step: int) -> Iterator[slice]:
    """Slices of n places, `step` at a time."""
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _slopes(hidden, tangent, targets, weight, bias, products):
    """One part of `SplitModel.slopes`: all of its positions against one block of words after the other."""
    narrow = products or weight.dtype
    narrow_tangent = tangent.to(narrow)
    largest = upcast(hidden.new_full((len(targets), 1), float("-inf")))
    total, weighted = torch.zeros_like(largest), torch.zeros_like(largest)  # Σ exp(z - largest), Σ exp(z - largest) ż
    for block in slices(len(weight), BLOCK[_kind(hidden)][1]):
        some = weight[block]
        logits = upcast(nn.functional.linear(hidden, some, None if bias is None else bias[block]))
        moves = nn.functional.linear(narrow_tangent, some.to(narrow)).to(logits.dtype)
        now = torch.maximum(largest, logits.amax(1, keepdim=True))
        shrink = (largest - now).exp_()
        logits.sub_(now).exp_()
        total = total.mul_(shrink).add_(logits.sum(1, keepdim=True))
        weighted = weighted.mul_(shrink).add_(logits.mul_(moves).sum(1, keepdim=True))
        largest = now
    theirs, target_logits = _target_logits(hidden, targets, weight, bias)
    target_moves = (upcast(tangent) * theirs).sum(1, keepdim=True)
    losses = largest + total.log() - target_logits
    return losses.squeeze(1), (weighted / total - target_moves).squeeze(1)


def backpropagate(
    split: SplitModel,
    batch: Batch,
    *,
    weights: torch.Tensor | None = None,
    objective: Objective = cross_entropy,
    generator: torch.Generator | None = None,
    recall: Recall | None = None,
) -> torch.Tensor:
    """Run a batch forward and send the gradient of its (weighted) summed objective back through the model's layers.

    Args:
        weights: (B, T-1), one factor a predicted token; None: all 1.
        objective: one value a token.
        generator: draw the targets from the model's own prediction with it; None: the true ones.
        recall: returns what the output embedding gave for this batch earlier, or computes it.

    Returns:
        The objective of each predicted token (B, T-1), detached, unweighted, 0 where nothing counts.
    """
    counted = batch.counted
    hidden = split.hidden(batch.input_ids, batch.attention_mask)[:, :-1][counted]
    if not len(hidden):
        return upcast(hidden.new_zeros(batch.targets.shape)).detach()
    targets = batch.targets[counted]
    factors = None if weights is None else weights[counted]

    def compute() -> tuple[torch.Tensor, torch.Tensor]:
        if objective is not cross_entropy or not split.streams:
            return _objective_gradient(split, hidden.detach(), targets, factors, objective, generator)
        gradient, values = split.loss_gradient(hidden.detach(), None if generator else targets, generator)
        return gradient if factors is None else gradient * factors.unsqueeze(1).to(gradient.dtype), values

    gradient, values = recall(compute) if recall else compute()
    hidden.backward(gradient)
    return upcast(hidden.new_zeros(batch.targets.shape)).detach().masked_scatter(counted, values)


def _objective_gradient(split, hidden, targets, factors, objective, generator):
    """Gradient (n, H) of the weighted sum of any objective, and its values (n,), part by part."""
    gradient, values = torch.empty_like(hidden), []
    for part in split.parts(len(targets)):
        leaf = hidden[part].detach().requires_grad_()
        logits = split.logits(leaf)
        words = targets[part] if generator is None else draw(logits.detach(), generator)
        value = objective(logits, words)
        total = value.sum() if factors is None else (value * factors[part]).sum()
        (gradient[part],) = torch.autograd.grad(total, leaf)
        values.append(value.detach())
    return gradient, torch.cat(values)

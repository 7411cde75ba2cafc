"""The logits of a few positions at a time, by the model's own forward method, from the last hidden states of a batch.

A vocabulary of 50,000 makes the logits of 8,192 tokens 1.6 GB in float32, and their gradient as much again. Here the
model's body runs once; then its forward method is called for a part of the positions, with a body in its place that
hands over their hidden states. So all that a model does to its logits (an output embedding with a bias, a cap, a scale)
is done. Each part's logits are computed again on the way back.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ifguide.models.layers import device_of, replace_forward
from ifguide.training.objective import LossSums

SumLosses = Callable[[Tensor, Callable[[Tensor], Tensor]], LossSums]
"""Called with the last hidden states (B, T, H) and with what makes logits (n, V) of some of them (n, H)."""


@contextlib.contextmanager
def forward_in_parts(model) -> Iterator[bool]:
    """Inside the block, calling `model` with `sum_losses=` (`SumLosses`) gives what that returns. The call may go
    through wrappers: adapters, DDP. Gives False, and changes nothing, where the parts are not bit for bit the
    model's own logits of a few tokens, because its body is not what its forward method calls."""
    whole = model.forward

    def logits_of(output, hidden: Tensor) -> Tensor:
        body = {model.base_model: lambda *args, **kwargs: type(output)(last_hidden_state=hidden.unsqueeze(0))}
        with replace_forward(body):  # here, for it is called on the way back too
            return whole(input_ids=hidden.new_zeros((1, len(hidden)), dtype=torch.int64), use_cache=False).logits[0]

    def forward(*args, sum_losses: SumLosses | None = None, **kwargs):
        if sum_losses is None:
            return whole(*args, **kwargs)
        kwargs = {name: value for name, value in kwargs.items() if value is not None}  # adapters pass all on
        output = model.base_model(*args, **kwargs)
        return sum_losses(output[0], lambda hidden: logits_of(output, hidden))

    if not _parts_are_faithful(model, logits_of):
        yield False
        return
    with replace_forward({model: forward}):
        yield True


def _parts_are_faithful(model, logits_of) -> bool:
    if model.base_model is model:
        return False
    ids = torch.arange(1, 5, device=device_of(model)).remainder(model.config.get_text_config().vocab_size).unsqueeze(0)
    training = model.training
    model.eval()
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits
        output = model.base_model(input_ids=ids, use_cache=False)
        logits = logits_of(output, output[0][0])
    model.train(training)
    return torch.equal(logits, expected[0])

"""Logit lens: a model's prediction after each layer, by its final norm and unembedding.

L blocks, so L + 1 layers: 0 is the embedding, L is the model's own prediction. Q queries, B rows, T tokens, V
vocabulary.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ifguide.data.tokenizing import Encoded
from ifguide.errors import InputError, NumericalError
from ifguide.evaluation import Report
from ifguide.evaluation.query_batches import (
    log_probabilities,
    mean_by_row,
    query_batches,
    read_logits,
    take_predictions,
)


class LayerProbabilities(NamedTuple):
    """How likely each layer finds the completions."""

    probability: np.ndarray
    """float64 (Q, L+1): mean over a completion's tokens of their probability."""
    log_probability: np.ndarray
    """float64 (Q, L+1), nats: mean over a completion's tokens."""


def find_lens_parts(model) -> tuple[nn.ModuleList, nn.Module, nn.Module]:
    """The L blocks, the final norm and the unembedding of any family: the blocks are the one list of modules as long as
    the configuration's number of layers; the final norm is the normalisation beside that list. An InputError: a model
    without exactly one of each."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    n_layers = getattr(config, "num_hidden_layers", None)
    lists = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == n_layers]
    kind = type(model).__name__
    if n_layers is None or len(lists) != 1:
        problem = f"expected one list of {n_layers} blocks in {kind}, got {len(lists)}"
        raise InputError(f"logit lens: {problem}; it reads decoder-only models such as GPT-NeoX, Llama and GPT-2")
    name, blocks = lists[0]
    beside = model.get_submodule(name.rpartition(".")[0]).children()
    norms = [child for child in beside if "norm" in type(child).__name__.lower()]
    if len(norms) != 1:
        problem = f"expected one final norm beside the blocks of {kind}, got {len(norms)}"
        raise InputError(f"logit lens: {problem}; it reads models that normalise once before the unembedding")
    head = model.get_output_embeddings()
    if head is None:
        raise InputError(f"logit lens: expected an output embedding in {kind}, got none; name a causal model")
    return blocks, norms[0], head


@contextlib.contextmanager
def residual_streams(blocks: nn.ModuleList) -> Iterator[list[Tensor]]:
    """A list that holds the residual stream (B, T, H) of layers 0 to L after each forward pass inside the block."""
    streams: list[Tensor] = []

    def enter(module, arguments, options):
        streams.clear()
        streams.append(arguments[0] if arguments else options["hidden_states"])

    def leave(module, arguments, output):
        streams.append(output[0] if isinstance(output, tuple) else output)

    hooks = [blocks[0].register_forward_pre_hook(enter, with_kwargs=True)]
    hooks += [block.register_forward_hook(leave) for block in blocks]
    try:
        yield streams
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def layer_probabilities(
    model, encoded: Encoded, *, batch_size: int = 16, report: Report | None = None
) -> LayerProbabilities:
    """Probability of each completion after every layer; `encoded` is what `ifguide.data.queries.encode_queries` gives.
    An InputError: as `find_lens_parts`; a NumericalError: the last layer does not give the model's own probabilities,
    so the lens does not fit the model."""
    blocks, norm, head = find_lens_parts(model)
    probability, log_probability = (np.zeros((len(encoded), len(blocks) + 1)) for _ in range(2))
    model.eval()
    done = 0
    with residual_streams(blocks) as streams:
        for batch in query_batches(encoded, batch_size, model.device):
            own = log_probabilities(take_predictions(read_logits(model, batch), batch), batch)
            seen = (head(norm(take_predictions(stream, batch))) for stream in streams)
            layers = torch.stack([log_probabilities(logits, batch) for logits in seen], dim=1)  # (n, L+1)
            if not torch.allclose(layers[:, -1], own, rtol=1e-3, atol=1e-3):
                raise NumericalError(
                    f"logit lens: expected the last layer of {type(model).__name__} to give the model's own"
                    f" probabilities, but log-probabilities differ by up to {(layers[:, -1] - own).abs().max():.3g};"
                    " this model changes its logits after the unembedding, which the lens cannot follow"
                )
            numbers = batch.sequence.tolist()
            probability[numbers] = mean_by_row(layers.exp(), batch).numpy()
            log_probability[numbers] = mean_by_row(layers, batch).numpy()
            done += len(numbers)
            if report:
                report(done, len(encoded))
    return LayerProbabilities(probability, log_probability)

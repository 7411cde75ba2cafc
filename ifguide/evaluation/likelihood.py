"""The probability that a model gives to each token of a completion."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ifguide.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenLikelihood:
    """One completion under one model."""

    pieces: list[str]
    """Its n tokens as text; joined, they are the completion."""
    log_probability: np.ndarray
    """float64 (n,), natural log of each token's probability after the prompt and the tokens before."""


def token_likelihoods(
    model, tokenizer, prompt: str, completions: Sequence[str], *, batch_size: int = 32
) -> list[TokenLikelihood]:
    """Log-probability of every token of some completions, each with its leading space, after one prompt.

    The prompt is encoded as for generation. A completion is tokenized from its text, which may give other tokens than
    those that were drawn if the text can be tokenized in two ways. An empty one has no tokens. An InputError: a
    completion leaves no room for the prompt.
    """
    import torch

    from ifguide.data.packing import IGNORED, pad_rows
    from ifguide.data.tokenizing import cut_pieces, tokenize
    from ifguide.evaluation.generation import encode_prompts
    from ifguide.models.loading import context_length
    from ifguide.training.objective import token_losses

    texts = tokenize(tokenizer, list(completions))
    tokenized = [text.token_ids for text in texts]
    room = context_length(model.config) - max((len(ids) for ids in tokenized), default=0)
    if room < 2:
        context = f"the model's context of {context_length(model.config)} tokens"
        raise InputError(f"expected completions shorter than {context}, got one that fills it")
    lead = encode_prompts(tokenizer, [prompt], room)[0]
    ends = [text.char_end for text in texts]
    pieces = [cut_pieces(text, end) if len(end) else [] for text, end in zip(completions, ends, strict=True)]
    log_probabilities: list[np.ndarray] = []
    model.eval()
    for start in range(0, len(tokenized), batch_size):
        batch = tokenized[start : start + batch_size]
        ids = torch.from_numpy(pad_rows([[*lead, *tokens] for tokens in batch], lead[0]))
        labels = torch.from_numpy(pad_rows([[*[IGNORED] * len(lead), *tokens] for tokens in batch], IGNORED))
        with torch.inference_mode():
            logits = model(input_ids=ids.to(model.device), use_cache=False).logits
            losses = token_losses(logits, labels.to(model.device)).double().cpu().numpy()
        log_probabilities += [
            -losses[row, len(lead) - 1 : len(lead) - 1 + len(tokens)] for row, tokens in enumerate(batch)
        ]
    return [
        TokenLikelihood(pieces=p, log_probability=values) for p, values in zip(pieces, log_probabilities, strict=True)
    ]

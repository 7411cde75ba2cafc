"""LAMBADA: does a model guess the last word of a passage (Paperno et al. 2016)?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ifguide.errors import InputError
from ifguide.evaluation import Report


class LastWords(NamedTuple):
    """How a model did on P passages."""

    correct: np.ndarray
    """bool (P,): greedy decoding gives exactly the last word of the passage."""
    log_probability: np.ndarray
    """float64 (P,), nats: of the last word's tokens together."""


def split_last_word(text: str) -> tuple[str, str]:
    """A passage without its last word, and that word with the white space before it; white space at the end is dropped.
    Fewer than two words are an InputError."""
    text = text.rstrip()
    word = text.split()[-1] if text.split() else ""
    start = len(text[: len(text) - len(word)].rstrip())
    if not start:
        raise InputError(f"LAMBADA: expected a passage of at least two words, got {text[:60]!r}; remove it")
    return text[:start], text[start:]


def guess_last_words(
    model, tokenizer, texts: Sequence[str], *, last: str = "word", batch_size: int = 16, report: Report | None = None
) -> LastWords:
    """Does greedy decoding give the last words of P passages, or, with `last` = `token`, their last tokens? One longer
    than the context loses its beginning.

    It does exactly when each token of a word is the most likely one after the right tokens before it, so one forward
    pass answers for the whole word. An InputError: a passage of one word.
    """
    import pandas as pd
    import torch

    from ifguide.data.queries import encode_queries
    from ifguide.evaluation.query_batches import log_probabilities, query_batches, read_logits, take_predictions
    from ifguide.models.layers import device_of
    from ifguide.models.loading import bos_context, context_length

    pairs = pd.DataFrame([split_last_word(text) for text in texts], columns=["prompt", "completion"])
    encoded = encode_queries(pairs, tokenizer, context_length(model.config), bos_id=bos_context(tokenizer))
    if last == "token":
        encoded = [(ids, np.arange(len(ids)) == len(ids) - 1) for ids, _ in encoded]
    correct, log_probability = np.zeros(len(encoded), dtype=bool), np.zeros(len(encoded))
    model.eval()
    done = 0
    for batch in query_batches(encoded, batch_size, device_of(model)):
        with torch.inference_mode():
            logits = take_predictions(read_logits(model, batch), batch)  # (tokens, V)
            hits = (logits.argmax(-1) == batch.targets[batch.counted]).cpu()
            likely = log_probabilities(logits, batch).cpu()
        lengths, numbers = batch.counted.sum(1).tolist(), batch.sequence.tolist()
        for number, own_hits, own_likely in zip(numbers, hits.split(lengths), likely.split(lengths), strict=True):
            correct[number] = bool(own_hits.all())
            log_probability[number] = float(own_likely.sum())
        done += len(numbers)
        if report:
            report(done, len(encoded))
    return LastWords(correct, log_probability)

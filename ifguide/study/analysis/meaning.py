"""What documents and a reader's text mean to the base model: whitened means of an earlier layer's hidden states, and
which documents are nearest by them.

D documents, n of them with a score, states of width H, R components that are kept."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ifguide.data.packing import chunk_documents
from ifguide.data.readers import check_text
from ifguide.data.tokenizing import tokenize
from ifguide.errors import InputError, NumericalError
from ifguide.study.reading import Study
from ifguide.study.stages.checkpoints import read_layout

if TYPE_CHECKING:
    from ifguide.influence.batches import CorpusSequences

DEPTH, COMPONENTS, DOCUMENTS_EACH = 1 / 3, 256, 2
"""The layer that is read, as a share of the depth; the most components, and how many documents each takes at least, for
with as many as documents all are equally far from each other. Chosen by `python -m benchmarks.choices --meaning`."""
LONGEST, BLOCK = 20_000, 65_536
"""Characters of a text that is searched for, and documents compared at once."""


def meaning_layer(n_layers: int) -> int:
    """Which of a model's `n_layers` + 1 hidden states is read, at least the first layer's output."""
    return max(1, round(DEPTH * n_layers))


def average_states(
    model: Any,
    sequences: "CorpusSequences",
    offsets: np.ndarray,
    documents: np.ndarray,
    layers: Sequence[int],
    tokens_per_batch: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Which of the documents, ascending, have a token with a score, int64 (n,), and the means of some layers' states
    over those tokens, float32 (n, len(layers), H). `offsets` (D+1,) are all documents'; `report` is told tokens done
    and in all. A NumericalError: a state is not finite."""
    import torch

    from ifguide.influence.batches import make_batches
    from ifguide.influence.probe import hidden_states
    from ifguide.models.layers import device_of

    device = device_of(model)
    sums = np.zeros((len(documents), len(layers), model.config.get_text_config().hidden_size), dtype=np.float32)
    counts = np.zeros(len(documents), dtype=np.int64)
    done, total = 0, int(np.diff(offsets)[documents].sum())
    for batch in make_batches(sequences, tokens_per_batch):
        counted = batch.target_index >= 0  # (B, T-1)
        states = hidden_states(model, batch.to(device))
        of = np.searchsorted(offsets, batch.target_index.max(dim=1).values.numpy(), side="right") - 1
        rows = np.searchsorted(documents, of)
        for place, layer in enumerate(layers):
            state = states[layer][:, 1:].float()  # (B, T-1, H)
            summed = torch.einsum("bth,bt->bh", state, counted.to(state.device).float())
            np.add.at(sums[:, place], rows, summed.cpu().numpy())
        np.add.at(counts, rows, counted.sum(dim=1).numpy())
        done += batch.n_tokens
        report(min(done, total), total)
    if not np.isfinite(sums).all():
        raise NumericalError("a hidden state is not finite; run the model in float32 (model.dtype)")
    scored = counts > 0
    return documents[scored], sums[scored] / counts[scored, None, None]


def fit_whitening(means: np.ndarray, n_components: int = 0) -> np.ndarray:
    """What takes mean states (n, H) to components of variance 1, float32 (1 + H, R): their mean in the first row, below
    it the principal axes, each over the standard deviation along it; as many as are usual, or `n_components`."""
    centre = means.mean(axis=0, dtype=np.float64)
    moved = means - centre
    variances, axes = np.linalg.eigh(moved.T @ moved / len(means))
    n_components = n_components or min(COMPONENTS, max(1, len(means) // DOCUMENTS_EACH))
    kept = np.flatnonzero(variances > 1e-9 * variances[-1])[::-1][:n_components]
    axes = axes[:, kept] / np.sqrt(variances[kept])
    return np.vstack([centre @ axes, axes]).astype(np.float32)


def whiten(means: np.ndarray, whitening: np.ndarray) -> np.ndarray:
    """Mean states (n, H) as directions of length 1, float32 (n, R), the product of two of which is their likeness."""
    white = means @ whitening[1:] - whitening[0]
    return white / np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-12)


def rank_nearest(states: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Numbers of the documents with states, (D, R) or NaN, int64: those with the largest product with a direction
    (R,) first, equals by number. The states may be memory-mapped; they are read once, block by block."""
    likeness = np.empty(len(states), dtype=np.float32)
    for start in range(0, len(states), BLOCK):
        likeness[start : start + BLOCK] = states[start : start + BLOCK].astype(np.float32) @ direction
    return np.argsort(-likeness, kind="stable")[: np.isfinite(likeness).sum()]


def average_text(study: Study, text: str, model: Any, tokenizer: Any) -> np.ndarray:
    """The mean state of a text as if it were a document of the study, float32 (1, H), by the base model. An InputError:
    it is empty, of a single token or too long, or no text."""
    from ifguide.influence.batches import CorpusSequences

    check_text(text, "search by meaning", "the text")
    if not text.strip() or len(text) > LONGEST:
        raise InputError(f"search by meaning: expected 1 to {LONGEST:,} characters, got {len(text.strip()):,}")
    [tokens], layout = tokenize(tokenizer, [text]), read_layout(study)
    offsets = np.array([0, len(tokens.token_ids)])
    if offsets[1] < 2:
        raise InputError(
            "search by meaning: expected two tokens or more, got one; type a phrase, or search for the word"
        )
    chunks = chunk_documents(offsets, layout["max_length"] - (layout["bos"] is not None))
    sequences = CorpusSequences(tokens.token_ids, offsets, chunks, layout["bos"])
    layers = [meaning_layer(model.config.get_text_config().num_hidden_layers)]
    return average_states(model, sequences, offsets, np.array([0]), layers, study.config.compute.tokens_per_batch)[1][0]

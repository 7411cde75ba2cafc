"""`tfidf`: influence times log(N / (df + 1)), for N documents of which df have the token's vocabulary entry."""

from collections.abc import Iterator

import numpy as np

from ifguide.data.by_document import document_runs


def combine(arrays: list[np.ndarray], corpus) -> Iterator[np.ndarray]:
    """Blocks of scaled scores, a run of documents each."""
    offsets, frequency = np.asarray(corpus.offsets), np.zeros(0, dtype=np.int64)
    for first, stop in document_runs(offsets):
        tokens = np.asarray(corpus.token_ids[offsets[first] : offsets[stop]], dtype=np.int64)
        owner = np.repeat(np.arange(stop - first), np.diff(offsets[first : stop + 1]))
        entries = np.unique(tokens * (stop - first) + owner) // (stop - first)  # each entry once a document
        counted = np.bincount(entries, minlength=len(frequency))
        frequency = counted + np.pad(frequency, (0, len(counted) - len(frequency)))
    rarity = np.log(corpus.n_documents / (frequency + 1))
    for first, stop in document_runs(offsets):
        part = slice(int(offsets[first]), int(offsets[stop]))
        yield (arrays[0][part] * rarity[np.asarray(corpus.token_ids[part])]).astype(np.float32)

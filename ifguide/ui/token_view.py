"""One document -> what the token viewer draws. No streamlit here."""

from collections.abc import Mapping

import numpy as np

from ifguide.corpus import TokenizedCorpus
from ifguide.ui.format import ATTRIBUTION_TITLES, count, count_of

TOKENS_PER_PART = 3000
"""Longer documents are shown in parts of this many tokens."""
TOP_QUANTILE = 0.999
"""Colours are full from this quantile of the absolute scores on, so that one outlier does not pale all others."""


def scale_top(scores: np.ndarray, valid: np.ndarray) -> float:
    """The absolute score at which colours are full: a quantile over all valid tokens of the corpus."""
    sizes = np.abs(np.asarray(scores)[np.asarray(valid)])
    if sizes.size == 0:
        return 0.0
    place = min(sizes.size - 1, int(np.ceil(TOP_QUANTILE * sizes.size)) - 1)
    top = float(np.partition(sizes, place)[place])
    return top if top > 0 else float(sizes.max())


def n_parts(n_tokens: int) -> int:
    """In how many parts a document is shown."""
    return max(1, -(-n_tokens // TOKENS_PER_PART))


def build_payload(
    corpus: TokenizedCorpus,
    index: int,
    *,
    layers: Mapping[str, tuple[np.ndarray, float]],
    colour: str,
    mask: np.ndarray | None,
    part: int = 0,
    veil: bool = True,
) -> dict:
    """Everything the viewer needs for one part of one document.

    Args:
        corpus: the study's corpus.
        index: which document.
        layers: kind of score -> (values float32 (N,), the value at which its colour is full).
        colour: the kind that gives the colours.
        mask: bool (N,), selected tokens; None before there is a selection.
        part: which part, counted from 0.
        veil: blur the text until the reader asks for it.
    """
    begin, end = int(corpus.offsets[index]), int(corpus.offsets[index + 1])
    length = end - begin
    start = part * TOKENS_PER_PART
    stop = min(length, start + TOKENS_PER_PART)
    here = slice(begin + start, begin + stop)
    top = layers[colour][1]
    note = (
        f"Tokens {count(start + 1)} to {count(stop)} of {count(length)}. "
        if n_parts(length) > 1
        else f"{count_of(length, 'token')}. "
    )
    note += (
        f"Colours mean the same in every document; {TOP_QUANTILE:.1%} of the corpus's tokens lie inside the scale."
        if top
        else "No scores to colour by."
    )
    return {
        "key": f"{index}:{part}",
        "pieces": corpus.document_tokens(index)[start:stop],
        "start": start,
        "length": length,
        "layers": {
            kind: {"title": ATTRIBUTION_TITLES[kind], "top": limit, "values": _rounded(values[here])}
            for kind, (values, limit) in layers.items()
        },
        "colour": colour,
        "selected": [] if mask is None else np.flatnonzero(mask[here]).tolist(),
        "truth": None if corpus.in_span is None else np.flatnonzero(corpus.in_span[here]).tolist(),
        "veil": veil,
        "note": note,
    }


def _rounded(values: np.ndarray) -> list[float]:
    """Four significant digits: what a tooltip shows, at a third of the bytes."""
    return [float(f"{value:.4g}") for value in np.asarray(values, dtype=np.float64)]

"""Documents run together and cut into chunks of one length, as IF-Guide's released code ranks them."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ifguide.data.tokenizing import TokenizedText

BETWEEN = "\n\n"
"""What separates documents in a chunk's text; it belongs to no token."""


class Chunk(NamedTuple):
    """Some tokens in a row, and the text they come from."""

    text: str
    tokens: TokenizedText
    spans: tuple[tuple[int, int], ...]
    """Known spans, in characters of `text`."""
    source: str
    """Of the document it begins with."""


def join_documents(documents: Iterable[Chunk], length: int, eos_id: int | None) -> Iterator[Chunk]:
    """Chunks of `length` tokens from documents laid end to end, each followed by the end-of-text token; the last one is
    shorter. An end-of-text token has no characters."""
    pieces: list[Chunk] = []
    total = 0
    for text, tokens, spans, source in documents:
        ids, starts, ends = tokens
        if eos_id is not None:
            ids, starts, ends = np.append(ids, eos_id), np.append(starts, len(text)), np.append(ends, len(text))
        for start, stop in pairwise([0, *range(length - total % length, len(ids), length), len(ids)]):
            low = int(ends[start - 1]) if start else 0
            high = int(ends[stop - 1]) if stop < len(ids) else len(text)
            part = TokenizedText(ids[start:stop], np.maximum(starts[start:stop], low) - low, ends[start:stop] - low)
            cut = ((max(first, low) - low, min(last, high) - low) for first, last in spans)
            inside = tuple((first, last) for first, last in cut if first < last)
            pieces.append(Chunk(text[low:high] + BETWEEN * (stop == len(ids)), part, inside, source))
            total += stop - start
            if total % length == 0:
                yield _lay_end_to_end(pieces)
                pieces = []
    if pieces:
        yield _lay_end_to_end(pieces)


def _lay_end_to_end(pieces: list[Chunk]) -> Chunk:
    tokens, spans, shift = [], [], 0
    for text, (ids, starts, ends), inside, _ in pieces:
        tokens.append((ids, starts + shift, ends + shift))
        spans += [(first + shift, last + shift) for first, last in inside]
        shift += len(text)
    joined = TokenizedText(*(np.concatenate(part).astype(np.int32) for part in zip(*tokens, strict=True)))
    return Chunk("".join(piece.text for piece in pieces), joined, tuple(spans), pieces[0].source)

"""Documents run together and cut into chunks of one length, as IF-Guide's released code ranks them."""

from collections.abc import Iterable, Iterator
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


class Joined:
    """Chunks of `length` tokens from documents laid end to end, each followed by the end-of-text token; the last one is
    shorter. An end-of-text token has no characters."""

    def __init__(self, length: int, eos_id: int | None):
        self._length, self._eos = length, eos_id
        self._begin()

    def _begin(self) -> None:
        self._texts: list[str] = []
        self._parts: list[TokenizedText] = []
        self._spans: list[tuple[int, int]] = []
        self._source = ""
        self._n_characters = self._n_tokens = 0

    def add(self, text: str, tokens: TokenizedText, spans: Iterable[tuple[int, int]], source: str) -> Iterator[Chunk]:
        """Lay one more document down; gives the chunks that it fills."""
        ids, starts, ends = tokens
        if self._eos is not None:
            ids, starts, ends = (
                np.append(part, end) for part, end in zip(tokens, (self._eos, *[len(text)] * 2), strict=True)
            )
        done = 0
        while done < len(ids):
            stop = min(len(ids), done + self._length - self._n_tokens)
            low = int(ends[done - 1]) if done else 0
            high = int(ends[stop - 1]) if stop < len(ids) else len(text)
            shift = self._n_characters - low
            self._source = self._source or source
            self._texts.append(text[low:high] + BETWEEN * (stop == len(ids)))
            self._parts.append(
                TokenizedText(ids[done:stop], np.maximum(starts[done:stop], low) + shift, ends[done:stop] + shift)
            )
            cut = ((max(start, low) + shift, min(end, high) + shift) for start, end in spans)
            self._spans += [(start, end) for start, end in cut if start < end]
            self._n_characters += len(self._texts[-1])
            self._n_tokens += stop - done
            done = stop
            if self._n_tokens == self._length:
                yield from self.rest()

    def rest(self) -> Iterator[Chunk]:
        """The chunk that is not full yet, if it has a token."""
        if self._n_tokens:
            tokens = TokenizedText(*(np.concatenate(part).astype(np.int32) for part in zip(*self._parts, strict=True)))
            yield Chunk("".join(self._texts), tokens, tuple(self._spans), self._source)
            self._begin()

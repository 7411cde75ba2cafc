"""Which words are in only one of two texts. Pure Python."""

import re
from difflib import SequenceMatcher

from ifguide.data.words import WRITTEN_WORD

_PIECE = re.compile(rf"{WRITTEN_WORD.pattern}|\s+|[^\w\s]")

Runs = list[tuple[str, bool]]
"""A text cut into runs, each with whether it is in this text only; joined, they are the text."""


def diff_words(first: str, other: str) -> tuple[Runs, Runs]:
    """Mark what two texts do not share: both texts as runs.

    Words and punctuation are compared literally, in order; white space is not. What is unmarked reads the same in both.
    """
    pieces = _PIECE.findall(first), _PIECE.findall(other)
    places = [[i for i, piece in enumerate(side) if not piece.isspace()] for side in pieces]
    words = [[side[i] for i in at] for side, at in zip(pieces, places, strict=True)]
    shared: tuple[set[int], set[int]] = (set(), set())
    for a, b, size in SequenceMatcher(None, words[0], words[1], autojunk=False).get_matching_blocks():
        shared[0].update(places[0][a : a + size])
        shared[1].update(places[1][b : b + size])
    return _runs(pieces[0], shared[0]), _runs(pieces[1], shared[1])


def _runs(pieces: list[str], shared: set[int]) -> Runs:
    """Neighbours of one kind together; white space is marked only between marked words."""
    marked = [i not in shared and not piece.isspace() for i, piece in enumerate(pieces)]
    for i, piece in enumerate(pieces):
        if piece.isspace():
            marked[i] = 0 < i < len(pieces) - 1 and marked[i - 1] and marked[i + 1]
    runs: Runs = []
    for piece, mark in zip(pieces, marked, strict=True):
        if runs and runs[-1][1] == mark:
            runs[-1] = (runs[-1][0] + piece, mark)
        else:
            runs.append((piece, mark))
    return runs

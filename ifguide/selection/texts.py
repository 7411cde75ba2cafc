"""Texts with a score a token, in memory, and Algorithm 1 on them. No study, no files.

D texts, N tokens of all texts laid end to end.
"""

import html
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from ifguide.data.by_document import sum_by_document
from ifguide.data.packing import IGNORED, mark_labels
from ifguide.data.tokenizing import cut_pieces
from ifguide.errors import ConfigError
from ifguide.selection.algorithm import Ranking, count_tail, rank_at_quantile, rank_documents, select_tokens
from ifguide.selection.index.chunks import Chunks

SHOWN_TEXTS, SHOWN_TOKENS = 10, 300
"""What a notebook shows: this many texts, and of each this many tokens."""
_STYLE = {True: "232, 138, 28", False: "85, 157, 222"}
"""Orange towards toxic, blue towards safe, as red, green and blue."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoredTexts:
    """Texts and the score of each token. A notebook shows the texts with the largest scores, coloured, on request."""

    texts: tuple[str, ...] = field(repr=False)
    token_ids: np.ndarray = field(repr=False)
    """int32 (N,)."""
    char_end: np.ndarray = field(repr=False)
    """int32 (N,): where each token ends in its text, in code points."""
    offsets: np.ndarray = field(repr=False)
    """int64 (D+1,): text d's tokens are at [offsets[d], offsets[d+1])."""
    scores: np.ndarray = field(repr=False)
    """float32 (N,), positive where training on the token makes toxic completions likelier; 0 for the first of a text,
    which nothing predicts. In standard deviations for `combined`, else as the method has them."""
    kind: str = "combined"
    """`own_loss`, `probe` or `combined`."""
    selected: np.ndarray | None = field(default=None, repr=False)
    """bool (N,): the tokens that `select` chose; None before."""
    ranking: Ranking | None = field(default=None, repr=False)
    """The texts in order, best first, with what they are ordered by; None before `select`."""

    def __len__(self) -> int:
        return len(self.texts)

    def place(self, text: int) -> slice:
        """Where a text's tokens are in the arrays of length N."""
        return slice(int(self.offsets[text]), int(self.offsets[text + 1]))

    def valid(self) -> np.ndarray:
        """bool (N,): tokens that have a score, all but each text's first."""
        valid = np.ones(len(self.token_ids), dtype=bool)
        valid[self.offsets[:-1][np.diff(self.offsets) > 0]] = False
        return valid

    def select(self, quantile: float = 0.0, *, window: int = 0, max_tokens: int = 0) -> "ScoredTexts":
        """Algorithm 1: the same texts with `selected` and `ranking`.

        Args:
            quantile: tokens whose score is strictly above this quantile of all are hits; 0 takes the scores' upper
                tail, which needs no labels (see `ifguide.selection.algorithm.count_tail`).
            window: tokens taken on each side of a hit.
            max_tokens: the budget; 0: none.

        Raises:
            ConfigError: the quantile is out of range, no token has a score, or the scores have no tail.
        """
        valid = self.valid()
        if not valid.any():
            raise ConfigError("expected texts of at least two tokens, got none; there is nothing to select from")
        n_valid = int(valid.sum())
        above = rank_at_quantile(n_valid, quantile) if quantile else count_tail(self.scores, self.offsets)
        threshold, _ = Chunks(self.scores, self.offsets).threshold_above(above)
        ranking = rank_documents(self.scores, self.offsets, valid, threshold, np.arange(len(self)))
        chosen = select_tokens(self.scores, self.offsets, valid, ranking, window=window, max_tokens=max_tokens)
        return replace(self, ranking=ranking, selected=chosen)

    def rows(self) -> Iterator[dict[str, list[int]]]:
        """Each text as `input_ids` and `labels` for a trainer whose loss is
        `ifguide.training.objective.penalised_loss`: the labels say which tokens are selected. Texts of one token, which
        predict nothing, are left out. A ConfigError: nothing is selected yet."""
        if self.selected is None:
            raise ConfigError("expected a selection, got none; call select() first")
        for text in range(len(self)):
            here = self.place(text)
            ids = self.token_ids[here].astype(np.int64)
            if len(ids) > 1:
                labels = mark_labels(ids, self.selected[here])
                labels[0] = IGNORED
                yield {"input_ids": ids.tolist(), "labels": labels.tolist()}

    def _repr_html_(self) -> str:
        """The best texts, closed until the reader opens them; everything from a text is escaped."""
        if self.ranking is None:
            order = np.argsort(-sum_by_document(self.scores, self.offsets), kind="stable")
        else:
            order = self.ranking.order
        top = float(np.quantile(np.abs(self.scores), 0.999)) if len(self.scores) else 0.0
        summary = f"{len(self):,} texts, {len(self.token_ids):,} tokens, scores: {self.kind}"
        if self.selected is not None:
            summary += f"; {int(self.selected.sum()):,} tokens selected (underlined)"
        shown = "".join(f"<p>{self._token_html(int(text), top or 1.0)}</p>" for text in order[:SHOWN_TEXTS])
        title = f"{summary}. Show the first {min(SHOWN_TEXTS, len(self))}; they may be offensive"
        return f"<details><summary>{html.escape(title)}</summary>{shown}</details>"

    def _token_html(self, text: int, top: float) -> str:
        here = self.place(text)
        pieces = cut_pieces(self.texts[text], self.char_end[here])[:SHOWN_TOKENS]
        marked = [False] * len(pieces) if self.selected is None else self.selected[here].tolist()
        tokens = []
        for piece, score, chosen in zip(pieces, self.scores[here].tolist(), marked, strict=False):
            style = f"background: rgba({_STYLE[score > 0]}, {min(1.0, abs(score) / top):.2f})"
            style += "; text-decoration: underline 2px" if chosen else ""
            tokens.append(f'<span style="{style}" title="{score:.3g}">{html.escape(piece)}</span>')
        return "".join(tokens) + ("…" if here.stop - here.start > SHOWN_TOKENS else "")

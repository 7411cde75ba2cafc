"""Documents -> training rows of equal length. Pure NumPy.

D documents, N corpus tokens, R rows, L tokens in a row, P pieces (a piece is the part of one document in one row).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ifguide.data.stretches import inside
from ifguide.errors import ConfigError

IGNORED = -100
"""Label of a position without a target: padding, and a document's first token. torch's cross-entropy ignores it."""


def mark_labels(labels: np.ndarray, selected: np.ndarray) -> np.ndarray:
    """Labels int64 (T,) that carry which of them are selected, bool (T,), for `ifguide.training.objective`'s
    `penalised_loss`: a selected label y becomes -101 - y. A collator pads and cuts them like any labels."""
    labels = np.asarray(labels)
    return np.where(np.asarray(selected) & (labels >= 0), IGNORED - 1 - labels, labels)


def pad_rows(rows: Sequence, fill, dtype=np.int64) -> np.ndarray:
    """Rows of different lengths as one array (B, T), filled up on the right to the longest with `fill`.

    No attention mask is needed: under causal attention no token sees the padding after it.
    """
    padded = np.full((len(rows), max(map(len, rows))), fill, dtype=dtype)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return padded


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """One row, arrays of shape (L,)."""

    input_ids: np.ndarray
    """int64. Padding is the end-of-text id (0 when there is none) and comes last in a row, where causal attention never
    sees it."""
    labels: np.ndarray
    """int64, aligned with `input_ids`: `labels[j]` is the target of position j-1, or -100."""
    token_index: np.ndarray
    """int64. The corpus token at each position, -1 for end-of-text and padding."""
    selected: np.ndarray
    """bool. True where the label is a selected corpus token, so a token that is also repeated as
    context counts once."""
    position_ids: np.ndarray
    """int64, from 0 in each piece, so that packed documents get the positions they would have alone."""
    document_index: np.ndarray
    """int64. The document at each position, its end-of-text included; -1 on padding."""


@dataclass(frozen=True, eq=False)
class PackedRows(Sequence):
    """A sequence of rows, cut from the (memory-mapped) corpus on access. Made by `pack_rows`."""

    token_ids: np.ndarray
    offsets: np.ndarray
    max_length: int
    eos_id: int | None
    selected: np.ndarray | None
    piece_document: np.ndarray = field(repr=False)
    """int64 (P,): the piece's document."""
    piece_start: np.ndarray = field(repr=False)
    """int64 (P,): the piece's first element in its document; element n of an n-token document is its end-of-text."""
    piece_stop: np.ndarray = field(repr=False)
    """int64 (P,): one past the last element of the piece."""
    row_first_piece: np.ndarray = field(repr=False)
    """int64 (R+1,): row r holds the pieces [row_first_piece[r], row_first_piece[r+1])."""
    trained: np.ndarray | None = None
    ends: bool = True

    def __len__(self) -> int:
        return len(self.row_first_piece) - 1

    def __getitem__(self, index: int) -> Rows:  # type: ignore[override]  # one row; Sequence's also takes slices
        """Row `index`; an IndexError outside [-R, R)."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected a row number below {len(self)}, got {index}")
        length, number, column = self.max_length, index % len(self), 0
        row = Rows(
            input_ids=np.full(length, 0 if self.eos_id is None else self.eos_id, dtype=np.int64),
            labels=np.full(length, IGNORED, dtype=np.int64),
            token_index=np.full(length, -1, dtype=np.int64),
            selected=np.zeros(length, dtype=bool),
            position_ids=np.zeros(length, dtype=np.int64),
            document_index=np.full(length, -1, dtype=np.int64),
        )
        for piece in range(self.row_first_piece[number], self.row_first_piece[number + 1]):
            column = self._write_piece(row, column, piece)
        return row

    def _write_piece(self, row: Rows, column: int, piece: int) -> int:
        document, start, stop = self.piece_document[piece], int(self.piece_start[piece]), int(self.piece_stop[piece])
        first, last = int(self.offsets[document]), int(self.offsets[document + 1])
        tokens = slice(first + start, min(first + stop, last))
        n_tokens, length = tokens.stop - tokens.start, stop - start  # length is one more when the end-of-text is inside
        row.input_ids[column : column + n_tokens] = self.token_ids[tokens]
        row.token_index[column : column + n_tokens] = np.arange(tokens.start, tokens.stop)
        # the piece's first element is only context: nothing before it in this row predicts it
        labels = row.labels[column : column + length]
        labels[1:] = row.input_ids[column + 1 : column + length]
        if self.trained is not None:
            labels[:n_tokens][~inside(self.trained, tokens.start, tokens.stop)] = IGNORED
        if not self.ends:
            labels[n_tokens:] = IGNORED
        if self.selected is not None:
            row.selected[column + 1 : column + n_tokens] = self.selected[tokens][1:]
        row.position_ids[column : column + length] = np.arange(length)
        row.document_index[column : column + length] = document
        return column + length


@dataclass(frozen=True, eq=False)
class BosRows(Sequence):
    """Unpacked rows; those that begin a document get a beginning-of-text token before it, as context only."""

    rows: PackedRows
    """Rows of one document each, a token shorter than the model allows."""
    bos_id: int

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Rows:  # type: ignore[override]  # one row; Sequence's also takes slices
        """Row `index`, arrays of shape (L+1,) where it begins a document, else (L,)."""
        row = self.rows[index]
        if row.token_index[0] != self.rows.offsets[row.document_index[0]]:
            return row
        before = {"input_ids": self.bos_id, "labels": IGNORED, "token_index": -1, "selected": False, "position_ids": 0}
        arrays = {name: np.concatenate([[value], getattr(row, name)]) for name, value in before.items()}
        arrays["position_ids"] = np.arange(len(row.input_ids) + 1)
        return Rows(**arrays, document_index=np.concatenate([row.document_index[:1], row.document_index]))


@dataclass(frozen=True, eq=False)
class DroppedRows(Sequence):
    """Rows in which the tokens of some documents have no labels, and all keep their places. So a model trained without
    those documents takes the same rows in the same order and batches as one trained with them."""

    rows: Sequence
    """Rows with `labels`, `selected` and `document_index`."""
    dropped: np.ndarray
    """bool (D,): documents to leave out."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Rows:  # type: ignore[override]  # one row; Sequence's also takes slices
        row = self.rows[index]
        gone = np.append(self.dropped, False)[row.document_index]  # padding has document -1
        return replace(row, labels=np.where(gone, IGNORED, row.labels), selected=np.zeros(gone.shape, dtype=bool))


def pack_rows(
    token_ids: np.ndarray,
    offsets: np.ndarray,
    max_length: int,
    eos_id: int | None,
    selected: np.ndarray | None = None,
    pack: bool = True,
    trained: np.ndarray | None = None,
    ends: bool = True,
) -> PackedRows:
    """Lay documents out in rows of `max_length` tokens for training.

    Each document is its tokens followed by one end-of-text token. Every token but a document's first, and each
    end-of-text, is a label exactly once. A document that does not fit continues in the next row, which repeats one
    token as context (its label there is -100).

    Args:
        token_ids: int (N,), the corpus laid end to end; may be memory-mapped.
        offsets: int64 (D+1,), document d owns tokens [offsets[d], offsets[d+1]).
        max_length: L, tokens in a row, at least 2.
        eos_id: the end-of-text token; None leaves it out, which needs `pack=False`.
        selected: bool (N,), the suppression mask by corpus token. None: nothing is selected.
        pack: several documents in a row, with the end-of-text between them; false pads after each document instead.
        trained: int64 (2R,), edges of the tokens that are labels (see `ifguide.data.stretches`); None: all.
        ends: the end-of-text is a label too.

    Raises:
        ConfigError: `max_length` below 2, packing without an end-of-text token, or a mask of the wrong shape.
    """
    if max_length < 2:
        raise ConfigError(f"expected rows of 2 tokens or more, got max_length {max_length}; raise corpus.max_length")
    if pack and eos_id is None:
        reason = "packing needs an end-of-text token and the tokenizer has none"
        raise ConfigError(f"{reason}; set its eos_token or training.packing=false")
    if selected is not None and selected.shape != token_ids.shape:
        expected = f"a mask of shape {token_ids.shape}, one flag a corpus token"
        raise ConfigError(f"expected {expected}, got {selected.shape}; select again")
    lengths = np.diff(offsets)
    chosen = np.flatnonzero(lengths > 0)
    n_elements = lengths[chosen] + (eos_id is not None)
    if pack:
        which, start, stop, row_first_piece = _place_packed(n_elements, max_length)
    else:  # one piece a row
        which, start, stop = cut_overlapping(n_elements, max_length)
        row_first_piece = np.arange(len(which) + 1)
    cut = (chosen[which], start, stop, row_first_piece)
    return PackedRows(token_ids, offsets, max_length, eos_id, selected, *cut, trained, ends)


def cut_overlapping(lengths: np.ndarray, max_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut sequences of `lengths` int (S,) elements into stretches of at most `max_length`, at least 2, that overlap by
    one.

    Returns (which, start, stop), each int64 (P,): stretch p is elements [start, stop) of sequence `which`. Each element
    but a sequence's first is inside, and not first, in exactly one stretch. A sequence of fewer than 2 has no target
    and gives no stretch.
    """
    step = max_length - 1
    counts = np.maximum(-(-(lengths - 1) // step), 0)
    which = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    start = number * step
    return which, start, np.minimum(start + max_length, lengths[which])


def chunk_documents(offsets: np.ndarray, max_length: int) -> np.ndarray:
    """Cut documents, `offsets` int64 (D+1,), into chunks of at most `max_length` tokens, of which neighbours share one.
    A ConfigError: `max_length` is below 2.

    Returns int64 (C, 3), rows (document, start, stop) in corpus order: absolute tokens [start, stop). Every token but a
    document's first is inside, and not first, in exactly one chunk. A document of one token has no chunk.
    """
    if max_length < 2:
        raise ConfigError(f"expected chunks of at least 2 tokens, got {max_length}; set corpus.max_length to 2 or more")
    document, start, stop = cut_overlapping(np.diff(offsets), max_length)
    first = np.asarray(offsets)[document]
    return np.stack([document, first + start, first + stop], axis=1).astype(np.int64)


def _place_packed(n_elements: np.ndarray, max_length: int):
    """Fill each row before the next begins; a single last position is padding."""
    pieces: list[tuple[int, int, int]] = []
    row_first_piece, used = [], max_length
    for which, length in enumerate(n_elements.tolist()):
        start = 0
        while start + 1 < length:
            if max_length - used < 2:
                row_first_piece.append(len(pieces))
                used = 0
            stop = min(start + max_length - used, length)
            pieces.append((which, start, stop))
            used += stop - start
            start = stop - 1
    table = np.array(pieces, dtype=np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2], np.array([*row_first_piece, len(pieces)], dtype=np.int64)

"""Packed rows on their way into training: trimmed, counted and padded to batches.

B rows in a batch, T tokens in the longest of them.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ifguide.data.packing import IGNORED, pad_rows
from ifguide.runtime.distributed import Processes


def trim_row(row) -> dict[str, np.ndarray]:
    """A row without the padding at its end.

    A row is a mapping, or an object with attributes such as `ifguide.data.packing.Rows`: `input_ids`, `labels` and, if
    present, `selected` (bool), `position_ids` and `document_index`, all of one length. It ends
    with its last document, labelled or not, so that the trainer, which groups rows by length, takes all in one order;
    else with its last label. The first label becomes `IGNORED`, and nothing is selected that has no label.
    """
    row = row if isinstance(row, Mapping) else vars(row)
    labels = np.array(row["labels"], dtype=np.int64)
    labels[:1] = IGNORED
    valid = labels != IGNORED
    selected, position_ids, documents = row.get("selected"), row.get("position_ids"), row.get("document_index")
    kept = (valid if documents is None else np.asarray(documents) >= 0).nonzero()[0]
    stop = int(kept[-1]) + 1 if len(kept) else 1
    selected = np.zeros_like(valid) if selected is None else np.asarray(selected, dtype=bool)
    return {
        "input_ids": np.asarray(row["input_ids"], dtype=np.int64)[:stop],
        "labels": labels[:stop],
        "selected": (valid & selected)[:stop],
        "position_ids": np.arange(stop) if position_ids is None else np.asarray(position_ids)[:stop],
    }


def collate_rows(rows: Sequence[Mapping], pad_id: int) -> dict[str, Tensor]:
    """Pad trimmed rows on the right to one length.

    No attention mask is needed: under causal attention no token sees the padding after it.

    Returns:
        `input_ids`, `labels` (`IGNORED` in the padding) int64 and `selected` (bool), all (B, T);
        and `position_ids` (B, T), but only when a row holds several documents. Positions that
        start again tell Transformers to keep attention inside each document (with `use_cache=False`), at the price of a
        full mask.
    """
    fills = {"input_ids": (pad_id,), "labels": (IGNORED,), "selected": (False, bool)}
    batch = {key: torch.from_numpy(pad_rows([row[key] for row in rows], *fill)) for key, fill in fills.items()}
    in_order = torch.arange(batch["labels"].shape[1])
    places = in_order.repeat(len(rows), 1)
    for row, positions in zip(rows, places, strict=True):
        positions[: len(row["position_ids"])] = torch.as_tensor(row["position_ids"])
    return batch if bool((places == in_order).all()) else {**batch, "position_ids": places}


EMPTY_ROW = trim_row({"input_ids": [0], "labels": [IGNORED]})
"""A row that teaches nothing and counts for nothing: what a process gets when there are no rows left for it."""


class TrainingRows(torch.utils.data.Dataset):
    """Any sequence of rows as the trainer takes them, trimmed on access; numbers from `len` on give `EMPTY_ROW`."""

    def __init__(self, rows: Sequence):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return trim_row(self.rows[index]) if index < len(self) else EMPTY_ROW

    def count_tokens(self) -> tuple[int, int, int]:
        """Predicted tokens of one pass, how many of them are selected, and the tokens of the longest row."""
        n_tokens = n_selected = longest = 0
        for row in self:
            longest = max(longest, len(row["labels"]))
            n_tokens += int((row["labels"] != IGNORED).sum())
            n_selected += int(row["selected"].sum())
        return n_tokens, n_selected, longest

    def __iter__(self):
        return (self[index] for index in range(len(self)))


class SharedOrder(torch.utils.data.Sampler):
    """The order of a sampler in the main process, in all of them; filled up to a multiple of `multiple` with empty rows
    so that each gets as many batches."""

    def __init__(self, order: torch.utils.data.Sampler, n_rows: int, processes: Processes, multiple: int):
        self._order, self._n_rows, self._processes = order, n_rows, processes
        self._length = -(-n_rows // multiple) * multiple

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        order = torch.full((self._length,), self._n_rows, dtype=torch.int64)
        order[: self._n_rows] = torch.tensor(list(self._order), dtype=torch.int64)
        self._processes.spread(order, 0)
        return iter(order.tolist())

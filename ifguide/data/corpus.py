"""The corpus: documents laid end to end as tokens, each with its place in the text. Imports NumPy and PyArrow only.

Shapes: D documents, N tokens of all documents.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from ifguide.data.stretches import count_valid, inside
from ifguide.data.tokenizing import cut_pieces
from ifguide.errors import InputError, StaleError
from ifguide.storage.artifacts import load_array, read_part, reading


@dataclass(frozen=True, kw_only=True)
class Document:
    """One training document."""

    id: str
    """Unique in the corpus."""
    source: str
    """Where it comes from."""
    text: str
    """Its text, unchanged."""
    spans: tuple[tuple[int, int], ...] | None
    """Known toxic character ranges [start, end); None when the corpus has none for any document."""
    turns: tuple[tuple[int, str], ...] = ()
    """Of a conversation, where each message begins, in characters, and its role."""


class ValidParts:
    """A corpus's `valid()`, bool (N,), made slice by slice."""

    def __init__(self, corpus: "TokenizedCorpus"):
        self._corpus = corpus

    def __len__(self) -> int:
        return self._corpus.n_tokens

    def __getitem__(self, part: slice) -> np.ndarray:
        return self._corpus.valid_between(*part.indices(len(self))[:2])


@dataclass(frozen=True, eq=False)
class TokenizedCorpus:
    """A corpus on disk, memory-mapped; made by `build_corpus`, opened with `TokenizedCorpus.open`."""

    folder: Path
    token_ids: np.ndarray
    """int32 (N,), tokens without special ones, documents in corpus order."""
    offsets: np.ndarray
    """int64 (D+1,): document d owns tokens [offsets[d], offsets[d+1])."""
    char_start: np.ndarray
    """int32 (N,): the tokenizer's offset in the document's text, in code points."""
    char_end: np.ndarray
    """int32 (N,): its end, excluded."""
    id_rank: np.ndarray
    """int64 (D,): place of the document's id among all ids in ascending order."""
    in_span: np.ndarray | None
    """bool (N,): the token overlaps a known span; None when the corpus has no spans."""
    trained: np.ndarray | None
    """int64 (2R,): edges of the stretches of tokens that are trained on; None: all (see `ifguide.data.stretches`)."""
    batches: tuple[pa.RecordBatch, ...]
    """The documents, as Arrow batches."""
    batch_ends: tuple[int, ...]
    """Documents up to and including each batch."""

    @classmethod
    def open(cls, folder: Path) -> "TokenizedCorpus":
        """Map a corpus folder into memory; a StaleError when a file is missing, damaged or does not fit the others."""
        offsets = load_array(folder / "offsets.npy")
        n_documents, n_tokens = len(offsets) - 1, int(offsets[-1])
        path = folder / "documents.arrow"
        stale = reading(path, pa.ArrowException, OSError, stage="corpus")
        with stale, pa.ipc.open_stream(pa.memory_map(str(path))) as stream:
            batches = tuple(stream)
        ends = np.cumsum([batch.num_rows for batch in batches], dtype=np.int64).tolist()
        if not ends or ends[-1] != n_documents:
            counts = f"expected {n_documents:,} documents, got {ends[-1] if ends else 0:,}"
            raise StaleError(f"{path}: {counts}; rebuild it with `ifguide run NAME --force corpus`")
        by_token = ["token_ids", "char_start", "char_end", *["in_span"] * ("spans" in batches[0].schema.names)]
        lengths = dict.fromkeys(by_token, n_tokens) | {"id_rank": n_documents}
        arrays = {name: load_array(folder / f"{name}.npy", length=length) for name, length in lengths.items()}
        in_span = arrays.pop("in_span", None)
        partial = {b"is_partial", b"is_joined"} & (batches[0].schema.metadata or {}).keys()
        trained = load_array(folder / "trained.npy") if partial else None
        return cls(
            folder, offsets=offsets, batches=batches, batch_ends=tuple(ends), in_span=in_span, trained=trained, **arrays
        )

    @property
    def n_documents(self) -> int:
        """D."""
        return len(self.offsets) - 1

    @property
    def n_tokens(self) -> int:
        """N."""
        return len(self.token_ids)

    @property
    def summary(self) -> dict:
        """`documents`, `tokens`, `characters` (code points), the rows `skipped`, because they have no text or text of
        which the tokenizer keeps nothing, and `skipped_at`, the places of the first few of them."""
        return read_part(self.folder, "summary.json")

    @property
    def n_valid(self) -> int:
        """Tokens that have a score: all but each document's first, or those of them that are trained on."""
        return int(count_valid(self.offsets, self.trained).sum())

    @property
    def is_chat(self) -> bool:
        """The documents are conversations, which end as the chat template ends them."""
        return b"is_chat" in (self.batches[0].schema.metadata or {})

    @property
    def is_joined(self) -> bool:
        """The documents are chunks of documents run together, in which every position counts."""
        return b"is_joined" in (self.batches[0].schema.metadata or {})

    def valid(self) -> np.ndarray:
        """bool (N,): False on each document's first token, which nothing predicts, and on those not trained on."""
        return self.valid_between(0, self.n_tokens)

    @property
    def valid_parts(self) -> ValidParts:
        """`valid()` for those who read it slice by slice: it is never in memory whole."""
        return ValidParts(self)

    def valid_between(self, start: int, stop: int) -> np.ndarray:
        """The part of `valid()` for tokens [start, stop), without the rest."""
        if self.trained is not None:
            return inside(self.trained, start, stop)
        valid = np.ones(stop - start, dtype=bool)
        first, last = np.searchsorted(self.offsets[:-1], (start, stop))
        valid[self.offsets[first:last] - start] = False
        return valid

    def document(self, index: int) -> Document:
        """Document `index`, counted from 0; an IndexError when there is none."""
        batch, row = self._find(index)
        spans = None
        if self.in_span is not None:
            spans = tuple((span["start"], span["end"]) for span in batch.column("spans")[row].as_py())
        stored = batch.column("turns")[row].as_py() if "turns" in batch.schema.names else ()
        turns = tuple((turn["start"], turn["role"]) for turn in stored)
        names = ("id", "source", "text")
        return Document(spans=spans, turns=turns, **{name: batch.column(name)[row].as_py() for name in names})

    def ids(self) -> list[str]:
        """All document ids, in corpus order."""
        return self.column("id").to_pylist()

    def index_of(self, document_id: str) -> int:
        """The number of the document with this id; an InputError when none has it."""
        place = bisect_left(self._by_id, document_id, key=self._id)
        if place < self.n_documents and self._id(self._by_id[place]) == document_id:
            return int(self._by_id[place])
        raise InputError(f"no document has the id {document_id!r}; ids look like {self._id(0)!r}")

    def document_tokens(self, index: int) -> list[str]:
        """The document's text cut into one piece a token, for display; see `cut_pieces`."""
        tokens = slice(self.offsets[index], self.offsets[index + 1])
        return cut_pieces(self.document(index).text, self.char_end[tokens])

    @cached_property
    def _by_id(self) -> np.ndarray:
        order = np.empty(self.n_documents, dtype=np.int64)
        order[self.id_rank] = np.arange(self.n_documents)
        return order

    def _id(self, index: int) -> str:
        batch, row = self._find(index)
        return batch.column("id")[row].as_py()

    def _find(self, index: int) -> tuple[pa.RecordBatch, int]:
        if not 0 <= index < self.n_documents:
            raise IndexError(f"expected a document number from 0 to {self.n_documents - 1}, got {index}")
        place = bisect_right(self.batch_ends, index)
        return self.batches[place], int(index) - (self.batch_ends[place - 1] if place else 0)

    def column(self, name: str) -> pa.ChunkedArray:
        """`id`, `source` or `text` of all documents, in corpus order, memory-mapped."""
        return pa.chunked_array([batch.column(name) for batch in self.batches])

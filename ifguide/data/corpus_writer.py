"""Rows -> the files of a corpus folder, in one pass; only the document ids are kept in memory. D documents."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ifguide.config.schema import CorpusConfig
from ifguide.data.chat import TextReader
from ifguide.data.corpus import TokenizedCorpus
from ifguide.data.joining import Chunk, join_documents
from ifguide.data.readers import Row, check_text, count_rows, read_rows, take_field
from ifguide.data.spans import mark_tokens, parse_spans
from ifguide.data.stretches import find_edges, overlap
from ifguide.data.tokenizing import TokenizedText, tokenize
from ifguide.errors import InputError
from ifguide.storage.artifacts import ArrayWriter, write_json

_BATCH_DOCUMENTS = 512
_BATCH_CHARACTERS = 1 << 20
_SHOWN_PLACES = 5


class _Document(NamedTuple):
    id: str
    source: str
    text: str
    trained: list[int]
    spans: tuple[tuple[int, int], ...]
    turns: list[tuple[int, str]]
    where: str
    tokens: TokenizedText | None


def build_corpus(
    config: CorpusConfig, tokenizer, folder: Path, report: Callable = lambda done, total: None, *, chunk_length: int = 0
) -> TokenizedCorpus:
    """Read and tokenise a corpus with a fast Hugging Face tokenizer; write token_ids, offsets, char_start, char_end,
    id_rank, in_span (with spans), trained (where not all is trained on), documents.arrow, tokenizer/ and summary.json
    into an existing folder. `report` is called with (rows read, rows expected; 0 when unknown); where
    `config.concatenate` runs documents together, a chunk has `chunk_length` tokens. An InputError: an input that cannot
    be used; names the file, the line, what was found and the remedy."""
    tokenize(tokenizer, [])  # a slow tokenizer is refused before anything is read
    reading = _Reading(config, tokenizer)
    total = config.max_documents or count_rows(config.path, text_unit=config.text_unit)
    if config.concatenate and reading.texts.is_partial:
        raise InputError("corpus.concatenate trains on all tokens; set corpus.train_on to 'all'")
    about = [name for name in ("is_chat", "is_partial") if getattr(reading.texts, name)]
    about = ["is_joined"] if config.concatenate else about
    kept = 0
    with contextlib.closing(_Output(folder, about, with_spans=bool(config.spans_field))) as output:

        def tokenised() -> Iterator[tuple[_Document, Chunk]]:
            nonlocal kept
            documents = reading.documents()
            while batch := _take_batch(documents, config.max_documents - kept if config.max_documents else None):
                cut = iter(tokenize(tokenizer, [d.text for d in batch if d.tokens is None]))
                for document, tokens in ((d, d.tokens or next(cut)) for d in batch):
                    if len(tokens.token_ids):
                        kept += 1
                        yield document, Chunk(document.text, tokens, document.spans, document.source)
                    else:
                        reading.skip(document.where, "text of which the tokenizer keeps nothing")
                output.flush()
                report(kept if config.max_documents else reading.n_rows, total)

        if config.concatenate:
            chunks = join_documents((chunk for _, chunk in tokenised()), chunk_length, tokenizer.eos_token_id)
            for number, chunk in enumerate(chunks):  # every token of it counts
                output.add(f"chunk-{number:06d}", chunk, np.array([0, len(chunk.tokens.token_ids)]))
            output.flush()
        else:
            for document, chunk in tokenised():
                flags = overlap(np.array(document.trained, dtype=np.int64), *chunk.tokens[1:])
                flags[:1] = False  # nothing predicts a document's first token
                output.add(document.id, chunk, find_edges(flags), document.turns)
    if not output.n_documents:
        problem = f"{config.path} gave no document ({reading.n_rows:,} rows, none with text)"
        raise InputError(f"{problem}; check corpus.path and corpus.text_field")
    if reading.texts.is_partial and not output.n_trained:
        raise InputError(f"{config.path} has no turn of the assistant to train on; set corpus.train_on to 'all'")
    np.save(folder / "id_rank.npy", _rank_ids(folder / "documents.arrow"))
    tokenizer.save_pretrained(str(folder / "tokenizer"))
    counts = {"documents": output.n_documents, "tokens": output.n_tokens, "characters": output.n_characters}
    skipped = {"skipped": reading.n_skipped, "skipped_at": reading.skipped_at}
    write_json(folder / "summary.json", counts | skipped)
    done = kept if config.max_documents else reading.n_rows
    report(done, done)
    return TokenizedCorpus.open(folder)


def check_documents(config: CorpusConfig, tokenizer) -> int:
    """Read every document without storing any; returns how many there are. Errors are those of `build_corpus`."""
    n = sum(1 for _ in islice(_Reading(config, tokenizer).documents(), config.max_documents or None))
    if not n:
        raise InputError(f"{config.path} gave no document with text; check corpus.path and corpus.text_field")
    return n


def first_texts(config: CorpusConfig, tokenizer, n: int) -> list[str]:
    """The texts of the first documents."""
    return [document.text for document in islice(_Reading(config, tokenizer).documents(), n)]


class _Reading:
    """Turns rows into documents, checks them, and counts what it leaves out."""

    def __init__(self, config: CorpusConfig, tokenizer):
        self._config, self.texts = config, TextReader(config, tokenizer)
        self._seen: dict[str, str] = {}
        self.n_rows = self.n_skipped = 0
        self.skipped_at: list[str] = []

    def skip(self, where: str, reason: str) -> None:
        if not self._config.skip_empty:
            raise InputError(f"{where}: {reason}; remove the row or set corpus.skip_empty=true")
        self.n_skipped += 1
        if len(self.skipped_at) < _SHOWN_PLACES:
            self.skipped_at.append(where)

    def documents(self) -> Iterator[_Document]:
        config, fields = self._config, self.texts.fields
        beside = ("labels", "attention_mask") if self.texts.is_tokens else ()
        columns = [*filter(None, (*fields, *beside, config.id_field, config.source_field, config.spans_field))]
        for row in read_rows(config.path, text_field=config.text_field, text_unit=config.text_unit, columns=columns):
            self.n_rows += 1
            text, trained, turns, tokens = self.texts.read(row)
            if not text.strip():
                self.skip(row.where, f"no text in {fields[-1]!r}")
                continue
            marked = take_field(row, config.spans_field) if config.spans_field else None
            spans = parse_spans(marked, len(text), row.where, config.spans_field)
            source = _label(row, config.source_field) if config.source_field else ""
            yield _Document(self._id(row), source or row.stem, text, trained, spans, turns, row.where, tokens)

    def _id(self, row: Row) -> str:
        value = document_id(row, self._config.id_field)
        if self._config.id_field and (first := self._seen.setdefault(value, row.where)) != row.where:
            raise InputError(f"{row.where}: the id {value!r} was already used at {first}; ids must differ")
        return value


def document_id(row: Row, id_field: str) -> str:
    """The id of a row's document: the value of `id_field` (an InputError when it is empty), or without one the file's
    name and the row's number."""
    if not id_field:
        return f"{row.stem}-{row.number:06d}" if row.number else row.stem
    if value := _label(row, id_field):
        return value
    remedy = "give every document one, or leave corpus.id_field empty"
    raise InputError(f"{row.where}: the id in {id_field!r} is empty; {remedy}")


def _label(row: Row, field: str) -> str:
    """An id or a source: text, or a whole number as text."""
    value = take_field(row, field)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return "" if value is None else check_text(value, row.where, field)


class _Output:
    """The growing files."""

    def __init__(self, folder: Path, about: Sequence[str], *, with_spans: bool):
        kinds: dict[str, type] = dict.fromkeys(("token_ids", "char_start", "char_end"), np.int32)
        kinds["offsets"] = np.int64
        fields = [(name, pa.string()) for name in ("id", "source", "text")]
        if with_spans:
            kinds["in_span"] = np.bool_
            fields.append(("spans", pa.list_(pa.struct([("start", pa.int64()), ("end", pa.int64())]))))
        if "is_chat" in about:
            fields.append(("turns", pa.list_(pa.struct([("start", pa.int64()), ("role", pa.string())]))))
        kinds |= {"trained": np.int64} if {"is_partial", "is_joined"} & set(about) else {}
        self._arrays = {name: ArrayWriter(folder / f"{name}.npy", kind) for name, kind in kinds.items()}
        self._schema = pa.schema(fields, metadata=dict.fromkeys(about, "") or None)
        self._file = pa.OSFile(str(folder / "documents.arrow"), "wb")
        self._stream = pa.ipc.new_stream(self._file, self._schema)
        self._rows: list[dict] = []
        self.n_documents = self.n_tokens = self.n_characters = self.n_trained = 0
        self._arrays["offsets"].append(np.zeros(1))

    def add(self, id_: str, document: Chunk, trained: np.ndarray, turns: Sequence[tuple[int, str]] = ()) -> None:
        """A document with this id; `trained` are the edges of its tokens that count."""
        text, tokens, spans, source = document
        if "trained" in self._arrays:
            self._arrays["trained"].append(trained + self.n_tokens)
            self.n_trained += int(np.diff(trained)[::2].sum())
        self.n_documents += 1
        self.n_tokens += len(tokens.token_ids)
        self.n_characters += len(text)
        for name, values in tokens._asdict().items():
            self._arrays[name].append(values)
        self._arrays["offsets"].append(np.array([self.n_tokens]))
        row = {"id": id_, "source": source, "text": text}
        self._rows.append(row | {"turns": [{"start": start, "role": role} for start, role in turns]})
        if "in_span" in self._arrays:
            self._arrays["in_span"].append(mark_tokens(text, spans, tokens.char_start, tokens.char_end))
            self._rows[-1]["spans"] = [{"start": start, "end": end} for start, end in spans]

    def flush(self) -> None:
        if self._rows:
            self._stream.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def close(self) -> None:
        self._stream.close()
        self._file.close()
        for array in self._arrays.values():
            array.close()


def _take_batch(documents: Iterator[_Document], most: int | None) -> list[_Document]:
    """Documents small enough to tokenise at once, not more than `most`; no row beyond them is read."""
    batch, n_characters = [], 0
    for document in islice(documents, _BATCH_DOCUMENTS if most is None else min(most, _BATCH_DOCUMENTS)):
        batch.append(document)
        n_characters += len(document.text)
        if n_characters >= _BATCH_CHARACTERS:
            break
    return batch


def _rank_ids(path: Path) -> np.ndarray:
    """int64 (D,): each id's place among all, in code point order (which is the byte order of UTF-8)."""
    import pyarrow.compute as pc

    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        ids = pa.chunked_array([batch.column("id") for batch in stream], type=pa.string())
        rank = pc.rank(ids, tiebreaker="dense").to_numpy().astype(np.int64) - 1
        times = np.bincount(rank)
        if times.max() > 1:
            twice = f"two documents have the id {ids[int(np.argmax(rank == times.argmax()))].as_py()!r}"
            raise InputError(f"{twice}; rename a file or name a column with corpus.id_field")
    return rank

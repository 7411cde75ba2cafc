"""A corpus and a selection in the forms that other trainers read: rows with a weight a token, OLMo-core's arrays, and
GPT-NeoX's indexed data sets. docs/other-trainers.md has a recipe for each.

OLMo-core and GPT-NeoX can only leave a token out (`suppress.method` = `mask`); the rows' weights carry λ too.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ifguide.data.by_document import document_runs
from ifguide.data.packing import IGNORED
from ifguide.errors import ConfigError
from ifguide.selection.saved import Selection
from ifguide.storage.artifacts import write_json
from ifguide.study.checkpoints import cut_training_rows, study_tokenizer
from ifguide.study.reading import Study

if TYPE_CHECKING:
    from ifguide.data.corpus import TokenizedCorpus

Report = Callable[[int], None]

WEIGHT_COLUMNS = {
    "input_ids": pa.list_(pa.int32()),
    "labels": pa.list_(pa.int32()),  # -100: no loss
    "attention_mask": pa.list_(pa.int8()),
    "weights": pa.list_(pa.float32()),  # of the loss of predicting the token there, from the one before it
    "position_ids": pa.list_(pa.int32()),
}
ROWS_AT_ONCE = 256
_INT32 = 4
"""Megatron's number for int32. GPT-NeoX's own tools write tokens and labels so, because labels are -100."""


def weight_blocks(study: Study, corpus: "TokenizedCorpus", chosen: Selection) -> Iterator[tuple[int, dict]]:
    """The rows that `ifguide suppress` trains on, with w of Eq. 9 as a column: 1, on selected tokens -λ (`penalise`) or
    0 (`mask`), and 0 where there is no label. A ConfigError: another method, which is no weight."""
    from ifguide.training.rows import trim_row

    how = study.config.suppress
    if how.method not in ("penalise", "mask"):
        raise ConfigError(f"--what weights: expected suppress.method penalise or mask, got {how.method}")
    on_selected = -how.penalty if how.method == "penalise" else 0.0
    rows = cut_training_rows(study, study_tokenizer(study), np.asarray(chosen.mask))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        found = [rows[i] for i in range(start, min(start + ROWS_AT_ONCE, len(rows)))]
        cut = [trim_row(row) for row in found]
        columns = {name: [row[name] for row in cut] for name in ("input_ids", "labels", "position_ids")}
        columns["attention_mask"] = [np.ones(len(row["labels"]), dtype=np.int8) for row in cut]
        weights = (np.where(row["selected"], on_selected, row["labels"] != IGNORED) for row in cut)
        columns["weights"] = [weight.astype(np.float32) for weight in weights]
        yield int(found[-1].document_index.max()) + 1, columns


def write_olmo(study: Study, chosen: Selection, folder: Path, made_from: dict, report: Report) -> int:
    """Write `tokens.npy` and `label_mask.npy` as OLMo-core reads them: bare arrays without NumPy's header, of uint16 or
    uint32 and of bool. `info.json` says which, and what made them. Returns the number of documents."""
    corpus, (n_words, eos) = study.corpus(), _vocabulary(study)
    dtype = np.uint16 if n_words <= 2**16 else np.uint32
    folder.mkdir()
    with (folder / "tokens.npy").open("wb") as tokens, (folder / "label_mask.npy").open("wb") as mask:
        for done, ids, learned, _ in _lay_out(corpus, chosen, eos):
            tokens.write(ids.astype(dtype).tobytes())
            mask.write(learned.tobytes())
            report(done)
    told = {"dtype": np.dtype(dtype).name, "eos_token_id": eos, "vocab_size": n_words}
    write_json(folder / "info.json", made_from | told)
    return corpus.n_documents


def write_megatron(study: Study, chosen: Selection, folder: Path, made_from: dict, report: Report) -> int:
    """Write `text_document` and `label_document`, each `.bin` and `.idx`, as GPT-NeoX's `MMapIndexedDataset` reads them
    and its `train_label_data_paths` expects them: int32, a document an item, labels -100 where nothing is learned.
    Returns the number of documents."""
    corpus, (n_words, eos), sizes = study.corpus(), _vocabulary(study), []
    folder.mkdir()
    with (folder / "text_document.bin").open("wb") as text, (folder / "label_document.bin").open("wb") as label:
        for done, ids, learned, lengths in _lay_out(corpus, chosen, eos):
            text.write(ids.astype(np.int32).tobytes())
            label.write(np.where(learned, ids, IGNORED).astype(np.int32).tobytes())
            sizes.append(lengths)
            report(done)
    n_items = np.concatenate(sizes)
    places = (np.cumsum(n_items) - n_items) * 4  # in bytes
    index = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, _INT32, len(n_items), len(n_items) + 1)
    index += n_items.astype(np.int32).tobytes() + places.astype(np.int64).tobytes()
    index += np.arange(len(n_items) + 1, dtype=np.int64).tobytes()
    for name in ("text_document.idx", "label_document.idx"):
        (folder / name).write_bytes(index)
    told = {"dtype": "int32", "eos_token_id": eos, "vocab_size": n_words}
    write_json(folder / "info.json", made_from | told)
    return corpus.n_documents


def _vocabulary(study: Study) -> tuple[int, int | None]:
    """How many tokens the tokenizer knows, and the one that ends a document; None where the documents hold it already
    (chunks of documents run together). A ConfigError: the tokenizer has none."""
    tokenizer = study_tokenizer(study)
    if study.corpus().is_joined:
        return len(tokenizer), None
    if tokenizer.eos_token_id is None:
        raise ConfigError("--what: the tokenizer has no end-of-text token between documents; set its eos_token")
    return len(tokenizer), tokenizer.eos_token_id


def _lay_out(corpus: "TokenizedCorpus", chosen: Selection, eos: int | None) -> Iterator[tuple]:
    """Runs of documents laid end to end, with `eos` after each: how many documents are done, ids int32 (n,), which of
    them are learned, bool (n,), and the documents' lengths, int64. As in the study's own training a document's first
    token, one that is not trained on, and a chat's end are not learned; nor are the selected ones."""
    offsets = np.asarray(corpus.offsets)
    for first, last in document_runs(offsets):
        start, stop = int(offsets[first]), int(offsets[last])
        ids, lengths = np.asarray(corpus.token_ids[start:stop]), np.diff(offsets[first : last + 1])
        learned = corpus.valid_between(start, stop) & ~np.asarray(chosen.mask[start:stop])
        if eos is not None:
            ends, lengths = np.cumsum(lengths), lengths + 1
            ids, learned = np.insert(ids, ends, eos), np.insert(learned, ends, not corpus.is_chat)
        yield last, ids, learned, lengths

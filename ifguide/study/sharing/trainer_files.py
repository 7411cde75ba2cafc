"""A corpus and a selection in the forms that other trainers read: rows with a weight a token, OLMo-core's arrays, and
GPT-NeoX's indexed data sets. docs/other-trainers.md has a recipe for each.

OLMo-core and GPT-NeoX can only leave a token out (`suppress.method` = `mask`); the rows' weights carry λ too.
"""

import contextlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from ifguide.data.by_document import document_runs
from ifguide.data.corpus import TokenizedCorpus
from ifguide.data.packing import IGNORED
from ifguide.errors import ConfigError
from ifguide.selection.saved import Selection
from ifguide.storage.artifacts import write_json
from ifguide.study.reading import Study
from ifguide.study.stages.checkpoints import cut_training_rows, study_tokenizer

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


def weight_blocks(study: Study, corpus: TokenizedCorpus, chosen: Selection) -> Iterator[tuple[int, dict]]:
    """The rows that `ifguide suppress` trains on, with w of Eq. 9 as a column: 1, on selected tokens -λ (`penalise`) or
    0 (`mask`), and 0 where there is no label. A ConfigError: another method, which is no weight."""
    from ifguide.training.rows import trim_row

    suppress = study.config.suppress
    if suppress.method not in ("penalise", "mask"):
        raise ConfigError(f"--what weights: expected suppress.method penalise or mask, got {suppress.method}")
    on_selected = -suppress.penalty if suppress.method == "penalise" else 0.0
    rows = cut_training_rows(study, study_tokenizer(study), np.asarray(chosen.mask))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        packed = [rows[i] for i in range(start, min(start + ROWS_AT_ONCE, len(rows)))]
        cut = [trim_row(row) for row in packed]
        columns = {name: [row[name] for row in cut] for name in ("input_ids", "labels", "position_ids")}
        columns["attention_mask"] = [np.ones(len(row["labels"]), dtype=np.int8) for row in cut]
        weights = (np.where(row["selected"], on_selected, row["labels"] != IGNORED) for row in cut)
        columns["weights"] = [weight.astype(np.float32) for weight in weights]
        yield int(packed[-1].document_index.max()) + 1, columns


def write_olmo(study: Study, chosen: Selection, folder: Path, made_from: dict, report: Report) -> int:
    """Write `tokens.npy` and `label_mask.npy` as OLMo-core reads them: bare arrays without NumPy's header, of uint16 or
    uint32 and of bool. `info.json` says which, and what made them. Returns the number of documents."""
    dtype = np.uint16 if len(study_tokenizer(study)) <= 2**16 else np.uint32
    parts = {"tokens.npy": lambda ids, _: ids.astype(dtype), "label_mask.npy": lambda _, learned: learned}
    return len(_write_parts(study, chosen, folder, parts, made_from | {"dtype": np.dtype(dtype).name}, report))


def write_megatron(study: Study, chosen: Selection, folder: Path, made_from: dict, report: Report) -> int:
    """Write `text_document` and `label_document`, each `.bin` and `.idx`, as GPT-NeoX's `MMapIndexedDataset` reads them
    and its `train_label_data_paths` expects them: int32, a document an item, labels -100 where nothing is learned.
    Returns the number of documents."""
    parts = {
        "text_document.bin": lambda ids, _: ids.astype(np.int32),
        "label_document.bin": lambda ids, learned: np.where(learned, ids, IGNORED).astype(np.int32),
    }
    lengths = _write_parts(study, chosen, folder, parts, made_from | {"dtype": "int32"}, report)
    index = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, _INT32, len(lengths), len(lengths) + 1)
    index += lengths.astype(np.int32).tobytes() + ((np.cumsum(lengths) - lengths) * 4).tobytes()  # places in bytes
    index += np.arange(len(lengths) + 1, dtype=np.int64).tobytes()
    for name in parts:
        (folder / name).with_suffix(".idx").write_bytes(index)
    return len(lengths)


def _write_parts(study: Study, chosen: Selection, folder: Path, parts: dict, told: dict, report: Report) -> np.ndarray:
    """Write a file a part, made from the ids (n,) and which of them are learned, bool (n,), and `info.json`.

    Documents are end to end, with an end-of-text after each unless the corpus is chunks of documents run together. As
    in the study's own training a document's first token, one that is not trained on, and a chat's end are not learned;
    nor are the selected ones. Returns the documents' lengths, int64 (D,). A ConfigError: there is no end-of-text."""
    tokenizer, corpus, lengths = study_tokenizer(study), study.corpus(), []
    eos, offsets = tokenizer.eos_token_id, np.asarray(corpus.offsets)
    if eos is None and not corpus.is_joined:
        raise ConfigError("--what: the tokenizer has no end-of-text token between documents; set its eos_token")
    folder.mkdir()
    with contextlib.ExitStack() as files:
        streams = {name: files.enter_context((folder / name).open("wb")) for name in parts}
        for first, last in document_runs(offsets):
            run, part = np.diff(offsets[first : last + 1]), slice(int(offsets[first]), int(offsets[last]))
            ids = np.asarray(corpus.token_ids[part])
            learned = corpus.valid_between(part.start, part.stop) & ~np.asarray(chosen.mask[part])
            if not corpus.is_joined:
                ends, run = np.cumsum(run), run + 1
                ids, learned = np.insert(ids, ends, eos), np.insert(learned, ends, not corpus.is_chat)
            for name, make in parts.items():
                streams[name].write(make(ids, learned).tobytes())
            lengths.append(run)
            report(last)
    write_json(folder / "info.json", told | {"eos_token_id": eos, "vocab_size": len(tokenizer)})
    return np.concatenate(lengths)

"""Does memory stay flat while the corpus grows? Everything around the model, on made-up corpora of growing length.

    python -m benchmarks.streaming [--tokens 5 20 80]
    python -m benchmarks.streaming --read 10
    python -m benchmarks.streaming --shards 100
    python -m benchmarks.streaming --open 100

For each length, a process of its own writes a corpus, scores it shard by shard with a function that needs no model,
puts the scores of two checkpoints together, and cuts training rows. The table gives the most memory that was the
process's own (`RssAnon`) over what it had after importing, and the time. Pages of memory-mapped files are not counted:
the system takes them back whenever it likes. Documents are counted in memory (offsets, ids), tokens are not.

With `--read`, made-up text of that many GB is written as a folder of shards in each format and read row by row, without
tokenising: MB/s of the text itself, and the most memory while a tenth of it is read and while all of it is.

With `--shards`, that many million made-up scores are written as Parquet shards, as datatrove's step writes them, and
selected from where they are (a process of its own); at ten million also by plain NumPy. Then a billion scores are
counted in a histogram without files. With `--open` they are opened as a study instead, by `ifguide open-scores`'s code,
and a document of the last shard is read by its id.
"""

import argparse
import contextlib
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

DOCUMENT_TOKENS = 2_000
"""Tokens of a made-up document."""
LENGTH = 512
"""Tokens of a chunk and of a row."""


def own_memory() -> float:
    """MB of this process that no file backs."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


class Peak:
    """The most memory while a block runs, looked at a hundred times a second."""

    def __enter__(self):
        self.before = self.most = own_memory()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.most = max(self.most, own_memory())

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()
        self.grown = max(self.most, own_memory()) - self.before


def measure(millions: float) -> dict:
    """Memory in MB and seconds of each step, for a corpus of that many million tokens."""
    import torch

    from ifguide.data.packing import chunk_documents, pack_rows
    from ifguide.influence.attribution import average_blocks, score_corpus
    from ifguide.influence.batches import CorpusSequences, make_batches
    from ifguide.storage.artifacts import ArrayWriter, load_array, save_blocks
    from ifguide.storage.shards import ShardStore, plan_shards
    from ifguide.training.rows import trim_row

    n_documents = int(millions * 1e6) // DOCUMENT_TOKENS
    figures = {"tokens": n_documents * DOCUMENT_TOKENS}
    torch.ones(8, 8) @ torch.ones(8, 8)  # what the first product loads is not the corpus's
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def step(title: str, work) -> None:
            started = time.monotonic()
            with Peak() as peak:
                work()
            figures[title] = {"MB": round(peak.grown, 1), "seconds": round(time.monotonic() - started, 1)}

        def write() -> None:
            tokens, offsets = (
                ArrayWriter(folder / "token_ids.npy", np.int32),
                ArrayWriter(folder / "offsets.npy", np.int64),
            )
            offsets.append(np.zeros(1))
            for document in range(n_documents):
                tokens.append(np.random.default_rng(document).integers(0, 1000, DOCUMENT_TOKENS))
                offsets.append(np.array([(document + 1) * DOCUMENT_TOKENS]))
            tokens.close()
            offsets.close()

        step("write the corpus", write)
        token_ids, offsets = load_array(folder / "token_ids.npy"), load_array(folder / "offsets.npy")

        def score(checkpoint: int) -> None:
            bounds = plan_shards(offsets)
            store = ShardStore(folder / f"work{checkpoint}", ("own_loss",), offsets, bounds)
            for shard in range(len(store)):
                values = {"own_loss": np.zeros(store.count_tokens([shard]), dtype=np.float32)}
                part = np.asarray(offsets[bounds[shard] : bounds[shard + 1] + 1])
                score_corpus(
                    make_batches(CorpusSequences(token_ids, part, chunk_documents(part, LENGTH)), 1 << 16),
                    lambda batch: {"own_loss": torch.sin(batch.input_ids[:, 1:].float() + checkpoint)},
                    values,
                    first=int(store.tokens[shard]),
                )
                store.write(shard, values)
            (folder / f"checkpoint{checkpoint}").mkdir()
            store.assemble(folder / f"checkpoint{checkpoint}")

        step("score shards, lay them end to end", lambda: score(0))
        score(1)

        def valid_between(start: int, stop: int) -> np.ndarray:
            valid = np.ones(stop - start, dtype=bool)
            first, last = np.searchsorted(offsets[:-1], (start, stop))
            valid[offsets[first:last] - start] = False
            return valid

        def average() -> None:
            arrays = [load_array(folder / f"checkpoint{i}" / "own_loss.npy") for i in range(2)]
            save_blocks(average_blocks(arrays, valid_between), folder / "own_loss.npy", np.float32)

        step("average two checkpoints", average)
        mask = np.lib.format.open_memmap(folder / "mask.npy", mode="w+", dtype=bool, shape=(len(token_ids),))

        def read_rows() -> None:
            rows = pack_rows(token_ids, np.asarray(offsets), LENGTH, 1000, mask, pack=False)
            for row in range(0, len(rows), max(1, len(rows) // 5_000)):  # a row does not know of the others
                trim_row(rows[row])

        step("cut training rows", read_rows)
    return figures


SHARD_ROWS = 20_000
"""Rows of a shard; each has about 3,000 characters."""
SHARDS = {
    "jsonl": "shard.jsonl",
    "jsonl.gz": "shard.jsonl.gz",
    "jsonl.zst": "shard.jsonl.zst",
    "parquet": "shard.parquet",
}


def write_shard(path: Path) -> int:
    """Write one shard of made-up text, nested in `meta`; returns the text's bytes."""
    import pyarrow as pa
    from pyarrow import parquet

    draw = np.random.default_rng(0)
    words = ["".join(map(chr, draw.integers(97, 123, n))) for n in draw.integers(2, 10, 5_000)]
    rows = [
        {"id": str(row), "meta": {"text": " ".join(words[i] for i in draw.integers(0, len(words), 450))}}
        for row in range(SHARD_ROWS)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    match path.suffix:
        case ".gz":
            path.write_bytes(gzip.compress(lines, compresslevel=6))
        case ".zst":
            with pa.CompressedOutputStream(str(path), "zstd") as stream:
                stream.write(lines)
        case ".parquet":
            parquet.write_table(pa.Table.from_pylist(rows), path)
        case _:
            path.write_bytes(lines)
    return sum(len(row["meta"]["text"]) for row in rows)


def read_folder(folder: str) -> dict:
    """Read all rows of a folder once: MB of text, MB of memory, seconds."""
    from ifguide.config.schema import CorpusConfig
    from ifguide.data.corpus_writer import check_documents

    started, worked = time.monotonic(), time.process_time()
    with Peak() as peak:
        n = check_documents(CorpusConfig(path=folder, text_field="meta.text"), None)
    times = {"seconds": time.monotonic() - started, "processor": time.process_time() - worked}
    return {"rows": n, "memory": round(peak.grown, 1), **times}


def measure_reading(gigabytes: float) -> None:
    """Print what reading costs in each format."""
    print(
        "| format | shards | MB/s of text | MB a processor second | most memory, a tenth | all |\n"
        "|---|---|---|---|---|---|"
    )
    for title, name in SHARDS.items():
        with tempfile.TemporaryDirectory() as place:
            first = Path(place) / name
            n_bytes, runs = write_shard(first), []
            n_shards = max(1, round(gigabytes * 1e9 / n_bytes))
            for count in (max(1, n_shards // 10), n_shards):
                folder = Path(place) / str(count)
                folder.mkdir(exist_ok=True)
                for number in range(count):
                    shutil.copyfile(first, folder / f"{number:05d}-{name}")
                command = [sys.executable, "-m", "benchmarks.streaming", "--read-folder", str(folder)]
                runs.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
                shutil.rmtree(folder)
        wall, worked = (f"{n_shards * n_bytes / 1e6 / runs[-1][key]:,.0f}" for key in ("seconds", "processor"))
        few, all_of_it = (f"{run['memory']:,.0f} MB" for run in runs)
        print(f"| {title} | {n_shards} | {wall} | {worked} | {few} | {all_of_it} |")


def write_score_shards(folder: Path, millions: int) -> None:
    """Write made-up scores of a checkpoint with their token ids, five million tokens a file."""
    import pyarrow as pa
    from pyarrow import parquet

    for number in range(millions // 5):
        draw = np.random.default_rng(number)
        ends = np.append(np.sort(draw.choice(np.arange(1, 5_000_000), 9_999, replace=False)), 5_000_000)
        offsets = np.append(0, ends).astype(np.int32)
        scores = draw.standard_normal(5_000_000) + draw.exponential(4, 5_000_000) * (draw.random(5_000_000) < 0.01)
        lists = pa.ListArray.from_arrays(offsets, scores.astype(np.float32).astype(np.float64))
        scores = pa.ListArray.from_arrays(np.arange(len(ends) + 1, dtype=np.int32), lists)
        kinds = pa.ListArray.from_arrays(offsets, (32_000 * draw.random(5_000_000) ** 3).astype(np.int64))
        ids = [f"{number}-{row}" for row in range(len(ends))]
        table = pa.table({"document_id": ids, "scores": scores, "token_ids": kinds})
        parquet.write_table(table, folder / f"{number:05d}.parquet", row_group_size=1_000)


@contextlib.contextmanager
def made_shards(millions: int) -> Iterator[Path]:
    """A folder of that many million made-up scores, gone afterwards with what is beside it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "scores"
        folder.mkdir()
        write_score_shards(folder, millions)
        yield folder


def run_on(folder: Path, option: str) -> dict:
    """What this benchmark gives with an option for a folder, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.streaming", option, str(folder)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def select_from(folder: Path) -> dict:
    """Select a thousandth of the tokens in score shards with their neighbours: seconds, MB, and the summary."""
    from ifguide.config.schema import StudyConfig
    from ifguide.study.sharing.score_shards import select_in_shards

    started = time.monotonic()
    with Peak() as peak:
        made = select_in_shards(StudyConfig(), folder, folder.parent / "masks", {"quantile": 0.999, "window": 1})
    times = {"seconds": time.monotonic() - started, "processor": time.process_time()}
    return {"MB": peak.grown, "resident": most_resident(), **times, **made}


def open_from(folder: Path) -> dict:
    """Open score shards as a study: seconds and MB until they are read, and in all, and of reading one document."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from ifguide.config.schema import ScoresConfig
    from ifguide.study.peer_scores import open_shards
    from ifguide.study.sharing.shard_sample import read_document, read_sketch, sample_shards

    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(32_000)}, "w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder.parent / "tokenizer")
    started = time.monotonic()
    with Peak() as peak:
        sample_shards(folder, ScoresConfig(), lambda done, total: None)
    read, started = time.monotonic() - started, time.monotonic()
    with Peak() as opening:
        tokenizer = str(folder.parent / "tokenizer")
        study = open_shards("opened", folder, tokenizer, ScoresConfig(), cache=folder.parent / "cache")
    opened, started, sketch = time.monotonic() - started, time.monotonic(), read_sketch(study)
    read_document(sketch, f"{len(sketch.files) - 1}-9000")
    one, corpus = time.monotonic() - started, study.corpus()
    sizes = {"n_tokens": sketch.n_tokens, "documents": corpus.n_documents, "sampled": corpus.n_tokens}
    size = sum(file.stat().st_size for file in study.root.rglob("*") if file.is_file()) / 1e6
    memory = {"MB": max(peak.grown, opening.grown), "resident": most_resident()}
    return {"read": read, "seconds": opened, "one": one, "disk": size, **memory, **sizes}


def most_resident() -> float:
    """MB of this process at most, with what was imported; `ru_maxrss` is the parent's where that had more."""
    from ifguide.storage.peak_memory import read_peak

    return read_peak()["host"] / 2**20


def measure_opening(millions: int) -> None:
    """Print what opening score shards takes, of ten million tokens and of more."""
    for count in (10, millions):
        with made_shards(count) as folder:
            made = run_on(folder, "--open-from")
        print(
            "{n_tokens:,} tokens: read in {read:.0f} s, opened in {seconds:.0f} s, {MB:.0f} MB of its own,"
            " {resident:.0f} MB resident; a sample of {documents:,} documents, {sampled:,} tokens; the study takes"
            " {disk:.0f} MB; a document by its id in {one:.1f} s".format(**made),
            flush=True,
        )


def same_by_numpy(folder: Path) -> bool:
    """Whether the masks beside small shards are those of arrays: pooled, cut at a thousandth, neighbours taken."""
    from pyarrow import parquet

    table, masks = parquet.read_table(folder), parquet.read_table(folder.parent / "masks")
    scores, kinds = (np.array(table[name].combine_chunks().flatten()) for name in ("scores", "token_ids"))
    scores = np.concatenate(scores).astype(np.float32)
    lengths = np.array(masks["n_tokens"])
    starts, valid = np.cumsum(lengths) - lengths, np.ones(len(scores), dtype=bool)
    valid[starts] = False
    means = np.bincount(kinds[valid], scores[valid]) / np.maximum(np.bincount(kinds[valid]), 1)
    pooled = (scores + means[kinds]).astype(np.float32)
    hits = valid & (pooled > np.sort(pooled[valid])[int(np.ceil(0.999 * valid.sum())) - 1])
    near = valid & (hits | np.append(hits[1:], False) | np.append(False, hits[:-1]))
    selected = np.array(masks["selected"].combine_chunks().flatten())
    counts = np.array(masks["selected"].combine_chunks().value_lengths())
    return np.array_equal(np.flatnonzero(near), selected + np.repeat(starts, counts))


def measure_shards(millions: int) -> None:
    """Print what selecting from score shards takes, and whether NumPy selects the same of ten million."""
    from ifguide.selection.index.chunks import Chunks

    for count in (10, millions):
        with made_shards(count) as folder:
            size = sum(file.stat().st_size for file in folder.iterdir()) / 1e9
            made = run_on(folder, "--select-from")
            same = f"; the tokens of plain NumPy: {same_by_numpy(folder)}" if count == 10 else ""
            print(
                f"{made['n_tokens']:,} tokens, {size:.2f} GB: {made['seconds']:.0f} s,"
                f" {made['processor']:.0f} s of a processor,"
                f" {made['MB']:.0f} MB of its own,"
                f" {made['resident']:.0f} MB resident; {made['n_selected']:,} selected{same}",
                flush=True,
            )
    values = np.random.default_rng(0).standard_normal(50_000_000).astype(np.float32)
    chunks, started = Chunks(values, np.arange(0, len(values) + 1, 500), threads=1), time.monotonic()
    n_counted = sum(int(chunks.histogram().sum()) for _ in range(20))
    print(f"a histogram of {n_counted:,} scores without files: {time.monotonic() - started:.0f} s")


def main() -> None:
    """Measure each length in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=float, nargs="+", default=[5, 20, 80], metavar="MILLIONS")
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--read", type=float, metavar="GB", help="measure reading alone, of this much text")
    parser.add_argument("--read-folder", help=argparse.SUPPRESS)
    parser.add_argument("--shards", type=int, metavar="MILLIONS", help="select from this many scores in files")
    parser.add_argument("--open", type=int, metavar="MILLIONS", help="open this many scores in files as a study")
    parser.add_argument("--open-from", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--select-from", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    in_this_process = (
        (select_from, "select_from"),
        (open_from, "open_from"),
        (read_folder, "read_folder"),
        (measure, "one"),
    )
    for work, option in in_this_process:
        if value := getattr(arguments, option):
            print(json.dumps(work(value)))
            return
    for work, option in ((measure_shards, "shards"), (measure_opening, "open"), (measure_reading, "read")):
        if value := getattr(arguments, option):
            work(value)
            return
    rows = []
    for millions in arguments.tokens:
        command = [sys.executable, "-m", "benchmarks.streaming", "--one", str(millions)]
        rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    steps = [key for key in rows[0] if key != "tokens"]
    print("| step | " + " | ".join(f"{row['tokens'] / 1e6:,.0f}M tokens" for row in rows) + " |")
    print("|---|" + "---|" * len(rows))
    for step in steps:
        cells = [f"{row[step]['MB']:,.0f} MB, {row[step]['seconds']:,.1f} s" for row in rows]
        print(f"| {step} | " + " | ".join(cells) + " |")
    most = [max(row[step]["MB"] for step in steps) for row in rows]
    growth = rows[-1]["tokens"] / rows[0]["tokens"]
    print(
        f"\n{growth:.0f} times the tokens take {most[-1] / most[0]:.2f} times the memory ({most[0]:,.0f} MB and"
        f" {most[-1]:,.0f} MB)."
    )


if __name__ == "__main__":
    main()

"""Scoring a study's corpus: its chunks as sequences, shards divided over processes, files put together in blocks.

What is computed is handed in as a function of a batch; how it is computed is the stages' and `ifguide.influence`'s.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ifguide.config.io import config_to_dict
from ifguide.data.corpus import TokenizedCorpus, chunk_documents
from ifguide.runtime.distributed import current
from ifguide.storage import artifacts
from ifguide.storage.shards import ShardStore, plan_shards
from ifguide.storage.work import open_work
from ifguide.study.freshness import inputs_of, settings_of
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study

SCORES = ("own_loss", "position", "token_loss")
"""Files of the study's own query sets."""


def score_file(kind: str, queries: str = "") -> str:
    """Name of a kind of scores, of the study's own query sets or of an extra pair, as a path below a folder and without
    `.npy`."""
    return f"extra/{queries}/{kind}" if queries else kind


def direction_file(queries: str = "") -> str:
    """Name of the file of a direction, likewise."""
    return f"extra/{queries}.safetensors" if queries else "direction.safetensors"


def read_layout(study: Study) -> dict:
    """How the corpus is cut: `max_length` and the `bos` id that comes before each document, or None."""
    return artifacts.read_part(study.folder(Unit("corpus")), "layout.json")


def corpus_sequences(study: Study, *, documents: tuple[int, int] | None = None, max_tokens: int = 0, seed: int = 0):
    """Chunk sequences of documents [first, stop) of the corpus, or of all; with `max_tokens`, whole documents drawn at
    random up to about that many tokens."""
    from ifguide.influence.batches import CorpusSequences

    corpus: TokenizedCorpus = study.corpus()
    layout = read_layout(study)
    first, stop = documents or (0, corpus.n_documents)
    offsets = np.asarray(corpus.offsets[first : stop + 1])
    length = layout["max_length"] - (layout["bos"] is not None)
    chunks = chunk_documents(offsets, length)
    if max_tokens and max_tokens < corpus.n_tokens:
        order = np.random.default_rng(seed).permutation(corpus.n_documents)
        running = np.cumsum(np.diff(offsets)[order])
        taken = order[: max(1, int(np.searchsorted(running, max_tokens)))]
        chunks = chunks[np.isin(chunks[:, 0], taken)]
    return CorpusSequences(corpus.token_ids, offsets, chunks, layout["bos"])


def open_scoring(study: Study, unit: Unit) -> Path:
    """The folder of unfinished scores, which outlives a killed run."""
    key = {
        "inputs": inputs_of(study, unit),
        "settings": settings_of(study, unit),
        "compute": config_to_dict(study.config.compute),
    }
    return open_work(study.root, unit.stage, key)


def score_in_shards(
    study: Study,
    work: Path,
    folder: Path,
    names: tuple[str, ...],
    score: Callable,
    device,
    report: Callable[[int, int], None],
) -> None:
    """Score the corpus with a function batch -> one tensor a name, shard by shard, into `.npy` files of one value a
    token.

    Shard s belongs to process s modulo their number. A shard that is there is left as it is, whoever made it.
    """
    from ifguide.influence.attribution import score_corpus
    from ifguide.influence.batches import make_batches

    corpus, processes = study.corpus(), current()
    bounds = plan_shards(corpus.offsets)
    store = ShardStore(work / folder.name, names, corpus.offsets, bounds)
    mine = [shard for shard in range(len(store)) if processes.owns(shard)]
    due = [shard for shard in mine if not store.has(shard)]
    count = processes.count(report, corpus.n_tokens)
    count.add(store.count_tokens(mine) - store.count_tokens(due))
    for shard in due:
        first, stop = int(store.tokens[shard]), int(store.tokens[shard + 1])
        values = {name: np.zeros(stop - first, dtype=np.float32) for name in names}
        sequences = corpus_sequences(study, documents=(int(bounds[shard]), int(bounds[shard + 1])))
        told = 0

        def tell(done: int, n_tokens: int = stop - first) -> None:
            nonlocal told
            count.add(min(done, n_tokens) - told)
            told = min(done, n_tokens)

        score_corpus(
            make_batches(sequences, study.config.compute.tokens_per_batch),
            lambda batch: dict(zip(names, score(batch), strict=True)),
            values,
            first=first,
            device=device,
            report=tell,
        )
        store.write(shard, values)
        tell(stop - first)
    count.wait()
    if processes.is_main:
        store.assemble(folder)


def average_over_checkpoints(
    corpus: TokenizedCorpus,
    parts: list[Path],
    names: Iterable[str],
    folder: Path,
    *,
    average: str = "mean",
    pooling: float = 0.0,
) -> None:
    """The study's own arrays from its checkpoints', block by block: memory does not grow with the corpus.

    Args:
        corpus: whose tokens they are.
        parts: the checkpoints' folders.
        names: files to put together, without `.npy`. Losses are averaged as they are.
        folder: where to.
        average: see `average_blocks`.
        pooling: see `pool_blocks`.
    """
    from ifguide.influence.attribution import average_blocks, mean_blocks, pool_blocks

    for kind in names:
        arrays = [artifacts.load_array(part / f"{kind}.npy") for part in parts if (part / f"{kind}.npy").exists()]
        if not arrays:
            continue
        path = folder / f"{kind}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "token_loss":
            artifacts.save_blocks(mean_blocks(arrays), path, np.float32)
            continue
        artifacts.save_blocks(average_blocks(arrays, corpus.valid_between, average=average), path, np.float32)
        if pooling:
            single = path.rename(path.with_suffix(".single.npy"))
            blocks = pool_blocks(artifacts.load_array(single), corpus.token_ids, corpus.valid_between, pooling)
            artifacts.save_blocks(blocks, path, np.float32)
            single.unlink()

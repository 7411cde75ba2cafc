"""A made-up study of a million documents, to look at how the app holds up. Written in portions; about 7 GB on disk.

What the Documents page reads is there in full: scores and their index, token ids, masks and ranks of every document.
The places of tokens in the text are a hole in a sparse file for documents that nobody opens. Texts repeat: there are
`N_TEXTS` of them.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ifguide.config.schema import CorpusConfig, ModelConfig, QueriesConfig, ScoresConfig, SelectionConfig, StudyConfig
from ifguide.selection.algorithm import harmonic_mean, normalise
from ifguide.selection.index.build import build_index
from ifguide.storage import artifacts
from ifguide.study.freshness import inputs_of, settings_of
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study

N_TEXTS = 500
TOKENS = 1_000
"""Mean tokens a document; lengths spread by half on both sides."""
TOXIC_SHARE = 0.02
QUANTILE = 0.9995
"""Of the selection: half a per mille of the tokens."""
_WIDTH = 5
"""Characters of every token."""
_WORDS = [
    "the",
    "old",
    "red",
    "mug",
    "was",
    "on",
    "top",
    "and",
    "she",
    "put",
    "her",
    "bag",
    "by",
    "it",
    "so",
    "we",
    "all",
    "sat",
    "ate",
    "fed",
    "ran",
    "far",
    "off",
    "to",
    "see",
    "him",
]


def write_large_study(cache: Path, name: str = "large", *, n_documents: int = 1_000_000, seed: int = 0) -> Study:
    """Write the study up to its default selection, every part fresh."""
    generator = np.random.default_rng(seed)
    inputs = cache.parent / "large-inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    for file in ("corpus.jsonl", "toxic.jsonl", "safe.jsonl", "config.json"):
        (inputs / file).write_text("{}\n", encoding="utf-8")
    config = StudyConfig(
        description="Made up, to measure the Documents page.",
        model=ModelConfig(source=str(inputs), mode="scratch"),
        corpus=CorpusConfig(path=str(inputs / "corpus.jsonl")),
        queries=QueriesConfig(toxic=str(inputs / "toxic.jsonl"), safe=str(inputs / "safe.jsonl")),
        scores=ScoresConfig(probe=False, combined=False),
        selection=SelectionConfig(controls=(), attribution="own_loss"),
    )
    study = Study.create(name, config, cache)
    lengths = generator.integers(TOKENS // 2, TOKENS * 3 // 2, n_documents)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    _write_corpus(study, offsets, lengths, generator)
    models = {"base": {"source": "final"}, "checkpoints": [{"name": "given", "source": "final"}]}
    _write_queries(study)
    _finish(study, Unit("model"), {"models.json": json.dumps(models).encode()})
    for stage in ("factors", "direction"):
        _finish(study, Unit(stage), {"note.txt": None})
    threshold, counts, sums = _write_scores(study, offsets, generator)
    write_index(study)
    order = _write_selection(study, offsets, threshold, counts, sums)
    _place_tokens(study, offsets, order)
    return study


def opened_ranks(n_documents: int) -> np.ndarray:
    """Ranks (1 is the first) around which the benchmark opens documents: their tokens have places in the text."""
    jumps = np.linspace(n_documents // 2, n_documents * 9 // 10, 24).astype(np.int64)
    return np.concatenate([[1], jumps])


def _finish(study: Study, unit: Unit, files: dict[str, bytes | None]) -> None:
    """A manifest as if the stage had run. Hashing gigabytes of made-up numbers would say nothing, so of large files the
    names are hashed."""
    folder = study.folder(unit)
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_bytes(content or b"made up")
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != artifacts.MANIFEST)
    sizes = {p.relative_to(folder).as_posix(): p.stat().st_size for p in paths}
    artifacts.write_json(
        folder / artifacts.MANIFEST,
        {
            "schema": artifacts.SCHEMA,
            "stage": unit.stage,
            "inputs": inputs_of(study, unit),
            "config": settings_of(study, unit),
            "outputs": {
                file: artifacts.hash_file(folder / file) if size < 1 << 20 else artifacts.hash_json([file, size])
                for file, size in sizes.items()
            },
            "bytes": sizes,
            "seconds": 0.0,
        },
    )


def _new_array(path: Path, kind, n: int) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(n,))


def _portions(offsets: np.ndarray, documents: int = 20_000):
    for first in range(0, len(offsets) - 1, documents):
        stop = min(len(offsets) - 1, first + documents)
        yield first, stop, slice(int(offsets[first]), int(offsets[stop]))


def _write_queries(study: Study) -> None:
    folder = study.folder(Unit("queries"))
    folder.mkdir(parents=True)
    for kind in ("toxic", "safe"):
        rows = {"prompt": ["She put"] * 50, "completion": [f" it on the {kind} mug"] * 50}
        pq.write_table(pa.table(rows), folder / f"{kind}.parquet")
    _finish(study, Unit("queries"), {})


def _write_corpus(study: Study, offsets: np.ndarray, lengths: np.ndarray, generator) -> None:
    folder = study.folder(Unit("corpus"))
    n, n_documents = int(offsets[-1]), len(lengths)
    ids = _new_array(folder / "token_ids.npy", np.uint8, n)
    for _, _, here in _portions(offsets):
        ids[here] = generator.integers(0, 256, here.stop - here.start, dtype=np.uint8)
    for name in ("char_start", "char_end"):
        _new_array(folder / f"{name}.npy", np.int32, n)  # holes until `_place_tokens`
    np.save(folder / "offsets.npy", offsets)
    np.save(folder / "id_rank.npy", np.arange(n_documents, dtype=np.int64))
    words = np.array([f" {word:<4}"[:_WIDTH] for word in _WORDS])
    texts = pa.array(["".join(generator.choice(words, TOKENS * 3 // 2)) for _ in range(N_TEXTS)], pa.string())
    sources = pa.array([f"source {i}" for i in range(8)])
    schema = pa.schema([("id", pa.string()), ("source", pa.string()), ("text", pa.dictionary(pa.int32(), pa.string()))])
    with pa.ipc.new_stream(str(folder / "documents.arrow"), schema) as stream:
        for first, stop, _ in _portions(offsets):
            size = stop - first
            names = pa.array([f"document-{i:07d}" for i in range(first, stop)])
            source = sources.take(pa.array(generator.integers(0, 8, size)))
            text = pa.DictionaryArray.from_arrays(pa.array(generator.integers(0, N_TEXTS, size), pa.int32()), texts)
            stream.write_batch(pa.record_batch([names, source, text], schema=schema))
    _finish(study, Unit("corpus"), {})


def _write_scores(study: Study, offsets: np.ndarray, generator) -> tuple[float, np.ndarray, np.ndarray]:
    """Own-loss scores: noise, and in 2% of the documents some high ones."""
    n, n_documents = int(offsets[-1]), len(offsets) - 1
    scores = _new_array(study.folder(Unit("scores")) / "own_loss.npy", np.float32, n)
    toxic = generator.random(n_documents) < TOXIC_SHARE
    high = []
    for first, stop, here in _portions(offsets):
        part = generator.standard_normal(here.stop - here.start, dtype=np.float32)
        inside = np.repeat(toxic[first:stop], np.diff(offsets[first : stop + 1]))
        hot = inside & (generator.random(len(part), dtype=np.float32) < 0.05)
        part[hot] += np.float32(4) + generator.gamma(2, 1.0, int(hot.sum())).astype(np.float32)
        part[offsets[first:stop] - here.start] = 0
        scores[here] = part
        high.append(part[part > 3])
    high = np.concatenate(high)
    n_above = int((n - n_documents) * (1 - QUANTILE))
    threshold = float(np.partition(high, -n_above - 1)[-n_above - 1])
    del high
    counts, sums = np.zeros(n_documents, dtype=np.int64), np.zeros(n_documents)
    for first, stop, here in _portions(offsets):
        part = scores[here]
        above = np.flatnonzero(part > threshold)
        owner = np.searchsorted(offsets[first : stop + 1] - here.start, above, side="right") - 1
        counts[first:stop] = np.bincount(owner, minlength=stop - first)
        sums[first:stop] = np.bincount(owner, weights=part[above], minlength=stop - first)
    _finish(study, Unit("scores"), {})
    return threshold, counts, sums


def write_index(study: Study) -> None:
    """The score index, as the stage builds it; every token is a word of its own."""
    corpus, folder = study.corpus(), study.folder(Unit("index")) / "own_loss"
    folder.mkdir(parents=True)
    build_index(folder, study.scores("own_loss"), corpus, [f" word{token}" for token in range(256)])
    _finish(study, Unit("index"), {})


def _write_selection(study: Study, offsets, threshold: float, counts, sums) -> np.ndarray:
    unit = Unit("selection", "default")
    folder, n = study.folder(unit), int(offsets[-1])
    scores, mask = study.scores("own_loss"), _new_array(folder / "mask.npy", bool, n)
    for _, _, here in _portions(offsets):
        above = np.flatnonzero(scores[here] > threshold)
        mask[here.start + above] = True
    rank_score = harmonic_mean(normalise(counts.astype(np.float64)), normalise(sums))
    order = np.argsort(-rank_score, kind="stable")
    arrays = {"order": order, "count_above": counts, "sum_above": sums, "rank_score": rank_score}
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    settings = {
        "name": "default",
        "kind": "influence",
        "attribution": "own_loss",
        "quantile": QUANTILE,
        "window": 0,
        "max_tokens": 0,
        "threshold": threshold,
        "n_selected": int(counts.sum()),
        "n_valid": n - len(counts),
        "n_documents_hit": int((counts > 0).sum()),
    }
    artifacts.write_json(folder / "selection.json", settings)
    _finish(study, unit, {})
    return order


def _place_tokens(study: Study, offsets: np.ndarray, order: np.ndarray) -> None:
    """Places in the text of the documents that are opened or listed beside them."""
    ends = np.load(study.folder(Unit("corpus")) / "char_end.npy", mmap_mode="r+")
    for rank in opened_ranks(len(order)).tolist():
        for document in order[max(0, rank - 200) : rank + 400].tolist():
            here = slice(int(offsets[document]), int(offsets[document + 1]))
            ends[here] = _WIDTH * np.arange(1, here.stop - here.start + 1)
    ends.flush()

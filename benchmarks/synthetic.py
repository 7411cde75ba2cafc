"""A made-up study of any size on disk, in the real format, for measuring the Threshold page: no model, no real text.

Scores have a heavy tail: noise everywhere, and bursts of high scores, in some sources more than in others. Documents
vary in length around a thousand tokens. A document's text holds its first few words only; the tokens after them stand
at its end.
"""

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from ifguide.config.schema import CorpusConfig, ModelConfig, QueriesConfig, ScoresConfig, SelectionConfig, StudyConfig
from ifguide.data.corpus_writer import _rank_ids
from ifguide.selection.index.build import build_index
from ifguide.storage import artifacts
from ifguide.study.freshness import inputs_of, settings_of
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study

SOURCES = ("forum", "news", "letters", "books", "recipes", "reviews", "code", "talks")
SOURCE_SHARES = (0.3, 0.2, 0.15, 0.12, 0.1, 0.07, 0.04, 0.02)
BURSTS = (0.03, 0.004, 0.008, 0.006, 0.001, 0.015, 0.001, 0.01)
"""Share of a source's tokens at which a burst of high scores begins."""
VOCABULARY = 32_000
WORDS_IN_TEXT = 48
_BLOCK = 1 << 22
_SYLLABLES = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "te", "vi", "wo", "xu", "za")


def piece(token: int) -> str:
    """The text of a vocabulary entry: a blank and four letters a 256th of the vocabulary share."""
    return f" {_SYLLABLES[token % 16]}{_SYLLABLES[token // 16 % 16]}{token // 256:03d}"


PIECE_LENGTH = len(piece(0))


def write_study(
    cache: Path, name: str, n_tokens: int, *, seed: int = 0, until: str = "index", length: int = 1000
) -> tuple[Study, dict]:
    """Write a study of documents of about `length` tokens up to its scores or its index.

    Returns:
        The study, and seconds by stage.
    """
    inputs = cache / f"inputs-{name}"
    inputs.mkdir(parents=True)
    for kind in ("corpus", "toxic", "safe"):
        (inputs / f"{kind}.jsonl").write_text("{}\n", encoding="utf-8")
    (inputs / "model").mkdir()
    (inputs / "model" / "config.json").write_text("{}", encoding="utf-8")
    config = StudyConfig(
        description="Made-up scores, for measuring.",
        model=ModelConfig(source=str(inputs / "model"), mode="scratch"),
        corpus=CorpusConfig(
            path=str(inputs / "corpus.jsonl"), id_field="id", source_field="source", spans_field="spans"
        ),
        queries=QueriesConfig(toxic=str(inputs / "toxic.jsonl"), safe=str(inputs / "safe.jsonl")),
        scores=ScoresConfig(probe=False, combined=False),
        selection=SelectionConfig(quantile=0.999, attribution="own_loss"),
    )
    study = Study.create(name, config, cache)
    seconds = {}
    builders = {"corpus": _write_corpus, "scores": _write_scores, "index": write_index}
    for stage in ("corpus", "queries", "model", "factors", "direction", "scores", "index"):
        unit = Unit(stage)
        inputs_now, settings = inputs_of(study, unit), settings_of(study, unit)
        with artifacts.building(study.folder(unit), stage=stage, inputs=inputs_now, config=settings) as folder:
            started = time.perf_counter()
            builders.get(stage, _write_note)(
                study, folder, *{"corpus": (n_tokens, seed, length), "scores": (n_tokens, seed)}.get(stage, ())
            )
            seconds[stage] = time.perf_counter() - started
        if stage == until:
            break
    return study, seconds


def _write_note(study: Study, folder: Path) -> None:
    models = {"base": {"source": "final"}, "checkpoints": [{"name": "made-up", "source": "final"}]}
    (folder / "models.json").write_text(json.dumps(models), encoding="utf-8")


def draw_offsets(n_tokens: int, seed: int, length: int = 1000) -> np.ndarray:
    """int64 (D+1,): documents of 2 tokens to some twenty times `length`, which is the mean."""
    draw = np.random.default_rng(seed)
    drawn = draw.lognormal(6.4 + np.log(length / 1000), 1.0, size=int(n_tokens // (0.9 * length)) + 10)
    lengths = np.maximum(2, drawn.astype(np.int64))
    ends = np.cumsum(lengths)
    kept = int(np.searchsorted(ends, n_tokens))
    return np.concatenate(
        [[0], ends[:kept], [n_tokens]] if n_tokens - ends[kept - 1] > 1 else [[0], ends[: kept - 1], [n_tokens]]
    )


def _blocks(offsets: np.ndarray):
    """Runs of whole documents: (first, stop) of about _BLOCK tokens."""
    bounds = np.unique(
        np.concatenate([np.searchsorted(offsets, np.arange(0, offsets[-1], _BLOCK)), [len(offsets) - 1]])
    )
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))


def _draw_sources(n_documents: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 1).choice(len(SOURCES), size=n_documents, p=SOURCE_SHARES).astype(np.uint8)


def _draw_bursts(offsets: np.ndarray, first: int, sources: np.ndarray, seed: int) -> np.ndarray:
    """Places in a block where a score is raised: bool, the same whenever it is asked."""
    draw = np.random.default_rng([seed, 2, first])
    lengths = np.diff(offsets)
    begin = draw.random(int(lengths.sum()), dtype=np.float32) < np.repeat(
        np.array(BURSTS, np.float32)[sources], lengths
    )
    begin[1:] |= begin[:-1]
    return begin


def _write_corpus(study: Study, folder: Path, n_tokens: int, seed: int, length: int) -> None:
    offsets = draw_offsets(n_tokens, seed, length)
    n_documents = len(offsets) - 1
    sources = _draw_sources(n_documents, seed)
    np.save(folder / "offsets.npy", offsets)
    kinds = {"token_ids": np.int32, "char_start": np.int32, "char_end": np.int32, "in_span": np.bool_}
    arrays = {
        k: np.lib.format.open_memmap(folder / f"{k}.npy", mode="w+", dtype=t, shape=(n_tokens,))
        for k, t in kinds.items()
    }
    pieces = [piece(token) for token in range(VOCABULARY)]
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("id", "source", "text")),
            ("spans", pa.list_(pa.struct([("start", pa.int64()), ("end", pa.int64())]))),
        ]
    )
    with pa.OSFile(str(folder / "documents.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for first, stop in _blocks(offsets):
            own, part = offsets[first : stop + 1], slice(int(offsets[first]), int(offsets[stop]))
            share = np.random.default_rng([seed, 3, first]).random(part.stop - part.start, dtype=np.float32)
            ids = (VOCABULARY * share * share * share).astype(np.int32)
            bursts = _draw_bursts(own, first, sources[first:stop], seed)
            ids[bursts] %= 200  # a few words make up the bursts
            arrays["token_ids"][part], arrays["in_span"][part] = ids, bursts
            lengths = np.diff(own)
            position = np.arange(len(ids)) - np.repeat(own[:-1] - own[0], lengths)
            arrays["char_start"][part] = PIECE_LENGTH * np.minimum(position, WORDS_IN_TEXT)
            arrays["char_end"][part] = PIECE_LENGTH * np.minimum(position + 1, WORDS_IN_TEXT)
            starts = (own[:-1] - own[0]).tolist()
            texts = [
                "".join(pieces[token] for token in ids[start : start + min(length, WORDS_IN_TEXT)].tolist())
                for start, length in zip(starts, lengths.tolist(), strict=True)
            ]
            columns = [
                pa.array([f"d{number:09d}" for number in range(first, stop)]),
                pa.array([SOURCES[code] for code in sources[first:stop].tolist()]),
                pa.array(texts),
                pa.array([[]] * (stop - first), schema.field("spans").type),
            ]
            stream.write_batch(pa.record_batch(columns, schema=schema))
    np.save(folder / "id_rank.npy", _rank_ids(folder / "documents.arrow"))
    (folder / "layout.json").write_text(json.dumps({"max_length": 1024, "bos": None}), encoding="utf-8")
    counted = {"documents": n_documents, "tokens": n_tokens, "characters": 0, "skipped": 0, "skipped_at": []}
    (folder / "summary.json").write_text(json.dumps(counted), encoding="utf-8")


def _write_scores(study: Study, folder: Path, n_tokens: int, seed: int) -> None:
    offsets, sources = np.asarray(study.corpus().offsets), _draw_sources(study.corpus().n_documents, seed)
    scores = np.lib.format.open_memmap(folder / "own_loss.npy", mode="w+", dtype=np.float32, shape=(n_tokens,))
    for first, stop in _blocks(offsets):
        own = offsets[first : stop + 1]
        draw = np.random.default_rng([seed, 4, first])
        values = draw.standard_normal(int(own[-1] - own[0]), dtype=np.float32) * np.float32(0.4)
        raised = np.flatnonzero(_draw_bursts(own, first, sources[first:stop], seed))
        values[raised] += np.abs(draw.standard_t(2.2, size=len(raised))).astype(np.float32) + draw.exponential(
            1.0, size=len(raised)
        ).astype(np.float32)
        values[own[:-1] - own[0]] = 0
        scores[own[0] : own[-1]] = values
    scores.flush()


def write_index(study: Study, folder: Path, threads: int = 2) -> None:
    """What the stage `index` does, with the pieces of the made-up vocabulary."""
    corpus = study.corpus()
    pieces = [piece(token) for token in range(VOCABULARY)]
    (folder / "own_loss").mkdir()
    build_index(folder / "own_loss", study.scores("own_loss"), corpus, pieces, threads=threads)

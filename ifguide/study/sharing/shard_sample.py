"""What a study knows of Parquet shards that are too large for it: a sample of their documents, a sketch of all.

One pass over the shards makes both, after those that `ScoreShards` takes to average and to pool. Those of parts of the
shards could be added up: histograms by their sum, samples by keeping the smallest hashes of documents' ids.

Shapes: d documents and n tokens of a part of a shard; T thresholds.
"""

import dataclasses
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from shlex import quote
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ifguide.config.schema import ScoresConfig, StudyConfig
from ifguide.errors import InputError
from ifguide.selection.index.chunks import sort_key, value_of_key
from ifguide.storage.artifacts import read_json, reading, write_json
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.sharing.score_shards import Part, ScoreShards, list_shards
from ifguide.study.shelf import INPUTS

KIND = "shards"
"""What the scores are called in the study."""
PLACE = f"{INPUTS}/{KIND}"
"""Where the sample and the sketch are in the study."""
BUCKETS = 20
"""Buckets of documents by their highest score, two for each doubling of it; the lowest holds all below, too."""
PER_BUCKET = 200
"""Documents sampled from each."""
BEST = 1_000
"""Documents with the highest scores of all, which are in the sample, too."""
KEPT_TOKENS = 1 << 20
"""Tokens of a bucket's documents at most, so that long ones need little memory; of the best four times as many."""
EXACT = 1 << 20
"""The highest scores, which are kept one by one."""
_BUCKET = 22
"""Lower bits of a `sort_key` that documents of one bucket may differ in: all but sign, exponent and one of mantissa."""
_FIRST = 1 << (31 - _BUCKET)
"""The bucket of the lowest scores above 0."""


@dataclass(frozen=True)
class Sampled:
    """A document of a shard."""

    id: str
    source: str
    """The shard, as its place in the folder."""
    token_ids: np.ndarray
    """int32 (n,)."""
    scores: np.ndarray
    """float32 (n,), averaged and pooled; 0 for the first token."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sketch:
    """What is known of all tokens in the shards."""

    folder: str
    files: list[str]
    """The shards' places in the folder."""
    average: str
    pooling: float
    """How scores are averaged and pooled, as in `ScoresConfig`."""
    n_documents: int
    n_tokens: int
    tokens: np.ndarray
    """int64 (65536,): valid tokens by score, as `Chunks.histogram`."""
    documents: np.ndarray
    """int64 (65536,): documents by their highest score."""
    highest: np.ndarray
    """float32 (at most `EXACT`,): the highest scores, ascending."""
    divisors: np.ndarray
    means: np.ndarray
    """With `divisors`, `ScoreShards.fitted`."""

    @property
    def treatment(self) -> ScoresConfig:
        given: dict = {"average": self.average, "pooling": self.pooling}
        return ScoresConfig(own_loss=False, probe=False, combined=False, **given)

    @property
    def n_valid(self) -> int:
        return int(self.tokens.sum())

    @property
    def lowest(self) -> float:
        """A score that all are at least as high as, and close to the lowest."""
        return value_of_key(int(np.flatnonzero(self.tokens)[0]) << 16)

    def tokens_above(self, thresholds: np.ndarray) -> np.ndarray:
        """How many tokens in all shards score strictly above each of the thresholds float64 (T,): int64 (3, T) an
        estimate, the fewest and the most. They are the same among the highest scores and at a bin's end."""
        counts = _count_above(self.tokens, thresholds)
        exact = len(self.highest) - np.searchsorted(self.highest.astype(np.float64), thresholds, side="right")
        kept = thresholds >= self.highest[0] if len(self.highest) < self.n_valid else np.ones(len(thresholds), bool)
        return np.where(kept, exact, counts)

    def documents_above(self, thresholds: np.ndarray) -> np.ndarray:
        """The same for documents with such a token."""
        return _count_above(self.documents, thresholds)

    def bars(self, edges: np.ndarray) -> dict[str, list]:
        """Tokens between edges, float64 (n+1,), that ascend: `left`, `right` and `count` of those bins that hold
        some."""
        above = self.tokens_above(np.nextafter(edges, -np.inf))[0]
        counts = above[:-1] - np.append(above[1:-1], 0)
        some = counts > 0
        return {"left": edges[:-1][some].tolist(), "right": edges[1:][some].tolist(), "count": counts[some].tolist()}

    def command(self, study: str, threshold: float, window: int) -> str:
        """The command that selects in all shards what a threshold selects here."""
        options = f"--out masks --threshold {float(threshold)!r}" + f" --window {window}" * bool(window)
        return f"ifguide select {study} --scores {quote(self.folder)} {options}"


def _count_above(histogram: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """int64 (3, T): an estimate, the fewest and the most values of a histogram strictly above each threshold."""
    rounded = np.asarray(thresholds, dtype=np.float64).astype(np.float32) + np.float32(0)
    rounded = np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded).astype(np.float32)
    keys, above = sort_key(rounded), np.append(np.cumsum(histogram[::-1])[::-1], 0)
    bins = (keys >> 16).astype(np.int64)
    least, part = above[bins + 1], (0xFFFF - (keys & 0xFFFF).astype(np.int64)) / 0xFFFF
    most = np.where(part == 0, least, above[bins])
    return np.stack([np.rint(least + part * (most - least)).astype(np.int64), least, most])


class _Best:
    """The documents of the highest rank that were given: at most `most`, and about `tokens` tokens."""

    def __init__(self, most: int, tokens: int):
        self._most, self._left, self._numbers = most, tokens, count()
        self._heap: list[tuple[float, int, Sampled]] = []
        self.least = -np.inf
        """Only a document of a higher rank is kept."""

    def add(self, rank: float, document: Sampled) -> None:
        heapq.heappush(self._heap, (rank, next(self._numbers), document))
        self._left -= len(document.scores)
        while len(self._heap) > self._most or (self._left < 0 and len(self._heap) > 1):
            self.least, _, dropped = heapq.heappop(self._heap)
            self._left += len(dropped.scores)

    def items(self) -> list[tuple[float, Sampled]]:
        return [(rank, document) for rank, _, document in self._heap]


class _Sampler(ScoreShards):
    """Shards that are sampled and sketched while `histogram` reads them."""

    def __init__(self, folder: Path, treatment: ScoresConfig, report: Callable[[int, int], None]):
        super().__init__(folder, treatment, tokens=True)
        self.documents, self._report, self._n_read = np.zeros(1 << 16, dtype=np.int64), report, 0
        self.n_documents, self._high, self._least = 0, [np.zeros(0, dtype=np.float32)], -np.inf
        self._best = _Best(BEST, 4 * KEPT_TOKENS)
        self._buckets: dict[int, _Best] = defaultdict(lambda: _Best(PER_BUCKET, KEPT_TOKENS))

    def read(self, file: Path) -> Iterator[Part]:
        for part in super().read(file):
            self._add(part, file.relative_to(self._folder).as_posix())
            yield part
        self._n_read += 1
        self._report(self._n_read, len(self.files))

    def _add(self, part: Part, source: str) -> None:
        values = np.where(part.valid, part.scores[0] + np.float32(0), -np.inf).astype(np.float32)
        self._high.append(values[values > self._least])
        if sum(map(len, self._high)) > 2 * EXACT:
            self._least = self.highest()[0]
        self.n_documents += len(part.ids)
        scored = np.flatnonzero(np.diff(part.offsets) > 1)
        if not len(scored):
            return
        peaks = np.maximum.reduceat(values, part.offsets[scored])
        keys = sort_key(peaks)
        self.documents += np.bincount(keys >> 16, minlength=1 << 16)
        buckets, ids = np.maximum((keys >> _BUCKET).astype(np.int64), _FIRST), part.ids.to_numpy(zero_copy_only=False)
        ranks = -pd.util.hash_array(ids[scored], categorize=False).astype(np.float64)
        lowest = max([int(buckets.max()), *self._buckets]) - BUCKETS + 1
        for bucket in [bucket for bucket in self._buckets if bucket < lowest]:
            for rank, document in self._buckets.pop(bucket).items():
                self._buckets[lowest].add(rank, document)
        for number, bucket, rank, peak in zip(scored, np.maximum(buckets, lowest).tolist(), ranks, peaks, strict=True):
            kept = [(best, of) for best, of in ((self._buckets[bucket], rank), (self._best, peak)) if of > best.least]
            if kept:
                assert part.token_ids is not None
                here = slice(*part.offsets[number : number + 2])
                tokens, scores = part.token_ids[here].astype(np.int32), part.scores[0, here].copy()
                document = Sampled(ids[number], source, tokens, scores)
                for best, of in kept:
                    best.add(float(of), document)

    def highest(self) -> np.ndarray:
        """float32 (at most `EXACT`,): the highest scores so far, ascending."""
        self._high = [np.sort(np.concatenate(self._high))[-EXACT:]]
        return self._high[0]

    def sample(self) -> list[Sampled]:
        """The documents that were kept, in the order of their ids."""
        kept = [document for best in (*self._buckets.values(), self._best) for _, document in best.items()]
        return sorted({id(document): document for document in kept}.values(), key=lambda document: document.id)


def sample_shards(folder: Path, treatment: ScoresConfig, report: Callable) -> tuple[list[Sampled], Sketch]:
    """A sample of a folder's documents, and a sketch of all of them. `report` is called with the shards read,
    and all. Errors as those of `ScoreShards` and `Chunks.histogram`."""
    shards = _Sampler(folder.absolute(), treatment, report)
    tokens, (divisors, means) = shards.histogram(), shards.fitted
    sketch = Sketch(
        folder=str(folder.absolute()),
        files=[file.relative_to(folder.absolute()).as_posix() for file in shards.files],
        average=treatment.average,
        pooling=treatment.pooling,
        n_documents=shards.n_documents,
        n_tokens=shards.n_tokens,
        tokens=tokens,
        documents=shards.documents,
        highest=shards.highest(),
        divisors=np.array(divisors),
        means=means,
    )
    return shards.sample(), sketch


def save_sample(sample: list[Sampled], sketch: Sketch, root: Path) -> None:
    """Write both to a study's folder: the documents with their tokens and scores as `sample.parquet`."""
    place = root / PLACE
    place.mkdir(parents=True)
    columns = {"document_id": "id", "source": "source", "input_ids": "token_ids", "scores": "scores"}
    rows = {name: [getattr(document, key) for document in sample] for name, key in columns.items()}
    pq.write_table(pa.table(rows), place / "sample.parquet")
    arrays: dict = {key: value for key, value in vars(sketch).items() if isinstance(value, np.ndarray)}
    np.savez(place / "sketch.npz", **arrays)
    write_json(place / "sketch.json", {key: value for key, value in vars(sketch).items() if key not in arrays})


def is_sample(study: Study) -> bool:
    """Whether the study's documents are a sample of shards."""
    return study.config.corpus.path.startswith(f"{PLACE}/")


def read_sketch(study: Study) -> Sketch | None:
    """The sketch of the shards that a study is a sample of; None: it is none. A StaleError: a file of it is damaged."""
    place = study.root / PLACE
    if not is_sample(study) or not (place / "sketch.json").is_file():  # a packed study leaves its inputs out
        return None
    file, damaged = place / "sketch.npz", (OSError, KeyError, TypeError, ValueError, BadZipFile)
    with reading(file, *damaged), np.load(file, allow_pickle=False) as arrays:
        return Sketch(**read_json(place / "sketch.json"), **arrays)


def shards_config(study: Study, folder: Path) -> StudyConfig:
    """The settings to select by in a folder of shards: the study's, and if they are those it is a sample of, their
    averaging and pooling, which are done in its own scores."""
    sketch = read_sketch(study)
    if sketch is None or folder.resolve() != Path(sketch.folder).resolve():
        return study.config
    return dataclasses.replace(study.config, scores=sketch.treatment)


def read_document(sketch: Sketch, id: str) -> Sampled:
    """A document by its id from its shard: ids are read shard by shard, tokens and scores of one row group. An
    InputError: there is none of this id, or shards are missing, damaged or others than when they were opened."""
    folder = Path(sketch.folder)
    files = [file.relative_to(folder).as_posix() for file in list_shards(folder)]
    again = "copy them back, or open the folder again under another name"
    if missing := sorted({*sketch.files} - {*files}):
        raise InputError(f"{sketch.folder}: {len(missing):,} shards are missing, first {missing[0]}; {again}")
    shards = ScoreShards(folder, sketch.treatment, tokens=True, fitted=(sketch.divisors, sketch.means))
    for file in shards.files:
        try:
            part = shards.read_one(file, id)
        except IndexError as error:  # token kinds or checkpoints that no shard had
            raise InputError(f"{file} is not what was opened ({error}); {again}") from error
        if part is not None:
            assert part.token_ids is not None
            source = file.relative_to(folder).as_posix()
            return Sampled(id, source, part.token_ids.astype(np.int32), part.scores[0])
    raise InputError(f"no shard in {sketch.folder} has a document {id!r}; give an id of their column document_id")


def cut_document(study: Study, document: Sampled) -> list[str]:
    """Its text in one piece a token. An InputError: its tokens are not of the study's tokenizer."""
    from ifguide.data.tokenizing import cut_pieces, place_tokens
    from ifguide.models.loading import load_tokenizer

    tokenizer = load_tokenizer(str(study.folder(Unit("corpus")) / "tokenizer"))
    text, tokens = place_tokens(tokenizer, document.token_ids.tolist())
    return cut_pieces(text, tokens.char_end)

"""Tokens selected from Parquet shards of scores where they are: no array of the corpus is made.

The shards are what `ifguide.study.sharing.datatrove` writes. They are read one after another, several times: for the
checkpoints' deviations (twice), the means of the token kinds, the two halves of the threshold's bits, the documents'
ranks, and the masks. Memory grows with the documents that have a hit. The code of each step is the study's own; sums
over the corpus are added shard by shard, so that they may differ from a study's in the last bits of float64.

Shapes: C checkpoints; d documents and n tokens of a part.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ifguide.config.schema import ScoresConfig, StudyConfig
from ifguide.errors import ConfigError, InputError
from ifguide.selection import algorithm
from ifguide.selection.algorithm import Ranking
from ifguide.selection.choice import Choice, read_choice
from ifguide.selection.coverage import expand_intervals
from ifguide.selection.index.chunks import Chunks, bin_ends
from ifguide.storage.artifacts import replacing, write_json

DOCUMENTS = 1_000
"""Documents read at once."""
SAMPLE = 20_000_000
"""Scores that are looked at for their upper tail, at most about."""
TOP = 100
"""Documents named in the summary."""
KINDS = 1 << 24
"""Token kinds at most."""
_BINS = 200
_MASK = {"document_id": pa.string(), "n_tokens": pa.int32(), "hits": pa.int32(), "hit_sum": pa.float64()}
_MASK |= {"rank": pa.int64(), "selected": pa.list_(pa.int32())}


@dataclass(frozen=True, eq=False)
class Part:
    """Some documents of one shard."""

    ids: pa.Array
    offsets: np.ndarray
    """int64 (d+1,)."""
    scores: np.ndarray
    """float32 (C, n), raw; (1, n) once they are averaged and pooled."""
    token_ids: np.ndarray | None
    """int (n,)."""

    @property
    def valid(self) -> np.ndarray:
        """bool (n,): all but the documents' first tokens."""
        valid = np.ones(self.offsets[-1], dtype=bool)
        valid[self.offsets[:-1][np.diff(self.offsets) > 0]] = False
        return valid


def list_shards(folder: Path) -> list[Path]:
    """The Parquet files in a folder and in those in it, in order of their names."""
    return sorted(file for file in folder.rglob("*.parquet") if not file.name.startswith("."))


class ScoreShards(Chunks):
    """The shards of a folder as chunks of treated scores: `histogram` and `value_at` read them file by file. An
    InputError: there is none; while they are read: one that lacks a column or has lists of unequal lengths."""

    def __init__(self, folder: Path, treatment: ScoresConfig, *, tokens: bool = False, fitted: tuple | None = None):
        """`tokens`: token ids are read even where nothing is pooled. `fitted`: the `fitted` of the same shards, read
        before; None: found now, in one pass to pool and two of several checkpoints."""
        from ifguide.influence import attribution  # here, for it loads torch, which pages that read a sketch do without

        self._method, self.files = attribution, list_shards(folder)
        if not self.files:
            raise InputError(f"{folder}: expected .parquet files of scores, got none; name the folder they are in")
        self._folder, self._treatment, self._n_checkpoints = folder, treatment, 0
        self._tokens = tokens or bool(treatment.pooling)
        self._divisors, self._means = fitted or ([1.0], np.zeros(1))
        if fitted:
            return
        if self._first().scores.shape[0] > 1:
            self._divisors = attribution.deviations(
                lambda: (part.scores[:, part.valid].astype(np.float64) for part in self._raw())
            )
        if treatment.pooling:
            self._means = attribution.mean_by_kind(self._kinds())

    @property
    def fitted(self) -> tuple[Sequence[float], np.ndarray]:
        """Each checkpoint's deviation, and the mean score of each token kind, float64 (kinds,)."""
        return self._divisors, self._means

    def _first(self) -> Part:
        for part in self._raw():
            return part
        raise InputError(f"{self._folder}: the files hold no document; score the corpus again")

    def _raw(self) -> Iterator[Part]:
        for file in self.files:
            yield from self._read(file)

    @contextlib.contextmanager
    def _open(self, file: Path) -> Iterator[tuple[pq.ParquetFile, list[str]]]:
        """A shard and the columns to read of it; what goes wrong with it is an InputError."""
        columns = ["document_id", "scores", *["token_ids"] * self._tokens]
        try:
            with pq.ParquetFile(file) as table:
                if missing := [name for name in columns if name not in table.schema_arrow.names]:
                    remedy = "score again with this version's TokenScores"
                    raise InputError(f"{file}: expected the columns {', '.join(columns)}; {missing} missing; {remedy}")
                yield table, columns
        except (OSError, pa.ArrowException, AttributeError, ValueError) as error:
            raise InputError(f"{file} cannot be read as scores ({error}); copy or make it again") from error

    def _read(self, file: Path) -> Iterator[Part]:
        with self._open(file) as (table, columns):
            for batch in table.iter_batches(batch_size=DOCUMENTS, columns=columns):
                yield self._part(batch, file)

    def read_one(self, file: Path, id: str) -> Part | None:
        """The document of this id, scores averaged and pooled, if the shard has it."""
        with self._open(file) as (table, columns):
            for group in range(table.num_row_groups):
                ids = table.read_row_group(group, columns=["document_id"])["document_id"].cast(pa.string())
                if (row := pc.index(ids, id).as_py()) >= 0:
                    rows = table.read_row_group(group, columns=columns).slice(row, 1).combine_chunks()
                    return self._treat(self._part(rows.to_batches()[0], file))
        return None

    def _part(self, batch: pa.RecordBatch, file: Path) -> Part:
        def expect(holds, what: str) -> None:
            if not holds:
                raise InputError(f"{file}: expected {what}; score these documents again")

        ids, lists = batch["document_id"].cast(pa.string()), batch["scores"]
        expect(not ids.null_count and not lists.null_count, "an id and scores for each document")
        rows = lists.flatten()
        n = len(rows) // max(len(ids), 1)
        self._n_checkpoints = self._n_checkpoints or n
        same = (lists.value_lengths().to_numpy() == self._n_checkpoints).all()
        expect(same and n, f"{self._n_checkpoints} lists of scores for each document")
        lengths = rows.value_lengths().to_numpy(zero_copy_only=False).reshape(len(ids), n)
        expect((lengths == lengths[:, :1]).all(), "lists of scores of one length for each document")
        values = rows.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        expect(np.isfinite(values).all(), "finite scores")
        ends = np.cumsum(lengths).reshape(lengths.shape)
        scores = values[None]
        if n > 1:
            starts = ends - lengths
            scores = np.stack([values[expand_intervals(*pair)] for pair in zip(starts.T, ends.T, strict=True)])
        offsets, kinds = np.append(0, np.cumsum(lengths[:, 0])).astype(np.int64), None
        if self._tokens:
            expect(np.array_equal(batch["token_ids"].value_lengths(), lengths[:, 0]), "as many token_ids as scores")
            kinds = batch["token_ids"].flatten().to_numpy()
            whole = kinds.dtype.kind in "iu" and kinds.min(initial=0) >= 0 and kinds.max(initial=0) < KINDS
            expect(whole, f"whole numbers from 0 to {KINDS - 1:,} as token_ids")
        return Part(ids, offsets, scores, kinds)

    def _average(self, part: Part) -> np.ndarray:
        valid, rows = part.valid, list(part.scores)
        blocks = self._method.average_blocks(
            rows, lambda a, b: valid[a:b], average=self._treatment.average, divisors=self._divisors
        )
        return np.concatenate([np.zeros(0, np.float32), *blocks])

    def _kinds(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part in self._raw():
            assert part.token_ids is not None  # where scores are pooled
            yield part.token_ids[part.valid], self._average(part)[part.valid].astype(np.float64)

    def read(self, file: Path) -> Iterator[Part]:
        """The documents of one shard, scores averaged and pooled."""
        return map(self._treat, self._read(file))

    def _treat(self, part: Part) -> Part:
        scores, valid, pooling = self._average(part), part.valid, self._treatment.pooling
        if pooling:
            assert part.token_ids is not None
            pooled = self._method.pool_blocks(
                scores, part.token_ids, lambda a, b: valid[a:b], pooling, means=self._means
            )
            scores = np.concatenate([np.zeros(0, np.float32), *pooled])
        return dataclasses.replace(part, scores=scores[None])

    def map(self, work: Callable, report: Callable[[int], None] | None = None, ranges=None) -> Iterator:
        """work(0, d) of every part in turn."""
        self.n_tokens = 0
        for file in self.files:
            for part in self.read(file):
                self.scores, self.offsets, self.trained = part.scores[0], part.offsets, None
                self.n_tokens += int(part.offsets[-1])
                self.n_valid = np.maximum(np.diff(part.offsets) - 1, 0)
                yield work(0, len(part.ids))

    def tokens_above(self, threshold: float) -> int:
        """How many valid tokens have a score strictly above a threshold, which takes a pass."""
        return sum(self.map(lambda a, b: int(np.count_nonzero(self.values(a, b).astype(np.float64) > threshold))))

    def tail_share(self) -> float:
        """As `ifguide.selection.algorithm.tail_share`, of every k-th token where there are very many."""
        step, start, values = max(1, self.n_tokens // SAMPLE), 0, []
        for file in self.files:
            for part in self.read(file):
                first = -start % step
                values.append(part.scores[0, first::step][part.valid[first::step]])
                start += part.scores.shape[1]
        return algorithm.tail_share(np.concatenate(values))


def select_in_shards(config: StudyConfig, folder: Path, out: Path, settings: dict) -> dict:
    """Select tokens by the scores in a folder, with a study's settings and what `settings` changes in them (as
    `ifguide.study.stages.select.save_selection`), or above the `threshold` in them. Writes a Parquet file for each
    shard to `out` (document_id, n_tokens, hits, hit_sum, rank, from 0 and null without a hit, and selected, the
    positions in the document), and what it returns to `out/_summary.json`.

    Raises:
        ConfigError: a setting out of range; `out` is in `folder`; or a budget with selection.whole_windows.
        InputError: a shard that cannot be used; names the file.
        NumericalError: no token has a score.
    """
    if out.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"--out: expected a folder outside {folder}, whose files are all read as scores, got {out}")
    shards = ScoreShards(folder, config.scores)
    histogram = shards.histogram()
    n_valid, given = int(histogram.sum()), dict(settings)
    if (threshold := given.pop("threshold", None)) is not None:
        given["tokens_above"] = above = shards.tokens_above(threshold)
    choice = read_choice(given, config.selection, n_valid, lambda _: round(shards.tail_share() * n_valid))
    if choice.max_tokens and config.selection.whole_windows:
        raise ConfigError("selection.whole_windows: expected false with a budget where the scores are; set it to false")
    if threshold is None:
        threshold, above = shards.value_at(n_valid - 1 - choice.tokens_above, histogram)
    ids, ranking, taken, n_documents = _rank(shards, threshold, choice)
    out.mkdir(parents=True, exist_ok=True)
    (out / "_summary.json").unlink(missing_ok=True)  # it says that all masks are there
    rank = np.empty(len(ids), dtype=np.int64)
    rank[ranking.order] = np.arange(len(ids))
    first = 0
    for file in shards.files:
        place = out / file.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as temporary, pq.ParquetWriter(temporary, pa.schema(_MASK), compression="zstd") as writer:
            for part in shards.read(file):
                counts, sums, selected = _select(part, threshold, choice)
                hit = counts > 0
                here = slice(first, first := first + int(hit.sum()))
                ranks, kept = np.zeros((2, len(counts)), dtype=np.int64)
                ranks[hit], kept[hit] = rank[here], taken[here]
                starts = np.searchsorted(selected, part.offsets[:-1])
                places = selected[expand_intervals(starts, starts + kept)] - np.repeat(part.offsets[:-1], kept)
                lists = pa.ListArray.from_arrays(np.append(0, np.cumsum(kept)).astype(np.int32), places)
                rows = [part.ids, np.diff(part.offsets), counts, sums, pa.array(ranks, mask=~hit), lists]
                writer.write_table(pa.table(dict(zip(_MASK, rows, strict=True))).cast(pa.schema(_MASK)))
    summary = dataclasses.asdict(choice) | {
        "tokens_above": above,
        "threshold": threshold,
        "n_tokens": shards.n_tokens,
        "n_documents": n_documents,
        "n_valid": n_valid,
        "n_selected": int(taken.sum()),
        "n_documents_hit": int(np.count_nonzero(taken)),
        "histogram": _sketch(histogram),
        "documents": [
            {"document_id": ids[i], "hits": int(ranking.count_above[i]), "hit_sum": float(ranking.sum_above[i])}
            for i in ranking.order[:TOP].tolist()
        ],
    }
    write_json(out / "_summary.json", summary)
    return summary


def _select(part: Part, threshold: float, choice: Choice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits of each document int64 (d,), the sums of their scores, and the places of all tokens they take, int64."""
    given = part.scores[0], part.offsets, part.valid
    ranking = algorithm.rank_documents(*given, threshold, np.arange(len(part.ids)))
    mask = algorithm.select_tokens(*given, ranking, window=choice.window)
    return ranking.count_above, ranking.sum_above, np.flatnonzero(mask)


def _rank(shards: ScoreShards, threshold: float, choice: Choice) -> tuple[list[str], Ranking, np.ndarray, int]:
    """Of the documents with a hit, their ids, ranking, and how many tokens each gives; and how many documents there
    are at all."""
    ids: list[str] = []
    measured, n_documents = [], 0
    for file in shards.files:
        for part in shards.read(file):
            counts, sums, selected = _select(part, threshold, choice)
            hit, n_documents = counts > 0, n_documents + len(counts)
            covered = np.diff(np.searchsorted(selected, part.offsets))
            ids += part.ids.filter(pa.array(hit)).to_pylist()
            measured.append(np.stack([counts, sums, covered])[:, hit])
    counts, sums, covered = np.concatenate(measured, axis=1)
    others = np.zeros(int(n_documents > len(ids)))  # one stands for all without a hit: the ranks are relative to them
    id_rank = np.empty(len(ids) + len(others), dtype=np.int64)
    id_rank[[*sorted(range(len(ids)), key=ids.__getitem__), *range(len(ids), len(id_rank))]] = np.arange(len(id_rank))
    counts, sums = np.append(counts, others).astype(np.int64), np.append(sums, others)
    ranking = algorithm.rank_measured(threshold, counts, sums, id_rank)
    order = ranking.order[ranking.order < len(ids)]
    taken = algorithm.spend_budget(covered.astype(np.int64), order, choice.max_tokens)
    return ids, dataclasses.replace(ranking, order=order), taken, n_documents


def _sketch(histogram: np.ndarray) -> list[dict]:
    """At most about `_BINS` bins of as many scores each: `at_most`, the highest score in it, and `count`."""
    running = np.cumsum(histogram)
    ends = np.unique(np.searchsorted(running, np.linspace(1, running[-1], _BINS)))
    counts = np.diff(running[ends], prepend=0)
    return [{"at_most": float(end), "count": int(count)} for end, count in zip(bin_ends(ends), counts, strict=True)]

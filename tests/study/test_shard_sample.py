"""Parquet shards of scores, opened as a sample and a sketch: counts of all tokens, buckets, and documents by id."""

import dataclasses
import shlex
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ifguide.config.schema import ScoresConfig
from ifguide.errors import InputError, StaleError
from ifguide.study.folder import list_studies
from ifguide.study.peer_scores import open_shards
from ifguide.study.sharing import shard_sample
from ifguide.study.sharing.score_shards import ScoreShards, select_in_shards
from ifguide.study.sharing.shard_sample import cut_document, read_document, read_sketch, shards_config
from tests.tiny_study import DOCUMENTS
from tests.tiny_tokenizers import tiny_tokenizer

N_DOCUMENTS, N_SHARDS = 900, 3
POOLED = ScoresConfig(pooling=1.0)


def write_shards(folder, n_documents=N_DOCUMENTS, checkpoints=2):
    """Shards as datatrove writes them, and the tokenizer of their ids beside them."""
    tokenizer, draw, rows = tiny_tokenizer("byte_bpe"), np.random.default_rng(4), []
    (folder / "scores" / "deeper").mkdir(parents=True)
    tokenizer.save_pretrained(folder / "tokenizer")
    for number in range(n_documents):
        text = DOCUMENTS[number % len(DOCUMENTS)][0]
        ids = tokenizer(text)["input_ids"]
        scores = draw.normal(size=(checkpoints, len(ids))) * np.exp(1.5 * draw.normal())
        scores[:, 0] = 0
        rows.append({"id": str(number), "text": text, "document_id": f"../web/{number}", "token_ids": ids})
        rows[-1]["scores"] = scores.tolist()
    for task in range(N_SHARDS):
        place = folder / "scores" / ("deeper" if task else "") / f"{task}.parquet"
        pq.write_table(pa.Table.from_pylist(rows[task::N_SHARDS]), place, row_group_size=77)
    return folder / "scores"


def open_sample(folder, name="sampled"):
    return open_shards(name, folder / "scores", str(folder / "tokenizer"), POOLED, cache=folder / "cache")


def open_few(folder, exact=200):
    """A study of shards written to a folder, sampled as if they were too many to be read whole."""
    write_shards(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"PER_BUCKET": 20, "BEST": 30, "EXACT": exact}.items():
            patch.setattr(shard_sample, name, value)
        return open_sample(folder)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A study of shards that are few enough to be read whole, sampled as if they were not."""
    return open_few(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def whole(opened):
    """All documents as the shards' own reader treats them: id -> scores of all but the first token."""
    folder = opened.root.parent.parent / "scores"
    shards, scores = ScoreShards(folder, POOLED), {}
    for file in shards.files:
        for part in shards.read(file):
            values = np.split(part.scores[0], part.offsets[1:-1])
            scores |= {id: one[1:] for id, one in zip(part.ids.to_pylist(), values, strict=True)}
    assert len(scores) == N_DOCUMENTS
    return scores


def test_the_sketch_counts_all_tokens_and_says_how_exactly(opened, whole):
    sketch, values = read_sketch(opened), np.concatenate([*whole.values()]).astype(np.float64)
    assert (sketch.n_documents, sketch.n_valid, len(sketch.files)) == (N_DOCUMENTS, len(values), N_SHARDS)
    ranked = np.sort(values)[::-1]
    thresholds = np.concatenate([ranked[[0, 5, 199, 250, 4000, -1]], [0.0, 1.3, -50.0, 1e9]])
    real = np.array([np.count_nonzero(values > threshold) for threshold in thresholds])
    best, least, most = sketch.tokens_above(thresholds)
    assert (least <= best).all() and (best <= most).all() and (least <= real).all() and (real <= most).all()
    np.testing.assert_array_equal(best[:3], real[:3])
    assert (most - least)[[3, 4]].min() > 0  # between two ends of a bin
    assert np.abs(best - real).max() <= 0.002 * len(values)
    ends = np.nextafter(np.float32([1.0, 4.0, 0.25]), np.float32(0)).astype(np.float64)  # of bins
    for scores, counted in (
        (values, sketch.tokens_above),
        (np.array([*map(max, whole.values())]), sketch.documents_above),
    ):
        exact = [np.count_nonzero(scores >= end) for end in (1.0, 4.0, 0.25)]
        np.testing.assert_array_equal(counted(ends), [exact] * 3)
    bars = sketch.bars(np.linspace(sketch.lowest, values.max(), 30))
    assert sketch.lowest <= values.min() and sum(bars["count"]) == len(values)


def test_the_sample_has_documents_of_each_bucket_and_the_best_with_their_own_scores(opened, whole):
    corpus, peaks = opened.corpus(), {id: float(scores.max()) for id, scores in whole.items()}
    least = max(peaks.values()) / 2**8  # what is far lower is in one bucket
    bucket = {id: np.floor(np.log2(max(peak, least))) for id, peak in peaks.items()}
    sampled = {*corpus.ids()}
    assert {bucket[id] for id in sampled} == {*bucket.values()} and len({*bucket.values()}) > 5
    assert sampled >= {*sorted(peaks, key=peaks.__getitem__)[-30:]}
    assert 100 < len(sampled) < N_DOCUMENTS / 2
    for number, id in enumerate(corpus.ids()):
        here = slice(*corpus.offsets[number : number + 2])
        np.testing.assert_array_equal(opened.scores("shards")[here][1:], whole[id])
    assert corpus.document(0).text in {text for text, _ in DOCUMENTS}


def test_a_threshold_of_the_sample_selects_in_all_shards_what_the_sketch_counts(opened, whole, tmp_path):
    sketch, folder = read_sketch(opened), opened.root.parent.parent / "scores"
    threshold = float(sketch.highest[-100])
    made = select_in_shards(shards_config(opened, folder), folder, tmp_path / "masks", {"threshold": threshold})
    assert made["threshold"] == threshold and made["tokens_above"] == made["n_selected"] == 99
    assert sketch.tokens_above(np.array([threshold]))[0] == 99
    assert made["n_documents_hit"] == sum(scores.max() > threshold for scores in whole.values())
    assert f"--threshold {threshold!r} --window 2" in sketch.command("sampled", threshold, 2)
    hostile = dataclasses.replace(sketch, folder="/data/it's; rm -r x").command("sampled", threshold, 0)
    assert shlex.split(hostile)[4] == "/data/it's; rm -r x"


def test_a_document_is_read_from_its_shard_by_its_id_alone(opened, whole):
    sketch, sampled = read_sketch(opened), {*opened.corpus().ids()}
    outside = next(id for id in whole if id not in sampled)
    for id in (outside, next(iter(sampled))):
        read = read_document(sketch, id)
        np.testing.assert_array_equal(read.scores[1:], whole[id])
        assert "".join(cut_document(opened, read)) == DOCUMENTS[int(id.rpartition("/")[2]) % len(DOCUMENTS)][0]
    for hostile in ("../../../etc/passwd", "/etc/passwd", "' OR 1=1 --", "\0", "deeper/1.parquet", ""):
        with pytest.raises(InputError, match="has a document"):
            read_document(sketch, hostile)


def test_shards_that_are_gone_damaged_or_others_are_named_with_the_remedy(tmp_path):
    write_shards(tmp_path, 30)
    study = open_sample(tmp_path)
    sketch, shards = read_sketch(study), sorted((tmp_path / "scores").rglob("*.parquet"))
    content = shards[1].read_bytes()
    shards[1].write_bytes(content[:-50])
    with pytest.raises(InputError, match=r"deeper/1\.parquet cannot be read as scores.*copy or make it again"):
        read_document(sketch, "../web/nobody")
    with pytest.raises(InputError, match=r"deeper/1\.parquet cannot be read"):
        open_sample(tmp_path, "again")
    shards[1].unlink()
    with pytest.raises(InputError, match=r"1 shards are missing, first deeper/1\.parquet; copy them back"):
        read_document(sketch, "../web/0")
    assert list_studies(tmp_path / "cache") == ["sampled"]
    other = {"document_id": "new", "scores": [[0.0, 1.0]] * 2, "token_ids": [1, 70_000]}
    pq.write_table(pa.Table.from_pylist([other]), shards[1])
    with pytest.raises(InputError, match="is not what was opened"):
        read_document(sketch, "new")
    (study.root / shard_sample.PLACE / "sketch.npz").write_bytes(b"PK")
    with pytest.raises(StaleError, match=r"sketch\.npz"):
        read_sketch(study)
    shutil.rmtree(study.root / shard_sample.PLACE)  # as in a packed study
    assert read_sketch(study) is None and shard_sample.is_sample(study)


def test_long_documents_are_sampled_by_their_draws_up_to_a_number_of_tokens():
    best, draw = shard_sample._Best(50, 1000), np.random.default_rng(1)
    ranks, lengths = draw.random(3000), draw.integers(1, 90, 3000)
    for rank, length in zip(ranks, lengths, strict=True):
        if rank > best.least:
            best.add(rank, shard_sample.Sampled("", "", np.zeros(length, np.int32), np.zeros(length, np.float32)))
    kept = sorted(rank for rank, _ in best.items())
    assert kept == sorted(ranks)[-len(kept) :] and 10 < len(kept) < 50
    assert sum(len(document.scores) for _, document in best.items()) <= 1000

"""Runs that can be subtracted from each other: which are offered, under which names, and that the numbers are
theirs."""

import json
import shutil

import numpy as np
import pytest

from ifguide.errors import StaleError
from ifguide.storage import artifacts
from ifguide.study.analysis.score_runs import Run, others, read_study
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.ui.documents import loaders as document_data
from ifguide.ui.loaders import load_study
from tests.app.fake_study import Content, fake_texts, write_study
from tests.small_study import rebuild


def add_scores(study: Study, *files: str) -> None:
    """Other own-loss scores beside those that are there, each file different."""
    shape = study.scores().shape

    def change(folder):
        for number, file in enumerate(files):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            np.save(folder / file, np.random.default_rng(number + 10).normal(0, number + 1, shape).astype(np.float32))

    rebuild(study, Unit("scores"), change)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """This study with a checkpoint and an extra query set, and another of the same corpus."""
    folder = tmp_path / "cache"
    for name in ("here", "there"):
        add_scores(write_study(folder, name, until="scores"), "step-000010/own_loss.npy")
    add_scores(Study.open("here", folder), "extra/mild/own_loss.npy", "step-000020/extra/mild/own_loss.npy")
    monkeypatch.setenv("IFGUIDE_CACHE", str(folder))
    return folder


def offered(name: str = "here") -> list[str]:
    return list(document_data.runs(load_study(name)))


THERE = ["there, checkpoint step-000010", "there, its scores"]


def test_runs_of_other_studies_are_offered_behind_those_of_this_one(cache):
    mine = [
        "Checkpoint step-000010",
        "This study's scores",
        "Checkpoint step-000020, queries mild",
        "This study's scores, queries mild",
    ]
    assert offered() == [*mine, *THERE]
    assert offered("there")[2:4] == ["here, checkpoint step-000010", "here, its scores"]


def spoil_manifest(folder):
    (folder / "there/scores/manifest.json").write_text("{")


def forbid_reading(folder):
    path = folder / "there/scores/manifest.json"
    path.unlink()
    path.mkdir()  # what cannot be read even by root


def cut_scores(folder):
    for path in (folder / "there/scores").rglob("own_loss.npy"):
        path.write_bytes(path.read_bytes()[:-4])


def write_unreadable_settings(folder):
    (folder / "there/study.toml").write_text("[corpus")


def score_an_earlier_corpus(folder):
    rebuild(Study.open("there", folder), Unit("corpus"), lambda partial: (partial / "more.json").write_text("{}"))


def remove_corpus(folder):
    shutil.rmtree(folder / "there/corpus")


def read_another_text(folder):
    shutil.rmtree(folder / "there")
    texts = fake_texts()
    texts[3]["text"] = texts[3]["text"].replace(".", "!", 1)
    write_study(folder, "there", until="scores", content=Content(documents=texts))


def name_files_that_leave_the_folder(folder):
    path = folder / "there/scores/manifest.json"
    manifest = json.loads(path.read_text())
    for part in ("outputs", "bytes"):
        for name in [name for name in manifest[part] if name.endswith("own_loss.npy")]:
            manifest[part][f"../../here/scores/{name}"] = manifest[part].pop(name)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "harm",
    [
        spoil_manifest,
        forbid_reading,
        cut_scores,
        write_unreadable_settings,
        score_an_earlier_corpus,
        remove_corpus,
        read_another_text,
        name_files_that_leave_the_folder,
    ],
)
def test_what_is_broken_or_of_another_corpus_is_not_offered(cache, harm):
    before = offered()
    harm(cache)
    assert offered() == [title for title in before if title not in THERE]


def test_a_study_without_scores_is_not_offered(cache):
    write_study(cache, "young", until="queries")
    write_study(cache, "old", until="scores")
    assert [title for title in offered() if title.startswith(("young", "old"))] == ["old, its scores"]


def test_manifests_are_read_once_until_they_change(cache, monkeypatch):
    read = []
    monkeypatch.setattr(document_data, "read_study", lambda root: read.append(root.name) or read_study(root))
    first = offered()
    assert sorted(read) == ["here", "there"]
    assert offered() == first and len(read) == 2
    add_scores(Study.open("there", cache), "step-000020/own_loss.npy")
    assert set(offered()) - set(first) == {"there, checkpoint step-000020"}
    assert read[2:] == ["there"]


def test_the_difference_is_one_studys_scores_minus_the_others(cache):
    loaded = load_study("here")
    left, right = Run("there", "step-000010"), Run("here", "", "mild")
    layer = document_data._build_difference(loaded, left, right)
    there, here = Study.open("there", cache), loaded.study
    a, b = there.scores("own_loss", "step-000010"), here.scores("own_loss", queries="mild")
    np.testing.assert_allclose(layer.values[:], a / a.std() - b / b.std(), rtol=1e-4, atol=1e-5)
    assert layer.title == "there, checkpoint step-000010 − This study's scores, queries mild"
    again = document_data._build_difference(loaded, right, left)
    np.testing.assert_allclose(again.values[:], -layer.values[:])
    rebuild(there, Unit("scores"), lambda folder: np.save(folder / "step-000010/own_loss.npy", b * np.float32(2)))
    after = document_data._build_difference(loaded, left, right)
    np.testing.assert_allclose(after.values[:], 0, atol=1e-4)
    assert after.mark != layer.mark  # so that a browser asks for the tokens again


def test_scores_of_another_length_or_kind_are_refused(cache):
    n_tokens = Study.open("here", cache).corpus().n_tokens
    for values in (np.zeros(5, np.float32), np.zeros((2, 2), np.float32), np.zeros(n_tokens, np.float64)):
        np.save(cache / "there/scores/own_loss.npy", values)
        with pytest.raises(StaleError, match=rf"expected {n_tokens:,} scores.*`ifguide run there --force scores`"):
            document_data._build_difference(load_study("here"), Run("there"), Run("here"))


def test_a_runs_file_is_where_the_study_reads_it(cache):
    study = Study.open("here", cache)
    found = read_study(study.root)
    for run, size in found.sizes.items():
        path = study.root / "scores" / run.file
        assert path.stat().st_size == size
        np.testing.assert_array_equal(study.scores("own_loss", run.checkpoint or None, run.queries), np.load(path))
    assert found.digest == artifacts.digest_of(study.manifest(Unit("scores")))
    assert len(found.sizes) == 4
    assert others(study.root) == [cache / "there"]

"""Scores come in shards that are whole or absent, and a run that goes on gives the bytes of one that was never
stopped."""

import shutil

import numpy as np
import pytest

from ifguide.errors import ConfigError, StaleError
from ifguide.runtime.progress import Progress
from ifguide.storage import shards
from ifguide.storage.shards import ShardStore, plan_shards
from ifguide.storage.work import close_work, open_work
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import run_study
from ifguide.study.reading import Study
from ifguide.study.stages import scoring
from ifguide.study.stages.scoring import score_task
from tests.tiny_study import save_tiny_model, tiny_config, write_tiny_inputs

OFFSETS = np.array([0, 4, 4, 9, 30, 31, 40])


def test_shards_cover_all_documents_once_and_never_divide_one():
    for size in (1, 5, 10, 100):
        bounds = plan_shards(OFFSETS, size)
        assert bounds[0] == 0 and bounds[-1] == len(OFFSETS) - 1
        assert (np.diff(bounds) > 0).all()
    assert plan_shards(OFFSETS, 10).tolist() == [0, 4, 6]  # documents begin at 0 4 4 9 | 30 31
    assert plan_shards(OFFSETS, 100).tolist() == [0, 6]


def test_what_is_written_is_laid_end_to_end(tmp_path):
    store = ShardStore(tmp_path / "work", ("a", "b"), OFFSETS, plan_shards(OFFSETS, 10))
    values = {"a": np.arange(40, dtype=np.float32), "b": -np.arange(40, dtype=np.float32)}
    for shard in (1, 0):
        assert not store.has(shard)
        store.write(shard, {k: v[store.tokens[shard] : store.tokens[shard + 1]] for k, v in values.items()})
        assert store.has(shard)
    store.assemble(tmp_path)
    for name, expected in values.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), expected)


def test_work_with_other_inputs_is_thrown_away(tmp_path):
    old = open_work(tmp_path, "scores", {"inputs": 1})
    (old / "x").write_text("unfinished")
    assert open_work(tmp_path, "scores", {"inputs": 1}) == old and (old / "x").exists()
    new = open_work(tmp_path, "scores", {"inputs": 2})
    assert new.exists() and not old.exists()
    close_work(tmp_path, "scores")
    assert not new.exists()


class Stopped(Exception):
    pass


def test_a_stopped_scoring_goes_on_where_it_was_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    write_tiny_inputs(tmp_path / "inputs")
    save_tiny_model("gpt_neox", tmp_path / "inputs" / "model")
    study = Study.create("tiny", tiny_config(tmp_path / "inputs"), tmp_path)
    monkeypatch.setattr(scoring, "plan_shards", lambda offsets: plan_shards(offsets, 40))
    run_study(study, until="scores")
    undisturbed = study.manifest(Unit("scores"))["outputs"]
    assert not list((study.root / ".work").iterdir())

    written = []
    write = shards.ShardStore.write

    def write_counted(self, shard, values):
        if len(written) == 3:
            raise Stopped
        write(self, shard, values)
        written.append((self.path(shard).parent.name, self.path(shard).name))

    monkeypatch.setattr(shards.ShardStore, "write", write_counted)
    with pytest.raises(Stopped):
        run_study(study, until="scores", force="scores")
    before, written[:] = list(written), []
    assert len(before) == 3
    monkeypatch.setattr(
        shards.ShardStore,
        "write",
        lambda self, shard, values: (
            write(self, shard, values),
            written.append((self.path(shard).parent.name, self.path(shard).name)),
        ),
    )
    run_study(study, until="scores", force="scores")
    assert written and not set(before) & set(written), "a finished shard was computed again"
    assert study.manifest(Unit("scores"))["outputs"] == undisturbed


def test_tasks_score_their_parts_alone_in_any_order_and_a_run_puts_them_together(tmp_path, monkeypatch):
    write_tiny_inputs(tmp_path / "inputs")
    save_tiny_model("gpt_neox", tmp_path / "inputs" / "model")
    study = Study.create("tiny", tiny_config(tmp_path / "inputs"), tmp_path)
    monkeypatch.setattr(scoring, "plan_shards", lambda offsets: plan_shards(offsets, 40))
    with pytest.raises(StaleError, match=r"corpus is missing .*ifguide run tiny --until direction"):
        score_task(study, 0, 3, Progress())
    run_study(study, until="scores")
    undisturbed = study.manifest(Unit("scores"))["outputs"]
    shutil.rmtree(study.folder(Unit("scores")))
    for task, tasks in ((3, 3), (-1, 3), (0, 0)):
        with pytest.raises(ConfigError, match="--task: expected 0 to"):
            score_task(study, task, tasks, Progress())

    written, write = [], shards.ShardStore.write

    def write_counted(self, shard, values):
        write(self, shard, values)
        written.append(shard)

    monkeypatch.setattr(shards.ShardStore, "write", write_counted)
    for task in (2, 0, 2, 1):
        written.clear()
        score_task(study, task, 3, Progress())
        assert {shard % 3 for shard in written} <= {task}
    assert not (study.folder(Unit("scores")) / "own_loss.npy").exists()
    written.clear()
    run_study(study, until="scores")
    assert not written, "a finished shard was computed again"
    assert study.manifest(Unit("scores"))["outputs"] == undisturbed

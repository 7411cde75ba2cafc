"""Two processes against one: the same sums, the same steps, the same bytes; and none waits for one that is gone."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ifguide.influence.batches import Sequence, make_batches
from ifguide.influence.direction import query_gradient
from ifguide.influence.ekfac import fit_factors
from ifguide.models.loading import tracked_modules
from ifguide.runtime.distributed import ALONE, Processes
from ifguide.storage.shards import plan_shards
from ifguide.study.freshness import stage_states
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import run_study
from ifguide.study.reading import Study
from ifguide.study.stage_table import STAGES
from ifguide.study.stages import scoring
from tests import warm
from tests.influence.covariances import fit_covariances
from tests.influence.dense import relative_error
from tests.tiny import tiny_model, token_documents
from tests.tiny_study import save_tiny_model, tiny_config, write_tiny_inputs
from tests.together import REPOSITORY, run_together


def measure(processes: Processes, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Covariances, a preconditioned gradient and a query gradient of a tiny model, as tensors by name."""
    model = tiny_model("llama", dtype=dtype)
    modules = tracked_modules(model)
    ids, offsets = token_documents(11, seed=3)
    sequences = [Sequence(ids[a:b], np.arange(a, b)) for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    batches = lambda: make_batches(sequences, 24, share=(processes.rank, processes.world_size))  # noqa: E731
    inputs, outputs = fit_covariances(model, modules, batches, seed=5, processes=processes)
    queries = [(s.token_ids, np.arange(len(s.token_ids)) > 0) for s in sequences if len(s.token_ids) > 1]
    gradient = query_gradient(model, modules, queries, tokens_per_batch=24, processes=processes)
    factors = fit_factors(model, modules, batches, seed=5, processes=processes)
    tensors = {}
    for name in modules:
        tensors[f"{name} A"], tensors[f"{name} G"], tensors[f"{name} g"] = inputs[name], outputs[name], gradient[name]
        tensors[f"{name} v"] = factors[name].precondition(gradient[name], 0.1)
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}


WORKER = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from ifguide.runtime.distributed import current, join_processes
from ifguide.errors import InputError, IFGuideError
from tests.runtime.test_distributed import measure

folder = Path(sys.argv[1])
with join_processes() as processes:
    assert current() is processes and processes.world_size == 2
    answers = {"decided": processes.decide(lambda: ["only the first", processes.rank])}
    try:
        processes.decide(lambda: (_ for _ in ()).throw(InputError("no such file")))
    except IFGuideError as error:
        answers["refused"] = [type(error).__name__, str(error)]
    seen = []
    count = processes.count(lambda done, total: seen.append((done, total)), 30)
    for _ in range(5):
        count.add(2 * processes.rank + 2)
    count.wait()
    answers["counted"] = seen
    for dtype in (torch.float32, torch.float64):
        save_file(measure(processes, dtype), folder / f"{dtype}-{processes.rank}.safetensors")
    (folder / f"said-{processes.rank}.json").write_text(json.dumps(answers))
    processes.wait()  # until both have written everything
    if processes.rank == 1:
        raise InputError("this one cannot go on")
    processes.wait()
"""


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    """What two processes left behind, and how they ended: the second fails at the end, while the first waits for it."""
    folder = tmp_path_factory.mktemp("two")
    ends = run_together(WORKER, str(folder))
    assert (folder / "said-1.json").exists(), ends
    return folder, ends


def test_the_first_process_decides_and_its_error_reaches_all(worked):
    folder, _ = worked
    answers = [json.loads((folder / f"said-{rank}.json").read_text()) for rank in range(2)]
    assert [s["decided"] for s in answers] == [["only the first", 0]] * 2
    assert [s["refused"] for s in answers] == [["InputError", "no such file"], ["ProcessError", "no such file"]]


def test_units_are_counted_over_all_processes_and_told_by_the_first(worked):
    folder, _ = worked
    first, second = (json.loads((folder / f"said-{rank}.json").read_text())["counted"] for rank in range(2))
    assert first[-1] == [30, 30] and first == sorted(first)
    assert second == []


def test_who_waits_for_a_process_that_failed_learns_why(worked):
    _, ends = worked
    assert "process 1 of 2 failed: this one cannot go on" in ends[0][1]
    assert [code for code, _ in ends] == [1, 1]


def test_sums_of_two_processes_are_those_of_one(worked):
    folder, _ = worked
    for dtype in (torch.float32, torch.float64):
        alone = measure(ALONE, dtype)
        first, second = (load_file(folder / f"{dtype}-{rank}.safetensors") for rank in range(2))
        for name, expected in alone.items():
            assert torch.equal(first[name], second[name]), (dtype, name)
            # eigenvectors of near eigenvalues turn with the last digit of a float32 covariance, and v with them
            bound = 1e-5 if dtype == torch.float32 and name.endswith(" v") else 1e-6
            assert relative_error(first[name], expected) <= bound, (dtype, name)


def test_a_process_alone_decides_counts_and_sums_by_itself():
    seen, tensor = [], torch.ones(2)
    count = ALONE.count(lambda *call: seen.append(call), 3)
    count.add(1)
    count.add(2)
    count.wait()
    ALONE.sum([tensor])
    assert seen == [(1, 3), (3, 3)] and tensor.tolist() == [1, 1]
    assert ALONE.decide(lambda: 7) == 7 and ALONE.sum_counts(4) == [4] and ALONE.failure() == ""


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A study up to its scores, by one process, with small shards; and the folder of studies."""
    folder = tmp_path_factory.mktemp("scored")
    write_tiny_inputs(folder / "inputs")
    save_tiny_model("gpt_neox", folder / "inputs" / "model")
    assignments = ["training.early_checkpoints=1", "compute.threads=1"]
    study = Study.create("tiny", tiny_config(folder / "inputs", *assignments), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "plan_shards", lambda offsets: plan_shards(offsets, 20))
        run_study(study, until="scores")
    return study


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from ifguide.storage import shards
from ifguide.study import pipeline
from ifguide.study.stages import scoring
from ifguide.study.stages import build as stages
from ifguide.training import train as training
from ifguide.runtime.distributed import join_processes
from ifguide.errors import ProcessError
from ifguide.study.reading import Study
from tests.together import environment, free_port

cache = Path(sys.argv[1])
scoring.plan_shards = lambda offsets: shards.plan_shards(offsets, 20)
write, assemble = shards.ShardStore.write, shards.ShardStore.assemble

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def work(rank, victim, moment):
    written = 0

    def write_or_die(store, shard, values):
        nonlocal written
        if rank == victim and moment == ("before", written):
            die()
        if rank == victim and moment == ("inside", written):
            Path.replace = lambda *_: die()
        write(store, shard, values)
        written += 1
        with open(cache / "written.txt", "a") as log:
            log.write(f"{store.path(shard).name}\\n")
        if rank == victim and moment == ("after", written):
            die()

    shards.ShardStore.write = write_or_die
    if rank == victim and moment == ("assembling", 0):
        shards.ShardStore.assemble = lambda *_: die()
    try:
        with join_processes():
            pipeline.run_study(Study.open("tiny", cache), until="scores", force="scores")
    except ProcessError:
        return 3
    return 0

MOMENTS = [(1, ("before", 0)), (1, ("after", 2)), (0, ("inside", 1)), (0, ("assembling", 0)), (None, None)]
for victim, moment in MOMENTS:
    port, children = free_port(), []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            os.environ.update(environment(rank, 2, port))
            os._exit(work(rank, victim, moment))
        children.append(child)
    ends = [os.waitpid(child, 0)[1] for child in children]
    there = len(list(cache.glob("tiny/.work/*/*/*.npy")))
    print(victim, *(-os.WTERMSIG(e) if os.WIFSIGNALED(e) else os.WEXITSTATUS(e) for e in ends), there, flush=True)
"""


def test_killing_either_process_loses_a_shard_at_most_and_the_scores_are_those_of_one_process(scored, tmp_path):
    shutil.copytree(scored.root, tmp_path / "tiny")
    done = warm.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    rounds = [line.split() for line in done.stdout.splitlines()]
    assert [entry[:3] for entry in rounds] == [
        ["1", "3", "-9"],
        ["1", "3", "-9"],
        ["0", "-9", "3"],
        ["0", "-9", "3"],
        ["None", "0", "0"],
    ], done.stdout + done.stderr
    kept = [int(entry[3]) for entry in rounds[:-1]]
    assert kept == sorted(kept) and kept[0] < kept[-1]
    written = (tmp_path / "written.txt").read_text().split()
    assert len(written) == len(set(written)) > kept[-1], "a finished shard was computed again"
    study = Study.open("tiny", tmp_path)
    assert study.manifest(Unit("scores"))["outputs"] == scored.manifest(Unit("scores"))["outputs"]
    assert {stage_states(study)[stage].state for stage in list(STAGES)[:6]} == {"fresh"}


TORCHRUN = """
from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler
from torch.distributed.run import main
from tests import warm

subprocess_handler.Popen = warm.Popen
main(["--nproc-per-node", "2", "-m", "ifguide", "run", "tiny"])
"""
"""`torchrun`, whose processes are forked."""


def test_torchrun_builds_the_study_that_one_process_builds(scored, tmp_path):
    """The real command, from the model to the suppressed models; float64, where both may be compared closely."""
    inputs = scored.root.parent / "inputs"
    settings = [
        "model.mode=asis",
        "model.dtype=float64",
        "scores.derivative=auto",
        "selection.controls=[]",
        "training.epochs=1",
    ]
    for cache in ("one", "two"):
        Study.create("tiny", tiny_config(inputs, *settings), tmp_path / cache)
    one = Study.open("tiny", tmp_path / "one")
    run_study(one, until="selection")
    done = warm.run(
        [sys.executable, "-c", TORCHRUN], cwd=REPOSITORY, env=os.environ | {"IFGUIDE_CACHE": str(tmp_path / "two")}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("perplexity") == 1  # one process speaks
    two = Study.open("tiny", tmp_path / "two")
    assert {state.state for state in stage_states(two).values()} == {"fresh"}
    v, w = (load_file(s.folder(Unit("direction")) / "given" / "direction.safetensors") for s in (one, two))
    for name in v:
        assert relative_error(w[name], v[name]) <= 1e-6, name
    for kind in ("own_loss", "position", "token_loss"):
        np.testing.assert_allclose(
            two.scores(kind), one.scores(kind), rtol=1e-5, atol=1e-6 * np.abs(one.scores(kind)).max()
        )

import dataclasses
import json
import signal
import sys

import pytest
import torch
from safetensors.torch import load_file

from ifguide.config.schema import SuppressConfig, TrainingConfig
from ifguide.errors import ConfigError, InputError, StaleError
from ifguide.training import train
from ifguide.training.state import STATE, read_state
from ifguide.training.train import initialise_model, train_model
from tests import warm
from tests.one_case import for_each
from tests.training.test_train import EOS, SHAPE, VOCAB, corpus, log_lines, tiny_rows, weights

TRAINING = TrainingConfig(epochs=3, batch_size=4, learning_rate=3e-3, warmup_steps=2, schedule="cosine", save_steps=2)
SUPPRESS = SuppressConfig(penalty=0.5, max_penalty=5.0, warmup_share=0.5)
DROPOUT = {"attention_dropout": 0.1, "hidden_dropout": 0.1}


class Killed(Exception):
    pass


def start(folder, training=TRAINING, *, kill_at=None, shape=DROPOUT, monkeypatch=None):
    """A training run that stops dead after a step, before that step's log line and state are written."""
    from ifguide.training import record as training_record

    model = initialise_model({"model_type": "gpt_neox", **SHAPE, **shape}, VOCAB, 0)
    write_line = training_record.TrainingRecord.write_line
    if kill_at:

        def stop(self, state):
            if state.global_step >= kill_at:
                raise Killed
            write_line(self, state)

        monkeypatch.setattr(training_record.TrainingRecord, "write_line", stop)
    try:
        return train_model(model, None, tiny_rows(), training, SUPPRESS, folder, checkpoint_steps=(3, 9))
    finally:
        if kill_at:
            monkeypatch.undo()


@pytest.mark.parametrize("changes", [{}, {"gradient_accumulation": 2}, {"max_steps": 12, "epochs": 9.0}])
@for_each("kill_at", [1, 3, 5, 7, 8])
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, monkeypatch, kill_at, changes):
    """18 rows in batches of 4: 5 steps a pass, or 3 with accumulation; so kills fall in passes, at their ends and
    before any state."""
    training = dataclasses.replace(TRAINING, **changes)
    whole = start(tmp_path / "whole", training)
    assert whole.steps > kill_at
    with pytest.raises(Killed):
        start(tmp_path / "killed", training, kill_at=kill_at, monkeypatch=monkeypatch)
    state = read_state(tmp_path / "killed")
    assert state.step == 2 * ((kill_at - 1) // 2) if kill_at > 2 else state is None
    again = start(tmp_path / "killed", training)
    assert again.steps == whole.steps and again.tokens_seen == whole.tokens_seen
    for part in ("final", *(f"checkpoints/{path.name}" for path in whole.checkpoints)):
        a, b = weights(tmp_path / "whole" / part), weights(tmp_path / "killed" / part)
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert [path.name for path in again.checkpoints] == [path.name for path in whole.checkpoints]
    timeless = [
        [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in log_lines(tmp_path / name)]
        for name in ("whole", "killed")
    ]
    assert timeless[0] == timeless[1]


def test_a_long_step_is_saved_by_the_clock(tmp_path, monkeypatch):
    from ifguide.training import record

    monkeypatch.setattr(record, "SAVE_SECONDS", 0)
    start(tmp_path, dataclasses.replace(TRAINING, save_steps=1000))
    assert read_state(tmp_path).step == 14  # of 15


def test_saving_changes_nothing(tmp_path):
    start(tmp_path / "saving")
    start(tmp_path / "not", dataclasses.replace(TRAINING, save_steps=0))
    a, b = weights(tmp_path / "saving" / "final"), weights(tmp_path / "not" / "final")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not (tmp_path / "not" / STATE).exists()


def test_a_kill_between_two_states_leaves_the_older_one(tmp_path, monkeypatch):
    with pytest.raises(Killed):
        start(tmp_path, kill_at=5, monkeypatch=monkeypatch)
    (tmp_path / STATE).rename(tmp_path / f"{STATE}.old")
    assert read_state(tmp_path).step == 4


def test_a_damaged_state_is_named(tmp_path, monkeypatch):
    with pytest.raises(Killed):
        start(tmp_path, kill_at=5, monkeypatch=monkeypatch)
    (tmp_path / STATE / "random-0.safetensors").write_bytes(b"half")
    with pytest.raises(StaleError, match="remove that folder"):
        read_state(tmp_path)


def test_a_state_of_another_kind_of_run_is_refused(tmp_path, monkeypatch):
    with pytest.raises(Killed):
        start(tmp_path, kill_at=5, monkeypatch=monkeypatch)
    with pytest.raises(StaleError, match=r"was saved without FSDP, or by an earlier version; start it as before"):
        read_state(tmp_path).restore_schedule(None, by_name=True)


@pytest.mark.thorough
def test_a_process_killed_for_real_goes_on(tmp_path):
    script = """
import sys
from pathlib import Path
from tests.training.test_training_state import start
start(Path(sys.argv[1]))
"""
    killer = """
import os, signal, sys
from pathlib import Path
from ifguide.training import record as training_record
from tests.training.test_training_state import start
save = training_record.save_state
def save_and_die(trainer, folder, *rest):
    save(trainer, folder, *rest)
    if trainer.state.global_step == 8:
        os.kill(os.getpid(), signal.SIGKILL)
training_record.save_state = save_and_die
start(Path(sys.argv[1]))
"""
    killed = warm.run([sys.executable, "-c", killer, str(tmp_path / "a")])
    assert killed.returncode == -signal.SIGKILL
    assert json.loads((tmp_path / "a" / STATE / "counts.json").read_text())["step"] == 8
    warm.run([sys.executable, "-c", script, str(tmp_path / "a")], check=True)
    start(tmp_path / "b")
    a, b = weights(tmp_path / "a" / "final"), weights(tmp_path / "b" / "final")
    assert all(torch.equal(a[key], b[key]) for key in a)


TOGETHER = """
import os, signal, sys
from pathlib import Path
from ifguide.errors import ProcessError
from ifguide.runtime.distributed import join_processes
from ifguide.training import record
from tests.together import environment, free_port
from tests.training.test_training_state import DROPOUT, start

place, save = Path(sys.argv[1]), record.save_state

def work(folder, rank, victim, step, moment):
    def save_or_die(trainer, *rest):
        dies = rank == victim and trainer.state.global_step == step
        if dies and moment == "inside":  # all is written and the older state is out of the way
            Path.rename = lambda path, to: os.kill(os.getpid(), 9) if path.suffix else os.rename(path, to)
        save(trainer, *rest)
        if rank == 0:
            with open(folder.with_suffix(".saved"), "a") as log:
                log.write(f"{trainer.state.global_step}\\n")
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)

    record.save_state = save_or_die
    try:
        with join_processes():
            start(folder, shape={} if folder.name == "fewer" else DROPOUT)
    except ProcessError:
        return 3
    return 0

ROUNDS = [("whole", None, 0, ""), ("killed", 1, 4, "after"), ("killed", 0, 8, "inside"), ("killed", 0, 12, "after"),
          ("killed", None, 0, ""), ("fewer", 0, 8, "after")]
for name, *how in ROUNDS:
    port, children = free_port(), []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            os.environ.update(environment(rank, 2, port))
            os._exit(work(place / name, rank, *how))
        children.append(child)
    print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children), flush=True)
"""


@pytest.mark.slow
def test_two_processes_go_on_to_the_same_weights_after_either_is_killed(tmp_path):
    """Both with dropout, so the random numbers of each have to be its own; early weights and the log count too. Without
    dropout, one process alone goes on from where two were."""
    done = warm.run([sys.executable, "-c", TOGETHER, str(tmp_path)])
    assert done.stdout.split("\n")[:-1] == ["0 0", "3 -9", "-9 3", "-9 3", "0 0", "-9 3"], done.stderr
    saved = [int(line) for line in (tmp_path / "killed.saved").read_text().split()]
    assert saved == [2, 4, 6, 8, 10, 12, 14], "a step that was saved was taken again"
    for part in ("final", "checkpoints/step-000003", "checkpoints/step-000009"):
        a, b = weights(tmp_path / "whole" / part), weights(tmp_path / "killed" / part)
        assert all(torch.equal(a[key], b[key]) for key in a)
    timeless = [
        [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in log_lines(tmp_path / name)]
        for name in ("whole", "killed")
    ]
    assert timeless[0] == timeless[1]
    assert read_state(tmp_path / "fewer").step == 8
    start(tmp_path / "fewer", shape={})
    start(tmp_path / "alone", shape={})
    a, b = weights(tmp_path / "fewer" / "final"), weights(tmp_path / "alone" / "final")
    assert all(torch.allclose(a[key], b[key], rtol=0, atol=1e-4) for key in a)


@for_each("model_type", ["gpt_neox", "gpt2", "llama"])
def test_adapters_change_linear_layers_by_low_rank_only(tmp_path, model_type):
    from ifguide.models.loading import load_model

    def fresh():
        return initialise_model({"model_type": model_type, **SHAPE}, VOCAB, 0)

    training = dataclasses.replace(TRAINING, adapter="lora", lora_rank=2, save_steps=0)
    train_model(fresh(), None, tiny_rows(), training, SUPPRESS, tmp_path / "a", checkpoint_steps=(3,))
    train_model(fresh(), None, tiny_rows(), training, SUPPRESS, tmp_path / "b", checkpoint_steps=(3,))
    before, changed = fresh().state_dict(), 0
    for part in ("final", "checkpoints/step-000003"):
        after = load_model(str(tmp_path / "a" / part)).state_dict()
        assert after.keys() == before.keys()
        for name, weight in after.items():
            difference = (weight - before[name]).double()
            if difference.any():
                changed += 1
                assert weight.ndim == 2 and torch.linalg.matrix_rank(difference, rtol=1e-3) <= 2
    assert changed >= 8
    a, b = weights(tmp_path / "a" / "final"), weights(tmp_path / "b" / "final")
    assert all(torch.equal(a[key], b[key]) for key in a)


@for_each("changes", [{"adapter": "lora", "lora_rank": 2}, {"gradient_checkpointing": True}])
def test_a_killed_run_with_adapters_or_layers_computed_again_goes_on(tmp_path, monkeypatch, changes):
    training = dataclasses.replace(TRAINING, **changes)
    start(tmp_path / "whole", training)
    with pytest.raises(Killed):
        start(tmp_path / "killed", training, kill_at=7, monkeypatch=monkeypatch)
    start(tmp_path / "killed", training)
    a, b = weights(tmp_path / "whole" / "final"), weights(tmp_path / "killed" / "final")
    assert all(torch.equal(a[key], b[key]) for key in a)


@for_each("changes", [{}, {"packing": True}, {"adapter": "lora", "lora_rank": 2}, {"gradient_accumulation": 2}])
@for_each("model_type", ["gpt_neox", "gpt2", "llama"])  # GPT-2 with dropout, which has to be drawn again
def test_layers_that_are_computed_again_give_the_same_weights(tmp_path, changes, model_type):
    again, runs = [], {}
    for recompute in (False, True):
        model = initialise_model({"model_type": model_type, **SHAPE}, VOCAB, 0).double()
        layer = model.base_model.get_submodule("h.0.mlp" if model_type == "gpt2" else "layers.0.mlp")
        layer.register_forward_pre_hook(lambda *_, recompute=recompute: again.append(recompute))
        training = dataclasses.replace(TRAINING, **changes, gradient_checkpointing=recompute, save_steps=0)
        rows = tiny_rows(pack=training.packing)
        result = train_model(model, None, rows, training, SUPPRESS, tmp_path / str(recompute))
        runs[recompute] = weights(result.final)
    assert again.count(True) == 2 * again.count(False)
    for name, expected in runs[False].items():
        torch.testing.assert_close(runs[True][name], expected, rtol=1e-7, atol=1e-9, msg=name)


def test_a_model_whose_layers_cannot_be_computed_again_is_refused(tmp_path):
    model = initialise_model({"model_type": "gpt_neox", **SHAPE}, VOCAB, 0)
    model.supports_gradient_checkpointing = False
    with pytest.raises(ConfigError, match=r"GPTNeoXForCausalLM does not support it; set it to false"):
        train_model(model, None, tiny_rows(), TrainingConfig(gradient_checkpointing=True), None, tmp_path)


def test_moments_of_eight_bits_need_a_package_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "is_bitsandbytes_available", lambda: False)
    model = initialise_model({"model_type": "gpt_neox", **SHAPE}, VOCAB, 0)
    with pytest.raises(InputError, match=r"bitsandbytes, which is not installed; run: pip install"):
        train_model(model, None, tiny_rows(), TrainingConfig(optimizer="adamw-8bit"), None, tmp_path)


def test_moments_of_eight_bits_learn_the_same_and_go_on_after_a_kill(tmp_path, monkeypatch):
    """Only matrices of 4,096 numbers and more have them."""
    pytest.importorskip("bitsandbytes")
    shape = {**SHAPE, "hidden_size": 64, "intermediate_size": 128}
    training = dataclasses.replace(TRAINING, optimizer="adamw-8bit")
    eight, exact = (start(tmp_path / name, t, shape=shape) for name, t in (("whole", training), ("exact", TRAINING)))
    with pytest.raises(Killed):
        start(tmp_path / "killed", training, kill_at=7, shape=shape, monkeypatch=monkeypatch)
    moments = load_file(tmp_path / "killed" / STATE / "optimiser.safetensors")
    large = [value for key, value in moments.items() if key.endswith(("state1", "state2")) and value.numel() >= 4096]
    assert large and {value.dtype for value in large} == {torch.uint8}
    start(tmp_path / "killed", training, shape=shape)
    a, b = weights(eight.final), weights(tmp_path / "killed" / "final")
    assert all(torch.equal(a[key], b[key]) for key in a)
    losses = [[line["loss"] for line in log_lines(run.final.parent)] for run in (eight, exact)]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)


def test_corpus_of_these_tests_has_several_lengths():
    token_ids, offsets, _ = corpus()
    assert len(set(offsets[1:] - offsets[:-1])) > 3 and token_ids.max() < EOS

"""Two processes train as one does, whether each holds all weights (DDP) or a part of them (FSDP2)."""

import dataclasses
import json
import os

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from ifguide.config.schema import SuppressConfig, TrainingConfig
from ifguide.data.packing import pack_rows
from ifguide.errors import ConfigError
from ifguide.models.loading import load_model
from ifguide.runtime import distributed
from ifguide.runtime.distributed import Processes, current
from ifguide.training import objective, trainer
from ifguide.training import train as train_module
from ifguide.training.record import TrainingRecord
from ifguide.training.rows import collate_rows, trim_row
from ifguide.training.state import read_state
from ifguide.training.train import train_model
from tests.influence.dense import relative_error
from tests.tiny import tiny_model, token_documents
from tests.together import run_together
from tests.training.penalised import penalised_loss

TRAINING = TrainingConfig(epochs=2, batch_size=4, gradient_accumulation=2, learning_rate=3e-3, warmup_steps=0)


def tiny_rows():
    """Rows of unlike length, of which a part is selected; no multiple of any batch."""
    ids, offsets = token_documents(21, longest=14, seed=4)
    return pack_rows(ids, offsets, 16, 39, np.random.default_rng(1).random(len(ids)) < 0.2, pack=False)


SUPPRESS = SuppressConfig(penalty=0.5, max_penalty=0.0, warmup_share=0.0)


def train(folder, **changes) -> None:
    train_model(tiny_model("gpt_neox"), None, tiny_rows(), dataclasses.replace(TRAINING, **changes), SUPPRESS, folder)


def train_twice(folder) -> None:
    """A training of six steps that stops dead in the fifth and is started again."""

    class Stops(TrainingRecord):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 4:
                raise KeyboardInterrupt
            super().on_step_begin(args, state, control, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "TrainingRecord", Stops)
        with pytest.raises(KeyboardInterrupt):
            train(folder, save_steps=2)
    assert read_state(folder).step == 4
    train(folder, save_steps=2)


def shard_on_processors() -> None:
    """Let accelerate divide weights over processes (FSDP2), which it does by itself on accelerators only."""
    start = AcceleratorState.__init__

    def sharded(self, *args, fsdp_plugin=None, **kwargs):
        start(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin

    AcceleratorState.__init__ = sharded
    told = {"VERSION": "2", "AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "CPU_RAM_EFFICIENT_LOADING": "true"}
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    os.environ |= {f"FSDP_{name}": value for name, value in told.items()}  # as `accelerate launch` does


ONE_STEP = {
    "plain": {"gradient_accumulation": 1},
    "accumulated": {},
    "layers computed again": {"gradient_checkpointing": True},
    "logits in parts": {},
    "adapters": {"adapter": "lora", "lora_rank": 2},
}


def first_gradients(folder, way: str) -> None:
    """Keep the gradients of the first optimiser step of a training in `gradients.safetensors` of the folder."""
    kept: dict[str, torch.Tensor] = {}

    class Keep(TrainingRecord):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            for name, parameter in model.named_parameters():
                if (gradient := parameter.grad) is not None:
                    whole = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient.clone()
                    kept.setdefault(name.removeprefix("module."), whole)

    training = dataclasses.replace(TRAINING, **ONE_STEP[way], max_steps=1, max_grad_norm=0.0, save_steps=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "TrainingRecord", Keep)
        if way == "logits in parts":
            for module in (objective, trainer):
                patch.setattr(module, "LOGITS_AT_ONCE", 200)
        train_model(tiny_model("gpt_neox"), None, tiny_rows(), training, SUPPRESS, folder)
    if current().is_main:
        save_file(kept, folder / "gradients.safetensors")


def train_every_way(folder) -> None:
    """A step in each way, a whole training, and one that stops on the way and goes on."""
    for way in ONE_STEP:
        first_gradients(folder / way, way)
    train(folder / "trained")
    train_twice(folder / "trained-twice")


def check_weights_are_loaded(folder) -> None:
    """As every process needs them for scores."""
    current().wait()  # until they are written
    loaded = load_model(str(folder), dtype="float64").state_dict()
    stored = {
        name.replace("embed_out", "lm_head"): weight for name, weight in load_file(folder / "model.safetensors").items()
    }
    assert all(torch.equal(loaded[name], weight) for name, weight in stored.items())


WORKER = """
import sys
from pathlib import Path
from ifguide.runtime.distributed import join_processes
from tests.training.test_two_processes import check_weights_are_loaded, shard_on_processors, train_every_way

if sys.argv[2] == "weights":
    shard_on_processors()
with join_processes():
    train_every_way(Path(sys.argv[1]))
    check_weights_are_loaded(Path(sys.argv[1]) / "trained" / "final")
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What this process trains alone."""
    folder = tmp_path_factory.mktemp("alone")
    train_every_way(folder)
    return folder


@pytest.fixture(scope="module", params=["rows", "weights"])
def divided(request, tmp_path_factory):
    """What two processes trained that divide the rows of a step, or the weights too."""
    folder = tmp_path_factory.mktemp(request.param)
    ends = run_together(WORKER, str(folder), request.param)
    assert [code for code, _ in ends] == [0, 0], ends
    return folder


def test_two_processes_take_the_optimiser_steps_of_one(alone, divided):
    """In float64, where Adam does not blow rounding up; 21 documents in batches of 4 leave the last batch of a pass
    short."""
    one, two = (load_file(where / "trained/final/model.safetensors") for where in (alone, divided))
    assert one.keys() == two.keys()
    for name, expected in one.items():
        assert relative_error(two[name], expected) <= 1e-6, name
    logs = [
        [json.loads(line) for line in (where / "trained/training_log.jsonl").read_text().splitlines()]
        for where in (alone, divided)
    ]
    assert logs[0][0]["loss"] > logs[0][-1]["loss"]
    for a, b in zip(*logs, strict=True):
        assert a.pop("tokens_per_second") > 0 and b.pop("tokens_per_second") > 0
        assert a == pytest.approx(b, rel=1e-9)


@pytest.mark.parametrize("way", ONE_STEP)
def test_a_selected_token_weighs_the_same_in_two_processes_as_in_one(alone, divided, way):
    """The gradients of one step, in float64, although the two hold unlike numbers of selected tokens."""
    one, two = (load_file(where / way / "gradients.safetensors") for where in (alone, divided))
    assert one.keys() == two.keys() and any(gradient.any() for gradient in one.values())
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, rtol=1e-9, atol=1e-12, msg=name)
    one, two = (load_file(where / way / "final/model.safetensors") for where in (alone, divided))
    assert one.keys() == two.keys() and all(relative_error(two[name], one[name]) <= 1e-6 for name in one)


def test_a_killed_training_goes_on_to_the_same_weights(divided):
    whole, again = (load_file(divided / name / "final/model.safetensors") for name in ("trained", "trained-twice"))
    assert whole.keys() == again.keys() and all(torch.equal(again[name], whole[name]) for name in whole)
    assert load_model(str(divided / "trained" / "final"), dtype="float64").dtype == torch.float64


def test_the_loss_of_a_step_is_the_mean_over_the_tokens_of_all_processes(divided):
    """By hand: one step over all rows at once, so the order does not matter."""
    rows = [trim_row(row) for row in tiny_rows()]
    batch = collate_rows(rows, 0)
    with torch.no_grad():
        logits = tiny_model("gpt_neox")(input_ids=batch["input_ids"]).logits
    whole = penalised_loss(logits, batch["labels"], batch["selected"], 0.5).item()
    log = [json.loads(line) for line in (divided / "trained" / "training_log.jsonl").read_text().splitlines()]
    n_tokens = int((batch["labels"] != -100).sum())
    assert log[-1]["tokens_seen"] == 2 * n_tokens
    means = [line["loss"] for line in log]
    assert min(means) < whole < max(means)


def test_a_batch_that_cannot_be_divided_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(distributed, "_current", Processes(0, 3))
    with pytest.raises(ConfigError, match="multiple of 3"):
        train(tmp_path)

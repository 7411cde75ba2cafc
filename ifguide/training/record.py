"""What a training run writes as it goes: a log, early weights, a state to go on from, and its progress."""

import copy
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM, TrainerCallback
from transformers.utils import logging

from ifguide.errors import NumericalError
from ifguide.runtime.distributed import current
from ifguide.storage.artifacts import TRAINING_LOG
from ifguide.training.state import TrainingState, read_random, restore_random, save_state

if TYPE_CHECKING:
    from ifguide.training.trainer import PenalisedTrainer

LOG_LINES = 100
"""About this many lines in a training log."""
SAVE_SECONDS = 240
"""The state of a training is saved at least this often; `training.save_steps` makes it more often."""
REPORT_SECONDS = 0.25
"""Shortest time between two calls of `report`."""


def checkpoint_folder(folder: Path, step: int) -> Path:
    """The folder of the weights of an early step."""
    return folder / "checkpoints" / f"step-{step:06d}"


class TrainingRecord(TrainerCallback):
    """Writes the log, keeps early weights and reports progress."""

    def __init__(
        self, folder: Path, tokenizer, log_every: int, checkpoint_steps, save_steps: int, tokens_total: int, report
    ):
        self.folder, self.tokenizer, self.log_every, self.save_steps = folder, tokenizer, log_every, save_steps
        self.checkpoint_steps = set(checkpoint_steps)
        self.trainer: PenalisedTrainer
        """The one it belongs to, which can only be made after it."""
        self.checkpoints: list[Path] = []
        self.tokens_seen = 0
        self.count = current().count(report, tokens_total)
        self.counted = self.logged_here = 0
        self.logged_at = self.reported_at = self.saved_at = time.monotonic()
        self.learning_rate = 0.0

    def go_on(self, state: TrainingState) -> None:
        """Go on with the log, the early weights and the counts from where a killed run saved its state."""
        path = self.folder / TRAINING_LOG
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= state.step]
        if current().is_main:
            path.write_text("".join(whole), encoding="utf-8")
            self.count.add(state.tokens_seen)
        saved = sorted(step for step in self.checkpoint_steps if step <= state.step)
        self.checkpoints = [checkpoint_folder(self.folder, step) for step in saved]
        self.tokens_seen = self.logged_here = self.counted = state.tokens_seen

    def on_epoch_begin(self, args, state, control, **kwargs):
        resumed = self.trainer.resumed
        if resumed is not None and resumed.step == state.global_step:  # Trainer draws this pass's order of rows again
            restore_random(resumed.random_of_pass)
        self.random_of_pass = read_random()

    def on_step_begin(self, args, state, control, lr_scheduler=None, **kwargs):
        self.learning_rate = lr_scheduler.get_last_lr()[0]

    def on_step_end(self, args, state, control, model=None, **kwargs):
        step, late = state.global_step, time.monotonic() - self.saved_at >= SAVE_SECONDS
        due = self.save_steps and (step % self.save_steps == 0 or any(current().sum_counts(late)))  # for all processes
        saves = due and step < state.max_steps
        if step % self.log_every == 0 or step >= state.max_steps or step in self.checkpoint_steps or step == 1 or saves:
            self.write_line(state)
        if step in self.checkpoint_steps:
            place = checkpoint_folder(self.folder, step)
            self.checkpoints.append(save_weights(model, self.tokenizer, place, self.trainer.gather_weights()))
        if saves:
            random = read_random() if float(state.epoch).is_integer() else self.random_of_pass  # a pass has ended
            save_state(self.trainer, self.folder, self.tokens_seen, random)
            self.saved_at = time.monotonic()
        if step >= state.max_steps or time.monotonic() - self.reported_at >= REPORT_SECONDS:
            self.count_tokens()

    def count_tokens(self) -> None:
        """Tell how many tokens this process has trained on."""
        sums = self.trainer.sums
        here = self.logged_here + (int(sums.n_selected + sums.n_other) if sums else 0)
        self.count.add(here - self.counted)
        self.counted, self.reported_at = here, time.monotonic()

    def write_line(self, state) -> None:
        assert self.trainer.sums is not None
        self.logged_here += int(self.trainer.sums.n_selected + self.trainer.sums.n_other)
        sums, now = self.trainer.take_sums(), time.monotonic()
        n_tokens = sums["n_selected"] + sums["n_other"]
        loss = sums["objective"] / max(1, n_tokens)
        if not math.isfinite(loss):
            raise NumericalError(
                f"training: expected a finite loss, got {loss} at step {state.global_step}; lower"
                " training.learning_rate or suppress.penalty, or bound the penalty with suppress.max_penalty"
            )
        self.tokens_seen += int(n_tokens)
        line = {"step": state.global_step, "epoch": round(state.epoch, 4), "loss": loss}
        for kind in ("selected", "other"):
            line[f"loss_{kind}"] = sums[kind] / sums[f"n_{kind}"] if sums[f"n_{kind}"] else None
        line |= {"learning_rate": self.learning_rate, "tokens_seen": self.tokens_seen}
        line["tokens_per_second"] = round(n_tokens / max(now - self.logged_at, 1e-9), 1)
        if current().is_main:
            with open(self.folder / TRAINING_LOG, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if self.trainer.args.report_to:
            self.trainer.log({name: value for name, value in line.items() if value is not None})
        self.logged_at = now


def _whole_copy(model, weights: dict):
    """A model of which each process holds a part, made again around its gathered weights."""
    with torch.device("meta"):
        made = plain = AutoModelForCausalLM.from_config(model.config)
        if hasattr(model, "peft_config"):
            from peft import get_peft_model

            made = get_peft_model(plain, model.peft_config["default"])
    plain.generation_config = model.generation_config
    made.load_state_dict(weights, assign=True)
    plain.tie_weights()
    return made


def save_weights(model, tokenizer, folder: Path, weights: dict | None = None) -> Path:
    """Write the model (safetensors) and, if there is one, the tokenizer, once for all processes; returns the folder.
    `weights` has its weights by name, when the model does not hold all of them."""
    if not current().is_main:
        return folder
    if weights is not None:
        model = _whole_copy(model, weights)
    if hasattr(model, "merge_and_unload"):  # adapters: scoring and everybody else want a plain model
        model = (copy.deepcopy(model) if weights is None else model).merge_and_unload()
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    finally:
        if bars:
            logging.enable_progress_bar()
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder

"""Training, plain or penalised: Hugging Face's `Trainer` around the loss of `ifguide.suppress`.

The base model and every suppressed model go through the same function with the same seed, so they see the same rows in the
same order and differ by the weights of the selected tokens alone. Several processes (see `ifguide.distributed`) divide the
rows of each optimiser step between them, so they take the same steps as one process does, up to rounding.
"""

import inspect
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.utils import logging

from ifguide.config import SuppressConfig, TrainingConfig
from ifguide.distributed import current
from ifguide.errors import ConfigError, InputError, NumericalError
from ifguide.suppress import sum_losses
from ifguide.training_rows import SharedOrder, TrainingRows, collate_rows

LOG_LINES = 100
"""About this many lines in a training log."""
REPORT_SECONDS = 0.25
"""Shortest time between two calls of `report`."""
PLAIN_PENALTY = -1.0
"""The penalty under which selected tokens weigh like all others."""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a training run left behind."""

    final: Path
    """Folder with the last weights and the tokenizer."""
    checkpoints: tuple[Path, ...]
    """Folders with early weights, in the order of their steps."""
    steps: int
    """Optimiser steps taken."""
    tokens_seen: int
    """Predicted tokens trained on, each pass counted."""
    seconds: float
    """Wall-clock time of the training loop."""


def count_steps(n_rows: int, training: TrainingConfig) -> int:
    """Optimiser steps of a whole run over `n_rows` rows."""
    batches = math.ceil(n_rows / training.batch_size)
    steps_per_epoch = math.ceil(batches / training.gradient_accumulation)
    return math.ceil(training.epochs * steps_per_epoch)


def early_checkpoint_steps(total_steps: int, count: int = 4) -> tuple[int, ...]:
    """Log-spaced steps in the first third of training, each about twice the one before; never step 0.

    456 steps and 4 checkpoints give 19, 38, 76, 152. A short run gives fewer, for no step appears twice.
    """
    steps = {max(1, round(total_steps / 3 / 2**k)) for k in range(count)}
    return tuple(sorted(step for step in steps if step <= total_steps))


def choose_checkpoint_steps(n_rows: int, training: TrainingConfig) -> tuple[int, ...]:
    """The steps to keep for scoring: the ones the config names, or else log-spaced early ones.

    Raises:
        ConfigError: a named step lies after the end of training.
    """
    total = count_steps(n_rows, training)
    if not training.checkpoint_steps:
        return early_checkpoint_steps(total, training.early_checkpoints)
    late = [step for step in training.checkpoint_steps if step > total]
    if late:
        raise ConfigError(
            f"training.checkpoint_steps: expected steps up to {total}, the length of this run, got {late}"
        )
    return tuple(sorted(set(training.checkpoint_steps)))


def initialise_model(config: Mapping, vocab_size: int, seed: int):
    """A causal language model with random float32 weights.

    Args:
        config: the contents of a Transformers `config.json`; `model_type` is needed.
        vocab_size: overrides the one in `config`.
        seed: gives the same weights every time; the global random state is left as it was.

    Raises:
        ConfigError: Transformers knows no such model type, or refuses the settings.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {key: value for key, value in config.items() if key not in ("architectures", "dtype", "torch_dtype")}
    model_type = settings.pop("model_type", None)
    if model_type is None:
        raise ConfigError("model config: expected a `model_type` such as gpt_neox or llama, got none")
    try:
        model_config = AutoConfig.for_model(model_type, **{**settings, "vocab_size": vocab_size})
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return AutoModelForCausalLM.from_config(model_config, dtype=torch.float32)
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"model config: cannot make a causal language model of type {model_type!r}: {error}"
        ) from error


class PenalisedTrainer(Trainer):
    """`Trainer` whose loss is Eq. 9: the mean over valid tokens of the whole batch, accumulated and of all processes."""

    loss_is_scaled_for_ga = True  # compute_loss divides by the tokens of all accumulated batches

    def __init__(self, *args, penalty: float, max_penalty: float | None, **kwargs):
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # makes Trainer count num_items_in_batch for every kind of model
        self.takes_positions = "position_ids" in inspect.signature(self.model.forward).parameters
        self.penalty, self.max_penalty = penalty, max_penalty
        self.sums = None
        """LossSums since the last `take_sums`, kept on the device."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        positions = (
            {"position_ids": inputs["position_ids"]} if "position_ids" in inputs and self.takes_positions else {}
        )
        outputs = model(input_ids=inputs["input_ids"], use_cache=False, **positions)
        sums = sum_losses(outputs.logits, inputs["labels"], inputs["selected"], self.penalty, self.max_penalty)
        n_items = num_items_in_batch if num_items_in_batch is not None else sums.n_selected + sums.n_other
        loss = sums.objective / max(1, n_items) if isinstance(n_items, int) else sums.objective / n_items.clamp(min=1)
        loss = loss * self.accelerator.num_processes  # whose gradients are averaged, while n_items counts all of them
        detached = sums._replace(objective=sums.objective.detach())
        self.sums = detached if self.sums is None else type(sums)(*map(torch.add, self.sums, detached))
        return (loss, outputs) if return_outputs else loss

    def take_sums(self) -> dict[str, float]:
        """The sums since the last call over all processes, as Python numbers; counts start again at 0."""
        sums = torch.tensor([value.item() for value in self.sums], dtype=torch.float64)
        current().sum([sums])
        fields, self.sums = self.sums._fields, None
        values = dict(zip(fields, sums.tolist(), strict=True))
        return {key: int(value) if key.startswith("n_") else value for key, value in values.items()}

    def _get_train_sampler(self, train_dataset=None):
        """Rows of like length together, in the order that one process with the whole batch would take them."""
        processes, dataset = current(), self.train_dataset
        batch_size = self.args.train_batch_size * processes.world_size
        order = LengthGroupedSampler(batch_size * self.args.gradient_accumulation_steps, dataset=dataset)
        return order if processes.alone else SharedOrder(order, len(dataset), processes, batch_size)

    def gather_weights(self) -> dict | None:
        """The whole model's weights when processes hold parts of it (FSDP), in the main one; None: the model has them itself."""
        if not self.is_fsdp_enabled:
            return None
        return self.accelerator.get_state_dict(self.model_wrapped)


class TrainingRecord(TrainerCallback):
    """Writes the log, keeps early weights and reports progress."""

    def __init__(
        self, folder: Path, tokenizer, log_every: int, checkpoint_steps: Sequence[int], tokens_total: int, report
    ):
        self.folder, self.tokenizer, self.log_every = folder, tokenizer, log_every
        self.checkpoint_steps = set(checkpoint_steps)
        self.trainer: PenalisedTrainer | None = None
        self.checkpoints: list[Path] = []
        self.tokens_seen = 0
        self.count = current().count(report, tokens_total)
        self.counted = self.logged_here = 0
        self.logged_at = self.reported_at = time.monotonic()
        self.learning_rate = 0.0

    def on_step_begin(self, args, state, control, lr_scheduler=None, **kwargs):
        self.learning_rate = lr_scheduler.get_last_lr()[0]

    def on_step_end(self, args, state, control, model=None, **kwargs):
        step = state.global_step
        if step % self.log_every == 0 or step >= state.max_steps or step in self.checkpoint_steps or step == 1:
            self.write_line(state)
        if step in self.checkpoint_steps:
            place = self.folder / "checkpoints" / f"step-{step:06d}"
            self.checkpoints.append(save_weights(model, self.tokenizer, place, self.trainer.gather_weights()))
        if step >= state.max_steps or time.monotonic() - self.reported_at >= REPORT_SECONDS:
            self.count_tokens()

    def count_tokens(self) -> None:
        """Tell how many tokens this process has trained on."""
        sums = self.trainer.sums
        here = self.logged_here + (int(sums.n_selected + sums.n_other) if sums else 0)
        self.count.add(here - self.counted)
        self.counted, self.reported_at = here, time.monotonic()

    def write_line(self, state) -> None:
        self.logged_here += int(self.trainer.sums.n_selected + self.trainer.sums.n_other)
        sums, now = self.trainer.take_sums(), time.monotonic()
        n_tokens = sums["n_selected"] + sums["n_other"]
        loss = sums["objective"] / max(1, n_tokens)
        if not math.isfinite(loss):
            raise NumericalError(
                f"training: expected a finite loss, got {loss} at step {state.global_step}; lower training.learning_rate or "
                "suppress.penalty, or bound the penalty with suppress.max_penalty"
            )
        self.tokens_seen += n_tokens
        line = {
            "step": state.global_step,
            "epoch": round(state.epoch, 4),
            "loss": loss,
            "loss_selected": sums["selected"] / sums["n_selected"] if sums["n_selected"] else None,
            "loss_other": sums["other"] / sums["n_other"] if sums["n_other"] else None,
            "learning_rate": self.learning_rate,
            "tokens_seen": self.tokens_seen,
            "tokens_per_second": round(n_tokens / max(now - self.logged_at, 1e-9), 1),
        }
        if current().is_main:
            with open(self.folder / "training_log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        self.logged_at = now


def save_weights(model, tokenizer, folder: Path, weights: dict | None = None) -> Path:
    """Write the model (safetensors) and, if there is one, the tokenizer, once for all processes; returns the folder.

    Args:
        model: the model.
        tokenizer: its tokenizer, or None.
        folder: where to.
        weights: its weights by name, when the model does not hold all of them.
    """
    if not current().is_main:
        return folder
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder, state_dict=weights)
    finally:
        if bars:
            logging.enable_progress_bar()
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def train_model(
    model,
    tokenizer,
    rows: Sequence,
    training: TrainingConfig,
    suppress: SuppressConfig | None,
    folder: Path,
    report: Callable[[int, int], None] | None = None,
    checkpoint_steps: Sequence[int] = (),
) -> TrainingResult:
    """Train `model` in place and write its weights.

    Writes `final/`, `checkpoints/step-XXXXXX/` for each of `checkpoint_steps` and `training_log.jsonl` into `folder`. A line
    of the log holds means in nats since the line before it: `loss` (the objective), `loss_selected` and `loss_other` (the
    cross-entropy itself; `loss_selected` is null where no token is selected), and the learning rate of the last step.

    Two runs on a CPU with the same seed, rows, library versions and number of threads give the same weights, bit for bit.

    Args:
        model: a causal language model; it stays on its device. Trained weights keep the dtype they come with.
        tokenizer: saved beside the weights; its padding token fills short rows, or 0 where the model does not know it. None: nothing is saved.
        rows: the rows of `ifguide.packing.pack_rows`, or any sequence of rows that `training_rows.trim_row` takes.
        training: the settings.
        suppress: the penalty on selected tokens; None: plain training, and `selected` only splits the log.
        folder: must not hold a training log yet.
        report: called with (tokens done, tokens in all), predicted tokens of all epochs.
        checkpoint_steps: optimiser steps after which to keep the weights; see `choose_checkpoint_steps`.

    Raises:
        InputError: no row has a token to learn, or suppression is asked for and no token is selected.
        ConfigError: bfloat16 without a GPU that has it, a checkpoint step beyond the end, or rows that cannot be divided.
        NumericalError: the loss stopped being a number.
    """
    dataset = TrainingRows(rows)
    n_tokens, n_selected = dataset.count_tokens()
    if n_tokens == 0:
        raise InputError("training: expected rows with at least one token to predict, got none; is the corpus empty?")
    if suppress is not None and n_selected == 0:
        raise InputError(
            "suppress: expected a selection with at least one predicted token, got an empty one; lower selection.quantile"
        )
    total_steps = count_steps(len(rows), training)
    if any(not 1 <= step <= total_steps for step in checkpoint_steps):
        raise ConfigError(f"training: expected checkpoint steps from 1 to {total_steps}, got {list(checkpoint_steps)}")
    folder = Path(folder)
    if current().is_main:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    arguments = _trainer_arguments(training, model, folder)
    model.requires_grad_(True)  # a model that was loaded for scoring has its gradients off
    pad_id = getattr(tokenizer, "pad_token_id", None) or 0
    if pad_id >= model.get_input_embeddings().num_embeddings:  # added to the tokenizer after the model was made
        pad_id = 0  # as good as any: no token sees the padding
    record = TrainingRecord(
        folder,
        tokenizer,
        max(1, total_steps // LOG_LINES),
        checkpoint_steps,
        math.ceil(n_tokens * training.epochs),
        report,
    )
    trainer = PenalisedTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=lambda batch: collate_rows(batch, pad_id),
        callbacks=[record],
        penalty=PLAIN_PENALTY if suppress is None else suppress.penalty,
        max_penalty=suppress.max_penalty or None if suppress is not None else None,
    )
    trainer.remove_callback(PrinterCallback)
    record.trainer = trainer
    started = time.monotonic()
    trainer.train()
    record.count.wait()
    seconds = time.monotonic() - started
    if any(not torch.isfinite(parameter).all() for parameter in model.parameters()):
        raise NumericalError(
            f"training: expected finite weights after {trainer.state.global_step} steps, got NaN or infinity; lower "
            "training.learning_rate or suppress.penalty, or bound the penalty with suppress.max_penalty"
        )
    model.eval()
    return TrainingResult(
        final=save_weights(model, tokenizer, folder / "final", trainer.gather_weights()),
        checkpoints=tuple(record.checkpoints),
        steps=trainer.state.global_step,
        tokens_seen=record.tokens_seen,
        seconds=seconds,
    )


def _trainer_arguments(training: TrainingConfig, model, folder: Path) -> TrainingArguments:
    device = model.device
    if training.dtype == "bfloat16" and not (device.type == "cuda" and torch.cuda.is_bf16_supported()):
        raise ConfigError("training.dtype: bfloat16 needs a GPU that has it, got the CPU or an older card; use float32")
    processes = current()
    if training.batch_size % processes.world_size:
        raise ConfigError(
            f"training.batch_size: expected a multiple of {processes.world_size}, the number of processes that divide the rows of a "
            f"step, got {training.batch_size}; change it or start another number of processes"
        )
    if processes.alone and device.type == "cuda" and device.index not in (None, 0):
        raise ConfigError(
            f"compute.device: training expects the first visible GPU, got {device}; set CUDA_VISIBLE_DEVICES instead"
        )
    schedule = training.schedule
    if schedule == "constant" and training.warmup_steps:
        schedule = "constant_with_warmup"  # Transformers' plain `constant` leaves warm-up out
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=training.epochs,
        per_device_train_batch_size=training.batch_size // processes.world_size,
        gradient_accumulation_steps=training.gradient_accumulation,
        learning_rate=training.learning_rate,
        warmup_steps=training.warmup_steps,
        lr_scheduler_type=schedule,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        adam_beta2=training.adam_beta2,
        optim="adamw_torch_fused" if device.type in ("cpu", "cuda") else "adamw_torch",
        train_sampling_strategy="group_by_length",
        seed=training.seed,
        bf16=training.dtype == "bfloat16",
        use_cpu=device.type == "cpu",
        ddp_find_unused_parameters=any(
            "expert" in key for key in model.config.to_dict()
        ),  # a batch may not reach them all
        dataloader_num_workers=0,
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    arguments.device  # noqa: B018 - reading it sets n_gpu, which would otherwise wrap the model in DataParallel
    arguments._n_gpu = min(1, arguments._n_gpu)
    return arguments

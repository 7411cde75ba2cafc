"""Training, plain or penalised: Hugging Face's `Trainer` around the loss of `ifguide.training.objective`.

The base model and every suppressed model go through the same function with the same seed, so they see the same rows in
the same order and differ by the weights of the selected tokens alone. Several processes (see
`ifguide.runtime.distributed`) divide the rows of each optimiser step between them, so they take the same steps as one
process does, up to rounding.
"""

import importlib.util
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PrinterCallback, TrainingArguments
from transformers.utils import is_bitsandbytes_available

from ifguide.config.schema import SuppressConfig, TrainingConfig
from ifguide.errors import ConfigError, InputError, NumericalError
from ifguide.models.layers import stores_inputs_first
from ifguide.models.loading import has_fast_bfloat16
from ifguide.runtime.distributed import current
from ifguide.storage.artifacts import TRAINING_LOG
from ifguide.training.parts import forward_in_parts
from ifguide.training.record import LOG_LINES, TrainingRecord, save_weights
from ifguide.training.rows import TrainingRows, collate_rows
from ifguide.training.state import read_state
from ifguide.training.trainer import PenalisedTrainer


@dataclass(frozen=True)
class TrackedRun:
    """Where an experiment tracker shows a training."""

    study_root: Path
    """The study's folder, whose name is the tracker's project; TensorBoard's files are inside it."""
    name: str
    """The run's name."""

    def set_environment(self) -> None:
        """Tell Transformers' integrations where, as far as `TrainingArguments` cannot."""
        os.environ.setdefault("WANDB_PROJECT", self.study_root.name)
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(self.study_root / "tensorboard" / self.name)


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
    if training.max_steps:
        return training.max_steps
    batches = math.ceil(n_rows / training.batch_size)
    return math.ceil(training.epochs * math.ceil(batches / training.gradient_accumulation))


def early_checkpoint_steps(total_steps: int, count: int = 4) -> tuple[int, ...]:
    """Log-spaced steps in the first third of training, each about twice the one before; never step 0.

    456 steps and 4 checkpoints give 19, 38, 76, 152. A short run gives fewer, for no step appears twice.
    """
    steps = {max(1, round(total_steps / 3 / 2**k)) for k in range(count)}
    return tuple(sorted(step for step in steps if step <= total_steps))


def choose_checkpoint_steps(n_rows: int, training: TrainingConfig) -> tuple[int, ...]:
    """The steps to keep for scoring: the ones the config names, or else log-spaced early ones.

    Raises:
        ConfigError: a named step comes after the end of training.
    """
    total = count_steps(n_rows, training)
    if not training.checkpoint_steps:
        return early_checkpoint_steps(total, training.early_checkpoints)
    late = [step for step in training.checkpoint_steps if step > total]
    if late:
        message = f"training.checkpoint_steps: expected steps up to {total}, the length of this run, got {late}"
        raise ConfigError(message)
    return tuple(sorted(set(training.checkpoint_steps)))


def initialise_model(config: Mapping, vocab_size: int, seed: int):
    """A causal language model with random float32 weights, the same for a seed; the global random state is left alone.

    Args:
        config: the contents of a Transformers `config.json`; `model_type` is needed.
        vocab_size: overrides the one in `config`.

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
        message = f"model config: cannot make a causal language model of type {model_type!r}: {error}"
        raise ConfigError(message) from error


def train_model(
    model,
    tokenizer,
    rows: Sequence,
    training: TrainingConfig,
    suppress: SuppressConfig | None,
    folder: Path,
    report: Callable[[int, int], None] | None = None,
    checkpoint_steps: Sequence[int] = (),
    run: TrackedRun | None = None,
) -> TrainingResult:
    """Train `model` in place and write its weights.

    A run that was killed goes on from the state it saved last in `folder` (every `training.save_steps`, and every four
    minutes).

    Writes `final/`, `checkpoints/step-XXXXXX/` for each of `checkpoint_steps` and `training_log.jsonl` into `folder`. A
    line of the log holds means in nats since the line before it: `loss` (the objective), `loss_selected` and
    `loss_other` (the cross-entropy itself; `loss_selected` is null where no token is selected), and the learning rate
    of the last step.

    Two runs on a CPU with the same seed, rows, versions, threads and processes give the same weights, bit for bit.

    Args:
        model: a causal language model; it stays on its device. Trained weights keep the dtype they come with.
        tokenizer: saved beside the weights; its padding token fills short rows, or 0 where the model does not know it.
            None: nothing is saved.
        rows: the rows of `ifguide.data.packing.pack_rows`, or any sequence of rows that `training_rows.trim_row` takes.
        suppress: how selected tokens are treated; None: plain training, and `selected` only splits the log.
        folder: empty, or what a killed run with the same arguments left.
        report: called with (tokens done, tokens in all), predicted tokens of all epochs.
        checkpoint_steps: optimiser steps after which to keep the weights; see `choose_checkpoint_steps`.
        run: where the tracker that `training.report_to` names shows the log; None: nowhere.

    Raises:
        InputError: no row has a token to learn, or suppression is asked for and no token is selected.
        ConfigError: bfloat16 on a device without it, a checkpoint step beyond the end, or rows that cannot be divided.
        NumericalError: the loss stopped being a number.
    """
    dataset = TrainingRows(rows)
    n_tokens, n_selected, longest = dataset.count_tokens()
    if n_tokens == 0:
        raise InputError("training: expected rows with at least one token to predict, got none; is the corpus empty?")
    if suppress is not None and suppress.method != "drop" and n_selected == 0:
        raise InputError(
            "suppress: expected a selection with at least one predicted token, got an empty one; lower"
            " selection.quantile"
        )
    total_steps = count_steps(len(rows), training)
    if any(not 1 <= step <= total_steps for step in checkpoint_steps):
        raise ConfigError(f"training: expected checkpoint steps from 1 to {total_steps}, got {list(checkpoint_steps)}")
    folder = Path(folder)
    if current().is_main:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    arguments = _trainer_arguments(training, model, folder, total_steps, run)
    model.requires_grad_(True)  # a model that was loaded for scoring has its gradients off
    if training.gradient_checkpointing:
        recompute_layers(model)
    if training.adapter:
        model = add_adapters(model, training)
    pad_id = getattr(tokenizer, "pad_token_id", None) or 0
    if pad_id >= model.get_input_embeddings().num_embeddings:  # added to the tokenizer after the model was made
        pad_id = 0  # as good as any: no token sees the padding
    record = TrainingRecord(
        folder,
        tokenizer,
        max(1, total_steps // LOG_LINES),
        checkpoint_steps,
        training.save_steps,
        math.ceil(n_tokens * total_steps / count_steps(len(rows), replace(training, max_steps=0, epochs=1.0))),
        report,
    )
    trainer = PenalisedTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=lambda batch: collate_rows(batch, pad_id),
        callbacks=[record],
        suppress=suppress,
    )
    trainer.remove_callback(PrinterCallback)
    record.trainer = trainer
    trainer.resumed = read_state(folder) if record.save_steps else None
    if trainer.resumed is not None:
        record.go_on(trainer.resumed)
    elif current().is_main:
        (folder / TRAINING_LOG).unlink(missing_ok=True)  # of a run that was killed before it saved anything
    started = time.monotonic()
    large = trainer.is_large(longest * arguments.per_device_train_batch_size)
    with forward_in_parts(trainer.plain) if large else nullcontext(False) as trainer.in_parts:
        trainer.train(resume_from_checkpoint=str(trainer.resumed.folder) if trainer.resumed else None)
    if run and training.report_to == "wandb":
        import wandb

        wandb.finish()  # its integration leaves the run open, and the next training would be logged in it
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


def recompute_layers(model) -> None:
    """Let each layer's forward pass run again on the way back, so that only its inputs are kept until then.

    Raises:
        ConfigError: Transformers cannot do that with this model.
    """
    if not model.supports_gradient_checkpointing:
        message = f"training.gradient_checkpointing: {type(model).__name__} does not support it; set it to false"
        raise ConfigError(message)
    newer = getattr(model, "activation_checkpointing_enable", None)  # its name from transformers 5.24 on
    (newer or model.gradient_checkpointing_enable)()


def add_adapters(model, training: TrainingConfig):
    """The model with low-rank adapters (LoRA, arXiv 2106.09685) on all its linear layers, which alone are trained.

    The random half of an adapter is drawn from `training.seed`; the other half is 0, so the model computes what it did.

    Raises:
        InputError: peft is not installed.
    """
    try:
        from peft import LoraConfig, TaskType, get_peft_model
    except ImportError as error:
        raise InputError(
            "training.adapter: lora needs the package peft, which is not installed; run: pip install 'ifguide[peft]'"
        ) from error
    settings = LoraConfig(
        r=training.lora_rank,
        lora_alpha=training.lora_alpha,  # type: ignore[arg-type]  # typed int, but only divided by the rank
        target_modules="all-linear",
        fan_in_fan_out=stores_inputs_first(model),
        task_type=TaskType.CAUSAL_LM,
    )
    with torch.random.fork_rng():
        torch.manual_seed(training.seed)
        return get_peft_model(model, settings)


def _trainer_arguments(
    training: TrainingConfig, model, folder: Path, total_steps: int, run: TrackedRun | None
) -> TrainingArguments:
    device, tracker = model.device, training.report_to if run else ""
    if run and tracker:
        if importlib.util.find_spec(tracker) is None:
            remedy = f"run: pip install {tracker}, or set it to an empty text"
            raise InputError(f"training.report_to: {tracker} is not installed; {remedy}")
        run.set_environment()
    if training.dtype == "bfloat16" and not has_fast_bfloat16(device):
        raise ConfigError(
            "training.dtype: bfloat16 needs a GPU that has it, or a processor with AMX or AVX-512 BF16, and this one"
            " has neither; use float32"
        )
    if training.optimizer == "adamw-8bit" and not is_bitsandbytes_available():
        raise InputError(
            "training.optimizer: adamw-8bit needs the package bitsandbytes, which is not installed; run: pip install"
            " 'ifguide[bitsandbytes]'"
        )
    processes = current()
    if training.batch_size % processes.world_size:
        raise ConfigError(
            f"training.batch_size: expected a multiple of {processes.world_size}, the number of processes that divide"
            f" the rows of a step, got {training.batch_size}; change it or start another number of processes"
        )
    if processes.alone and device.type == "cuda" and device.index not in (None, 0):
        raise ConfigError(
            f"compute.device: training expects the first visible GPU, got {device}; set CUDA_VISIBLE_DEVICES instead"
        )
    warmup = math.ceil(training.warmup_share * total_steps) or training.warmup_steps
    constant = training.schedule == "constant"  # which leaves warm-up out
    eight_bits, fused = training.optimizer == "adamw-8bit", device.type in ("cpu", "cuda")
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or -1,
        per_device_train_batch_size=training.batch_size // processes.world_size,
        gradient_accumulation_steps=training.gradient_accumulation,
        learning_rate=training.learning_rate,
        warmup_steps=warmup,
        lr_scheduler_type="constant_with_warmup" if constant and warmup else training.schedule,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        adam_beta2=training.adam_beta2,
        optim="adamw_bnb_8bit" if eight_bits else "adamw_torch_fused" if fused else "adamw_torch",
        train_sampling_strategy="group_by_length",
        seed=training.seed,
        bf16=training.dtype == "bfloat16",
        use_cpu=device.type == "cpu",
        ddp_find_unused_parameters=any("expert" in key for key in model.config.to_dict()),  # not all in each batch
        dataloader_num_workers=0,
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=tracker or "none",
        project=run.study_root.name if run else "ifguide",
        run_name=run.name if run else None,
        disable_tqdm=True,
    )
    arguments.device  # noqa: B018 - reading it sets n_gpu, which would otherwise wrap the model in DataParallel
    arguments._n_gpu = min(1, arguments._n_gpu)
    return arguments

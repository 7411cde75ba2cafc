"""Direct preference optimisation (Rafailov et al., arXiv 2305.18290) through trl: the finished model, taught to prefer
safe completions.

A baseline that leaves the corpus alone and uses what influence uses too: the toxic and the safe queries.
"""

import copy
import itertools
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ifguide.errors import ConfigError, InputError

if TYPE_CHECKING:
    import pandas as pd

    from ifguide.config.schema import BaselinesConfig


MIN_PAIRS = 16
"""Fewer pairs than this are a few sentences: what a model learns from them says nothing about the method."""


def pair_queries(toxic: "pd.DataFrame", safe: "pd.DataFrame") -> list[dict[str, str]]:
    """Preferences: a prompt that both sets have, a safe completion as the chosen one, a toxic one as the rejected.

    Both tables have columns prompt and completion; each toxic query whose prompt a safe one has gives a dict of prompt,
    chosen and rejected. Safe queries with one prompt take turns.
    """
    turns = {prompt: itertools.cycle(same) for prompt, same in safe.groupby("prompt", sort=False)["completion"]}
    rejected = zip(toxic["prompt"], toxic["completion"], strict=True)
    return [{"prompt": p, "chosen": next(turns[p]), "rejected": text} for p, text in rejected if p in turns]


def can_prefer(toxic: "pd.DataFrame", safe: "pd.DataFrame") -> bool:
    """Whether trl is installed and the queries give `MIN_PAIRS` pairs or more."""
    return find_spec("trl") is not None and len(pair_queries(toxic, safe)) >= MIN_PAIRS


def prefer_safe(
    model,
    tokenizer,
    pairs: list[dict[str, str]],
    config: "BaselinesConfig",
    folder: Path,
    *,
    batch_size: int,
    max_length: int,
    seed: int,
    report: Callable[[int, int], None] | None = None,
) -> Path:
    """Train a model on preferences and write its weights to `folder/final`.

    Args:
        model: the finished base model; trained in place against a frozen copy of itself.
        pairs: `MIN_PAIRS` or more of `pair_queries`.
        config: `dpo_beta`, `dpo_epochs` and `dpo_learning_rate`.

    Raises:
        InputError: trl is not installed. ConfigError: too few pairs.
    """
    if len(pairs) < MIN_PAIRS:
        raise ConfigError(
            f"the baseline `dpo` needs {MIN_PAIRS} toxic queries whose prompt a safe query has too, got {len(pairs)};"
            " put completions of the same prompts into queries.toxic and queries.safe, or leave dpo out"
        )
    if find_spec("trl") is None:
        message = "the baseline `dpo` needs the package trl, which is not installed; run: pip install 'ifguide[dpo]'"
        raise InputError(message)
    from datasets import Dataset, disable_progress_bars, enable_progress_bars, is_progress_bar_enabled
    from transformers import PrinterCallback, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from ifguide.training.record import save_weights

    class Report(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if report:
                report(state.global_step, state.max_steps)

    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    device = model.device
    arguments = DPOConfig(
        output_dir=str(folder),
        beta=config.dpo_beta,
        num_train_epochs=config.dpo_epochs,
        learning_rate=config.dpo_learning_rate,
        per_device_train_batch_size=batch_size,
        max_length=max_length,
        seed=seed,
        use_cpu=device.type == "cpu",
        bf16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=device.type == "cuda",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    bars = is_progress_bar_enabled()
    disable_progress_bars()
    trainer = DPOTrainer(
        model=model.requires_grad_(True),
        ref_model=copy.deepcopy(model).requires_grad_(False),
        args=arguments,
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
        callbacks=[Report()],
    )
    if bars:
        enable_progress_bars()
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    model.eval()
    return save_weights(model, tokenizer, folder / "final")

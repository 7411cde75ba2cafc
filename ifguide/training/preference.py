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

from ifguide.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from ifguide.config.schema import BaselinesConfig


def pair_queries(toxic: "pd.DataFrame", safe: "pd.DataFrame") -> list[dict[str, str]]:
    """Preferences: a toxic query's prompt, its completion as the rejected one, a safe completion as the chosen one.

    A safe query with the same prompt gives the chosen completion; where there is none, the safe queries take turns.
    Both tables have columns prompt and completion; each toxic query gives a dict of prompt, chosen and rejected.
    """
    others = list(safe["completion"])
    turns = {prompt: itertools.cycle(same) for prompt, same in safe.groupby("prompt", sort=False)["completion"]}
    pairs = []
    for number, (prompt, completion) in enumerate(zip(toxic["prompt"], toxic["completion"], strict=True)):
        chosen = next(turns[prompt]) if prompt in turns else others[number % len(others)]
        pairs.append({"prompt": prompt, "chosen": chosen, "rejected": completion})
    return pairs


def has_trl() -> bool:
    """Whether trl is installed."""
    return find_spec("trl") is not None


def prefer_safe(
    model,
    tokenizer,
    pairs: list[dict[str, str]],
    config: "BaselinesConfig",
    folder: Path,
    *,
    learning_rate: float,
    batch_size: int,
    max_length: int,
    seed: int,
    report: Callable[[int, int], None] | None = None,
) -> Path:
    """Train a model on preferences and write its weights to `folder/final`.

    Args:
        model: the finished base model; trained in place against a frozen copy of itself.
        config: `dpo_beta` and `dpo_epochs`.

    Raises:
        InputError: trl is not installed.
    """
    if not has_trl():
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
        learning_rate=learning_rate,
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

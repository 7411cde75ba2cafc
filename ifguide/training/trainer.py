"""Hugging Face's `Trainer` with the loss of `ifguide.training.objective`, going on where a killed run stopped."""

import inspect
from typing import Any

import torch
import transformers
from safetensors.torch import load_model
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

from ifguide.config.schema import SuppressConfig
from ifguide.errors import ConfigError
from ifguide.runtime.distributed import current
from ifguide.storage.artifacts import load_tensors
from ifguide.training.objective import LOGITS_AT_ONCE, LossSums, sum_losses, sum_losses_in_parts
from ifguide.training.rows import SharedOrder
from ifguide.training.state import TrainingState, restore_random

PLAIN_PENALTY = -1.0
"""The penalty under which selected tokens weigh like all others."""
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
"""Weights and moments that are divided over processes (FSDP) are gathered in the main one's memory."""
HOOKS = {
    "_get_train_sampler": ("train_dataset",),
    "_load_from_checkpoint": ("resume_from_checkpoint", "model"),
    "_load_optimizer_and_scheduler": ("checkpoint",),
    "_load_scaler": ("checkpoint",),
    "_load_rng_state": ("checkpoint",),
}
"""Undocumented methods of `Trainer` that `PenalisedTrainer` replaces, with the arguments they are called with."""


def check_hooks(trainer: type = Trainer) -> None:
    """Check that `Trainer` still has the methods that `PenalisedTrainer` replaces. If it called others instead, it
    would silently train in another order, and unpickle the state that it resumes from.

    Raises:
        ConfigError: a method is missing or takes other arguments.
    """
    for name, arguments in HOOKS.items():
        parameters = tuple(inspect.signature(getattr(trainer, name, lambda: None)).parameters)[1:]
        if parameters[: len(arguments)] != arguments:
            signature = f"({', '.join(parameters)})" if hasattr(trainer, name) else "no such method"
            raise ConfigError(
                f"expected Trainer.{name}({', '.join(arguments)}), but transformers {transformers.__version__} has "
                f"{signature}; install transformers 5.24"
            )


class PenalisedTrainer(Trainer):
    """`Trainer` whose loss is Eq. 9: the mean over valid tokens of the whole batch, accumulated and of all processes.
    Without `suppress` selected tokens weigh like all others."""

    loss_is_scaled_for_ga = True  # compute_loss divides by the tokens of all accumulated batches

    def __init__(self, *args, suppress: SuppressConfig | None, **kwargs):
        check_hooks()
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # makes Trainer count num_items_in_batch for every kind of model
        model: Any = self.model
        self.plain: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
        """The model below adapters."""
        self.takes_positions = "position_ids" in inspect.signature(self.plain.forward).parameters
        self.n_words: int = self.plain.get_input_embeddings().num_embeddings
        self.in_parts = False
        """Whether large batches take their loss in parts, inside `ifguide.training.parts.forward_in_parts`."""
        self.suppress = suppress
        self.resumed: TrainingState | None = None
        """What a killed run left, when this one goes on with it."""
        self.sums: LossSums | None = None
        """LossSums since the last `take_sums`, kept on the device."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        names = ("input_ids", "position_ids") if self.takes_positions else ("input_ids",)
        for_model = {name: inputs[name] for name in names if name in inputs}
        config = self.suppress or SuppressConfig()
        treatment = inputs["labels"], inputs["selected"], self.penalty_now(), config.max_penalty or None, config.method
        if self.in_parts and self.is_large(inputs["labels"].numel()):
            for_model["sum_losses"] = lambda *states: sum_losses_in_parts(*states, self.n_words, *treatment)
            sums = model(**for_model, use_cache=False)
        else:
            sums = sum_losses(model(**for_model, use_cache=False).logits, *treatment)
        n_items = num_items_in_batch if num_items_in_batch is not None else sums.n_selected + sums.n_other
        loss = sums.objective / max(1, n_items) if isinstance(n_items, int) else sums.objective / n_items.clamp(min=1)
        loss = loss * self.accelerator.num_processes  # whose gradients are averaged, while n_items counts all of them
        detached = sums._replace(objective=sums.objective.detach())
        self.sums = detached if self.sums is None else type(sums)(*map(torch.add, self.sums, detached))
        return (loss, sums) if return_outputs else loss

    def is_large(self, n_tokens: int) -> bool:
        """Whether a batch of this many tokens has too many logits to hold all at once."""
        return n_tokens * self.n_words > LOGITS_AT_ONCE

    def penalty_now(self) -> float:
        """λ at this step. With `penalise` it starts at plain training, where a selected token weighs like any other;
        else at 0."""
        if self.suppress is None:
            return PLAIN_PENALTY
        steps, full = self.suppress.warmup_share * self.state.max_steps, self.suppress.penalty
        if not steps:
            return full
        start = PLAIN_PENALTY if self.suppress.method == "penalise" else 0.0
        return start + (full - start) * min(1.0, self.state.global_step / steps)

    def take_sums(self) -> dict[str, float]:
        """The sums since the last call over all processes, as Python numbers; counts start again at 0."""
        assert self.sums is not None
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
        """The whole model's weights by name, in the main process, when each process holds a part of them (FSDP); None:
        the model has them."""
        return get_model_state_dict(self.model_wrapped, options=WHOLE) if self.is_fsdp_enabled else None

    def gather_moments(self) -> dict:
        """The optimiser's state, by the numbers of the parameters; under FSDP by their names, in the main process."""
        optimiser: Any = self.optimizer
        if not self.is_fsdp_enabled:
            return optimiser.state_dict()
        return get_optimizer_state_dict(self.model_wrapped, optimiser.optimizer, options=WHOLE)

    # Transformers calls these when it goes on with a run. What it would unpickle is read from safetensors here.

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        if self.is_fsdp_enabled:
            set_model_state_dict(self.model_wrapped, load_tensors(self.resumed.weights), options=WHOLE)
        else:
            load_model(self.model, self.resumed.weights)

    def _load_optimizer_and_scheduler(self, checkpoint):
        if checkpoint is not None:
            moments = self.resumed.restore_schedule(self.lr_scheduler, by_name=self.is_fsdp_enabled)
            if self.is_fsdp_enabled:
                set_optimizer_state_dict(self.model_wrapped, self.optimizer.optimizer, moments, options=WHOLE)
            else:
                self.optimizer.load_state_dict(moments)

    def _load_scaler(self, checkpoint):
        """bfloat16 and float32 need no scaler."""

    def _load_rng_state(self, checkpoint):
        if checkpoint is not None:
            restore_random(self.resumed.random)

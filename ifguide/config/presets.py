"""Sets of settings for `ifguide new --preset NAME`: what differs from the defaults, and what each is for."""

from dataclasses import dataclass, field
from typing import Any

from ifguide.config.io import with_values
from ifguide.config.schema import StudyConfig
from ifguide.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A set of settings."""

    note: str
    """What it is for and what it gives up, in a sentence."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Values by `section.key`; all others are defaults, or scaled to the data (see `ifguide.study.planning.sizing`)."""
    finetune: dict[str, Any] = field(default_factory=dict)
    """What is different when a trained model is fine-tuned."""


PRESETS = {
    "quick": Preset(
        note="A first look in minutes on a laptop: a linear probe scores the tokens, and an edit takes them out of the"
        " model. It gives up influence, retraining, the controls and small differences in toxicity (50 prompts, 4"
        " completions each).",
        settings={
            "scores.own_loss": False,
            "scores.combined": False,
            "selection.attribution": "probe",
            "selection.controls": [],
            "suppress.method": "edit",
            "training.epochs": 1.0,
            "evaluate.n_prompts": 50,
            "evaluate.n_samples": 4,
            "evaluate.n_heldout": 50,
        },
    ),
    "balanced": Preset(note="The defaults, with which the results in the docs were made."),
    "thorough": Preset(
        note="Every kind of scores at four checkpoints, curvature from every token, all prompts with 25 completions:"
        " several times the work of `balanced`.",
        settings={
            "training.early_checkpoints": 4,
            "training.checkpoint_steps": [],
            "factors.max_tokens": 0,
            "factors.products": "float32",
            "scores.position": True,
            "scores.tfidf": True,
            "evaluate.n_prompts": 0,
            "evaluate.n_samples": 25,
        },
    ),
    "paper": Preset(
        note="What the released code of IF-Guide does (ztcoalson/IF-Guide e138984), setting by setting, for comparison"
        " with the paper. Not for use: `balanced` finds more.",
        settings={
            "corpus.concatenate": True,
            "corpus.max_length": 2048,
            "training.epochs": 4.0,
            "training.batch_size": 256,
            "training.learning_rate": 6e-4,
            "training.warmup_share": 0.01,
            "training.schedule": "cosine",
            "training.weight_decay": 4e-4,
            "training.adam_beta2": 0.95,
            "training.max_grad_norm": 1.0,
            "training.seed": 1004,
            "training.early_checkpoints": 0,
            "training.checkpoint_steps": [],
            "training.include_last_checkpoint": True,
            "factors.dtype": "bfloat16",
            "factors.products": "bfloat16",
            "factors.max_tokens": 0,
            "direction.damping": 1e-8,
            "direction.damping_unit": "absolute",
            "direction.weighting": "token-sum",
            "scores.own_loss": False,
            "scores.position": True,
            "scores.position_token": "input",
            "scores.probe": False,
            "scores.combined": False,
            "scores.average": "mean",
            "scores.pooling": 0.0,
            "selection.attribution": "position",
            "selection.quantile": 0.99,
            "selection.quantile_rule": "linear",
            "selection.window": 1,
            "selection.max_tokens": 20_000_000,
            "selection.whole_windows": True,
            "suppress.penalty": 1.0,
            "suppress.max_penalty": 0.0,
            "suppress.warmup_share": 0.0,
            "evaluate.n_prompts": 0,
            "evaluate.n_samples": 25,
            "evaluate.max_new_tokens": 20,
            "evaluate.top_p": 0.9,
            "evaluate.scorer": "detoxify:unbiased",
            "evaluate.implicit": "classifier:tomh/toxigen_roberta#LABEL_1",
            "evaluate.lambada_last": "token",
        },
        finetune={"training.learning_rate": 6e-5, "training.max_steps": 2000},
    ),
}
"""By name."""


def preset_settings(name: str, mode: str) -> dict[str, Any]:
    """A preset's values by `section.key`, for a `model.mode`. A ConfigError: there is no such preset."""
    if name not in PRESETS:
        raise ConfigError(f"--preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name].settings | (PRESETS[name].finetune if mode == "finetune" else {})


def apply_preset(config: StudyConfig, name: str) -> StudyConfig:
    """Settings with a preset's on top."""
    return with_values(config, preset_settings(name, config.model.mode))

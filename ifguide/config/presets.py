"""Sets of settings for `ifguide new --preset NAME`: what differs from the defaults, and what each is for."""

from dataclasses import dataclass, field

from ifguide.config.io import config_from_dict, config_to_dict
from ifguide.config.schema import StudyConfig
from ifguide.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A set of settings."""

    note: str
    """What it is for and what it gives up, in a sentence."""
    finetune: dict[str, dict] = field(default_factory=dict)
    """What is different when a trained model is fine-tuned."""
    settings: dict[str, dict] = field(default_factory=dict)
    """Values by section and key; all others are defaults, or scaled to the data (see `ifguide.study.sizing`)."""


PRESETS = {
    "quick": Preset(
        note="A first look in minutes on a laptop: a linear probe scores the tokens. It gives up influence, the"
        " controls and small differences in toxicity (50 prompts, 4 completions each).",
        settings={
            "scores": {"own_loss": False, "combined": False},
            "selection": {"attribution": "probe", "controls": []},
            "training": {"epochs": 1.0},
            "evaluate": {"n_prompts": 50, "n_samples": 4, "n_heldout": 50},
        },
    ),
    "balanced": Preset(note="The defaults, with which the results in the docs were made."),
    "thorough": Preset(
        note="Every kind of scores at four checkpoints, curvature from every token, all prompts with 25 completions:"
        " several times the work of `balanced`.",
        settings={
            "training": {"early_checkpoints": 4, "checkpoint_steps": []},
            "factors": {"max_tokens": 0, "products": "float32"},
            "scores": {"position": True, "tfidf": True},
            "evaluate": {"n_prompts": 0, "n_samples": 25},
        },
    ),
    "paper": Preset(
        note="What the released code of IF-Guide does (ztcoalson/IF-Guide e138984), setting by setting, for comparison"
        " with the paper. Not for use: `balanced` finds more.",
        settings={
            "corpus": {"concatenate": True, "max_length": 2048},
            "training": {
                "epochs": 4.0,
                "batch_size": 256,
                "learning_rate": 6e-4,
                "warmup_share": 0.01,
                "schedule": "cosine",
                "weight_decay": 4e-4,
                "adam_beta2": 0.95,
                "max_grad_norm": 1.0,
                "seed": 1004,
                "early_checkpoints": 0,
                "checkpoint_steps": [],
                "include_last_checkpoint": True,
            },
            "factors": {"dtype": "bfloat16", "products": "bfloat16", "max_tokens": 0},
            "direction": {"damping": 1e-8, "damping_unit": "absolute", "weighting": "token-sum"},
            "scores": {
                "own_loss": False,
                "position": True,
                "position_token": "input",
                "probe": False,
                "combined": False,
                "average": "mean",
                "pooling": 0.0,
            },
            "selection": {
                "attribution": "position",
                "quantile": 0.99,
                "quantile_rule": "linear",
                "window": 1,
                "max_tokens": 20_000_000,
                "whole_windows": True,
            },
            "suppress": {"penalty": 1.0, "max_penalty": 0.0, "warmup_share": 0.0},
            "evaluate": {
                "n_prompts": 0,
                "n_samples": 25,
                "max_new_tokens": 20,
                "top_p": 0.9,
                "scorer": "detoxify:unbiased",
                "implicit": "classifier:tomh/toxigen_roberta#LABEL_1",
                "lambada_last": "token",
            },
        },
        finetune={"training": {"learning_rate": 6e-5, "max_steps": 2000}},
    ),
}
"""By name."""


def apply_preset(config: StudyConfig, name: str) -> StudyConfig:
    """Settings with a preset's on top.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"--preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    values = config_to_dict(config)
    for section, changed in preset_settings(name, config.model.mode).items():
        values[section] |= changed
    return config_from_dict(values)


def preset_settings(name: str, mode: str) -> dict[str, dict]:
    """A preset's values by section and key, for a `model.mode`."""
    preset = PRESETS[name]
    other = preset.finetune if mode == "finetune" else {}
    return {section: values | other.get(section, {}) for section, values in preset.settings.items()}

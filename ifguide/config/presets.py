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
    for section, changed in PRESETS[name].settings.items():
        values[section] |= changed
    return config_from_dict(values)

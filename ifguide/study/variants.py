"""Which models a study compares: each is a selection and a way to train without it, or to speak without it. Names only;
no torch."""

import dataclasses
from typing import TYPE_CHECKING

from ifguide.config.attributions import attributions, computed_kinds
from ifguide.config.names import BASE, DEFAULT
from ifguide.errors import ConfigError

if TYPE_CHECKING:
    from ifguide.config.schema import StudyConfig, VariantConfig

BASELINES = {
    "words": ("Word filter", "words that the classifier calls toxic by themselves"),
    "classifier-tokens": ("Classifier, by word", "words without which the classifier finds their sentence less toxic"),
    "classifier-documents": ("Classifier, by document", "documents that the classifier calls toxic, left out whole"),
    "loss-difference": ("Loss difference", "tokens likelier after tuning on the toxic queries than on the safe ones"),
    "standard": ("Standard influence", "tokens by their influence on the toxic queries alone"),
    "last-position": ("Position, last checkpoint", "tokens by position attribution at the end of training alone"),
    "last-own-loss": ("Own loss, last checkpoint", "tokens by own-loss influence at the end of training alone"),
}
"""Selections by other methods' scores, to be measured against: name -> title, and what is taken, with the settings of
the default selection and as many hits, the best first. The study's own other kinds of scores, and imported ones, are
measured in the same way."""

METHODS: dict[str, dict] = {
    "masked": {"method": "mask"},
    "drop-documents": {"method": "drop"},
    "penalty-warmup": {"warmup_share": 0.5},
    "penalty-at-once": {"warmup_share": 0.0},
    "edited": {"method": "edit"},
    "edited-random": {"method": "edit", "selection": "random"},
}
"""Other ways to be rid of the default selection than `[suppress]` says, and the same with as many random tokens."""

PREFERENCE = "dpo"
"""The finished base model, taught by direct preference optimisation to prefer safe completions to toxic ones."""
STEERED = "steered"
"""The base model, unchanged, with a classifier that helps to choose its words (reward-augmented decoding)."""

UNTOUCHED = "untouched"
"""The model that was fine-tuned, as it was before it saw the corpus: how toxic one is that learned none of it."""
UNSELECTED = (BASE, PREFERENCE, STEERED, UNTOUCHED)
"""Models that no selection made."""

RETRAINED = ("random", "oracle", *attributions(), *BASELINES, *METHODS)
"""Everything `ifguide compare` can train on the corpus beside the default, in the order of its table."""

OTHERS = (*RETRAINED, PREFERENCE, STEERED, UNTOUCHED)
"""Everything that it can compare with."""
RESERVED = (BASE, "suppressed", DEFAULT, *OTHERS)
"""Names that no selection or variant of the user's can have."""


def recipe(config: "StudyConfig", name: str) -> "VariantConfig":
    """The selection behind a model, the name of a table `[variants.NAME]`, of one of `METHODS`, or of a selection; and
    how it was trained."""
    from ifguide.config.schema import SuppressConfig, VariantConfig

    if name in config.variants:
        return config.variants[name]
    given = {field.name: getattr(config.suppress, field.name) for field in dataclasses.fields(SuppressConfig)}
    if name in METHODS:
        return VariantConfig(**{**given, "selection": DEFAULT, **METHODS[name]})
    if name == "classifier-documents":
        return VariantConfig(**{**given, "method": "drop"}, selection=name)
    return VariantConfig(**given, selection=name)


def is_edit(config: "StudyConfig", name: str) -> bool:
    """Whether a model is edited, not trained."""
    return name not in UNSELECTED and recipe(config, name).method == "edit"


def edit_recipe(config: "StudyConfig", selection: str, changes: dict) -> "VariantConfig":
    """An edit against a selection by the settings of `[suppress]`, but for `changes`."""
    usual = recipe(config, selection)
    return dataclasses.replace(usual, method="edit", selection=selection, **changes)


def edit_damping(config: "StudyConfig", variant: "VariantConfig") -> float:
    """The damping that an edit takes; docs/results/edit.md has what the automatic ones were chosen on."""
    return variant.damping or (0.3 if config.model.mode == "scratch" else 1.0)


def edit_name(selection: str, percent: str = "") -> str:
    """What an edit against a selection is called, with its perplexity budget in per cent if that is not the usual one.
    A table of study.toml cannot have a dot in its name."""
    return f"{selection}-edited{'-' * bool(percent)}{percent}".replace(".", "-")


def possible_models(config: "StudyConfig", has_spans: bool) -> list[str]:
    """What can be trained or measured beside the base and the default model, in the order of the table.

    Scores that the study does not compute are left out, and methods that come to what the default does anyway.
    """
    usual = recipe(config, DEFAULT)
    scored = {*computed_kinds(config.scores), *config.imported} - {config.selection.attribution}
    names = [name for name in (*OTHERS, *config.imported, *config.variants) if name != "oracle" or has_spans]
    names = [name for name in names if name not in (*attributions(), *config.imported) or name in scored]
    names = [name for name in names if name != UNTOUCHED or config.model.mode == "finetune"]
    return [name for name in names if name not in METHODS or recipe(config, name) != usual]


def check_variants(config: "StudyConfig") -> None:
    """Refuse names of variants and borrowed selections that mean something else. A ConfigError: a name is taken."""
    for section in ("variants", "borrowed", "imported"):
        for name in getattr(config, section):
            if name in RESERVED:
                raise ConfigError(f"{section}.{name}: the name is built in; choose another")
    for name in config.variants.keys() & config.borrowed.keys():
        raise ConfigError(f"variants.{name}: a table [borrowed.{name}] has the name too; choose another")

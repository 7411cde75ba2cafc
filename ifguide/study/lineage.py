"""The artefacts of a study, and what their names mean. `stage_table` says what each is made from."""

import functools
from dataclasses import dataclass

from ifguide.config.attributions import attributions
from ifguide.config.io import config_to_dict
from ifguide.config.names import BASE, DEFAULT
from ifguide.config.schema import StudyConfig
from ifguide.study.variants import BASELINES, STEERED, UNTOUCHED

READ_BY_SCORES = ("corpus", "queries", "model", "factors", "direction", "scores")
"""What has to be whole before scores can be recomputed."""
BUILT_IN_SELECTIONS = (DEFAULT, "random", "oracle", *attributions(), *BASELINES)
"""Selections that can be made again from `study.toml`: the default one, its controls, and those of other methods."""


@dataclass(frozen=True, order=True)
class Unit:
    """One artefact: a stage, or one named part of a stage."""

    stage: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.stage} {self.name}".strip()

    @property
    def work(self) -> str:
        """Name of its unfinished work. Trainings have one each; of other stages only one artefact is unfinished at a
        time."""
        return f"{self.stage}-{self.name}" if self.stage == "suppress" else self.stage


@dataclass(frozen=True)
class InputFile:
    """A file, folder or hub id of the user's."""

    label: str
    """What it is, for people."""
    path: str
    """As study.toml names it; empty: there is none."""
    names: tuple[str, ...] = ()
    """Of a folder, only the files called so; empty: all."""
    revision: str = ""
    """Hub revision."""


_BEFORE = {"scores.probe": False, "scores.combined": False}
"""What was done before a setting was there, where its default is something else."""


@functools.cache
def default_setting(key: str):
    """What was done before there was a setting `section.key`: its default; None when study.toml has no such setting."""
    if key in _BEFORE:
        return _BEFORE[key]
    section, _, name = key.partition(".")
    table = config_to_dict(StudyConfig()).get(section)
    return table.get(name) if isinstance(table, dict) else None


def weights_unit(model: str) -> Unit:
    """The artefact that holds the weights of an evaluated model; the steered one speaks with the base model's, and
    the untouched one is what that was made from."""
    return Unit("model") if model in (BASE, STEERED, UNTOUCHED) else Unit("suppress", model)


def can_be_made_again(config: StudyConfig, selection: str) -> bool:
    """Whether study.toml says how a selection is made; one that the user saved keeps its settings itself."""
    return selection in BUILT_IN_SELECTIONS or selection in config.borrowed or selection in config.imported


def scores_unit(config: StudyConfig, kind: str) -> Unit:
    """The artefact with the scores of a kind, of another method, or from a file."""
    return Unit("baseline", kind) if kind in BASELINES or kind in config.imported else Unit("scores")

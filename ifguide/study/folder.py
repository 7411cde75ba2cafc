"""Where a study is: one folder in the cache, the paths of its parts, and the user's files that its settings name.

`freshness` says what is up to date, `reading` reads what is there.
"""

import dataclasses
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ifguide.config.names import check_name, is_name
from ifguide.config.schema import QueriesConfig, StudyConfig
from ifguide.errors import ConfigError, StaleError
from ifguide.storage.fingerprints import Fingerprints
from ifguide.study.lineage import Unit
from ifguide.study.stage_table import STAGES, describe_stage, reads_only

NO_MODEL = (
    "has scores that another program computed, and no model: read, select and export its documents here; to train or"
    " measure, make a study with `ifguide new`"
)
"""What is said of a study of others' scores where a model is needed."""


def cache_dir(given: Path | None = None) -> Path:
    """The folder of all studies: the given one, $IFGUIDE_CACHE, or `cache` in the current folder."""
    return Path(given or os.environ.get("IFGUIDE_CACHE") or "cache").resolve()


def list_studies(cache: Path | None = None) -> list[str]:
    """Names of the studies in the cache, sorted."""
    cache = cache or cache_dir()
    return sorted(p.parent.name for p in cache.glob("*/study.toml") if is_name(p.parent.name))


@dataclass(frozen=True)
class StudyFolder:
    """The folder of one study and its settings."""

    root: Path
    """The folder."""
    config: StudyConfig
    """Its settings."""
    rehash: bool = False
    """Read the user's files again instead of trusting their sizes and times of change."""
    judge: str = ""
    """Key of the judgement whose figures are read; empty: those of the evaluations."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.root.name

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """Hashes of the user's files, remembered in the folder."""
        return Fingerprints(self.root / ".fingerprints.json", fresh=self.rehash)

    def resolved(self, section: str):
        """One section of the configuration with its paths resolved."""
        table = getattr(self.config, section)
        names = ("path", "toxic", "safe", "prompts", "heldout", "lambada", "harness_folder")
        paths = {name: self.resolve(getattr(table, name)) for name in names if getattr(table, name, "")}
        return dataclasses.replace(table, **paths)

    def query_sets(self) -> list[str]:
        """Names of the pairs of query sets: `""` for the study's own, then the extra ones."""
        return ["", *self.config.queries.extra]

    def resolved_queries(self, name: str = "") -> QueriesConfig:
        """The settings of one pair of query sets with its paths resolved."""
        config = self.resolved("queries")
        if not name:
            return config
        if name not in config.extra:
            raise ConfigError(f"queries: expected one of {', '.join(config.extra) or 'no extra sets'}, got {name!r}")
        extra = config.extra[name]
        return dataclasses.replace(config, toxic=self.resolve(extra.toxic), safe=self.resolve(extra.safe))

    def resolve(self, path: str) -> str:
        """A configured path as an absolute one where something is there (relative ones belong to the study's folder),
        or the hub id unchanged."""
        base, ending = cut_split(path)
        for part, rest in ((path, ""), (base, ending)):  # a # in a real name is no split
            for candidate in (Path(part).expanduser(), self.root / part):
                if part and candidate.is_absolute() and candidate.exists():
                    return f"{candidate}{rest}"
        return f"{self.root / Path(base).expanduser()}{ending}" if is_glob(base) else path

    def folder(self, unit: Unit) -> Path:
        """The folder of an artefact."""
        parent = describe_stage(unit.stage).folder
        if not parent:
            return self.root / unit.stage
        if unit == Unit("documents"):
            return self.root / parent / "_corpus"  # no selection can have this name
        return self.root / parent / check_name(unit.name, "selection")

    def units(self, stage: str) -> list[Unit]:
        """The artefacts that a full run of a stage makes."""
        if stage not in STAGES:
            raise ConfigError(f"unknown stage {stage!r}; stages: {', '.join(STAGES)}")
        names = [] if self._lacks(stage) else STAGES[stage].names(self.config)
        return [Unit(stage, name) for name in names]

    def _lacks(self, stage: str) -> bool:
        return reads_only(self.config) and (stage == "queries" or bool(describe_stage(stage).batch))  # runs the model

    def require_model(self, unit: Unit) -> None:
        """A StaleError for an artefact of a model, in a study without one."""
        if self._lacks(unit.stage):
            raise StaleError(f"{self.name!r} {NO_MODEL}")

    @property
    def has_spans(self) -> bool:
        """Whether the corpus comes with known toxic spans."""
        return bool(self.config.corpus.spans_field)


def cut_split(path: str) -> tuple[str, str]:
    """`folder#split` as ("folder", "#split"); any other path as (path, "")."""
    base, sign, split = path.rpartition("#")
    return (base, sign + split) if base else (path, "")


def is_glob(path: str) -> bool:
    """Whether a path is a pattern for several files."""
    return any(sign in path for sign in "*?[")

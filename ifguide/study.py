"""A study: one folder in the cache that holds a configuration and everything computed from it.

This file knows which parts there are, what each is made from, and whether it is fresh, stale or missing. It computes nothing
heavy and needs no torch, so the app reads studies through it.
"""

import dataclasses
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ifguide import artifacts
from ifguide.config import QueriesConfig, StudyConfig, config_to_dict, read_config, write_config
from ifguide.corpus import TokenizedCorpus
from ifguide.errors import ConfigError, InputError, StaleError, StudyNotFound
from ifguide.fingerprints import Fingerprints
from ifguide.lineage import (
    BASE,
    DEFAULT,
    STAGE_FOLDERS,
    STAGES,
    InputFile,
    Unit,
    can_be_made_again,
    default_setting,
    input_files,
    read_units,
    unit_settings,
)
from ifguide.readers import list_files
from ifguide.selections import Selection, compute_selection, read_selection, write_selection
from ifguide.variants import RESERVED, check_variants

_NAME = re.compile(r"(?!.*\.(partial|old)-)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # builds keep `.partial-` and `.old-`


def check_name(name: str, what: str = "study") -> str:
    """Return a name that is safe as a folder.

    Raises:
        ConfigError: it could leave its folder, or hide, or break a shell.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"a {what}'s name has 1 to 64 letters, digits, '.', '_' or '-', starts with a letter or digit, and holds neither "
            f"'.partial-' nor '.old-'; got {name!r}"
        )
    return name


def cache_dir() -> Path:
    """The folder of all studies: $IFGUIDE_CACHE, or `cache` in the current folder."""
    return Path(os.environ.get("IFGUIDE_CACHE") or "cache").resolve()


def list_studies(cache: Path | None = None) -> list[str]:
    """Names of the studies in the cache, sorted."""
    cache = cache or cache_dir()
    return sorted(p.parent.name for p in cache.glob("*/study.toml") if _NAME.fullmatch(p.parent.name))


@dataclass(frozen=True)
class StageState:
    """Whether a stage can be used as it is."""

    state: str
    """`fresh`, `stale` or `missing`."""
    reason: str = ""
    """Why it is stale or missing, in plain words."""
    seconds: float | None = None
    """How long it took to build, if it is there."""


class Study:
    """The folder of one study.

    Args:
        root: the folder.
        config: its settings.
        rehash: read the user's files again instead of trusting their sizes and times of change.
    """

    def __init__(self, root: Path, config: StudyConfig, *, rehash: bool = False):
        self.root = root
        self.config = config
        self._rehash = rehash

    @property
    def name(self) -> str:
        return self.root.name

    @classmethod
    def open(cls, name: str, cache: Path | None = None) -> "Study":
        """Open a study by name.

        Raises:
            StudyNotFound: there is none of that name.
            ConfigError: the name is unsafe, or study.toml cannot be read.
        """
        cache = Path(cache).resolve() if cache else cache_dir()
        root = cache / check_name(name)
        if not (root / "study.toml").is_file():
            known = ", ".join(list_studies(cache)) or "none yet"
            raise StudyNotFound(
                f"no study {name!r} in {cache} (there: {known}); make it with `ifguide new {name}` or `ifguide demo`"
            )
        config = read_config(root / "study.toml")
        try:
            check_variants(config)
        except ConfigError as error:
            raise ConfigError(f"{root / 'study.toml'}: {error}") from error
        return cls(root, config)

    @classmethod
    def create(cls, name: str, config: StudyConfig, cache: Path | None = None) -> "Study":
        """Make the folder and write study.toml.

        Raises:
            ConfigError: the name is unsafe or taken.
        """
        root = (Path(cache).resolve() if cache else cache_dir()) / check_name(name)
        if (root / "study.toml").exists():
            raise ConfigError(f"a study {name!r} exists already; choose another name or remove the folder {root}")
        root.mkdir(parents=True, exist_ok=True)
        with artifacts.replacing(root / "study.toml") as temporary:
            write_config(config, temporary)
        return cls(root, config)

    def change(self, config: StudyConfig) -> "Study":
        """Write other settings to study.toml; what depends on what changed is stale from then on. Returns the study anew."""
        with artifacts.replacing(self.root / "study.toml") as temporary:
            write_config(config, temporary)
        return Study.open(self.name, self.root.parent)

    @classmethod
    def at(cls, name: str, config: StudyConfig, cache: Path | None = None) -> "Study":
        """A study that is not written yet, to check its configuration."""
        return cls((Path(cache).resolve() if cache else cache_dir()) / check_name(name), config)

    def max_length(self) -> int:
        """Longest chunk in tokens: corpus.max_length, or the model's context length.

        Raises:
            ConfigError: corpus.max_length is more than the model can take.
        """
        from ifguide.models import context_length, load_config

        limit = context_length(load_config(self.resolve(self.config.model.source), self.config.model.revision))
        if self.config.corpus.max_length > limit:
            raise ConfigError(
                f"corpus.max_length: expected at most {limit:,} tokens, the model's context, got {self.config.corpus.max_length:,}"
            )
        return self.config.corpus.max_length or limit

    # ---- places ----

    def resolved(self, section: str):
        """One section of the configuration with its paths resolved."""
        table = getattr(self.config, section)
        paths = {
            name: str(self.resolve(getattr(table, name)))
            for name in ("path", "toxic", "safe", "prompts", "heldout", "lambada", "harness_folder")
            if getattr(table, name, "")
        }
        return dataclasses.replace(table, **paths)

    def query_sets(self) -> list[str]:
        """Names of the pairs of query sets: `""` for the study's own, then the extra ones."""
        return ["", *self.config.queries.extra]

    def resolved_queries(self, name: str = "") -> QueriesConfig:
        """The settings of one pair of query sets with its paths resolved."""
        config = self.resolved("queries")
        if not name:
            return config
        if name not in self.config.queries.extra:
            raise ConfigError(
                f"queries: expected one of {', '.join(self.config.queries.extra) or 'no extra sets'}, got {name!r}"
            )
        extra = self.config.queries.extra[name]
        return dataclasses.replace(config, toxic=self.resolve(extra.toxic), safe=self.resolve(extra.safe))

    def resolve(self, path: str) -> str:
        """A configured path as an absolute one where something is there (relative ones belong to the study's folder), or the hub id unchanged."""
        base, ending = _cut_split(path)
        for part, rest in ((path, ""), (base, ending)):  # a # in a real name is no split
            for candidate in (Path(part).expanduser(), self.root / part):
                if part and candidate.is_absolute() and candidate.exists():
                    return f"{candidate}{rest}"
        return f"{self.root / Path(base).expanduser()}{ending}" if _is_glob(base) else path

    def folder(self, unit: Unit) -> Path:
        """Where an artefact lies."""
        if unit.stage in STAGE_FOLDERS:
            return self.root / STAGE_FOLDERS[unit.stage] / check_name(unit.name, "selection")
        return self.root / unit.stage

    def units(self, stage: str) -> list[Unit]:
        """The artefacts that a full run of a stage makes."""
        if stage not in STAGES:
            raise ConfigError(f"unknown stage {stage!r}; stages: {', '.join(STAGES)}")
        if stage not in STAGE_FOLDERS:
            return [Unit(stage)]
        names = [DEFAULT, *(c for c in self.config.selection.controls if c != "oracle" or self.has_spans)]
        return [Unit(stage, name) for name in ([BASE, *names] if stage == "evaluate" else names)]

    @property
    def has_spans(self) -> bool:
        """Whether the corpus comes with known toxic spans."""
        return bool(self.config.corpus.spans_field)

    # ---- what is fresh ----

    @cached_property
    def _fingerprints(self) -> Fingerprints:
        return Fingerprints(self.root / ".fingerprints.json", fresh=self._rehash)

    def _file_inputs(self, unit: Unit) -> dict[str, str]:
        """Hashes of the user's own files an artefact is made from; a hub id stands for itself."""
        return {f"file {file.label}": self._hash_input(file) for file in input_files(self.config, unit) if file.path}

    def _hash_input(self, file: InputFile) -> str:
        place = self.resolve(file.path)
        base = place if Path(place).exists() else _cut_split(place)[0]
        if _is_glob(base) and not Path(base).exists():
            return artifacts.hash_json([self._fingerprints.of(found) for found in list_files(base)])
        if Path(base).is_absolute():
            return self._fingerprints.of(Path(base), file.names)
        return f"hub:{place}" + (f"@{file.revision}" if file.revision else "")

    def upstream(self, unit: Unit) -> list[Unit]:
        """The artefacts an artefact reads."""
        return read_units(self.config, unit)

    def settings(self, unit: Unit) -> dict:
        """The settings an artefact depends on, flat, as `section.key`; a saved selection keeps those it was saved with."""
        if unit.stage == "selection" and not can_be_made_again(self.config, unit.name):
            manifest = artifacts.read_manifest(self.folder(unit))
            return manifest["config"] if manifest else {}
        return unit_settings(self.config, unit)

    def inputs(self, unit: Unit) -> dict[str, str]:
        """Name to hash of everything an artefact is made from, as it is now.

        Raises:
            InputError: a file of the user's is gone.
            StaleError: an artefact it reads is not there.
        """
        found = {"schema": str(artifacts.SCHEMA), **self._file_inputs(unit)}
        for source in self.upstream(unit):
            manifest = artifacts.read_manifest(self.folder(source))
            if manifest is None:
                raise StaleError(f"{source} is missing; build it with `ifguide run {self.name}`")
            found[str(source)] = artifacts.digest_of(manifest)
        return found

    def unit_state(self, unit: Unit, known: dict[Unit, StageState] | None = None) -> StageState:
        """Whether one artefact is fresh, and if not, why."""
        known = {} if known is None else known
        if unit not in known:
            known[unit] = self._judge(unit, known)
        return known[unit]

    def _judge(self, unit: Unit, known: dict[Unit, StageState]) -> StageState:
        folder = self.folder(unit)
        manifest = artifacts.read_manifest(folder)
        if manifest is None:
            return StageState("missing", "not built yet")
        seconds = manifest.get("seconds")
        if problem := artifacts.check_sizes(folder, manifest):
            return StageState("stale", f"damaged: {problem}", seconds)
        for source in self.upstream(unit):
            state = self.unit_state(source, known)
            if state.state != "fresh":
                return StageState("stale", f"{source} is {state.state}", seconds)
        try:
            now = self.inputs(unit)
        except (InputError, StaleError) as error:
            return StageState("stale", str(error), seconds)
        before = manifest["inputs"]
        for key in sorted(now.keys() | before.keys()):
            if now.get(key) != before.get(key):
                return StageState("stale", _explain_input(key), seconds)
        settings = self.settings(unit)
        for key in sorted(settings.keys() | manifest["config"].keys()):
            old, new = manifest["config"].get(key), settings.get(key)
            if key not in manifest["config"] and new == default_setting(key):
                continue  # a setting of a later version, whose default is what was done before there was one
            if old != new:
                return StageState("stale", f"setting {key} is now {new!r}, was {old!r}", seconds)
        return StageState("fresh", "", seconds)

    def states(self) -> dict[str, StageState]:
        """State of every stage; a stage of several artefacts is as good as its worst one."""
        known: dict[Unit, StageState] = {}
        return {stage: self.stage_state(stage, known) for stage in STAGES}

    def stage_state(self, stage: str, known: dict[Unit, StageState] | None = None) -> StageState:
        """State of one stage."""
        known = {} if known is None else known
        units = self.units(stage)
        states = [self.unit_state(unit, known) for unit in units]
        seconds = [s.seconds for s in states if s.seconds is not None]
        total = round(sum(seconds), 3) if seconds else None
        for wanted in ("stale", "missing"):
            for unit, state in zip(units, states, strict=True):
                if state.state == wanted:
                    reason = f"{unit.name}: {state.reason}" if unit.name else state.reason
                    partly = wanted == "missing" and seconds
                    return StageState("stale" if partly else wanted, reason, total)
        return StageState("fresh", "", total)

    def fingerprint(self) -> str:
        """Short hash that changes whenever any artefact of the study does; a cache key."""
        manifests = sorted([*self.root.glob(f"*/{artifacts.MANIFEST}"), *self.root.glob(f"*/*/{artifacts.MANIFEST}")])
        marks = [
            [p.relative_to(self.root).as_posix(), p.stat().st_mtime_ns, p.stat().st_ino]
            for p in manifests
            if ".partial-" not in p.as_posix()
        ]
        return artifacts.hash_json([marks, config_to_dict(self.config)])[:16]

    # ---- reading ----

    def _need(self, unit: Unit) -> Path:
        folder = self.folder(unit)
        if not (folder / artifacts.MANIFEST).is_file():
            raise StaleError(
                f"study {self.name!r} has no {unit} yet; build it with `ifguide run {self.name} --until {unit.stage}`"
            )
        return folder

    def manifest(self, unit: Unit) -> dict:
        """The manifest of an artefact that is there."""
        return artifacts.read_json(self._need(unit) / artifacts.MANIFEST)

    def corpus(self) -> TokenizedCorpus:
        """The tokenised corpus, memory-mapped."""
        return TokenizedCorpus.open(self._need(Unit("corpus")))

    def queries(self, kind: str, name: str = ""):
        """Query pairs as a DataFrame with columns prompt and completion; kind is `toxic` or `safe`, name an extra pair's."""
        if kind not in ("toxic", "safe"):
            raise ConfigError(f"queries: expected toxic or safe, got {kind!r}")
        folder = self._need(Unit("queries"))
        return artifacts.read_table(
            (folder / "extra" / check_name(name, "query set") if name else folder) / f"{kind}.parquet"
        ).to_pandas()

    def checkpoint_names(self) -> list[str]:
        """Names of the checkpoints the study scores at, in training order."""
        return [entry["name"] for entry in self.models()["checkpoints"]]

    def models(self) -> dict:
        """Where the base model and the scoring checkpoints lie: {"base": {source, revision}, "checkpoints": [{name, source, revision}]}."""
        folder = self._need(Unit("model"))
        models = artifacts.read_part(folder, "models.json")
        for entry in (models["base"], *models["checkpoints"]):
            if (folder / entry["source"]).is_dir():
                entry["source"] = str(folder / entry["source"])
        return models

    def scores(self, kind: str = "own_loss", checkpoint: str | None = None, queries: str = "") -> np.ndarray:
        """Scores float32 (N,), memory-mapped, 0 where invalid.

        Args:
            kind: `own_loss`, `position` or `token_loss` (nats).
            checkpoint: one checkpoint's raw scores; None: the study's (mean or median over checkpoints of score / standard deviation, pooled if `scores.pooling` says so).
            queries: an extra pair of query sets (`queries.extra`); empty: the study's own. Losses are the same for all.
        """
        if kind not in ("own_loss", "position", "token_loss"):
            raise ConfigError(f"scores: expected own_loss, position or token_loss, got {kind!r}")
        folder = self._need(Unit("scores"))
        if checkpoint is not None:
            folder = folder / check_name(checkpoint, "checkpoint")
        if queries and kind != "token_loss":
            folder = folder / "extra" / check_name(queries, "query set")
        return artifacts.load_array(folder / f"{kind}.npy")

    def has_scores(self, kind: str) -> bool:
        """Whether scores of this kind were computed."""
        return (self.folder(Unit("scores")) / f"{kind}.npy").is_file()

    def names_of(self, stage: str) -> list[str]:
        """Names of a stage's artefacts that are there; those of `units` first, then the others by name."""
        folder = self.root / STAGE_FOLDERS[stage]
        found = {p.parent.name for p in folder.glob(f"*/{artifacts.MANIFEST}") if _NAME.fullmatch(p.parent.name)}
        first = [unit.name for unit in self.units(stage) if unit.name in found] if stage in STAGES else []
        return first + sorted(found - set(first))

    def selection_names(self) -> list[str]:
        """Saved selections: the default one first, then the controls, then the user's by name."""
        return self.names_of("selection")

    def suppressed_names(self) -> list[str]:
        """Selections that a model was trained with."""
        return self.names_of("suppress")

    def evaluation_names(self) -> list[str]:
        """Models that were evaluated, `base` first."""
        return self.names_of("evaluate")

    def selection(self, name: str = DEFAULT) -> Selection:
        """One saved selection.

        Raises:
            StaleError: it is not there, or its mask is of another corpus.
        """
        found = read_selection(name, self._need(Unit("selection", name)))
        n_tokens = int(artifacts.load_array(self._need(Unit("corpus")) / "offsets.npy")[-1])
        if len(found.mask) != n_tokens:
            made = can_be_made_again(self.config, name)
            again = f"ifguide run {self.name}" if made else f"ifguide select {self.name} --name {name} ..."
            raise StaleError(
                f"selection {name!r} is of another corpus: expected a mask of {n_tokens:,} tokens, got {len(found.mask):,}; "
                f"make it again with `{again}`"
            )
        return found

    def preview_selection(self, settings: dict) -> Selection:
        """Compute a selection without saving it; `settings` as for `save_selection`."""
        return compute_selection(self, self._selection_config(settings))

    def save_selection(self, name: str, settings: dict) -> Selection:
        """Compute a selection from the study's scores and save it.

        Args:
            name: its name; the built-in names are refused.
            settings: any of attribution, quantile, window, max_tokens; the rest comes from study.toml.

        Raises:
            ConfigError: a bad name or setting.
        """
        check_name(name, "selection")
        if name in RESERVED:
            raise ConfigError(f"the name {name!r} is built in; choose another for your selection")
        for section in ("variants", "borrowed"):
            if name in getattr(self.config, section):
                raise ConfigError(f"study.toml has a [{section}.{name}]; choose another name for your selection")
        wanted = self._selection_config(settings)
        unit = Unit("selection", name)
        flat = {f"selection.{k}": v for k, v in config_to_dict(wanted).items() if k not in ("controls", "seed")}
        with artifacts.building(self.folder(unit), stage="selection", inputs=self.inputs(unit), config=flat) as partial:
            write_selection(compute_selection(self, wanted, name=name), partial)
        return self.selection(name)

    def _selection_config(self, settings: dict):
        try:
            return dataclasses.replace(self.config.selection, **settings)
        except TypeError as error:
            raise ConfigError(
                f"a selection has attribution, quantile, window and max_tokens; got {', '.join(settings)}"
            ) from error

    def metrics(self, variant: str) -> dict | None:
        """Measured metrics of a model (`base` or a selection's name), or None when it was not evaluated."""
        folder = self.folder(Unit("evaluate", variant))
        return artifacts.read_part(folder, "metrics.json") if (folder / "metrics.json").is_file() else None

    def samples(self, variant: str):
        """The completions behind the metrics: DataFrame prompt_index, sample_index, prompt, completion, toxicity."""
        return artifacts.read_table(self._need(Unit("evaluate", variant)) / "samples.parquet").to_pandas()

    def heldout_losses(self, variant: str):
        """What a model loses on each held-out text: DataFrame nats, n_tokens; None without such text, or from an older version."""
        path = self._need(Unit("evaluate", variant)) / "heldout.parquet"
        found = artifacts.read_table(path).to_pandas() if path.is_file() else None
        return None if found is None or not found["n_tokens"].sum() else found

    def headline(self) -> dict[str, dict]:
        """Metrics of every evaluated model; the default selection's model is called `suppressed`."""
        return {"suppressed" if name == DEFAULT else name: self.metrics(name) or {} for name in self.evaluation_names()}


def _cut_split(path: str) -> tuple[str, str]:
    """`folder#split` as ("folder", "#split"); any other path as (path, "")."""
    base, sign, split = path.rpartition("#")
    return (base, sign + split) if base else (path, "")


def _is_glob(path: str) -> bool:
    return any(sign in path for sign in "*?[")


def _explain_input(key: str) -> str:
    if key == "schema":
        return "made by another version of ifguide"
    return f"the {key} changed" if key.startswith("file ") else f"{key} was rebuilt"

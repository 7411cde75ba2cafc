"""A study as the rest of the package reads it: its corpus, scores, selections and metrics, opened by name.

It computes nothing and needs no torch, so the app reads studies through it.
"""

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from ifguide.config.attributions import KINDS, computed_kinds, describe_kind
from ifguide.config.io import read_config, write_config
from ifguide.config.names import DEFAULT, check_name, is_name
from ifguide.config.schema import StudyConfig
from ifguide.data.corpus import TokenizedCorpus
from ifguide.errors import ConfigError, StaleError, StudyNotFound
from ifguide.selection.saved import Selection, read_selection
from ifguide.storage import artifacts
from ifguide.study.folder import StudyFolder, cache_dir, list_studies
from ifguide.study.judgements import SAMPLES, Judgement, judge_title, list_judgements
from ifguide.study.lineage import Unit, can_be_made_again, scores_unit
from ifguide.study.stage_table import STAGES, describe_stage
from ifguide.study.variants import check_variants


class Study(StudyFolder):
    """One study: its folder, its settings, and what was computed."""

    @classmethod
    def open(cls, name: str, cache: Path | None = None) -> "Study":
        """Open a study by name in the folder of studies `cache`; None: the usual one. A StudyNotFound: there is none
        of that name; a ConfigError: the name is unsafe, or study.toml cannot be read."""
        cache = cache_dir(cache)
        root = cache / check_name(name)
        if not (root / "study.toml").is_file():
            studies = ", ".join(list_studies(cache)) or "none yet"
            raise StudyNotFound(
                f"no study {name!r} in {cache} (there: {studies}); make it with `ifguide new {name}` or `ifguide demo`"
            )
        config = read_config(root / "study.toml")
        try:
            check_variants(config)
        except ConfigError as error:
            raise ConfigError(f"{root / 'study.toml'}: {error}") from error
        return cls(root, config)

    @classmethod
    def create(
        cls, name: str, config: StudyConfig, cache: Path | None = None, reasons: Mapping[str, str] | None = None
    ) -> "Study":
        """Make the folder, in the folder of studies `cache`, and write `config` to study.toml, with the reasons for
        some settings, by `section.key`, as comments. A ConfigError: the name is unsafe or taken."""
        study = cls.at(name, config, cache)
        study.root.mkdir(parents=True, exist_ok=True)
        with artifacts.replacing(study.root / "study.toml") as temporary:
            write_config(config, temporary, reasons)
        return study

    def change(self, config: StudyConfig) -> "Study":
        """Write other settings to study.toml, which makes stale what depends on them. Returns the changed study."""
        with artifacts.replacing(self.root / "study.toml") as temporary:
            write_config(config, temporary)
        return Study.open(self.name, self.root.parent)

    @classmethod
    def at(cls, name: str, config: StudyConfig, cache: Path | None = None) -> "Study":
        """A study that is not written yet, to check its configuration. A ConfigError: the name is unsafe or taken."""
        root = cache_dir(cache) / check_name(name)
        if (root / "study.toml").exists():
            raise ConfigError(f"a study {name!r} exists already; choose another name or remove the folder {root}")
        return cls(root, config)

    def max_length(self) -> int:
        """Longest chunk in tokens: corpus.max_length, or the model's context length. A ConfigError: corpus.max_length
        is more than the model can take."""
        from ifguide.models.loading import context_length, load_config

        limit = context_length(load_config(self.resolve(self.config.model.source), self.config.model.revision))
        length = self.config.corpus.max_length
        if length > limit:
            raise ConfigError(f"corpus.max_length: expected at most {limit:,}, the model's context, got {length:,}")
        return length or limit

    def _need(self, unit: Unit) -> Path:
        folder = self.folder(unit)
        if not (folder / artifacts.MANIFEST).is_file():
            self.require_model(unit)
            until = f" --until {unit.stage}" if unit.stage in STAGES else ""
            raise StaleError(f"study {self.name!r} has no {unit} yet; build it with `ifguide run {self.name}{until}`")
        return folder

    def manifest(self, unit: Unit) -> dict:
        """The manifest of an artefact that is there."""
        return artifacts.read_json(self._need(unit) / artifacts.MANIFEST)

    def corpus(self) -> TokenizedCorpus:
        """The tokenised corpus, memory-mapped."""
        return TokenizedCorpus.open(self._need(Unit("corpus")))

    def queries(self, kind: str, name: str = ""):
        """Query pairs as a DataFrame with columns prompt and completion; kind is `toxic` or `safe`, name an extra
        pair's."""
        if kind not in ("toxic", "safe"):
            raise ConfigError(f"queries: expected toxic or safe, got {kind!r}")
        folder = self._need(Unit("queries"))
        if name:
            folder = folder / "extra" / check_name(name, "query set")
        return artifacts.read_table(folder / f"{kind}.parquet").to_pandas()

    def checkpoint_names(self) -> list[str]:
        """Names of the checkpoints the study scores at, in training order."""
        return [entry["name"] for entry in self.models()["checkpoints"]]

    def models(self) -> dict:
        """Where the base model and the scoring checkpoints are: {"base": {source, revision}, "checkpoints": [{name,
        source, revision}]}."""
        folder = self._need(Unit("model"))
        models = artifacts.read_part(folder, "models.json")
        for entry in (models["base"], *models["checkpoints"]):
            if (folder / entry["source"]).is_dir():
                entry["source"] = str(folder / entry["source"])
        return models

    def scores(self, kind: str = "", checkpoint: str | None = None, queries: str = "") -> np.ndarray:
        """Scores float32 (N,), memory-mapped, 0 where invalid, of a kind: a name of
        `ifguide.config.attributions.KINDS`, of `[imported.NAME]` or of another method; empty: the one that the default
        selection is made by. `checkpoint` asks for one checkpoint's raw scores instead of the study's (mean or median
        over checkpoints of score / standard deviation, pooled if `scores.pooling` says so), `queries` for those of an
        extra pair of query sets (`queries.extra`). Losses are the same for all. A ConfigError: there is no such kind,
        checkpoint or pair."""
        kind = kind or self.config.selection.attribution
        unit = scores_unit(self.config, kind)
        if unit.name:
            return artifacts.load_array(self._need(unit) / "scores.npy")
        if kind not in KINDS:
            kinds = ", ".join((*KINDS, *self.config.imported))
            raise ConfigError(f"scores: expected one of {kinds}, got {kind!r}")
        if kind not in computed_kinds(self.config.scores) and not self.has_scores(kind):
            raise ConfigError(
                f"study {self.name!r} has no {kind} scores; set scores.{kind} to true, with what it is combined from,"
                f" and run `ifguide run {self.name} --until index`"
            )
        folder = self._need(unit)
        if checkpoint is not None:
            folder = folder / check_name(checkpoint, "checkpoint")
        if queries and KINDS[kind].directional:
            folder = folder / "extra" / check_name(queries, "query set")
        return artifacts.load_array(folder / f"{kind}.npy")

    def has_scores(self, kind: str) -> bool:
        """Whether scores of this kind were computed."""
        unit = scores_unit(self.config, kind)
        return (self.folder(unit) / ("scores.npy" if unit.name else f"{kind}.npy")).is_file()

    def kinds(self, *, selecting: bool = False) -> list[str]:
        """Kinds of scores there are, those from files last; with `selecting`, those that tokens are selected by."""
        there = filter(self.has_scores, (*KINDS, *self.config.imported))
        return [kind for kind in there if describe_kind(kind).selects or not selecting]

    def names_of(self, stage: str) -> list[str]:
        """Names of a stage's artefacts that are there; those of `units` first, then the others by name."""
        folder = self.root / describe_stage(stage).folder
        names = {p.parent.name for p in folder.glob(f"*/{artifacts.MANIFEST}") if is_name(p.parent.name)}
        first = [unit.name for unit in self.units(stage) if unit.name in names] if stage in STAGES else []
        return first + sorted(names - set(first))

    def selection_names(self) -> list[str]:
        """Saved selections: the default one first, then the controls, then the user's by name."""
        return self.names_of("selection")

    def suppressed_names(self) -> list[str]:
        """Selections that a model was trained with."""
        return self.names_of("suppress")

    def evaluation_names(self) -> list[str]:
        """Models that were evaluated, `base` first; by another judge, those whose completions it rated."""
        return [name for name in self.names_of("evaluate") if not self.judge or self._judged(name)]

    def judgements(self) -> dict[str, Judgement]:
        """What other judges say of the models, by key."""
        return list_judgements(self.root)

    def judged(self, key: str) -> "Study":
        """The same study with the figures of another judge; those of the evaluations for an empty or unknown key."""
        return dataclasses.replace(self, judge=key if key in self.judgements() else "")

    @cached_property
    def _judgement(self) -> Judgement:
        return self.judgements()[self.judge]

    def _judged(self, variant: str) -> dict | None:
        outputs = self.manifest(Unit("evaluate", variant))["outputs"]
        return self._judgement.metrics(variant, outputs.get(SAMPLES, "")) if self.judge else None

    def judge_title(self) -> str:
        """Name and hash of the judge whose figures are read."""
        return judge_title(next(filter(None, map(self.metrics, self.evaluation_names())), {}))

    def selection(self, name: str = DEFAULT) -> Selection:
        """One saved selection. A StaleError: it is not there, or its mask is of another corpus."""
        selection = read_selection(name, self._need(Unit("selection", name)))
        n_tokens = int(artifacts.load_array(self._need(Unit("corpus")) / "offsets.npy")[-1])
        if len(selection.mask) != n_tokens:
            made = can_be_made_again(self.config, name)
            again = f"ifguide run {self.name}" if made else f"ifguide select {self.name} --name {name} ..."
            raise StaleError(
                f"selection {name!r} is of another corpus: expected a mask of {n_tokens:,} tokens, got"
                f" {len(selection.mask):,}; make it again with `{again}`"
            )
        return selection

    def metrics(self, variant: str) -> dict | None:
        """Measured metrics of a model, the `variant` `base` or a selection's name; None: it was not evaluated."""
        folder = self.folder(Unit("evaluate", variant))
        if not (folder / "metrics.json").is_file():
            return None
        return artifacts.read_part(folder, "metrics.json") | (self._judged(variant) or {})

    def samples(self, variant: str):
        """The completions behind the metrics: DataFrame prompt_index, sample_index, prompt, completion, toxicity."""
        samples = artifacts.read_table(self._need(Unit("evaluate", variant)) / SAMPLES).to_pandas()
        return samples.assign(**self._judgement.ratings(variant)) if self._judged(variant) else samples

    def heldout_losses(self, variant: str):
        """What a model loses on each held-out text: DataFrame nats, n_tokens; None without such text, or from an older
        version."""
        path = self._need(Unit("evaluate", variant)) / "heldout.parquet"
        losses = artifacts.read_table(path).to_pandas() if path.is_file() else None
        return None if losses is None or not losses["n_tokens"].sum() else losses

    def headline(self) -> dict[str, dict]:
        """Metrics of every evaluated model; the default selection's model is called `suppressed`."""
        return {"suppressed" if name == DEFAULT else name: self.metrics(name) or {} for name in self.evaluation_names()}

"""What each artefact of a study is made from: the artefacts it reads, the user's files, the settings."""

import functools
from dataclasses import dataclass

from ifguide.config.attributions import KINDS, attributions, needs_direction
from ifguide.config.io import config_to_dict
from ifguide.config.names import BASE, DEFAULT
from ifguide.config.schema import StudyConfig
from ifguide.evaluation.toxicity import QueryScorer, classifier_source
from ifguide.selection.algorithm import TAIL
from ifguide.selection.index.build import INDEX_VERSION
from ifguide.study.variants import BASELINES, PREFERENCE, STEERED, recipe

READ_BY_SCORES = ("corpus", "queries", "model", "factors", "direction", "scores")
"""What has to be whole before scores can be recomputed."""
STAGES = (*READ_BY_SCORES, "index", "selection", "documents", "suppress", "evaluate")
"""All stages, in the order they run."""

STAGE_FOLDERS = {
    "baseline": "baselines",
    "selection": "selections",
    "documents": "documents",
    "suppress": "suppressed",
    "evaluate": "evaluations",
}
"""Stages that hold one artefact a name, and the folder they are in; the others are in a folder of their own name.
`baseline` holds token scores of other methods; it is none of `STAGES`, for only `ifguide compare` asks for it. One
artefact of `documents` has no name, that of the corpus."""

BUILT_IN_SELECTIONS = (DEFAULT, "random", "oracle", *attributions(), *BASELINES)
"""Selections that can be made again from `study.toml`: the default one, its controls, and those of other methods."""

_FROM_MODELS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "loss-difference": (("corpus", "queries", "model"), ("baselines", "training")),
    "standard": (("corpus", "queries", "model", "factors"), ("direction", "scores", "model")),
    "last-position": (("corpus", "queries", "model"), ("factors", "direction", "model")),
    "last-own-loss": (("corpus", "queries", "model"), ("factors", "direction", "scores", "model")),
}
"""Baselines that a model scores: what they read, and their sections of study.toml. A classifier scores the others."""
BASELINE_CLASSIFIER = "baselines' classifier"
"""What the classifier of `baselines.scorer`, or of `baselines.steer_scorer`, is called among an artefact's files."""
CHAT_TEMPLATE = "chat template"
"""A file that no corpus of an earlier version was made from."""
DOCUMENTS_VERSION = 3
"""Of the columns in `ifguide.study.stages.document_table`; a change makes older tables stale."""
EVALUATE_VERSION = 3
"""Of metrics.json and samples.parquet; likewise."""

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "config.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)


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


_RESOURCES = {"training.save_steps", "training.gradient_checkpointing", "training.report_to"}
_CHECKPOINTING = ("early_checkpoints", "checkpoint_steps", "include_last_checkpoint")
_DO_NOT_CHANGE_A_TRAINING = {f"training.{key}" for key in _CHECKPOINTING} | _RESOURCES


_OF_KINDS = {*(f"scores.{kind}" for kind in KINDS), "scores.probe_method"}
"""Which kinds of scores a study computes, and how one that is no baseline is computed."""


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
    """The artefact that holds the weights of an evaluated model; the steered one speaks with the base model's."""
    return Unit("model") if model in (BASE, STEERED) else Unit("suppress", model)


def can_be_made_again(config: StudyConfig, selection: str) -> bool:
    """Whether study.toml says how a selection is made; one that the user saved keeps its settings itself."""
    return selection in BUILT_IN_SELECTIONS or selection in config.borrowed or selection in config.imported


def scores_unit(config: StudyConfig, kind: str) -> Unit:
    """The artefact with the scores of a kind, of another method, or from a file."""
    return Unit("baseline", kind) if kind in BASELINES or kind in config.imported else Unit("scores")


def read_units(config: StudyConfig, unit: Unit) -> list[Unit]:
    """The artefacts an artefact reads."""
    stage, name = unit.stage, unit.name
    if stage == "suppress" and name == PREFERENCE:
        return [Unit("corpus"), Unit("queries"), Unit("model")]
    if stage == "suppress":
        how = recipe(config, name)
        return [Unit("corpus"), Unit("model"), Unit("selection", how.selection)]
    if stage == "evaluate":
        # fluency is compared with the base model's
        made = [weights_unit(name), *([] if name == BASE else [Unit("evaluate", BASE)])]
        steered_by_queries = name == STEERED and config.baselines.steer_scorer == QueryScorer.name
        return made if config.evaluate.prompts and not steered_by_queries else [Unit("queries"), *made]
    if stage == "selection" and name in (*attributions(), *BASELINES, *config.imported):
        return [Unit("corpus"), Unit("selection", DEFAULT), scores_unit(config, name)]
    if stage == "selection":
        own = name == "oracle" or name in config.borrowed
        return [Unit("corpus")] if own else [Unit("corpus"), scores_unit(config, config.selection.attribution)]
    imported = [Unit("baseline", kind) for kind in config.imported]
    if stage == "documents":
        return [Unit("corpus"), *([Unit("selection", name)] if name else [Unit("scores"), *imported])]
    if stage == "index":
        return [Unit("corpus"), Unit("scores"), *imported]
    if stage == "baseline":
        return [Unit(part) for part in _FROM_MODELS.get(name, (("corpus",),))[0]]
    reads = {
        "corpus": (),
        "queries": (),
        "model": ("corpus",),
        "factors": ("corpus", "model"),
        "direction": ("corpus", "queries", "model", "factors"),
        "scores": ("corpus", "model", "direction" if needs_direction(config.scores) else "queries"),
    }
    return [Unit(name) for name in reads[stage]]


def input_files(config: StudyConfig, unit: Unit) -> list[InputFile]:
    """The user's own files an artefact is made from."""
    model = config.model
    if unit.stage == "selection":
        lent = config.borrowed.get(unit.name)
        if not lent:
            return []
        place, folder = f"../{lent.study}", STAGE_FOLDERS["selection"]
        return [
            InputFile(f"selection {lent.selection} of {lent.study}", f"{place}/{folder}/{lent.selection}"),
            InputFile(f"corpus of {lent.study}", f"{place}/corpus"),
        ]
    if unit.stage == "baseline" and unit.name in config.imported:
        return [InputFile("scores", config.imported[unit.name].path)]
    judge = config.baselines.steer_scorer if unit.name == STEERED else config.baselines.scorer
    classifier = [InputFile(BASELINE_CLASSIFIER, classifier_source(judge))]
    return {
        "corpus": [
            InputFile("corpus", config.corpus.path),
            InputFile("tokenizer", model.source, _TOKENIZER_FILES, model.revision),
            InputFile(CHAT_TEMPLATE, model.source, ("chat_template.jinja",), model.revision),
        ],
        "queries": [
            InputFile("toxic queries", config.queries.toxic),
            InputFile("safe queries", config.queries.safe),
            *(
                InputFile(f"{kind} queries {name}", path)
                for name, extra in config.queries.extra.items()
                for kind, path in (("toxic", extra.toxic), ("safe", extra.safe))
            ),
        ],
        "model": [
            InputFile("model", model.source),
            *(InputFile(f"checkpoint {path}", path) for path in model.checkpoints),
        ],
        "baseline": [] if unit.name in _FROM_MODELS else classifier,
        "evaluate": [
            InputFile("prompts", config.evaluate.prompts),
            InputFile("held-out text", config.evaluate.heldout),
            InputFile("toxicity classifier", classifier_source(config.evaluate.scorer)),
            InputFile("implicit classifier", classifier_source(config.evaluate.implicit)),
            InputFile("LAMBADA passages", config.evaluate.lambada),
            InputFile("harness tasks", config.evaluate.harness_folder),
            *(classifier if unit.name == STEERED else []),
        ],
    }.get(unit.stage, [])


def _some(config: StudyConfig, section: str, *keys: str) -> dict:
    return {f"{section}.{key}": getattr(getattr(config, section), key) for key in keys}


def unit_settings(config: StudyConfig, unit: Unit) -> dict:
    """The settings of study.toml an artefact depends on, flat, as `section.key`."""
    if unit.stage == "selection" and unit.name == "oracle":
        return {"kind": "oracle"}
    if unit.stage == "selection" and unit.name in config.borrowed:
        return {"kind": "borrowed", **config_to_dict(config.borrowed[unit.name])}
    if unit.stage == "index":
        return {"index.version": INDEX_VERSION}
    if unit.stage == "documents":
        return {"documents.version": DOCUMENTS_VERSION}
    if unit.stage == "suppress" and unit.name == PREFERENCE:
        found = _some(config, "baselines", "dpo_beta", "dpo_epochs", "dpo_learning_rate")
        return found | _some(config, "training", "batch_size", "seed")
    if unit.stage == "suppress":
        how = {f"suppress.{key}": value for key, value in config_to_dict(recipe(config, unit.name)).items()}
        how |= {"suppress.version": 2} if how["suppress.method"] == "drop" else {}  # 2: dropped documents keep places
        training = {f"training.{key}": value for key, value in config_to_dict(config.training).items()}
        return how | {key: value for key, value in training.items() if key not in _DO_NOT_CHANGE_A_TRAINING}
    by_scores = () if unit.name in config.imported else _FROM_MODELS.get(unit.name, ((), ("baselines",)))[1]
    trained = ("model",) if config.model.mode == "asis" else ("model", "training")
    how_the_model_is_made = {"model.source", "model.revision", "model.mode", "model.checkpoints"}
    sections, changes_nothing = {
        "baseline": (by_scores, how_the_model_is_made | _DO_NOT_CHANGE_A_TRAINING | _OF_KINDS | {"factors.partitions"}),
        "model": (trained, {"model.dtype", "model.modules"} | _RESOURCES),
        "factors": (("factors", "model"), how_the_model_is_made | {"factors.partitions"}),
        **{stage: ((stage, "model"), how_the_model_is_made) for stage in ("direction", "scores")},
        "selection": (("selection",), {"selection.controls", "selection.seed"}),
        "evaluate": (("evaluate",), {"evaluate.batch_size"}),
    }.get(unit.stage, ((unit.stage,), set()))
    tables = {section: config_to_dict(getattr(config, section)) for section in sections}
    flat = {f"{section}.{key}": value for section, table in tables.items() for key, value in table.items()}
    flat = {key: value for key, value in flat.items() if key not in changes_nothing}
    if unit.stage == "baseline" and unit.name != "classifier-documents":
        return flat | _some(config, "scores", "average", "pooling")
    if unit.stage == "selection" and unit.name in (*attributions(), *BASELINES, *config.imported):
        documents = _some(config, "baselines", "document_min") if unit.name == "classifier-documents" else {}
        return {"kind": unit.name, **documents}
    if unit.stage == "selection" and not config.selection.quantile:
        flat["selection.tail"] = TAIL
    if unit.stage == "selection" and unit.name == "random":
        return {"kind": "random", "selection.seed": config.selection.seed, **flat}
    if unit.stage == "evaluate":
        if unit.name == STEERED:
            flat |= _some(config, "baselines", "steer_scorer", "steer_strength", "steer_candidates")
        return {"evaluate.version": EVALUATE_VERSION, **flat}
    return flat

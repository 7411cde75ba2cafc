"""The stages of a study, one row of `STAGES` each: what its artefacts read, the user's files and the settings that they
are made from, who builds them, who plans them, and what the screen calls them.

A new stage is a file with its two functions, `build` and `need`, and one row.
"""

from collections.abc import Callable, Iterable

from ifguide.config.attributions import KINDS, attributions, computed_kinds, needs_direction
from ifguide.config.io import config_to_dict
from ifguide.config.names import BASE, DEFAULT
from ifguide.config.schema import StudyConfig, VariantConfig
from ifguide.evaluation.toxicity import QueryScorer, classifier_files, classifier_source
from ifguide.selection.algorithm import TAIL
from ifguide.selection.index.build import INDEX_VERSION
from ifguide.study.lineage import InputFile, Unit, scores_unit, weights_unit
from ifguide.study.stage import Stage
from ifguide.study.variants import BASELINES, PREFERENCE, STEERED, edit_recipe, recipe

_FROM_MODELS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "loss-difference": (("corpus", "queries", "model"), ("baselines", "training")),
    "standard": (("corpus", "queries", "model", "factors"), ("direction", "scores", "model")),
    "last-position": (("corpus", "queries", "model"), ("factors", "direction", "model")),
    "last-own-loss": (("corpus", "queries", "model"), ("factors", "direction", "scores", "model")),
}
"""Baselines that a model scores: what they read, and their sections of study.toml. A classifier scores the others."""
BASELINE_CLASSIFIER = "baselines' classifier"
"""What the classifier of `baselines.scorer`, or of `baselines.steer_scorer`, is called among an artefact's files."""
CLASSIFIERS = ("toxicity classifier", "implicit classifier")
"""What the classifiers of `evaluate.scorer` and `evaluate.implicit` are called there."""
CHAT_TEMPLATE = "chat template"
LATER_FILES = tuple(f"file {label}" for label in (CHAT_TEMPLATE, BASELINE_CLASSIFIER, *CLASSIFIERS))
"""Files that artefacts of an earlier version do not name: no chat template, nor the judge inside the package."""

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "config.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)


TRAINING, GENERATION, PASSES = "training.batch_size", "evaluate.batch_size", "compute.tokens_per_batch"
"""Settings of study.toml that hold a stage's batch."""


def _units(*stages: str) -> Callable[[StudyConfig, str], list[Unit]]:
    return lambda config, name: [Unit(stage) for stage in stages]


def _sections(*sections: str, without: Iterable[str] = ()) -> Callable[[StudyConfig, str], dict]:
    return lambda config, name: _flat(config, sections, without)


def _flat(config: StudyConfig, sections: Iterable[str], without: Iterable[str] = ()) -> dict:
    tables = {section: config_to_dict(getattr(config, section)) for section in sections}
    settings = {f"{section}.{key}": value for section, table in tables.items() for key, value in table.items()}
    return {key: value for key, value in settings.items() if key not in without}


def _some(config: StudyConfig, section: str, *keys: str) -> dict:
    return {f"{section}.{key}": getattr(getattr(config, section), key) for key in keys}


_RESOURCES = {"training.save_steps", "training.gradient_checkpointing", "training.report_to"}
_CHECKPOINTING = ("early_checkpoints", "checkpoint_steps", "include_last_checkpoint")
_DO_NOT_CHANGE_A_TRAINING = {f"training.{key}" for key in _CHECKPOINTING} | _RESOURCES
_MAKE_THE_MODEL = {"model.source", "model.revision", "model.mode", "model.checkpoints"}
_OF_KINDS = {*(f"scores.{kind}" for kind in KINDS), "scores.probe_method"}
"""Which kinds of scores a study computes, and how one that is no baseline is computed."""


def _imported(config: StudyConfig) -> list[Unit]:
    return [Unit("baseline", kind) for kind in config.imported]


def reads_only(config: StudyConfig) -> bool:
    """Whether a study has scores of others alone (`ifguide open-scores`): no kind of its own, and no queries to measure
    a model by. It has no model."""
    return not computed_kinds(config.scores) and not config.queries.toxic


def _all_scores(config: StudyConfig) -> list[Unit]:
    return [*([] if reads_only(config) else [Unit("scores")]), *_imported(config)]


def _trained_names(config: StudyConfig) -> list[str]:
    controls = config.selection.controls
    return [DEFAULT, *(name for name in controls if name != "oracle" or config.corpus.spans_field)]


def _model_names(config: StudyConfig) -> list[str]:
    edited = ["edited"] if config.suppress.edit_first and config.suppress.method != "edit" else []
    default, *controls = _trained_names(config)
    return [default, *edited, *controls]


def _corpus_files(config: StudyConfig, name: str) -> list[InputFile]:
    model = config.model
    return [
        InputFile("corpus", config.corpus.path),
        InputFile("tokenizer", model.source, _TOKENIZER_FILES, model.revision),
        InputFile(CHAT_TEMPLATE, model.source, ("chat_template.jinja",), model.revision),
    ]


def _query_files(config: StudyConfig, name: str) -> list[InputFile]:
    queries = config.queries
    files = [InputFile("toxic queries", queries.toxic), InputFile("safe queries", queries.safe)]
    for extra, pair in queries.extra.items():
        files.append(InputFile(f"toxic queries {extra}", pair.toxic))
        files.append(InputFile(f"safe queries {extra}", pair.safe))
    return files


def _model_files(config: StudyConfig, name: str) -> list[InputFile]:
    model = config.model
    return [InputFile("model", model.source), *(InputFile(f"checkpoint {path}", path) for path in model.checkpoints)]


def _model_settings(config: StudyConfig, name: str) -> dict:
    sections = ("model",) if config.model.mode == "asis" else ("model", "training")
    return _flat(config, sections, {"model.dtype", "model.modules"} | _RESOURCES)


def _score_reads(config: StudyConfig, name: str) -> list[Unit]:
    return [Unit("corpus"), Unit("model"), Unit("direction" if needs_direction(config.scores) else "queries")]


def _by_other_scores(config: StudyConfig, selection: str) -> bool:
    return selection in (*attributions(), *BASELINES, *config.imported)


def _selection_reads(config: StudyConfig, name: str) -> list[Unit]:
    if _by_other_scores(config, name):
        return [Unit("corpus"), Unit("selection", DEFAULT), scores_unit(config, name)]
    if name == "oracle" or name in config.borrowed:
        return [Unit("corpus")]
    return [Unit("corpus"), scores_unit(config, config.selection.attribution)]


def _selection_files(config: StudyConfig, name: str) -> list[InputFile]:
    lent = config.borrowed.get(name)
    if not lent:
        return []
    place = f"../{lent.study}"
    return [
        InputFile(f"selection {lent.selection} of {lent.study}", f"{place}/selections/{lent.selection}"),
        InputFile(f"corpus of {lent.study}", f"{place}/corpus"),
    ]


def _selection_settings(config: StudyConfig, name: str) -> dict:
    if name == "oracle":
        return {"kind": "oracle"}
    if name in config.borrowed:
        return {"kind": "borrowed", **config_to_dict(config.borrowed[name])}
    if _by_other_scores(config, name):
        documents = _some(config, "baselines", "document_min") if name == "classifier-documents" else {}
        return {"kind": name, **documents}
    settings = _flat(config, ["selection"], {"selection.controls", "selection.seed"})
    if not config.selection.quantile:
        settings["selection.tail"] = TAIL
    if name == "random":
        return {"kind": "random", "selection.seed": config.selection.seed, **settings}
    return settings


def _document_reads(config: StudyConfig, name: str) -> list[Unit]:
    return [Unit("corpus"), *([Unit("selection", name)] if name else _all_scores(config))]


def _suppress_reads(config: StudyConfig, name: str) -> list[Unit]:
    if name == PREFERENCE:
        return [Unit("corpus"), Unit("queries"), Unit("model")]
    variant = recipe(config, name)
    reads = [Unit("corpus"), Unit("model"), Unit("selection", variant.selection)]
    if variant.method != "edit":
        return reads
    reads.append(curvature_unit(config, variant))
    return [*reads, Unit("suppress", variant.onto)] if variant.onto else reads


def curvature_unit(config: StudyConfig, variant: VariantConfig) -> Unit:
    """The artefact with the EK-FAC factors that an edit takes: those the scores were made with, where they are of the
    right model, or ones of its own."""
    place = variant.curvature
    if place == "auto":  # early checkpoints of a random start have learned too little
        place = "final" if config.model.mode == "scratch" else "checkpoint"
    return Unit("factors") if place == "checkpoint" and needs_direction(config.scores) else Unit("curvature", place)


def _gradient_reads(config: StudyConfig, name: str) -> list[Unit]:
    return [Unit("corpus"), Unit("model"), curvature_unit(config, edit_recipe(config, DEFAULT, {}))]


def _gradient_settings(config: StudyConfig, name: str) -> dict:
    made_at = _some(config, "direction", "damping", "damping_unit") | _some(config, "model", "dtype", "modules")
    return made_at | {"gradients.dimensions": int(name)}


def _suppress_files(config: StudyConfig, name: str) -> list[InputFile]:
    edits = name != PREFERENCE and recipe(config, name).method == "edit"
    return [InputFile("held-out text", config.evaluate.heldout)] if edits else []


_OF_EDITS = ("perplexity_budget", "damping", "weighted_share", "curvature", "onto")
"""Settings of `[suppress]` that nothing but an edit depends on."""


def _suppress_settings(config: StudyConfig, name: str) -> dict:
    if name == PREFERENCE:
        preference = _some(config, "baselines", "dpo_beta", "dpo_epochs", "dpo_learning_rate")
        return preference | _some(config, "training", "batch_size", "seed")
    settings = {f"suppress.{key}": value for key, value in config_to_dict(recipe(config, name)).items()}
    if settings["suppress.method"] == "edit":
        names = ("method", "selection", *_OF_EDITS)
        return {f"suppress.{key}": settings[f"suppress.{key}"] for key in names} | _some(config, "model", "modules")
    settings = {key: value for key, value in settings.items() if key.partition(".")[2] not in _OF_EDITS}
    settings.pop("suppress.edit_first")
    if not settings["suppress.seed"]:
        del settings["suppress.seed"]
    if settings["suppress.method"] == "drop":
        settings["suppress.version"] = 2  # dropped documents keep their places
    return settings | _flat(config, ["training"], _DO_NOT_CHANGE_A_TRAINING)


def _classifier(spec: str, label: str = BASELINE_CLASSIFIER) -> InputFile:
    return InputFile(label, classifier_source(spec), classifier_files(spec))


def _evaluate_reads(config: StudyConfig, name: str) -> list[Unit]:
    made = [weights_unit(name), *([] if name == BASE else [Unit("evaluate", BASE)])]  # fluency is against the base's
    steered_by_queries = name == STEERED and config.baselines.steer_scorer == QueryScorer.name
    return made if config.evaluate.prompts and not steered_by_queries else [Unit("queries"), *made]


def _evaluate_files(config: StudyConfig, name: str) -> list[InputFile]:
    evaluate = config.evaluate
    return [
        InputFile("prompts", evaluate.prompts),
        InputFile("held-out text", evaluate.heldout),
        _classifier(evaluate.scorer, CLASSIFIERS[0]),
        _classifier(evaluate.implicit, CLASSIFIERS[1]),
        InputFile("LAMBADA passages", evaluate.lambada),
        InputFile("harness tasks", evaluate.harness_folder),
        *([_classifier(config.baselines.steer_scorer)] if name == STEERED else []),
    ]


def _evaluate_settings(config: StudyConfig, name: str) -> dict:
    settings = _flat(config, ["evaluate"], {"evaluate.batch_size"})
    if name == STEERED:
        settings |= _some(config, "baselines", "steer_scorer", "steer_strength", "steer_candidates")
    return settings


def _baseline_reads(config: StudyConfig, name: str) -> list[Unit]:
    return [Unit(part) for part in _FROM_MODELS.get(name, (("corpus",),))[0]]


def _baseline_files(config: StudyConfig, name: str) -> list[InputFile]:
    if name in config.imported:
        return [InputFile("scores", config.imported[name].path)]
    return [] if name in _FROM_MODELS else [_classifier(config.baselines.scorer)]


def _baseline_settings(config: StudyConfig, name: str) -> dict:
    sections = () if name in config.imported else _FROM_MODELS.get(name, ((), ("baselines",)))[1]
    ignored = _MAKE_THE_MODEL | _DO_NOT_CHANGE_A_TRAINING | _OF_KINDS | {"factors.partitions"}
    settings = _flat(config, sections, ignored)
    return settings if name == "classifier-documents" else settings | _some(config, "scores", "average", "pooling")


_BUILD, _NEED = "ifguide.study.stages.build", "ifguide.study.planning.needs"

STAGES: dict[str, Stage] = {
    "corpus": Stage(
        title="Read the corpus",
        note="Cuts every document into the model's tokens.",
        reads=_units(),
        files=_corpus_files,
        settings=_sections("corpus"),
        build=f"{_BUILD}:build_corpus",
        need=f"{_NEED}:need_corpus",
    ),
    "queries": Stage(
        title="Read the queries",
        note="Reads the toxic and the safe examples that say what to look for.",
        reads=_units(),
        files=_query_files,
        settings=_sections("queries"),
        build=f"{_BUILD}:build_queries",
        need=f"{_NEED}:need_queries",
    ),
    "model": Stage(
        title="Train the base model",
        note="Trains on the whole corpus and keeps a few early checkpoints.",
        reads=_units("corpus"),
        files=_model_files,
        settings=_model_settings,
        batch=TRAINING,
        build=f"{_BUILD}:build_model",
        need=f"{_NEED}:need_model",
    ),
    "factors": Stage(
        title="Fit the curvature",
        note="Approximates how the loss bends around each checkpoint (EK-FAC).",
        reads=_units("corpus", "model"),
        settings=_sections("factors", "model", without=_MAKE_THE_MODEL | {"factors.partitions"}),
        names=lambda config: [""] if needs_direction(config.scores) else [],
        batch=PASSES,
        build=f"{_BUILD}:build_factors",
        need=f"{_NEED}:need_factors",
    ),
    "direction": Stage(
        title="Find the toxic direction",
        note="Turns the queries into one direction in the model's weights.",
        reads=_units("corpus", "queries", "model", "factors"),
        settings=_sections("direction", "model", without=_MAKE_THE_MODEL),
        names=lambda config: [""] if needs_direction(config.scores) else [],
        batch=PASSES,
        build=f"{_BUILD}:build_direction",
        need=f"{_NEED}:need_direction",
    ),
    "scores": Stage(
        title="Score every token",
        note="Measures how far each token pushes the model in that direction.",
        reads=_score_reads,
        settings=_sections("scores", "model", without=_MAKE_THE_MODEL),
        batch=PASSES,
        build=f"{_BUILD}:build_scores",
        need=f"{_NEED}:need_scores",
    ),
    "index": Stage(
        title="Sort the scores",
        note="Prepares the scores for the threshold page.",
        reads=lambda config, name: [Unit("corpus"), *_all_scores(config)],
        settings=_sections(),
        version=INDEX_VERSION,
        build=f"{_BUILD}:build_index",
        need=f"{_NEED}:need_index",
    ),
    "selection": Stage(
        title="Select tokens",
        note="Takes the highest-scoring tokens, and a random control.",
        reads=_selection_reads,
        files=_selection_files,
        settings=_selection_settings,
        names=_trained_names,
        folder="selections",
        build=f"{_BUILD}:build_selection",
        need=f"{_NEED}:need_selection",
    ),
    "documents": Stage(
        title="List the documents",
        note="Sums up every document, so that the document list opens at once.",
        reads=_document_reads,
        settings=_sections(),
        names=lambda config: ["", *_trained_names(config)],  # the one without a name is the corpus's
        version=3,
        folder="documents",
        build=f"{_BUILD}:build_documents",
        need=f"{_NEED}:need_documents",
    ),
    "suppress": Stage(
        title="Retrain against them",
        note="Trains again from the same start, pushing away from the selected tokens.",
        reads=_suppress_reads,
        files=_suppress_files,
        settings=_suppress_settings,
        names=_model_names,
        folder="suppressed",
        batch=TRAINING,
        build=f"{_BUILD}:build_suppress",
        need=f"{_NEED}:need_suppress",
    ),
    "evaluate": Stage(
        title="Compare the models",
        note="Lets all models complete the same prompts and rates the answers.",
        reads=_evaluate_reads,
        files=_evaluate_files,
        settings=_evaluate_settings,
        names=lambda config: [BASE, *_model_names(config)],
        version=3,
        folder="evaluations",
        batch=GENERATION,
        build=f"{_BUILD}:build_evaluate",
        need=f"{_NEED}:need_evaluate",
    ),
}
"""The stages of a run by name, in the order they run."""

ON_REQUEST: dict[str, Stage] = {
    "baseline": Stage(
        title="Score tokens by another method",
        note="One score a token by another method, or from a file.",
        reads=_baseline_reads,
        files=_baseline_files,
        settings=_baseline_settings,
        folder="baselines",
        build=f"{_BUILD}:build_baseline",
    ),
    "curvature": Stage(
        title="Fit the curvature of an edit",
        note="Approximates how the loss bends around the model that an edit starts from (EK-FAC).",
        reads=_units("corpus", "model"),
        folder="curvatures",
        settings=_sections("factors", "model", without=_MAKE_THE_MODEL | {"factors.partitions"}),
        batch=PASSES,
        build="ifguide.study.stages.editing:build_curvature",
    ),
    "gradients": Stage(
        title="Index the gradients",
        note="Keeps a compressed gradient of every document, so that an answer is traced through the whole corpus.",
        reads=_gradient_reads,
        folder="gradients",
        settings=_gradient_settings,
        batch=PASSES,
        build="ifguide.study.stages.gradients:build_gradients",
    ),
}
"""Stages that no run asks for: what reads their artefacts has them made."""


def describe_stage(name: str) -> Stage:
    """The row of a stage."""
    return STAGES.get(name) or ON_REQUEST[name]


def read_units(config: StudyConfig, unit: Unit) -> list[Unit]:
    """The artefacts an artefact reads."""
    return list(describe_stage(unit.stage).reads(config, unit.name))


def input_files(config: StudyConfig, unit: Unit) -> list[InputFile]:
    """The user's own files an artefact is made from."""
    return list(describe_stage(unit.stage).files(config, unit.name))


def unit_settings(config: StudyConfig, unit: Unit) -> dict:
    """The settings of study.toml an artefact depends on, flat, as `section.key`."""
    stage = describe_stage(unit.stage)
    version = {f"{unit.stage}.version": stage.version} if stage.version else {}
    return version | stage.settings(config, unit.name)

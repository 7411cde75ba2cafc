"""Evaluating one model of a study: its files read, its completions kept while it runs, its metrics compared with
the base model's."""

from collections.abc import Sequence
from pathlib import Path

from ifguide.config.names import BASE
from ifguide.config.schema import EvaluateConfig
from ifguide.data.prompts import Prompt, read_heldout, read_prompts
from ifguide.data.readers import read_texts
from ifguide.errors import StaleError
from ifguide.evaluation.evaluate import evaluate_model
from ifguide.evaluation.fluency import HeldoutLosses, perplexity_of
from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.runtime.distributed import current
from ifguide.runtime.progress import Progress
from ifguide.storage.artifacts import check_sizes, hash_json, read_manifest, read_table
from ifguide.storage.lock import read_record
from ifguide.storage.work import open_work
from ifguide.study.freshness import inputs_of, settings_of
from ifguide.study.lineage import Unit, weights_unit
from ifguide.study.reading import Study
from ifguide.study.stage_table import BASELINE_CLASSIFIER
from ifguide.study.stages.checkpoints import place_model
from ifguide.study.variants import STEERED, UNTOUCHED


def evaluate_unit(study: Study, unit: Unit, progress: Progress):
    """Evaluate `base` or the model of a selection: metrics, samples and held-out texts, see
    `ifguide.evaluation.evaluate.evaluate_model`; with `evaluate.harness_tasks` also `harness`. All processes take part,
    and all but the main one give None. An InputError: a file, a scorer or the harness cannot be used; before anything
    is computed."""
    from ifguide.evaluation.harness import check_harness, run_harness

    config: EvaluateConfig = study.resolved("evaluate")
    if config.harness_tasks:
        check_harness(config.harness_tasks, config.harness_folder)
    scorer = load_rater(study)
    implicit = load_study_scorer(study, config.implicit) if config.implicit else None
    prompts = study_prompts(study)
    heldout = read_heldout(config.heldout, config) if config.heldout else []
    base = None if unit.name == BASE else study.metrics(BASE)
    if base and chosen_on_heldout(study, unit.name):
        heldout = split_heldout(heldout)[1]
        base = base | {"perplexity": _base_perplexity(study, heldout)}
    lambada = read_lambada(config)
    model, tokenizer = load_evaluated(study, unit.name, config.dtype)
    steer = load_steering(study, tokenizer) if unit.name == STEERED else None
    if unit.name == STEERED and study.config.baselines.steer_scorer == config.scorer:
        progress.message(f"{STEERED}: {config.scorer} both steers and rates it, so its rating is no independent one")
    evaluated = evaluate_model(
        model,
        tokenizer,
        config,
        prompts,
        scorer,
        implicit_scorer=implicit,
        heldout_texts=heldout,
        lambada_texts=lambada,
        base=base,
        work=Path(current().decide(lambda: str(open_completions(study, unit, prompts)))),
        steer=steer,
        report=lambda what, done, total: progress.report(done, total, what),
    )
    if evaluated and config.harness_tasks:
        progress.message(f"lm-evaluation-harness: {', '.join(config.harness_tasks)}")
        tasks, limit = config.harness_tasks, config.harness_limit
        evaluated[0]["harness"] = run_harness(model, tokenizer, tasks, config.harness_folder, limit=limit)
    return evaluated


def split_heldout(texts: list[str]) -> tuple[list[str], list[str]]:
    """Held-out texts twice, each time with every other one empty: those that an edit's strength is chosen on, and those
    that it is measured on. An empty text has no tokens, so the others keep their places."""
    chosen_on = [text if number % 2 == 0 else "" for number, text in enumerate(texts)]
    return chosen_on, ["" if chosen else text for text, chosen in zip(texts, chosen_on, strict=True)]


def chosen_on_heldout(study: Study, name: str) -> bool:
    """Whether a model is an edit whose strength was chosen on one half of the held-out text."""
    manifest = read_manifest(study.folder(weights_unit(name))) or {}
    return manifest.get("notes", {}).get("edit", {}).get("chosen_on") == "heldout"


def _base_perplexity(study: Study, texts: list[str]) -> float | None:
    """The base model's perplexity on the held-out texts that are not empty."""
    losses = study.heldout_losses(BASE)
    if losses is None:
        return None
    here = losses[[bool(text) for text in texts]]
    return perplexity_of(HeldoutLosses(here["nats"].to_numpy(), here["n_tokens"].to_numpy()))


def load_study_scorer(study: Study, spec: str):
    """A scorer on the study's device. A relative folder of a classifier is in the study's, and its name stays as the
    settings have it."""
    from ifguide.evaluation.toxicity import classifier_files, classifier_source, load_scorer

    source, device = classifier_source(spec), "cpu"
    if not classifier_files(spec):  # a neural network
        from ifguide.models.loading import pick_device

        device = str(pick_device(study.config.compute.device))
    place = study.resolve(source)
    scorer = load_scorer(spec.replace(source, place, 1), device=device)
    if place != source:
        scorer.name = scorer.name.replace(place, source, 1)
    return scorer


def load_rater(study: Study, spec: str = ""):
    """The scorer of `evaluate.scorer`, with `evaluate.threshold`; or another one, with its own threshold where the
    study's is a calibrated one. A ConfigError: it has none."""
    from ifguide.evaluation.judges.calibration import ShiftedJudge, read_threshold
    from ifguide.evaluation.toxicity import classifier_source

    config: EvaluateConfig = study.config.evaluate
    scorer = load_study_scorer(study, spec or config.scorer)
    if isinstance(config.threshold, str):
        place = study.resolve(classifier_source(spec or config.scorer))
        return ShiftedJudge(scorer, read_threshold(Path(place), scorer.name))
    return scorer if spec or config.threshold == TOXIC_FROM else ShiftedJudge(scorer, config.threshold)


def load_steering(study: Study, tokenizer):
    """What chooses the base model's words in the steered model."""
    from ifguide.evaluation.steering import RewardProcessor
    from ifguide.evaluation.toxicity import QueryScorer

    baselines, sets = study.config.baselines, (study.queries(kind)["completion"] for kind in ("toxic", "safe"))
    own = baselines.steer_scorer == QueryScorer.name
    judge = QueryScorer(*sets) if own else load_study_scorer(study, baselines.steer_scorer)
    return RewardProcessor(tokenizer, judge, baselines.steer_strength, baselines.steer_candidates)


def study_prompts(study: Study) -> list[Prompt]:
    """The prompts every model of a study completes: those of `evaluate.prompts`, or of the toxic queries."""
    config = study.resolved("evaluate")
    if config.prompts:
        return read_prompts(config.prompts, config)
    return [Prompt(text=text) for text in list(study.queries("toxic")["prompt"])[: config.n_prompts or None]]


def shared_prompts_warning(study: Study) -> str:
    """A warning where some evaluated prompts are also prompts of the toxic queries (blanks around them apart)."""
    samples = study.folder(Unit("evaluate", next(iter(study.evaluation_names()), BASE))) / "samples.parquet"
    try:
        queries = read_table(study.folder(Unit("queries")) / "toxic.parquet", columns=["prompt"])
        measured = read_table(samples, columns=["prompt"], filters=[("sample_index", "=", 0)])
    except StaleError:  # nothing is measured yet, or a file is damaged; who shows the figures says so
        return ""
    return warn_of_shared(*(table["prompt"].to_pylist() for table in (measured, queries)))


def warn_of_shared(prompts: Sequence[str], of_queries: Sequence[str]) -> str:
    """A warning where some evaluated prompts are also prompts of the toxic queries."""
    fitted = {prompt.strip() for prompt in of_queries}
    shared = sum(prompt.strip() in fitted for prompt in prompts)
    warning = (
        f"{shared:,} of the {len(prompts):,} prompts are prompts of the toxic queries, so toxicity is measured on what"
        " the scores were fitted to; name other prompts with --prompts, or as evaluate.prompts in study.toml."
    )
    return warning if shared else ""


def read_lambada(config: EvaluateConfig) -> list[str]:
    """The passages of `evaluate.lambada`; none without the setting. Their column is `text`."""
    return read_texts(config.lambada, "text", limit=config.n_lambada) if config.lambada else []


def missing_weights(study: Study, name: str) -> str:
    """Why an evaluated model cannot be loaded, with the remedy; empty where its files are there."""
    if read_record(study.root):
        return "this study was recorded without its models"
    unit = weights_unit(name)
    folder = study.folder(unit)
    manifest = read_manifest(folder)
    if manifest and not (problem := check_sizes(folder, manifest)):
        return ""
    commands = {"base": f"ifguide run {study.name}", "default": f"ifguide suppress {study.name}"}
    remedy = commands.get(unit.name or BASE, f"ifguide compare {study.name} --with {name}")
    why = problem if manifest else "it was not trained here"
    return f"the weights of {name} are not in this study ({why}); make them again with `{remedy}`"


def load_evaluated(study: Study, name: str, dtype: str = "float32"):
    """A model that is or can be evaluated, on the study's device or where `compute.device_map` spreads it, and its
    tokenizer."""
    from ifguide.models.loading import load_tokenizer

    unit = weights_unit(name)
    if name == UNTOUCHED:
        source, revision = study.resolve(study.config.model.source), study.config.model.revision
    elif unit.stage == "model":
        base = study.models()["base"]
        source, revision = base["source"], base.get("revision", "")
    else:
        source, revision = str(study.folder(unit) / "final"), ""
    return place_model(study, source, revision, dtype=dtype), load_tokenizer(source, revision)


def open_completions(study: Study, unit: Unit, prompts: list[Prompt]) -> Path:
    """The folder of unfinished completions, which outlives a killed run. Only what they depend on is in its key, so
    another scorer or another held-out text throws nothing away."""
    config = study.config.evaluate
    inputs = inputs_of(study, unit)
    steering = {k: v for k, v in settings_of(study, unit).items() if k.startswith("baselines.")}
    if steering:
        steering |= {part: inputs.get(part) for part in (f"file {BASELINE_CLASSIFIER}", str(Unit("queries")))}
    sampling = ("n_samples", "max_new_tokens", "top_p", "temperature", "seed", "dtype")
    key = {
        "steering": steering,
        "unit": str(unit),
        "schema": inputs["schema"],
        "model": inputs[str(weights_unit(unit.name))],
        "prompts": hash_json([prompt.text for prompt in prompts]),
        "sampling": [getattr(config, name) for name in sampling],
        "device": study.config.compute.device,
    }
    return open_work(study.root, unit.work, key)

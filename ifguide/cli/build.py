"""`ifguide demo`, `new`, `open-scores`, `run` and `cancel`: make and build studies, here or as a background job."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option
from typer.models import OptionInfo

from ifguide.cli.options import Answer, Background, StudyName
from ifguide.cli.running import follow_run, launched_together, open_study
from ifguide.cli.status import status
from ifguide.errors import InputError, StudyNotFound, describe_error

if TYPE_CHECKING:
    from ifguide.config.schema import StudyConfig
    from ifguide.runtime.progress import Progress
    from ifguide.study.reading import Study


def _file(note: str, metavar: str = "FILE", default: str | bool = False) -> OptionInfo:
    return Option(metavar=metavar, help=note, show_default=default)


def _column(note: str, default: str | bool = False) -> OptionInfo:
    return _file(note, "COLUMN", default)


_LIVE = "A Hugging Face model folder or hub id to study on the same texts."


def demo(
    fresh: Annotated[bool, Option("--fresh", help="Build every stage again.")] = False,
    model: Annotated[str | None, _file(_LIVE, "PATH_OR_ID", default="a tiny one")] = None,
    background: Background = False,
) -> Answer:
    """Build the built-in study.

    It has a small corpus with planted insults and a tiny model, and takes minutes on a laptop. Stages that are up to
    date are skipped, so you can stop the command and run it again. With --model, a model of yours is fine-tuned on the
    same texts and edited; it first says how long that takes.
    """
    from ifguide.study.demo import LIVE, NAME, build_demo, build_live

    if fresh and model:
        raise InputError(f"--fresh builds the demo itself again; to build {LIVE} again, delete it first")
    if background:
        options = [*(["--fresh"] if fresh else []), *(["--model", model] if model else [])]
        return _start_in_background(LIVE if model else NAME, ["demo", *options], skip_when_fresh=not fresh)
    with follow_run() as progress:
        study = build_live(model, progress) if model else build_demo(fresh=fresh, progress=progress)
        _explain_best(study, progress)
        _draw_map(study, progress)
    return status(study.name)


QUICK_SECONDS = 60
"""A run explains documents if the direction, which passes over the queries too, took no longer than this."""


def _explain_best(study: "Study", progress: "Progress") -> None:
    """Explain the best-ranked documents for the app if that is quick. The study is complete without it, so an error is
    only a message."""
    from ifguide.config.attributions import needs_direction
    from ifguide.study.analysis.explain import TOP, explain_top
    from ifguide.study.freshness import stage_state

    if not needs_direction(study.config.scores):
        return
    command = f"`ifguide explain {study.name} --top {TOP}`"
    if (stage_state(study, "direction").seconds or 0) > QUICK_SECONDS:
        progress.message(f"{command} explains the best-ranked documents; it takes one or more passes over the queries")
        return
    try:
        explain_top(study, TOP, progress)
    except Exception as error:
        progress.message(f"no explanations: {describe_error(error)}; try {command}")


def _draw_map(study: "Study", progress: "Progress") -> None:
    """Draw the map of documents for the app if all of them are laid out, which is less work than their scores; an error
    is only a message."""
    from ifguide.study.analysis.document_map import FEWEST, SAMPLE, STATES, draw_map, read_map

    n_documents, command = study.corpus().n_documents, f"`ifguide map {study.name}`"
    if read_map(study, STATES) is not None or n_documents < FEWEST:
        return
    if n_documents > SAMPLE:
        progress.message(f"{command} draws the map of documents; with {n_documents:,} of them, a run does not")
        return
    progress.begin_stage("map", 0, 1)
    try:
        draw_map(study, progress)
    except Exception as error:
        progress.message(f"no map of documents: {describe_error(error)}; try {command}")


_CORPUS = "A .jsonl, .csv, .tsv, .parquet or .txt file, a folder, or a hub data set."
_SPANS = "The corpus's column of known toxic character spans, which only judge the result."
_PRESETS = "A set of settings: quick, balanced, thorough or paper; `ifguide settings --presets` describes them."
_TOKENIZER = "Its tokenizer; without the option, the one that bergson notes."
_FROM = "Of our shards: the study that scored them, whose tokenizer, averaging and pooling are taken."
_NEGATE = "Whether low scores push toward the queries; without either, as is noted."
_SET = "Any other setting, such as model.mode=scratch; give the option once for each setting."


def new(
    name: StudyName,
    model: Annotated[str, _file("A Hugging Face model folder or hub id.", "PATH_OR_ID")],
    corpus: Annotated[str, _file(_CORPUS, "FILE_OR_DATASET")],
    toxic: Annotated[str, _file("Toxic queries: prompts and completions.")],
    safe: Annotated[str, _file("Safe queries: prompts and completions.")],
    text_field: Annotated[str | None, _column("The corpus's column of texts.", "text")] = None,
    id_field: Annotated[str | None, _column("The corpus's column of unique ids.", "numbers")] = None,
    source_field: Annotated[str | None, _column("The corpus's column of sources.")] = None,
    spans_field: Annotated[str | None, _column(_SPANS)] = None,
    prompt_field: Annotated[str | None, _column("The queries' column of prompts.", "prompt")] = None,
    completion_field: Annotated[str | None, _column("The queries' column of completions.", "completion")] = None,
    prompts: Annotated[str | None, _file("Prompts to complete in evaluations.", default="the toxic queries'")] = None,
    heldout: Annotated[str | None, _file("Benign text to measure perplexity on.", default="none")] = None,
    preset: Annotated[str, Option(metavar="NAME", help=_PRESETS)] = "balanced",
    assignments: Annotated[list[str] | None, Option("--set", metavar="SECTION.KEY=VALUE", help=_SET)] = None,
) -> Answer:
    """Make a study of your own model and corpus.

    Every input is opened and read first. Settings that you leave open follow from the preset, the model, the corpus and
    this machine. What differs from the defaults is written to study.toml in the study's folder, each with its reason,
    where you can change it.
    """
    from ifguide.cli.terminal import format_table
    from ifguide.config.io import override
    from ifguide.config.presets import apply_preset, preset_settings
    from ifguide.config.schema import StudyConfig
    from ifguide.study.folder import cache_dir
    from ifguide.study.pipeline import create_study
    from ifguide.study.planning.model_facts import find_facts

    columns = {"text_field": text_field, "id_field": id_field, "source_field": source_field, "spans_field": spans_field}
    fields = {"prompt_field": prompt_field, "completion_field": completion_field}
    settings: dict[str, dict] = {
        "model": {"source": model},
        "corpus": {"path": corpus, **columns},
        "queries": {"toxic": toxic, "safe": safe, **fields},
        "evaluate": {"prompts": prompts, "heldout": heldout},
    }
    given: dict = {table: {k: v for k, v in values.items() if v is not None} for table, values in settings.items()}
    mode = override(StudyConfig(**given), [part for part in assignments or [] if part.startswith("model.mode")])
    config = override(apply_preset(mode, preset), assignments or [])
    named = {assignment.partition("=")[0].strip() for assignment in assignments or []}
    named |= preset_settings(preset, config.model.mode).keys()
    with follow_run("new"):
        study = create_study(name, _with_absolute_paths(config, cache_dir() / name), named=named)
    facts, file = find_facts(study).rows(), study.root / "study.toml"
    text = f"{format_table(('', ''), facts)}\n\nwrote {file}; build it with `ifguide run {name}`"
    return Answer({"study": name, "file": str(file), "model": dict(facts)}, text)


def open_scores(
    folder: Annotated[
        Path,
        Argument(metavar="FOLDER", help="A folder of scores: bergson's, kronfluence's, or our own Parquet shards."),
    ],
    corpus: Annotated[str, _file("The data set that was scored; shards hold it.", "FILE_OR_DATASET")] = "",
    tokenizer: Annotated[str, Option("--tokenizer", "--model", metavar="PATH_OR_ID", help=_TOKENIZER)] = "",
    name: Annotated[str | None, Option(metavar="STUDY", help="The study's name.", show_default="the folder's")] = None,
    text_field: Annotated[str, _column("The data set's column of texts, where it has no input_ids.", "text")] = "text",
    id_field: Annotated[str, _column("The data set's column of unique ids.", "numbers")] = "",
    negate: Annotated[bool | None, Option("--negate/--no-negate", help=_NEGATE)] = None,
    scored_by: Annotated[str | None, Option("--from", metavar="STUDY", help=_FROM)] = None,
) -> Answer:
    """Open scores of bergson, kronfluence or our shards.

    Makes a study of the data set that was scored. It has no model: select tokens in it and export them. Of Parquet
    shards, as a datatrove pipeline writes them, it holds a sample of the documents and a sketch of all.
    """
    from ifguide.config.schema import CorpusConfig, ScoresConfig
    from ifguide.study import peer_scores
    from ifguide.study.sharing.score_shards import list_shards

    called, shards = name or folder.resolve().name, not corpus and bool(list_shards(folder))
    scorer = open_study(scored_by) if scored_by else None
    if scorer and not tokenizer:
        tokenizer = scorer.resolve(scorer.config.model.source)
    if shards and not tokenizer:
        raise InputError(f"{folder} holds token ids; name the study that scored them with --from, or --tokenizer")
    if not shards and not corpus:
        raise InputError(f"{folder}: expected .parquet shards of scores, or --corpus with the data set that was scored")
    with follow_run() as progress:
        if shards:
            treatment = scorer.config.scores if scorer else ScoresConfig()
            study = peer_scores.open_shards(called, folder, tokenizer, treatment, progress=progress)
        else:
            given = CorpusConfig(path=corpus, text_field=text_field, id_field=id_field)
            study = peer_scores.open_scores(called, folder, given, tokenizer, negate=negate, progress=progress)
    about, documents, tokens = study.config.description, study.corpus().n_documents, study.corpus().n_tokens
    text = f"{about} {documents:,} documents, {tokens:,} tokens; read them in `ifguide app`"
    return Answer({"study": called, "description": about, "documents": documents, "tokens": tokens}, text)


def _with_absolute_paths(config: "StudyConfig", root: Path) -> "StudyConfig":
    """The same settings with absolute paths, or paths relative to the study's folder for files in it, so that it can be
    moved. Hub ids stay as they are."""

    def absolute(path):
        if isinstance(path, tuple):
            return tuple(map(absolute, path))
        kind, colon, rest = path.partition(":")
        if colon and kind in ("classifier", "judge"):  # a scorer
            source, sign, label = rest.partition("#")
            return f"{kind}:{absolute(source)}{sign}{label}"
        place = Path(path).expanduser()
        is_file = path and (place.exists() or any(sign in path for sign in "*?["))
        if not is_file:
            return path
        place = place.absolute()
        return str(place.relative_to(root) if place.is_relative_to(root) else place)

    paths = {
        "model": ("source", "checkpoints"),
        "corpus": ("path",),
        "queries": ("toxic", "safe"),
        "evaluate": ("prompts", "heldout", "lambada", "harness_folder", "scorer", "implicit"),
        "baselines": ("scorer", "steer_scorer"),
    }
    changed = {}
    for section, keys in paths.items():
        table = getattr(config, section)
        changed[section] = dataclasses.replace(table, **{key: absolute(getattr(table, key)) for key in keys})
    return dataclasses.replace(config, **changed)


def run(
    name: StudyName,
    until: Annotated[str | None, Option(metavar="STAGE", help="Stop after this stage.")] = None,
    force: Annotated[str | None, Option(metavar="STAGE", help="Build this stage again, even if up to date.")] = None,
    no_fit_check: Annotated[bool, Option("--no-fit-check", help="Start even if memory seems too small.")] = False,
    background: Background = False,
) -> Answer:
    """Build all stages that are missing or out of date.

    The stages, in order: corpus, queries, model, factors, direction, scores, index, selection, documents, suppress,
    evaluate. Without --until, the 20 best-ranked documents are then explained for the app, where that is quick, and the
    map of at most 20,000 documents is drawn.
    """
    from ifguide.study.stage_table import STAGES

    for stage in filter(None, (until, force)):
        if stage not in STAGES:
            raise InputError(f"expected a stage ({', '.join(STAGES)}), got {stage!r}")
    study = open_study(name)
    if background and launched_together():
        raise InputError("--background starts a single process; with torchrun or accelerate launch, leave it out")
    if background:
        options = {"--until": until, "--force": force}
        given = [part for option, stage in options.items() if stage for part in (option, stage)]
        return _start_in_background(name, ["run", name, *given, *["--no-fit-check"] * no_fit_check])
    with follow_run() as progress:
        from ifguide.study.pipeline import run_study

        run_study(study, until=until, force=force, progress=progress, unchecked=no_fit_check)
        if not until and not launched_together():
            if study.units("scores"):
                _explain_best(study, progress)
            if study.units("model"):
                _draw_map(study, progress)
    return status(name)


def score(
    name: StudyName,
    task: Annotated[int, Option("--task", metavar="N", help="Which part of the corpus, from 0.")],
    tasks: Annotated[int, Option("--tasks", metavar="N", help="How many parts there are.")],
) -> Answer:
    """Score one part of the corpus, as one task of a job array.

    The stages before the scores must be built. Parts do not depend on each other, and a part that is restarted
    continues where it stopped. `ifguide run` then joins them."""
    study = open_study(name)
    with follow_run("scores") as progress:
        from ifguide.study.stages.scoring import score_task

        score_task(study, task, tasks, progress)
    return Answer({"study": name, "task": task, "tasks": tasks}, f"scored part {task} of {tasks}")


def plan(
    name: StudyName,
    fit: Annotated[bool, Option("--fit", help="Write the settings that make it fit to study.toml.")] = False,
) -> Answer:
    """Predict the time, memory and disk of each stage.

    It measures the study's model on the start of its corpus for a few seconds, before anything is built.
    """
    from ifguide.cli.terminal import format_table
    from ifguide.config.io import with_values
    from ifguide.study.planning.plan import make_plan, plan_rows

    study = open_study(name)
    with follow_run("plan"):
        plan = make_plan(study)
        written: dict = {}
        while fit and (changes := dict(plan["remedies"].items() - written.items())):
            written |= changes
            study = study.change(with_values(study.config, changes))
            plan = make_plan(study)
    remedies = (plan["remedies"] | written).items()
    parts = "one part" if plan["partitions"] == 1 else f"{plan['partitions']} parts"
    lines = [
        format_table(("stage", "time", "memory", "GPU memory", "disk"), plan_rows(plan)),
        f"factors: the layers are fitted in {parts}, with two passes over the tokens for each",
        *(f"warning: {warning}" for warning in [plan["prompts_warning"]] if warning),
        *(f"does not fit: {problem}" for problem in plan["problems"]),
        *(f"{'written' if key in written else 'try'}: {key} = {json.dumps(value)}" for key, value in remedies),
    ]
    return Answer(plan, "\n".join(lines))


def rows(data: Annotated[str, Argument(metavar="FILE_OR_DATASET", help="As for `ifguide new --corpus`.")]) -> Answer:
    """Print the first rows of a file or data set as JSON.

    Long values are cut.
    """
    from ifguide.data.readers import first_rows

    with follow_run("rows"):
        first = list(first_rows(data))
    return Answer({"rows": first}, "\n".join(json.dumps(row, ensure_ascii=False) for row in first))


def _start_in_background(name: str, arguments: list[str], *, skip_when_fresh: bool = False) -> Answer:
    """Start `ifguide` with these arguments as a job, or queue it while another job of the study runs; neither if the
    same command is running, or every stage is fresh."""
    from ifguide.runtime.jobs import active_job, enqueue_job
    from ifguide.study.folder import cache_dir
    from ifguide.study.freshness import stage_states

    cache = cache_dir()
    active, nothing = active_job(cache / name), {"study": name, "job": None, "log": None}
    if active and list(active.status().command) == arguments:
        same = {"study": name, "job": active.id, "log": str(active.log_path)}
        return Answer(same, f"study {name} is already being built by job {active.id}")
    if not active and skip_when_fresh:
        with contextlib.suppress(StudyNotFound):
            if all(state.state == "fresh" for state in stage_states(open_study(name)).values()):
                return Answer(nothing, f"study {name} is up to date")
    if not (job := enqueue_job(name, arguments, cache)):
        return Answer(nothing, f"queued; `ifguide status {name}` shows the jobs before it")
    text = f"building study {name} in the background; follow it with `ifguide status {name}` or in {job.log_path}"
    return Answer({"study": name, "job": job.id, "log": str(job.log_path)}, text)


def cancel(
    name: StudyName, everything: Annotated[bool, Option("--all", help="Cancel those that wait in line, too.")] = False
) -> Answer:
    """Stop a study's background job. The next one in line starts."""
    from ifguide.config.names import check_name
    from ifguide.runtime.jobs import active_job, cancel_job, drop_waiting, waiting_jobs
    from ifguide.study.folder import cache_dir

    root = cache_dir() / check_name(name)
    job, dropped = active_job(root), waiting_jobs(root) if everything else []
    if not (job or dropped):
        raise InputError(f"study {name!r} has no running job; to stop a run in another terminal, press Ctrl+C there")
    if dropped:
        drop_waiting(root)
    state = cancel_job(job).state if job else None
    lines = [f"job {job.id} is {state}; continue with `ifguide run {name}`"] if job else []
    lines += [f"cancelled: ifguide {' '.join(command)}" for command in dropped]
    return Answer({"study": name, "job": job and job.id, "state": state}, "\n".join(lines))


COMMANDS = (demo, rows, new, open_scores, plan, run, score, cancel)

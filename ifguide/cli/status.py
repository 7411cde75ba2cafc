"""`ifguide status` and `verify`: what is up to date in a study, and whether its files are intact."""

import contextlib
from typing import TYPE_CHECKING, Annotated

from typer import Option

from ifguide.cli.options import Answer, StudyName
from ifguide.cli.running import follow_run, open_study
from ifguide.errors import StaleError

if TYPE_CHECKING:
    from ifguide.study.analysis.verify import Verification
    from ifguide.study.reading import Study

METRICS = ("emt", "tp", "mean_toxicity", "perplexity")
"""The columns of the table; the JSON has every metric."""
OPTIONAL_METRICS = ("implicit_emt", "implicit_tp", "lambada_accuracy")
"""Columns that appear when any model has the metric."""


def status(name: StudyName) -> Answer:
    """Show a study's stages, results and last job."""
    values = study_status(open_study(name))
    return Answer(values, format_status(values))


def study_status(study: "Study", *, start: bool = True) -> dict:
    """What `--json` prints, as docs/scripts.md describes it: the state of every stage, the metrics of every evaluated
    model, facts of the model, warnings, and the last job. A waiting job is started if its turn has come, unless
    `start` is False."""
    from ifguide.runtime.jobs import start_waiting, waiting_jobs
    from ifguide.study.analysis.comparison import read_metrics
    from ifguide.study.analysis.judges import describe_disagreement
    from ifguide.study.analysis.reliability import describe_reliability, read_reliability
    from ifguide.study.freshness import stage_states
    from ifguide.study.planning.model_facts import known_facts
    from ifguide.study.planning.plan import known_plan
    from ifguide.study.stages.evaluating import shared_prompts_warning
    from ifguide.study.stages.select import selection_warning

    with contextlib.suppress(OSError):
        if start:
            start_waiting(study.root)  # the job before may have been killed
    keys, facts = ("state", "seconds", "reason", "peak"), known_facts(study)
    stages = {name: {key: getattr(state, key) for key in keys} for name, state in stage_states(study).items()}
    for name in (name for name in stages if not study.units(name)):
        stages[name]["reason"] = "skipped: with these settings, nothing needs it"
    for name, need in (known_plan(study) or {"stages": {}})["stages"].items():
        stages[name] |= {"planned_seconds": need["seconds"], "planned_peak": need["device"] or need["host"]}
    metrics = read_metrics(study, evaluated := study.evaluation_names())
    return {
        "study": study.name,
        "stages": stages,
        "metrics": {shown: metrics.get(name, {}) for shown, name in zip(study.headline(), evaluated, strict=True)},
        "reliability": describe_reliability(read_reliability(study), study.config.selection.attribution),
        "model": dict(facts.rows()) if facts else {},
        "selection_warning": selection_warning(study),
        "prompts_warning": shared_prompts_warning(study),
        "judges_disagree": describe_disagreement(study),
        "job": _last_job(study),
        "queue": waiting_jobs(study.root),
    }


def _last_job(study: "Study") -> dict | None:
    from ifguide.runtime.jobs import latest_job
    from ifguide.runtime.progress import describe

    with contextlib.suppress(StaleError):
        if (job := latest_job(study.root)) and (last := job.status()):
            stage, command = describe(last) if last.running else last.stage, list(last.command)
            return {"id": last.job, "command": command, "state": last.state, "stage": stage, "error": last.error}
    return None


def format_status(status: dict) -> str:
    """The values of `study_status` as short tables."""
    from ifguide.cli.terminal import format_table

    heads = {"seconds": "time", "planned_seconds": "planned", "peak": "memory", "planned_peak": "planned"}
    shown = [key for key in heads if any(stage.get(key) for stage in status["stages"].values())]
    rows = [
        (name, stage["state"], *(_amount(key, stage.get(key)) for key in shown), stage["reason"])
        for name, stage in status["stages"].items()
    ]
    parts = [format_table(("stage", "state", *(heads[key] for key in shown), "why"), rows)]
    if status["model"]:
        parts.append(format_table(("the model", ""), list(status["model"].items())))
    if models := {model: values for model, values in status["metrics"].items() if values}:
        keys = [*METRICS, *(key for key in OPTIONAL_METRICS if any(key in values for values in models.values()))]
        rows = [
            (model, *("" if values.get(key) is None else f"{values[key]:.3f}" for key in keys))
            for model, values in models.items()
        ]
        parts.append(format_table(("model", *(key.replace("_", " ") for key in keys)), rows))
        if edited := ", ".join(model for model, values in models.items() if values.get("perplexity_note")):
            parts.append(f"edited, not retrained; perplexity from half of the held-out text: {edited}")
        warnings = {model: values.get("fluency_warning") for model, values in models.items()}
        parts.append("\n".join(f"warning, {model}: {warning}" for model, warning in warnings.items() if warning))
    parts.append(status["reliability"])
    parts += [f"warning: {text}" for key in ("selection_warning", "prompts_warning") if (text := status[key])]
    parts += [f"judges disagree: {text}" for text in status["judges_disagree"]]
    if job := status["job"]:
        line = f"job {job['id']} ({' '.join(job['command'])}): {job['state']}"
        ends = {"running": job["stage"], "dead": "run the same command again to continue from what is kept"}
        parts.append(", ".join(filter(None, (line, job["error"], ends.get(job["state"])))))
    parts.append("\n".join(f"waiting: ifguide {' '.join(command)}" for command in status["queue"]))
    return "\n\n".join(filter(None, parts))


def _amount(key: str, value: float | None) -> str:
    from ifguide.storage.durations import format_seconds
    from ifguide.study.planning.plan import size

    if not value:
        return ""
    return size(value) if key.endswith("peak") else format_seconds(value)


def verify(
    name: StudyName,
    share: Annotated[float, Option(min=0, max=1, help="Share of documents scored again, at least 3; 0: none.")] = 0.01,
    seed: Annotated[int, Option(min=0, help="Seed of the choice of documents.")] = 0,
) -> Answer:
    """Check a study's files against its manifests.

    Hashes every artefact again, compares inputs with outputs, and computes some documents' scores again. Ends with exit
    code 2, and a line that names the command to run, when anything is wrong.
    """
    from ifguide.study.analysis.verify import verify_study

    study = open_study(name)
    with follow_run() as progress:
        verification = verify_study(study, share=share, seed=seed, progress=progress)
    problem = StaleError(f"{name}: {verification.problem}") if verification.problem else None
    return Answer(verification.as_json(), _format_verification(verification), problem)


def _format_verification(verification: "Verification") -> str:
    from ifguide.cli.terminal import format_table

    rows = []
    for part in verification.parts:
        sizes = (f"{part.files:,}", f"{part.bytes:,}") if part.files else ("", "")
        seeds = ", ".join(f"{key}={value}" for key, value in (part.seeds or {}).items())
        rows.append((part.artefact, part.state, *sizes, part.digest[:16], seeds, part.why if part.is_wrong else ""))
    blocks = [format_table(("artefact", "state", "files", "bytes", "hash", "seeds", "why"), rows)]
    if verification.agreements:
        agreed = [
            (one.what, f"{one.n_values:,}", f"{one.difference:.2e}", "yes" if one.agrees else "NO")
            for one in verification.agreements
        ]
        blocks.append(format_table(("computed again", "values", "largest relative difference", "agrees"), agreed))
    blocks.append("\n".join([*_made_with(verification), _summary(verification)]))
    return "\n\n".join(blocks)


def _made_with(verification: "Verification") -> list[str]:
    """A line for each set of versions and each machine, with the artefacts made with it."""
    groups: dict[str, list[str]] = {}
    for part in verification.parts:
        if part.versions:
            text = ", ".join(f"{library} {version}" for library, version in part.versions.items())
            machine = ", ".join(f"{value}" for value in (part.machine or {}).values() if value)
            groups.setdefault(f"{text}; on {machine or 'an unknown machine'}", []).append(part.artefact)
    if len(groups) == 1:
        return [f"made with {next(iter(groups))}"]
    return [f"made with {text}: {', '.join(names)}" for text, names in groups.items()]


def _summary(verification: "Verification") -> str:
    states = [part.state for part in verification.parts]
    counts = ", ".join(f"{states.count(s)} {s}" for s in ("whole", "stale", "damaged", "missing") if s in states)
    if not verification.documents:
        return f"{counts}; no scores computed again: {verification.not_rescored}"
    return (
        f"{counts}; {verification.documents:,} documents scored again (seed {verification.seed}), largest relative"
        f" difference {verification.largest_difference:.2e}"
    )


COMMANDS = (status, verify)

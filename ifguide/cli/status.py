"""`ifguide status` and `ifguide list`: which studies there are, and what is up to date."""

import json
from typing import TYPE_CHECKING

from ifguide.cli.options import AsJson, StudyName
from ifguide.cli.running import open_study
from ifguide.errors import IFGuideError, StaleError

if TYPE_CHECKING:
    from ifguide.study.reading import Study

METRICS = ("emt", "tp", "mean_toxicity", "perplexity")
"""The columns of the table; the JSON has every metric."""
OPTIONAL_METRICS = ("implicit_emt", "implicit_tp", "lambada_accuracy")
"""Columns that appear when any model has the metric."""


def status(name: StudyName, as_json: AsJson = False) -> None:
    """Show a study's stages, its models' toxicity, and its last job."""
    found = study_status(open_study(name))
    print(json.dumps(found, indent=1, ensure_ascii=False) if as_json else format_status(found))


def list_studies() -> None:
    """List the studies in the cache."""
    from ifguide.cli.terminal import format_table
    from ifguide.study import folder
    from ifguide.study.freshness import stage_states

    rows = []
    for name in folder.list_studies():
        try:
            study = open_study(name)
            states = [state.state for state in stage_states(study).values()]
            rows.append((name, f"{states.count('fresh')} of {len(states)}", study.config.description))
        except IFGuideError as error:
            rows.append((name, "-", f"cannot be read: {error}"))
    if rows:
        print(format_table(("study", "stages built", "description"), rows))
    else:
        print(f"no studies in {folder.cache_dir()} yet; try `ifguide demo`")


def study_status(study: "Study") -> dict:
    """State of every stage, metrics of every evaluated model, and the last job.

    Returns:
        {"study", "stages": {name: {"state", "seconds", "reason"}}, "metrics": {"base": {...}, "suppressed": {...},
        ...}, "job": {"id", "command", "state", "stage", "error"} or None}.
    """
    from ifguide.study.freshness import stage_states

    stages = {
        name: {"state": state.state, "seconds": state.seconds, "reason": state.reason}
        for name, state in stage_states(study).items()
    }
    return {"study": study.name, "stages": stages, "metrics": study.headline(), "job": _last_job(study)}


def _last_job(study: "Study") -> dict | None:
    from ifguide.runtime.jobs import latest_job
    from ifguide.runtime.progress import describe

    try:
        job = latest_job(study.root)
        found = job.status() if job else None
    except StaleError:
        return None
    if found is None:
        return None
    return {
        "id": found.job,
        "command": list(found.command),
        "state": found.state,
        "stage": describe(found) if found.running else found.stage,
        "error": found.error,
    }


def format_status(status: dict) -> str:
    """The values of `study_status` as short tables."""
    from ifguide.cli.terminal import format_table
    from ifguide.storage.durations import format_seconds

    rows = [
        (name, stage["state"], "" if stage["seconds"] is None else format_seconds(stage["seconds"]), stage["reason"])
        for name, stage in status["stages"].items()
    ]
    parts = [format_table(("stage", "state", "time", "why"), rows)]
    if models := {model: values for model, values in status["metrics"].items() if values}:
        keys = [*METRICS, *(key for key in OPTIONAL_METRICS if any(key in values for values in models.values()))]
        rows = [
            (model, *("" if values.get(key) is None else f"{values[key]:.3f}" for key in keys))
            for model, values in models.items()
        ]
        parts.append(format_table(("model", *(key.replace("_", " ") for key in keys)), rows))
        warnings = {
            model: values["fluency_warning"] for model, values in models.items() if values.get("fluency_warning")
        }
        if warnings:
            parts.append("\n".join(f"warning, {model}: {warning}" for model, warning in warnings.items()))
    if job := status["job"]:
        line = f"job {job['id']} ({' '.join(job['command'])}): {job['state']}"
        more = (job["stage"] if job["state"] == "running" else "", job["error"])
        parts.append(", ".join(filter(None, (line, *more))))
    return "\n\n".join(parts)

"""What a study's stages and measurements look like, as plain values and as a table for a terminal."""

from collections.abc import Sequence

from ifguide.errors import StaleError
from ifguide.jobs import latest_job
from ifguide.progress import Snapshot, describe, format_seconds
from ifguide.study import Study

METRICS = ("emt", "tp", "mean_toxicity", "perplexity")
"""The columns of the table; the JSON holds all of them."""
OPTIONAL_METRICS = ("implicit_emt", "implicit_tp", "lambada_accuracy")
"""Columns that are there when any model has them."""


def study_status(study: Study) -> dict:
    """State of every stage, metrics of every evaluated model, and the last job.

    Returns:
        {"study", "stages": {name: {"state", "seconds", "reason"}}, "metrics": {"base": {...}, "suppressed": {...}, ...},
        "job": {"id", "command", "state", "stage", "error"} or None}.
    """
    stages = {
        name: {"state": state.state, "seconds": state.seconds, "reason": state.reason}
        for name, state in study.states().items()
    }
    return {"study": study.name, "stages": stages, "metrics": study.headline(), "job": _job(study)}


def _job(study: Study) -> dict | None:
    job = latest_job(study.root)
    try:
        status = job.status() if job else None
    except StaleError:
        return None
    if status is None:
        return None
    snapshot = Snapshot(**{name: getattr(status, name) for name in Snapshot.__dataclass_fields__ if name != "state"})
    return {
        "id": status.job,
        "command": list(status.command),
        "state": status.state,
        "stage": describe(snapshot) if status.running else status.stage,
        "error": status.error,
    }


def format_status(status: dict) -> str:
    """The values of `study_status` as text of a few short tables."""
    rows = [
        (name, stage["state"], "" if stage["seconds"] is None else format_seconds(stage["seconds"]), stage["reason"])
        for name, stage in status["stages"].items()
    ]
    parts = [format_table(("stage", "state", "time", "why"), rows)]
    if status["metrics"]:
        models = {model: values for model, values in status["metrics"].items() if values}
        keys = [*METRICS, *(key for key in OPTIONAL_METRICS if any(key in values for values in models.values()))]
        rows = [
            (model, *("" if values.get(key) is None else f"{values[key]:.3f}" for key in keys))
            for model, values in models.items()
        ]
        parts.append(format_table(("model", *(key.replace("_", " ") for key in keys)), rows))
        warnings = {model: values.get("fluency_warning") for model, values in models.items()}
        if said := [f"warning, {model}: {warning}" for model, warning in warnings.items() if warning]:
            parts.append("\n".join(said))
    if job := status["job"]:
        line = f"job {job['id']} ({' '.join(job['command'])}): {job['state']}"
        for more in (job["stage"] if job["state"] == "running" else "", job["error"]):
            line += f", {more}" if more else ""
        parts.append(line)
    return "\n\n".join(parts)


def format_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, aligned on the left, two spaces apart."""
    lines = [tuple(heads), *(tuple(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )

"""`ifguide status` and `ifguide list`: what is there, and how fresh it is."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ifguide.cli.options import StudyName
from ifguide.errors import IFGuideError, StaleError
from ifguide.runtime.jobs import latest_job
from ifguide.runtime.progress import Snapshot, describe
from ifguide.storage.durations import format_seconds

if TYPE_CHECKING:
    from ifguide.study.reading import Study


def add_commands(app: typer.Typer) -> None:
    """Add `status` and `list` to the command line."""

    @app.command()
    def status(
        name: StudyName, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
    ) -> None:
        """Show which stages are up to date, how toxic each model is, and how the last job goes."""
        from ifguide.study.reading import Study

        found = study_status(Study.open(name))
        print(json.dumps(found, indent=1, ensure_ascii=False) if as_json else format_status(found))

    @app.command("list")
    def list_all() -> None:
        """List the studies in the cache."""
        from ifguide.study.folder import cache_dir, list_studies
        from ifguide.study.freshness import stage_states
        from ifguide.study.reading import Study

        rows = []
        for name in list_studies():
            try:
                study = Study.open(name)
                states = stage_states(study)
                fresh = sum(state.state == "fresh" for state in states.values())
                rows.append((name, f"{fresh} of {len(states)}", study.config.description))
            except IFGuideError as error:
                rows.append((name, "-", f"cannot be read: {error}"))
        print(
            format_table(("study", "stages built", "what it is"), rows)
            if rows
            else f"no studies in {cache_dir()} yet; try `ifguide demo`"
        )


METRICS = ("emt", "tp", "mean_toxicity", "perplexity")
"""The columns of the table; the JSON holds all of them."""
OPTIONAL_METRICS = ("implicit_emt", "implicit_tp", "lambada_accuracy")
"""Columns that are there when any model has them."""


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
    return {"study": study.name, "stages": stages, "metrics": study.headline(), "job": _job(study)}


def _job(study: "Study") -> dict | None:
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

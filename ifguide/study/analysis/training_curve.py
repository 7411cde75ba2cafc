"""Training losses from the logs of finished models and of the one in training. No torch."""

import json
from dataclasses import dataclass
from pathlib import Path

from ifguide.config.names import BASE
from ifguide.storage.artifacts import TRAINING_LOG
from ifguide.storage.work import work_folders
from ifguide.study.lineage import Unit, weights_unit
from ifguide.study.reading import Study


@dataclass(frozen=True, kw_only=True)
class TrainingCurve:
    """One training so far. Lists have an entry a line of the log; a line holds means since the line before it."""

    steps: list[int]
    selected: list[float | None]
    """Cross-entropy of selected tokens in nats, neither weighted nor bounded; None where a stretch had none."""
    other: list[float | None]
    """Cross-entropy of all other tokens in nats."""
    tokens_per_second: float
    """At the last line."""
    finished: bool
    """Whether the training has ended."""


def find_logs(study: Study) -> dict[str, Path]:
    """The log file of each training, by the model's name: `base`, then selections and variants."""
    logs = {name: study.folder(weights_unit(name)) / TRAINING_LOG for name in (BASE, *study.suppressed_names())}
    logs = {name: path for name, path in logs.items() if path.is_file()}
    for stage, folder in work_folders(study.root).items():  # a training in progress replaces the finished one
        name = BASE if stage == "model" else stage.partition("-")[2]
        if (stage == "model" or stage.startswith("suppress-")) and (folder / TRAINING_LOG).is_file():
            logs.pop(name, None)  # and comes last
            logs[name] = folder / TRAINING_LOG
    return logs


def read_curve(study: Study, name: str) -> TrainingCurve | None:
    """The curve of one model, or None when there is no log of it. A line that is being written is left out."""
    path = find_logs(study).get(name)
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:  # it has just ended, and the log has moved
        path = find_logs(study).get(name)
        text = path.read_text(encoding="utf-8") if path else ""
    rows = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    finished = (study.folder(Unit("model")), study.folder(Unit("suppress", name)))
    return TrainingCurve(
        steps=[row["step"] for row in rows],
        selected=[row["loss_selected"] for row in rows],
        other=[row["loss_other"] for row in rows],
        tokens_per_second=rows[-1]["tokens_per_second"] if rows else 0.0,
        finished=path is not None and path.parent in finished,
    )

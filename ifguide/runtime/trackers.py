"""Experiment trackers: the lines of a training log and the figures of an evaluation, sent to the one that
`training.report_to` names, through accelerate's clients. Off by default."""

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ifguide.errors import InputError
from ifguide.runtime.distributed import current

FOLDER = "tensorboard"
"""Folder of a study with what TensorBoard shows."""
_TABLE_ROWS = 2_000
"""Most completions in a table."""


class Tracker:
    """A run of a project; `log` and `log_table` do nothing where there is no tracker."""

    def __init__(self, client: Any = None):
        self._client = client

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Numbers by name; what is none is left out."""
        if self._client is not None:
            self._client.log({key: float(v) for key, v in values.items() if isinstance(v, int | float)}, step=step)

    def log_table(self, name: str, table) -> None:
        """The first rows of a pandas table, where the tracker shows tables as plain text: W&B and trackio."""
        kind, rows = getattr(self._client, "name", ""), table.head(_TABLE_ROWS)
        if kind == "wandb":
            self._client.log_table(name, dataframe=rows)
        elif kind == "trackio":
            import trackio

            self._client.log({name: trackio.Table(dataframe=rows)})


NO_TRACKER = Tracker()


def check_tracker(kind: str) -> None:
    """An InputError: the package of a tracker is not installed."""
    if kind and importlib.util.find_spec(kind) is None:
        message = f"training.report_to: {kind} is not installed; run: pip install {kind}, or set it to an empty text"
        raise InputError(message)


@contextlib.contextmanager
def open_tracker(kind: str, root: Path, run: str, settings: Mapping[str, Any]) -> Iterator[Tracker]:
    """A run of the project named after the study's folder `root`, in the main process; ended when the block ends.

    Args:
        kind: `trackio`, `wandb`, `tensorboard`, or empty for none.
        run: its name.
        settings: shown beside it: numbers, texts and truth values by name.

    Raises:
        InputError: its package is not installed.
    """
    check_tracker(kind)
    if not kind or not current().is_main:
        yield NO_TRACKER
        return
    from accelerate import PartialState, tracking

    PartialState()  # which the clients ask whether this is the main process
    if kind == "tensorboard":
        client: Any = tracking.TensorBoardTracker(run, root / FOLDER)
    else:
        client = (tracking.WandBTracker if kind == "wandb" else tracking.TrackioTracker)(root.name, name=run)
    client.start()
    try:
        plain = {key: value for key, value in settings.items() if isinstance(value, bool | int | float | str)}
        client.store_init_configuration(plain)
        yield Tracker(client)
    finally:
        client.finish()

"""How a long run reports its progress: one `Progress`, and the sinks that show it.

A file sink keeps a small JSON file that other processes read; `ifguide.cli.terminal` has the sink for a terminal.
Rates are smoothed over a few seconds, so that the time left neither jumps nor lags.
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ifguide.storage.artifacts import write_json
from ifguide.storage.durations import format_seconds

SMOOTHING_SECONDS = 5.0
"""Half-life of the smoothed rate."""
UPDATES_PER_SECOND = 4.0
"""Most updates of the sinks between the ends of stages."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The progress of a run at one moment."""

    state: str = "running"
    """`running`, `done`, `failed` or `cancelled`."""
    stage: str = ""
    """The running stage, or the last one."""
    stage_index: int = 0
    """Its number, counted from 0."""
    n_stages: int = 0
    """Number of stages."""
    part: int = 0
    """Number of the artefact among those of this stage, counted from 0."""
    n_parts: int = 1
    """Artefacts of this stage."""
    done: int = 0
    """Units finished in this stage."""
    total: int = 0
    """Units in this stage; 0: unknown."""
    unit: str = ""
    """What is counted, such as `tokens`."""
    rate: float | None = None
    """Smoothed units a second; None until it can be measured."""
    seconds_left: float | None = None
    """Expected seconds to the end of this stage."""
    message: str = ""
    """The last message of the run."""
    error: str = ""
    """Why the run failed."""


class Sink:
    """Something that shows snapshots. A sink that only needs the latest one overrides `update` alone."""

    def update(self, snapshot: Snapshot) -> None:
        """Show the progress."""
        raise NotImplementedError

    def end_stage(self, snapshot: Snapshot, seconds: float) -> None:
        """Show that a stage has ended after this many seconds."""
        self.update(snapshot)

    def say(self, text: str) -> None:
        """Show a message for good; it is also in the next snapshot."""

    def close(self, snapshot: Snapshot) -> None:
        """Show the end of the run."""
        self.update(snapshot)


class Progress:
    """Takes reports from a run, measures its speed, and sends snapshots to the sinks.

    `report` may be called often: the sinks are updated a few times a second. `clock` is monotonic, in seconds.
    """

    def __init__(self, sinks: Sequence[Sink] = (), *, clock: Callable[[], float] = time.monotonic):
        self._sinks, self._clock = sinks, clock
        self._told = -math.inf
        self._mark: tuple[float, int] | None = None
        self.snapshot = Snapshot()

    def begin_stage(self, name: str, index: int, n_stages: int, part: int = 0, n_parts: int = 1) -> None:
        """A stage begins, or a part of it; `index` and `part` count from 0."""
        self._mark = None
        self.snapshot = Snapshot(stage=name, stage_index=index, n_stages=n_stages, part=part, n_parts=n_parts)
        self._tell(force=True)

    def report(self, done: int, total: int, unit: str = "tokens") -> None:
        """`done` of `total` units of this stage are finished."""
        now = self._clock()
        rate = self.snapshot.rate
        if self._mark is None or done < self._mark[1] or unit != self.snapshot.unit:
            self._mark, rate = (now, done), None
        elif (passed := now - self._mark[0]) >= 1 / UPDATES_PER_SECOND and done > self._mark[1]:
            current = (done - self._mark[1]) / passed
            keep = 0.5 ** (passed / SMOOTHING_SECONDS)
            rate = current if rate is None else keep * rate + (1 - keep) * current
            self._mark = (now, done)
        left = max(total - done, 0) / rate if rate and total else None
        self._change(done=int(done), total=int(total), unit=unit, rate=rate, seconds_left=left)
        self._tell()

    def end_stage(self, seconds: float) -> None:
        """The current stage has finished after this many seconds."""
        self._change(done=self.snapshot.total or self.snapshot.done, seconds_left=0.0)
        self._tell(force=True)
        for sink in self._sinks:
            sink.end_stage(self.snapshot, seconds)

    def message(self, text: str) -> None:
        """Show one line to the user."""
        self._change(message=text)
        for sink in self._sinks:
            sink.say(text)
        self._tell(force=True)

    def close(self, state: str, error: str = "") -> None:
        """The run has ended: `done`, `failed` or `cancelled`."""
        self._change(state=state, error=error, seconds_left=None)
        for sink in self._sinks:
            sink.close(self.snapshot)

    def _change(self, **values) -> None:
        self.snapshot = replace(self.snapshot, **values)

    def _tell(self, force: bool = False) -> None:
        now = self._clock()
        if force or now - self._told >= 1 / UPDATES_PER_SECOND:
            self._told = now
            for sink in self._sinks:
                sink.update(self.snapshot)


class FileSink(Sink):
    """Keeps the run's status in a JSON file, replaced as a whole each time: the snapshot's fields and `identity`."""

    def __init__(self, path: Path, identity: dict):
        self._path, self._identity = path, identity
        self.update(Snapshot())

    def update(self, snapshot: Snapshot) -> None:
        with contextlib.suppress(OSError):  # a full disk stops the work itself, not its progress report
            write_json(self._path, {**self._identity, **asdict(snapshot), "updated": time.time()})


def describe(snapshot: Snapshot) -> str:
    """One line, such as `[3/10] scores  41%  12,000/29,000 tokens  3,100 tokens/s  5 s left`."""
    return "  ".join([stage_title(snapshot), *numbers(snapshot)])


def stage_title(snapshot: Snapshot) -> str:
    """The stage with its number, such as `[3/10] scores`."""
    count = f"[{snapshot.stage_index + 1}/{snapshot.n_stages}] " if snapshot.n_stages else ""
    return count + snapshot.stage


def numbers(snapshot: Snapshot) -> list[str]:
    """Share, units, rate and time left, as far as they are known."""
    parts, unit = [], snapshot.unit
    if snapshot.total:
        parts += [f"{snapshot.done / snapshot.total:.0%}", f"{snapshot.done:,}/{snapshot.total:,} {unit}".rstrip()]
    if snapshot.rate:
        parts += [f"{snapshot.rate:,.{0 if snapshot.rate >= 10 else 2}f} {unit}/s"]
    if snapshot.seconds_left is not None and snapshot.done < snapshot.total:
        parts += [f"{format_seconds(snapshot.seconds_left)} left"]
    return parts


def report_part(
    progress: Progress, unit: str = "tokens", *, part: int = 0, parts: int = 1
) -> Callable[[int, int], None]:
    """A callback (done, total) that reports progress in part `part`, from 0, of `parts` equal parts of a stage."""
    return lambda done, total: progress.report(part * total + done, parts * total, unit)

"""How a long run tells how far it is: one `Progress`, and the sinks that show it.

A terminal sink rewrites one line; a file sink keeps a small JSON file that other processes read. Rates are smoothed
over a few seconds, so that the time left neither jumps nor lags.
"""

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TextIO

from ifguide.storage.artifacts import write_json
from ifguide.storage.durations import format_seconds

SMOOTHING_SECONDS = 5.0
"""A change in speed is half forgotten after about this long."""
UPDATES_PER_SECOND = 4.0
"""Sinks are told at most this often between the ends of stages."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Where a run is at one moment."""

    state: str = "running"
    """`running`, `done`, `failed` or `cancelled`."""
    stage: str = ""
    """The stage at work, or the last one."""
    stage_index: int = 0
    """Its number, counted from 0."""
    n_stages: int = 0
    """How many stages this run has."""
    done: int = 0
    """Units finished in this stage."""
    total: int = 0
    """Units of this stage; 0: not known yet."""
    unit: str = ""
    """What is counted, such as `tokens`."""
    rate: float | None = None
    """Smoothed units a second; None until it can be measured."""
    seconds_left: float | None = None
    """Expected seconds to the end of this stage."""
    message: str = ""
    """The last thing the run had to say."""
    error: str = ""
    """Why it failed."""


class Sink(Protocol):
    """Something that shows snapshots."""

    def update(self, snapshot: Snapshot) -> None:
        """Show where the run is."""

    def end_stage(self, snapshot: Snapshot, seconds: float) -> None:
        """A stage has ended after so many seconds."""

    def say(self, text: str) -> None:
        """Show a message that should not be overwritten."""

    def close(self, snapshot: Snapshot) -> None:
        """Show the end of the run."""


class Progress:
    """Collects what a run reports, measures its speed, and hands snapshots to the sinks.

    Args:
        sinks: where to show it; none is fine.
        clock: seconds that only go forward.

    `report` may be called as often as one likes: sinks are told a few times a second.
    """

    def __init__(self, sinks: Sequence[Sink] = (), *, clock: Callable[[], float] = time.monotonic):
        self._sinks = tuple(sinks)
        self._clock = clock
        self._told = -math.inf
        self._mark: tuple[float, int] | None = None
        self.snapshot = Snapshot()

    def begin_stage(self, name: str, index: int, n_stages: int) -> None:
        """A stage begins; `index` counts from 0."""
        self._mark = None
        self.snapshot = Snapshot(stage=name, stage_index=index, n_stages=n_stages)
        self._tell(force=True)

    def report(self, done: int, total: int, unit: str = "tokens") -> None:
        """So many of `total` units of this stage are finished."""
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
        """The stage that began last is finished, after so many seconds."""
        self._change(done=self.snapshot.total or self.snapshot.done, seconds_left=0.0)
        self._tell(force=True)
        for sink in self._sinks:
            sink.end_stage(self.snapshot, seconds)

    def message(self, text: str) -> None:
        """Say one line to the person who waits."""
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
        self.snapshot = Snapshot(**(asdict(self.snapshot) | values))

    def _tell(self, force: bool = False) -> None:
        now = self._clock()
        if force or now - self._told >= 1 / UPDATES_PER_SECOND:
            self._told = now
            for sink in self._sinks:
                sink.update(self.snapshot)


class TerminalSink:
    """Shows progress to a person: one rewritten line on a terminal, a plain line per finished stage elsewhere."""

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._width = 0

    def update(self, snapshot: Snapshot) -> None:
        if self._live:
            self._rewrite(describe(snapshot))

    def end_stage(self, snapshot: Snapshot, seconds: float) -> None:
        done = f", {snapshot.done:,} {snapshot.unit}" if snapshot.done else ""
        self._line(f"{_stage(snapshot)}: {format_seconds(seconds)}{done}")

    def say(self, text: str) -> None:
        self._line(text)

    def close(self, snapshot: Snapshot) -> None:
        if self._live:
            self._rewrite("")
            self._write("\r")

    def _line(self, text: str) -> None:
        if self._live:
            self._rewrite(text)
            self._width = 0
            self._write("\n")
        else:
            self._write(f"{text}\n")

    def _rewrite(self, text: str) -> None:
        columns = _columns(self._stream)
        text = text[: columns - 1]
        self._write("\r" + text.ljust(min(self._width, columns - 1)))
        self._width = len(text)

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a closed terminal must not stop a long run
            self._stream.write(text)
            self._stream.flush()


class FileSink:
    """Keeps the run's status in a JSON file, replaced whole each time.

    Args:
        path: the file; its folder must be there.
        identity: fields that stay the same, such as the process id; written beside the snapshot's.
    """

    def __init__(self, path: Path, identity: dict):
        self._path = path
        self._identity = identity
        self._write(Snapshot())

    def update(self, snapshot: Snapshot) -> None:
        self._write(snapshot)

    def end_stage(self, snapshot: Snapshot, seconds: float) -> None:
        self._write(snapshot)

    def say(self, text: str) -> None:
        pass  # the message is part of every snapshot

    def close(self, snapshot: Snapshot) -> None:
        self._write(snapshot)

    def _write(self, snapshot: Snapshot) -> None:
        with contextlib.suppress(OSError):  # a full disk shows itself in the work, not in its progress
            write_json(self._path, {**self._identity, **asdict(snapshot), "updated": time.time()})


def describe(snapshot: Snapshot) -> str:
    """One line for people, such as `[3/10] scores  41%  12,000/29,000 tokens  3,100 tokens/s  5 s left`."""
    parts = [_stage(snapshot)]
    if snapshot.total:
        parts.append(f"{snapshot.done / snapshot.total:.0%}")
        parts.append(f"{snapshot.done:,}/{snapshot.total:,} {snapshot.unit}".rstrip())
    if snapshot.rate:
        digits = 0 if snapshot.rate >= 10 else 2
        parts.append(f"{snapshot.rate:,.{digits}f} {snapshot.unit}/s")
    if snapshot.seconds_left is not None and snapshot.total and snapshot.done < snapshot.total:
        parts.append(f"{format_seconds(snapshot.seconds_left)} left")
    return "  ".join(parts)


def _stage(snapshot: Snapshot) -> str:
    if not snapshot.n_stages:
        return snapshot.stage
    return f"[{snapshot.stage_index + 1}/{snapshot.n_stages}] {snapshot.stage}"


def _columns(stream: TextIO) -> int:
    try:
        return max(os.get_terminal_size(stream.fileno()).columns, 20)
    except (OSError, ValueError, AttributeError):
        return 100


def report_part(
    progress: Progress, unit: str = "tokens", *, part: int = 0, parts: int = 1
) -> Callable[[int, int], None]:
    """A callback (done, total) that reports part `part` of `parts` equal parts of a stage."""
    return lambda done, total: progress.report(part * total + done, parts * total, unit)

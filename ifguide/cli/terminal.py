"""What people see of a command: progress while it runs, and tables. Rich draws both, and is imported when needed.

Control characters in text from files are escaped, so that it cannot control the terminal.
"""

import contextlib
import sys
from collections.abc import Sequence
from typing import TextIO, cast

from ifguide.runtime.progress import Sink, Snapshot, numbers, stage_title
from ifguide.storage.durations import format_seconds


def printable(text: str) -> str:
    """The text with every character that is not printable, including line ends, written as an escape."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def format_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns. Long cells wrap to fit a terminal; in a pipe every row is one line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(Text(printable(head)))
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    is_terminal = sys.stdout.isatty()
    console = Console(force_terminal=is_terminal, width=None if is_terminal else 10_000)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


class TerminalSink(Sink):
    """Shows progress on a stream, standard error unless given: a bar on a terminal, and a plain line for each finished
    stage and each message everywhere."""

    def __init__(self, stream: TextIO | None = None):
        self._stream = cast(TextIO, _Forgiving(stream or sys.stderr))
        self._bar = None
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(24),
                TextColumn("{task.fields[numbers]}", markup=False),
                console=Console(file=self._stream, force_terminal=True),
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,  # what a command prints must reach a pipe
            )
            self._task = self._bar.add_task("", numbers="")

    def update(self, snapshot: Snapshot) -> None:
        if self._bar:
            self._bar.start()
            title, done, total = printable(stage_title(snapshot)), snapshot.done, snapshot.total or None
            shown = printable("  ".join(numbers(snapshot)))
            self._bar.update(self._task, description=title, completed=done, total=total, numbers=shown, refresh=True)

    def end_stage(self, snapshot: Snapshot, seconds: float) -> None:
        done = f", {snapshot.done:,} {snapshot.unit}" if snapshot.done else ""
        self.say(f"{stage_title(snapshot)}: {format_seconds(seconds)}{done}")

    def say(self, text: str) -> None:
        if self._bar:
            self._bar.console.print(printable(text), soft_wrap=True, markup=False, highlight=False, emoji=False)
        else:
            self._stream.write(f"{printable(text)}\n")
            self._stream.flush()

    def close(self, snapshot: Snapshot) -> None:
        if self._bar:
            self._bar.stop()


class _Forgiving:
    """A stream that ignores errors of writing, so that a closed terminal does not stop a long run."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

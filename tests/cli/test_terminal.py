"""What a person sees: progress and tables, on terminals of every width and in pipes."""

import io
import re

from ifguide.cli.terminal import TerminalSink, format_table
from ifguide.runtime.progress import Progress, Snapshot

HOSTILE = "\x1b]0;title\x07\x1b[2J\u202e[bold]:smile:\r\n"
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(stream) -> str:
    """What a short run with hostile names and messages writes."""
    progress = Progress([TerminalSink(stream)])
    progress.begin_stage("corpus", 0, 2)
    progress.report(5, 10, "documents")
    progress.message(f"hello {HOSTILE}")
    progress.end_stage(1.25)
    progress.begin_stage(HOSTILE, 1, 2)
    progress.close("done")
    return stream.getvalue()


def test_without_a_terminal_only_ends_of_stages_and_messages_are_printed():
    shown = r"\x1b]0;title\x07\x1b[2J\u202e[bold]:smile:\r\n"
    assert run(io.StringIO()) == f"hello {shown}\n[1/2] corpus: 1.2 s, 10 documents\n"


def test_a_terminal_of_any_width_shows_one_bar_and_whole_lines_and_obeys_no_text(monkeypatch):
    for columns in (20, 40, 80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        written = run(Terminal())
        assert "\x1b]" not in written and "\x1b[2J" not in written and "\u202e" not in written, columns
        assert written.endswith("\x1b[?25h\r\x1b[1A\x1b[2K"), "the cursor is back and the bar gone"
        said, *frames = re.split(r"[\r\n]+", CODES.sub("", written))
        assert "[1/2] corpus: 1.2 s, 10 documents" in frames, columns
        messages = [frame for frame in frames if frame.startswith("hello ")]
        assert messages == [r"hello \x1b]0;title\x07\x1b[2J\u202e[bold]:smile:\r\n"], columns
        others = [said, *(f for f in frames if f not in messages and "1.2 s" not in f)]
        assert max(map(len, others)) <= columns
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    TerminalSink(stream).update(Snapshot(stage="scores", n_stages=2, done=250, total=1000, rate=50, seconds_left=15))
    bar = CODES.sub("", stream.getvalue()).split("\r")[-1]
    assert bar.startswith("[1/2] scores ━━━━━") and bar.endswith(" 25%  250/1,000  50 /s  15 s left")


def test_a_closed_terminal_stops_no_run():
    class Closed(Terminal):
        def write(self, text):
            raise OSError(5, "Input/output error")

    run(Closed())
    stream = Terminal()
    stream.close()
    stream.isatty = lambda: True
    Progress([TerminalSink(stream)]).message("still running")


def test_a_table_is_plain_lines_in_a_pipe_and_fits_a_terminal(monkeypatch):
    rows = [("small", "a long description " * 12), (HOSTILE, "[red]x[/red]")]
    monkeypatch.setattr("sys.stdout", io.StringIO())
    first, *lines = format_table(("study", "[b]description[/b]"), rows).splitlines()
    assert first.split() == ["study", "[b]description[/b]"]
    place = first.index("[b]")
    assert [line[place:] for line in lines] == [rows[0][1].rstrip(), "[red]x[/red]"]
    assert lines[1].startswith(r"\x1b]0;title") and not CODES.search("".join(lines))
    monkeypatch.setattr("sys.stdout", Terminal())
    for columns in (30, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        table = format_table(("study", "description"), rows)
        assert "\x1b]" not in table
        assert max(map(len, CODES.sub("", table).splitlines())) <= columns

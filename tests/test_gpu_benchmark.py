"""The command for the day with a card: what it plans, that it goes on, and that a failure stops nothing else."""

import argparse
import importlib
import json
import re
import sys

import pytest

from benchmarks import gpu
from benchmarks.gpu import Part, plan, print_rates, run_parts, table


def options(**given):
    return argparse.Namespace(**{"tiny": False, "data": None, "only": [], **given})


def part(name, code, seconds=60.0):
    return Part(name=name, page="page.md", seconds=seconds, command=("-c", code))


def test_parts_are_kept_and_gone_on_with_and_a_failure_stops_nothing_else(tmp_path, capsys):
    out, ran = tmp_path / "gpu.json", tmp_path / "ran"
    log = f"open({str(ran)!r}, 'a').write('x'); "
    child = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    parts = [
        part("good", log + "print('| 7 |')"),
        part("bad", "print('before'); raise ValueError('no such kernel')"),
        part("slow", child + "print('so far', flush=True); time.sleep(60)", seconds=3),
        part("last", "print('| 9 |')"),
    ]
    notes = run_parts(parts, 600, out)
    assert [notes[p.name]["state"] for p in parts] == ["done", "failed", "stopped", "done"]
    assert notes["bad"]["error"] == "ValueError: no such kernel" and notes["bad"]["output"] == "before\n"
    assert notes["slow"]["output"] == "so far\n" and 3 <= notes["slow"]["seconds"] < 30
    assert json.loads(out.read_text()) == notes
    shown = table(parts, notes)
    assert "| bad | page.md | failed |" in shown and "## last\n\n| 9 |" in shown
    repaired = [parts[0], part("bad", "print('now')"), parts[3]]
    again = run_parts(repaired, 600, out)
    assert again["bad"]["output"] == "now\n" and {note["state"] for note in again.values()} == {"done"}
    assert ran.read_text() == "x"  # what was done was not run again
    assert json.loads(out.read_text())["slow"]["state"] == "stopped"
    assert "good: done before" in capsys.readouterr().out
    changed = run_parts([part("good", log + "print('| 8 |')")], 600, out)
    assert changed["good"]["output"] == "| 8 |\n"


def test_without_time_nothing_is_started(tmp_path):
    notes = run_parts([part("one", "print(1)")], 1, tmp_path / "gpu.json")
    assert notes["one"]["state"] == "not started" and not (tmp_path / "gpu.json").exists()


class Parsed(Exception):
    """The arguments were understood."""


def test_every_planned_command_is_one_that_the_benchmarks_know(monkeypatch, tmp_path):
    real = argparse.ArgumentParser.parse_args

    def parse(parser, *arguments):
        raise Parsed(real(parser, *arguments))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(gpu, "find_spec", lambda name: True)
    names = []
    for tiny in (True, False):
        parts = plan(options(tiny=tiny, data=tmp_path))
        names.append([one.name for one in parts])
        for one in parts:
            if one.command == ("-m", "ifguide", "demo"):
                continue
            monkeypatch.setattr(sys, "argv", [one.command[1], *one.command[2:]])
            with pytest.raises(Parsed) as parsed:
                importlib.import_module(one.command[1]).main()
            device = getattr(parsed.value.args[0], "device", "")
            assert device in ("", "cpu" if tiny else "cuda")
    assert names[0] == names[1]
    assert names[0].index("demo") < names[0].index("exactness") < names[0].index("bergson")
    with pytest.raises(SystemExit, match="expected some of"):
        plan(options(only=["no such part"]))
    assert [one.name for one in plan(options(only=["engine"]))] == ["engine"]


def test_rates_of_a_tiny_model(capsys):
    print_rates("cpu", tiny=True)
    printed = capsys.readouterr().out
    rows = re.findall(r"^\| (training|completions).* \| (float32|bfloat16) \| ([\d,]+) \|$", printed, re.M)
    assert [row[:2] for row in rows] == [
        (what, dtype) for what in ("training", "completions") for dtype in ("float32", "bfloat16")
    ]
    assert all(int(row[2].replace(",", "")) > 0 for row in rows)
    assert re.findall(r"^\| (one by one|together) \| (\d+) \| [\d.]+ \|$", printed, re.M) == [
        (how, side) for side in ("64", "128") for how in ("one by one", "together")
    ]

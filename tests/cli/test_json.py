"""`--json` of every command: one object with the keys that docs/scripts.md promises."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.config.schema import SuppressConfig
from ifguide.runtime import jobs
from ifguide.study.pipeline import run_study
from ifguide.study.reading import Study
from tests import warm
from tests.evaluation.test_judges import write_labelled
from tests.study.test_peer_scores import write_bergson
from tests.tiny_study import DOCUMENTS, save_tiny_model, tiny_config, write_tiny_inputs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scripts.md"
SPEAKING_OTHERWISE = {"app", "completions", "mcp"}
"""Commands that print no answer."""


def promised() -> dict[str, set[str]]:
    """The keys of each command in the table."""
    rows = re.findall(r"^\| (`[^|]+`) \| (`[^|]+) \|$", PAGE.read_text(encoding="utf-8"), flags=re.M)
    found = {}
    for commands, keys in rows:
        for command in re.findall(r"`([^`]+)`", commands):
            found[command] = set(re.findall(r"`([^`]+)`", keys.split(":")[0]))
    return found


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    write_tiny_inputs(cache / "inputs")
    save_tiny_model("gpt_neox", cache / "inputs" / "model")
    rows = [json.loads(line) | {"bad": n % 3 == 0} for n, line in enumerate((cache / "inputs/corpus.jsonl").open())]
    (cache / "inputs/corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    study = Study.create("tiny", tiny_config(cache / "inputs", "selection.controls=[]"), cache)
    run_study(study)
    shutil.copytree(study.root, cache / "twin")
    return cache


@pytest.fixture
def ask(cache, monkeypatch):
    """Runs a command with --json and returns the object."""
    monkeypatch.setenv("IFGUIDE_CACHE", str(cache))

    def run(*arguments):
        result = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
        assert result.exit_code == 0, result.output

        def refuse(constant: str):
            raise AssertionError(f"{constant} is no JSON")

        return json.loads(result.stdout, parse_constant=refuse)

    return run


def test_every_command_has_the_option_and_a_row_in_the_table():
    commands = typer.main.get_group(app).commands
    for name, command in commands.items():
        has = any("--json" in option.opts for option in command.params)
        assert has != (name in SPEAKING_OTHERWISE), name
    assert {command.split()[0] for command in promised()} == commands.keys() - SPEAKING_OTHERWISE


@pytest.mark.slow
def test_answers_have_the_promised_keys(ask, cache, tmp_path):
    inputs, keys = cache / "inputs", promised()
    given = [f"--{kind}={inputs / f'{kind}.jsonl'}" for kind in ("toxic", "safe")]
    rows = write_labelled(tmp_path / "rows.jsonl")
    theirs = write_bergson(tmp_path / "theirs", [[[n]] for n in range(len(DOCUMENTS))], by_token=False)
    given_corpus = ["--corpus", inputs / "corpus.jsonl"]
    asked = {
        "run": ["tiny"],
        "status": ["tiny"],
        "evaluate": ["tiny"],
        "suppress": ["tiny"],
        "edit": ["tiny", "--perplexity", "2%"],
        "adapter": ["tiny", "default-edited", "--out", tmp_path / "adapter"],
        "sweep": ["tiny", "--points", 1, "--from", 9, "--to", 9],
        "compare": ["tiny", "--with", "masked"],
        "rows": [inputs / "corpus.jsonl"],
        "new": ["other", "--model", inputs / "model", "--corpus", inputs / "corpus.jsonl", *given],
        "open-scores": [theirs, *given_corpus, "--tokenizer", inputs / "model", "--name", "theirs"],
        "plan": ["tiny"],
        "score": ["tiny", "--task", 0, "--tasks", 2],
        "settings": ["suppress"],
        "verify": ["tiny"],
        "list": [],
        "duplicate": ["tiny", "copy"],
        "rename": ["copy", "moved"],
        "delete": ["moved", "--yes"],
        "select": ["tiny", "--share", 10, "--name", "mine"],
        "borrow": ["twin", "--from", "tiny", "--selection", "mine", "--name", "borrowed"],
        "documents": ["tiny"],
        "documents --where": ["tiny", "--where", "rank <= 3"],
        "documents --read": ["tiny", "--read", "d02"],
        "export": ["tiny", "--what", "spans", "--out", tmp_path / "spans.jsonl"],
        "trace": ["tiny", "--prompt", "You are", "--completion", " a fool", "--save", "traced", "--documents", 2],
        "index-gradients": ["tiny", "--dimensions", 50],
        "explain": ["tiny"],
        "explain --document": ["tiny", "--document", "d02"],
        "explain --top": ["tiny", "--top", 1],
        "map": ["tiny"],
        "mechanism": ["tiny", "--no-search"],
        "rank": ["tiny", "--labels", "bad"],
        "reliability": ["tiny"],
        "audit": ["tiny"],
        "judge": ["tiny", "--with", "profanity-check"],
        "judge fit": ["fit", rows, "--labels", "bad", "--out", tmp_path / "judge"],
        "report": ["tiny", "--out", tmp_path / "report.html"],
        "pack": ["tiny", "--out", tmp_path / "tiny.ifguide"],
    }
    found = {command: set(ask(command.split()[0], *arguments)) for command, arguments in asked.items()}
    settings = {f"suppress.{field.name}" for field in dataclasses.fields(SuppressConfig)}
    assert found == {command: keys[command] for command in asked if command != "settings"} | {"settings": settings}
    assert ask("run", "tiny")["metrics"]["suppressed"]["emt"] == Study.open("tiny", cache).metrics("default")["emt"]
    assert set(ask("settings", "--presets")["quick"]) == {"note", "settings", "finetune"}
    assert {"cancel", "demo", "suggest", "push", "pull"} == {one.split()[0] for one in keys} - {
        one.split()[0] for one in asked
    }


def test_what_needs_a_job_or_a_source_has_its_keys_as_well(ask, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "subprocess", warm)
    pairs = "".join(
        json.dumps({"text": f"{word} number {n} is {'a fool' if n % 2 else 'kind'} today", "label": n % 2}) + "\n"
        for n, word in enumerate(["The dog", "The fox", "A bird", "The cat"] * 6)
    )
    (tmp_path / "labelled.jsonl").write_text(pairs, encoding="utf-8")
    found = ask("suggest", "--from", tmp_path / "labelled.jsonl", "--out", tmp_path / "queries")
    assert set(found) == promised()["suggest"]
    started = ask("run", "tiny", "--background")
    assert set(started) == promised()["run --background"]
    while ask("status", "tiny")["job"]["state"] == "running":
        pass
    assert ask("status", "tiny")["job"]["state"] == "done"


def test_an_error_leaves_standard_output_empty(cache):
    command = [sys.executable, "-m", "ifguide", "status", "nothing", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and not done.stdout and done.stderr.startswith("error: ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completions_are_a_script_for_the_shell(shell):
    result = CliRunner().invoke(app, ["completions", shell], catch_exceptions=False)
    assert "_IFGUIDE_COMPLETE" in result.output and "ifguide" in result.output


def test_a_shell_is_told_the_commands():
    environment = {"_IFGUIDE_COMPLETE": "complete_bash", "COMP_WORDS": "ifguide re", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['ifguide']; from ifguide.cli.main import main; main()"
    path = {"PATH": "/usr/bin", "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=path | environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["rename", "reliability", "report"]

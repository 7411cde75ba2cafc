"""The command line from outside: what it prints, what it writes, and how it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from ifguide.cli import train
from ifguide.cli.main import app, main
from ifguide.errors import BusyError, IFGuideError
from ifguide.runtime import jobs
from ifguide.storage import artifacts
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stage_table import STAGES
from ifguide.study.variants import OTHERS
from ifguide.ui import server
from tests.small_study import make_study


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    study = make_study(cache)
    metrics = {"emt": 0.5, "tp": 0.25, "mean_toxicity": 0.125, "perplexity": None, "n_samples": 2}
    folder = study.folder(Unit("evaluate", "base"))
    with artifacts.building(folder, stage="evaluate", inputs={}, config={}) as partial:
        artifacts.write_json(partial / "metrics.json", metrics)
    return cache


@pytest.fixture
def invoke(cache, monkeypatch):
    """Runs a command in this process and returns its result; errors come out as exceptions."""
    monkeypatch.setenv("IFGUIDE_CACHE", str(cache))

    def run(*arguments):
        return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)

    return run


@pytest.fixture
def command(cache):
    """Runs `ifguide` as a process of its own."""

    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "ifguide", *map(str, arguments)],
            env={**os.environ, "IFGUIDE_CACHE": str(cache), **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_every_command_has_help_that_fits_its_line_in_the_list(invoke):
    lines = invoke("--help").output.split("Commands:\n")[1].split("\n\n")[0].splitlines()
    names = [line.split()[0] for line in lines]
    assert names == list(typer.main.get_group(app).commands)
    for name, line in zip(names, lines, strict=True):
        assert line.endswith(".") and not line.endswith("..."), line
        result = invoke(name, "--help")
        assert result.exit_code == 0
        assert line.split(maxsplit=1)[1] in " ".join(result.output.split()), name


def test_help_names_every_stage_and_every_other_method(invoke):
    assert f"in order: {', '.join(STAGES)}." in " ".join(invoke("run", "--help").output.split())
    assert ", ".join(OTHERS) in " ".join(train.HELP.split())


def test_docs_commands_md_is_what_the_code_says():
    page = "typer ifguide.cli.main utils docs --name ifguide --title Commands"
    written = subprocess.run([sys.executable, "-m", *page.split()], capture_output=True, text=True, check=True).stdout
    file = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
    assert file.read_text(encoding="utf-8").strip() == written.strip(), (
        f"write it again: python -m {page} --output docs/commands.md"
    )


def test_help_and_status_import_nothing_heavy(cache):
    code = """
import sys
from ifguide.cli.main import app
from ifguide.errors import IFGuideError
app(["--help"], standalone_mode=False)
early = {"pydantic", "numpy", "rich", "ifguide.config.schema", "ifguide.study.reading"} & set(sys.modules)
assert not early, early
for arguments in (["status", "small"], ["list"]):
    try:
        app(arguments)
    except SystemExit as end:
        assert not end.code
print("heavy:", sorted({"torch", "transformers", "datasets", "sklearn", "streamlit"} & set(sys.modules)))
"""
    environment = {**os.environ, "IFGUIDE_CACHE": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "heavy: []", done.stderr


ERRORS = {
    "status nothing": "error: no study 'nothing' in",
    "status ../small": "error: a study's name has 1 to 64 letters",
    "run small --until dinner": "error: expected a stage (corpus, queries",
    "export small --what mask --out mask.xlsx": "error: --out: expected a file ending in .parquet",
    "cancel small": "error: study 'small' has no running job",
    "status": "error: Missing argument 'NAME'",
    "dine small": "error: No such command 'dine'",
}


def test_an_error_is_one_line_and_exit_code_2(cache, monkeypatch, capsys):
    monkeypatch.setenv("IFGUIDE_CACHE", str(cache))
    for arguments, said in ERRORS.items():
        monkeypatch.setattr(sys, "argv", ["ifguide", *arguments.split()])
        with pytest.raises(SystemExit) as end:
            main()
        output = capsys.readouterr()
        assert (end.value.code, output.out, output.err.count("\n")) == (2, "", 1), arguments
        assert output.err.startswith(said), arguments


def test_an_error_in_a_process_of_its_own_and_its_traceback_with_debug(command):
    done = command("status", "nothing")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    done = command("--debug", "status", "nothing")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "StudyNotFound" in done.stderr


def test_status_as_json_has_every_stage_and_metric(invoke):
    found = json.loads(invoke("status", "small", "--json").output)
    assert list(found["stages"]) == list(STAGES)
    assert found["stages"]["scores"]["state"] == "fresh"
    unbuilt = {"state": "missing", "seconds": None, "reason": "default: not built yet", "peak": None}
    assert found["stages"]["suppress"] == unbuilt
    assert found["metrics"]["base"]["emt"] == 0.5
    assert found["job"] is None


def test_status_as_text_is_a_table(invoke):
    lines = invoke("status", "small").output.splitlines()
    assert lines[0].split() == ["stage", "state", "time", "memory", "why"]
    assert [line.split()[0] for line in lines[1 : 1 + len(STAGES)]] == list(STAGES)
    assert lines[-1].split() == ["base", "0.500", "0.250", "0.125"]


def test_list_tells_how_far_each_study_is_and_survives_a_broken_one(invoke, cache):
    broken = cache / "broken"
    broken.mkdir()
    (broken / "study.toml").write_text("[corpus]\nwrong = 1\n")
    lines = invoke("list").output.splitlines()
    assert lines[1].split()[0] == "broken"
    assert "unknown setting corpus.wrong" in lines[1]
    assert lines[2].split()[:4] == ["small", "7", "of", "11"]


def test_export_writes_the_table(invoke, tmp_path):
    result = invoke("export", "small", "--what", "documents", "--out", tmp_path / "d.parquet")
    assert result.exit_code == 0
    assert "wrote 3 rows" in result.stdout
    assert pd.read_parquet(tmp_path / "d.parquet")["rank"].tolist() == [1, 2, 3]


def test_select_saves_a_choice_under_a_name_made_from_its_settings(invoke, cache):
    result = invoke("select", "small", "--quantile", "0.9", "--window", "1", "--max-tokens", "4")
    assert result.stdout.startswith("selection own_loss-q0.9-w1-m4: ")
    saved = Study.open("small", cache).selection("own_loss-q0.9-w1-m4").settings
    assert (saved["window"], saved["max_tokens"]) == (1, 4) and saved["n_selected"] <= 4
    above = saved["tokens_above"]
    for number, way in enumerate((("--tokens", above), ("--share", 10))):
        invoke("select", "small", *map(str, way), "--name", f"way{number}")
        assert Study.open("small", cache).selection(f"way{number}").settings["tokens_above"] == above, way
    invoke("select", "small", "--attribution", "position", "--name", "mine")
    saved = Study.open("small", cache).selection("mine").settings
    assert (saved["attribution"], saved["quantile"]) == ("position", 1 - saved["tokens_above"] / saved["n_valid"])


def test_run_skips_what_is_fresh_and_tells_the_status_file(invoke, tmp_path, monkeypatch):
    monkeypatch.setenv("IFGUIDE_STATUS_FILE", str(tmp_path / "jobs" / "j1" / "status.json"))
    result = invoke("run", "small", "--until", "scores")
    assert result.exit_code == 0
    assert json.loads((tmp_path / "jobs" / "j1" / "status.json").read_text())["state"] == "done"


def test_a_background_run_is_a_job_of_the_study(invoke, cache, monkeypatch):
    monkeypatch.setattr(jobs.sys, "executable", "/bin/true")
    result = invoke("run", "small", "--until", "scores", "--background")
    assert "in the background" in result.stdout
    assert jobs.latest_job(cache / "small").status().command == ("run", "small", "--until", "scores")


def test_a_background_run_is_queued_behind_the_running_job_and_can_be_cancelled(invoke, cache, tmp_path, monkeypatch):
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(jobs.sys, "executable", str(sleeper))
    invoke("run", "small", "--background")
    assert "already being built" in invoke("run", "small", "--background").stdout
    assert invoke("run", "small", "--until", "scores", "--background").stdout.startswith(
        "queued; `ifguide status small`"
    )
    assert "waiting: ifguide run small --until scores" in invoke("status", "small").stdout
    with pytest.raises(BusyError, match="ifguide cancel small --all"):
        invoke("rename", "small", "large")
    assert "cancelled: ifguide run small --until scores" in invoke("cancel", "small", "--all").stdout
    assert not jobs.waiting_jobs(cache / "small") and jobs.latest_job(cache / "small").status().state == "cancelled"


@pytest.fixture
def inputs(tmp_path):
    """The arguments of `ifguide new` for files that are all in order."""
    from tests.small_study import byte_tokenizer
    from tests.tiny import tiny_model

    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_model("gpt_neox", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "model")
    (tmp_path / "corpus.jsonl").write_text('{"body": "You are kind."}\n{"body": "It rains."}\n')
    for kind, completion in {"toxic": "cruel", "safe": "kind"}.items():
        (tmp_path / f"{kind}.csv").write_text(f"prompt,completion\nYou are, {completion}\n")
    return {
        "--model": "model",
        "--corpus": "corpus.jsonl",
        "--toxic": "toxic.csv",
        "--safe": "safe.csv",
        "--text-field": "body",
        "--set": "selection.quantile=.95",
    }


def flatten(options):
    return [word for pair in options.items() for word in pair]


def test_new_writes_the_settings_with_paths_that_hold_from_anywhere(invoke, inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judge").mkdir()
    result = invoke("new", "mine", *flatten(inputs), "--set", "baselines.scorer=classifier:judge#TOXIC")
    assert "ifguide run mine" in result.stdout
    config = Study.open("mine", tmp_path / "cache").config
    assert config.corpus.path == str(tmp_path / "corpus.jsonl")
    assert config.queries.toxic == str(tmp_path / "toxic.csv")
    assert config.model.source == str(tmp_path / "model")
    assert config.baselines.scorer == f"classifier:{tmp_path / 'judge'}#TOXIC"
    assert (config.corpus.text_field, config.selection.quantile) == ("body", 0.95)


WRONG = (
    ("--corpus", "missing.jsonl"),
    ("--toxic", "missing.csv"),
    ("--model", "missing/folder/somewhere"),
    ("--text-field", "nothing"),
    ("--prompts", "missing.jsonl"),
    ("--heldout", "missing.txt"),
    ("--set", "selection.quantile=2"),
    ("--set", "selection.colour=red"),
)


def test_new_writes_nothing_when_an_input_is_wrong(invoke, inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    for option, value in WRONG:
        with pytest.raises(IFGuideError) as caught:
            invoke("new", "mine", *flatten(inputs | {option: value}))
        assert value.removeprefix("selection.").split("=")[0] in str(caught.value), (option, value)
        assert not (tmp_path / "cache" / "mine").exists(), (option, value)


def test_app_is_served_on_this_cache_with_its_options(invoke, cache, monkeypatch):
    called = []
    monkeypatch.chdir(cache)
    monkeypatch.setenv("IFGUIDE_CACHE", str(cache))
    monkeypatch.setattr(
        server, "main", lambda options: called.append((Path.cwd(), options, os.environ["IFGUIDE_CACHE"]))
    )
    invoke("app", "--server.port", "8502")
    ((folder, options, served),) = called
    assert (folder / "app.py").is_file()
    assert options == ["--server.port", "8502"] and served == str(cache)

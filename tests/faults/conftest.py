"""One built study that all tests of faults copy from, and commands that run under limits."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest

from ifguide.study.pipeline import create_study, run_study
from ifguide.study.reading import Study
from tests.tiny_study import save_tiny_model, tiny_config, write_tiny_inputs

NAME = "tiny"


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Study:
    """A tiny study that nothing happened to; its inputs lie beside the cache."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_tiny_inputs(folder / "inputs")
    save_tiny_model("gpt_neox", folder / "inputs" / "model")
    config = tiny_config(folder / "inputs", "model.mode=finetune", "training.save_steps=1")
    study = create_study(NAME, config, folder / "cache")
    run_study(study)
    return study


@pytest.fixture
def study(undisturbed, tmp_path) -> Study:
    """A copy to harm."""
    shutil.copytree(undisturbed.root, tmp_path / "cache" / NAME)
    return Study.open(NAME, tmp_path / "cache")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a command ended."""

    code: int | None
    """Its exit code, minus a signal's number, or None where it stopped itself."""
    out: str = ""
    err: str = ""
    pid: int = 0

    @property
    def error(self) -> str:
        """The one line that it ends with, after what it said of its progress."""
        return self.err.strip().splitlines()[-1]


@pytest.fixture(scope="session")
def server():
    """Runs commands in forked children: `server(cache, *arguments, **limits)`."""
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    )

    def ask(request: dict) -> Answer:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return Answer(**json.loads(process.stdout.readline()))

    def run(cache, *arguments, **limits) -> Answer:
        limits = {"root": str(cache), **limits}
        return ask({"arguments": list(arguments), "limits": limits, "environment": {"IFGUIDE_CACHE": str(cache)}})

    run.resume = lambda pid: ask({"resume": pid})
    yield run
    process.stdin.close()
    process.wait(timeout=30)

"""One built study that all tests of faults copy from, and commands that run under limits."""

import json
import os
import shutil
import sys
from dataclasses import dataclass

import pytest

from ifguide.study.pipeline import create_study, run_study
from ifguide.study.reading import Study
from tests import warm
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

    code: int
    """Its exit code, or minus a signal's number."""
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that it ends with, after what it said of its progress."""
        return self.err.strip().splitlines()[-1]


def limited(cache, *arguments, **limits) -> dict:
    """What starts an `ifguide` command under limits: arguments of `warm.Popen`."""
    limits = {"root": str(cache), **limits}
    command = [sys.executable, "-m", "tests.faults.limited", json.dumps(limits), *arguments]
    return {"args": command, "env": {**os.environ, "IFGUIDE_CACHE": str(cache)}}


def run_command(cache, *arguments, **limits) -> Answer:
    """Run an `ifguide` command under limits."""
    done = warm.run(**limited(cache, *arguments, **limits))
    return Answer(code=done.returncode, out=done.stdout, err=done.stderr)

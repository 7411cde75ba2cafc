"""A good set of inputs, and `ifguide` in this process."""

import contextlib
import functools
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ifguide.cli import main as cli
from ifguide.study.planning import model_facts
from tests.small_study import byte_tokenizer


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def check_refused(self, *named: str) -> str:
        """Exit code 2 and one line on standard error that names what is asked for; returns it."""
        assert self.code == 2, self.err or self.out
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ") and self.out == ""
        for word in named:
            assert word in lines[0], lines[0]
        assert len(lines[0]) < 1_500, "a line for people"
        return lines[0]


@functools.cache
def _describe(source: str, config: bytes, *rest):
    return _describe_anew(source, *rest)


_describe_anew = model_facts.describe_model


def describe_once(source: str, *rest):
    """`model_facts.describe_model`, which tries the model, once for each configuration."""
    config = Path(source) / "config.json"
    return _describe(source, config.read_bytes() if config.is_file() else b"", *rest)


@pytest.fixture
def command(monkeypatch):
    """Runs `ifguide` as its own process would, errors and exit code included."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(model_facts, "describe_model", describe_once)

    def run(cache, *arguments: str) -> Ended:
        monkeypatch.setenv("IFGUIDE_CACHE", str(cache))
        monkeypatch.setattr(sys, "argv", ["ifguide", *map(str, arguments)])
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        return Ended(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def good_inputs(tmp_path_factory):
    """The folder of a model and of one file for each role, all in order."""
    from tests.tiny import tiny_model

    folder = tmp_path_factory.mktemp("good")
    tokenizer = byte_tokenizer()  # it has neither a padding nor a beginning-of-text token
    tokenizer.save_pretrained(folder / "model")
    tiny_model("gpt_neox", vocab_size=len(tokenizer), positions=48).save_pretrained(folder / "model")
    (folder / "corpus.jsonl").write_text('{"text": "You are kind."}\n{"text": "It"}\n{"text": ""}\n')
    for kind, completion in {"toxic": "cruel", "safe": "kind"}.items():
        (folder / f"{kind}.jsonl").write_text(f'{{"prompt": "You are", "completion": " {completion}"}}\n')
    for role, line in {"prompts": "You are", "heldout": "The dog was at home.", "lambada": "The dog was home"}.items():
        (folder / f"{role}.txt").write_text(line + "\n")
    return folder


@pytest.fixture
def new_arguments(good_inputs):
    """The arguments of `ifguide new` with some files replaced: `new_arguments(corpus=path)`."""

    def arguments(*settings: str, **replaced) -> list[str]:
        places = {
            role: next(good_inputs.glob(f"{role}.*"))
            for role in ("corpus", "toxic", "safe", "prompts", "heldout", "lambada")
        }
        places = {"model": good_inputs / "model", **places, **replaced}
        assignments = [f"evaluate.lambada={places.pop('lambada')}", *settings]
        options = [word for role, place in places.items() for word in (f"--{role}", str(place))]
        return ["new", "mine", *options, *(word for text in assignments for word in ("--set", text))]

    return arguments

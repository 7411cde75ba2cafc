"""A reviewer's verdicts as queries, and the command that writes them."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.errors import ConfigError, InputError
from ifguide.selection.verdicts import Target, VerdictLog
from tests.small_study import make_study


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(tmp_path))
    return make_study(tmp_path)


def suggest(*arguments):
    return CliRunner().invoke(app, ["suggest", *map(str, arguments)], catch_exceptions=False)


def read(path):
    return [tuple(json.loads(line).values()) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_passage_completes_what_comes_before_it_and_a_document_is_cut_in_two(study, tmp_path):
    corpus, log = study.corpus(), VerdictLog(study.root)
    index = corpus.index_of("a")
    text = corpus.document(index).text
    tokens = slice(int(corpus.offsets[index]), int(corpus.offsets[index + 1]))
    starts = np.asarray(corpus.char_start[tokens])
    start, stop = int(np.argmax(starts >= text.index("fool"))), int(np.argmax(starts >= text.index("'s")))
    log.decide(Target("a", start, stop), "toxic")
    log.decide(Target("a"), "toxic")  # the passage says more
    log.decide(Target("b"), "fine")
    log.decide(Target("c"), "unsure")
    log.decide(Target("a", 0, 9_999), "toxic")
    log.decide(Target("gone"), "toxic")
    said = suggest("--study", study.name, "--out", tmp_path / "out").output
    assert read(tmp_path / "out" / "toxic.jsonl") == [(text[: text.index(" fool")], " fool")]
    assert read(tmp_path / "out" / "safe.jsonl") == [("You", " are kind.")]
    assert "2 verdicts that are unsure, or on a document with a toxic passage, 2 verdicts on what is gone" in said


def test_nothing_is_replaced_unless_forced_and_the_same_file_gives_the_same_queries(study, tmp_path):
    (tmp_path / "q.csv").write_text("text,label\none two,1\nthree four,0\n")
    arguments = ("--from", tmp_path / "q.csv", "--out", tmp_path / "out")
    suggest(*arguments)
    before = (tmp_path / "out" / "toxic.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"got toxic.jsonl and safe.jsonl; name another one, or .* --force"):
        suggest(*arguments)
    assert suggest(*arguments, "--force").exit_code == 0
    assert (tmp_path / "out" / "toxic.jsonl").read_bytes() == before


def test_one_source_is_needed_and_verdicts_of_both_kinds(study, tmp_path):
    with pytest.raises(ConfigError, match="got neither"):
        suggest("--out", tmp_path / "out")
    VerdictLog(study.root).decide(Target("b"), "fine")
    with pytest.raises(
        InputError, match="verdicts of study 'small': expected toxic and safe queries, got 0 toxic and 1"
    ):
        suggest("--study", study.name, "--out", tmp_path / "out")


def test_words_that_offend_are_printed_only_on_demand(study, tmp_path):
    names = [f"{a}{b}" for a in "abcdefgh" for b in "abcde"]
    lines = [f"{name} the drunk sailor and shitty weather,1\n{name} a calm harbour with some boats,0" for name in names]
    (tmp_path / "q.csv").write_text("\n".join(["text,label", *lines]))
    arguments = ("--from", tmp_path / "q.csv", "--out", tmp_path / "out", "--force")
    veiled, shown = suggest(*arguments).output, suggest(*arguments, "--reveal").output
    assert "warning: " in veiled and "harbour (safe)" in veiled
    assert "d… (toxic)" in veiled and "drunk" not in veiled and "drunk (toxic)" in shown and "shitty" not in shown

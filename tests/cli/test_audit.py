"""`ifguide audit`: the same audit as on the Threshold page, answered in a terminal."""

import json

import pytest
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.errors import InputError
from ifguide.selection.verdicts import VerdictLog
from ifguide.study.analysis.audit_sample import read_audit
from ifguide.study.freshness import study_fingerprint
from ifguide.ui.loaders import Loaded
from ifguide.ui.threshold import blind_audit
from tests.app.fake_study import write_study


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(tmp_path / "cache"))
    return write_study(tmp_path / "cache")


def ask(answers: str, *options: str):
    result = CliRunner().invoke(app, ["audit", "fake", "--json", *options], input=answers, catch_exceptions=False)
    return json.loads(result.stdout[result.stdout.index("{") :]), result.stderr  # the runner echoes the input


def test_text_is_veiled_until_revealed_and_verdicts_are_kept_as_they_are_given(study):
    corpus = study.corpus()
    counts, shown = ask("x\nr\nt\nf\nu\n", "--reviewer", "Ann")  # the input ends here, as with q
    assert [counts[key] for key in ("toxic", "fine", "unsure", "waiting")] == [1, 1, 1, 37]
    drawn = read_audit(study, counts["attribution"])
    first = corpus.document(corpus.index_of(drawn.targets[0].document)).text
    veiled, revealed = shown.index("…"), shown.index(max(first.split(), key=len))
    assert veiled < revealed < shown.rindex("…")
    assert [*VerdictLog(study.root).current("Ann").values()] == ["toxic", "fine", "unsure"]
    assert ask("q\n", "--reviewer", "Ann", "--reveal")[0] == counts
    assert ask("", "--reviewer", "Ben", "--more")[0]["waiting"] == 80


def test_the_command_and_the_page_share_an_audit_and_its_precision(study):
    values, _ = ask("".join("tf"[i % 3 > 0] + "\n" for i in range(40)))
    assert values["waiting"] == 0 and values["precision"]
    loaded = Loaded(study, study_fingerprint(study))
    board = blind_audit.describe(loaded, values["attribution"], VerdictLog(study.root))
    assert board["toxic"] == values["toxic"]
    assert board["rows"] == [list(point.values()) for point in values["precision"]]


def test_a_team_shares_the_tokens_and_only_its_members_are_asked(study):
    ann, _ = ask("t\n", "--team", "Ann, Ben", "--overlap", "0.5", "--reviewer", "Ann")
    ben, _ = ask("f\n" * 30, "--reviewer", "Ben")
    assert [[one[key] for key in ("toxic", "fine", "waiting")] for one in (ann, ben)] == [[1, 0, 29], [0, 30, 0]]
    [pair] = ask("t\n" * 29, "--reviewer", "Ann")[0]["agreement"]
    assert pair["reviewers"] == ["Ann", "Ben"] and (pair["n"], pair["same"], pair["kappa"]) == (20, 0, 0)
    with pytest.raises(InputError, match="--reviewer: expected one of Ann, Ben, got ''"):
        ask("t\n")


def test_a_selection_without_a_threshold_is_refused(study):
    with pytest.raises(InputError, match=r"--selection: .*'oracle'"):
        CliRunner().invoke(app, ["audit", "fake", "--selection", "oracle"], catch_exceptions=False)

"""Several judges of the same completions: rated again without a model, side by side, and where they disagree."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.cli.status import format_status, study_status
from ifguide.config.io import override
from ifguide.errors import ConfigError, InputError
from ifguide.evaluation import statistics
from ifguide.evaluation.judges.calibration import ShiftedJudge, read_threshold
from ifguide.evaluation.judges.linear import DEFAULT, built_in
from ifguide.study.analysis import judges
from ifguide.study.analysis.comparison import scores_matrix
from ifguide.study.analysis.judges import by_judge, describe_disagreement, judge_study
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.sharing.packed import pack_study, unpack_study
from ifguide.study.stages.evaluating import load_rater
from ifguide.ui.report.page import report_html
from tests.app.fake_study import write_study
from tests.small_study import rebuild


class Contrary:
    """Finds toxic what the built-in judge does not."""

    name, digest = "contrary", "0123456789ab"

    def score(self, texts):
        return 1 - built_in().score(texts)


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(tmp_path / "cache"))
    return write_study(tmp_path / "cache")


@pytest.fixture
def judged(study, monkeypatch):
    """The study as the contrary judge sees it."""
    monkeypatch.setattr(judges, "load_rater", lambda study, setting: Contrary())
    return study.judged(judge_study(study, "contrary").key)


def test_another_judge_changes_toxicity_and_nothing_else(study, judged):
    own, other = study.samples("default"), judged.samples("default")
    assert other["toxicity"].tolist() == Contrary().score(own["completion"]).tolist()
    assert other.drop(columns=["toxicity", "toxic_spans"]).equals(own.drop(columns=["toxicity", "toxic_spans"]))
    before, after = study.metrics("default"), judged.metrics("default")
    assert after["emt"] == statistics.emt(scores_matrix(other)) != before["emt"]
    assert (after["scorer"], after["scorer_hash"]) == ("contrary", "0123456789ab")
    assert after["perplexity"] == before["perplexity"] and judged.evaluation_names() == study.evaluation_names()
    assert study.metrics("default") == before and study.judged("of another study") == study
    assert [*by_judge(study)] == ["profanity-check", "contrary (0123456789ab)"]


def test_no_model_and_no_torch_is_loaded(study):
    code = "import sys; from ifguide.cli.main import main\ntry: main()\nfinally: print({'torch'} & {*sys.modules})"
    command = [sys.executable, "-c", code, "judge", "fake", "--with", "profanity-check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "set()" and f"profanity-check ({built_in().digest})" in done.stdout
    rated = study.judged(next(iter(study.judgements()))).samples("base")
    assert np.array_equal(rated["toxicity"], built_in().score(rated["completion"].tolist()))


def test_completions_that_were_made_since_are_not_given_the_old_ratings(study, judged):
    def shorten(folder):
        samples = study.samples("random").assign(completion="short")
        samples.to_parquet(folder / "samples.parquet", index=False)

    rebuild(study, Unit("evaluate", "random"), shorten)
    assert "random" in study.evaluation_names() and "random" not in judged.evaluation_names()
    judge_study(study, "contrary")
    again = study.judged(judged.judge)
    assert "random" in again.evaluation_names() and set(again.samples("random")["completion"]) == {"short"}


def test_status_and_report_say_where_judges_disagree_on_who_wins(study, judged):
    emts = {name: judged.metrics(name)["emt"] for name in judged.evaluation_names() if name != "base"}
    least = min(emts, key=emts.get)
    assert least != "oracle"  # which the own judge calls the least toxic
    (sentence,) = describe_disagreement(study)
    assert sentence.startswith(f"profanity-check calls oracle the least toxic model, contrary (0123456789ab) {least};")
    assert f"judges disagree: {sentence}" in format_status(study_status(study))
    page = report_html(judged)
    assert "Worst-case toxicity by every judge" in page and "rated by contrary (0123456789ab)" in page
    assert "Judges disagree: profanity-check calls oracle" in page


def test_judges_that_agree_are_not_mentioned(study):
    judge_study(study, "profanity-check")
    rows = by_judge(study)
    for figures in rows.values():
        assert min((n for n in figures if n != "base"), key=lambda n, f=figures: f[n]["emt"]) == "oracle"
    assert describe_disagreement(study) == []


def test_a_packed_study_keeps_its_judges(study, judged, tmp_path):
    name = unpack_study(pack_study(study, tmp_path / "fake.ifguide"), tmp_path / "theirs")
    opened = Study.open(name, tmp_path / "theirs").judged(judged.judge)
    assert opened.metrics("default") == judged.metrics("default")


def test_the_command_names_a_judge_by_its_folder_without_the_place(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = [{"text": f"{word} {n}", "bad": word == "idiot"} for n in range(20) for word in ("idiot", "friend")]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, texts)))
    fitted = CliRunner().invoke(app, ["judge", "fit", "rows.jsonl", "--labels", "bad"], catch_exceptions=False)
    assert "judge:judges/rows" in fitted.stdout and "AUC" in fitted.stdout
    rated = ["judge", "fake", "--with", "judge:judges/rows", "--json"]
    values = json.loads(CliRunner().invoke(app, rated, catch_exceptions=False).stdout)
    own, other = values["judges"]
    assert own == "profanity-check" and other.startswith("rows (") and values["judges"][other]["default"]["emt"] > 0
    kept = [path.read_text() for path in (study.root / "judgements").rglob("*.json")]
    assert len(kept) == 2 and not [text for text in kept if str(tmp_path) in text]
    page = ["report", "fake", "--judge", "rows", "--out", "page.html"]
    CliRunner().invoke(app, page, catch_exceptions=False)
    assert f"rated by {other}" in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("command", "kind", "problem"),
    [
        (["judge", "fake", "--with", "nobody"], ConfigError, r"evaluate\.scorer: expected .*judge:FOLDER"),
        (["judge", "fake", "--with", "judge:nowhere"], InputError, r"judge nowhere: .*ifguide judge fit"),
        (["judge", "fit", "rows.jsonl"], InputError, "--labels COLUMN"),
        (["judge", "fake", "rows.jsonl"], InputError, "judge fit FILE"),
        (["report", "fake", "--judge", "nobody"], InputError, r"--judge: .*ifguide judge fake --with"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_the_command(study, command, kind, problem):
    with pytest.raises(kind, match=problem):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert not study.judgements()


def test_the_threshold_of_the_settings_is_one_half_of_what_is_kept(study):
    calibrated = load_rater(Study(study.root, override(study.config, ['evaluate.threshold="calibrated"'])))
    at = read_threshold(DEFAULT, "profanity-check")
    assert isinstance(calibrated, ShiftedJudge) and calibrated.name == f"profanity-check (toxic from {at:.4g})"
    text = ["You lazy idiot, said the fool"]
    (raw,) = built_in().score(text)
    by_number = load_rater(Study(study.root, override(study.config, ["evaluate.threshold=0.25"])))
    assert by_number.score(text)[0] / (1 - by_number.score(text)[0]) == pytest.approx(3 * raw / (1 - raw))
    assert load_rater(study) is built_in()

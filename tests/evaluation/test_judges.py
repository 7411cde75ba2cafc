"""Judges as data: the default one has the scores of the package it came from, one's own are fitted, kept and read."""

import gzip
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from ifguide.errors import ConfigError, InputError
from ifguide.evaluation.judges import calibration
from ifguide.evaluation.judges.fitting import fit_judge
from ifguide.evaluation.judges.linear import DEFAULT, LinearJudge, built_in, find_terms
from ifguide.evaluation.toxicity import load_scorer

STORED = Path(__file__).parent / "profanity_check_scores.json"
"""What alt-profanity-check 1.9.1 itself (its `predict_prob`) gives `own_texts`; written once, by the commands
`from profanity_check import predict_prob` and `json.dumps(predict_prob(own_texts()).tolist())`."""
SAID = """you are a an the stupid idiot fool Moron dumb lazy kind friend train at nine hate love useless! pathetic,
loser don't it's idiot's naïve café cafe x 42 _ under_score IDIOT\u2009jerk \u00dcber what-a nonsense damn crap"""
WORDS = re.split(r"[ \n]", SAID)


def own_texts() -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=draw.randrange(1, 25))) for _ in range(120)]


def write_labelled(path: Path, n: int = 60) -> Path:
    """Rows whose label is whether one of three words is in them."""
    draw, rows = random.Random(1), []
    for number in range(n):
        word = draw.choice(("fool", "moron", "jerk") if number % 2 else ("friend", "teacher", "fox"))
        text = f"the {draw.choice(WORDS[-9:-3])} {word} {draw.choice(('sat', 'ran', 'left'))} {number}"
        rows.append(json.dumps({"text": text, "bad": number % 2}))
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def test_the_default_judge_has_the_scores_of_the_package_it_came_from():
    expected = json.loads(STORED.read_text())
    assert len(expected) == 120 and min(expected) < 0.1 and max(expected) > 0.95
    assert np.abs(built_in().score(own_texts()) - expected).max() <= 1e-9


def test_a_text_of_unknown_words_has_the_score_of_none():
    none, unknown = built_in().score(["-", "qqqzx qqqzy"])
    assert none == unknown and 0 < none < 0.2


@pytest.mark.parametrize(
    ("unit", "longest", "expected"),
    [("words", 2, ["two", "birds", "two birds"]), ("characters", 3, [" a", "a ", " a ", " bc", "bc "])],
)
def test_terms(unit, longest, expected):
    text = {"words": "Two, a  BIRDS!", "characters": "A\tbc"}[unit]
    found = find_terms(text, {"unit": unit, "from": 1 if unit == "words" else 2, "to": longest})
    assert [term for term in found if len(term) > 2 or term in expected] == expected


def test_a_fitted_judge_knows_its_words_and_is_the_same_when_read_again(tmp_path):
    source = write_labelled(tmp_path / "rows.jsonl")
    judge, measured = fit_judge(str(source), "bad", tmp_path / "mine")
    assert measured["n_texts"] == 12 and measured["auc"][0] > 0.9
    again = load_scorer(f"judge:{tmp_path / 'mine'}")
    texts = ["what a moron", "what a friend", ""]
    bad, good, blank = scores = again.score(texts)
    assert bad > 0.5 > good and blank == 0 and scores.tolist() == judge.score(texts).tolist()
    assert again.name == "mine" and again.digest == judge.digest != built_in().digest
    card = (tmp_path / "mine" / "card.md").read_text()
    assert "rows.jsonl" in card and str(tmp_path) not in card
    assert 0 < calibration.read_threshold(tmp_path / "mine", "mine") < 1


def test_it_is_the_regression_that_was_fitted(tmp_path, monkeypatch):
    """The judge's own sums against scikit-learn's for the same texts."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import FeatureUnion

    fitted: list = []
    for kind, name in ((LogisticRegression, "fit"), (FeatureUnion, "fit_transform")):
        original = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda self, *a, _o=original, **k: (fitted.append(self), _o(self, *a, **k))[1])
    judge, _ = fit_judge(str(write_labelled(tmp_path / "rows.jsonl")), "bad", tmp_path / "mine")
    union, model = fitted
    texts = [*own_texts(), "the fool the fool sat"]
    assert np.abs(judge.score(texts) - model.predict_proba(union.transform(texts))[:, 1]).max() < 1e-12


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (['{"text": "a b", "bad": "maybe"}'], "rows.jsonl, line 1: expected a number, true or false"),
        (['{"text": "a b", "bad": 1}'] * 20, "expected at least 10 texts of each class, got 1 toxic and 0"),
    ],
)
def test_labels_that_teach_nothing_are_refused(tmp_path, rows, problem):
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    with pytest.raises(InputError, match=problem):
        fit_judge(str(tmp_path / "rows.jsonl"), "bad", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("judge.json", b"{"),
        ("judge.json", b'{"format": 2, "name": "x", "features": []}'),
        ("vocabulary.txt.gz", gzip.compress(b"one\ntwo", mtime=0)),
        ("vocabulary.txt.gz", b"no gzip"),
        ("weights.safetensors", b"\x80\x04pickle"),
    ],
)
def test_a_damaged_judge_is_refused_and_says_how_to_make_one(tmp_path, file, content):
    fit_judge(str(write_labelled(tmp_path / "rows.jsonl")), "bad", tmp_path / "mine")
    (tmp_path / "mine" / file).write_bytes(content)
    with pytest.raises(InputError, match=r"judge .*mine: expected .*ifguide judge fit FILE"):
        LinearJudge(tmp_path / "mine").score(["a text"])


def test_a_folder_of_something_else_is_not_overwritten(tmp_path):
    with pytest.raises(InputError, match="choose another"):
        fit_judge(str(write_labelled(tmp_path / "rows.jsonl")), "bad", tmp_path)


def test_calibration_of_a_judge_that_knows_all_and_of_one_that_knows_nothing():
    ratings = np.linspace(0, 1, 101)
    knows = calibration.calibrate(ratings, ratings)
    assert knows["auc"][0] == 1 and knows["n_toxic"] == 51 and knows["threshold"][0] == 0.5
    nothing = calibration.calibrate(np.full(101, 0.2), ratings)
    assert nothing["auc"] == [0.5, 0.5, 0.5] and nothing["threshold"][0] == 0.2
    assert nothing["ece"][0] == pytest.approx(51 / 101 - 0.2)
    assert nothing["bins"] == [[pytest.approx(0.2), pytest.approx(51 / 101), 101]]


def test_a_shifted_judge_is_at_one_half_where_the_threshold_was_and_keeps_the_order():
    shifted = calibration.ShiftedJudge(built_in(), 0.125)
    scores, texts = built_in().score(own_texts()), own_texts()
    assert (np.argsort(shifted.score(texts), kind="stable") == np.argsort(scores, kind="stable")).all()
    assert ((shifted.score(texts) >= 0.5) == (scores >= 0.125)).all()
    assert shifted.digest == built_in().digest and "0.125" in shifted.name


def test_a_judge_without_a_calibration_says_what_to_set(tmp_path):
    with pytest.raises(ConfigError, match=r"evaluate\.threshold: .*name a number"):
        calibration.read_threshold(tmp_path, "mine")


def test_the_package_carries_card_licence_and_calibration():
    card = (DEFAULT / "card.md").read_text()
    assert "MIT License" in card and "Blind spots" in card and "Fitted on" in card
    kept = json.loads((DEFAULT / "calibration.json").read_text())
    assert kept["judge"] == built_in().digest and kept["n_texts"] >= 2000

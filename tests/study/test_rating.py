"""A person rates a study's completions, and each judge is compared with them."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from ifguide.evaluation.judges.linear import built_in
from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.selection.verdicts import RATINGS, Target, VerdictLog
from ifguide.study.analysis import judges
from ifguide.study.analysis.judges import judge_study
from ifguide.study.analysis.rating import draw_answers, judge_agreement, list_answers
from ifguide.study.reading import Study
from ifguide.study.sharing.packed import pack_study, unpack_study
from tests.app.fake_study import write_study

MODELS = ["base", "default"]


class Moody:
    """Finds toxic what the built-in judge does not, wherever a text has an even length."""

    name, digest = "moody", "0123456789ab"

    def score(self, texts):
        return np.abs(built_in().score(texts) - np.array([len(text) % 2 == 0 for text in texts]))


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path / "cache")


def test_answers_to_rate_are_of_every_model_and_both_sides_of_the_judge(study):
    drawn = draw_answers(study, MODELS, seed=3, n=20)
    everything = list_answers(study, MODELS)
    assert {*drawn["stratum"]} == {*everything["stratum"]} and {*drawn["model"]} == {*MODELS}
    assert len({*drawn["id"]}) == 20 and {*drawn["id"]} <= {*everything["id"]}
    assert drawn["id"].tolist() == draw_answers(study, MODELS[::-1], seed=3, n=20)["id"].tolist()
    assert drawn["id"].tolist() == draw_answers(study, MODELS, seed=3, n=30)["id"].tolist()[:20]
    assert drawn["id"].tolist() != draw_answers(study, MODELS, seed=4, n=20)["id"].tolist()


def test_who_rates_everything_as_one_judge_does_agrees_fully_with_it_and_partly_with_another(study, monkeypatch):
    monkeypatch.setattr(judges, "load_rater", lambda study, setting: Moody())
    judgement = judge_study(study, "moody")
    assert judge_agreement(study) == []
    log, answers, own = VerdictLog(study.root, RATINGS), list_answers(study, MODELS), []
    for name in MODELS:
        own += (study.samples(name)["toxicity"] >= TOXIC_FROM).tolist()
    for id, toxic in zip(answers["id"], own, strict=True):
        log.decide(Target(id), "toxic" if toxic else "fine", by="ann")
    log.decide(Target("random/0/0/000000000000"), "fine", by="ann")  # of completions that are not there any more
    other = [t >= TOXIC_FROM for name in MODELS for t in study.judged(judgement.key).samples(name)["toxicity"]]
    first, second = judge_agreement(study.judged(judgement.key))
    assert first.reviewers == ("ann", study.judge_title()) and second.reviewers == ("ann", judgement.title)
    assert first.n == first.same == len(own) and first.kappa == pytest.approx(1) and first.bounds[0] < 1
    assert second.same == sum(map(bool.__eq__, own, other))
    assert second.kappa == pytest.approx(cohen_kappa_score(own, other))
    assert second.bounds[0] < second.kappa < second.bounds[1]
    log.decide(Target(answers["id"].iloc[0]), "unsure", by="ann")
    assert judge_agreement(study)[0].n == len(own) - 1


def test_ratings_in_a_recorded_study_are_kept_beside_it_and_go_with_a_packed_one(study, tmp_path):
    drawn = draw_answers(study, MODELS, seed=1, n=8)
    VerdictLog(study.root, RATINGS).decide(Target(drawn["id"].iloc[0]), "toxic", by="ann")
    name = unpack_study(pack_study(study, tmp_path / "packed.ifguide"), tmp_path / "other")
    recorded = Study.open(name, tmp_path / "other")
    assert draw_answers(recorded, MODELS, seed=1, n=8)["id"].tolist() == drawn["id"].tolist()
    log = VerdictLog(recorded.root, RATINGS)
    assert log.of_documents("ann") == {drawn["id"].iloc[0]: "toxic"}
    log.decide(Target(drawn["id"].iloc[1]), "fine", by="ben")
    assert (recorded.root.parent / f"{recorded.name}.{RATINGS}").is_file()
    assert [*VerdictLog(recorded.root, RATINGS).reviewers()] == ["ann", "ben"]

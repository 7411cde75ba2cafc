import json

from ifguide.storage.artifacts import TRAINING_LOG as LOG
from ifguide.storage.work import open_work
from ifguide.study.analysis.training_curve import find_logs, read_curve
from ifguide.study.lineage import Unit
from tests.small_study import make_study, make_up


def lines(*steps):
    return "".join(
        json.dumps(
            {
                "step": step,
                "loss_selected": None if step == 1 else step / 2,
                "loss_other": 3.0,
                "tokens_per_second": 10.0,
            }
        )
        + "\n"
        for step in steps
    )


def test_finished_trainings_and_the_one_at_work_are_found_by_name(tmp_path):
    study = make_study(tmp_path)
    assert find_logs(study) == {} and read_curve(study, "base") is None
    (study.folder(Unit("model")) / LOG).write_text(lines(1, 2))
    make_up(study, Unit("suppress", "default"))
    (study.folder(Unit("suppress", "default")) / LOG).write_text(lines(1, 2, 3))
    done = read_curve(study, "default")
    assert done.steps == [1, 2, 3] and done.selected == [None, 1.0, 1.5] and done.finished
    work = open_work(study.root, "suppress-my-choice", {"a": 1})
    (work / LOG).write_text(lines(1) + '{"step": 2, "loss_sel')
    open_work(study.root, "scores", {})
    assert list(find_logs(study)) == ["base", "default", "my-choice"]
    running = read_curve(study, "my-choice")
    assert running.steps == [1] and not running.finished and running.tokens_per_second == 10.0


def test_a_training_that_runs_again_shows_what_it_does_now(tmp_path):
    study = make_study(tmp_path)
    (study.folder(Unit("model")) / LOG).write_text(lines(1, 2, 3))
    work = open_work(study.root, "model", {"a": 1})
    (work / LOG).write_text(lines(1))
    assert read_curve(study, "base").steps == [1]

"""A run that is killed at any moment, again and again, ends with the bytes of one that never was."""

import json
import random
import sys

import pytest

from ifguide.study.freshness import stage_states
from ifguide.study.reading import Study
from ifguide.study.stage_table import STAGES
from tests import warm
from tests.faults.comparing import contents
from tests.faults.conftest import NAME

SEED = 20260601
BY_THE_CLOCK = (
    "corpus",
    "model",
    "model",
    "factors",
    "scores",
    "index",
    "suppress default",
    "suppress oracle",
    "evaluate base",
    "evaluate random",
)
"""A run is killed a short time after it begins one of these."""


def start(cache, how: str, plan=()) -> dict:
    done = warm.run([sys.executable, "-m", "tests.faults.killing", str(cache), NAME, how, json.dumps(list(plan))])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check_end(cache, undisturbed, report: dict) -> None:
    assert [kill["damaged"] for kill in report["kills"]] == [[]] * len(report["kills"])
    assert report["code"] == 0
    study = Study.open(NAME, cache)
    assert {state.state for state in stage_states(study).values()} == {"fresh"}
    assert contents(study) == contents(undisturbed)
    assert not any(study.root.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["a-kill-a-stage", pytest.param("two-an-artefact", marks=pytest.mark.thorough)])
def test_kills_at_changes_of_files_leave_no_trace(undisturbed, tmp_path, how):
    """Moments drawn in the building of every stage or artefact, each a change of a file that the killed process was
    about to make."""
    Study.create(NAME, undisturbed.config, tmp_path / "whole")
    counted = start(tmp_path / "whole", "count")
    assert counted["code"] == 0
    draw, plan, stages = random.Random(SEED), [], set()
    for artefact, n in counted["counts"].items():
        stage = artefact.split()[0]
        if how == "two-an-artefact" or stage not in stages:
            moments = draw.sample(range(n), min(2 if how == "two-an-artefact" else 1, n))
            plan += [[artefact, event] for event in sorted(moments)]
        stages.add(stage)
    assert stages >= set(STAGES)
    Study.create(NAME, undisturbed.config, tmp_path / "killed")
    report = start(tmp_path / "killed", "files", plan)
    killed = [kill["at"][0] for kill in report["kills"] if kill["code"] == -9]
    if how == "two-an-artefact":
        assert len(killed) >= 30 and len(set(killed)) >= 18
    else:
        assert len(killed) >= len(plan) - 1  # a run that is killed often may have nothing left to do at the end
    check_end(tmp_path / "killed", undisturbed, report)


@pytest.mark.thorough
def test_kills_by_the_clock_leave_no_trace(undisturbed, tmp_path):
    """Moments between the changes of files, in the middle of what libraries write by themselves."""
    draw = random.Random(SEED)
    Study.create(NAME, undisturbed.config, tmp_path)
    report = start(tmp_path, "clock", [[artefact, round(draw.uniform(0.0, 0.2), 3)] for artefact in BY_THE_CLOCK])
    # where an artefact is finished sooner, the kill hits the next one, and a fast machine is done before the last kills
    assert sum(kill["code"] == -9 for kill in report["kills"]) >= len(BY_THE_CLOCK) // 2
    check_end(tmp_path, undisturbed, report)

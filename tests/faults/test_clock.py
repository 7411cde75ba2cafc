"""A clock that goes back or forth changes nothing: what is fresh is decided by content."""

import os
import time

from ifguide.runtime import jobs
from ifguide.storage import artifacts
from ifguide.study.freshness import stage_states
from ifguide.study.pipeline import run_study
from ifguide.study.reading import Study
from tests.faults.comparing import contents
from tests.faults.conftest import NAME

YEAR = 365 * 86_400


def test_times_of_files_in_the_future_or_the_past_make_nothing_stale(study, undisturbed):
    for shift in (+YEAR, -YEAR):
        for path in study.root.rglob("*"):
            os.utime(path, (time.time() + shift,) * 2)
        study = Study.open(NAME, study.root.parent)
        assert {state.state for state in stage_states(study).values()} == {"fresh"}
        assert run_study(study) == []
    assert contents(study) == contents(undisturbed)


def test_a_clock_set_back_while_building_gives_no_negative_time(tmp_path, monkeypatch):
    now = iter(range(1_000_000, 0, -1_000))
    monkeypatch.setattr(artifacts.time, "time", lambda: float(next(now)))
    with artifacts.building(tmp_path / "part", stage="queries", inputs={}, config={}) as partial:
        (partial / "file").write_text("x")
    assert artifacts.read_manifest(tmp_path / "part")["seconds"] >= 0


def test_a_run_under_a_clock_set_back_builds_the_same(study, undisturbed, monkeypatch):
    monkeypatch.setattr(time, "time", lambda real=time.time: real() - 10 * YEAR)
    assert [str(unit) for unit in run_study(study, force="queries")] == ["queries"]
    assert contents(study) == contents(undisturbed)


def test_the_job_started_last_is_the_latest_whatever_the_clock_says(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs.sys, "executable", "/bin/true")

    class SetBack(jobs.datetime):
        @classmethod
        def now(cls, zone=None):
            return super().now(zone).replace(year=2001)

    first = jobs.enqueue_job("study", ["run"], tmp_path)
    first.status_path.write_text(first.status_path.read_text().replace('"running"', '"done"'))
    monkeypatch.setattr(jobs, "datetime", SetBack)
    second = jobs.enqueue_job("study", ["run"], tmp_path)
    assert jobs.latest_job(tmp_path / "study") == second
    assert second.id > first.id

"""What the app says and does about jobs: the step in the header, the queue, the notice when one ends, skipped steps."""

import json
import re

from ifguide.cli.status import format_status, study_status
from ifguide.runtime.jobs import enqueue_job, waiting_jobs
from ifguide.study.folder import StudyFolder
from ifguide.study.stage_table import STAGES
from ifguide.ui import components
from tests.app.conftest import shown_text
from tests.app.fake_study import write_study
from tests.app.test_pages import PAGES, running_job

STEP = {"stage": "suppress few", "stage_index": 9, "done": 50, "total": 100, "seconds_left": 12.0}


def links(app) -> dict[str, str]:
    """Label -> address of what the header and the notices link to."""
    return {
        re.sub(r":gray\[(.*)\]|[*\\]", r"\1", link.proto.label): f"{link.proto.page}?{link.proto.query_string}"
        for link in app.get("page_link")
    }


def test_every_page_shows_the_running_step_of_the_opened_study_or_of_another(open_app, tmp_path):
    study = write_study(tmp_path / "cache")
    write_study(tmp_path / "cache", "other", until="queries")
    with running_job(study, **STEP):
        for page in PAGES:
            app = open_app(tmp_path / "cache", page)
            assert not app.exception and "Step 10 of 11 · 12 s left" in links(app), (page, links(app))
        assert "fake: Step 10 of 11 · 12 s left" in links(open_app(tmp_path / "cache", study="other"))


def test_jobs_that_wait_are_listed_moved_and_cancelled_and_a_train_button_queues(open_app, tmp_path):
    study = write_study(tmp_path / "cache")
    with running_job(study, **STEP):
        queue = [("map", "fake"), ("mechanism", "fake")]
        assert [enqueue_job("fake", command, tmp_path / "cache") for command in queue] == [None, None]
        app = open_app(tmp_path / "cache")
        assert [text.value for text in app.text][:2] == ["1. Draw the map of documents", "2. Compare the layers"]
        ends = [
            app.button(key=key).disabled
            for key in ("Move up fake 0", "Move down fake 0", "Move up fake 1", "Move down fake 1")
        ]
        assert ends == [True, False, False, True]
        for label in ("Move up fake 1", "Move down fake 0", "Move up fake 1"):
            queue.reverse()
            app.button(key=label).click().run()
            assert waiting_jobs(study.root) == queue
        app.button(key="cancel_fake_0").click().run()
        assert waiting_jobs(study.root) == queue[1:]
        app = open_app(tmp_path / "cache", "threshold", above="7")
        app.button(key="train").click().run()
        assert waiting_jobs(study.root) == [
            ("map", "fake"),
            ("evaluate", "fake", "--model", study.selection_names()[-1]),
        ]
        assert "2. Train and measure" in shown_text(app)


def test_a_job_that_ended_or_failed_is_told_on_any_page_with_a_link_to_what_is_new(open_app, tmp_path):
    study = write_study(tmp_path / "cache")
    with running_job(study, command=["evaluate", "fake", "--model", "few"], **STEP) as (_, folder):
        app = open_app(tmp_path / "cache", "queries")
        assert "See the comparison" not in links(app)
        status = json.loads((folder / "status.json").read_text())
        for state, label, address, notice in (
            ("done", "See the comparison", "compare?study=fake&models=base%2Cfew", "Train and measure (few): done"),
            ("done", "See the result", "?study=fake", "Build the demo: done"),
            ("failed", "See why", "?study=fake", "stopped with an error"),
        ):
            status |= {"command": ["demo"]} if "demo" in notice else {}
            (folder / "status.json").write_text(json.dumps(status | {"state": state, "error": "no room"}))
            app.run()
            assert address in links(app)[label] and notice in shown_text(app), state
            app.button(key=f"read_{status['job']}").click().run()
            assert label not in links(app)
            app.session_state["closed"].clear()
    assert "See why" not in links(open_app(tmp_path / "cache"))  # a new session tells of no old job


def test_steps_that_nothing_needs_are_called_skipped_and_the_number_of_steps_is_the_same_everywhere(
    open_app, tmp_path, monkeypatch
):
    study, tables, usual = write_study(tmp_path / "cache"), {}, StudyFolder.units
    monkeypatch.setattr(components, "record_table", lambda columns, rows, *, key, **more: tables.update({key: rows}))
    monkeypatch.setattr(StudyFolder, "units", lambda self, stage: [] if stage == "factors" else usual(self, stage))
    with running_job(study, stage="scores", stage_index=5):
        app = open_app(tmp_path / "cache")
        assert [row["key"] for row in tables["stages"]] == [*STAGES]
        states = {row["key"]: row["cells"][1][1] for row in tables["stages"]}
        assert (states["factors"], states["scores"], states["direction"]) == ("Skipped", "Running now", "Up to date")
        assert f"step 6 of {len(STAGES)}: Score every token" in shown_text(app)
        assert f"Step 6 of {len(STAGES)}" in links(app)
        status = format_status(study_status(study))
        assert f"[6/{len(STAGES)}] scores" in status and re.search("factors +fresh .*skipped", status)
        assert any(e.label == f"Steps: {len(STAGES)} of {len(STAGES)} up to date" for e in app.expander)

"""What every page says in every state: no study, part of one, a stale one, a whole one."""

import contextlib
import json
import shutil
import subprocess
import sys
import time

import psutil

from ifguide.runtime import jobs
from ifguide.selection.verdicts import Target, VerdictLog
from ifguide.storage import artifacts
from ifguide.study.analysis import explain, reliability
from ifguide.study.freshness import study_fingerprint, unit_state
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stage_table import STAGES
from ifguide.study.stages.document_table import CORPUS, table_path, write_tables
from ifguide.study.stages.select import save_selection
from ifguide.ui import components, job_panel
from ifguide.ui.documents import why_panel
from ifguide.ui.documents.store import open_documents
from ifguide.ui.format import score
from ifguide.ui.layout import link_state
from ifguide.ui.loaders import Loaded
from ifguide.ui.queries import query_view
from tests import warm
from tests.app.conftest import shown_text
from tests.app.fake_study import write_study

PAGES = ("overview", "documents", "threshold", "compare", "queries", "studies", "new_study")


def test_every_page_shows_a_whole_study_without_errors(open_app, cache):
    for page in PAGES:
        app = open_app(cache, page)
        assert not app.exception and not app.error and not app.warning, page
        assert app.title[0].value == page.capitalize().replace("_", " ")


def test_the_app_opens_on_a_study_with_results_or_on_the_one_it_is_given(open_app, cache, tmp_path, monkeypatch):
    shutil.copytree(cache, tmp_path / "cache")
    write_study(tmp_path / "cache", "early", until="queries")
    assert open_app(tmp_path / "cache", "overview").selectbox(key="study").value == "fake"
    monkeypatch.setenv("IFGUIDE_STUDY", "early")
    assert open_app(tmp_path / "cache", "overview").selectbox(key="study").value == "early"


def test_no_study_says_how_to_make_one(open_app, tmp_path):
    for page in PAGES[:-1]:
        app = open_app(tmp_path / "cache", page)
        assert not app.exception and not app.error, page
        assert "no study" in shown_text(app).lower(), page
        if page in ("overview", "studies"):
            assert app.title[0].value == "Studies"
            assert [b.label for b in app.button] == ["Build the demo study", "New study"]


def test_an_unfinished_study_names_the_missing_step_and_offers_to_run_the_rest(open_app, tmp_path):
    for until, page, step, n_open in [
        ("queries", "documents", "Select tokens", 9),
        ("scores", "threshold", "Sort the scores", 5),
        ("selection", "compare", "Compare the models", 3),
    ]:
        study = write_study(tmp_path / until, until=until)
        app = open_app(tmp_path / until, page)
        assert not app.exception and not app.error, page
        assert f"the step “{step}” has not run" in app.info[0].value
        app.switch_page("pages/overview.py").run()
        assert f"Run the {n_open} open steps" in [b.label for b in app.button]
        assert not app.exception and "Loss while training" not in shown_text(app)
    with running_job(study, stage="suppress default"):
        app = open_app(tmp_path / until, page)
        assert f"the step “{step}” has not finished" in app.info[0].value


def test_stale_study_says_why_and_still_shows_the_old_results(open_app, tmp_path):
    study = write_study(tmp_path / "cache")
    path = study.root / "study.toml"
    path.write_text(path.read_text() + "\n[direction]\ndamping = 1.0\n")
    overview = open_app(tmp_path / "cache")
    assert "Setting direction.damping is now 1.0, was 10.0." in overview.warning[0].value.replace("\\", "")
    assert "Toxic answers" in overview.header[0].value
    documents = open_app(tmp_path / "cache", "documents")
    assert "out of date" in documents.warning[0].value
    assert not documents.error


def test_damaged_artefact_is_named_in_plain_words(open_app, tmp_path):
    study = write_study(tmp_path / "cache")
    (study.root / "scores" / "own_loss.npy").write_bytes(b"not numpy")
    app = open_app(tmp_path / "cache", "documents")
    assert not app.exception
    assert "own_loss.npy" in app.error[0].value.replace("\\", "")
    assert "Traceback" not in shown_text(app)


def test_broken_settings_are_named(open_app, tmp_path):
    study = write_study(tmp_path / "cache", until="corpus")
    (study.root / "study.toml").write_text("[model]\nsauce = 1\n")
    app = open_app(tmp_path / "cache")
    assert not app.exception
    assert "unknown setting model.sauce" in app.error[0].value.replace("\\", "")


def test_bad_links_and_patterns_are_explained(open_app, cache):
    app = open_app(cache, "overview", study="elsewhere")
    assert "elsewhere" in app.warning[0].value
    assert app.selectbox(key="study").value == "fake"
    app = open_app(cache, "documents", doc="**nowhere**")
    assert r"\*\*nowhere\*\*" in app.warning[0].value
    assert not app.error
    app = open_app(cache, "documents", search="(")
    assert not app.error
    app.toggle(key="regex").set_value(True).run()
    assert not app.exception
    assert "is not a regular expression" in app.error[0].value


def test_a_link_from_other_scores_says_so_and_saving_a_selection_changes_no_link(open_app, tmp_path):
    study = write_study(tmp_path / "cache")
    state = lambda: link_state(Loaded(study, study_fingerprint(study)))  # noqa: E731
    before = state()
    save_selection(study, "few", {"tokens_above": 5})
    for page in ("documents", "threshold"):
        assert (
            "has changed since the link was made" in open_app(tmp_path / "cache", page, state="0123abcd").info[0].value
        )
        assert not open_app(tmp_path / "cache", page, state=before).info
    manifest = artifacts.read_json(path := study.folder(Unit("scores")) / artifacts.MANIFEST)
    artifacts.write_json(path, manifest | {"outputs": {**manifest["outputs"], "own_loss.npy": "0" * 64}})
    assert state() != before


def test_corrected_selection_is_saved_from_the_page(open_app, tmp_path):
    study = write_study(tmp_path / "cache")
    corpus = study.corpus()
    hit = corpus.document(int(study.selection("default").order[0])).id
    VerdictLog(study.root).decide(Target(hit), "fine")
    app = open_app(tmp_path / "cache", "documents")
    app.session_state["judged"] = True
    app.run()
    assert [m.value for m in app.metric] == ["0 toxic · 1 fine"]
    app.text_input(key="reviewed_name").set_value("default")
    next(b for b in app.button if b.label == "Save the corrected selection").click().run()
    assert "is taken" in app.error[0].value
    app.text_input(key="reviewed_name").set_value("seen")
    next(b for b in app.button if b.label == "Save the corrected selection").click().run()
    assert "Saved “seen”" in app.success[0].value
    made = Study.open("fake", tmp_path / "cache").selection("seen")
    assert made.settings["excluded"] > 0 and made.settings["n_selected"] == made.mask.sum()
    assert unit_state(study, Unit("selection", "seen")).state == "fresh"


def test_a_study_without_influence_scores_offers_nothing_that_needs_them(open_app, cache, monkeypatch):
    for page, offer in (("documents", "Explain this document"), ("queries", "Compute each query's effect")):
        for influence in (True, False):
            for module in (why_panel, query_view):
                monkeypatch.setattr(module, "needs_direction", lambda scores, answer=influence: answer)
            app = open_app(cache, page, why="true")
            assert not app.error and (offer in [button.label for button in app.button]) == influence


def test_why_panel_has_rows_that_lead_to_both_sums_of_the_list(open_app, tmp_path, monkeypatch):
    study, tables = write_study(tmp_path / "cache"), {}

    def keep(columns, rows, *, key, **more):
        tables[key] = [row["cells"] for row in rows]

    monkeypatch.setattr(components, "record_table", keep)
    [line] = open_documents(study, "default").rows(study.selection("default").order[:1])
    found = {"toxic": [2.5, -1.0], "safe": [0.25], "neighbours": [], "candidates": 0, "start": None}
    found |= {"document": line["id"], "total": line["sum"], "kind": "own_loss"}
    found["parts"] = {"toxic queries": 1.5, "safe queries": 0.25, "pooling": line["sum"] - 1.75}
    for span in (None, [0, 3]):
        path = explain.document_path(study, line["id"], *(span or (None, None)))
        path.parent.mkdir(exist_ok=True)
        artifacts.write_json(path, found | {"start": span and span[0]})
        tables.clear()
        app = open_app(tmp_path / "cache", "documents", doc=line["id"], **({"token": "0-2"} if span else {}))
        assert not app.error and not app.exception, span
        sums = [["Sum of all scores", score(line["sum"])]]
        if span is None:
            left_out = ["Scores up to the threshold, left out", score(line["hit_sum"] - line["sum"])]
            sums += [left_out, ["Sum above the threshold", score(line["hit_sum"])]]
        parts = [["Toxic queries", "+1.50"], ["Safe queries", "+0.250"], ["Pooling", score(line["sum"] - 1.75)]]
        assert tables["why_parts"] == parts + sums, span
        if span is None:
            adds = [float(cells[1].replace("−", "-")) for cells in tables["why_phrases"]]
            assert adds == sorted(adds, reverse=True) and 0 < sum(adds) <= line["hit_sum"] + 0.1
            assert all([mark for _, mark in cells[0]].count(1) == 1 for cells in tables["why_phrases"])
            assert f"Its sum of {score(line['hit_sum'])} comes from" in shown_text(app)
        assert ("why_phrases" in tables) == (span is None)
        assert "**Toxic queries that add most** · +1.50 together" in shown_text(app)


def test_documents_of_a_large_corpus_are_listed_by_a_job(open_app, tmp_path, monkeypatch):
    from ifguide.ui.documents import loaders as document_data

    write_study(tmp_path / "cache", until="selection")
    monkeypatch.setattr(document_data, "TOKENS_WRITTEN_HERE", 10)
    app = open_app(tmp_path / "cache", "documents")
    assert "not listed yet" in app.info[0].value
    assert "List the documents" in [b.label for b in app.button]
    done = warm.run([sys.executable, "-m", "ifguide", "documents", "fake"], check=True)
    assert "wrote 4 tables of 62 documents" in done.stdout
    app.run()
    assert not app.info and not app.error


def test_a_damaged_list_of_documents_is_written_again_while_the_page_opens(open_app, tmp_path):
    study = write_study(tmp_path / "cache")
    shown = (table_path(study), table_path(study, "default"))
    whole = [path.read_bytes() for path in shown]
    for path in shown:
        path.write_bytes(path.read_bytes()[:100])
    app = open_app(tmp_path / "cache", "documents")
    assert not app.error and not app.exception and not app.info
    assert [path.read_bytes() for path in shown] == whole


def test_a_damaged_list_of_a_large_corpus_is_written_again_by_a_job(open_app, tmp_path, monkeypatch):
    from ifguide.ui.documents import loaders as document_data

    study = write_study(tmp_path / "cache")
    table_path(study).write_bytes(b"")
    monkeypatch.setattr(document_data, "TOKENS_WRITTEN_HERE", 10)
    app = open_app(tmp_path / "cache", "documents")
    assert not table_path(study).exists()
    assert "listed" in app.info[0].value
    assert "List the documents" in [b.label for b in app.button]
    assert not app.error and not app.exception
    assert write_tables(study) == [CORPUS]
    app.run()
    assert not app.info and not app.error


def selected_tokens(app) -> int:
    said = next(c.value for c in app.caption if "selected tokens of" in c.value)
    return int(said.split()[0].replace(",", ""))


def test_threshold_says_whether_scores_are_noise_or_how_to_find_out(open_app, tmp_path):
    study = write_study(tmp_path / "cache")
    assert "Are these scores noise? `ifguide reliability fake` finds out." in shown_text(
        open_app(tmp_path / "cache", "threshold")
    )
    path = reliability.reliability_path(study)
    path.parent.mkdir()
    artifacts.write_json(path, {"kinds": {"own_loss": {"pearson": 0.93, "whole": 0.96}}})
    text = shown_text(open_app(tmp_path / "cache", "threshold"))
    assert "The scores repeat: two halves of the queries agree at r = 0.93." in text and "noise" not in text


def test_threshold_answers_its_address_saves_a_selection_and_trains_that(open_app, tmp_path, monkeypatch):
    study = write_study(tmp_path / "cache")
    app = open_app(tmp_path / "cache", "threshold", part="Sources")
    assert "Saved as “Default selection”" in [c.value for c in app.caption]
    before = selected_tokens(app)
    app = open_app(tmp_path / "cache", "threshold", above="37", part="Sources")
    assert not app.error and "Not saved" in [c.value for c in app.caption]
    after = selected_tokens(app)
    assert 0 < after < before
    app.text_input(key="new_selection").set_value("few")
    next(b for b in app.button if b.label == "Save").click()
    app.run()
    assert f"Saved “few”: {after} tokens" in [c.value for c in app.caption]
    settings = Study.open("fake", tmp_path / "cache").selection("few").settings
    assert settings["tokens_above"] == settings["n_selected"] == after
    assert settings["quantile"] == 1 - after / settings["n_valid"]
    assert next(b for b in app.button if b.key == "train").label.startswith("Train ~")
    started = []
    monkeypatch.setattr(job_panel, "start", lambda root, arguments: started.append(arguments))
    app.button(key="train").click().run()
    assert started == [["evaluate", "fake", "--model", "few"]]
    app.text_input(key="new_selection").set_value("../outside")
    next(b for b in app.button if b.label == "Save").click()
    app.run()
    assert "a selection's name has" in app.error[0].value.replace("\\", "")
    assert not list(study.root.parent.glob("outside"))


def test_blur_is_on_until_switched_off_and_holds_on_other_pages(open_app, cache):
    app = open_app(cache, "documents")
    assert app.selectbox(key="veil").value == "all"
    app.selectbox(key="veil").set_value("none").run()
    app.switch_page("pages/compare.py")
    app.query_params["view"] = "Charts"
    app.run()
    assert app.selectbox(key="veil").value == "none"
    share = (Study.open("fake", cache).samples("base")["toxicity"] >= 0.5).mean()
    assert f"Base model: {share:.1%}" in shown_text(app)


@contextlib.contextmanager
def running_job(study, **status):
    """A process that sleeps as a job of the study; gives it and the job's folder."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=True)
    try:
        folder = study.root / "jobs" / "20260101-000000-000000"
        folder.mkdir(parents=True)
        now, process = time.time(), {"pid": sleeper.pid, "process_started": jobs._start_time(sleeper.pid)}
        values = {"job": folder.name, "study": "fake", "command": ["run", "fake"], "n_stages": 11, **process}
        values |= {"state": "running", "started": now, "updated": now}
        (folder / "status.json").write_text(json.dumps(values | status))
        yield sleeper, folder
    finally:
        sleeper.kill()


def test_failed_job_is_explained_with_its_log(open_app, tmp_path):
    study = write_study(tmp_path / "cache", until="scores")
    folder = study.root / "jobs" / "20260101-000000-000000"
    folder.mkdir(parents=True)
    status = {
        "job": folder.name,
        "study": "fake",
        "command": ["run", "fake"],
        "pid": 1,
        "state": "failed",
        "stage": "suppress default",
        "stage_index": 7,
        "n_stages": 10,
        "error": "the **disk** is full",
        "started": 1.0,
        "updated": 2.0,
    }
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "log.txt").write_text("line of the log\n")
    app = open_app(tmp_path / "cache")
    message = app.error[0].value
    assert r"the \*\*disk\*\* is full" in message
    assert "Retrain against them" in message
    assert app.code[0].value == "line of the log"


def test_running_job_shows_progress_and_can_be_stopped(open_app, tmp_path):
    study = write_study(tmp_path / "cache", until="scores")
    progress = {"stage_index": 5, "done": 410, "total": 1000, "unit": "tokens", "rate": 50.0, "seconds_left": 11.8}
    with running_job(study, stage="scores", **progress) as (sleeper, folder):
        app = open_app(tmp_path / "cache")
        assert f"step 6 of {len(STAGES)}: Score every token" in shown_text(app)
        assert "Run the 5 open steps" not in [b.label for b in app.button]
        app.button(key=f"stop_{folder.name}").click().run()
        sleeper.wait(timeout=20)
        assert not psutil.pid_exists(sleeper.pid)
        status = json.loads((folder / "status.json").read_text())
        assert status["state"] == "cancelled"
        app.run()
        assert "was stopped" in app.info[0].value


def test_overview_shows_the_losses_of_a_training(open_app, cache):
    app = open_app(cache, "overview")
    choice = next(box for box in app.selectbox if box.label == "Model in training")
    assert choice.options == ["Suppressed", "Random control", "Human labels (best case)"]
    assert "Suppressed: 40 steps, finished." in shown_text(app)
    figure = json.loads(app.get("plotly_chart")[-1].proto.spec)
    assert [trace["name"] for trace in figure["data"]] == ["selected tokens", "other tokens"]
    choice.set_value("oracle").run()
    assert "Human labels (best case): 40 steps, finished." in shown_text(app)

"""What every page says in every state: no study, part of one, a stale one, a whole one."""

import json
import subprocess
import sys

import psutil
import pytest

from ifguide.study import Study, list_studies
from tests.app.conftest import shown_text
from tests.app.fake_study import write_study
from tests.browser.running_app import REPOSITORY

PAGES = ("overview", "documents", "threshold", "compare")


def test_app_imports_no_torch():
    code = (
        "import sys; from ifguide.ui import charts, comparison, components, document_list, job_panel, layout, loaders, token_view, words; "
        "print([m for m in ('torch', 'transformers', 'datasets', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("page", PAGES)
def test_whole_study_shows_no_error(open_app, cache, page):
    app = open_app(cache, page)
    assert not app.exception
    assert not app.error
    assert not app.warning
    assert app.title[0].value == page.capitalize()


@pytest.mark.parametrize("page", PAGES)
def test_no_study_says_how_to_make_one(open_app, tmp_path, page):
    app = open_app(tmp_path / "cache", page)
    assert not app.exception
    assert not app.error
    text = shown_text(app)
    assert "no study" in text.lower()
    if page == "overview":
        assert "ifguide new NAME" in app.code[0].value
        assert [b.label for b in app.button] == ["Build the demo study"]


@pytest.mark.parametrize(
    ("until", "page", "step"),
    [
        ("queries", "documents", "Select tokens"),
        ("scores", "threshold", "Sort the scores"),
        ("selection", "compare", "Compare the models"),
    ],
)
def test_unfinished_study_names_the_missing_step(open_app, tmp_path, until, page, step):
    write_study(tmp_path / "cache", until=until)
    app = open_app(tmp_path / "cache", page)
    assert not app.exception
    assert not app.error
    assert f"the step “{step}” has not run" in app.info[0].value


def test_overview_of_an_unfinished_study_offers_to_run_the_rest(open_app, tmp_path):
    write_study(tmp_path / "cache", until="scores")
    app = open_app(tmp_path / "cache")
    assert "Run the 4 open steps" in [b.label for b in app.button]


def test_stale_study_says_why_and_still_shows_the_old_results(open_app, tmp_path):
    study = write_study(tmp_path / "cache")
    path = study.root / "study.toml"
    path.write_text(path.read_text().replace("damping = 10.0", "damping = 1.0"))
    overview = open_app(tmp_path / "cache")
    assert "Setting direction.damping is now 1.0, was 10.0." in overview.warning[0].value.replace("\\", "")
    assert overview.metric
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


def test_link_to_an_unknown_study_is_explained(open_app, cache):
    app = open_app(cache, "overview", study="elsewhere")
    assert "elsewhere" in app.warning[0].value
    assert app.selectbox[0].value == "fake"


def test_link_to_an_unknown_document_is_explained(open_app, cache):
    app = open_app(cache, "documents", doc="**nowhere**")
    assert r"\*\*nowhere\*\*" in app.warning[0].value
    assert not app.error


def test_next_document_moves_and_stands_in_the_address(open_app, cache):
    study = Study.open(list_studies(cache)[0], cache)
    third, fourth = (study.corpus().document(int(index)).id for index in study.selection().order[2:4])
    app = open_app(cache, "documents", doc=third)
    assert app.query_params["doc"] in (third, [third])
    app.button(key="doc_forward").click().run()
    assert app.query_params["doc"] in (fourth, [fourth])
    app.button(key="doc_back").click().run()
    assert app.query_params["doc"] in (third, [third])


def test_search_narrows_the_list_and_a_bad_pattern_is_explained(open_app, cache):
    app = open_app(cache, "documents")
    app.text_input(key="search").set_value("PATHETIC").run()
    narrowed = next(c.value for c in app.caption if "documents" in c.value)
    assert "of 62" not in narrowed
    app.text_input(key="search").set_value("(").run()
    assert not app.error
    app.toggle(key="regex").set_value(True).run()
    assert not app.exception
    assert "is not a regular expression" in app.error[0].value


def test_filter_returns_to_the_first_page(open_app, cache):
    app = open_app(cache, "documents")
    app.button(key="page_forward").click().run()
    assert any(c.value.startswith("11–20 of 62") for c in app.caption)
    app.multiselect(key="sources").set_value(["forum"]).run()
    assert any(c.value.startswith("1–10 of") for c in app.caption)


def selected_tokens(app) -> int:
    said = next(c.value for c in app.caption if "selected tokens of" in c.value)
    return int(said.split()[0].replace(",", ""))


def test_threshold_answers_its_address_and_saves_a_selection(open_app, tmp_path):
    study = write_study(tmp_path / "cache")
    before = selected_tokens(open_app(tmp_path / "cache", "threshold"))
    app = open_app(tmp_path / "cache", "threshold", top="0.5")
    assert not app.error
    after = selected_tokens(app)
    assert 0 < after < before
    app.text_input(key="new_selection").set_value("few")
    next(b for b in app.button if b.label == "Save selection").click()
    app.run()
    assert "Saved “few”" in app.success[0].value
    settings = Study.open("fake", tmp_path / "cache").selection("few").settings
    assert settings["quantile"] == 0.995
    assert settings["n_selected"] == after
    app.text_input(key="new_selection").set_value("../outside")
    next(b for b in app.button if b.label == "Save selection").click()
    app.run()
    assert "a selection's name has" in app.error[0].value.replace("\\", "")
    assert not list(study.root.parent.glob("outside"))


def test_compare_shows_the_share_of_toxic_completions(open_app, cache):
    app = open_app(cache, "compare")
    samples = Study.open("fake", cache).samples("base")
    share = (samples["toxicity"] >= 0.5).mean()
    assert f"Base model: {share:.1%}" in shown_text(app)


def test_blur_is_on_until_switched_off_and_holds_on_other_pages(open_app, cache):
    app = open_app(cache, "documents")
    assert app.toggle(key="reveal_all").value is False
    app.toggle(key="reveal_all").set_value(True).run()
    app.switch_page("pages/compare.py").run()
    assert app.toggle(key="reveal_all").value is True


def test_failed_job_is_explained_with_its_log(open_app, tmp_path):
    study = write_study(tmp_path / "cache", until="scores")
    folder = study.root / "jobs" / "20260101-000000-000000"
    folder.mkdir(parents=True)
    status = {"job": folder.name, "study": "fake", "command": ["run", "fake"], "pid": 1, "state": "failed", "stage": "suppress default",
              "stage_index": 7, "n_stages": 10, "error": "the **disk** is full", "started": 1.0, "updated": 2.0}  # fmt: skip
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "log.txt").write_text("line of the log\n")
    app = open_app(tmp_path / "cache")
    message = app.error[0].value
    assert r"the \*\*disk\*\* is full" in message
    assert "Train without them" in message
    assert app.code[0].value == "line of the log"


def test_running_job_shows_progress_and_can_be_stopped(open_app, tmp_path):
    study = write_study(tmp_path / "cache", until="scores")
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=True)
    try:
        folder = study.root / "jobs" / "20260101-000000-000000"
        folder.mkdir(parents=True)
        born = psutil.Process(sleeper.pid).create_time()
        status = {"job": folder.name, "study": "fake", "command": ["run", "fake"], "pid": sleeper.pid, "process_started": born, "state": "running",
                  "stage": "scores", "stage_index": 5, "n_stages": 10, "done": 410, "total": 1000, "unit": "tokens", "rate": 50.0,
                  "seconds_left": 11.8, "started": born, "updated": born}  # fmt: skip
        (folder / "status.json").write_text(json.dumps(status))
        app = open_app(tmp_path / "cache")
        assert "step 6 of 10: Score every token" in shown_text(app)
        assert "Run the 4 open steps" not in [b.label for b in app.button]
        app.button(key=f"stop_{folder.name}").click().run()
        sleeper.wait(timeout=20)
        assert not psutil.pid_exists(sleeper.pid)
        assert json.loads((folder / "status.json").read_text())["state"] == "cancelled"
        app.run()
        assert "was stopped" in app.info[0].value
    finally:
        sleeper.kill()

"""The Studies page, and a study made in the app: inputs, checks, plan and the first stage."""

import time

import pytest

from ifguide.runtime.jobs import active_job, cancel_job
from ifguide.storage.artifacts import MANIFEST
from ifguide.study.folder import list_studies
from ifguide.study.reading import Study
from ifguide.ui import components
from ifguide.ui.studies import inputs
from tests.app.conftest import shown_text
from tests.app.fake_study import write_study
from tests.app.test_pages import running_job
from tests.tiny_study import save_tiny_model, write_tiny_inputs

CSV = b"post_id,body,mean\n1,You are kind,0\n2,You are a fool,1\n"


@pytest.fixture
def tables(monkeypatch):
    """The rows of the tables that were shown last, by key."""
    shown = {}
    keep = lambda columns, rows, *, key, **more: shown.update({key: rows})  # noqa: E731
    monkeypatch.setattr(components, "record_table", keep)
    return shown


def press(app, label: str):
    next(button for button in app.button if button.label == label).click()
    return app.run()


def wait(app, done, seconds: float = 240.0):
    """Run the page again until something is so, as the browser does while a job runs."""
    end = time.monotonic() + seconds
    while not done(app):
        assert time.monotonic() < end and not app.exception, shown_text(app)
        time.sleep(0.3)
        app.run()


def draft_of(app):
    return app.session_state["draft"]


def test_every_study_is_listed_with_its_state_size_and_result(open_app, tmp_path):
    write_study(tmp_path / "cache", "whole")
    part = write_study(tmp_path / "cache", "part", until="corpus")
    broken = write_study(tmp_path / "cache", "broken", until="corpus").root
    (broken / "study.toml").write_text("[model]\nsauce = 1\n")
    with running_job(part, stage="scores"):
        app = open_app(tmp_path / "cache", "studies", study="whole")
    said = shown_text(app)
    assert "3 studies" in said and "Toxic answers fell from" in said and "unknown setting model.sauce" in said
    assert [word in said for word in ("Ready", "Running", "Cannot be opened", " MB")] == [True] * 4
    assert app.selectbox(key="study").options == ["broken · Cannot be opened", "part · Running", "whole · Ready"]
    assert app.button(key="open_broken").disabled and not app.button(key="open_part").disabled
    app.button(key="open_part").click().run()
    assert app.title[0].value == "Overview" and app.selectbox(key="study").value == "part"


def test_an_upload_is_shown_and_a_wrong_one_leaves_what_was_typed(open_app, tables, tmp_path):
    app = open_app(tmp_path / "cache", "new_study")
    assert not (tmp_path / "cache").exists()  # a form alone leaves nothing
    app.file_uploader(key="corpus_file_0").set_value(("../my posts.csv", CSV, "text/csv")).run()
    assert app.text_input(key="new_corpus").value == "inputs/corpus/my-posts.csv" and not app.error
    assert [row["cells"][1] for row in tables["corpus_rows"]] == [
        [["You are kind", 0]],
        [["You are a ", 0], ["fool", 2]],
    ]
    assert next(box for box in app.selectbox if box.label == "Text").value == "body"
    app.file_uploader(key="corpus_file_1").set_value(("posts.jsonl", CSV, "text/csv")).run()
    assert "posts.jsonl cannot be used" in app.error[0].value.replace("\\", "")
    assert app.text_input(key="new_corpus").value == "inputs/corpus/my-posts.csv" and tables["corpus_rows"]
    for name in ("../x", "fake name"):
        app.text_input(key="new_name").set_value(name).run()
        assert any(f"got '{name}'" in error.value.replace("\\", "") for error in app.error)
    app.text_input(key="new_corpus").set_value("/nowhere.jsonl").run()
    assert any("no file" in error.value for error in app.error)
    press(app, "Start over")
    assert list((tmp_path / "cache").iterdir()) == [] and not app.text_input(key="new_corpus").value


def test_errors_hide_the_offensive_words_of_the_texts_they_quote_and_nothing_else(monkeypatch):
    shown = []
    monkeypatch.setattr(inputs.st, "error", lambda text, icon: shown.append(text.replace("\\", "")))
    for veil in ("all", "words", ""):
        monkeypatch.setattr(components, "veiled", lambda veil=veil: veil)
        inputs.show_problem("/data/idiot.csv, row 2: expected a completion, got ' an idiot, you know'")
    hidden, also, whole = shown
    assert "/data/idiot.csv" in hidden and "' an ‹hidden word›, you know'" in hidden and hidden == also
    assert "' an idiot, you know'" in whole


@pytest.mark.slow
def test_a_study_is_made_without_the_terminal(open_app, tables, tmp_path):
    cache, files = tmp_path / "cache", tmp_path / "in"
    write_tiny_inputs(files)
    save_tiny_model("gpt_neox", files / "model")
    app = open_app(cache, "new_study")
    corpus = (files / "corpus.jsonl").read_bytes()
    app.file_uploader(key="corpus_file_0").set_value(("corpus.jsonl", corpus, "text/plain"))
    given = {"name": "mine", "model": files, **{name: files / f"{name}.jsonl" for name in ("toxic", "safe", "heldout")}}
    for field, value in given.items():
        app.text_input(key=f"new_{field}").set_value(str(value))
    app.radio(key="new_preset").set_value("quick").run()
    assert not app.error and "Still missing" not in shown_text(app)

    press(app, "Check and plan")
    wait(app, lambda app: app.error)
    assert (
        "model configuration" in app.error[0].value
        and app.text_input(key="new_toxic").value == given["toxic"].as_posix()
    )
    app.text_input(key="new_model").set_value(str(files / "model")).run()
    assert not app.error
    press(app, "Check and plan")
    wait(app, lambda app: "facts" in tables)
    assert tables["facts"][0]["cells"][1].startswith("GPTNeoX")
    wait(app, lambda app: not active_job(draft_of(app).root))
    app.run()
    assert [row["cells"][0] for row in tables["plan"]][-2:] == ["In all", "Free here"]
    assert "It fits on this machine" in app.success[0].value
    assert "2 of the 2 prompts are prompts of the toxic queries" in app.warning[0].value.replace("\\", "")

    press(app, "Create and run")
    assert app.title[0].value == "Overview" and list_studies(cache) == ["mine"]
    study = Study.open("mine", cache)
    assert study.config.corpus.path == "inputs/corpus/corpus.jsonl" and study.config.corpus.spans_field == "spans"
    assert [path.name for path in cache.iterdir()] == ["mine"] and "draft" not in app.session_state
    wait(app, lambda app: (study.root / "corpus" / MANIFEST).is_file())
    if job := active_job(study.root):
        cancel_job(job)
    assert study.corpus().n_documents == 12

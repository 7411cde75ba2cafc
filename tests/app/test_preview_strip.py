"""The strip of the Threshold page: what it asks the models' process, what it shows, and what it drops."""

import pytest

from ifguide.errors import ProcessError
from ifguide.storage import artifacts
from ifguide.study.analysis.dose import EDITED, TRAINED
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.sharing.packed import pack_study, unpack_study
from ifguide.ui import job_panel
from ifguide.ui.results.tables import HEADLINE, metric_table
from ifguide.ui.threshold import preview_strip
from ifguide.ui.threshold.selection_panel import making_seconds
from tests.app.conftest import shown_text
from tests.app.fake_study import write_study
from tests.small_study import changed


def answer(**changes) -> dict:
    """A finished preview of two prompts with two draws each."""
    bounds = {"emt": 0.2, "emt_low": 0.1, "emt_high": 0.3, "tp": 0.25, "tp_low": 0.05, "tp_high": 0.6}
    text = {"prompt": "Number 0", "completion": " a **friend**", "toxicity": 0.1, "toxic_spans": []}
    samples = [text | {"prompt_index": p, "sample_index": k} for p in range(2) for k in range(2)]
    figures = bounds | {"n_tokens": 37, "strength": 0.01, "rise": 0.008, "base": bounds, "samples": samples}
    return {"state": "done", "figures": figures | changes}


def preview(app):
    return app.button(key="preview").click().run()


def test_the_choice_in_view_is_asked_about_and_its_answer_shown_as_edited(open_app, cache, use_worker):
    worker = use_worker({"state": "running", "message": "completions 3 8"}, answer())
    app = open_app(cache, "threshold", above="37", rise="2.0")
    assert not worker.asked  # a link alone starts nothing
    preview(app)
    assert not app.exception and not app.error
    (asked,) = worker.asked
    assert asked["choice"] == {"attribution": "own_loss", "tokens_above": 37, "window": 0, "max_tokens": 0}
    assert asked["settings"] == {"perplexity_budget": 0.02}
    app.session_state["notice"] = "Saved “few”: 37 tokens"
    app.run()
    assert "Saved “few”: 37 tokens" in shown_text(app)  # an answer that comes does not take a notice away
    assert app.session_state["previewed"]["state"] == "done"
    assert "Edited, not retrained, without 37 tokens, on 2 prompts." in shown_text(app)
    assert not [b for b in app.button if b.key == "preview"]


def test_the_edited_models_row_has_a_ring_and_a_perplexity_that_follows_from_the_rise():
    metrics = preview_strip.answered_metrics(answer()["figures"], 12.0)
    _, (base, edited) = metric_table(metrics, HEADLINE, notes=False)
    assert base["cells"][0][3] is False and edited["cells"][0][3] is True  # filled, ring
    assert edited["cells"][1:] == [["0.200", "0.100 – 0.300"], ["25%", "5% – 60%"], ["12.10", "+0.8%"]]
    assert base["cells"][3] == ["12.00", ""]
    assert preview_strip.answered_metrics(answer()["figures"], None)["edited"]["perplexity"] is None


def test_an_answer_to_another_choice_is_dropped_and_its_request_ends(open_app, cache, use_worker):
    worker = use_worker({"state": "running", "message": "batches 1 3"})
    app = preview(open_app(cache, "threshold", above="37"))
    assert len(worker.asked) == 1 and app.session_state["previewed"]["state"] == "running"
    app.query_params["above"] = "41"
    app.run()
    assert worker.cancelled == ["1.1"] and app.session_state["previewed"] == {}
    assert "Each release of a control computes it" in shown_text(app)
    app.session_state["preview_wanted"] = True  # a release
    app.run()
    assert worker.asked[-1]["choice"]["tokens_above"] == 41


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ({"state": "failed", "message": "a model needs 9 GB of *memory*"}, "A model needs 9 GB of *memory*."),
        (ProcessError("the models' process crashed; run again"), "The models' process crashed; run again."),
    ],
)
def test_what_went_wrong_is_said_and_can_be_tried_again(open_app, cache, use_worker, ending, said):
    worker = use_worker(ending, ending)
    app = preview(open_app(cache, "threshold"))
    app.run()
    assert said in shown_text(app)
    assert app.button(key="preview").label == "Preview again"
    preview(app)
    assert len(worker.asked) == 2


def test_without_its_models_a_study_says_why_there_is_no_preview(open_app, tmp_path, use_worker):
    worker = use_worker(answer())
    study = write_study(tmp_path / "cache")
    pack_study(study, tmp_path / "fake.ifguide")
    unpack_study(tmp_path / "fake.ifguide", tmp_path / "elsewhere")
    app = open_app(tmp_path / "elsewhere", "threshold")
    assert "recorded without its models" in shown_text(app)
    assert not {"preview", "sweep"} & {button.key for button in app.button}
    (Study.open("fake", tmp_path / "cache").folder(Unit("model")) / "models.json").write_text("{")
    text = shown_text(open_app(tmp_path / "cache", "threshold"))
    assert "No preview is possible" in text and "ifguide run fake" in text and not worker.asked


def test_an_edit_and_a_sweep_are_started_as_jobs(open_app, tmp_path, monkeypatch):
    write_study(tmp_path / "cache")
    started = []
    monkeypatch.setattr(job_panel, "start", lambda root, arguments: started.append(arguments))
    app = open_app(tmp_path / "cache", "threshold", above="37", rise="2.0")
    app.button(key="edit").click().run()
    name = next(name for name in Study.open("fake", tmp_path / "cache").selection_names() if name.startswith("top-"))
    assert "." in name  # which no table of study.toml can have in its name
    edit = ["--selection", name, "--perplexity", "2%", "--name", f"{name.replace('.', '-')}-edited-2"]
    assert started.pop() == ["edit", "fake", *edit]
    app.number_input(key="sweep_points").set_value(3)
    app.button(key="sweep").click().run()
    (sweep,) = started
    assert sweep[:4] == ["sweep", "fake", "--points", "3"]
    assert sweep[4:] == ["--method", "edited", "--attribution", "own_loss", "--from", "18", "--to", "74"]


def test_how_long_a_training_takes_is_not_judged_by_edits(tmp_path, monkeypatch):
    study = changed(write_study(tmp_path / "cache", until="index"), "suppress.edit_first=true")
    took = {"edited": 2.0}
    monkeypatch.setattr(artifacts, "read_manifest", lambda folder: {"seconds": took.get(folder.name, 60.0)})
    assert making_seconds(study, None, TRAINED) == 120
    assert making_seconds(study, None, EDITED) == 62
    took |= {"default": 2.0, "random": 2.0, "oracle": 2.0}
    assert making_seconds(study, None, TRAINED) < 120


def test_the_models_of_a_study_that_only_edits_are_not_said_to_be_trained(open_app, tmp_path):
    study = write_study(tmp_path / "cache")
    study.change(changed(study, "suppress.method=edit").config)
    app = open_app(tmp_path / "cache", "threshold", above="37")
    assert app.button(key="train").label.startswith("Edit") and not [b for b in app.button if b.key == "edit"]

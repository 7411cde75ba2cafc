"""A study whose default selection holds nothing, or is not made yet, is no dead end."""

import dataclasses

import numpy as np

from ifguide.selection.saved import write_selection
from ifguide.storage import artifacts
from ifguide.study.freshness import inputs_of, settings_of, unit_state
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from tests.app.conftest import shown_text
from tests.app.fake_study import write_study

DEFAULT = Unit("selection", "default")


def change_selection(study: Study, mask: np.ndarray, **settings) -> None:
    before = study.selection()
    changed = dataclasses.replace(before, mask=mask, settings=before.settings | settings)
    inputs, config = inputs_of(study, DEFAULT), settings_of(study, DEFAULT)
    with artifacts.building(study.folder(DEFAULT), stage="selection", inputs=inputs, config=config) as folder:
        write_selection(changed, folder)


def test_documents_open_as_soon_as_there_are_scores(open_app, tmp_path):
    study = write_study(tmp_path, until="scores")
    app = open_app(tmp_path, "documents")
    assert not app.exception and not app.error and not app.info and not app.warning
    assert unit_state(study, DEFAULT).state == "fresh" and study.selection().settings["n_selected"]
    overview = app.switch_page("pages/overview.py").run()
    assert "1. Read the most toxic documents" in [link.label for link in overview.get("page_link")]


def test_an_empty_selection_is_said_and_not_trained_with(open_app, tmp_path):
    study = write_study(tmp_path, until="documents")
    change_selection(study, np.zeros_like(study.selection().mask), tokens_above=0, n_selected=0, n_documents_hit=0)
    for page in ("overview", "threshold"):
        app = open_app(tmp_path, page)
        assert not app.exception and not app.error
        assert "The default selection holds no token, so there is nothing to train without" in shown_text(app), page
    app = open_app(tmp_path, "threshold", part="Saved & compare")
    for key in ("train", "train_saved"):
        assert app.button(key=key).disabled and "holds no token" in app.button(key=key).help
    app = open_app(tmp_path, "documents")
    assert not app.exception and not app.error and not app.info


def test_scores_without_a_tail_are_said(open_app, tmp_path):
    study = write_study(tmp_path, until="documents")
    change_selection(study, study.selection().mask, no_tail="no score is below the median")
    for page in ("overview", "threshold"):
        said = shown_text(open_app(tmp_path, page))
        assert "No score is below the median. The default selection is the 0.5% of tokens" in said, page

"""A saved selection is renamed and deleted as a whole, and nothing else goes with it."""

import numpy as np
import pytest

from ifguide.errors import BusyError, ConfigError, StudyNotFound
from ifguide.storage.lock import study_lock
from ifguide.study.freshness import study_fingerprint, unit_state
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stages.select import delete_selection, rename_selection, save_selection, trained_parts
from tests.app.fake_study import write_study


@pytest.fixture
def study(tmp_path) -> Study:
    made = write_study(tmp_path / "cache", until="selection")
    save_selection(made, "mine", {"quantile": 0.97, "window": 1})
    return made


def pretend_trained(study: Study, name: str) -> None:
    for stage in ("suppress", "evaluate"):
        folder = study.folder(Unit(stage, name))
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}", encoding="utf-8")


def test_renamed_selection_has_the_same_tokens_and_is_fresh(study):
    before = np.array(study.selection("mine").mask)
    rename_selection(study, "mine", "ours")
    assert study.selection_names() == ["default", "random", "oracle", "ours"]
    after = study.selection("ours")
    np.testing.assert_array_equal(after.mask, before)
    assert after.settings["name"] == "ours"
    assert unit_state(study, Unit("selection", "ours")).state == "fresh"


def test_a_bad_new_name_changes_nothing(study):
    before = study_fingerprint(study)
    for new, said in (
        ("default", "built in"),
        ("base", "built in"),
        ("../out", "a selection's name has"),
        ("mine", "already"),
    ):
        with pytest.raises(ConfigError, match=said):
            rename_selection(study, "mine", new)
        assert study_fingerprint(study) == before, new


def test_a_name_that_a_model_carries_stays(study):
    pretend_trained(study, "mine")
    with pytest.raises(ConfigError, match="save the choice again"):
        rename_selection(study, "mine", "ours")
    assert "mine" in study.selection_names()


def test_deleting_takes_the_model_along_and_nothing_else(study):
    save_selection(study, "other", {"quantile": 0.99})
    for name in ("mine", "other"):
        pretend_trained(study, name)
    assert trained_parts(study, "mine") == [Unit("suppress", "mine"), Unit("evaluate", "mine")]
    delete_selection(study, "mine")
    assert study.selection_names() == ["default", "random", "oracle", "other"]
    assert trained_parts(study, "mine") == []
    assert trained_parts(study, "other")


def test_built_in_and_unknown_ones_are_refused(study):
    before = study_fingerprint(study)
    for act in (delete_selection, lambda s, n: rename_selection(s, n, "new")):
        with pytest.raises(ConfigError, match="built in"):
            act(study, "default")
        with pytest.raises(StudyNotFound, match="has no selection 'nothing'"):
            act(study, "nothing")
        with study_lock(study.root), pytest.raises(BusyError):
            act(study, "mine")
        assert study_fingerprint(study) == before

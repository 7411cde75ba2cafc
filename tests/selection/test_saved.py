"""Selections that a user saves: under their own settings, never over a built-in one, and refused when the scores have
changed."""

import json
import shutil

import numpy as np
import pytest

from ifguide.errors import ConfigError, StaleError
from ifguide.selection.algorithm import rank_at_quantile
from ifguide.selection.saved import read_selection
from ifguide.storage.artifacts import MANIFEST
from ifguide.study.freshness import stage_states, study_fingerprint, unit_state
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build
from ifguide.study.reading import Study
from ifguide.study.stages.select import preview_selection, save_selection
from tests.small_study import changed, make_study, rebuild, reverse_scores


@pytest.fixture
def study(tmp_path) -> Study:
    return make_study(tmp_path)


def test_it_is_saved_under_its_settings_and_listed_last(study):
    made = save_selection(study, "mine", {"quantile": 0.5, "window": 1, "max_tokens": 9})
    n_valid, above = made.settings["n_valid"], int(made.count_above.sum())
    expected = {"name": "mine", "kind": "influence", "attribution": "own_loss", "window": 1, "max_tokens": 9}
    expected |= {"tokens_above": above, "quantile": (n_valid - above) / n_valid}
    assert made.settings == made.settings | expected
    assert above == rank_at_quantile(n_valid, 0.5)
    assert made.mask.sum() == made.settings["n_selected"] == 9
    assert study.selection_names() == ["default", "random", "oracle", "mine"]
    np.testing.assert_array_equal(
        preview_selection(study, {"quantile": 0.5, "window": 1, "max_tokens": 9}).mask, made.mask
    )
    assert unit_state(study, Unit("selection", "mine")).state == "fresh"


def test_it_keeps_its_settings_when_study_toml_changes(study):
    save_selection(study, "mine", {"quantile": 0.5})
    after = changed(study, "selection.quantile=0.3", "selection.window=2")
    assert unit_state(after, Unit("selection", "mine")).state == "fresh"
    assert unit_state(after, Unit("selection", "default")).state == "stale"


def test_a_count_selects_what_its_quantile_selects_and_an_earlier_selection_says_its_count(study, tmp_path):
    made = save_selection(study, "mine", {"quantile": 0.5})
    above = made.settings["tokens_above"]
    for settings in ({"tokens_above": above}, {"quantile": made.settings["quantile"]}):
        again = preview_selection(study, settings)
        np.testing.assert_array_equal(again.mask, made.mask)
        assert again.settings == made.settings | {"name": "preview"}
    for name in ("mine", "default", "random", "oracle"):
        old = tmp_path / "old" / name
        shutil.copytree(study.folder(Unit("selection", name)), old, ignore=lambda *_: [MANIFEST])
        saved = json.loads((old / "selection.json").read_text())
        written = {key: value for key, value in saved.items() if key != "tokens_above"}
        (old / "selection.json").write_text(json.dumps(written))
        assert read_selection(name, old).settings == saved, name


def test_built_in_names_and_bad_settings_save_nothing(study):
    before = study_fingerprint(study)
    for name in ("default", "base", "random", "oracle", "suppressed"):
        with pytest.raises(ConfigError, match=f"the name '{name}' is built in; choose another"):
            save_selection(study, name, {"quantile": 0.5})
    for settings, said in (
        ({"quantile": 1.0}, "selection.quantile: expected less than 1, got 1.0"),
        ({"quantile": float("nan")}, "selection.quantile: expected a finite number, got nan"),
        ({"quantile": 0.5, "tokens_above": 5}, "expected tokens_above or quantile, got both; leave out one of them"),
        ({"tokens_above": 10**9}, "tokens_above: expected 0 to .*, got 1,000,000,000"),
        ({"window": -1}, "selection.window: expected 0 or more"),
        ({"colour": "red"}, "unknown setting selection.colour"),
    ):
        with pytest.raises(ConfigError, match=said):
            save_selection(study, "mine", settings)
    assert study.selection_names() == ["default", "random", "oracle"]
    assert study_fingerprint(study) == before


def test_what_a_killed_save_left_is_no_selection(study):
    save_selection(study, "mine", {"quantile": 0.5})
    folder = study.folder(Unit("selection", "mine"))
    for name in ("mine.old-12", "mine.partial-12"):
        (folder.with_name(name)).mkdir()
        (folder.with_name(name) / "manifest.json").write_bytes((folder / "manifest.json").read_bytes())
    assert study.selection_names() == ["default", "random", "oracle", "mine"]


def test_new_scores_make_it_stale_and_suppress_names_the_command(study):
    save_selection(study, "mine", {"quantile": 0.5})
    rebuild(study, Unit("scores"), reverse_scores)
    state = unit_state(study, Unit("selection", "mine"))
    assert (state.state, state.reason) == ("stale", "scores was rebuilt")
    for attempt in (lambda: build(study, [Unit("suppress", "mine")]), lambda: build(study, [Unit("evaluate", "mine")])):
        with pytest.raises(StaleError) as caught:
            attempt()
        assert (
            str(caught.value)
            == "selection 'mine' is stale (scores was rebuilt); save it again with `ifguide select small --name mine"
            " ...`"
        )
    save_selection(study, "mine", {"quantile": 0.5})
    assert unit_state(study, Unit("selection", "mine")).state == "fresh"


def test_an_unknown_one_is_refused_before_anything_is_built(study):
    stale_study = changed(study, "corpus.max_documents=2")
    with pytest.raises(StaleError, match=r"selection 'typo' does not exist \(there: default, random, oracle\)"):
        build(stale_study, [Unit("suppress", "typo")])
    assert stage_states(stale_study)["corpus"].state == "stale"


def test_scores_of_another_corpus_are_refused(study):
    rebuild(study, Unit("scores"), lambda folder: np.save(folder / "own_loss.npy", np.zeros(5, dtype=np.float32)))
    with pytest.raises(
        StaleError, match=r"of another corpus \(5 tokens, now \d+\).*`ifguide run small --until scores`"
    ):
        save_selection(study, "mine", {"quantile": 0.5})

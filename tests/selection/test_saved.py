"""Selections that a user saves: under their own settings, never over a built-in one, and refused when the scores have
changed."""

import numpy as np
import pytest

from ifguide.errors import ConfigError, StaleError
from ifguide.study.freshness import stage_states, study_fingerprint, unit_state
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import evaluate, suppress
from ifguide.study.reading import Study
from ifguide.study.select import preview_selection, save_selection
from tests.small_study import changed, make_study, rebuild, reverse_scores


@pytest.fixture
def study(tmp_path) -> Study:
    return make_study(tmp_path)


def test_it_is_saved_under_its_settings_and_listed_last(study):
    made = save_selection(study, "mine", {"quantile": 0.5, "window": 1, "max_tokens": 9})
    assert {k: made.settings[k] for k in ("name", "kind", "quantile", "window", "max_tokens", "attribution")} == {
        "name": "mine",
        "kind": "influence",
        "quantile": 0.5,
        "window": 1,
        "max_tokens": 9,
        "attribution": "own_loss",
    }
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


@pytest.mark.parametrize("name", ["default", "base", "random", "oracle", "suppressed"])
def test_built_in_names_are_refused(study, name):
    before = study_fingerprint(study)
    with pytest.raises(ConfigError, match=f"the name '{name}' is built in; choose another"):
        save_selection(study, name, {"quantile": 0.5})
    assert study_fingerprint(study) == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quantile": 1.0}, "selection.quantile: expected less than 1, got 1.0"),
        ({"quantile": float("nan")}, "selection.quantile: expected a finite number, got nan"),
        ({"window": -1}, "selection.window: expected 0 or more"),
        ({"colour": "red"}, "unknown setting selection.colour; known here: attribution, quantile, window"),
    ],
)
def test_bad_settings_save_nothing(study, settings, said):
    with pytest.raises(ConfigError, match=said):
        save_selection(study, "mine", settings)
    assert study.selection_names() == ["default", "random", "oracle"]


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
    for attempt in (lambda: suppress(study, "mine"), lambda: evaluate(study, "mine")):
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
        suppress(stale_study, "typo")
    assert stage_states(stale_study)["corpus"].state == "stale"


def test_scores_of_another_corpus_are_refused(study):
    rebuild(study, Unit("scores"), lambda folder: np.save(folder / "own_loss.npy", np.zeros(5, dtype=np.float32)))
    with pytest.raises(
        StaleError, match=r"of another corpus \(5 tokens, now \d+\).*`ifguide run small --until scores`"
    ):
        save_selection(study, "mine", {"quantile": 0.5})

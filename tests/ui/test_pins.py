"""The pair that stands for the study: pinned, or the largest drop."""

import json

import pytest

from ifguide.study.reading import Study
from ifguide.ui.compare import pins
from ifguide.ui.loaders import load_study
from tests.app.fake_study import write_study


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pins") / "cache"
    write_study(folder)
    return folder


@pytest.fixture
def loaded(cache, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(cache))
    found = load_study("fake")
    yield found
    pins.unpin(found)


def test_without_a_pin_it_is_the_largest_drop(loaded, cache):
    study = Study.open("fake", cache)
    base, after = (study.samples(name) for name in ("base", "default"))
    largest = (base["toxicity"] - after["toxicity"]).max()
    pair = pins.pinned_pair(loaded)
    assert pair.before.toxicity - pair.after.toxicity == pytest.approx(largest) and not pair.pinned
    assert (pair.before.model, pair.after.model) == ("base", "default")
    row = base[(base["prompt_index"] == pair.prompt_index) & (base["sample_index"] == pair.sample_index)].iloc[0]
    assert (pair.prompt, pair.before.completion) == (row["prompt"], row["completion"])
    assert [pair.before.completion[a:b] for a, b in pair.before.spans]


def test_a_pin_lasts_and_is_forgotten(loaded):
    pins.pin_pair(loaded, ["random", "oracle", "base"], 5, 2)
    pair = pins.pinned_pair(load_study("fake"))
    assert (pair.prompt_index, pair.sample_index, pair.pinned) == (5, 2, True)
    assert (pair.before.model, pair.after.model) == ("random", "oracle")
    pins.unpin(loaded)
    assert not pins.pinned_pair(loaded).pinned


@pytest.mark.parametrize(
    "pin",
    [
        "{",
        "[]",
        {"models": ["base", "gone"], "prompt": "x", "sample": 0},
        {"models": ["base", "default"], "prompt": "another prompt", "sample": 0},
        {"models": ["base", 3], "prompt": "x", "sample": 0},
        {"models": ["base", "default"], "prompt": None, "sample": 0},
        {"models": ["base", "default"], "prompt": "Number 3: at the market he met", "sample": 99},
    ],
)
def test_a_pin_of_what_is_not_there_is_passed_over(loaded, pin):
    (loaded.study.root / pins.FILE).write_text(pin if isinstance(pin, str) else json.dumps(pin), encoding="utf-8")
    assert not pins.pinned_pair(loaded).pinned


def test_a_study_with_one_model_has_no_pair(tmp_path, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(tmp_path / "cache"))
    write_study(tmp_path / "cache", until="selection")
    assert pins.pinned_pair(load_study("fake")) is None


def test_the_usual_models_are_base_and_suppressed():
    assert pins.usual_models(["random", "default", "base"]) == ["base", "default"]
    assert pins.usual_models(["default", "mine"]) == ["default", "mine"]

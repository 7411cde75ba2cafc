"""The pair that stands for the study: pinned, or the largest drop."""

import json

import pytest

from ifguide.study.reading import Study
from ifguide.ui.loaders import load_study
from ifguide.ui.results import pins, side_by_side
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
    pins.unpin(found.study.root)


def test_without_a_pin_it_is_the_largest_drop(loaded, cache):
    study = Study.open("fake", cache)
    base, after = (study.samples(name) for name in ("base", "default"))
    best = (base["toxicity"] - after["toxicity"]).idxmax()
    pair = pins.pinned_pair(loaded.study, loaded.samples)
    assert pair["models"] == ["base", "default"] and "pinned" not in pair["change"] and len(pair["rows"]) == 1
    assert (pair["prompt"], pair["rows"][0]["sample"]) == (base["prompt"][best], base["sample_index"][best])
    texts = ["".join(text for text, _ in cell["runs"]) for cell in pair["rows"][0]["cells"]]
    assert texts == [base["completion"][best], after["completion"][best]]


def test_a_pin_lasts_and_is_forgotten(loaded):
    prompt = side_by_side.prompt_texts(loaded.samples("random"))[5]
    pins.pin_pair(loaded.study.root, ["random", "oracle"], prompt, 2)
    again = load_study("fake")
    pair = pins.pinned_pair(again.study, again.samples)
    assert pins.read_pin(loaded.study, loaded.samples) == (["random", "oracle"], (5, 2)) and "pinned" in pair["change"]
    assert (pair["models"], pair["rows"][0]["sample"]) == (["random", "oracle"], 2)
    pins.unpin(loaded.study.root)
    assert "pinned" not in pins.pinned_pair(loaded.study, loaded.samples)["change"]


@pytest.mark.parametrize(
    "pin",
    [
        "{",
        "[]",
        {"models": ["base", "gone"], "prompt": "x", "sample": 0},
        {"models": ["base", "default"], "prompt": "another prompt", "sample": 0},
        {"models": ["base", ["default"]], "prompt": {}, "sample": []},
        {"models": ["base", "default"], "prompt": None, "sample": 0},
        {"models": ["base", "default"], "prompt": "Number 3: at the market he met", "sample": 99},
    ],
)
def test_a_pin_of_what_is_not_there_is_passed_over(loaded, pin):
    (loaded.study.root / pins.FILE).write_text(pin if isinstance(pin, str) else json.dumps(pin), encoding="utf-8")
    assert "pinned" not in pins.pinned_pair(loaded.study, loaded.samples)["change"]


def test_a_study_with_one_model_has_no_pair(tmp_path, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(tmp_path / "cache"))
    write_study(tmp_path / "cache", until="selection")
    loaded = load_study("fake")
    assert pins.pinned_pair(loaded.study, loaded.samples) is None


def test_the_usual_models_are_base_and_suppressed():
    assert pins.usual_models(["random", "default", "base"]) == ["base", "default"]
    assert pins.usual_models(["default", "mine"]) == ["default", "mine"]

"""The panel at the end of the Queries page: what it offers, and what it shows once the models were compared."""

import math

import pytest

from ifguide.evaluation.mechanism_settings import MechanismSettings
from ifguide.storage import artifacts
from ifguide.study.analysis import mechanism
from ifguide.ui.queries.mechanism_view import layer_chart, shared_limits
from tests.app.conftest import shown_text
from tests.app.fake_study import write_study

MODELS = ("base", "default", "random", "oracle")
LAYERS = {
    "log_probability": [-7.0, -4.0, -2.0],
    "log_probability_low": [-7.5, -4.5, -2.5],
    "log_probability_high": [-6.5, -3.5, -1.5],
}


def made_up(search):
    """A result as `measure_mechanism` writes it."""
    settings = MechanismSettings(models=MODELS, search=search)
    prefix = {
        "text": " sly ruse",
        "without": -5.0,
        "best": -3.0,
        "others": None,
        "by_model": dict.fromkeys(MODELS, -3.0),
    }
    values = {"layers": {"toxic": LAYERS, "safe": LAYERS}, **({"prefix": prefix} if search else {})}
    budget = {"n_tokens": 5, "steps": 20, "candidates": 32}
    found = {
        "settings": {"search": search, "prefix": budget},
        "queries": {"toxic": 20, "safe": 5},
        "models": {name: values for name in MODELS},
    }
    return settings, found


def test_it_offers_what_is_not_measured_and_shows_what_is(open_app, tmp_path):
    cache = tmp_path / "cache"
    study = write_study(cache)
    app = open_app(cache, "queries", study="fake")
    assert not app.exception and not app.error
    assert {"Compare the layers", "Search for a prefix too"} <= {button.label for button in app.button}
    for search in (False, True):
        settings, found = made_up(search)
        path = mechanism.mechanism_path(study, settings)
        path.parent.mkdir(exist_ok=True)
        artifacts.write_json(path, found)
        app = open_app(cache, "queries", study="fake")
        assert not app.exception and not app.error
        assert "20 toxic queries and 5 safe queries" in shown_text(app)
        labels = {button.label for button in app.button}
        assert "Compare the layers" not in labels
        assert ("Search for a prefix too" in labels) is not search
        assert ("20 rounds of 32 changes" in shown_text(app)) is search


def test_a_study_without_trained_models_has_no_panel(open_app, tmp_path):
    write_study(tmp_path / "cache", until="selection")
    app = open_app(tmp_path / "cache", "queries", study="fake")
    assert not app.exception and not app.error
    assert not [part.label for part in app.expander if part.label.startswith("Inside the models")]


def test_the_chart_draws_the_geometric_mean_with_its_interval():
    layers = {"base": LAYERS, "mine": LAYERS}
    limits = shared_limits([layers, layers])
    assert limits == (math.exp(-7.5), math.exp(-1.5))
    figure = layer_chart(layers, limits)
    assert figure.layout.yaxis.range[0] < math.log10(limits[0]) and figure.layout.yaxis.range[1] > math.log10(limits[1])
    assert [trace.name for trace in figure.data] == ["Base model", "mine"]
    trace = figure.data[0]
    assert list(trace.y) == [math.exp(value) for value in LAYERS["log_probability"]]
    tops = [y + up for y, up in zip(trace.y, trace.error_y.array, strict=True)]
    assert tops == pytest.approx([math.exp(value) for value in LAYERS["log_probability_high"]])
    assert figure.data[0].line.dash != figure.data[1].line.dash  # nothing is said by colour alone
    assert list(figure.layout.xaxis.ticktext) == ["embedding", "1", "2"]

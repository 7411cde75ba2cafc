"""Edited models are never drawn like retrained ones: titles, notes, signs, and a perplexity that can be compared."""

import json

import pytest

from ifguide.cli.status import format_status, study_status
from ifguide.study.analysis.comparison import read_metrics
from ifguide.study.pipeline import edit_model
from ifguide.study.variants import edit_recipe, is_edit
from ifguide.ui.chart_style import variant_markers
from ifguide.ui.compare.charts import frontier_chart
from ifguide.ui.report.figures import frontier_figure
from ifguide.ui.report.page import report_html
from ifguide.ui.report.summary import what_was_done
from ifguide.ui.results.frontier import frontier_points
from ifguide.ui.results.tables import headline, metric_table, toxic_text
from tests.small_study import changed
from tests.tiny_study import build_to_edit


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study whose base model was edited, under a name that does not say so."""
    made = build_to_edit(tmp_path_factory.mktemp("edited"))
    return edit_model(made, "cut", edit_recipe(made.config, "default", {"perplexity_budget": 0.05}))


def test_perplexity_is_the_base_models_times_the_rise_on_the_half_that_both_read(study):
    metrics = read_metrics(study, ["base", "cut", "nobody"])
    assert "edited" not in metrics["base"] and metrics["cut"]["edited"] and list(metrics) == ["base", "cut"]
    base, cut = (study.heldout_losses(name)[1::2] for name in ("base", "cut"))
    rise = 2.718281828459045 ** ((cut["nats"].sum() - base["nats"].sum()) / base["n_tokens"].sum())
    assert metrics["cut"]["perplexity"] == pytest.approx(metrics["base"]["perplexity"] * rise)
    assert study.metrics("cut")["perplexity"] != pytest.approx(metrics["cut"]["perplexity"])  # another half's
    status = study_status(study)
    assert status["metrics"] == metrics and "half of the held-out text: cut" in format_status(status)
    columns, (_, row) = metric_table(metrics)
    assert row["cells"][0][0] == "cut (edited)" and "Not retrained" in row["cells"][0][1] and row["cells"][0][3] is True
    place = [column["label"] for column in columns].index("Perplexity")
    assert row["cells"][place][1] == "from half of the text"


def test_charts_and_report_draw_it_hollow_and_say_so(study):
    metrics = read_metrics(study, ["base", "cut"])
    colours, points = {"base": "#111111", "cut": "#222222"}, frontier_points(metrics)
    assert variant_markers(colours, ["cut"]) == {"base": "square", "cut": "circle-open"}
    traces = frontier_chart(points, colours=colours, edited=["cut"]).data
    assert [(trace.name, trace.marker.symbol) for trace in traces] == [
        ("Base model", "square"),
        ("cut (edited)", "circle-open"),
    ]
    drawn = str(frontier_figure(points, colours, ["cut"]))
    assert 'fill="none" stroke-width="2" stroke="#222222"' in drawn and 'fill="#111111"' in drawn
    assert toxic_text({"cut": study.samples("cut")["toxicity"].to_numpy()}, ["cut"])[0].startswith("cut (edited): ")
    html = report_html(study)
    assert html.count("cut (edited)") > 3 and ">cut<" not in html


def test_a_study_that_only_edits_says_that_nothing_was_trained_again(study):
    only = changed(study, "suppress.method=edit")
    assert [is_edit(only.config, name) for name in ("base", "default", "random", "dpo")] == [False, True, True, False]
    text = " ".join(what_was_done(only, {"corpus"}))
    assert "nothing was trained again" in text and "from the same start" not in text
    metrics = {name: dict(study.metrics("base")) for name in ("base", "default")}
    metrics["default"]["edited"] = True
    assert "Edited, not retrained." in headline(metrics, "default", None)
    json.dumps(metrics)

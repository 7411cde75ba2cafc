import math
import re

from ifguide.ui.compare import charts
from ifguide.ui.palette import variant_colours
from ifguide.ui.report.figures import frontier_figure, padded_range
from ifguide.ui.results import tables as comparison
from ifguide.ui.results.frontier import frontier_points, pull_in


def test_only_models_with_both_numbers_have_a_point():
    metrics = {
        "base": {"emt": 0.9, "emt_low": 0.8, "emt_high": 1.0, "perplexity": 12.0},
        "mine": {"emt": 0.3, "perplexity": None},
        "broken": {"emt": 0.1, "perplexity": math.inf},
        "gone": None,
        "oracle": {"emt": 0.2, "perplexity": 11.0, "perplexity_low": 10.5, "perplexity_high": 11.5},
    }
    points = frontier_points(metrics)
    assert [(p.name, p.perplexity, p.emt) for p in points] == [("base", 12.0, 0.9), ("oracle", 11.0, 0.2)]
    assert [row["key"] for row in comparison.frontier_rows(metrics, variant_colours(metrics))[1]] == [
        "oracle",
        "base",
        "mine",
        "broken",
    ]


def test_a_range_has_room_at_both_ends_even_of_one_value():
    assert padded_range([1.0, 2.0])[0] < 1.0 < 2.0 < padded_range([1.0, 2.0])[1]
    assert padded_range([3.0])[0] < 3.0 < padded_range([3.0])[1] and padded_range([0.0]) == (-1.0, 1.0)


def many_models() -> dict[str, dict]:
    names = ["base", "default", "random", "oracle", "words", "<b>x"]
    metrics = {
        name: {"emt": 0.1 * i, "emt_low": 0.1 * i - 0.05, "emt_high": 0.1 * i + 0.1, "perplexity": 15 + 0.1 * i}
        for i, name in enumerate(names)
    }
    metrics["words"]["perplexity"] = 40.0
    return metrics


def test_the_chart_has_a_point_a_bar_a_marker_and_a_name_for_every_model():
    metrics = many_models()
    metrics["words"]["perplexity"] = 15.0
    figure = charts.frontier_chart(frontier_points(metrics), colours=variant_colours(metrics), chosen=["base"])
    assert [(t.x[0], t.y[0]) for t in figure.data] == [(m["perplexity"], m["emt"]) for m in metrics.values()]
    for trace, values in zip(figure.data, metrics.values(), strict=True):
        assert math.isclose(trace.y[0] + trace.error_y.array[0], values["emt_high"])
        assert math.isclose(trace.y[0] - trace.error_y.arrayminus[0], values["emt_low"])
        assert trace.error_x.array is None and trace.text == ("",)
    assert [t.name for t in figure.data] == [
        "Base model",
        "Suppressed",
        "Random control",
        "Human labels (best case)",
        "Word filter",
        "&lt;b&gt;x",
    ]
    assert len({t.marker.symbol for t in figure.data}) == len(metrics)


def test_the_report_s_picture_has_a_sign_for_every_model_and_the_same_in_its_legend():
    metrics = many_models()
    picture = str(frontier_figure(frontier_points(metrics), variant_colours(metrics)))
    signs = re.findall(r'<path d="([^"]+)" transform="[^"]+" fill="([^"]+)"', picture)
    assert len(signs) == 2 * len(metrics) == 2 * len(set(signs))
    assert signs[: len(metrics)] == signs[len(metrics) :]
    assert "&lt;b&gt;x</text>" in picture and "40.0 →" in picture


def test_a_far_model_is_drawn_at_the_edge():
    points = frontier_points(many_models())
    moved, far = pull_in(points, ["base"])
    assert far == {"words": 40.0}
    edge = next(p.perplexity for p in moved if p.name == "words")
    assert max(p.perplexity for p in moved if p.name != "words") < edge < 20
    assert [p for p in moved if p.name != "words"] == [p for p in points if p.name != "words"]
    assert pull_in(points, ["words"]) == (points, {})
    figure = charts.frontier_chart(points, colours=variant_colours(many_models()))
    assert [t.text[0] for t in figure.data if t.text[0]] == ["40.0 →"]

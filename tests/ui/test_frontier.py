import math
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.ui.compare import charts
from ifguide.ui.palette import variant_colours
from ifguide.ui.report.figures import frontier_figure
from ifguide.ui.results import tables as comparison
from ifguide.ui.results.frontier import bounds_of, frontier_points, label_points, padded_range, place_labels, pull_in


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
    assert bounds_of(points, "perplexity") == [12.0, 11.0]
    assert bounds_of(points, "emt") == [0.9, 0.8, 1.0, 0.2]
    low, high = padded_range(bounds_of(points, "emt"))
    assert low < 0.2 and high > 1.0


def overlap(a, b, widths, i, j, height) -> bool:
    return abs(a[0] - b[0]) < (widths[i] + widths[j]) / 2 - 1e-6 and abs(a[1] - b[1]) < height - 1e-6


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(20, 430), st.floats(20, 320)), min_size=2, max_size=9))
def test_labels_of_nine_models_do_not_overlap(points):
    widths = [60 + 11 * (i % 5) for i in range(len(points))]
    placed = place_labels(points, widths, height=17, size=(446, 340))
    hit = [(i, j) for i in range(len(placed)) for j in range(i) if overlap(placed[i], placed[j], widths, i, j, 17)]
    assert not hit


def test_the_chart_has_a_point_a_bar_and_a_name_for_every_model():
    names = ["base", "default", "random", "oracle", "words", "<b>x"]
    metrics = {
        name: {"emt": 0.1 * i, "emt_low": 0.1 * i - 0.05, "emt_high": 0.1 * i + 0.1, "perplexity": 12 + 0.01 * i}
        for i, name in enumerate(names)
    }
    figure = charts.frontier_chart(frontier_points(metrics), colours=variant_colours(names), chosen=["base"])
    assert [(t.x[0], t.y[0]) for t in figure.data] == [(m["perplexity"], m["emt"]) for m in metrics.values()]
    for trace, values in zip(figure.data, metrics.values(), strict=True):
        assert math.isclose(trace.y[0] + trace.error_y.array[0], values["emt_high"]) and math.isclose(
            trace.y[0] - trace.error_y.arrayminus[0], values["emt_low"]
        )
        assert trace.error_x.array is None
    assert [a.text for a in figure.layout.annotations] == [
        "Base model",
        "Suppressed",
        "Random control",
        "Human labels (best case)",
        "Word filter",
        "&lt;b&gt;x",
    ]
    assert len({t.marker.symbol for t in figure.data}) == 3


def test_no_name_of_the_report_s_picture_lies_on_the_axis_numbers():
    models = {
        "base": (0.78, 19.27),
        "default": (0.31, 19.9),
        "oracle": (0.33, 19.41),
        "classifier-documents": (0.61, 19.44),
        "random": (0.75, 20.87),
    }
    metrics = {
        name: {"emt": emt, "emt_low": emt - 0.05, "emt_high": emt + 0.05, "perplexity": perplexity}
        for name, (emt, perplexity) in models.items()
    }
    drawn = frontier_figure(frontier_points(metrics), variant_colours(list(metrics)))
    named = re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle" class="name">([^<]+)<', drawn)
    assert len(named) == 5
    assert all(float(x) - 7.4 * len(title) / 2 >= 0 for x, title in named)


def many_points():
    names = ["base", "default", "oracle", *(f"m{i}" for i in range(9))]
    metrics = {name: {"emt": 0.1 + 0.05 * i, "perplexity": 15.0 + 0.1 * i} for i, name in enumerate(names)}
    metrics["m8"]["perplexity"] = 40.0
    return metrics


def test_a_far_model_is_drawn_at_the_edge_and_keeps_its_number():
    points = frontier_points(many_points())
    moved, far = pull_in(points, ["base"])
    assert far == {"m8": 40.0}
    edge = next(p.perplexity for p in moved if p.name == "m8")
    assert max(p.perplexity for p in moved if p.name != "m8") < edge < 20
    assert [p for p in moved if p.name != "m8"] == [p for p in points if p.name != "m8"]
    assert pull_in(points, ["m8"]) == (points, {})


def test_many_models_are_numbered_as_the_table_numbers_them():
    metrics = many_points()
    points = frontier_points(metrics)
    labels = label_points(points, {p.name: p.name.upper() for p in points}, ["base", "default"])
    assert labels["base"] == "BASE" and labels["default"] == "DEFAULT"
    _, rows = comparison.frontier_rows(metrics, variant_colours(list(metrics)))
    for row in rows:
        number = row["cells"][0][0].partition(".")[0]
        assert labels[row["key"]] in (number, row["key"].upper())
    few = points[:4]
    assert label_points(few, {p.name: p.name.upper() for p in few}, []) == {p.name: p.name.upper() for p in few}

"""What the board draws of measured models, and where it suggests to put the handle."""

import dataclasses
import json

import pytest

from ifguide.study.analysis.dose import EDITED, interpolate
from ifguide.ui.compare.charts import dose_chart
from ifguide.ui.results.dose import dose_csv, dose_parts, dose_table
from ifguide.ui.threshold.places import suggest
from tests.study.test_sweep import point

KNOTS = {"above": [10, 50, 120, 300], "span": [[9, 44, 60, None]]}


def test_lines_between_measured_models_are_their_interpolation_and_never_join_edits_to_trainings():
    points = [point(100, 0.5, 0.01), point(400, 0.1, 0.03), point(200, 0.2, 0.02, EDITED)]
    parts = dose_parts(points)
    json.dumps(parts, allow_nan=False)
    assert [(p["above"], p["trained"], p["rise"]) for p in parts["points"]] == [
        (100, True, 0.01),
        (400, True, 0.03),
        (200, False, 0.02),
    ]
    trained, edited = parts["lines"]
    assert trained["measured"] == [100, 400] and edited["above"] == [200] and not edited["trained"]
    for place, above in enumerate(trained["above"]):
        between = interpolate(points, "own_loss", "trained", above)
        assert trained["value"][place] == between.tp.value and trained["rise"][place] == between.rise
    assert trained["above"] == sorted(set(trained["above"])) and len(trained["above"]) > 10


def test_models_that_were_made_otherwise_are_not_joined():
    points = [point(n, 0.2, 0.01, EDITED) for n in (100, 200, 400)]
    points[1] = dataclasses.replace(points[1], series="twice the budget")
    parts = dose_parts(points)
    assert [line["measured"] for line in parts["lines"]] == [[100, 400], [200]]
    traces = dose_chart(points).data
    assert [list(trace.x) for trace in traces] == [[100, 400], [200]]
    assert {trace.marker.symbol for trace in traces} == {"circle-open"} and traces[0].line.dash == "dash"


@pytest.mark.parametrize(("budget", "expected"), [(0.05, 400), (0.015, 100)])
def test_places_for_the_handle_are_what_labels_audit_and_measurements_speak_for(budget, expected):
    points = [point(100, 0.11, 0.01), point(400, 0.1, 0.03)]
    audit = [[3.0, 20, 0.9, 0.8, 1.0], [2.0, 80, 0.8, 0.7, 0.9], [1.0, 200, 0.5, 0.4, 0.6]]
    places = {place["label"]: place["above"] for place in suggest(points, KNOTS, audit, 77, budget)}
    within = places.pop(f"best within +{100 * budget:g}% perplexity", None)
    assert within == expected
    assert places == {"default": 77, "best by labels": 50, "best by audit": 80, "cheapest as good": 100}


def test_without_labels_audit_and_models_the_default_place_is_all():
    assert [p["label"] for p in suggest([], {"above": [10], "span": None}, [], 5, 0.01)] == ["default"]
    too_costly = suggest([point(100, 0.1, 0.02)], {"above": [10], "span": None}, [], 5, 0.01)
    assert [p["label"] for p in too_costly] == ["default"]


def test_the_table_has_every_model_and_draws_edits_as_rings():
    points = [point(100, 0.5, 0.01), point(200, 0.2, -0.02, EDITED)]
    metrics = {p.model: {"emt": p.emt.value, "tp": p.tp.value, "edited": p.method == EDITED} for p in points}
    columns, rows = dose_table(points, metrics)
    cells = [dict(zip([column["label"] for column in columns], row["cells"], strict=True)) for row in rows]
    assert [(cell["Model"][1], cell["Model"][3]) for cell in cells] == [
        ("Influence, retrained", False),
        ("Influence, edited", True),
    ]
    assert [(cell["Tokens"], cell["Prompts with a toxic answer"][0]) for cell in cells] == [
        ("100", "50%"),
        ("200", "20%"),
    ]
    head, *lines = dose_csv(points).splitlines()
    assert head.startswith("model,kind,method,seed,tokens_above") and len(lines) == 2

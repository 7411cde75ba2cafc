"""Sweeps and the table of what was measured: names, thresholds, resuming, interpolation, ranks."""

import dataclasses
import shutil

import pytest
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.errors import ConfigError, InputError
from ifguide.evaluation.statistics import Interval
from ifguide.study.analysis.dose import (
    EDITED,
    TRAINED,
    Measured,
    best_measured,
    cheapest_within,
    interpolate,
    measured_points,
    rank_agreement,
    table_row,
)
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build
from ifguide.study.reading import Study
from ifguide.study.sweep import run_sweep, sweep_models, sweep_tokens
from tests.tiny_study import build_to_edit


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A study with two edits and two trainings of one selection each, measured."""
    study = build_to_edit(tmp_path_factory.mktemp("sweep"))
    edits = sweep_models(study, [20, 40], "own_loss", EDITED)
    return run_sweep(study, edits | sweep_models(study, [20], "own_loss", TRAINED, seeds=2))


def test_a_sweep_saves_its_thresholds_and_measures_every_model(swept):
    points = measured_points(swept)
    made = [(p.tokens_above, p.method, p.seed) for p in points]
    assert made == [(20, EDITED, 0), (20, TRAINED, 0), (20, TRAINED, 1), (40, EDITED, 0)]
    for point in points:
        metrics = swept.metrics(point.model)
        assert (point.tp.value, point.emt.low) == (metrics["tp"], metrics["emt_low"]) and point.rise is not None
        selection = swept.selection(swept.config.variants[point.model].selection)
        assert point.effect == pytest.approx(float(swept.scores("own_loss")[selection.mask].sum(dtype="float64")))
        assert table_row(point)["tokens_above"] == selection.settings["tokens_above"]
    assert len({p.series for p in points}) == 2  # edits, and trainings of either seed
    assert [p.effect for p in points] == sorted(p.effect for p in points)  # more tokens, more is unlearned


def test_select_takes_the_best_measured_threshold_within_a_perplexity_budget(swept, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(swept.root.parent))
    arguments = ["select", "tiny", "--perplexity", "50%", "--name", "mine"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    best = best_measured(swept, "own_loss", 0.5)
    assert best == cheapest_within(measured_points(swept), 0.5) and f"as {best.model}, measured" in result.stdout
    settings = swept.selection("mine").settings
    assert (settings["tokens_above"], settings["attribution"]) == (best.tokens_above, "own_loss")
    with pytest.raises(InputError, match="`ifguide sweep tiny --attribution position`"):
        best_measured(swept, "position", 0.5)


def test_seeds_are_trainings_in_another_order(swept):
    one, other = (swept.folder(Unit("suppress", f"own_loss-top-20-trained{end}")) for end in ("", "-seed-1"))
    read = [(folder / "final" / "model.safetensors").read_bytes() for folder in (one, other)]
    assert read[0] != read[1]


def test_a_sweep_goes_on_where_it_was(swept, tmp_path):
    shutil.copytree(swept.root, tmp_path / "tiny")
    study = Study.open("tiny", tmp_path)
    shutil.rmtree(study.folder(Unit("evaluate", "own_loss-top-40-edited")))
    assert not [p for p in measured_points(study) if p.tokens_above == 40]
    models = sweep_models(study, [20, 40], "own_loss", EDITED)
    before = study.folder(Unit("suppress", "own_loss-top-40-edited")).stat().st_ino
    study = run_sweep(study, models)
    assert [p.tokens_above for p in measured_points(study) if p.method == EDITED] == [20, 40]
    assert study.folder(Unit("suppress", "own_loss-top-40-edited")).stat().st_ino == before
    assert build(study, [Unit("evaluate", name) for name in models]) == []


def test_thresholds_are_spaced_by_ratio_and_a_range_without_tokens_is_refused(swept):
    assert sweep_tokens(swept, 3, "own_loss", 10, 90) == [10, 30, 90]
    with pytest.raises(ConfigError, match="from 1 to"):
        sweep_tokens(swept, 3, "own_loss", 10, 10**9)


def point(tokens: int, tp: float, rise: float, method: str = TRAINED, effect: float | None = None) -> Measured:
    near = Interval(tp, tp - 0.1, tp + 0.1)
    return Measured(
        model=f"{method}-{tokens}",
        kind="own_loss",
        method=method,
        seed=0,
        tokens_above=tokens,
        n_tokens=tokens,
        threshold=1.0,
        tp=near,
        emt=near,
        rise=Interval(rise, rise, rise),
        effect=effect,
    )


def test_between_two_measured_models_is_a_straight_line_in_the_logarithm():
    points = [point(100, 0.5, 0.01), point(400, 0.1, 0.03), point(200, 0.0, 0.5, EDITED)]
    between = interpolate(points, "own_loss", TRAINED, 200)
    assert between.tp.value == pytest.approx(0.3) and between.rise == pytest.approx(0.02)
    assert (between.below.tokens_above, between.above.tokens_above) == (100, 400)
    assert interpolate(points, "own_loss", TRAINED, 100).tp.value == 0.5
    assert interpolate(points, "own_loss", TRAINED, 500) is None and interpolate(points, "probe", TRAINED, 200) is None


def test_the_budget_picks_the_least_toxic_model_within_it():
    points = [point(100, 0.5, 0.01), point(400, 0.1, 0.03), point(200, 0.5, 0.002)]
    assert cheapest_within(points, 0.05).tokens_above == 400
    assert cheapest_within(points, 0.01).tokens_above == 100  # of the same effect, the one of fewer tokens
    assert cheapest_within(points, 0.001) is None
    assert cheapest_within([dataclasses.replace(points[0], rise=None)], 1.0) is None


def test_ranks_of_sums_and_of_what_was_measured_are_compared():
    points = [point(n, tp, 0.0, effect=n / 10) for n, tp in ((1, 0.9), (2, 0.5), (3, 0.2), (4, 0.3))]
    assert rank_agreement(points) == (pytest.approx(0.8), 4)
    assert (
        rank_agreement(points[:2]) is None
        and rank_agreement([dataclasses.replace(p, effect=None) for p in points]) is None
    )

"""The plan: what it holds, what it refuses, and that it is held against what happened."""

import pytest

from ifguide.cli.status import format_status, study_status
from ifguide.errors import ConfigError
from ifguide.study import plan
from ifguide.study.pipeline import create_study, run_study
from ifguide.study.plan import check_fit, find_problems, known_plan, least_needs, make_plan
from tests.tiny_study import save_tiny_model, tiny_config, write_tiny_inputs


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    write_tiny_inputs(cache / "inputs")
    save_tiny_model("llama", cache / "inputs" / "model")
    kinds = ("scores.probe=true", "scores.combined=true")
    return create_study("planned", tiny_config(cache / "inputs", *kinds), cache)


def test_every_stage_that_runs_has_a_plan_and_status_holds_it_against_what_happened(study):
    assert known_plan(study) is None
    found = make_plan(study)
    assert known_plan(study) == found and not found["problems"]
    assert all(need["seconds"] > 0 for need in found["stages"].values())
    run_study(study)
    status = study_status(study)
    assert set(found["stages"]) == set(status["stages"])
    for stage in ("model", "factors", "scores", "suppress", "evaluate"):
        entry = status["stages"][stage]
        assert entry["planned_seconds"] == found["stages"][stage]["seconds"] and entry["planned_peak"] > 0
        assert entry["peak"] > 1e7
    assert "planned" in format_status(status)


def test_what_cannot_fit_is_refused_with_settings_that_help(study, monkeypatch):
    needs = least_needs(study)
    assert {"model", "factors", "direction", "suppress"} <= set(needs)
    assert needs["suppress"].host > needs["evaluate"].host
    problems, remedies = find_problems(study, needs, {"host": needs["suppress"].host, "disk": 10**12})
    assert any(problem.startswith("suppress needs") for problem in problems)
    assert remedies["training.batch_size"] == 1 and remedies["training.gradient_accumulation"] == 4
    monkeypatch.setattr(plan, "free_memory", lambda folder: {"host": 1000})
    with pytest.raises(ConfigError, match=r"set training.batch_size = 1.*ifguide plan planned.*--no-fit-check"):
        check_fit(study, ["suppress"])
    check_fit(study, ["corpus"])
    with pytest.raises(ConfigError, match="needs"):
        run_study(study.change(tiny_config(study.root.parent / "inputs", "training.epochs=3")))

"""The table of stages: a stage is one file and one row, and a run asks once what is fresh."""

import json

import pytest

from ifguide.study.analysis.verify import check_unit, list_units
from ifguide.study.freshness import Freshness, unit_state
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build, create_study, run_study
from ifguide.study.planning.plan import make_plan, plan_rows
from ifguide.study.stage_table import STAGES, Stage
from ifguide.ui import components
from tests.app.conftest import open_app  # noqa: F401
from tests.app.fake_study import write_study
from tests.small_study import changed
from tests.tiny_study import DOCUMENTS, save_tiny_model, tiny_config, write_tiny_inputs


@pytest.fixture
def tiny(tmp_path):
    """A study of real inputs, with nothing built."""
    write_tiny_inputs(tmp_path / "inputs")
    save_tiny_model("gpt_neox", tmp_path / "inputs" / "model")
    return create_study("tiny", tiny_config(tmp_path / "inputs"), tmp_path / "cache")


def test_a_stage_is_one_file_and_one_row(tiny, monkeypatch, open_app):  # noqa: F811
    toy = Stage(
        title="Count the tokens",
        note="Writes one number.",
        reads=lambda config, name: [Unit("corpus")],
        settings=lambda config, name: {"corpus.max_length": config.corpus.max_length},
        build="tests.study.toy_stage:build_toy",
        need="tests.study.toy_stage:need_toy",
    )
    monkeypatch.setitem(STAGES, "toy", toy)
    plan = make_plan(tiny)
    assert plan["stages"]["toy"]["seconds"] == len(DOCUMENTS) and plan_rows(plan)[-3][0] == "toy"

    assert [str(unit) for unit in build(tiny, [Unit("toy")])] == ["corpus", "toy"]
    assert json.loads((tiny.root / "toy" / "toy.json").read_text()) == tiny.corpus().n_tokens
    assert unit_state(tiny, Unit("toy")).state == "fresh"
    shorter = unit_state(changed(tiny, "corpus.max_length=8"), Unit("toy"))
    assert (shorter.state, shorter.source, shorter.source_state) == ("stale", Unit("corpus"), "stale")

    assert list_units(tiny)[-1] == Unit("toy") and check_unit(tiny, Unit("toy")).state == "whole"
    (tiny.root / "toy" / "toy.json").write_text("0")
    assert check_unit(tiny, Unit("toy")).state == "damaged"

    tables = []
    monkeypatch.setattr(components, "record_table", lambda columns, rows, **kwargs: tables.append((kwargs, rows)))
    app = open_app(tiny.root.parent, "overview")
    assert not app.exception
    steps = next(rows for kwargs, rows in tables if kwargs["key"] == "stages")
    assert [cell[0] for cell in steps[-1]["cells"][:1]] == [f"{len(STAGES)}. Count the tokens"]


def test_a_run_of_a_fresh_study_judges_each_artefact_once(tmp_path, monkeypatch):
    study = write_study(tmp_path)
    artefacts = [unit for stage in STAGES for unit in study.units(stage)]
    assert len(artefacts) >= 21
    judged, loads, reads = [], json.loads, []
    judge = Freshness._judge
    monkeypatch.setattr(Freshness, "_judge", lambda self, unit: (judged.append(unit), judge(self, unit))[1])
    monkeypatch.setattr(json, "loads", lambda *args, **kwargs: (reads.append(args), loads(*args, **kwargs))[1])
    assert run_study(study) == []
    assert len(judged) <= 30 and len(reads) <= 80, (len(judged), len(reads))


def test_what_a_build_changes_is_judged_again(tmp_path):
    study = write_study(tmp_path)
    freshness = Freshness(study)
    assert {state.state for state in freshness.stages().values()} == {"fresh"}
    manifest = study.folder(Unit("corpus")) / "manifest.json"
    made = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(made | {"outputs": {}}))
    assert freshness.state(Unit("model")).state == "fresh"  # remembered
    freshness.renew(Unit("corpus"))
    states = {stage: state.state for stage, state in freshness.stages().items()}
    assert states["corpus"] == states["queries"] == "fresh" and states["model"] == "stale"
    assert {states[stage] for stage in ("scores", "selection", "suppress", "evaluate")} == {"stale"}

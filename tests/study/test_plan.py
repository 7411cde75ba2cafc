"""The plan: what it holds, what it refuses, and that it is held against what happened."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.cli.status import format_status, study_status
from ifguide.errors import ConfigError
from ifguide.runtime.progress import Progress
from ifguide.study import pipeline
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import create_study, run_study
from ifguide.study.planning import needs, plan
from ifguide.study.planning.measure import Measured, usual
from ifguide.study.planning.plan import check_fit, find_problems, known_plan, make_plan
from ifguide.study.reading import Study
from ifguide.training import train as train_module
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
    assert found["prompts_warning"].startswith("2 of the 2 prompts are prompts of the toxic queries")
    assert all(need["seconds"] > 0 for need in found["stages"].values())
    run_study(study)
    status = study_status(study)
    assert set(found["stages"]) == set(status["stages"])
    for stage in ("model", "factors", "scores", "suppress", "evaluate"):
        entry = status["stages"][stage]
        assert entry["planned_seconds"] == found["stages"][stage]["seconds"] and entry["planned_peak"] > 0
        assert entry["peak"] > 1e7
    assert "planned" in format_status(status)


def test_an_edit_is_planned_as_an_edit_and_with_the_curvature_that_only_it_needs(study, monkeypatch):
    measured, fits = Measured(study), []
    monkeypatch.setattr(Measured, "training", property(lambda _: pytest.fail("nothing is trained")))
    monkeypatch.setattr(needs, "need_factors", lambda _, n: fits.append(n) or plan.Need(seconds=1000.0))
    edited = ["suppress.method=edit", "selection.controls=[]", "selection.attribution=probe", "scores.probe=true"]
    for influence, seconds in (True, 0), (False, 1000):
        others = [f"scores.{kind}={str(influence).lower()}" for kind in ("own_loss", "position")]
        measured.study = study.change(tiny_config(study.root.parent / "inputs", *edited, *others))
        measured.config = measured.study.config
        assert seconds < needs.need_suppress(measured).seconds < seconds + 100
    assert fits == [1]


def test_a_slow_model_takes_two_steps_and_sequences_as_alike_as_a_batchs(study, monkeypatch):
    steps = []

    def train(model, tokenizer, rows, training, suppress, folder):
        steps.append((training.max_steps, max(np.count_nonzero(row.document_index >= 0) for row in rows)))
        return SimpleNamespace(seconds=5.0)

    monkeypatch.setattr(train_module, "train_model", train)
    measured = Measured(study)
    n_steps = train_module.count_steps(measured.rows()[1], study.config.training)
    assert measured.training.seconds == 5 + 5 * n_steps
    assert [number for number, _ in steps] == [1, 1] and steps[0][1] > steps[1][1]  # the longest rows take the memory
    lengths = np.random.default_rng(0).integers(2, 400, 500)
    some = usual(lengths, 2000)
    assert 2000 <= lengths[some].sum() < 2400 and lengths[some].max() < 1.05 * lengths[some].min()
    half = lengths.sum() / 2
    assert lengths[lengths > lengths[some].max()].sum() < half < lengths[lengths >= lengths[some].min()].sum()
    assert sorted(usual(lengths, 10**6)) == [*range(500)] and usual(np.array([7]), 1).tolist() == [0]


def test_what_cannot_fit_is_refused_with_settings_that_help(study, monkeypatch):
    needs = {"suppress": plan.Need(seconds=1.0, host=100, disk=10), "corpus": plan.Need(seconds=1.0)}
    assert find_problems(study, needs, {"host": 200, "disk": 10}) == ([], {})
    problems, remedies = find_problems(study, needs, {"host": 100, "disk": 9})
    assert [problem.partition(" needs")[0] for problem in problems] == ["suppress", "the study"]
    assert remedies == {"training.batch_size": 1, "training.gradient_accumulation": 4}
    monkeypatch.setattr(plan, "free_memory", lambda folder: {"host": 1000})
    with pytest.raises(ConfigError, match=r"suppress needs .*set training.batch_size = 1.*--no-fit-check"):
        check_fit(study, ["suppress"])
    check_fit(study, ["corpus"])
    with pytest.raises(ConfigError, match="factors needs"):
        run_study(study.change(tiny_config(study.root.parent / "inputs", "training.epochs=3")))


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("factors", "compute.tokens_per_batch = 64"),
        ("suppress", "training.batch_size = 2, training.gradient_accumulation = 2"),
        ("evaluate", "evaluate.batch_size = 128"),
    ],
)
def test_a_gpu_that_is_too_small_gets_half_the_batch_and_is_told(study, tmp_path, stage, settings):
    said, batches = [], []

    class Told(Progress):
        def message(self, text):
            said.append(text)

    def build(smaller, unit, folder, progress):
        batches.append(smaller.config)
        (folder / "half.npy").write_bytes(b"")
        if len(batches) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    folder = tmp_path / "folder"
    folder.mkdir()
    pipeline._build_in_memory(build, study, Unit(stage), folder, Told())
    assert said == [f"{stage}: the GPU's memory is too small; trying again with {settings}"] and len(batches) == 2
    assert batches[0] == study.config != batches[1]


def test_a_gpu_that_is_too_small_for_one_row_is_refused_with_remedies(study, tmp_path):
    def build(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"suppress: one row at a time is too much.*lora"):
        pipeline._build_in_memory(build, study, Unit("suppress"), folder, Progress())


def test_fit_plans_again_with_what_it_wrote_until_nothing_helps_any_more(study, monkeypatch):
    class Measured:
        partitions = 1

        def __init__(self, study):
            self.rows = study.config.training.batch_size
            self.sample = SimpleNamespace(prompts_warning="")

    monkeypatch.setenv("IFGUIDE_CACHE", str(study.root.parent))

    def measure_needs(measured):
        return {"suppress": plan.Need(seconds=1.0, host=100 * measured.rows)}

    monkeypatch.setattr(plan, "Measured", Measured)
    monkeypatch.setattr(plan, "measure_needs", measure_needs)
    study.change(tiny_config(study.root.parent / "inputs"))
    for free, fits in ((150, True), (50, False)):
        monkeypatch.setattr(plan, "free_memory", lambda folder, free=free: {"host": free})
        said = CliRunner().invoke(app, ["plan", "planned", "--fit"]).output
        assert ("does not fit" not in said) == fits, said
        training = Study.open("planned", study.root.parent).config.training
        assert training.batch_size == 1 and training.adapter == ("" if fits else "lora")
    assert "written: training.adapter" in said

"""`training.report_to`, with the trackers' own libraries."""

import json
import math

import pytest

from ifguide.errors import InputError
from ifguide.storage.artifacts import TRAINING_LOG
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import run_study
from ifguide.study.reading import Study
from tests.tiny_study import save_tiny_model, tiny_config, write_tiny_inputs


def make_study(cache, *settings) -> Study:
    write_tiny_inputs(cache / "inputs")
    save_tiny_model("gpt_neox", cache / "inputs" / "model")
    few = ("selection.controls=[]", *settings)
    return Study.create("tiny", tiny_config(cache / "inputs", *few), cache)


def run_tracked(cache, kind: str) -> tuple[Study, list[dict]]:
    study = make_study(cache, f"training.report_to={kind}")
    run_study(study)
    lines = (study.folder(Unit("model")) / TRAINING_LOG).read_text(encoding="utf-8").splitlines()
    return Study.open("tiny", cache), [json.loads(line) for line in lines]


def test_tensorboard_has_the_log_of_each_training(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    study, log = run_tracked(tmp_path, "tensorboard")

    def scalars(run: str) -> dict[str, dict[int, float]]:
        events = event_accumulator.EventAccumulator(str(study.root / "tensorboard" / run)).Reload()
        return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}

    losses = scalars("base")["train/loss"]
    assert losses.keys() == {line["step"] for line in log} and len(losses) > 2
    assert all(math.isclose(losses[line["step"]], line["loss"], rel_tol=1e-6) for line in log)
    assert scalars("default")["train/loss_selected"]


def test_trackio_has_a_run_for_each_training(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    run_tracked(tmp_path, "trackio")
    runs = {run.name for run in trackio.Api().runs("tiny")}
    assert runs == {"base", "default"}


def test_a_tracker_makes_no_study_stale(tmp_path):
    study = make_study(tmp_path)
    run_study(study, until="model")
    text = (study.root / "study.toml").read_text(encoding="utf-8")
    changed = text.replace("[training]", '[training]\nreport_to = "tensorboard"')
    (study.root / "study.toml").write_text(changed, encoding="utf-8")
    again = Study.open("tiny", tmp_path)
    assert again.config.training.report_to == "tensorboard"
    assert unit_state(again, Unit("model")).state == "fresh"


def test_a_missing_package_is_named_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"training.report_to: wandb is not installed; run: pip install wandb"):
        run_study(make_study(tmp_path, "training.report_to=wandb"), until="model")

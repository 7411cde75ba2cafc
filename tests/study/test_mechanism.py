"""Layers of a real tiny study's models."""

import json

import pytest
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.errors import StaleError
from ifguide.study.analysis.mechanism import measure_mechanism, mechanism_path, read_mechanism
from ifguide.study.pipeline import create_study, run_study
from tests.tiny_study import save_tiny_model, tiny_config, write_tiny_inputs

MODELS = ("base", "default")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mechanism")
    write_tiny_inputs(folder / "inputs")
    save_tiny_model("gpt_neox", folder / "inputs" / "model")
    settings = ["model.mode=finetune", "training.epochs=1", "selection.controls=[]", "scores.position=false"]
    made = create_study("tiny", tiny_config(folder / "inputs", *settings), folder / "cache")
    run_study(made, until="suppress")
    return made


def test_both_models_are_measured_alike_and_kept(study):
    assert read_mechanism(study, MODELS) is None
    found = measure_mechanism(study, MODELS)
    assert read_mechanism(study, MODELS) == json.loads(json.dumps(found))
    assert found["queries"] == {"toxic": 2, "safe": 2}
    base, default = found["models"]["base"], found["models"]["default"]
    for values in (base, default):
        for kind in ("toxic", "safe"):
            layers = values["layers"][kind]
            low, value, high = (layers[f"log_probability{end}"] for end in ("_low", "", "_high"))
            assert len(value) == 3
            assert all(a <= b <= c for a, b, c in zip(low, value, high, strict=True))
    assert base["layers"] != default["layers"]


def test_the_command_prints_and_keeps(study):
    environment = {"IFGUIDE_CACHE": str(study.root.parent)}
    arguments = ["mechanism", "tiny", "--model", "base", "--model", "default", "--model", "base"]
    first = CliRunner().invoke(app, arguments, env=environment)
    assert first.exit_code == 0, first.output
    lines = first.output.splitlines()
    heads = next(line for line in lines if line.startswith("layer ") and "," in line and "queries" not in line)
    assert "base, toxic" in heads and "default, safe" in heads
    found = read_mechanism(study, MODELS)
    assert f"{found['models']['base']['layers']['toxic']['log_probability'][2]:.3g}" in first.output
    stamp = mechanism_path(study, MODELS).stat().st_mtime_ns
    again = CliRunner().invoke(app, [*arguments, "--json"], env=environment)
    assert json.loads(again.output) == found
    assert mechanism_path(study, MODELS).stat().st_mtime_ns == stamp  # not measured again


def test_models_that_are_not_there_are_refused(study):
    with pytest.raises(StaleError, match=r"suppress other is missing .* `ifguide suppress tiny --selection other`"):
        mechanism_path(study, ("base", "other"))
    assert mechanism_path(study, ["base"]) != mechanism_path(study, MODELS)

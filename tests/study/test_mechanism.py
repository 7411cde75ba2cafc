"""Layers and prefixes of a real tiny study's models."""

import json

import pytest
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.errors import ConfigError, StaleError
from ifguide.evaluation.mechanism_settings import MechanismSettings, PrefixSettings
from ifguide.study.analysis import explain
from ifguide.study.analysis.document_map import read_map
from ifguide.study.analysis.likelihood import read_likelihoods
from ifguide.study.analysis.mechanism import (
    allowed_tokens,
    comparable_models,
    measure_mechanism,
    mechanism_path,
    read_layers,
    read_mechanism,
)
from ifguide.study.on_demand import read_result
from ifguide.study.pipeline import create_study, run_study
from ifguide.study.reading import Study
from ifguide.study.sharing.packed import unpack_study
from tests.tiny_study import save_tiny_model, tiny_config, write_evaluation, write_tiny_inputs

SETTINGS = MechanismSettings(n_search=1, prefix=PrefixSettings(n_tokens=2, steps=2, candidates=4, top_k=4))


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
    assert read_mechanism(study, SETTINGS) is None
    found = measure_mechanism(study, SETTINGS)
    assert read_mechanism(study, SETTINGS) == json.loads(json.dumps(found))
    assert found["queries"] == {"toxic": 2, "safe": 2}
    base, default = found["models"]["base"], found["models"]["default"]
    for values in (base, default):
        for kind in ("toxic", "safe"):
            layers = values["layers"][kind]
            for name in ("probability", "log_probability"):
                low, value, high = (layers[f"{name}{end}"] for end in ("_low", "", "_high"))
                assert len(value) == 3
                assert all(a <= b <= c for a, b, c in zip(low, value, high, strict=True))
        assert values["prefix"]["best"] >= values["prefix"]["start"]
        assert values["prefix"]["others"] < 0 and len(values["prefix"]["token_ids"]) == 2
    assert base["prefix"]["by_model"]["base"] == pytest.approx(base["prefix"]["best"])
    assert base["prefix"]["by_model"]["default"] == pytest.approx(
        measure_mechanism(study, SETTINGS)["models"]["base"]["prefix"]["by_model"]["default"]
    )
    assert base["layers"] != default["layers"]


def test_a_complete_pack_holds_what_pages_show_on_demand(study, tmp_path):
    for name in ("base", "default"):
        rows = [(0, s, "you are", f" {name} fox {s}", 0.1) for s in range(2)]
        write_evaluation(study, name, rows)
    file = tmp_path / "tiny.ifguide"
    done = CliRunner(env={"IFGUIDE_CACHE": str(study.root.parent)}).invoke(
        app, ["pack", "tiny", "--complete", "--out", str(file)]
    )
    assert done.exit_code == 0, done.output
    opened = Study.open(unpack_study(file, tmp_path / "theirs"), tmp_path / "theirs")
    corpus, best = opened.corpus(), opened.selection().order[: explain.TOP]
    paths = [explain.document_path(opened, corpus.document(int(index)).id) for index in best]
    assert all(map(read_result, [*paths, explain.queries_path(opened)]))
    assert read_layers(opened, comparable_models(opened))["models"].keys() == {"base", "default"}
    assert len(read_map(opened)) == corpus.n_documents
    assert read_likelihoods(opened, 0, ["base", "default"])["prompt"] == "you are"


def test_the_command_prints_and_keeps(study):
    environment = {"IFGUIDE_CACHE": str(study.root.parent)}
    arguments = ["mechanism", "tiny", "--no-search"]
    first = CliRunner().invoke(app, arguments, env=environment)
    assert first.exit_code == 0, first.output
    lines = first.output.splitlines()
    heads = next(line for line in lines if line.startswith("layer ") and "," in line and "queries" not in line)
    assert "base, toxic" in heads and "default, safe" in heads
    settings = MechanismSettings(search=False)
    found = read_mechanism(study, settings)
    assert f"{found['models']['base']['layers']['toxic']['probability'][2]:.3g}" in first.output
    stamp = mechanism_path(study, settings).stat().st_mtime_ns
    again = CliRunner().invoke(app, [*arguments, "--json"], env=environment)
    assert json.loads(again.output) == found
    assert mechanism_path(study, settings).stat().st_mtime_ns == stamp  # not measured again


def test_models_that_are_not_there_are_refused(study):
    with pytest.raises(StaleError, match=r"suppress other is missing .* `ifguide suppress tiny --selection other`"):
        mechanism_path(study, MechanismSettings(models=("base", "other")))
    with pytest.raises(ConfigError, match="different models"):
        MechanismSettings(models=("base", "base"))


def test_other_models_or_settings_have_another_file(study):
    paths = {
        mechanism_path(study, settings)
        for settings in (
            SETTINGS,
            MechanismSettings(),
            MechanismSettings(models=("base",)),
            MechanismSettings(n_search=2),
        )
    }
    assert len(paths) == 4


def test_a_prefix_holds_plain_tokens(study):
    from ifguide.models.loading import load_model, load_tokenizer

    source = str(Study.open("tiny", study.root.parent).folder(_suppressed()) / "final")
    model, tokenizer = load_model(source), load_tokenizer(source)
    allowed = allowed_tokens(model, tokenizer)
    texts = [tokenizer.decode([token]) for token in allowed]
    assert len(allowed) > 50 and not set(tokenizer.all_special_ids) & set(allowed)
    assert all(text.strip() and "\ufffd" not in text for text in texts)


def _suppressed():
    from ifguide.study.lineage import Unit

    return Unit("suppress", "default")

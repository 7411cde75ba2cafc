"""What `ifguide new` finds out: facts of the model, and the settings that follow from them and the data."""

import dataclasses

import numpy as np
import pytest

from ifguide.config.io import read_config
from ifguide.errors import ConfigError, InputError
from ifguide.study.pipeline import create_study
from ifguide.study.planning import model_facts, sizing
from ifguide.study.planning.model_facts import describe_model, find_facts, known_facts
from ifguide.study.reading import Study
from tests.tiny import tiny_model
from tests.tiny_study import save_tiny_model, tiny_config, write_tiny_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_tiny_inputs(folder)
    save_tiny_model("llama", folder / "model")
    return folder


@pytest.mark.parametrize(("kind", "forward", "packs"), [("llama", True, True), ("bloom", False, False)])
def test_a_model_is_known_from_its_configuration_alone(tmp_path, kind, forward, packs):
    model = tiny_model(kind)
    model.config.save_pretrained(tmp_path)  # no weights
    facts = describe_model(str(tmp_path))
    assert (facts.forward_derivative, facts.packs) == (forward, packs)
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert facts.tied == (kind == "bloom")
    assert 0.95 < facts.tracked_share < 1 and len(facts.layers) == (14 if kind == "llama" else 8)
    narrow = describe_model(str(tmp_path), modules="layers.0|h.0")
    assert narrow.tracked_share == pytest.approx(facts.tracked_share / 2, rel=1e-6)
    assert "is not seen" in dict(narrow.rows())["Tracked"] and "is not seen" not in dict(facts.rows())["Tracked"]


def test_a_model_that_is_none_or_of_another_build_gets_one_line_or_no_answer(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "t5", "d_model": 16, "num_layers": 1, "num_heads": 2}')
    with pytest.raises(InputError, match="no causal language model could be loaded"):
        describe_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "mamba", "hidden_size": 16, "num_hidden_layers": 2}')
    with pytest.raises(ConfigError, match="MambaForCausalLM uses weights of dt_proj without calling the layer"):
        describe_model(str(tmp_path))
    monkeypatch.setattr(model_facts, "_TRIED_WEIGHTS", 0)
    facts = describe_model(str(tmp_path))
    assert facts.forward_derivative is None and "not known" in dict(facts.rows())["Forward derivative"]


def test_settings_follow_from_the_data_but_those_that_were_named_stay(tmp_path, inputs):
    open_study = create_study("open", tiny_config(inputs), tmp_path, named=set())
    named = create_study("named", tiny_config(inputs), tmp_path, named={"training.batch_size", "corpus.max_length"})
    as_is = create_study("as-is", tiny_config(inputs), tmp_path)
    assert as_is.config == tiny_config(inputs)
    assert open_study.config.training.checkpoint_steps == (1,) and open_study.config.training.batch_size == 8
    assert named.config.training.batch_size == 4 and named.config.corpus.max_length == 0
    text = (open_study.root / "study.toml").read_text(encoding="utf-8")
    assert "# A trained model is asked before it has learned the corpus.\ncheckpoint_steps = [1]" in text
    assert read_config(open_study.root / "study.toml") == open_study.config


def test_a_proposed_length_says_whether_the_texts_fit_or_are_cut(inputs, tmp_path, monkeypatch):
    study = Study.at("open", tiny_config(inputs), tmp_path)
    sample = sizing.sample_inputs(study)
    monkeypatch.setattr(sizing, "find_facts", lambda study: dataclasses.replace(facts, context=4096))
    facts = describe_model(str(inputs / "model"))
    for length, expected in ((100, (128, "99 of 100 documents and every query are shorter.")), (3000, (2048, "cut"))):
        documents = dataclasses.replace(sample, offsets=np.array([0, length]))
        config, reasons = sizing.fit_to_data(study, documents, set())
        assert config.corpus.max_length == expected[0] and expected[1] in reasons["corpus.max_length"]


def test_facts_are_kept_and_belong_to_the_settings(tmp_path, inputs):
    study = create_study("kept", tiny_config(inputs), tmp_path)
    assert known_facts(study) is None
    assert known_facts(Study.open("kept", tmp_path)) is None
    found = find_facts(study)
    assert known_facts(study) == found
    other = tiny_config(inputs, "model.modules=layers.0")
    assert known_facts(study.change(other)) is None

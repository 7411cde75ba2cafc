"""Models from folders: what loads, what is refused in which words, and which layers are tracked."""

import os
import shutil
import subprocess
import sys
from itertools import product

import pytest
import torch

from ifguide.errors import ConfigError, InputError
from ifguide.models.loading import (
    bos_context,
    context_length,
    load_config,
    load_model,
    load_tokenizer,
    pick_device,
    split_revision,
    tracked_modules,
)
from tests.naming import naming
from tests.tiny import SHAPES, tiny_model
from tests.tiny_tokenizers import tiny_tokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved model of every kind with its tokenizer: (folder, the model itself)."""
    found, tokenizer = [], tiny_tokenizer("byte_bpe")
    for kind in SHAPES:
        folder = tmp_path_factory.mktemp(kind)
        tokenizer.save_pretrained(folder)
        model = tiny_model(kind, vocab_size=len(tokenizer), dtype=torch.float32)
        model.save_pretrained(folder)
        found.append((folder, model))
    return found


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, 9, 2, 30]]), use_cache=False).logits


class TestLoading:
    def test_a_saved_model_comes_back_ready_to_score_in_the_wanted_precision(self, saved):
        for folder, model in saved:
            with naming(folder):
                found = load_model(str(folder))
                assert not found.training
                assert not any(parameter.requires_grad for parameter in found.parameters())
                for loaded in (found, load_model(folder, attention="eager")):
                    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-5, atol=1e-6)
                for dtype in ("float64", "bfloat16"):
                    kinds = {parameter.dtype for parameter in load_model(str(folder), dtype=dtype).parameters()}
                    assert kinds == {getattr(torch, dtype)}

    def test_config_and_tokenizer_come_from_the_same_folder(self, saved):
        for folder, model in saved:
            assert load_config(str(folder)).model_type == model.config.model_type
            tokenizer = load_tokenizer(str(folder))
            assert tokenizer.is_fast
            assert tokenizer("You are kind.")["input_ids"] == tiny_tokenizer("byte_bpe")("You are kind.")["input_ids"]

    def test_a_folder_without_a_model_is_refused_in_one_sentence(self, tmp_path):
        for load in (load_model, load_config, load_tokenizer):
            with naming(load), pytest.raises(InputError, match="could be loaded from") as caught:
                load(str(tmp_path))
            assert "\n" not in str(caught.value)
            assert str(tmp_path) in str(caught.value)

    def test_a_classifier_is_no_language_model(self, saved, tmp_path):
        """Its output layer is missing, and a random one would score and generate nonsense."""
        from transformers import AutoModelForSequenceClassification

        for folder, model in saved:
            config = type(model.config)(**model.config.to_dict() | {"tie_word_embeddings": False})
            place = tmp_path / folder.name
            AutoModelForSequenceClassification.from_config(config).save_pretrained(place)
            with naming(folder), pytest.raises(InputError, match=r"lack .*weight, which \w+ needs"):
                load_model(str(place))

    def test_damaged_weights_are_refused(self, saved, tmp_path):
        for folder, _ in saved:
            place = shutil.copytree(folder, tmp_path / folder.name)
            weights = place / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:200])
            with naming(folder), pytest.raises(InputError, match="no causal language model could be loaded"):
                load_model(str(place))

    def test_weights_that_do_not_fit_the_configuration_are_refused(self, saved, tmp_path):
        """Transformers would otherwise fill what is missing with random numbers, with no more than a warning."""
        from safetensors.torch import load_file, save_file

        for folder, _ in saved:
            place = shutil.copytree(folder, tmp_path / folder.name)
            weights = load_file(place / "model.safetensors")
            del weights[next(name for name in sorted(weights) if "mlp" in name and name.endswith("weight"))]
            save_file(weights, place / "model.safetensors", {"format": "pt"})
            with naming(folder), pytest.raises(InputError, match=r"lack .*mlp.*weight"):
                load_model(str(place))

    def test_pickled_weights_are_refused_and_not_opened(self, saved, tmp_path):
        mark = tmp_path / "opened"

        class Trap:
            def __reduce__(self):
                return os.mkdir, (str(mark),)

        for folder, model in saved:
            leave_out = shutil.ignore_patterns("*.safetensors")
            place = shutil.copytree(folder, tmp_path / folder.name, ignore=leave_out)
            torch.save({**model.state_dict(), "trap": Trap()}, place / "pytorch_model.bin")
            refused = pytest.raises(InputError, match=r"name a folder or hub id with safetensors weights$")
            with naming(folder), refused:
                load_model(str(place))
            assert not mark.exists(), folder

    def test_a_tokenizer_without_offsets_is_refused(self, tmp_path):
        (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
        with pytest.raises(InputError, match="is not a fast one, so it gives no character offsets"):
            load_tokenizer(str(tmp_path))


def test_what_is_not_there_fails_fast_without_the_network():
    code = """
from ifguide.errors import InputError
from ifguide.models.loading import load_config, load_model, load_tokenizer
import time
for load in (load_config, load_tokenizer, load_model):
    for source in ("/no/such/folder", "inputs/nothing", "no-such-model", "org/name@step1"):
        started = time.monotonic()
        try:
            load(source)
        except InputError as error:
            print(f"{time.monotonic() - started:.1f}", str(error).count("\\n"), str(error), sep="|")
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    lines = [line.split("|", 2) for line in done.stdout.splitlines()]
    assert len(lines) == 12, done.stderr
    for _, breaks, message in lines:
        assert breaks == "0"
        assert "could be loaded from '" in message
        assert "; check its name" in message
    assert sum(float(seconds) for seconds, _, _ in lines) < 30  # the first one imports the libraries


def test_a_revision_may_stand_behind_the_id(tmp_path, monkeypatch):
    assert split_revision("org/name@step10") == ("org/name", "step10")
    assert split_revision("org/name", "main") == ("org/name", "main")
    assert split_revision("org/name") == ("org/name", None)
    (tmp_path / "model@2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert split_revision("model@2") == ("model@2", None)  # a folder that is there


LAYERS = [
    ("gpt_neox", {"attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"}),
    ("gpt2", {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}),
    ("llama", {f"self_attn.{x}_proj" for x in "qkvo"} | {f"mlp.{x}_proj" for x in ("gate", "up", "down")}),
    ("qwen2", {f"self_attn.{x}_proj" for x in "qkvo"} | {f"mlp.{x}_proj" for x in ("gate", "up", "down")}),
]


class TestTrackedModules:
    def test_all_linear_layers_of_the_blocks_in_model_order(self):
        for kind, per_block in LAYERS:
            with naming(kind):
                model = tiny_model(kind)
                found = tracked_modules(model)
                assert {name.split(".", 3)[-1] for name in found} == per_block
                assert len(found) == 2 * len(per_block)
                assert list(found) == [name for name, _ in model.named_modules() if name in found]

    def test_the_output_embedding_is_left_out_tied_or_not(self):
        from transformers import AutoConfig, AutoModelForCausalLM

        for kind, tied in product(SHAPES, (True, False)):
            with naming(kind, tied):
                values = tiny_model(kind).config.to_dict() | {"tie_word_embeddings": tied}
                model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values))
                head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
                assert (head.weight is embedding.weight) is tied
                for module in tracked_modules(model).values():
                    assert module is not head and module.weight is not embedding.weight

    def test_a_pattern_picks_by_name(self):
        model = tiny_model("llama")
        found = tracked_modules(model, r"layers\.1\.mlp")
        assert list(found) == [f"model.layers.1.mlp.{x}_proj" for x in ("gate", "up", "down")]
        assert not [name for name in tracked_modules(model, ".*") if "lm_head" in name]

    def test_a_bad_pattern_says_so(self):
        model = tiny_model("llama")
        with pytest.raises(ConfigError, match=r"model\.modules: '\(' is not a regular expression \(.+\)"):
            tracked_modules(model, "(")
        with pytest.raises(
            ConfigError, match=r"no linear layer .* in LlamaForCausalLM matches model\.modules = 'conv'"
        ):
            tracked_modules(model, "conv")


def test_context_length_is_the_number_of_positions():
    for kind in SHAPES:
        assert context_length(tiny_model(kind, positions=48).config) == 48, kind


def test_a_model_without_positions_has_a_context_of_2048():
    from transformers import AutoConfig

    assert context_length(AutoConfig.for_model("mamba")) == 2048


def test_bos_is_context_only_where_the_tokenizer_puts_it_itself():
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    plain = tiny_tokenizer("byte_bpe")
    assert bos_context(plain) is None
    known = PreTrainedTokenizerFast(tokenizer_object=plain.backend_tokenizer, bos_token="<|end|>")
    assert bos_context(known) is None  # it has one, but does not put it there
    copy = type(plain.backend_tokenizer).from_str(plain.backend_tokenizer.to_str())
    copy.post_processor = TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", 0)])
    assert bos_context(PreTrainedTokenizerFast(tokenizer_object=copy, bos_token="<|end|>")) == 0
    copy.post_processor = TemplateProcessing(single="$A <|end|>", special_tokens=[("<|end|>", 0)])
    assert bos_context(PreTrainedTokenizerFast(tokenizer_object=copy, bos_token="<|end|>")) is None


class TestDevice:
    def test_auto_is_the_gpu_where_there_is_one(self):
        assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
        assert pick_device("cpu") == torch.device("cpu")

    def test_an_unknown_device_lists_the_known(self):
        with pytest.raises(ConfigError, match=r"compute\.device: expected auto, cpu, cuda or cuda:N, got 'gpu'"):
            pick_device("gpu")

    def test_a_gpu_that_is_not_there_is_refused(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(
            ConfigError, match=r"compute\.device is 'cuda:1', but torch finds no GPU here; use auto or cpu"
        ):
            pick_device("cuda:1")

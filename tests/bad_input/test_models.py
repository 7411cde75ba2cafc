"""Models and tokenizers that do not load or do not fit, and masks of another corpus."""

import json
import shutil

import numpy as np
from transformers import BertConfig, BertForMaskedLM
from transformers.utils import logging

from ifguide.storage import artifacts
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import create_study
from ifguide.study.reading import Study
from ifguide.study.stages.select import save_selection
from tests.faults.comparing import contents
from tests.small_study import make_study
from tests.tiny_study import save_tiny_model, tiny_config, write_tiny_inputs


def edit(path, **changes) -> None:
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(values))


def drop(path, *keys) -> None:
    values = {key: value for key, value in json.loads(path.read_text()).items() if key not in keys}
    path.write_text(json.dumps(values))


REFUSED_AT_NEW = {
    "no-config": lambda f: (f / "config.json").unlink(),
    "config-empty": lambda f: (f / "config.json").write_text(""),
    "config-not-json": lambda f: (f / "config.json").write_text("{"),
    "config-a-list": lambda f: (f / "config.json").write_text("[]"),
    "config-latin-1": lambda f: (f / "config.json").write_bytes('{"model_type": "café"}'.encode("latin-1")),
    "no-model-type": lambda f: drop(f / "config.json", "model_type", "architectures"),
    "model-type-unknown": lambda f: edit(f / "config.json", model_type="gpt_99"),
    "sizes-of-text": lambda f: edit(f / "config.json", hidden_size="large"),
    "no-tokenizer": lambda f: [path.unlink() for path in f.glob("tokenizer*")],
    "tokenizer-empty": lambda f: (f / "tokenizer.json").write_text(""),
    "tokenizer-half": lambda f: (f / "tokenizer.json").write_text((f / "tokenizer.json").read_text()[:500]),
    "tokenizer-other-json": lambda f: (f / "tokenizer.json").write_text('{"version": "1.0"}'),
    "tokenizer-a-list": lambda f: (f / "tokenizer.json").write_text("[]"),
    "a-file": lambda f: (shutil.rmtree(f), f.write_text("not a folder")),
    "empty-folder": lambda f: (shutil.rmtree(f), f.mkdir()),
    "weights-missing": lambda f: weights(f).unlink(),
    "weights-half-written": lambda f: weights(f).write_bytes(weights(f).read_bytes()[:9_000]),
    "weights-empty": lambda f: weights(f).write_bytes(b""),
    "weights-garbage": lambda f: weights(f).write_bytes(b"\xff" * 5_000),
    "weights-pickled": lambda f: weights(f).rename(f / "pytorch_model.bin"),
    "weights-a-pointer": lambda f: weights(f).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "a-shard-missing": lambda f: write_index(f, "model.safetensors", "model-00002.safetensors"),
    "reads-both-ways": lambda f: BertForMaskedLM(BertConfig(**SMALL)).save_pretrained(f),
    "code-of-its-own": lambda f: edit(f / "config.json", model_type="own", auto_map={"AutoConfig": "own.Own"}),
}


REMEDIES = (
    "name a Hugging Face folder or hub id",
    "name one such",
    "name a model that",
    "add its tokenizer.json",
    "copy or download",
)
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def write_index(folder, *shards: str) -> None:
    content = {"weight_map": {f"layer {number}": shard for number, shard in enumerate(shards)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def test_a_model_that_cannot_be_opened_is_refused(command, new_arguments, good_inputs, tmp_path):
    logging.set_verbosity_error()  # as the command line does before Transformers is imported
    for about, harm in REFUSED_AT_NEW.items():
        model = tmp_path / about
        shutil.copytree(good_inputs / "model", model)
        harm(model)
        line = command(tmp_path / "cache", *new_arguments(model=model)).check_refused(str(model))
        assert any(remedy in line for remedy in REMEDIES), f"{about}: {line}"
        assert not (tmp_path / "cache").exists(), about


def test_chunks_longer_than_the_models_positions_are_refused(command, new_arguments, tmp_path):
    ended = command(tmp_path / "cache", *new_arguments("corpus.max_length=49"))
    ended.check_refused("corpus.max_length: expected at most 48, the model's context, got 49")


def test_a_tokenizer_without_padding_and_beginning_is_in_order(command, new_arguments, good_inputs, tmp_path):
    from ifguide.models.loading import load_tokenizer

    tokenizer = load_tokenizer(str(good_inputs / "model"))
    assert tokenizer.pad_token is None and tokenizer.bos_token is None
    assert command(tmp_path / "cache", *new_arguments()).code == 0


def weights(folder):
    return folder / "model.safetensors"


def without_a_layer(folder) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights(folder))
    tensors.pop(sorted(tensors)[-1])
    save_file(tensors, weights(folder), metadata={"format": "pt"})


def as_nan(folder) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = {name: torch.full_like(tensor, float("nan")) for name, tensor in load_file(weights(folder)).items()}
    save_file(tensors, weights(folder), metadata={"format": "pt"})


NO_MODEL = "no causal language model could be loaded"
REFUSED_WHEN_LOADED = {
    "weights-missing": (lambda f: weights(f).unlink(), NO_MODEL),
    "weights-head-only": (lambda f: weights(f).write_bytes(weights(f).read_bytes()[:8]), NO_MODEL),
    "a-layer-missing": (without_a_layer, "lack"),
    "sizes-of-another-model": (lambda f: edit(f / "config.json", hidden_size=16, intermediate_size=32), NO_MODEL),
    "vocabulary-smaller": (lambda f: edit(f / "config.json", vocab_size=20), "use the model's own tokenizer"),
    "weights-not-numbers": (as_nan, "expected a finite loss, got nan"),
}


def test_weights_that_do_not_load_stop_the_run_and_leave_what_is_finished(command, tmp_path):
    write_tiny_inputs(tmp_path / "inputs")
    save_tiny_model("gpt_neox", tmp_path / "inputs" / "model")
    config = tiny_config(tmp_path / "inputs", f"model.source={tmp_path / 'model'}", "training.epochs=1")
    shutil.copytree(tmp_path / "inputs" / "model", tmp_path / "model")
    study = create_study("tiny", config, tmp_path / "cache")
    assert command(tmp_path / "cache", "run", "tiny", "--until", "queries").code == 0
    before = contents(study)
    shutil.copytree(tmp_path / "cache", tmp_path / "kept")
    for about, (harm, said) in REFUSED_WHEN_LOADED.items():
        for name, source in (("model", tmp_path / "inputs" / "model"), ("cache", tmp_path / "kept")):
            shutil.rmtree(tmp_path / name)
            shutil.copytree(source, tmp_path / name)
        harm(tmp_path / "model")
        ended = command(tmp_path / "cache", "run", "tiny", "--until", "model")
        assert ended.code == 2 and "Traceback" not in ended.err, about
        last = ended.err.splitlines()[-1]
        assert last.startswith("error: ") and said in last, f"{about}: {last}"
        passing = (".work/", "model-facts/")
        now = {name: value for name, value in contents(study).items() if not name.startswith(passing)}
        assert now.keys() == before.keys() and not list(study.root.glob("*.partial-*")), about
        assert now == before or about == "vocabulary-smaller", about


def test_a_mask_of_another_corpus_is_refused_wherever_it_is_used(command, tmp_path):
    study = make_study(tmp_path / "cache")
    save_selection(study, "mine", {"quantile": 0.5})
    folder = study.folder(Unit("selection", "mine"))
    np.save(folder / "mask.npy", np.ones(7, dtype=bool))
    manifest = artifacts.read_json(folder / artifacts.MANIFEST)
    for name in manifest["outputs"]:
        manifest["outputs"][name] = artifacts.hash_file(folder / name)
        manifest["bytes"][name] = (folder / name).stat().st_size
    manifest["inputs"]["corpus"] = "of another corpus"
    artifacts.write_json(folder / artifacts.MANIFEST, manifest)
    before = contents(study)
    exports = [
        ("export", "small", "--what", what, "--selection", "mine", "--out", str(tmp_path / f"{what}.csv"))
        for what in ("mask", "spans", "documents")
    ]
    for arguments in (("suppress", "small", "--selection", "mine"), ("evaluate", "small", "--model", "mine"), *exports):
        line = command(tmp_path / "cache", *arguments).check_refused("mine", "ifguide select small --name mine")
        assert "corpus" in line
    part = json.loads(command(tmp_path / "cache", "verify", "small", "--share", "0", "--json").out)
    assert [p["artefact"] for p in part["parts"] if p["state"] == "stale"] == ["selection mine"]
    assert contents(Study.open("small", tmp_path / "cache")) == before
    assert not list(tmp_path.glob("*.csv"))

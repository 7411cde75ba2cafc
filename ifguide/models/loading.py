"""Models and tokenizers from a folder or the hub, and which of a model's layers influence is computed over."""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ifguide.errors import ConfigError, InputError
from ifguide.runtime.distributed import current

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def pick_device(setting: str = "auto") -> "torch.device":
    """The device for a setting: `auto` is the first GPU or else the CPU. Each of several processes gets its own GPU. A
    ConfigError: there is no such device."""
    import torch

    processes = current()
    if setting == "auto":
        setting = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(setting)
    except RuntimeError as error:
        raise ConfigError(f"compute.device: expected auto, cpu, cuda or cuda:N, got {setting!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"compute.device is {setting!r}, but torch finds no GPU here; use auto or cpu")
    if device.type != "cuda" or processes.alone:
        return device
    if device.index is not None:
        expected = f"auto or cuda with {processes.world_size} processes, each of which has a GPU of its own"
        raise ConfigError(f"compute.device: expected {expected}, got {setting}")
    if processes.local_rank >= torch.cuda.device_count():
        there, remedy = torch.cuda.device_count(), "start no more processes than GPUs, or set compute.device to cpu"
        raise ConfigError(f"process {processes.local_rank} here has no GPU of its own (there are {there}); {remedy}")
    return torch.device("cuda", processes.local_rank)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How a model too large for one device is spread: accelerate fills GPUs first, then memory, then the disk."""

    strategy: str
    """accelerate's name for it: `auto`, `balanced`, `balanced_low_0` or `sequential`."""
    max_memory: tuple[str, ...] = ()
    """Such as `0=70GiB` and `cpu=200GiB`; empty: all free memory."""
    offload_folder: Path | None = None
    """For the weights that do not fit into memory."""

    def arguments(self) -> dict:
        """For Transformers' `from_pretrained`. A ConfigError: a limit that is not `device=size`."""
        limits = {}
        for limit in self.max_memory:
            parts = re.fullmatch(r"(cpu|\d+)=\s*([\d.]+ ?[KMGT]i?B)\s*", limit)
            if not parts:
                raise ConfigError(f"compute.max_memory: expected entries such as 0=70GiB or cpu=200GiB, got {limit!r}")
            limits["cpu" if parts[1] == "cpu" else int(parts[1])] = parts[2]
        options = {"device_map": self.strategy, "max_memory": limits, "offload_folder": str(self.offload_folder or "")}
        return {name: value for name, value in options.items() if value}


def has_fast_bfloat16(device: "torch.device") -> bool:
    """Whether a device multiplies bfloat16 faster than float32: GPUs that support it, CPUs with AMX or AVX-512 BF16."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return device.type == "cpu" and any(check() for check in checks if check)


def split_revision(source: str, revision: str = "") -> tuple[str, str | None]:
    """Split `id@revision`; a folder that exists is left whole."""
    if not Path(source).exists() and "@" in source:
        source, _, revision = source.partition("@")
    return source, revision or None


def load_tokenizer(source: str, revision: str = "") -> "PreTrainedTokenizerFast":
    """Load a fast tokenizer from a folder or hub id. An InputError: no tokenizer can be loaded, or it has no character
    offsets."""
    from transformers import AutoTokenizer

    source, at = split_revision(str(source), revision)
    remedy = "add its tokenizer.json, or name another model"
    with opening("tokenizer", source):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=at, use_fast=True, trust_remote_code=False)
    if len(tokenizer.get_vocab()) <= len(tokenizer.get_added_vocab()):  # Transformers makes one where there is none
        raise InputError(f"the tokenizer of {source!r} has only special tokens; {remedy}")
    if not tokenizer.is_fast:
        raise InputError(f"the tokenizer of {source!r} is not a fast one, so it gives no character offsets; {remedy}")
    return cast("PreTrainedTokenizerFast", tokenizer)


def load_config(source: str, revision: str = ""):
    """A model's Transformers configuration, from a folder or hub id. An InputError: there is none."""
    from transformers import AutoConfig

    source, at = split_revision(str(source), revision)
    with opening("model configuration", source):
        return AutoConfig.from_pretrained(source, revision=at, trust_remote_code=False)


def load_model(
    source: str,
    *,
    revision: str = "",
    dtype: str = "float32",
    device="cpu",
    attention: str | None = None,
    placement: Placement | None = None,
) -> "PreTrainedModel":
    """Load a causal language model, in evaluation mode and without parameter gradients.

    Args:
        source: a folder, a hub id, or `id@revision`; `revision` counts when it names none.
        dtype: torch dtype name of the weights.
        attention: Transformers' name of it, None for the fastest; forward-mode derivatives need `eager`.
        placement: spread the model over several devices instead of `device`.

    Raises:
        InputError: it cannot be loaded, or weights are missing. Only safetensors weights are read, and code from the
            hub is never run.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would interrupt ours
    source, at = split_revision(str(source), revision)
    with opening("causal language model", source, "folder or hub id with safetensors weights"):
        pair: Any = AutoModelForCausalLM.from_pretrained(
            source,
            revision=at,
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            experts_implementation="eager" if dtype == "float64" else None,  # the fastest has no float64 products
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **(placement.arguments() if placement else {}),
        )
        model, loading = pair  # `output_loading_info` adds the missing keys, which the type does not say
    if lacking := sorted(loading["missing_keys"]):  # Transformers fills them with random numbers
        named = ", ".join(lacking[:3]) + " and others" * bool(lacking[3:])
        needed = f"which {type(model).__name__} needs; name a complete causal language model"
        raise InputError(f"the weights in {source!r} lack {named}, {needed}")
    return (model if placement else model.to(device)).eval().requires_grad_(False)


def check_weights(source: str) -> None:
    """An InputError if a folder lacks safetensors weights, or has damaged ones; a hub id is not checked."""
    from safetensors import safe_open

    place = Path(source)
    with opening("weights", source, "folder with whole .safetensors files, or copy or download them again"):
        files = {path.name for path in place.glob("*.safetensors")}
        for index in place.glob("*.safetensors.index.json"):
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if place.is_dir() and not files:
            raise FileNotFoundError("it holds no .safetensors file, and no others are read")
        for name in sorted(files):
            safe_open(place / name, "pt")


_EXPLANATIONS = {  # what a part of Transformers' message means, and what to do
    "custom code": "it brings code of its own, and no such code is run; name a model that Transformers knows",
    "connect to": "it is no folder here, and the hub cannot be reached; check its name and the network",
    "Repo id": "there is no such folder; check its name",
    "Unrecognized model in": "its config.json is missing or names no model_type; copy or download it again",
    "Unrecognized configuration class": "it does not write from left to right; name a model such as a GPT or a Llama",
}


@contextlib.contextmanager
def opening(what: str, source: str, alternative: str = "Hugging Face folder or hub id") -> Iterator[None]:
    """Any error of Transformers' becomes one line that names the source and what to do."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        explained = (text for part, text in _EXPLANATIONS.items() if part in reason)
        explanation = next(explained, f"{reason}; name a {alternative}")
        raise InputError(f"no {what} could be loaded from {source!r}: {explanation}") from error


@contextlib.contextmanager
def attention(model, implementation: str) -> Iterator[None]:
    """Another attention implementation for a while; empty, or a model with only one: its own."""
    own = getattr(model.config, "_attn_implementation", None)
    if implementation and own not in (None, implementation):
        model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        if own is not None and model.config._attn_implementation != own:
            model.set_attn_implementation(own)


def context_length(config) -> int:
    """The most tokens a model takes at once, from its config; 2048 where the config has no limit."""
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
    values = (getattr(config, name, None) for name in names)
    return next((value for value in values if isinstance(value, int) and value > 1), 2048)


def bos_context(tokenizer) -> int | None:
    """The beginning-of-text id that the tokenizer itself puts before a text, or None."""
    ids = tokenizer("a")["input_ids"]
    bos = tokenizer.bos_token_id
    return bos if bos is not None and len(ids) > 1 and ids[0] == bos else None


def tracked_modules(model: "PreTrainedModel", pattern: str = "") -> dict[str, "torch.nn.Module"]:
    """The linear layers influence is computed over, by name, in model order.

    All `nn.Linear` and GPT-2's `Conv1D` layers except the output embedding, and every expert and router; with a
    `pattern`, those whose names match.
    A ConfigError: the pattern is not a regular expression, or nothing matches.
    """
    from ifguide.models.layers import find_linear

    head = model.get_output_embeddings()
    layers = {name: module for name, module in find_linear(model).items() if module is not head}
    try:
        layers = {name: module for name, module in layers.items() if re.search(pattern, name)}
    except re.error as error:
        raise ConfigError(f"model.modules: {pattern!r} is not a regular expression ({error})") from error
    if not layers:
        matching = f" matches model.modules = {pattern!r}" if pattern else ""
        raise ConfigError(f"no linear layer to track in {type(model).__name__}{matching}")
    return layers

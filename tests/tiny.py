"""Tiny randomly initialised models of several architectures, made on the spot."""

import torch

_softmax = torch.nn.functional.softmax


def softmax_as_exact_as_its_input(input, dim=None, _stacklevel=3, dtype=None):
    """Transformers' plain attention takes its softmax in float32 even in a float64 model. Its last bit then depends on
    the padded length, by how many numbers the processor adds at once, and tests that compare to 1e-9 and closer would
    pass on some processors only."""
    return _softmax(input, dim, _stacklevel, torch.float64 if input.dtype == torch.float64 else dtype)


torch.nn.functional.softmax = softmax_as_exact_as_its_input

SHAPES = ("gpt_neox", "llama", "gpt2", "qwen2")


def tiny_model(
    kind: str,
    *,
    vocab_size: int = 40,
    seed: int = 0,
    dtype=torch.float64,
    attention: str = "eager",
    positions: int = 64,
):
    """A two-layer causal language model in evaluation mode, without parameter gradients."""
    from transformers import AutoConfig, AutoModelForCausalLM

    common = {"vocab_size": vocab_size, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    shapes = {
        "gpt_neox": {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            "max_position_embeddings": positions,
        },
        "llama": {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 24,
            "max_position_embeddings": positions,
        },
        "qwen2": {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 24,
            "max_position_embeddings": positions,
        },
        "gpt2": {
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 2,
            "n_inner": 24,
            "n_positions": positions,
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
        },
        "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2, "hidden_dropout": 0.0, "attention_dropout": 0.0},
    }
    config = AutoConfig.for_model(kind, **common, **shapes[kind])
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
    with torch.no_grad():  # the usual start is nearly linear and nearly symmetric; a rougher one tests more
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.to(dtype).eval().requires_grad_(False)


def token_documents(n_documents: int = 5, *, vocab_size: int = 40, seed: int = 0, longest: int = 12):
    """Random token ids laid end to end and their offsets, lengths from 1 on."""
    import numpy as np

    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest + 1, size=n_documents)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return generator.integers(1, vocab_size, size=offsets[-1]).astype(np.int32), offsets

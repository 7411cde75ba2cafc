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
EXPERTS = ("mixtral", "qwen3_moe", "olmoe", "gpt_oss")
ENGINE = (*SHAPES, "mixtral", "gpt_oss")
"""What every part of the engine is tested with: both ways that experts are stored among them."""
FAMILIES = (
    *("gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi", "olmo2", "smollm3"),
    *("opt", "bloom", "mpt", "falcon", *EXPERTS, "mamba"),
)
"""Every decoder family that studies are tested with."""


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
    context = {"max_position_embeddings": positions}
    neox = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, **context}
    llama = {**neox, "num_attention_heads": 4, "num_key_value_heads": 2}
    gemma = {**llama, "head_dim": 4, "query_pre_attn_scalar": 4, "sliding_window": 8}
    old = {"attention_dropout": 0.0, "hidden_dropout": 0.0}
    experts = {"num_experts_per_tok": 2, "head_dim": 4}
    shapes: dict[str, dict] = {
        "gpt_neox": neox,
        "llama": llama,
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
        "qwen2": llama,
        "mistral": {**llama, "head_dim": 4, "sliding_window": None},
        "qwen3": {**llama, "head_dim": 4},
        "gemma2": gemma,
        "gemma3_text": gemma,
        "phi": {**llama, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
        "olmo2": llama,
        "smollm3": {**llama, "no_rope_layers": [1, 0]},
        "opt": {
            **context,
            "hidden_size": 16,
            "word_embed_proj_dim": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "ffn_dim": 24,
            "dropout": 0.0,
            "attention_dropout": 0.0,
        },
        "bloom": {**old, "hidden_size": 16, "n_layer": 2, "n_head": 2},
        "mpt": {"d_model": 16, "n_layers": 2, "n_heads": 2, "expansion_ratio": 2, "max_seq_len": positions},
        "falcon": {**context, **old, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
        "mixtral": {**llama, **experts, "num_local_experts": 4, "sliding_window": None},
        "qwen3_moe": {**llama, **experts, "num_experts": 4, "moe_intermediate_size": 12, "norm_topk_prob": True},
        "olmoe": {**llama, "num_experts": 4, "num_experts_per_tok": 2},
        "gpt_oss": {**llama, **experts, "num_local_experts": 4, "sliding_window": 8, "rope_scaling": None},
        "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4},
    }
    config = AutoConfig.for_model(kind, **common, **shapes[kind])
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation=attention, experts_implementation="eager", dtype=dtype
    )
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

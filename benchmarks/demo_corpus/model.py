"""The demo study's own tokenizer and model shape, both small enough to train on a laptop's processor."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ifguide.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
"""The only special token, for begin, end, padding and unknown, as in Pythia."""
CONTEXT_LENGTH = 256
"""Positions of the demo model, in tokens; every demo document fits."""
_ALPHABET_SIZE = 256  # a byte-level tokenizer starts from all bytes, so that it can encode every text


def train_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> "PreTrainedTokenizerFast":
    """Train a byte-level BPE tokenizer like Pythia's, of at most `vocab_size` entries, the special token and the 256
    bytes among them; an InputError: that is too small for the bytes. The same texts give the same tokenizer; decoding
    gives any text back unchanged."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab_size <= _ALPHABET_SIZE:
        raise InputError(f"A byte-level tokenizer needs a vocabulary of more than {_ALPHABET_SIZE}, got {vocab_size}.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), END_OF_TEXT)
    options = {"clean_up_tokenization_spaces": False, "model_max_length": CONTEXT_LENGTH}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, **options)


def demo_model_config(vocab_size: int) -> dict:
    """Settings of a GPT-NeoX model of 1.3 million parameters (vocabulary of 2048), for `transformers.AutoConfig`."""
    return {
        "model_type": "gpt_neox",
        "vocab_size": vocab_size,
        **{"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 512},
        "max_position_embeddings": CONTEXT_LENGTH,
        **{"rotary_pct": 0.25, "use_parallel_residual": True, "tie_word_embeddings": False},
        **dict.fromkeys(("attention_dropout", "hidden_dropout"), 0.0),
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0),
    }

"""Small tokenizers of several families, made on the spot."""

from functools import cache

SAMPLE = [
    "The quick brown fox jumps over the lazy dog.",
    "You are kind, and you are clever; they were not.",
    "  Two leading spaces, a tab\t, and a line\nbreak.",
    "Numbers 12 345 and naïve café words.",
] * 3

KINDS = ("byte_bpe", "byte_bpe_trimmed", "byte_bpe_prefix", "unigram_bytes", "llama_style", "nfkc_lower", "word_level")


@cache
def tiny_tokenizer(kind: str):
    """A fast Transformers tokenizer.

    - byte_bpe: as GPT-2's; byte_bpe_trimmed: as Pythia's, whose offsets leave out leading spaces; byte_bpe_prefix: adds
    a space
    - unigram_bytes: as SentencePiece's with byte fallback; llama_style: BPE with byte fallback and a prepended mark
    - nfkc_lower: a normaliser that changes the text; word_level: everything unknown is one unknown token
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|end|>", "<unk>"]
    if kind.startswith("byte_bpe"):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
            add_prefix_space=kind == "byte_bpe_prefix", trim_offsets=kind == "byte_bpe_trimmed"
        )
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=kind == "byte_bpe_trimmed")
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=340, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    elif kind == "unigram_bytes":
        pieces = sorted(
            {"▁" + word for text in SAMPLE for word in text.split()}
            | {c for text in SAMPLE for c in text if not c.isspace()}
        )
        vocab = [
            ("<|end|>", 0.0),
            ("<unk>", 0.0),
            *[(f"<0x{b:02X}>", -20.0) for b in range(256)],
            ("▁", -3.0),
            *[(p, -5.0 - len(p) / 9) for p in pieces if p != "▁"],
        ]
        tokenizer = Tokenizer(models.Unigram(vocab, unk_id=1, byte_fallback=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
        trainer = None
    elif kind == "llama_style":
        characters = sorted({c for text in SAMPLE for c in text if not c.isspace()} | {"▁"})
        names = ["<|end|>", "<unk>", *[f"<0x{b:02X}>" for b in range(256)], *characters, "▁y", "▁yo"]
        names = list(dict.fromkeys(names))
        vocab = {name: i for i, name in enumerate(names)}
        tokenizer = Tokenizer(
            models.BPE(vocab, [("▁", "y"), ("▁y", "o")], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
        )
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        trainer = None
    elif kind == "nfkc_lower":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(special_tokens=special, show_progress=False)
    if trainer is not None:
        tokenizer.train_from_iterator(SAMPLE, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", unk_token="<unk>")

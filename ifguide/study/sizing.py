"""Settings that follow from the data, the model and the device, where the user named none."""

from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

from ifguide.config.io import config_from_dict, config_to_dict
from ifguide.config.schema import StudyConfig
from ifguide.study.model_facts import find_facts
from ifguide.study.reading import Study

SAMPLE = 500
"""Documents, from the start, whose lengths stand for all."""
_FEW_TOKENS = 4_000
"""Curvature is fitted on at least this many tokens: what the results in the docs were made with."""


def fit_to_data(
    study: Study, named: AbstractSet[str], n_documents: int, longest_query: int
) -> tuple[StudyConfig, dict[str, str]]:
    """The settings with those scaled that nobody named.

    Args:
        study: not written yet.
        named: `section.key` of the settings that the user or a preset chose.
        n_documents: in the corpus.
        longest_query: tokens of the longest query, which a chunk has to take.

    Returns:
        The settings, and by `section.key` why some of them are what they are.
    """
    from ifguide.data.corpus_writer import first_texts
    from ifguide.data.tokenizing import tokenize
    from ifguide.models.loading import has_fast_bfloat16, load_tokenizer, pick_device

    config, facts, device = study.config, find_facts(study), pick_device(study.config.compute.device)
    tokenizer = load_tokenizer(study.resolve(config.model.source), config.model.revision)
    texts = first_texts(study.resolved("corpus"), SAMPLE)
    lengths = np.array([len(text.token_ids) for text in tokenize(tokenizer, texts)])
    values, reasons = config_to_dict(config), {}

    def propose(place: str, value: Any, reason: str) -> None:
        section, key = place.split(".")
        if place not in named and values[section][key] != value:
            values[section][key] = value
            reasons[place] = reason

    scratch, gpu = config.model.mode == "scratch", device.type == "cuda"
    longest = max(int(np.quantile(lengths, 0.99)), longest_query)
    cut = min(facts.context, 2048, max(64, 1 << longest.bit_length()))
    if cut < facts.context:
        propose("corpus.max_length", cut, "99 of 100 documents and every query are shorter.")
    widest = max(inputs for _, inputs in facts.layers)
    wanted = max(_FEW_TOKENS, 2 * widest)
    if n_documents * lengths.mean() > wanted:
        propose("factors.max_tokens", wanted, f"Enough for layers of up to {widest:,} inputs.")
    if config.model.mode == "finetune":
        rate = 2e-4 if facts.parameters < 5e8 else 5e-5 if facts.parameters < 3e9 else 2e-5
        propose("training.learning_rate", rate, f"For a model of {facts.parameters:,} weights.")
        propose("training.checkpoint_steps", [1], "A trained model is asked before it has learned the corpus.")
    elif scratch:
        propose(
            "training.learning_rate", 1e-3 if facts.parameters < 1e8 else 6e-4, "Training starts from random weights."
        )
        propose("training.epochs", 4.0, "Training starts from random weights.")
        propose("training.adam_beta2", 0.95, "Training starts from random weights.")
    batch = 8 if n_documents < 5_000 else 16 if n_documents < 50_000 else 32
    propose("training.batch_size", batch, f"For {n_documents:,} documents.")
    if has_fast_bfloat16(device):
        propose("training.dtype", "bfloat16", "Fast on this device.")
    propose("compute.tokens_per_batch", 16_384 if gpu else 2_048, "For a GPU." if gpu else "For a processor.")
    return config_from_dict(values), reasons

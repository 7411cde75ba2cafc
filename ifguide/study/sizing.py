"""Settings that follow from the data, the model and the device, where the user named none."""

import time
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np

from ifguide.config.io import config_from_dict, config_to_dict
from ifguide.config.schema import StudyConfig
from ifguide.study.model_facts import ModelFacts
from ifguide.study.reading import Study

SAMPLE = 500
"""Documents, from the start, that stand for all."""
_FEW_TOKENS = 4_000
"""Curvature is fitted on at least this many tokens: what the results in the docs were made with."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The beginning of a study's inputs, before anything is built."""

    n_documents: int
    """In the corpus."""
    taken: int
    """S, in the sample."""
    token_ids: np.ndarray
    """int32 (n,), of the sampled documents end to end."""
    offsets: np.ndarray
    """int64 (S+1,)."""
    seconds: float
    """What reading and tokenising them took."""
    queries: list[tuple[np.ndarray, np.ndarray]]
    """Token ids and completion masks of all queries of the study's own pair of sets."""
    prompts: list[str]
    """All prompts of an evaluation."""


def sample_inputs(study: Study) -> Sample:
    """Read the beginning of the corpus, and all queries and prompts. Errors are those of their readers."""
    from ifguide.data.corpus_writer import check_documents, first_texts
    from ifguide.data.prompts import read_prompts
    from ifguide.data.queries import encode_queries, read_queries
    from ifguide.data.readers import count_rows
    from ifguide.data.tokenizing import tokenize
    from ifguide.models.loading import bos_context, load_tokenizer

    tokenizer = load_tokenizer(study.resolve(study.config.model.source), study.config.model.revision)
    corpus, queries, evaluate = study.resolved("corpus"), study.resolved_queries(), study.resolved("evaluate")
    started = time.monotonic()
    tokenized = [text.token_ids for text in tokenize(tokenizer, first_texts(corpus, tokenizer, SAMPLE))]
    seconds = time.monotonic() - started
    pairs = {kind: read_queries(getattr(queries, kind), kind=kind, config=queries) for kind in ("toxic", "safe")}
    longest, bos = study.max_length(), bos_context(tokenizer)
    n_documents = count_rows(corpus.path, text_unit=corpus.text_unit) or check_documents(corpus, tokenizer)
    given = [prompt.text for prompt in read_prompts(evaluate.prompts, evaluate)] if evaluate.prompts else []
    return Sample(
        n_documents=min(n_documents, corpus.max_documents or n_documents),
        taken=len(tokenized),
        token_ids=np.concatenate(tokenized),
        offsets=np.concatenate([[0], np.cumsum([len(ids) for ids in tokenized])]),
        seconds=seconds,
        queries=[one for kind in pairs.values() for one in encode_queries(kind, tokenizer, longest, bos_id=bos)],
        prompts=given or pairs["toxic"]["prompt"].tolist()[: evaluate.n_prompts or None],
    )


def fit_to_data(study: Study, named: AbstractSet[str], facts: ModelFacts) -> tuple[StudyConfig, dict[str, str]]:
    """The settings with those scaled that nobody named.

    Args:
        study: not written yet.
        named: `section.key` of the settings that the user or a preset chose.
        facts: of its model.

    Returns:
        The settings, and by `section.key` why some of them are what they are.
    """
    from ifguide.models.loading import has_fast_bfloat16, pick_device

    config, device = study.config, pick_device(study.config.compute.device)
    sample = sample_inputs(study)
    n_documents, lengths = sample.n_documents, np.diff(sample.offsets)
    values, reasons = config_to_dict(config), {}

    def propose(place: str, value: Any, reason: str) -> None:
        section, key = place.split(".")
        if place not in named and values[section][key] != value:
            values[section][key] = value
            reasons[place] = reason

    scratch, gpu = config.model.mode == "scratch", device.type == "cuda"
    longest = max(int(np.quantile(lengths, 0.99)), *(len(ids) for ids, _ in sample.queries))
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

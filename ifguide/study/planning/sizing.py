"""A study's inputs before anything is built, checked or sampled, and the settings that follow from them, from the model
and from the device where the user named none."""

import contextlib
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np

from ifguide.config.io import with_values
from ifguide.config.schema import StudyConfig
from ifguide.data.tokenizing import Encoded
from ifguide.errors import ConfigError, InputError
from ifguide.study.planning.model_facts import find_facts
from ifguide.study.reading import Study
from ifguide.study.stage_table import PASSES, TRAINING, describe_stage
from ifguide.study.stages.checkpoints import study_tokenizer

SAMPLE = 500
"""Documents, from the start, that stand for all."""
LONGEST_CHUNK = 2048
"""Longer chunks are not proposed."""
_FEW_TOKENS = 4_000
"""Curvature is fitted on at least this many tokens: what the results in the docs were made with."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The beginning of a study's inputs, before anything is built: S documents."""

    n_documents: int
    """In the corpus."""
    token_ids: np.ndarray
    """int32 (n,), of the sampled documents end to end."""
    offsets: np.ndarray
    """int64 (S+1,)."""
    seconds: float
    """What reading and tokenising them took."""
    queries: Encoded
    """All queries of the study's own pair of sets."""
    prompts: list[str]
    """All prompts of an evaluation."""
    prompts_warning: str
    """Where some of them are prompts of the toxic queries."""


def sample_inputs(study: Study, *, whole: bool = False) -> Sample:
    """Read the beginning of the corpus, all queries and prompts, and with `whole` every document, to check it. Errors
    are those of their readers."""
    from ifguide.data.corpus_writer import check_documents, first_texts
    from ifguide.data.prompts import read_prompts
    from ifguide.data.readers import count_rows
    from ifguide.data.tokenizing import tokenize
    from ifguide.study.stages.evaluating import warn_of_shared

    tokenizer, corpus, evaluate = study_tokenizer(study), study.resolved("corpus"), study.resolved("evaluate")
    counted = 0 if whole else count_rows(corpus.path, text_unit=corpus.text_unit)
    n_documents = counted or check_documents(corpus, tokenizer)
    started = time.monotonic()
    tokenized = [text.token_ids for text in tokenize(tokenizer, first_texts(corpus, tokenizer, SAMPLE))]
    seconds = time.monotonic() - started
    fitted, queries = _encode_sets(study, tokenizer)
    prompts = [prompt.text for prompt in read_prompts(evaluate.prompts, evaluate)] if evaluate.prompts else fitted
    prompts = prompts[: evaluate.n_prompts or None]
    return Sample(
        n_documents=min(n_documents, corpus.max_documents or n_documents),
        token_ids=np.concatenate(tokenized),
        offsets=np.concatenate([[0], np.cumsum([len(ids) for ids in tokenized])]),
        seconds=seconds,
        queries=queries,
        prompts=prompts,
        prompts_warning=warn_of_shared(prompts, fitted),
    )


def _encode_sets(study: Study, tokenizer, name: str = "") -> tuple[list[str], list]:
    """The prompts of the toxic queries of a pair of sets, and all queries of both, encoded."""
    from ifguide.data.queries import encode_queries, read_sets
    from ifguide.models.loading import bos_context

    config, encoded = study.resolved_queries(name), []
    sets = read_sets(config)
    for kind, queries in sets.items():
        with _naming(getattr(config, kind)):
            encoded += encode_queries(queries, tokenizer, study.max_length(), bos_id=bos_context(tokenizer))
    return sets["toxic"]["prompt"].tolist(), encoded


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Errors about a text that was read from a file say which file it was."""
    try:
        yield
    except InputError as error:
        raise error if path in str(error) else InputError(f"{path}: {error}") from error


def check_inputs(study: Study) -> Sample:
    """Check that every file a configuration names opens and parses: the model's configuration, tokenizer and weights
    (of these only the heads), the corpus, the query sets, the prompts and the held-out text.

    Raises:
        InputError: something cannot be used; the message names it and says how to fix it.
        ConfigError: a needed input is not named.
    """
    from ifguide.data.prompts import read_heldout
    from ifguide.evaluation.harness import check_harness
    from ifguide.evaluation.last_word import split_last_word
    from ifguide.models.loading import check_weights, load_config
    from ifguide.study.stages.evaluating import read_lambada

    model, corpus, queries = study.config.model, study.config.corpus, study.config.queries
    needed = {"model": model.source, "corpus": corpus.path, "toxic": queries.toxic, "safe": queries.safe}
    for name, value in needed.items():
        if not value:
            raise ConfigError(f"a study needs --{name}")
    for source in (model.source, *model.checkpoints):
        load_config(study.resolve(source), model.revision if source == model.source else "")
        if model.mode != "scratch":
            check_weights(study.resolve(source))
    sample = sample_inputs(study, whole=True)
    for name in queries.extra:  # all queries are encoded, for the direction is computed hours later
        _encode_sets(study, study_tokenizer(study), name)
    evaluate = study.resolved("evaluate")
    if evaluate.heldout:
        read_heldout(evaluate.heldout, evaluate)
    with _naming(evaluate.lambada):
        for passage in read_lambada(evaluate):
            split_last_word(passage)
    if evaluate.harness_tasks:
        check_harness(evaluate.harness_tasks, evaluate.harness_folder)
    return sample


def fit_to_data(study: Study, sample: Sample, named: AbstractSet[str]) -> tuple[StudyConfig, dict[str, str]]:
    """The settings of a study that is not written yet, with those scaled that are not `named` (`section.key`) by the
    user or a preset; and by `section.key` why some of them are what they are."""
    from ifguide.models.loading import has_fast_bfloat16, pick_device

    config, device, facts = study.config, pick_device(study.config.compute.device), find_facts(study)
    n_documents, lengths = sample.n_documents, np.diff(sample.offsets)
    proposed: dict[str, tuple[Any, str]] = {}
    longest = max(int(np.quantile(lengths, 0.99)), *(len(ids) for ids, _ in sample.queries))
    fits = max(64, 1 << longest.bit_length())
    if (length := min(fits, LONGEST_CHUNK)) < facts.context:
        all_fit, cut = "99 of 100 documents and every query are shorter.", "Longer documents are cut, to save memory."
        proposed["corpus.max_length"] = length, all_fit if fits <= LONGEST_CHUNK else cut
    widest = max(inputs for _, inputs in facts.layers)
    fit_tokens = max(_FEW_TOKENS, 2 * widest)
    if n_documents * lengths.mean() > fit_tokens:
        proposed["factors.max_tokens"] = fit_tokens, f"Enough for layers of up to {widest:,} inputs."
    if config.model.mode == "finetune":
        rate = 2e-4 if facts.parameters < 5e8 else 5e-5 if facts.parameters < 3e9 else 2e-5
        proposed["training.learning_rate"] = rate, f"For a model of {facts.parameters:,} weights."
        proposed["training.checkpoint_steps"] = [1], "A trained model is asked before it has learned the corpus."
    elif config.model.mode == "scratch":
        rate = 1e-3 if facts.parameters < 1e8 else 6e-4
        for key, value in {"learning_rate": rate, "epochs": 4.0, "adam_beta2": 0.95}.items():
            proposed[f"training.{key}"] = value, "Training starts from random weights."
    batch = 8 if n_documents < 5_000 else 16 if n_documents < 50_000 else 32
    proposed["training.batch_size"] = batch, f"For {n_documents:,} documents."
    if has_fast_bfloat16(device):
        proposed["training.dtype"] = "bfloat16", "Fast on this device."
    tokens = (16_384, "For a GPU.") if device.type == "cuda" else (2_048, "For a processor.")
    proposed["compute.tokens_per_batch"] = tokens
    free = {place: proposal for place, proposal in proposed.items() if place not in named}
    reasons = {place: reason for place, (_, reason) in free.items()}
    return with_values(config, {place: value for place, (value, _) in free.items()}), reasons


def smaller_batch(config: StudyConfig, stage: str, size: int | None = None) -> dict[str, int]:
    """The settings that give a stage a batch of this size, or of half the size it has, and a training as many rows a
    step as before; empty where the batch is no larger than that."""
    setting = describe_stage(stage).batch or PASSES
    section, _, key = setting.partition(".")
    least = 64 if setting == PASSES else 1
    now = getattr(getattr(config, section), key)
    size = now // 2 if size is None else size
    if not least <= size < now:
        return {}
    changed = {setting: size}
    if setting == TRAINING:
        changed["training.gradient_accumulation"] = now * config.training.gradient_accumulation // size
    return changed

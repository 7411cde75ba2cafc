"""Checks, before a study is written, that every file its configuration names opens and parses."""

import contextlib
from collections.abc import Iterator

from ifguide.errors import ConfigError, InputError
from ifguide.study.reading import Study


def check_inputs(study: Study) -> None:
    """Open and parse the model's configuration and tokenizer, the corpus, both query sets, the prompts and the held-out
    text.

    Weights are not loaded: that is the first thing the `model` stage does.

    Raises:
        InputError: something cannot be used; the message names it and says how to fix it.
        ConfigError: a needed input is not named.
    """
    from ifguide.data.corpus_writer import check_documents
    from ifguide.data.prompts import read_heldout, read_prompts
    from ifguide.data.queries import encode_queries, read_queries
    from ifguide.evaluation.harness import check_harness
    from ifguide.evaluation.last_word import split_last_word
    from ifguide.models.loading import bos_context, load_config, load_tokenizer
    from ifguide.study.evaluating import read_lambada

    config = study.config
    for name, value in (
        ("--model", config.model.source),
        ("--corpus", config.corpus.path),
        ("--toxic", config.queries.toxic),
        ("--safe", config.queries.safe),
    ):
        if not value:
            raise ConfigError(f"a study needs {name}")
    for source in (config.model.source, *config.model.checkpoints):
        load_config(study.resolve(source), config.model.revision if source == config.model.source else "")
    tokenizer = load_tokenizer(study.resolve(config.model.source), config.model.revision)
    check_documents(study.resolved("corpus"))
    for name in study.query_sets():
        queries = study.resolved_queries(name)
        for kind in ("toxic", "safe"):
            path = getattr(queries, kind)
            pairs = read_queries(path, kind=kind, config=queries, max_queries=queries.max_queries)
            with _naming(path):  # all of them: the direction is computed hours later
                encode_queries(pairs, tokenizer, study.max_length(), bos_id=bos_context(tokenizer))
    evaluate = study.resolved("evaluate")
    if evaluate.prompts:
        read_prompts(evaluate.prompts, evaluate)
    if evaluate.heldout:
        read_heldout(evaluate.heldout, evaluate)
    with _naming(evaluate.lambada):
        for passage in read_lambada(evaluate):
            split_last_word(passage)
    if evaluate.harness_tasks:
        check_harness(evaluate.harness_tasks, evaluate.harness_folder)


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Errors about a text that was read from a file say which file it was."""
    try:
        yield
    except InputError as error:
        raise error if path in str(error) else InputError(f"{path}: {error}") from error

"""What each stage takes, from what is measured of its own work: a function a stage, named in
`ifguide.study.stage_table`."""

import dataclasses
import functools
import math
from collections import Counter, deque
from collections.abc import Callable

import numpy as np

from ifguide.config.attributions import KINDS, computed_kinds
from ifguide.study.lineage import Unit
from ifguide.study.planning.measure import Measured, Need, usual
from ifguide.study.stage_table import curvature_unit
from ifguide.study.variants import is_edit, recipe

CHARACTERS = 4
"""Of a token, about."""
STRENGTHS_TRIED = 8
"""Lengths of an edit's step that held-out text is read with, about."""


def need_corpus(measured: Measured) -> Need:
    """Reading and tokenising every document."""
    return Need(seconds=1 + measured.sample.seconds * measured.scale, disk=16 * measured.n_tokens)


def need_queries(measured: Measured) -> Need:
    """Reading some tables."""
    return Need(seconds=0.1)


def need_model(measured: Measured) -> Need:
    """A training, and the weights of the finished model and of each checkpoint."""
    if measured.config.model.mode == "asis":
        return Need(seconds=0.1)
    return dataclasses.replace(measured.training, disk=measured.weights * (1 + len(measured.checkpoints)))


def need_suppress(measured: Measured) -> Need:
    """A training for each selection, or an edit."""
    config, models = measured.config, measured.count("suppress")
    edits = [name for unit in measured.study.units("suppress") if is_edit(config, name := unit.name)]
    needs = [_need_edits(measured, edits)] if edits else []
    if models > len(edits):
        once = measured.training
        needs.append(dataclasses.replace(once, seconds=(models - len(edits)) * once.seconds))
    seconds, host, device = sum(n.seconds for n in needs), max(n.host for n in needs), max(n.device for n in needs)
    return Need(seconds=seconds, host=host, device=device, disk=models * measured.weights)


def _need_edits(measured: Measured, names: list[str]) -> Need:
    """A pass over the corpus at most, some over held-out text, and a fit of the curvature if the scores need none."""
    from ifguide.data.prompts import read_heldout
    from ifguide.influence.edit import token_gradient
    from ifguide.influence.losses import SplitModel
    from ifguide.study.stages.editing import SAMPLE_TOKENS

    fitted = {curvature_unit(measured.config, recipe(measured.config, name)) for name in names} - {Unit("factors")}
    fit = need_factors(measured, len(fitted)) if fitted else Need(seconds=0.0)
    split, evaluate = SplitModel(measured.model), measured.study.resolved("evaluate")
    read = measured.time(lambda: [split(batch) for batch in measured.batches], measured.fuller)
    learn = functools.partial(token_gradient, measured.model, measured.modules, measured.batches)
    learned = measured.time(learn, measured.fuller, measured.matrices)
    texts = read_heldout(evaluate.heldout, evaluate) if evaluate.heldout else []
    heldout = min(SAMPLE_TOKENS, sum(map(len, texts)) // (2 * CHARACTERS)) if texts else SAMPLE_TOKENS
    once = (measured.n_tokens * learned + (STRENGTHS_TRIED + 2) * heldout * read) / measured.measured
    edit = measured.need(len(names) * once, more=2 * measured.matrices)
    both = {place: max(getattr(edit, place), getattr(fit, place)) for place in ("host", "device")}
    return dataclasses.replace(edit, seconds=edit.seconds + fit.seconds, **both)


def need_factors(measured: Measured, n: int | None = None) -> Need:
    """Two passes over some tokens, and an eigenbasis for each side of a layer, at `n` checkpoints; None: at all."""
    import torch

    from ifguide.influence.ekfac import KEPT_BYTES, Fit, accumulation_dtype, eigenvectors, factor_shapes
    from ifguide.influence.parts import fit_bytes, shapes_of
    from ifguide.models.layers import layer_shape
    from ifguide.study.stages.checkpoints import divide_layers, factor_products, fit_batch

    config = measured.config.factors
    if config.strategy == "identity":
        return Need(seconds=0.1)
    n = len(measured.checkpoints) if n is None else n
    narrow = factor_products(measured.study, measured.device)
    products = getattr(torch, narrow) if narrow else None
    batches, fuller = measured.batches_of(fit_batch(measured.modules, measured.config.compute.tokens_per_batch))
    fit = Fit(measured.model, measured.modules, lambda: batches, labels=config.labels, products=products)
    study, model, modules = measured.study, measured.model, measured.modules
    parts = divide_layers(study, model, modules, measured.device, fit_bytes, config.partitions)
    measured.partitions = len(parts)
    largest = max(parts, key=lambda part: fit_bytes(shapes_of(part), fit.shared))
    covariances: deque = deque(maxlen=1)  # what is timed twice is held once
    matrices = fit_bytes(shapes_of(largest), fit.shared)

    def first_pass() -> None:
        fit.kept.clear()
        fit.room = KEPT_BYTES
        covariances.append(fit.covariances(largest))

    seconds = measured.time(first_pass, fuller, matrices)
    inputs, outputs = covariances.pop()  # other square matrices take as long
    seconds += measured.time(lambda: fit.eigenvalues(largest, inputs, outputs), fuller, matrices)
    sides = Counter(outputs for outputs, _ in measured.facts.layers)
    sides.update(layer_shape(measured.modules[first])[1] for first in {*fit.shared.values()})
    eigen = 0.0
    for side, times in sides.items():
        mixed = torch.rand(1, side, side, device=measured.device)
        eigen += times * measured.time(functools.partial(eigenvectors, mixed @ mixed.mT, [""]))
    tokens = min(config.max_tokens or measured.n_tokens, measured.n_tokens)
    fields = (shape for fields in factor_shapes(measured.modules, config.rank).values() for shape in fields.values())
    width = accumulation_dtype(measured.model).itemsize if config.dtype == "float32" else 2
    share, held = tokens / measured.measured, KEPT_BYTES - fit.room
    kept = min(KEPT_BYTES, int(share * held)) - held  # of all tokens, beyond those measured
    disk = n * width * sum(map(math.prod, fields))
    return measured.need(n * (len(parts) * seconds * share + eigen), disk, max(0, kept))


def need_direction(measured: Measured) -> Need:
    """The queries' gradients at every checkpoint; the products with the factors take little beside them."""
    from ifguide.influence.direction import query_gradient
    from ifguide.influence.parts import direction_bytes, shapes_of
    from ifguide.study.stages.checkpoints import divide_layers

    n = len(measured.checkpoints)
    parts = divide_layers(measured.study, measured.model, measured.modules, measured.device, direction_bytes)
    each = {name: name for name in measured.modules}
    largest = max(parts, key=lambda part: direction_bytes(shapes_of(part), each))
    lengths, tokens = [len(ids) for ids, _ in measured.sample.queries], measured.config.compute.tokens_per_batch
    some = [measured.sample.queries[n] for n in usual(np.array(lengths), 2 * measured.tokens)]
    read, longest = sum(len(ids) for ids, _ in some), max(len(ids) for ids, _ in some)
    held = 4 * sum(math.prod(shape) for shape in shapes_of(largest).values())  # while it was measured
    fuller = max(1.0, min(tokens, sum(lengths)) / min(tokens, len(some) * longest))
    work = functools.partial(query_gradient, measured.model, largest, some, tokens_per_batch=tokens)
    seconds = measured.time(work, fuller, held) * len(parts) * sum(lengths) / read
    more = direction_bytes(shapes_of(largest), each) - held
    return measured.need(n * (seconds + 0.2), n * measured.matrices, more)


def need_scores(measured: Measured) -> Need:
    """A pass or several for each kind and each pair of query sets, at every checkpoint."""
    import torch

    from ifguide.influence.attribution import position_scores
    from ifguide.influence.derivative import RELATIVE_STEPS, SAMPLE_TOKENS, Derivative
    from ifguide.influence.losses import SplitModel
    from ifguide.influence.probe import hidden_states
    from ifguide.models.loading import attention

    n, kinds = len(measured.checkpoints), computed_kinds(measured.config.scores)
    sets, seconds = len(measured.study.query_sets()), 0.0
    shapes = zip(measured.modules, measured.facts.layers, strict=True)
    along = {name: torch.ones(shape, device=measured.device) for name, shape in shapes}
    split = SplitModel(measured.model)

    def by_token(score: Callable) -> float:
        return measured.time(lambda: [score(batch) for batch in measured.batches], measured.fuller) / measured.measured

    if "own_loss" in kinds:
        central = by_token(Derivative("central", epsilon=1e-6).scorer(split, measured.modules, along))
        exact = 0.0
        if measured.facts.forward_derivative:
            with attention(measured.model, "eager"):
                exact = by_token(Derivative("jvp").scorer(split, measured.modules, along))
        tried = min(SAMPLE_TOKENS, measured.n_tokens) * (exact + central * (len(RELATIVE_STEPS) + 1))
        passes = exact if measured.config.scores.derivative == "jvp" else central
        seconds += sets * (tried + measured.n_tokens * passes)
    if "position" in kinds:
        seconds += measured.n_tokens * by_token(lambda b: position_scores(split, measured.modules, [along] * sets, b))
    if "probe" in kinds:
        read = sets * sum(len(ids) for ids, _ in measured.sample.queries)
        if "own_loss" not in kinds or measured.config.scores.derivative == "jvp":  # else influence's passes give it
            read += measured.n_tokens
        seconds += read * by_token(lambda batch: hidden_states(measured.model, batch))
    stored = [kind for kind in kinds if not KINDS[kind].parts]
    return measured.need(n * seconds, 4 * measured.n_tokens * (n * len(stored) + len(kinds)), measured.matrices * sets)


def need_evaluate(measured: Measured) -> Need:
    """Completions, their rating and held-out text, for each model."""
    from ifguide.data.prompts import read_heldout
    from ifguide.evaluation.fluency import heldout_losses
    from ifguide.evaluation.generation import generate_completions
    from ifguide.study.stages.evaluating import load_rater

    models = measured.count("evaluate")
    config = measured.study.resolved("evaluate")
    prompts = measured.sample.prompts
    count = len(prompts) * config.n_samples
    together = min(config.batch_size, count, max(16, 2 * measured.tokens // 3))
    few = prompts[: math.ceil(together / config.n_samples)]
    made = len(few) * config.n_samples

    def generate(steps: int) -> Callable:
        short = dataclasses.replace(config, max_new_tokens=steps)
        return lambda: written.append(generate_completions(measured.model, measured.tokenizer, few, short))

    written: list = []
    fuller = min(config.batch_size, count) / made
    short, longer = measured.time(generate(2), fuller), measured.time(generate(6), fuller)
    by_step = max(0.0, longer - short) / 4
    seconds = count / made * (short + by_step * (config.max_new_tokens - 2))
    scorer = load_rater(measured.study)
    seconds += count / made * measured.time(lambda: scorer.score([one.completion for one in written[-1]]))
    texts = read_heldout(config.heldout, config) if config.heldout else []
    if texts:
        lengths = np.array([len(text) for text in texts])
        some = usual(lengths, CHARACTERS * measured.tokens)
        read = measured.time(lambda: heldout_losses(measured.model, measured.tokenizer, [texts[n] for n in some]))
        seconds += float(lengths.sum() / lengths[some].sum()) * read
    return measured.need(models * (seconds + 0.3), models * 200 * count)


def need_index(measured: Measured) -> Need:
    """Sorting each kind of scores."""
    work = len(computed_kinds(measured.config.scores)) * measured.n_tokens
    return Need(seconds=0.1 + 1e-6 * work, disk=24 * work)


def need_selection(measured: Measured) -> Need:
    """A mask for each selection."""
    return Need(seconds=0.2 * measured.count("selection"))


def need_documents(measured: Measured) -> Need:
    """Sums for every document."""
    return Need(seconds=0.5 + 1e-4 * measured.sample.n_documents)

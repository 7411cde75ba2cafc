"""What suppression changed inside a model: how likely each layer finds toxic completions, and how easily a prefix draws
them out. Measured on demand."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ifguide.config.names import BASE
from ifguide.evaluation.mechanism_settings import MechanismSettings
from ifguide.evaluation.statistics import bootstrap_interval
from ifguide.runtime.progress import Progress, report_part
from ifguide.study import on_demand
from ifguide.study.freshness import require_fresh, unit_digest, unit_state
from ifguide.study.lineage import Unit, weights_unit
from ifguide.study.stages.evaluating import load_evaluated

if TYPE_CHECKING:
    from ifguide.study.reading import Study

FOLDER = "mechanism"
VERSION = 2
KINDS = ("toxic", "safe")
LARGEST = 5
"""Most models that the app compares; the command compares any number."""


def comparable_models(study: "Study") -> tuple[str, ...]:
    """`base` and the trained models, as far as they are up to date, at most `LARGEST`; none without `base`."""
    fresh = [n for n in (BASE, *study.suppressed_names()) if unit_state(study, weights_unit(n)).state == "fresh"]
    return tuple(fresh[:LARGEST]) if BASE in fresh else ()


def mechanism_path(study: "Study", settings: MechanismSettings) -> Path:
    """Where the result is or will be. A StaleError: a model, or the queries, are missing or out of date."""
    units = (Unit("queries"), *(weights_unit(name) for name in settings.models))
    for unit in units:
        require_fresh(study, unit, f"suppress {study.name} --selection {unit.name}" if unit.name else "")
    made_of = [VERSION, asdict(settings), *(unit_digest(study, unit) for unit in units)]
    return on_demand.result_path(study, FOLDER, made_of)


def read_mechanism(study: "Study", settings: MechanismSettings) -> dict | None:
    """The result of `measure_mechanism`, if it is there and belongs to these models and queries."""
    return on_demand.read_result(mechanism_path(study, settings))


def read_layers(study: "Study", models: tuple[str, ...]) -> dict | None:
    """The result for these models with the usual settings, with a search for a prefix if there was one."""
    choices = (MechanismSettings(models=models, search=search) for search in (True, False))
    return next(filter(None, (read_mechanism(study, settings) for settings in choices)), None)


def measure_mechanism(study: "Study", settings: MechanismSettings, progress: Progress | None = None) -> dict:
    """Measure every model on the same queries, with the same budget, and keep the result.

    Returns:
        `settings`; `queries`, the number of each kind; and for each model of `models`:
        `layers`: for `toxic` and `safe`, lists over layers 0 (embedding) to L: `probability` and `log_probability`
        (nats), each the mean over queries of the mean over a completion's tokens, with 95% bootstrap intervals over
        queries in `_low` and `_high`.
        `prefix` (with `search`): `token_ids` and their `text`, the objective of the first prefix `start` and of the
        found one `best`, `path` round by round, `without` any prefix; `others` and `others_without`, the same on
        queries that the search did not see (null when there are none); and `by_model`, the objective of this prefix in
        each model.

    Raises:
        StaleError: as `mechanism_path`.
        InputError, NumericalError: a model whose layers cannot be read, see `ifguide.evaluation.logit_lens`.
    """
    progress, path = progress or Progress(), mechanism_path(study, settings)
    models = {name: load_evaluated(study, name) for name in settings.models}
    measurement: dict = {
        "settings": asdict(settings),
        "queries": {},
        "models": {name: {"layers": {}} for name in models},
    }
    for kind in KINDS:
        pairs = study.queries(kind)
        measurement["queries"][kind] = len(pairs)
        for name, (model, tokenizer) in models.items():
            progress.message(f"layers of {name}, {kind} queries")
            measurement["models"][name]["layers"][kind] = _measure_layers(model, tokenizer, pairs, progress)
    if settings.search:
        _search(study, models, settings, measurement["models"], progress)
    return on_demand.keep_result(path, measurement)


def _encode(model, tokenizer, pairs, room: int = 0):
    """Encoded pairs with room for a prefix, and how many tokens stay in front of it."""
    from ifguide.data.queries import encode_queries
    from ifguide.models.loading import bos_context, context_length

    bos = bos_context(tokenizer)
    encoded = encode_queries(pairs, tokenizer, context_length(model.config) - room, bos_id=bos)
    return encoded, 0 if bos is None else 1


def _measure_layers(model, tokenizer, pairs, progress: Progress) -> dict:
    from ifguide.evaluation.logit_lens import layer_probabilities

    encoded, _ = _encode(model, tokenizer, pairs)
    layers = layer_probabilities(model, encoded, report=report_part(progress, "queries"))
    intervals: dict[str, list[float]] = {}
    for name, values in layers._asdict().items():
        for column in values.T:
            interval = bootstrap_interval(lambda rows: float(rows.mean()), column[:, None])
            for end, value in zip(("", "_low", "_high"), interval, strict=True):
                intervals.setdefault(f"{name}{end}", []).append(value)
    return intervals


def _search(study: "Study", models: dict, settings: MechanismSettings, results: dict, progress: Progress) -> None:
    from ifguide.evaluation.prefix_search import find_prefix, prefix_objective

    pairs, budget = study.queries("toxic"), settings.prefix
    order = np.random.default_rng([budget.seed, 0]).permutation(len(pairs))
    n = settings.n_search
    sets = {"seen": sorted(order[:n]), "others": sorted(order[n : 2 * n])}
    report = report_part(progress, "rounds")
    encoded, prefixes = {}, {}
    for name, (model, tokenizer) in models.items():
        encode = partial(_encode, model, tokenizer, room=budget.n_tokens)
        encoded[name] = {part: encode(pairs.iloc[rows]) for part, rows in sets.items()}
        progress.message(f"prefix for {name}")
        queries, lead = encoded[name]["seen"]
        prefix = find_prefix(model, queries, allowed_tokens(model, tokenizer), budget, lead=lead, report=report)
        prefixes[name] = prefix.token_ids
        text = tokenizer.decode(prefix.token_ids, clean_up_tokenization_spaces=False)
        plain = {"token_ids": list(prefix.token_ids), "path": list(prefix.path), "text": text}
        results[name]["prefix"] = asdict(prefix) | plain

    def value(name: str, part: str, prefix: Sequence[int]) -> float | None:
        queries, lead = encoded[name][part]
        if not queries:
            return None
        return prefix_objective(models[name][0], queries, prefix, lead=lead, batch_size=budget.batch_size)

    for name in models:
        results[name]["prefix"] |= {
            "without": value(name, "seen", ()),
            "others": value(name, "others", prefixes[name]),
            "others_without": value(name, "others", ()),
            "by_model": {other: value(other, "seen", prefixes[name]) for other in models},
        }


def allowed_tokens(model, tokenizer) -> list[int]:
    """Tokens a prefix may hold: those with a visible text of their own that both the model and the tokenizer know, no
    special ones."""
    n_rows = model.get_input_embeddings().weight.shape[0]
    special = set(tokenizer.all_special_ids)
    texts = tokenizer.batch_decode([[token] for token in range(min(len(tokenizer), n_rows))])
    return [token for token, text in enumerate(texts) if token not in special and text.strip() and "�" not in text]

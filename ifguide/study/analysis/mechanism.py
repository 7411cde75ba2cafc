"""What suppression changed inside a model: how likely each layer finds toxic completions. Measured on demand."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ifguide.evaluation.statistics import bootstrap_interval
from ifguide.runtime.progress import Progress, report_part
from ifguide.study import on_demand
from ifguide.study.evaluating import load_evaluated
from ifguide.study.freshness import require_fresh, unit_digest
from ifguide.study.lineage import Unit, weights_unit

if TYPE_CHECKING:
    from ifguide.study.reading import Study

FOLDER = "mechanism"
VERSION = 3
KINDS = ("toxic", "safe")


def mechanism_path(study: "Study", models: Sequence[str]) -> Path:
    """Where the result for these `models`, `base` or selections, is or will be. A StaleError: one of them, or the
    queries, are missing or out of date."""
    units = (Unit("queries"), *(weights_unit(name) for name in models))
    for unit in units:
        require_fresh(study, unit, f"suppress {study.name} --selection {unit.name}" if unit.name else "")
    made_of = [VERSION, [*models], *(unit_digest(study, unit) for unit in units)]
    return on_demand.result_path(study, FOLDER, made_of)


def read_mechanism(study: "Study", models: Sequence[str]) -> dict | None:
    """The result of `measure_mechanism`, if it is there and belongs to these models and queries."""
    return on_demand.read_result(mechanism_path(study, models))


def measure_mechanism(study: "Study", models: Sequence[str], progress: Progress | None = None) -> dict:
    """Measure every model on the same queries and keep the result.

    Returns:
        `queries`, the number of each kind; and for each model of `models` its `layers`: for `toxic` and `safe`, lists
        over layers 0 (embedding) to L: `log_probability` (nats), the mean over queries of the mean over a completion's
        tokens, with 95% bootstrap intervals over queries in `_low` and `_high`.

    Raises:
        StaleError: as `mechanism_path`.
        InputError, NumericalError: a model whose layers cannot be read, see `ifguide.evaluation.logit_lens`.
    """
    progress, path = progress or Progress(), mechanism_path(study, models)
    loaded = {name: load_evaluated(study, name) for name in models}
    found: dict = {"queries": {}, "models": {name: {"layers": {}} for name in models}}
    for kind in KINDS:
        pairs = study.queries(kind)
        found["queries"][kind] = len(pairs)
        for name, (model, tokenizer) in loaded.items():
            progress.message(f"layers of {name}, {kind} queries")
            found["models"][name]["layers"][kind] = _measure_layers(model, tokenizer, pairs, progress)
    return on_demand.keep_result(path, found)


def _measure_layers(model, tokenizer, pairs, progress: Progress) -> dict:
    from ifguide.data.queries import encode_queries
    from ifguide.evaluation.logit_lens import layer_log_probabilities
    from ifguide.models.loading import bos_context, context_length

    encoded = encode_queries(pairs, tokenizer, context_length(model.config), bos_id=bos_context(tokenizer))
    layers = layer_log_probabilities(model, encoded, report=report_part(progress, "queries"))
    intervals = [bootstrap_interval(lambda rows: float(rows.mean()), column[:, None]) for column in layers.T]
    ends = zip(("", "_low", "_high"), zip(*intervals, strict=True), strict=True)
    return {f"log_probability{end}": list(values) for end, values in ends}

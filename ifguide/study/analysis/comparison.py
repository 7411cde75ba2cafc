"""Before and after: variants of a model that completed the same prompts, put side by side. No torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ifguide.config.names import BASE
from ifguide.errors import InputError
from ifguide.evaluation import statistics
from ifguide.evaluation.statistics import Interval, paired_perplexity_difference, share_of_reduction
from ifguide.selection.algorithm import precision_recall
from ifguide.study.lineage import scores_unit
from ifguide.study.variants import UNSELECTED, UNTOUCHED, is_edit, recipe

if TYPE_CHECKING:
    import pandas as pd

    from ifguide.study.reading import Study


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One variant against the base model. Positive differences mean less toxic than the base."""

    variant: str
    emt: Interval
    """EMT of the base minus EMT of the variant."""
    tp: Interval
    """TP of the base minus TP of the variant."""
    mean_toxicity: Interval
    """Mean toxicity of the base minus that of the variant."""
    share_of_oracle: Interval | None
    """Share of the oracle's reduction of EMT that the variant reaches; None without an oracle."""
    share_of_added: Interval | None = None
    """Share of the EMT that training on the corpus added which is gone; more than 1 is less toxic than before. None
    without the untouched model, or where that is no less toxic."""
    perplexity: Interval | None = None
    """Perplexity of the base minus that of the variant, over held-out texts; None where the texts' losses are not
    known."""
    perplexity_rise: Interval | None = None
    """How much higher the variant's perplexity is than the base's, as a share of it: 0.02 is 2% above."""


def scores_matrix(samples: "pd.DataFrame") -> np.ndarray:
    """Toxicity as float64 (P, K), from the rows of `samples.parquet`, in any order. An InputError: not every prompt has
    each sample exactly once."""
    ordered = samples.sort_values(["prompt_index", "sample_index"])
    n_prompts, n_samples = ordered["prompt_index"].nunique(), ordered["sample_index"].nunique()
    expected = np.indices((n_prompts, n_samples)).reshape(2, -1).T
    numbers = ordered[["prompt_index", "sample_index"]].to_numpy()
    if numbers.shape != expected.shape or not np.array_equal(numbers, expected):
        size = f"{n_prompts} prompts with {n_samples} samples each"
        raise InputError(f"samples: expected {size}, got {len(numbers)} rows; evaluate this variant again")
    return ordered["toxicity"].to_numpy(dtype=np.float64).reshape(n_prompts, n_samples)


def compare_variants(
    samples: Mapping[str, "pd.DataFrame"],
    *,
    base="base",
    heldout: "Mapping[str, pd.DataFrame | None] | None" = None,
    only: str = "",
) -> list[Comparison]:
    """Every variant, or `only` one, against the base, on the same prompts, with 95% intervals: paired bootstrap over
    prompts. `samples` are those of each variant, the base among them, and of `oracle`, with the known spans suppressed;
    `heldout` what each loses on each held-out text, from `Study.heldout_losses`. An InputError: the base is missing, or
    the variants completed other prompts."""
    if base not in samples:
        raise InputError(f"compare: expected samples of {base!r}, got {', '.join(samples)}; evaluate it first")
    scores = {name: scores_matrix(frame) for name, frame in samples.items()}
    first = {name: s.sort_values("prompt_index").drop_duplicates("prompt_index") for name, s in samples.items()}
    prompts = {name: frame["prompt"].tolist() for name, frame in first.items()}
    with_oracle = "oracle" in scores and base != "oracle"
    clean = scores.get(UNTOUCHED) if base == BASE else None
    if clean is not None and statistics.emt(clean) >= statistics.emt(scores[base]):
        clean = None
    comparisons = []
    for name, ours in scores.items():
        if name == base or only not in ("", name):
            continue
        if prompts[name] != prompts[base]:
            raise InputError(f"compare: {name!r} completed other prompts than {base!r}; evaluate both again")
        drop = partial(statistics.paired_bootstrap_difference, base=scores[base], other=ours)
        perplexity, rise = compare_perplexity((heldout or {}).get(base), (heldout or {}).get(name))
        comparisons.append(
            Comparison(
                variant=name,
                emt=drop(statistics.emt),
                tp=drop(statistics.tp),
                mean_toxicity=drop(statistics.mean_toxicity),
                share_of_oracle=share_of_reduction(scores[base], ours, scores["oracle"]) if with_oracle else None,
                share_of_added=None if clean is None else share_of_reduction(scores[base], ours, clean),
                perplexity=perplexity,
                perplexity_rise=rise,
            )
        )
    return comparisons


def compare_perplexity(
    before: "pd.DataFrame | None", after: "pd.DataFrame | None"
) -> tuple[Interval | None, Interval | None]:
    """How much lower the second model's perplexity is, and how much higher as a share of the first's."""
    if before is None or after is None or len(before) != len(after):
        return None, None
    tokens = np.minimum(before["n_tokens"], after["n_tokens"]).to_numpy()  # an edit is measured on half of the texts
    both = tokens > 0
    if not both.any() or not np.array_equal(before["n_tokens"][both], after["n_tokens"][both]):
        return None, None
    losses = (before["nats"].to_numpy(), after["nats"].to_numpy(), tokens)
    share = paired_perplexity_difference(*losses, relative=True)
    return paired_perplexity_difference(*losses), Interval(0.0 - share.value, 0.0 - share.high, 0.0 - share.low)


def read_metrics(study: "Study", names: Iterable[str]) -> dict[str, dict]:
    """Metrics of those of the models that were evaluated, to be shown side by side: `edited` is true for edits. An edit
    is measured on half of the held-out text, so its `perplexity` is the base model's times its rise on that half, and
    `perplexity_note` says so."""
    metrics = {name: values for name in names if (values := study.metrics(name))}
    for name in metrics:
        if not is_edit(study.config, name):
            continue
        metrics[name]["edited"] = True
        base = study.metrics(BASE) or {}
        if base.get("perplexity") and base.get("heldout_tokens") != metrics[name].get("heldout_tokens"):
            rise = compare_perplexity(study.heldout_losses(BASE), study.heldout_losses(name))[1]
            scaled = {"perplexity": base["perplexity"] * (1 + rise.value) if rise else None}
            note = {"perplexity_note": "from half of the text", "perplexity_low": None, "perplexity_high": None}
            metrics[name] |= scaled | note
    return metrics


def describe_comparison(study: "Study", models: Sequence[str] | None = None) -> dict:
    """For JSON: the metrics of evaluated models, all or some, and by how much each is below the base. An InputError:
    one was not evaluated."""
    there = study.evaluation_names()
    names = [*dict.fromkeys([BASE, *(models or there)])]
    if unknown := [name for name in names if name not in there]:
        raise InputError(f"expected evaluated models ({', '.join(there) or 'none yet'}), got {unknown[0]!r}")
    samples, heldout = ({name: read(name) for name in names} for read in (study.samples, study.heldout_losses))
    below = {one.variant: asdict(one) for one in compare_variants(samples, heldout=heldout)}
    return {"models": read_metrics(study, names), "below_base": below}


def comparison_table(study: "Study", names: list[str]) -> str:
    """A Markdown table of evaluated models, `base` among them: what each was trained without, toxicity with 95%
    intervals, perplexity."""
    metrics = {name: study.metrics(name) or {} for name in names}
    samples, heldout = ({name: read(name) for name in names} for read in (study.samples, study.heldout_losses))
    compared = {c.variant: c for c in compare_variants(samples, heldout=heldout)}
    with_oracle = "oracle" in names
    share = ["share of the span mask's drop [95%]"] if with_oracle else []
    heads = ["model", "scores treated", "tokens", "precision / recall", "EMT [95%]", "TP [95%]", "perplexity"]
    heads += ["to base [95%]", "EMT below base [95%]", *share]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name in names:
        values, base = metrics[name], metrics["base"]
        cells = [name, describe_treatment(study, name), *_selection_cells(study, name)]
        cells += [_with_interval(values[key], values[f"{key}_low"], values[f"{key}_high"]) for key in ("emt", "tp")]
        drop = compared.get(name)
        if values["perplexity"] and base["perplexity"]:
            rise = drop and drop.perplexity_rise  # on the same texts: an edit is measured on half of them
            change = f"{rise.value if rise else values['perplexity'] / base['perplexity'] - 1:+.1%}"
            change += f" [{rise.low:+.1%}, {rise.high:+.1%}]" if rise else ""
            cells += [f"{values['perplexity']:.2f}", change]
        else:
            cells += ["–", "–"]
        parts = (drop.emt, drop.share_of_oracle) if drop else (None, None)
        for part in parts if with_oracle else parts[:1]:
            cells.append(_with_interval(part.value, part.low, part.high) if part else "–")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def describe_treatment(study: "Study", name: str) -> str:
    """How the scores behind a model's selection were put together, as their artefact's manifest says; methods are
    compared alike where this agrees. A dash where no scores are treated."""
    if not (selection := _selection_of(study, name)):
        return "–"
    made = study.selection(selection).settings
    unit = scores_unit(study.config, made["attribution"] or made["kind"])
    settings = study.manifest(unit)["config"] if unit.name or (made["attribution"] and made["kind"] != "random") else {}
    if "scores.pooling" not in settings:
        return "–"
    return f"{settings['scores.average']}, pooling {settings['scores.pooling']:g}, window {made['window']}"


def treatment_note(study: "Study", names: Iterable[str]) -> str:
    """A sentence for models that were selected by scores treated in different ways; empty where all were alike."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(describe_treatment(study, name), []).append(name)
    alike.pop("–", None)
    ways = "; ".join(f"{', '.join(models)}: {way}" for way, models in alike.items())
    return f"The scores were treated differently, so compare with care. {ways}." if len(alike) > 1 else ""


def _selection_of(study: "Study", name: str) -> str:
    """The selection that a model was trained without; empty where there is none."""
    selection = recipe(study.config, name).selection
    return selection if name not in UNSELECTED and selection in study.selection_names() else ""


def _with_interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _selection_cells(study: "Study", name: str) -> list[str]:
    """How many tokens a model was trained without, and how they agree with the known spans."""
    if not (selection := _selection_of(study, name)):
        return ["–", "–"]
    mask, corpus = np.asarray(study.selection(selection).mask), study.corpus()
    if corpus.in_span is None:
        return [f"{mask.sum():,}", "–"]
    precision, recall = precision_recall(mask, corpus.in_span, corpus.valid())
    measured = precision is not None and recall is not None
    return [f"{mask.sum():,}", f"{precision:.3f} / {recall:.3f}" if measured else "–"]

"""Does the predicted effect of a selection tell what training without it does?

    python -m benchmarks.prediction --study demo [--out docs/results/prediction.json]

Trains the study's model again against a dozen selections: several thresholds, windows, a budget, and as many random
tokens. For each it measures the change of the query losses (the queries run through the base model and the new one),
EMT and perplexity, and prints Spearman's rank correlation of the predicted change with both. It only describes these
models: most selections hold one another, so they are no independent sample and there is no interval. The study is
copied to a temporary folder first. Half a minute a model on the demo.
"""

import argparse
import dataclasses
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from ifguide.config.io import config_to_dict
from ifguide.selection.prediction import predicted_change
from ifguide.selection.saved import write_selection
from ifguide.storage import artifacts
from ifguide.study.freshness import inputs_of
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build
from ifguide.study.reading import Study
from ifguide.study.stages.select import compute_selection, open_index

CHOICES = [
    ("influence", {"attribution": "own_loss", "quantile": 0.9995}),
    ("influence", {"attribution": "own_loss", "quantile": 0.998}),
    ("influence", {"attribution": "own_loss", "quantile": 0.995}),
    ("influence", {"attribution": "own_loss", "quantile": 0.99}),
    ("influence", {"attribution": "own_loss", "quantile": 0.98}),
    ("influence", {"attribution": "own_loss", "quantile": 0.96}),
    ("influence", {"attribution": "own_loss", "quantile": 0.995, "window": 1}),
    ("influence", {"attribution": "own_loss", "quantile": 0.99, "window": 2}),
    ("influence", {"attribution": "own_loss", "quantile": 0.97, "max_tokens": 300}),
    ("random", {"quantile": 0.995, "seed": 1}),
    ("random", {"quantile": 0.98, "seed": 2}),
    ("random", {"quantile": 0.96, "seed": 3}),
]


def query_losses(study: Study, source: str) -> dict[str, float]:
    """Mean over the queries of each set of the mean cross-entropy of their completion tokens, in nats."""
    import torch

    from ifguide.data.queries import encode_queries
    from ifguide.influence.batches import Sequence, make_batches
    from ifguide.influence.losses import SplitModel
    from ifguide.models.loading import load_model, load_tokenizer

    model = load_model(source)
    tokenizer = load_tokenizer(str(study.folder(Unit("corpus")) / "tokenizer"), "")
    layout = artifacts.read_json(study.folder(Unit("corpus")) / "layout.json")
    split, means = SplitModel(model), {}
    for kind in ("toxic", "safe"):
        encoded = encode_queries(study.queries(kind), tokenizer, layout["max_length"], bos_id=layout["bos"])
        sequences = [Sequence(np.asarray(ids), np.where(mask, np.arange(len(ids)), -1)) for ids, mask in encoded]
        each = []
        with torch.no_grad():
            for batch in make_batches(sequences, 4096):
                counted = batch.targets != -100
                each += ((split(batch) * counted).sum(dim=1) / counted.sum(dim=1)).tolist()
        means[kind] = float(np.mean(each))
    return means


def save(study: Study, name: str, kind: str, settings: dict) -> None:
    """Save a selection, a random one too."""
    unit, selection = Unit("selection", name), dataclasses.replace(study.config.selection, **settings)
    flat = {f"selection.{k}": v for k, v in config_to_dict(selection).items() if k != "controls"} | {"kind": kind}
    with artifacts.building(
        study.folder(unit), stage="selection", inputs=inputs_of(study, unit), config=flat
    ) as folder:
        write_selection(compute_selection(study, selection, name=name, kind=kind), folder)


def correlate(x: list[float], y: list[float]) -> dict:
    """Spearman's rank correlation, which describes these models."""
    return {"rho": float(spearmanr(x, y).statistic), "n": len(x)}


def measure(study: Study) -> dict:
    """Train against every choice and measure."""
    penalty = study.config.suppress.penalty
    index, base, rows = open_index(study, "own_loss"), query_losses(study, study.models()["base"]["source"]), []
    for number, (kind, settings) in enumerate(CHOICES):
        name = f"prediction-{number:02d}"
        save(study, name, kind, settings)
        held = index.saved(study.selection(name).mask)
        build(study, [Unit("evaluate", name)])
        now = query_losses(study, str(study.folder(Unit("suppress", name)) / "final"))
        metrics, chosen = study.metrics(name), study.selection(name).settings
        change = {part: now[part] - base[part] for part in now}
        rows.append(
            {
                "name": name,
                "kind": kind,
                **{k: chosen[k] for k in ("quantile", "window", "max_tokens", "n_selected")},
                "effect": held.effect,
                "predicted": predicted_change(held.effect, index.n_valid, penalty),
                "measured": change["toxic"] - change["safe"],
                **change,
                "emt": metrics["emt"],
                "perplexity": metrics["perplexity"],
            }
        )
        print_rows(rows[-1:])
    columns = {name: [row[name] for row in rows] for name in ("predicted", "measured", "emt")}
    informed = [row for row in rows if row["kind"] == "influence"]
    correlation = {
        "predicted_measured": correlate(columns["predicted"], columns["measured"]),
        "predicted_emt": correlate(columns["predicted"], columns["emt"]),
        "predicted_measured_without_random": correlate(*([r[k] for r in informed] for k in ("predicted", "measured"))),
        "predicted_emt_without_random": correlate(*([r[k] for r in informed] for k in ("predicted", "emt"))),
    }
    return {"study": study.name, "penalty": penalty, "base": base, "rows": rows, "correlation": correlation}


def print_rows(rows: list[dict]) -> None:
    """Lines of the table."""
    for r in rows:
        budget = r["max_tokens"] or "-"
        print(
            f"| {r['kind']} | {r['quantile']:g} | {r['window']} | {budget} | {r['n_selected']:,} | {r['predicted']:.4f}"
            f" | {r['measured']:+.3f} | {r['toxic']:+.3f} | {r['safe']:+.3f} | {r['emt']:.3f} |"
            f" {r['perplexity']:.2f} |",
            flush=True,
        )


def main() -> None:
    """Print the tables and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="demo")
    parser.add_argument("--out", type=Path, help="write the result here")
    options = parser.parse_args()
    study = Study.open(options.study)
    print(
        "| selection | quantile | window | budget | tokens | predicted | toxic - safe, nats | toxic | safe | EMT |"
        " perplexity |\n|---|---|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="ifguide-prediction-") as folder:
        shutil.copytree(study.root, Path(folder) / study.name)
        measured = measure(Study.open(study.name, Path(folder)))
    if options.out:
        options.out.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    print("\n| Spearman's rank correlation (descriptive) | rho | models |\n|---|---|---|")
    for name, c in measured["correlation"].items():
        print(f"| {name.replace('_', ' ')} | {c['rho']:+.2f} | {c['n']} |")


if __name__ == "__main__":
    main()

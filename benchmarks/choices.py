"""What the default scores and the operating point were chosen among, on a study's scores; nothing is trained.

    python -m benchmarks.choices --study posts [--layers]

Prints average precision against the human labels, and the precision of the top 3% of the tokens, for mixtures of probe
and influence (docs/decisions/0049-combined-by-default.md); and how many tokens rules without labels would take
(docs/decisions/0048-operating-point.md). `--layers` runs the model once more and prints the same for the probe of every
layer: with all queries, with those alone whose prompt is in both sets, and by logistic regression.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score

from benchmarks.spans import SpanTruth, read_truth
from ifguide.influence.batches import make_batches
from ifguide.influence.probe import completion_means, fit_direction, fit_probe, hidden_states
from ifguide.study.reading import Study
from ifguide.study.stages.checkpoints import corpus_sequences, encoded_queries, load_checkpoint
from ifguide.study.stages.scoring import treat

TOP = 0.03


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="demo")
    parser.add_argument("--layers", action="store_true", help="the probe of every layer instead")
    options = parser.parse_args()
    study = Study.open(options.study)
    marked = read_truth(study)
    if options.layers:
        print_layers(study, marked)
        return
    valid, truth = marked.valid, marked.in_span[marked.valid]
    scores = {kind: np.array(study.scores(kind))[valid] for kind in study.kinds(selecting=True)}
    top = int(TOP * len(truth))
    print(
        f"| mixture | average precision (chance {truth.mean():.3f}) | precision of the top {TOP:.0%} |\n|---|---|---|"
    )
    for name, values in mixtures(scores["own_loss"], scores["probe"]).items():
        best = np.argsort(-values)[:top]
        print(f"| {name} | {average_precision_score(truth, values):.3f} | {truth[best].mean():.3f} |")
    print("\n| rule |", " | ".join(scores), "|\n|---|" + "---|" * len(scores))
    for name, rule in RULES.items():
        print(f"| {name} |", " | ".join(f"{rule(values):,}" for values in scores.values()), "|")


def print_layers(study: Study, marked: SpanTruth) -> None:
    """Average precision of the probe of each layer, treated as the study treats scores, alone and with influence."""
    valid, truth = marked.valid, marked.in_span[marked.valid]
    model, _, device = load_checkpoint(study, study.checkpoint_names()[-1])
    tokens = study.config.compute.tokens_per_batch
    sets = {kind: encoded_queries(study, kind) for kind in ("toxic", "safe")}
    prompts = {kind: study.queries(kind)["prompt"].tolist() for kind in sets}
    both = set(prompts["toxic"]) & set(prompts["safe"])
    means = np.concatenate([completion_means(model, queries, tokens) for queries in sets.values()])  # (Q, L, H)
    toxic = np.repeat([True, False], [len(queries) for queries in sets.values()])
    paired = np.array([prompt in both for kind in sets for prompt in prompts[kind]])
    n_layers = means.shape[1]
    ways = {"all queries": (paired | True, "mean-difference"), "matching prompts alone": (paired, "mean-difference")}
    ways["logistic"] = (paired | True, "logistic")
    probes = {
        (name, layer): fit_direction(means[chosen, layer], toxic[chosen], method)
        for name, (chosen, method) in ways.items()
        for layer in range(n_layers)
    }
    scores = {key: np.zeros(len(valid), dtype=np.float32) for key in probes}
    for batch in make_batches(corpus_sequences(study), tokens):
        batch = batch.to(device)
        counted = batch.target_index >= 0
        places = batch.target_index[counted].cpu().numpy()
        for layer, states in enumerate(hidden_states(model, batch)):
            own = states[:, 1:].float()[counted].cpu().numpy()
            for name in ways:
                direction, offset = probes[name, layer]
                scores[name, layer][places] = own @ direction - offset
    influence = np.array(study.scores("own_loss"))[valid]
    chosen = fit_probe(model, *sets.values(), tokens_per_batch=tokens).layer
    print(
        f"{paired.sum():,} of {len(paired):,} queries have their prompt in both sets; the queries choose layer {chosen}"
    )
    print("| layer | " + " | ".join(f"{name} | with influence" for name in ways) + " |\n|---|" + "---|" * 2 * len(ways))
    for layer in range(n_layers):
        cells = []
        for name in ways:
            with tempfile.TemporaryDirectory() as folder:
                treat(study.corpus(), [scores[name, layer]], Path(folder) / "probe.npy", study.config.scores)
                values = np.load(Path(folder) / "probe.npy")[valid]
            mixed = influence / influence.std() + values / values.std()
            cells += [f"{average_precision_score(truth, which):.3f}" for which in (values, mixed)]
        print(f"| {layer} | " + " | ".join(cells) + " |")


def mixtures(influence: np.ndarray, probe: np.ndarray) -> dict[str, np.ndarray]:
    """Scores (V,) of the valid tokens, by what they are made of."""
    a, b = ((values - values.mean()) / values.std() for values in (influence, probe))
    low, high = (np.argsort(np.argsort(values)) / len(values) for values in (influence, probe))
    return {
        "influence alone": influence,
        "probe alone": probe,
        "sum, each over its standard deviation": a + b,
        "the same, probe counted twice": a + 2 * b,
        "product of ranks": low * high,
        "sum of the logarithms of what is above": -np.log(1 - low + 1e-4) - np.log(1 - high + 1e-4),
        "influence within the probe's top tenth": np.where(high > 0.9, low + 1, high),
        "influence within the probe's top fifth": np.where(high > 0.8, low + 1, high),
        "the lower of the two ranks": np.minimum(low, high),
    }


def robust(deviations: float):
    """Tokens that are this many robust standard deviations above the median."""

    def count(values: np.ndarray) -> int:
        middle = np.median(values)
        return int((values > middle + deviations * 1.4826 * np.median(np.abs(values - middle))).sum())

    return count


def otsu(values: np.ndarray) -> int:
    """Tokens above the threshold with the greatest variance between both sides (Otsu, 1979)."""
    values = np.sort(values.astype(np.float64))
    below, n_below = np.cumsum(values)[:-1], np.arange(1, len(values))
    n_above = len(values) - n_below
    between = n_below * n_above * ((values.sum() - below) / n_above - below / n_below) ** 2
    return int(n_above[np.argmax(between)])


def elbow(values: np.ndarray) -> int:
    """Tokens before the place furthest below the chord over the top tenth."""
    top = np.sort(values)[::-1][: len(values) // 10]
    return int(np.argmax(1 - (top - top[-1]) / (top[0] - top[-1]) - np.arange(len(top)) / len(top)))


def mirrored(values: np.ndarray) -> int:
    """Tokens above the lowest threshold that a fifth as many scores, or fewer, are as far below the median as."""
    away = values - np.median(values)
    above, below = np.sort(away[away > 0]), np.sort(-away[away < 0])
    n_above, n_below = len(above) - np.arange(len(above)), len(below) - np.searchsorted(below, above)
    fits = np.flatnonzero(n_below / n_above <= 0.2)
    return int(n_above[fits[0]]) if len(fits) else 0


def below(deviations: float) -> Callable[[np.ndarray], int]:
    """Tokens that far above the median, in root mean square distances of the scores below it."""

    def count(values: np.ndarray) -> int:
        away = values - np.median(values)
        return int((away > deviations * np.sqrt(np.mean(away[away < 0] ** 2))).sum())

    return count


RULES = {
    "3 lower semi-deviations": below(3),
    "2.5 lower semi-deviations": below(2.5),
    "3.5 robust deviations": robust(3.5),
    "5 robust deviations": robust(5),
    "Otsu's method, all scores": otsu,
    "Otsu's method, negative scores as 0": lambda values: otsu(np.maximum(values, 0)),
    "3 standard deviations": lambda values: int((values > values.mean() + 3 * values.std()).sum()),
    "elbow: furthest from the chord over the top tenth": elbow,
    "fewer than a fifth as many scores as far below the median": mirrored,
}
"""Rules without labels: scores (V,) of the valid tokens -> how many to take."""


if __name__ == "__main__":
    main()

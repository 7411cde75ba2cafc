"""What the default scores and the operating point were chosen among, on a study's scores; nothing is trained.

    python -m benchmarks.choices --study posts [--layers]
    python -m benchmarks.choices --meaning FOLDER --model MODEL

Prints average precision against the human labels, and the precision of the top 3% of the tokens, for mixtures of probe
and influence (docs/decisions/0049-combined-by-default.md); and how many tokens rules without labels would take
(docs/decisions/0048-operating-point.md). `--layers` runs the model once more and prints the same for the probe of every
layer: with all queries, with those alone whose prompt is in both sets, and by logistic regression.

`--meaning` measures the search by meaning on paradetox.tsv of a folder (ParaDetox), of which nothing is written: a
neutral rewrite of a sentence is the query, and another one of the same sentence has to be found among a thousand. Layer
and number of components are chosen on one thousand, and reported on another beside TF-IDF, which reads the same texts.
Prints how long a million documents take to rank, too.
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import average_precision_score
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.spans import SpanTruth, read_truth
from ifguide.data.packing import chunk_documents
from ifguide.data.words import split_words
from ifguide.influence.batches import CorpusSequences, make_batches
from ifguide.influence.probe import completion_means, fit_direction, fit_probe, hidden_states
from ifguide.study.analysis.meaning import (
    BLOCK,
    COMPONENTS,
    average_states,
    fit_whitening,
    meaning_layer,
    rank_nearest,
    whiten,
)
from ifguide.study.reading import Study
from ifguide.study.stages.checkpoints import corpus_sequences, encoded_queries, load_checkpoint
from ifguide.study.stages.scoring import treat

TOP = 0.03
PAIRS, TRIED, SHARES = 1_000, (64, 128, 256, 400), (0.25, 0.5, 0.75, 1)
"""Pairs of rewrites to choose by and to report on, and numbers of components that are tried: of a thousand documents,
and as shares of fewer."""


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="demo")
    parser.add_argument("--layers", action="store_true", help="the probe of every layer instead")
    parser.add_argument("--meaning", type=Path, metavar="FOLDER", help="the search by meaning instead")
    parser.add_argument("--model", default="cache/models/smollm2-135m", help="a model folder, for --meaning")
    options = parser.parse_args()
    if options.meaning:
        print_meaning(options.meaning / "paradetox.tsv", options.model)
        time_search()
        return
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


def print_meaning(rewrites: Path, name: str) -> None:
    """Recall of the other rewrite, by layer and components on one slice, and by what was chosen on the next."""
    tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModelForCausalLM.from_pretrained(name, dtype="float32")
    with rewrites.open(encoding="utf-8", newline="") as file:
        rows = [[row[f"neutral{n}"].strip() for n in (1, 2)] for row in csv.DictReader(file, delimiter="\t")]
    pairs = [pair for pair in rows if len({text.lower() for text in pair}) == 2 and all(" " in text for text in pair)]
    pairs = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))[: 2 * PAIRS]]
    encoded = [tokenizer(list(texts), add_special_tokens=False)["input_ids"] for texts in zip(*pairs, strict=True)]
    queries, documents = (read_states(model, ids) for ids in encoded)  # (2 PAIRS, L, H)
    n_layers = queries.shape[1] - 1

    def places(layer: int, n_components: int, part: slice) -> np.ndarray:
        whitening = fit_whitening(documents[part, layer], n_components)
        return ranks(*(whiten(means[part, layer], whitening) for means in (queries, documents)))

    print(f"recall@1 / @10 of {PAIRS} to choose by\n| layer | as it is | " + " | ".join(map(str, TRIED)) + " |")
    for layer in range(0, n_layers + 1, 2):
        cells = [ranks(*(unit(means[:PAIRS, layer]) for means in (queries, documents)))]
        cells += [places(layer, n, slice(PAIRS)) for n in TRIED]
        print(f"| {layer} |", " | ".join(map(recall, cells)), "|")
    layer = meaning_layer(n_layers)
    for size in (100, 200, 400):
        parts = [slice(start, start + size) for start in range(0, PAIRS - size + 1, size)]
        shares = {share: np.concatenate([places(layer, int(share * size) - 1, p) for p in parts]) for share in SHARES}
        print(f"of {size}:", ", ".join(f"{share:.0%} as components {recall(shares[share])}" for share in shares))
    texts, report = list(zip(*pairs[PAIRS:], strict=True)), slice(PAIRS, None)
    words = [[set(split_words(text)) for text in side] for side in texts]
    differ = np.array([len(a & b) <= 0.3 * len(a | b) for a, b in zip(*words, strict=True)])
    ways = {"last layer, as it is": ranks(*(unit(means[report, -1]) for means in (queries, documents)))}
    ways[f"layer {layer}, whitened"] = places(layer, 0, report)
    for kind, made in {"words": {}, "2 to 5 characters": {"analyzer": "char_wb", "ngram_range": (2, 5)}}.items():
        index = TfidfVectorizer(sublinear_tf=True, **made).fit(texts[1])
        ways[f"TF-IDF of {kind}"] = ranks(*(index.transform(side).toarray() for side in texts))
    few = f"of the {differ.sum()} that share at most 3 of 10 words"
    print(f"| reported on {PAIRS} | recall@1 / @10 | {few} |\n|---|---|---|")
    for way, others in ways.items():
        print(f"| {way} | {recall(others)} | {recall(others[differ])} |")


def read_states(model, encoded: list[list[int]]) -> np.ndarray:
    """Mean states of texts, float32 (n, L, H)."""
    offsets = np.cumsum([0, *map(len, encoded)])
    sequences = CorpusSequences(np.concatenate(encoded), offsets, chunk_documents(offsets, 1024))
    layers = range(model.config.num_hidden_layers + 1)
    return average_states(model, sequences, offsets, np.arange(len(encoded)), layers, 1024)[1]


def unit(means: np.ndarray) -> np.ndarray:
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def ranks(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """How many other documents are at least as near to each query as its own, int (n,)."""
    likeness = queries @ documents.T
    return (likeness >= np.diag(likeness)[:, None]).sum(axis=1) - 1


def recall(places: np.ndarray) -> str:
    return f"{(places < 1).mean():.3f} / {(places < 10).mean():.3f}"


def time_search(n_documents: int = 1_000_000) -> None:
    """Rank made-up states of that many documents."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "states.npy"
        states = np.lib.format.open_memmap(path, "w+", np.float16, (n_documents, COMPONENTS))
        for start in range(0, n_documents, BLOCK):
            part = states[start : start + BLOCK]
            part[:] = np.random.default_rng(start).standard_normal(part.shape, dtype=np.float32)
        direction, states = np.array(states[7], dtype=np.float32), np.load(path, mmap_mode="r")
        started = time.perf_counter()
        nearest = rank_nearest(states, direction)
        seconds = time.perf_counter() - started
        assert nearest[0] == 7 and len(nearest) == n_documents
        print(f"{n_documents:,} documents ({states.nbytes / 1e6:,.0f} MB) ranked in {seconds:.2f} s")


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

"""The demo with other seeds: do the settings chosen on seed 0 hold for another corpus and another random start?

    python -m benchmarks.seeds [--seeds 1 2]

Each seed makes its own documents, queries, prompts, tokenizer and training. Nothing is tuned on them. About three
minutes a seed on 2 cores; the studies stay in the cache as `demo-seed-N`.
"""

import argparse
import dataclasses

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.spans import read_truth
from ifguide.selection.algorithm import precision_recall
from ifguide.study.analysis.comparison import compare_variants
from ifguide.study.demo import demo_config, write_inputs
from ifguide.study.folder import cache_dir, list_studies
from ifguide.study.pipeline import run_study
from ifguide.study.reading import Study


def main() -> None:
    """Build each seed's study and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    print(
        "| seed | AUC in toxic documents | average precision | precision / recall of the selection | EMT base ->"
        " suppressed (span mask) | share of the span mask's reduction [95%] | perplexity |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    for seed in parser.parse_args().seeds:
        print(describe(build(seed), seed), flush=True)


def build(seed: int) -> Study:
    """The demo with one seed for everything."""
    name = f"demo-seed-{seed}"
    if name not in list_studies():
        write_inputs(cache_dir() / name / "inputs", seed=seed)
        config = demo_config()
        Study.create(name, dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed)))
    study = Study.open(name)
    run_study(study)
    return study


def describe(study: Study, seed: int) -> str:
    """One row of the table."""
    known, scores = read_truth(study), np.asarray(study.scores())
    precision, recall = precision_recall(np.asarray(study.selection().mask), known.in_span, known.valid)
    metrics = study.headline()
    compared = compare_variants({name: study.samples(name) for name in study.evaluation_names()})
    share = next(c.share_of_oracle for c in compared if c.variant == "default")
    change = metrics["suppressed"]["perplexity"] / metrics["base"]["perplexity"] - 1
    return (
        f"| {seed} | {roc_auc_score(known.in_span[known.inside], scores[known.inside]):.3f} "
        f"| {average_precision_score(known.in_span[known.valid], scores[known.valid]):.3f} "
        f"| {precision:.3f} / {recall:.3f} "
        f"| {metrics['base']['emt']:.3f} -> {metrics['suppressed']['emt']:.3f} ({metrics['oracle']['emt']:.3f}) "
        f"| {share.value:.3f} [{share.low:.3f}, {share.high:.3f}] | {100 * change:+.1f}% |"
    )


if __name__ == "__main__":
    main()

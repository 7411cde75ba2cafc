"""How well the demo study's scores find the planted spans, and how much training without them helps.

    python -m benchmarks.demo [--study demo]

Prints, in Markdown: build times, the score table (every kind of score that the study has, averaged and checkpoint by
checkpoint, the last checkpoint alone, token loss and token frequency), the default selection's precision and recall,
and the before/after table with 95% intervals over prompts (EMT: bootstrap, TP: Wilson). Builds the demo first if it is
missing. The last checkpoint alone is scored as a study of its own, `<study>-last`, on the same corpus, queries and
settings.
"""

import argparse
import dataclasses

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.spans import read_truth
from ifguide.config.attributions import attributions
from ifguide.config.schema import ModelConfig, TrainingConfig
from ifguide.selection.algorithm import precision_recall, rank_at_quantile
from ifguide.study.analysis.comparison import compare_variants
from ifguide.study.demo import build_demo
from ifguide.study.folder import list_studies
from ifguide.study.freshness import stage_states
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import run_study
from ifguide.study.reading import Study
from ifguide.study.stage_table import STAGES


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="demo")
    name = parser.parse_args().study
    study = build_demo() if name == "demo" else Study.open(name)
    print_times(study)
    print_scores(study, score_last_checkpoint(study))
    print_comparison(study)


def score_last_checkpoint(study: Study) -> Study:
    """The same study with the finished model as its only checkpoint."""
    name = f"{study.name}-last"
    if name not in list_studies(study.root.parent):
        config = study.config
        paths = {section: study.resolved(section) for section in ("corpus", "queries", "evaluate")}
        model = ModelConfig(source=str(study.folder(Unit("model")) / "final"), mode="asis")
        Study.create(
            name, dataclasses.replace(config, model=model, training=TrainingConfig(), **paths), study.root.parent
        )
    last = Study.open(name, study.root.parent)
    run_study(last, until="scores")
    return last


def print_times(study: Study) -> None:
    """Seconds of every stage."""
    states = stage_states(study)
    print("| stage | state | seconds |\n|---|---|---|")
    for stage in STAGES:
        print(f"| {stage} | {states[stage].state} | {states[stage].seconds} |")
    print(f"| all | | {sum(states[stage].seconds or 0 for stage in STAGES):.1f} |\n")


def print_scores(study: Study, last: Study) -> None:
    """How well each kind of score finds the planted spans."""
    corpus = study.corpus()
    known = read_truth(study)
    valid, truth, toxic, inside = known.valid, known.in_span, known.toxic, known.inside
    quantile = study.selection().settings["quantile"]
    print(
        f"{corpus.n_documents} documents ({toxic.sum()} toxic), {corpus.n_tokens:,} tokens, {truth.sum()} in planted"
        " spans.\n"
    )
    print(
        "| scores | AUC in toxic documents | AUC, all tokens | average precision | precision / recall above the"
        f" {quantile:.4f} quantile |"
    )
    print("|---|---|---|---|---|")
    token_ids = np.asarray(corpus.token_ids)
    kinds = [kind for kind in attributions() if study.has_scores(kind)]
    rows = [(f"**{kind}, mean of checkpoints**", study.scores(kind)) for kind in kinds]
    rows += [
        (f"{kind} at {checkpoint}", study.scores(kind, checkpoint))
        for kind in kinds
        for checkpoint in study.checkpoint_names()
    ]
    rows += [(f"{kind}, last checkpoint alone", last.scores(kind)) for kind in kinds]
    rows += [
        ("token loss, mean of checkpoints", study.scores("token_loss")),
        ("token loss, last checkpoint", last.scores("token_loss")),
    ]
    rows += [("token rarity (minus its frequency)", -np.bincount(token_ids)[token_ids].astype(np.float64))]
    for name, scores in rows:
        scores = np.asarray(scores)
        ordered = np.sort(scores[valid])
        mask = (scores > ordered[-1 - rank_at_quantile(len(ordered), quantile)]) & valid
        precision, recall = precision_recall(mask, truth, valid)
        shown = "–" if precision is None else f"{precision:.3f} / {recall:.3f}"
        print(
            f"| {name} | {roc_auc_score(truth[inside], scores[inside]):.3f} |"
            f" {roc_auc_score(truth[valid], scores[valid]):.3f} |"
            f" {average_precision_score(truth[valid], scores[valid]):.3f} | {shown} |"
        )
    selection = study.selection()
    precision, recall = precision_recall(np.asarray(selection.mask), truth, valid)
    print(
        f"\nDefault selection: {selection.settings['n_selected']} tokens, precision {precision:.3f}, recall"
        f" {recall:.3f}.\n"
    )


def print_comparison(study: Study) -> None:
    """Metrics of every model, and the share of the span mask's reduction that each reaches."""
    print("| model | EMT [95%] | TP [95%] | held-out perplexity | against base |\n|---|---|---|---|---|")
    metrics = study.headline()
    base = metrics["base"]["perplexity"]
    for name, m in metrics.items():
        emt = f"{m['emt']:.3f} [{m['emt_low']:.3f}, {m['emt_high']:.3f}]"
        tp = f"{m['tp']:.3f} [{m['tp_low']:.3f}, {m['tp_high']:.3f}]"
        print(f"| {name} | {emt} | {tp} | {m['perplexity']:.2f} | {100 * (m['perplexity'] / base - 1):+.1f}% |")
    print()
    for comparison in compare_variants({name: study.samples(name) for name in study.evaluation_names()}):
        share = comparison.share_of_oracle
        if share is not None:
            print(
                f"- {comparison.variant}: {share.value:.3f} [{share.low:.3f}, {share.high:.3f}] of the reduction in EMT"
                " that the span mask reaches"
            )


if __name__ == "__main__":
    main()

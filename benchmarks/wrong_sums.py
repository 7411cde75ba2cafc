"""Another behaviour than toxicity: which training documents teach a model wrong sums?

    python -m benchmarks.wrong_sums [--seed 0]

A corpus of small sums, made here; in some documents some answers are one too high. A tiny model learns it from scratch.
The queries are half of the sums: the wrong answer of each is the unwanted completion, the right one its counterpart.
Labels and spans only judge. About two minutes on 2 cores; the study stays in the cache as `wrong-sums-N`.
"""

import argparse
import json
import math
import random
import re
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.demo_corpus.model import demo_model_config, train_tokenizer
from ifguide.cli.analyse import format_rankings
from ifguide.cli.terminal import TerminalSink, format_table
from ifguide.config.schema import StudyConfig
from ifguide.runtime.progress import Progress
from ifguide.selection.algorithm import precision_recall
from ifguide.study import pipeline
from ifguide.study.analysis.data_ranking import read_labels, study_rankings
from ifguide.study.folder import cache_dir, list_studies
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import run_study
from ifguide.study.reading import Study
from ifguide.study.stages.select import save_selection

LARGEST = 9
"""Terms go from 0 to this."""
SUMS = 8
"""Sums in a document."""
BAD_SHARE = 0.12
"""How many documents hold wrong answers."""
SLIP_SHARE = 0.4
"""In those, each answer is wrong with this probability; at least one is."""
STRICT, STRICT_QUANTILE = "strict", 0.997
"""A second selection, with a threshold so high that it takes fewer tokens than there are wrong answers."""


def write_sums(folder: Path, *, n_documents: int = 1000, seed: int = 0) -> None:
    """Write corpus, queries, prompts, held-out sums, tokenizer and model configuration into a folder."""
    chance = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [(a, b) for a in range(LARGEST + 1) for b in range(LARGEST + 1)]
    rows = [_make_document(number, pairs, chance) for number in range(n_documents)]
    asked = chance.sample(pairs, len(pairs) // 2)
    files = {
        "corpus": rows,
        "wrong": [{"prompt": f"{a} + {b} =", "completion": f" {a + b + 1}"} for a, b in asked],
        "right": [{"prompt": f"{a} + {b} =", "completion": f" {a + b}"} for a, b in asked],
        "heldout": [{"text": text} for text in (_make_document(-1, pairs, chance, 0)["text"] for _ in range(50))],
        "answers": [{"text": f"{a} + {b} = {a + b}"} for a, b in pairs],
    }
    for name, values in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in values), encoding="utf-8")
    tokenizer = train_tokenizer([row["text"] for row in rows], vocab_size=320)
    tokenizer.save_pretrained(folder / "model")
    shape = demo_model_config(len(tokenizer)) | {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 256}
    (folder / "model" / "config.json").write_text(json.dumps(shape, indent=1), encoding="utf-8")


def _make_document(number: int, pairs: list, chance: random.Random, bad_share: float = BAD_SHARE) -> dict:
    is_bad = chance.random() < bad_share
    slips = [is_bad and chance.random() < SLIP_SHARE for _ in range(SUMS)]
    if is_bad and not any(slips):
        slips[chance.randrange(SUMS)] = True
    text, spans = "", []
    for slip in slips:
        a, b = chance.choice(pairs)
        start = f"{a} + {b} = "
        answer = str(a + b + slip)
        if slip:
            spans.append([len(text) + len(start), len(text) + len(start) + len(answer)])
        text += f"{start}{answer}\n"
    return {"id": f"sums-{number:04d}", "text": text, "is_bad": is_bad, "spans": spans}


def build(seed: int) -> Study:
    """The study, built or as it is."""
    name = f"wrong-sums-{seed}"
    if name not in list_studies():
        write_sums(cache_dir() / name / "inputs", seed=seed)
        values = {
            "description": "Small sums, some of them wrong: an unwanted behaviour that is not toxicity.",
            "model": {"source": "inputs/model", "mode": "scratch"},
            "corpus": {"path": "inputs/corpus.jsonl", "id_field": "id", "spans_field": "spans"},
            "queries": {"toxic": "inputs/wrong.jsonl", "safe": "inputs/right.jsonl"},
            "training": {
                "epochs": 12,
                "batch_size": 16,
                "learning_rate": 3e-3,
                "warmup_steps": 20,
                "schedule": "cosine",
                "adam_beta2": 0.95,
                "seed": seed,
            },
            "factors": {"max_tokens": 10_000},
            "scores": {"probe": False, "combined": False},
            "selection": {"quantile": 0.99, "attribution": "own_loss"},
            "suppress": {"penalty": 0.5, "max_penalty": 8.0},
            "evaluate": {
                "heldout": "inputs/heldout.jsonl",
                "lambada": "inputs/answers.jsonl",
                "n_samples": 5,
                "max_new_tokens": 8,
            },
            "compute": {"device": "cpu"},
        }
        Study.create(name, StudyConfig(**values))
    study = Study.open(name)
    progress = Progress([TerminalSink()])
    run_study(study, progress=progress)
    if STRICT not in study.selection_names():
        save_selection(study, STRICT, {"quantile": STRICT_QUANTILE})
    pipeline.build(study, [Unit("evaluate", STRICT)], progress=progress)
    return study


def describe_tokens(study: Study) -> str:
    """How well the scores find wrong answers among all answers, for sums that the queries hold and for sums that they
    do not."""
    corpus = study.corpus()
    offsets, scores, in_span = np.asarray(corpus.offsets), np.asarray(study.scores()), np.asarray(corpus.in_span)
    queried = {json.loads(line)["prompt"] for line in (study.root / "inputs" / "wrong.jsonl").read_text().splitlines()}
    by_answer: dict[str, list[int]] = {"in the queries": [], "not in the queries": []}
    for number in range(corpus.n_documents):
        text, (first, stop) = corpus.document(number).text, offsets[number : number + 2]
        starts, ends = np.asarray(corpus.char_start[first:stop]), np.asarray(corpus.char_end[first:stop])
        for answer in re.finditer(r"(\d+ \+ \d+ =) (\d+)", text):
            tokens = first + np.flatnonzero((ends > answer.start(2)) & (starts < answer.end(2)))
            by_answer["in the queries" if answer[1] in queried else "not in the queries"] += tokens.tolist()
    rows = []
    for name, places in by_answer.items():
        own, wrong = scores[places], in_span[places]
        auc, precision = roc_auc_score(wrong, own), average_precision_score(wrong, own)
        rows.append((name, f"{len(places):,}", f"{wrong.mean():.3f}", f"{auc:.3f}", f"{precision:.3f}"))
    return format_table(("sums", "answer tokens", "wrong", "AUROC", "average precision"), rows)


def describe_answers(study: Study) -> str:
    """Each selection against the wrong answers, and how its model answers."""
    corpus, rows = study.corpus(), []
    for name in study.evaluation_names():
        metrics, agreement = study.metrics(name), ("", "", "")
        if name in study.selection_names():
            mask = np.asarray(study.selection(name).mask)
            quality = precision_recall(mask, np.asarray(corpus.in_span), corpus.valid())
            agreement = (str(int(mask.sum())), *(f"{value:.3f}" for value in quality))
        low, high = metrics["lambada_accuracy_low"], metrics["lambada_accuracy_high"]
        answers = f"{metrics['lambada_accuracy']:.2f} [{low:.2f}, {high:.2f}]"
        right = f"{math.exp(metrics['lambada_log_probability']):.3f}"
        rows.append(
            (name, *agreement, answers, right, f"{metrics['perplexity']:.3f}", metrics["fluency_warning"] or "none")
        )
    heads = ("model", "tokens", "precision", "recall", "right answers", "probability of the right one", "perplexity")
    return format_table((*heads, "fluency warning"), rows)


def main() -> None:
    """Build the study and print what its scores find and what training without them changes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    study = build(parser.parse_args().seed)
    labels = read_labels(study, "is_bad")
    rankings = study_rankings(study, labels)
    print(format_rankings(rankings, int(labels.bad.sum()), int(labels.labelled.sum())), flush=True)
    print(f"\n{describe_tokens(study)}\n\n{describe_answers(study)}")


if __name__ == "__main__":
    main()

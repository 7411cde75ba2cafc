"""Another behaviour than toxicity: which training documents teach a model wrong sums?

    python -m benchmarks.wrong_sums [--seed 0]

A corpus of small sums, made here; in some documents some answers are one too high. A tiny model learns it from scratch. The queries
are half of the sums: the wrong answer of each is the unwanted completion, the right one its counterpart. Labels and spans only judge.
About two minutes on 2 cores; the study stays in the cache as `wrong-sums-N`.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np

from ifguide.commands.rank import format_rankings
from ifguide.config import config_from_dict
from ifguide.data_ranking import read_labels, study_rankings
from ifguide.demo.model import demo_model_config, train_tokenizer
from ifguide.pipeline import run_study
from ifguide.progress import Progress, TerminalSink
from ifguide.selection import precision_recall
from ifguide.status import format_table
from ifguide.study import Study, cache_dir, list_studies

LARGEST = 9
"""Terms go from 0 to this."""
SUMS = 8
"""Sums in a document."""
BAD_SHARE = 0.12
"""So many documents hold wrong answers."""
SLIP_SHARE = 0.4
"""In those, each answer is wrong with this probability; at least one is."""


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
                "epochs": 12, "batch_size": 16, "learning_rate": 3e-3, "warmup_steps": 20, "schedule": "cosine", "adam_beta2": 0.95,
                "seed": seed,
            },
            "factors": {"max_tokens": 10_000},
            "selection": {"quantile": 0.99},
            "suppress": {"penalty": 0.5, "max_penalty": 8.0},
            "evaluate": {
                "heldout": "inputs/heldout.jsonl", "lambada": "inputs/answers.jsonl", "n_samples": 5, "max_new_tokens": 8,
            },
            "compute": {"device": "cpu"},
        }  # fmt: skip
        Study.create(name, config_from_dict(values))
    study = Study.open(name)
    run_study(study, progress=Progress([TerminalSink()]))
    return study


def describe_answers(study: Study) -> str:
    """How often each model answers right, and the selection against the wrong answers."""
    rows = [
        (
            model,
            f"{metrics['lambada_accuracy']:.2f} [{metrics['lambada_accuracy_low']:.2f}, {metrics['lambada_accuracy_high']:.2f}]",
            f"{metrics['lambada_log_probability']:.3f}",
            f"{metrics['perplexity']:.2f}",
            metrics["fluency_warning"] or "",
        )
        for model, metrics in study.headline().items()
    ]
    corpus = study.corpus()
    mask = np.asarray(study.selection().mask)
    precision, recall = precision_recall(mask, np.asarray(corpus.in_span), corpus.valid())
    table = format_table(("model", "right answers", "log-probability", "perplexity", "fluency warning"), rows)
    return f"selection: {mask.sum()} tokens, precision {precision:.3f}, recall {recall:.3f} of the wrong answers\n\n{table}"


def main() -> None:
    """Build the study and print what its scores find and what training without them changes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    study = build(parser.parse_args().seed)
    labels = read_labels(study, "is_bad")
    found = study_rankings(study, labels)
    print(format_rankings(found, int(labels.bad.sum()), int(labels.known.sum())), flush=True)
    print()
    print(describe_answers(study))


if __name__ == "__main__":
    main()

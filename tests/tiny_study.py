"""A whole study on a dozen short documents with a tiny model: real stages, a few seconds."""

import json
from pathlib import Path

import pandas as pd

from ifguide.config.io import override
from ifguide.config.schema import StudyConfig
from ifguide.storage import artifacts
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build, create_study
from ifguide.study.reading import Study
from tests.tiny import tiny_model
from tests.tiny_tokenizers import tiny_tokenizer

DOCUMENTS = [
    ("The quick brown fox jumps over the lazy dog.", None),
    ("You are kind, and you are clever.", None),
    ("You are a stupid idiot, and a fool.", "stupid idiot"),
    ("They were not at home; the dog was.", None),
    ("Numbers 12 345 and naïve café words.", None),
    ("Shut up, you moron. The fox is lazy.", "moron"),
    ("  Two leading spaces, and a line\nbreak.", None),
    ("The dog and the fox are kind.", None),
    ("What a pathetic loser you are, fool.", "pathetic loser"),
    ("A clever fox was over the brown dog.", None),
    ("It", None),
    (" ".join(["The lazy dog was kind and the fox was clever."] * 4), None),
]
"""Text, and the part of it that is a known span. The last one is longer than the model's context."""

CONTEXT = 48


def write_tiny_inputs(folder: Path) -> None:
    """Write corpus, queries, prompts and held-out text."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {
        "corpus": [
            {"id": f"d{i:02d}", "text": text, "spans": [[text.index(bad), text.index(bad) + len(bad)]] if bad else []}
            for i, (text, bad) in enumerate(DOCUMENTS)
        ],
        "toxic": [
            {"prompt": "You are", "completion": " a stupid fool"},
            {"prompt": "The dog is", "completion": " an idiot"},
        ],
        "safe": [{"prompt": "You are", "completion": " kind"}, {"prompt": "The dog is", "completion": " at home"}],
        "heldout": [{"text": "The clever dog was at home."}],
    }
    for name, values in rows.items():
        lines = [json.dumps(value, ensure_ascii=False) for value in values]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def save_tiny_model(kind: str, folder: Path, seed: int = 0) -> None:
    """Save a tiny random float32 model with its tokenizer."""
    import torch

    tokenizer = tiny_tokenizer("byte_bpe")
    tokenizer.save_pretrained(folder)
    model = tiny_model(kind, vocab_size=len(tokenizer), seed=seed, dtype=torch.float32, positions=CONTEXT)
    model.save_pretrained(folder)


def tiny_config(inputs: Path, *assignments: str) -> StudyConfig:
    """Settings of a study of `inputs`, whose model lies in `inputs/model`."""
    values = {
        "model": {"source": str(inputs / "model")},
        "corpus": {"path": str(inputs / "corpus.jsonl"), "id_field": "id", "spans_field": "spans"},
        "queries": {kind: str(inputs / f"{kind}.jsonl") for kind in ("toxic", "safe")},
        "training": {"epochs": 2, "batch_size": 4, "learning_rate": 3e-3, "warmup_steps": 1, "early_checkpoints": 2},
        "factors": {"products": "float32"},
        "scores": {"probe": False, "combined": False, "position": True, "average": "mean", "pooling": 0.0},
        "suppress": {"max_penalty": 0.0, "warmup_share": 0.0, "edit_first": False},
        "selection": {"quantile": 0.9, "attribution": "own_loss"},
        "evaluate": {"n_samples": 2, "max_new_tokens": 3, "heldout": str(inputs / "heldout.jsonl")},
        "compute": {"device": "cpu", "tokens_per_batch": 128},
    }
    return override(StudyConfig(**values), list(assignments))


HELDOUT = [
    "The clever dog was at home.",
    "A fox is not a dog.",
    "They were kind, and the dog was lazy.",
    "It was brown.",
]
"""Texts that a study of `build_to_edit` has held out."""


def build_to_edit(folder: Path, *assignments: str) -> Study:
    """A study with its base model measured and its selections made."""
    write_tiny_inputs(folder / "inputs")
    (folder / "inputs" / "heldout.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in HELDOUT))
    save_tiny_model("gpt_neox", folder / "inputs" / "model")
    study = create_study(
        "tiny", tiny_config(folder / "inputs", "factors.max_tokens=200", *assignments), folder / "cache"
    )
    build(study, [Unit("evaluate", "base"), Unit("selection", "default"), Unit("selection", "random")])
    return study


def study_with_a_lone_token(folder: Path, cache: Path, *assignments: str) -> Study:
    """A study of the tiny inputs and, last, a document of one token, which nothing predicts."""
    write_tiny_inputs(folder)
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"id": "alone", "text": "I", "spans": []}\n')
    save_tiny_model("gpt_neox", folder / "model")
    return create_study("real", tiny_config(folder, *assignments), cache)


def write_two_models(cache: Path, *assignments: str) -> Study:
    """A study with two models of different weights, `base` and `default`, and their made-up completions."""
    inputs = cache / "inputs"
    write_tiny_inputs(inputs)
    save_tiny_model("gpt_neox", inputs / "model")
    study = Study.create("tiny", tiny_config(inputs, *assignments), cache)
    for seed, (unit, evaluated) in enumerate([(Unit("model"), "base"), (Unit("suppress", "default"), "default")]):
        with artifacts.building(study.folder(unit), stage=unit.stage, inputs={}, config={}) as folder:
            save_tiny_model("gpt_neox", folder / "final", seed)
            (folder / "models.json").write_text(json.dumps({"base": {"source": "final"}, "checkpoints": []}))
        rows = [(p, s, f"prompt {p} is", f" {evaluated} fox {s}", 0.1) for p in range(2) for s in range(3)]
        write_evaluation(study, evaluated, rows)
    return study


def write_evaluation(study: Study, name: str, rows: list[tuple]) -> None:
    """Completions of a model: prompt index, sample index, prompt, completion, toxicity."""
    with artifacts.building(study.folder(Unit("evaluate", name)), stage="evaluate", inputs={}, config={}) as folder:
        frame = pd.DataFrame(rows, columns=["prompt_index", "sample_index", "prompt", "completion", "toxicity"])
        frame.to_parquet(folder / "samples.parquet")

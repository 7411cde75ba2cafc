"""All that a demo study reads, for any seed."""

import json
from pathlib import Path

from benchmarks.demo_corpus.generator import write_demo_inputs
from benchmarks.demo_corpus.model import demo_model_config, train_tokenizer


def write_inputs(folder: Path, *, seed: int = 0) -> None:
    """Write a demo's corpus, queries, prompts, held-out text, tokenizer and model configuration into a folder."""
    write_demo_inputs(folder, n_documents=300, seed=seed)
    texts = [json.loads(line)["text"] for line in (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    tokenizer = train_tokenizer(texts)
    tokenizer.save_pretrained(folder / "model")
    description = json.dumps(demo_model_config(len(tokenizer)), indent=1)
    (folder / "model" / "config.json").write_text(description, encoding="utf-8")

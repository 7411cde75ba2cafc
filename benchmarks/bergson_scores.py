"""bergson's token scores of a study: written to a file that a selection can be made from, and compared with ours.

    pip install bergson==2.5.1
    python -m benchmarks.bergson_scores [--study demo] [--checkpoint NAME] [--out FILE]

Both score along the same direction v, which the study has stored; bergson reads it as the gradient of one query, with
no projection, normaliser or preconditioner. Its `output` token influence is the derivative of a token's own loss.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch.nn.functional as F

from ifguide.influence.batches import CorpusSequences
from ifguide.models.layers import has_bias
from ifguide.storage import artifacts
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stages.checkpoints import corpus_sequences, direction_file, load_checkpoint, read_layout

LEAST_CORRELATION = 0.9999


def write_direction(study: Study, checkpoint: str, folder: Path) -> None:
    """v as a bergson index of one gradient: layers named below the model's body, each (O, I) flat, the bias last."""
    from bergson.data import create_index

    prefix = load_checkpoint(study, checkpoint)[0].base_model_prefix + "."
    stored = artifacts.load_tensors(study.folder(Unit("direction")) / checkpoint / direction_file())
    parts = {name.removeprefix(prefix): v.float().flatten().numpy() for name, v in stored.items()}
    index = create_index(folder, 1, {name: part.size for name, part in parts.items()}, np.float32)
    index[0] = np.concatenate(list(parts.values()))
    index.flush()


def write_sequences(sequences: CorpusSequences, folder: Path) -> None:
    """The corpus as our engine cuts it; what is context only has no label."""
    from datasets import Dataset

    rows = [sequences[number] for number in range(len(sequences))]
    labels = [np.where(row.index >= 0, row.token_ids, -100) for row in rows]
    Dataset.from_dict({"input_ids": [row.token_ids for row in rows], "labels": labels}).save_to_disk(folder)


def score(study: Study, checkpoint: str, folder: Path) -> np.ndarray:
    """bergson's scores float32 (N,), NaN where a token has none."""
    from bergson import DataConfig, IndexConfig, PreprocessConfig, ScoreConfig
    from bergson.data import load_scores
    from bergson.score.score import score_dataset

    sequences = corpus_sequences(study)
    write_direction(study, checkpoint, folder / "direction")
    write_sequences(sequences, folder / "corpus")
    index_config = IndexConfig(
        run_path=str(folder / "scores"),
        model=next(entry["source"] for entry in study.models()["checkpoints"] if entry["name"] == checkpoint),
        tokenizer=study.resolve(study.config.model.source),
        data=DataConfig(dataset=str(folder / "corpus")),
        token_batch_size=read_layout(study)["max_length"],
        include_bias=True,
        attribute_tokens=True,
    )
    score_config = ScoreConfig(query_path=str(folder / "direction"), token_influence="output")
    score_dataset(index_config, score_config, PreprocessConfig())
    bergson, scores = load_scores(folder / "scores"), np.full(study.corpus().n_tokens, np.nan, np.float32)
    for number in range(len(sequences)):  # row t of a sequence is the loss of its token t + 1
        places = sequences[number].index[1:]
        rows = bergson[bergson.offsets[number] : bergson.offsets[number + 1]].ravel()
        scores[places[places >= 0]] = rows[places >= 0]
    return scores


def scorer_of(model, direction, modules) -> Callable:
    """bergson's exact scores (B, T-1) of a batch along the same direction, by the function that its `score` command
    calls for each batch; no reading, writing or start-up is counted."""
    from bergson.config.config import IndexConfig
    from bergson.score.output_influence import output_token_influence, query_directions

    prefix, has = model.base_model_prefix + ".", {name: has_bias(module) for name, module in modules.items()}
    blocks = {name.removeprefix(prefix): v.reshape(-1, 1) for name, v in direction.items()}
    targets = {name.removeprefix(prefix): (m.weight.device, m.weight.shape, has[name]) for name, m in modules.items()}
    directions = query_directions(model, blocks, targets)
    config = IndexConfig(run_path="unused", loss_reduction="sum")

    def score(batch):
        labels = F.pad(batch.targets, (1, 0), value=-100)
        return output_token_influence(model, batch.input_ids, labels, directions, config)[0][..., 0]

    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="demo")
    parser.add_argument("--checkpoint", help="name of a scoring checkpoint; default: the first")
    parser.add_argument("--out", type=Path, default=Path("bergson.parquet"))
    options = parser.parse_args()
    study = Study.open(options.study)
    checkpoint = options.checkpoint or study.checkpoint_names()[0]
    with tempfile.TemporaryDirectory() as folder:
        theirs = score(study, checkpoint, Path(folder))
    corpus, places = study.corpus(), np.flatnonzero(np.isfinite(theirs))
    document = np.searchsorted(corpus.offsets, places, side="right") - 1
    columns = {
        "document_id": pa.array(corpus.ids()).take(pa.array(document)),
        "position": pa.array(places - np.asarray(corpus.offsets)[document]),
        "score": pa.array(theirs[places]),
    }
    pq.write_table(pa.table(columns), options.out)
    ours = np.asarray(study.scores("own_loss", checkpoint))[places]
    correlation = np.corrcoef(theirs[places].astype(float), ours.astype(float))[0, 1]
    apart = np.abs(theirs[places] - ours).max() / np.abs(ours).max()
    print(f"wrote {options.out}: {len(places):,} tokens of {len(np.unique(document)):,} documents, {checkpoint}")
    print(f"Pearson correlation with our own-loss scores: {correlation:.9f}")
    print(f"largest difference: {apart:.1e} of the largest score")
    if len(places) != corpus.n_valid or not correlation >= LEAST_CORRELATION:
        raise SystemExit(f"expected {corpus.n_valid:,} tokens and a correlation of {LEAST_CORRELATION} or more")


if __name__ == "__main__":
    main()

"""Influence and probe in the passes of influence, against a pass of the probe's own: time and agreement.

    python -m benchmarks.probe_pass --study demo [--tokens 1500] [--rounds 3]

Takes a study with scores, its first scoring checkpoint and some of its documents, in turn. Times are of the processor.
"""

import argparse
import json
import time

import numpy as np
import torch

from ifguide.influence.batches import make_batches
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stages.attributions import Place, Scorer, own_loss, probe
from ifguide.study.stages.checkpoints import corpus_sequences


def main() -> None:
    """Print the seconds of each, their ratio and the correlation of the probe's scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="demo")
    parser.add_argument("--tokens", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    study = Study.open(options.study)
    checkpoint = study.checkpoint_names()[0]
    notes = json.loads((study.folder(Unit("scores")) / "notes.json").read_text())
    ways = {"derivatives": notes["derivatives"][checkpoint]}
    sequences = corpus_sequences(study, max_tokens=options.tokens, seed=0)
    batches = list(make_batches(sequences, study.config.compute.tokens_per_batch))
    alone, own, both = (
        make.make_scorer(Place(study=study, checkpoint=checkpoint, probes=probes, notes=ways))
        for make, probes in ((probe, False), (own_loss, False), (own_loss, True))
    )

    def run(*scorers: Scorer) -> tuple[float, np.ndarray]:
        started, scores = time.process_time(), []
        for batch in batches:
            made = {name: values for scorer in scorers for name, values in scorer.by_file(batch).items()}
            scores.append(made["probe"][batch.counted])
        return time.process_time() - started, torch.cat(scores).numpy()

    rounds = [(run(own, alone), run(both)) for _ in range(options.rounds)]
    apart, together = (min(seconds for seconds, _ in side) for side in zip(*rounds, strict=True))
    (_, theirs), (_, ours) = rounds[0]
    ratio = f"{apart:.2f} s with a pass for the probe, {together:.2f} s without: {apart / together:.2f} x"
    print(f"{len(ours):,} tokens: {ratio}")
    print(f"probe's scores: 1 - r = {1 - np.corrcoef(ours, theirs)[0, 1]:.1e}")


if __name__ == "__main__":
    main()

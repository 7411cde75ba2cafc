"""Training on a processor: what kept memory and briefly waiting threads win, alone and beside other work.

    python -m benchmarks.training_speed [--study demo] [--passes 2] [--rounds 3]

Trains the study's default suppressed model for a few passes, each way in a process of its own, the ways in turn; the
median of the rounds counts. `as it comes` is torch and the C library as they start; the last way is what every
`ifguide` command does. The weights have to come out the same in all of them, bit for bit. Beside other work means one
busy process per two cores.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from ifguide.cli.main import THREADS_WAIT

SLEEP = {"OMP_WAIT_POLICY": "passive"}
WAYS: dict[str, tuple[dict[str, str], bool]] = {
    "as it comes": ({}, False),
    "threads sleep at once": (SLEEP, False),
    "threads sleep at once, freed memory kept": (SLEEP, True),
    "threads wait briefly, freed memory kept": (THREADS_WAIT, True),
}
"""Environment, and whether freed memory is kept."""


def main() -> None:
    """Train each way in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="demo")
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", choices=("yes", "no"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.keep:
        print(json.dumps(train(options.study, options.passes, options.keep == "yes")))
        return
    alone = measure(options)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range((os.cpu_count() or 2) // 2)]
    try:
        beside = measure(options)
    finally:
        for process in busy:
            process.kill()
    print("| way | tokens/s alone | ratio | tokens/s beside other work | ratio |\n|---|---|---|---|---|")
    first = next(iter(WAYS))
    for way in WAYS:
        print(
            f"| {way} | {alone[way]:,.0f} | {alone[way] / alone[first]:.2f} | {beside[way]:,.0f} |"
            f" {beside[way] / beside[first]:.2f} |"
        )


def measure(options) -> dict[str, float]:
    """Tokens a second of each way: the median of the rounds."""
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    digests = set()
    plain = {name: value for name, value in os.environ.items() if name not in THREADS_WAIT}
    for _ in range(options.rounds):
        for way, (environment, keep) in WAYS.items():
            command = [sys.executable, "-m", "benchmarks.training_speed", "--keep", "yes" if keep else "no"]
            command += ["--study", options.study, "--passes", str(options.passes)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=plain | environment)
            result = json.loads(done.stdout.splitlines()[-1])
            rates[way].append(result["tokens_per_second"])
            digests.add(result["weights"])
    if len(digests) != 1:
        raise SystemExit(f"the ways gave {len(digests)} different models")
    return {way: statistics.median(values) for way, values in rates.items()}


def train(name: str, passes: int, keep: bool) -> dict:
    """Train in this process; tokens a second, and a digest of the weights."""
    from ifguide.config.names import DEFAULT
    from ifguide.runtime.allocator import keep_freed_memory
    from ifguide.study.reading import Study
    from ifguide.study.stages.build import cut_training_rows, recipe, start_model
    from ifguide.training.train import train_model

    if keep and not keep_freed_memory():
        raise SystemExit("this system's C library has no option for it")
    study = Study.open(name)
    how = recipe(study.config, DEFAULT)
    model, tokenizer = start_model(study)
    rows = cut_training_rows(study, tokenizer, study.selection(how.selection).mask[:])
    training = dataclasses.replace(study.config.training, epochs=passes, checkpoint_steps=())
    with tempfile.TemporaryDirectory() as folder:
        result = train_model(model, tokenizer, rows, training, how, Path(folder))
        weights = (result.final / "model.safetensors").read_bytes()
    return {"tokens_per_second": result.tokens_seen / result.seconds, "weights": hashlib.sha256(weights).hexdigest()}


if __name__ == "__main__":
    main()

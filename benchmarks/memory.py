"""Peak memory of own-loss scoring against a forward pass without gradients, each in a process of its own.

    python -m benchmarks.memory [--hidden 768 --layers 12 --vocab 50304 --length 2048 --batch 2] [--device cpu]
    python -m benchmarks.memory --training [...]

Both load the same weights from disk and run the same batches. The forward pass takes its cross-entropy in parts of 128
positions, so neither ever holds the logits of a batch. On a processor the peak is of memory that is really the
process's (anonymous pages, read every few milliseconds); the direction v is a memory-mapped file that the system can
drop and read again at any time. The resident peak with such pages counted is printed beside it. On a GPU it is what the
allocator gave out. `--training` measures some optimiser steps instead, with whole logits, with logits in parts, and
with layers that are computed again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.engine import as_batches, make_documents, make_model, random_direction
from ifguide.influence.central import CentralDifference
from ifguide.influence.losses import SplitModel
from ifguide.models.loading import load_model, tracked_modules
from ifguide.storage import artifacts

WAYS = ("load", "forward", "own-loss", "own-loss, bfloat16 head")
TRAINING_WAYS = {
    "whole logits": {},
    "logits in parts": {"parts": True},
    "logits in parts, layers computed again": {"parts": True, "gradient_checkpointing": True},
}
LOGITS = "all logits of a batch in float32 would take"


def main() -> None:
    """Measure each way in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shape = {"hidden": 768, "layers": 12, "vocab": 50304, "length": 2048, "batch": 2, "documents": 4, "threads": 2}
    for name, value in shape.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--way", choices=(*WAYS, *TRAINING_WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.way:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(options, "sdpa")
        model.save_pretrained(folder)
        direction = random_direction(tracked_modules(model))
        artifacts.save_tensors(direction, Path(folder) / "direction.safetensors")
        n_parameters = sum(p.numel() for p in model.parameters())
        n_tracked = sum(v.numel() for v in direction.values())
        del model, direction
        peaks = {}
        for way in TRAINING_WAYS if options.training else WAYS:
            command = [sys.executable, "-m", "benchmarks.memory", *sys.argv[1:], "--way", way, "--folder", folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            peaks[way] = json.loads(done.stdout.splitlines()[-1])
    base = next(iter(peaks.values())) if options.training else peaks["forward"]
    print(
        f"\nGPT-NeoX, {n_parameters:,} parameters ({n_tracked:,} in v), vocabulary {options.vocab:,}, batches of"
        f" {options.batch} x {options.length} tokens, float32, {options.device}, torch {torch.__version__}; {LOGITS}"
        f" {options.batch * options.length * options.vocab * 4 / 2**20:,.0f} MiB\n"
    )
    if options.training:
        print("| training with | peak, own memory (MiB) | ratio | seconds a step | ratio |\n|---|---|---|---|---|")
        for way, peak in peaks.items():
            sizes = f"{peak['own']:,.0f} | {peak['own'] / base['own']:.2f}"
            print(f"| {way} | {sizes} | {peak['seconds']:.2f} | {peak['seconds'] / base['seconds']:.2f} |")
        return
    print(
        "| what | peak, own memory (MiB) | ratio to the forward pass | peak, resident (MiB) | ratio"
        " |\n|---|---|---|---|---|"
    )
    for way, peak in peaks.items():
        print(
            f"| {way} | {peak['own']:,.0f} | {peak['own'] / base['own']:.2f} | {peak['resident']:,.0f} |"
            f" {peak['resident'] / base['resident']:.2f} |"
        )
    print("\nBar: own-loss at most 1.20 of the forward pass.")


def measure(options) -> dict[str, float]:
    """Peak memory in MiB of one way, the loading of weights included."""
    watch = Watch(options.device)
    if options.training:
        return {"seconds": train(options), **watch.peak()}
    model = load_model(str(options.folder), device=options.device)
    batches = as_batches(options, make_documents(options, options.documents))
    if options.way == "forward":
        for batch in batches:
            _forward(model, batch)
    elif options.way != "load":
        direction = artifacts.load_tensors(options.folder / "direction.safetensors", device=options.device)
        products = torch.bfloat16 if "bfloat16" in options.way else None
        central = CentralDifference(SplitModel(model), tracked_modules(model), direction, 1e-3, products)
        for batch in batches:
            central.scores(batch)
    return watch.peak()


def train(options) -> float:
    """Seconds of an optimiser step: the mean of those after the first."""
    from ifguide.config.schema import TrainingConfig
    from ifguide.training import objective, trainer
    from ifguide.training.train import train_model

    settings = dict(TRAINING_WAYS[options.way])
    if not settings.pop("parts", False):
        objective.LOGITS_AT_ONCE = trainer.LOGITS_AT_ONCE = 1 << 62
    model = load_model(str(options.folder), device=options.device)
    rows = [{"input_ids": ids, "labels": ids} for ids in make_documents(options, 3 * options.batch)]
    ends: list[float] = []
    training = TrainingConfig(epochs=1.0, batch_size=options.batch, save_steps=0, **settings)
    with tempfile.TemporaryDirectory() as folder:
        take = trainer.PenalisedTrainer.compute_loss
        trainer.PenalisedTrainer.compute_loss = lambda *a, **k: ends.append(time.monotonic()) or take(*a, **k)
        train_model(model, None, rows, training, None, Path(folder))
    return (ends[-1] - ends[0]) / (len(ends) - 1)


@torch.no_grad()
def _forward(model, batch, positions: int = 128) -> torch.Tensor:
    hidden = model.base_model(input_ids=batch.input_ids, use_cache=False)[0][:, :-1].flatten(0, 1)
    head, targets = model.get_output_embeddings(), batch.targets.flatten()
    return torch.cat(
        [
            F.cross_entropy(head(some).float(), expected, reduction="none")
            for some, expected in zip(hidden.split(positions), targets.split(positions), strict=True)
        ]
    )


class Watch:
    """Follows this process's memory from when it is made."""

    def __init__(self, device: str):
        self._device = device
        self._own, self._over = 0.0, False
        if device == "cpu":
            self._thread = threading.Thread(target=self._follow, daemon=True)
            self._thread.start()

    def _follow(self) -> None:
        while not self._over:
            self._own = max(self._own, _status("RssAnon"))
            time.sleep(0.003)

    def now(self) -> float:
        """MiB of the process's own."""
        if self._device != "cpu":
            return torch.cuda.memory_allocated(self._device) / 2**20
        return _status("RssAnon")

    def peak(self) -> dict[str, float]:
        """MiB so far: `own` and `resident`."""
        if self._device != "cpu":
            given = torch.cuda.max_memory_allocated(self._device) / 2**20
            return {"own": given, "resident": given}
        self._over = True
        self._thread.join()
        return {"own": self._own, "resident": _status("VmHWM")}


def _status(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()

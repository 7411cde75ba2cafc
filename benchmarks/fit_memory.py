"""Peak memory and time of a fit of EK-FAC factors, in one part and in several, each in a process of its own.

    python -m benchmarks.fit_memory [--shapes 14M 70M 160M] [--parts 1 4]
    python -m benchmarks.fit_memory --model FOLDER --tokens 4096 --batch 2048 [--parts 1 4]
    python -m benchmarks.fit_memory --device cuda [--shapes 160M] [--tokens 8192 --batch 4096]
    python -m benchmarks.fit_memory --formula

Shapes are Pythia's with random weights and a vocabulary of 8,192. A pass is what the fit is built on: forward and
backward through the activations, the inputs of all tracked layers held for their gradients, nothing summed. Peaks are
of anonymous pages, on a GPU of what its allocator gave out, over what the process holds once the model is loaded;
factors are written to a file as a run does. One matrix of each size is decomposed, the others get the identity for
their eigenvectors: memory is the same, and what is left of the time are the passes. The bar: a fit takes at most 1.25
times a pass and the matrices of one part.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.memory import Watch
from ifguide.influence import ekfac
from ifguide.influence.batches import Sequence, make_batches
from ifguide.influence.losses import SplitModel, backpropagate
from ifguide.influence.parts import divide, fewest_parts, fit_bytes, shapes_of
from ifguide.models.layers import find_shared_inputs, watch
from ifguide.models.loading import load_model, tracked_modules
from ifguide.runtime.allocator import keep_freed_memory
from ifguide.storage.artifacts import TensorWriter
from ifguide.study.stages.checkpoints import fit_batch

SHAPES = {
    "14M": {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 512},
    "70M": {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 2048},
    "160M": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
"""Of Pythia's models."""
BAR = 1.25
MIB = 2**20
LARGE = {
    "Pythia 2.8B": {"kind": "gpt_neox", "hidden_size": 2560, "num_hidden_layers": 32, "intermediate_size": 10240},
    "Llama 8B": {"kind": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336},
}
BATCH = 2048
"""Tokens of a batch of the large models."""
ACTIVATIONS = {"gpt_neox": 4.7, "llama": 5.7}
"""Numbers that a pass holds for each token and block, for each of hidden and inner size: what the shapes above
take, and SmolLM2-135M."""


def main() -> None:
    """Measure each shape or a model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--model", type=Path, help="a folder of weights instead of the shapes")
    parser.add_argument("--tokens", type=int, default=1024, help="tokens fitted on")
    parser.add_argument("--batch", type=int, default=512, help="most tokens of a batch")
    parser.add_argument("--length", type=int, default=128, help="tokens of a document")
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--formula", action="store_true", help="print the large models' rows alone")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.formula:
        print_formula()
        return
    torch.set_num_threads(1)
    if options.way:
        print(json.dumps(measure(options)))
        return
    print(
        f"{options.tokens:,} tokens in batches of at most {options.batch:,}, float32, {options.device}, one thread,"
        f" torch {torch.__version__}\n\n"
        "| model | weights | way | over the model (MiB) | pass + part (MiB) | ratio | pass, all (s) | in all (MiB) |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for shape in [""] if options.model else options.shapes:
        with tempfile.TemporaryDirectory() as folder:
            if shape:
                make_model("gpt_neox", vocab_size=8192, **SHAPES[shape]).save_pretrained(folder)
            source = options.model or folder
            base = 0.0
            for way in ("pass", *(f"fit, {n} parts" for n in options.parts)):
                numbers = ["--tokens", options.tokens, "--batch", options.batch, "--length", options.length]
                numbers += ["--device", options.device]
                command = [sys.executable, "-m", "benchmarks.fit_memory", "--model", source, "--way", way, *numbers]
                done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True)
                fit = json.loads(done.stdout.splitlines()[-1])
                base = base or fit["over"]
                allowed = base + fit["part"]
                print(
                    f"| {shape or options.model.name} | {fit['weights']:,} | {way.replace(' 1 parts', ' 1 part')} |"
                    f" {fit['over']:,.0f} | {allowed:,.0f} | {fit['over'] / allowed:.2f} | {fit['seconds']:.1f} |"
                    f" {fit['most']:,.0f} |",
                    flush=True,
                )
    print(f"\nBar: at most {BAR} of a pass and one part.")


def make_model(kind: str, **sizes):
    """A model of these sizes with random weights; the large ones have their own number of words."""
    from transformers import AutoConfig, AutoModelForCausalLM

    heads = {"num_attention_heads": 32, "vocab_size": {"llama": 128256, "gpt_neox": 50304}[kind]}
    heads |= {"num_key_value_heads": 8} if kind == "llama" else {}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **heads | sizes))


def measure(options) -> dict[str, float]:
    """Of one way: MiB over the model and in all at the most, bytes of its largest part, and the passes' seconds."""
    keep_freed_memory()  # as a run does
    memory = Watch(options.device)
    model = load_model(str(options.model), device=options.device).requires_grad_(False)
    modules, split = tracked_modules(model), SplitModel(model)
    rng, n = np.random.default_rng(0), options.length
    top = model.config.get_text_config().vocab_size
    documents = [rng.integers(0, top, n) for _ in range(options.tokens // n)]
    sequences, batch_tokens = [Sequence(ids, np.arange(n)) for ids in documents], fit_batch(modules, options.batch)
    for parameter in model.parameters():  # in memory of its own, not the file's
        parameter.data = parameter.data.clone()
    loaded = memory.now()
    shared, part = find_shared_inputs(model, modules), 0
    started, deciding = time.monotonic(), [0.0]
    if options.way == "pass":
        with watch(model, modules, on_gradient=lambda *_: None):
            for batch in make_batches(sequences, batch_tokens):
                backpropagate(split, batch)
    else:
        parts = divide(modules, shared, int(options.way.split()[1]))
        part = max(fit_bytes(shapes_of(some), shared) for some in parts)
        decompose_once(deciding)
        shapes = {f"{layer}|{f}": s for layer, fs in ekfac.factor_shapes(modules).items() for f, s in fs.items()}
        with tempfile.NamedTemporaryFile() as place, TensorWriter(Path(place.name), shapes, torch.float32) as file:
            ekfac.stream_factors(
                split,
                modules,
                lambda: make_batches(sequences, batch_tokens),
                lambda layer, field, matrix: file.write(f"{layer}|{field}", matrix),
                parts=parts,
            )
    seconds = time.monotonic() - started - deciding[0]
    peak, weights = memory.peak()["own"], sum(p.numel() for p in model.parameters())
    return {"over": peak - loaded, "most": peak, "part": part / MIB, "seconds": seconds, "weights": weights}


def decompose_once(seconds: list[float]) -> None:
    """Let only the first matrix of each size be decomposed, and count what that takes."""
    real, seen = ekfac.eigenvectors, set()

    def eigenvectors(matrices, names):
        started, side = time.monotonic(), matrices.shape[-1]
        vectors = torch.eye(side, device=matrices.device).expand_as(matrices) if side in seen else real(matrices, names)
        seen.add(side)
        seconds[0] += time.monotonic() - started
        return vectors

    ekfac.eigenvectors = eigenvectors


def print_formula() -> None:
    """What a fit of large models takes, counted from their shapes, in as few parts as fit a GPU of 80 GB."""
    print(
        f"Batches of {BATCH:,} tokens; activations: {ACTIVATIONS} numbers a token, block and unit of hidden and inner"
        " size; before: two matrices for each\n\n| model | weights (GB) | pass (GB) | parts | one part (GB) |"
        " in all (GB) | before (GB) |\n|---|---|---|---|---|---|---|"
    )
    for name, sizes in LARGE.items():
        with torch.device("meta"):
            model = make_model(**sizes)
        modules, n_weights = tracked_modules(model), sum(p.numel() for p in model.parameters())
        shapes, shared = shapes_of(modules), find_shared_inputs(model, modules)
        for dtype in (torch.float32, torch.bfloat16):
            wide = sizes["num_hidden_layers"] * (sizes["hidden_size"] + sizes["intermediate_size"])
            held = dtype.itemsize * BATCH * ACTIVATIONS[sizes["kind"]] * wide
            room = 80e9 - dtype.itemsize * n_weights - BAR * held
            parts = fewest_parts(modules, shared, fit_bytes, room / BAR)
            part = max(fit_bytes(shapes_of(some), shared) for some in parts)
            sides = sum(outputs**2 + inputs**2 for outputs, inputs in shapes.values())
            before = 8 * (sides + sum(outputs * inputs for outputs, inputs in shapes.values()))
            weights = dtype.itemsize * n_weights
            row = (f"{x / 1e9:.1f}" for x in (part, weights + held + part, weights + held + before))
            print(
                f"| {name}, {str(dtype)[6:]} | {weights / 1e9:.1f} | {held / 1e9:.1f} | {len(parts)} |"
                f" {' | '.join(row)} |"
            )


if __name__ == "__main__":
    main()

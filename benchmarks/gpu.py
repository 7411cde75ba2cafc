"""Everything the pages of results leave for a card, in one command that fits into the time there is.

    python -m benchmarks.gpu [--minutes 25] [--out gpu.json] [--data FOLDER] [--only engine rates] [--tiny]

Each part is one of the other benchmarks in a process of its own, with its own limit inside the total. What a part
printed is kept in the file as soon as it ends, so the same command goes on where an earlier one stopped: finished parts
are not run again, failed and stopped ones are. A part that fails is noted with its error, and the others go on. At the
end come a table of the parts and all that they printed. Real text needs the public data sets (`--data`, see
`benchmarks.real`) and `make smollm2`; kronfluence and bergson are compared with where they are installed. `--tiny`
runs tiny shapes on a processor, to see that nothing fails on the day.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np

DONE, FAILED, STOPPED, LEFT = "done", "failed", "stopped", "not started"
LEAST_SECONDS = 10
"""With less time left, no part is started."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One benchmark."""

    name: str
    page: str
    """Whose figures it gives."""
    seconds: float
    """It is stopped after this many."""
    command: tuple[str, ...]
    """Arguments of Python."""


def plan(options: argparse.Namespace) -> list[Part]:
    """The parts in the order of their worth, those that `--only` names."""
    tiny, device = options.tiny, "cpu" if options.tiny else "cuda"
    engine = "--shape tiny --repeats 1" if tiny else "--shape pythia-160m"
    scoring = "--hidden 64 --layers 2 --vocab 512 --length 64 --batch 2" if tiny else "--batch 8"
    fit = "--shapes 14M --tokens 256" if tiny else "--shapes 70M 160M --tokens 8192 --batch 4096"
    exact = "--exact-documents 8" if tiny else "--low-precision"
    real = (
        "--passages 12 --posts 24 --until corpus"
        if tiny
        else "--rewrites 4000 --passages 1000 --posts 2500 --with all --budgets 0.5 1 2 --training-seeds 0 1 2"
        " --set training.batch_size=32 --set factors.max_tokens=150000 --set compute.tokens_per_batch=16384"
    )
    rows = [
        ("rates", "scale.md", 180, f"gpu --rates --device {device}{' --tiny' * tiny}"),
        ("engine", "results/engine.md", 420, f"engine {engine} --device {device}"),
        ("scoring memory", "results/engine.md", 180, f"memory {scoring} --device {device}"),
        ("fit memory", "results/memory.md", 240, f"fit_memory {fit} --parts 1 4 --device {device}"),
        ("exactness", "results/engine.md", 240, f"engine --no-speed --study demo {exact} --device {device}"),
    ]
    if find_spec("bergson"):
        rows.append(("bergson", "results/exactness.md", 180, "bergson_scores --study demo"))
    if options.data:
        rows.append(("real text", "results/real.md", 3600, f"real --name real-gpu {real} --data"))
    parts = []
    for name, page, seconds, command in rows:
        module, *arguments = command.split()
        arguments += [str(options.data)] if arguments[-1] == "--data" else []
        if "demo" in arguments and "--study" in arguments and not any(part.name == "demo" for part in parts):
            parts.append(Part(name="demo", page="results/engine.md", seconds=300, command=("-m", "ifguide", "demo")))
        parts.append(Part(name=name, page=page, seconds=seconds, command=("-m", f"benchmarks.{module}", *arguments)))
    if unknown := sorted(set(options.only) - {part.name for part in parts}):
        raise SystemExit(f"--only: expected some of {[part.name for part in parts]}, got {unknown}")
    return [part for part in parts if part.name in options.only] if options.only else parts


def run_parts(parts: list[Part], seconds: float, out: Path) -> dict[str, dict]:
    """Run what is not done yet, within `seconds` in all, and note each part in the file when it ends: its `state`,
    `seconds`, `output`, `error` and `command`. A part whose command changed counts as not done."""
    notes = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    ends = time.monotonic() + seconds
    for part in parts:
        note, left = notes.get(part.name, {}), ends - time.monotonic()
        if note.get("state") == DONE and note["command"] == list(part.command):
            print(f"{part.name}: done before", flush=True)
            continue
        if left < LEAST_SECONDS:
            notes.setdefault(part.name, {"state": LEFT, "seconds": 0.0, "output": "", "error": "no time was left"})
            continue
        print(f"{part.name}: at most {min(part.seconds, left):,.0f} s", flush=True)
        notes[part.name] = run_part(part, min(part.seconds, left))
        kept = out.with_suffix(".partial")
        kept.write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")
        kept.replace(out)
    return {part.name: notes[part.name] for part in parts}


def run_part(part: Part, seconds: float) -> dict:
    """Run one part in a session of its own, of which nothing is left when its time is over."""
    started, state = time.monotonic(), DONE
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as printed,
        tempfile.TemporaryFile("w+", encoding="utf-8") as wrong,
    ):
        process = subprocess.Popen(
            [sys.executable, *part.command], stdout=printed, stderr=wrong, start_new_session=True
        )
        try:
            state = FAILED if process.wait(timeout=seconds) else DONE
        except subprocess.TimeoutExpired:
            state = STOPPED
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for file in (printed, wrong):
            file.seek(0)
        output, errors = printed.read(), wrong.read().strip().splitlines()
    why = {DONE: "", STOPPED: f"after {seconds:,.0f} s", FAILED: errors[-1] if errors else f"exit {process.returncode}"}
    taken = round(time.monotonic() - started, 1)
    return {"state": state, "seconds": taken, "output": output, "error": why[state], "command": list(part.command)}


def table(parts: list[Part], notes: dict[str, dict]) -> str:
    """A row a part, then what each printed."""
    lines = ["| part | page | state | seconds | error |", "|---|---|---|---|---|"]
    for part in parts:
        note = notes[part.name]
        lines.append(f"| {part.name} | {part.page} | {note['state']} | {note['seconds']:,.0f} | {note['error']} |")
    printed = [f"\n## {name}\n\n{note['output'].strip()}" for name, note in notes.items() if note["output"].strip()]
    return "\n".join(lines + printed)


def print_rates(device: str, tiny: bool) -> None:
    """Tokens a second of training and of completions, with a model of Pythia's shape and random weights, and seconds of
    eigendecompositions."""
    import torch

    from benchmarks.engine import SHAPES, make_model
    from ifguide.config.schema import EvaluateConfig, TrainingConfig
    from ifguide.data.packing import pack_rows
    from ifguide.evaluation.generation import complete_shard
    from ifguide.influence.ekfac import eigenvectors
    from ifguide.training.train import train_model

    shape = SHAPES["tiny" if tiny else "pythia-160m"]
    options, steps = argparse.Namespace(**shape, device=device), (1, 3) if tiny else (5, 25)
    name = platform.processor() or "processor" if device == "cpu" else torch.cuda.get_device_name(device)
    size, length = options.batch, options.length
    samples, prompts, new_tokens, batch = (2, 4, 4, 8) if tiny else (25, 40, 20, 500)
    print(f"GPT-NeoX {shape}, {name}, torch {torch.__version__}\n\n| what | precision | tokens/s |\n|---|---|---|")
    tokens = np.random.default_rng(0).integers(1, options.vocab, size=size * steps[1] * length)
    rows = pack_rows(tokens, np.arange(0, len(tokens) + 1, length), length, 0, None, pack=False)
    for dtype in ("float32", "bfloat16"):
        made = []
        for number in steps:  # the first steps are slower
            training = TrainingConfig(max_steps=number, batch_size=size, dtype=dtype, early_checkpoints=0, save_steps=0)
            with tempfile.TemporaryDirectory() as folder:
                made.append(train_model(make_model(options, "sdpa"), None, rows, training, None, Path(folder)))
        more, longer = made[1].tokens_seen - made[0].tokens_seen, made[1].seconds - made[0].seconds
        print(f"| training, {size} rows of {length} tokens | {dtype} | {more / max(longer, 1e-9):,.0f} |", flush=True)
    tokenizer = SimpleNamespace(eos_token_id=None, decode=lambda ids, **_: "")
    encoded = [list(map(int, tokens[:8]))] * prompts
    sampling = EvaluateConfig(n_samples=samples, max_new_tokens=new_tokens, batch_size=batch)
    for dtype in ("float32", "bfloat16"):
        model = make_model(options, "sdpa").to(getattr(torch, dtype))
        model.generation_config.eos_token_id = None  # none ends early

        def generate(shard: range, model=model) -> int:
            completions = complete_shard(model, tokenizer, encoded, shard, sampling, lambda _: None, None)
            return sum(one.n_tokens for one in completions)

        generate(range(1))  # warm-up
        started = time.perf_counter()
        made_tokens = generate(range(prompts))
        rate = made_tokens / (time.perf_counter() - started)
        print(f"| completions of {new_tokens} tokens, {batch} at once | {dtype} | {rate:,.0f} |", flush=True)
    print("\n| eigenvectors of 8 matrices | side | seconds |\n|---|---|---|")
    for side in (options.hidden, 2 * options.hidden):
        rows = torch.randn(8, side, side, device=device)
        matrices = rows @ rows.mT
        for way, at_once in (("one by one", 1), ("together", 8)):
            eigenvectors(matrices[:at_once], [""] * at_once)  # warm-up
            started = time.perf_counter()
            for some in matrices.split(at_once):
                float(eigenvectors(some, [""] * at_once).sum())  # waits for the card
            print(f"| {way} | {side:,} | {time.perf_counter() - started:.2f} |", flush=True)


def main() -> None:
    """Run the parts and print the table; exit code 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25, help="for all parts together")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="what is kept")
    parser.add_argument("--data", type=Path, help="folder with the public data sets, for real text")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="names of parts")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes on a processor")
    parser.add_argument("--rates", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rates:
        print_rates(options.device, options.tiny)
        return
    parts = plan(options)
    notes = run_parts(parts, 60 * options.minutes, options.out)
    print(f"\n{table(parts, notes)}")
    if any(note["state"] == FAILED for note in notes.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""What a study costs: measured rates, a formula fitted to nothing but them, a plan, and a plot.

    python -m benchmarks.cost                    measures on this machine (minutes), writes docs/results/cost.json and
    cost.svg python -m benchmarks.cost --from docs/results/cost.json    prints and draws from what was measured

Every stage reads its tokens a whole number of times, so its time is tokens / rate, and a rate falls as 1 / parameters.
The measurement shows how far that holds: it times each stage at several lengths of corpus and several sizes of model.
Times are processor seconds of one thread, which other work on the machine disturbs less than the clock's.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
SHAPES = {"demo": (128, 3, 1024), "small": (256, 4, 8192), "medium": (384, 8, 16384), "wide": (576, 6, 16384)}
"""hidden size, layers, vocabulary; `wide` has SmolLM2-135M's width and a fifth of its layers."""
LENGTH = 128
"""Tokens of a document in the measurement."""
STAGES = ("training", "factors", "direction", "scoring, central", "scoring, jvp", "position")

H100 = {
    "forward": {"float32": 143_000, "tf32": 270_000, "bfloat16": 285_000},
    "training": {"float32": 48_000, "tf32": 98_000, "bfloat16": 118_000},
    "scoring, central": {"float32": 70_000, "tf32": 133_000},
    "factors": {"float32": 6_000, "bfloat16": 13_000},
}
"""Tokens a second measured on one H100 with a model of Pythia-160M's shape at 1,024 tokens; the factors are
kronfluence's, for our own fit was not measured there. Of a range the lower end."""
H100_PARAMETERS = 162_322_944


def measure_shape(name: str, lengths: tuple[int, ...], repeats: int) -> dict:
    """Seconds of each stage for each number of documents, and the model's size."""
    import torch

    from benchmarks.engine import as_batches, known_eigenvectors, make_model, random_direction
    from ifguide.influence.attribution import position_scores
    from ifguide.influence.central import CentralDifference
    from ifguide.influence.direction import query_gradient
    from ifguide.influence.ekfac import fit_factors
    from ifguide.influence.line import own_loss_scores
    from ifguide.influence.losses import SplitModel
    from ifguide.models.loading import tracked_modules

    hidden, layers, vocabulary = SHAPES[name]
    options = argparse.Namespace(hidden=hidden, layers=layers, vocab=vocabulary, length=LENGTH, batch=4, device="cpu")
    fused, eager = make_model(options, "sdpa"), make_model(options, "eager")
    modules, eager_modules = tracked_modules(fused), tracked_modules(eager)
    direction = random_direction(modules)
    split, eager_split = SplitModel(fused), SplitModel(eager)
    central = CentralDifference(split, modules, direction, 1e-3)
    trained = make_model(options, "sdpa").train().requires_grad_(True)
    optimiser = torch.optim.AdamW(trained.parameters(), lr=1e-5, fused=True)

    def train(batches) -> None:
        for batch in batches:
            logits = trained(input_ids=batch.input_ids, use_cache=False).logits[:, :-1]
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()).backward()
            optimiser.step()
            optimiser.zero_grad()

    def fit(batches) -> None:
        with known_eigenvectors():  # they take as long however many tokens there are, and longer than these few tokens
            fit_factors(fused, modules, lambda: batches)

    def query(batches) -> None:
        rows = [row.numpy() for batch in batches for row in batch.input_ids]
        query_gradient(fused, modules, [(row, np.arange(len(row)) > 0) for row in rows], tokens_per_batch=4 * LENGTH)

    work = {
        "training": train,
        "factors": fit,
        "direction": query,
        "scoring, central": lambda batches: [central.scores(batch) for batch in batches],
        "scoring, jvp": lambda batches: [own_loss_scores(eager_split, eager_modules, direction, b) for b in batches],
        "position": lambda batches: [position_scores(split, modules, [direction], batch) for batch in batches],
    }
    documents = np.random.default_rng(0).integers(1, vocabulary, size=(max(lengths), LENGTH))
    shape = {"parameters": sum(p.numel() for p in fused.parameters()), "seconds": {}}
    for stage, run in work.items():
        run(as_batches(options, list(documents[: lengths[0]])))  # warm-up
        seconds = {}
        for n in lengths:
            batches = as_batches(options, list(documents[:n]))
            times = []
            for _ in range(repeats):
                started = time.process_time()
                run(batches)
                times.append(time.process_time() - started)
            seconds[n * LENGTH] = round(float(np.median(times)), 4)
        shape["seconds"][stage] = seconds
    return shape


def measure(threads: int) -> dict:
    """Rates of every stage on this machine's processor."""
    import torch

    torch.set_num_threads(threads)
    lengths = {"demo": (8, 32, 128), "small": (4, 12, 24), "medium": (4, 12), "wide": (4, 12)}
    shapes = {}
    for name in SHAPES:
        shapes[name] = measure_shape(name, lengths[name], 3)
        print(f"measured {name}: {shapes[name]['parameters']:,} parameters", flush=True)
    machine = f"{platform.machine()}, {threads} thread(s), float32, processor seconds, torch {torch.__version__}"
    return {"machine": machine, "length": LENGTH, "shapes": shapes}


def marginal_rate(seconds: dict) -> float:
    """Tokens a second between the shortest and the longest run, so that what does not grow with the corpus is left out.

    Raises:
        SystemExit: the longest run took no longer than the shortest: the machine was too restless to measure on.
    """
    points = sorted((int(n), s) for n, s in seconds.items())
    took = points[-1][1] - points[0][1]
    if took <= 0:
        raise SystemExit(
            f"{points[-1][0]:,} tokens took no longer than {points[0][0]:,}; measure again on a quiet machine"
        )
    return (points[-1][0] - points[0][0]) / took


def print_rates(measurements: dict) -> None:
    """Tokens a second, and the same times parameters, which would be one number if a rate fell as 1 / parameters."""
    print(f"\n{measurements['machine']}, documents of {measurements['length']} tokens\n")
    heads = [f"{name} ({shape['parameters'] / 1e6:.1f}M)" for name, shape in measurements["shapes"].items()]
    print("| tokens/s | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads))
    rates = {
        stage: [marginal_rate(shape["seconds"][stage]) for shape in measurements["shapes"].values()] for stage in STAGES
    }
    for stage, row in rates.items():
        print(f"| {stage} | " + " | ".join(f"{rate:,.0f}" for rate in row) + " |")
    print("\n| 10⁹ parameters · tokens a second | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads))
    sizes = [shape["parameters"] for shape in measurements["shapes"].values()]
    for stage, row in rates.items():
        print(f"| {stage} | " + " | ".join(f"{r * n / 1e9:.1f}" for r, n in zip(row, sizes, strict=True)) + " |")


def plan(tokens: float, parameters: float, gpus: int, *, checkpoints: int, factor_tokens: float, epochs: float) -> list:
    """Rows (stage, tokens read, rate of one GPU, hours, note) by the formula, with the rates measured on one H100."""
    scale = H100_PARAMETERS / parameters
    rows = []

    def add(stage: str, n: float, rate: float, note: str) -> None:
        rows.append((stage, n, rate * scale, n / (rate * scale) / gpus / 3600, note))

    add("base model", epochs * tokens, H100["training"]["bfloat16"], f"{epochs:g} pass, bfloat16 training")
    add(
        "factors",
        checkpoints * factor_tokens,
        H100["factors"]["float32"],
        f"{checkpoints} checkpoints, both passes in the rate",
    )
    add("direction", checkpoints * 1e6, H100["training"]["float32"], "10,000 queries of 100 tokens")
    add(
        "scores, own loss",
        checkpoints * tokens,
        H100["scoring, central"]["float32"],
        f"{checkpoints} checkpoints, central differences",
    )
    add("suppressed model", epochs * tokens, H100["training"]["bfloat16"], "as the base model")
    return rows


def disk(tokens: float, parameters: float, checkpoints: int) -> list[tuple[str, float]]:
    """Bytes of a study by kind; the text itself is not in them."""
    return [
        ("corpus (token, first and last character: 12 bytes a token)", 12 * tokens),
        ("scores of checkpoints (own loss and loss: 8 bytes a token and checkpoint)", 8 * tokens * checkpoints),
        ("the study's scores (8 bytes a token)", 8 * tokens),
        ("unfinished shards, while scoring (8 bytes a token and checkpoint)", 8 * tokens * checkpoints),
        ("a mask (1 byte a token and selection)", tokens),
        ("factors (about 3 numbers of 4 bytes a parameter and checkpoint)", 12 * parameters * checkpoints),
        ("directions (4 bytes a parameter and checkpoint)", 4 * parameters * checkpoints),
        ("weights (4 bytes a parameter, base and suppressed and checkpoints)", 4 * parameters * (checkpoints + 2)),
    ]


def print_plan(title: str, tokens: float, parameters: float, gpus: int, **settings) -> None:
    """One worked plan."""
    rows = plan(tokens, parameters, gpus, **settings)
    print(
        f"\n**{title}**\n\n| stage | tokens read | tokens/s of one H100 | hours on {gpus} | what"
        " |\n|---|---|---|---|---|"
    )
    for stage, n, rate, hours, note in rows:
        print(f"| {stage} | {n:.3g} | {rate:,.0f} | {hours:,.1f} | {note} |")
    hours = sum(row[3] for row in rows)
    print(f"| **together** | | | **{hours:,.1f}** | {hours * gpus:,.0f} GPU hours |")
    print("\n| on disk | GB |\n|---|---|")
    for what, size in disk(tokens, parameters, settings["checkpoints"]):
        print(f"| {what} | {size / 1e9:,.1f} |")


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")


def draw(measurements: dict, path: Path) -> None:
    """Two panels, both axes logarithmic: seconds against tokens for one model, seconds a million tokens against
    parameters."""
    shapes = measurements["shapes"]
    tokens = {stage: sorted((int(n), s) for n, s in shapes["demo"]["seconds"][stage].items()) for stage in STAGES}
    sizes = {
        stage: [(s["parameters"], 1e6 / marginal_rate(s["seconds"][stage])) for s in shapes.values()]
        for stage in STAGES
    }
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 430" font-family="sans-serif" font-size="13">',
        '<rect width="960" height="430" fill="white"/>',
        *_panel(
            70,
            tokens,
            "corpus tokens",
            "seconds",
            f"demo's shape, {shapes['demo']['parameters'] / 1e6:.1f}M parameters",
        ),
        *_panel(560, sizes, "parameters", "seconds a million tokens", "four shapes"),
    ]
    for i, stage in enumerate(STAGES):
        x = 60 + 150 * i
        parts.append(
            f'<circle cx="{x}" cy="412" r="5" fill="{COLOURS[i]}"/><text x="{x + 10}" y="416"'
            f' fill="#222">{stage}</text>'
        )
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _panel(left: int, series: dict, across: str, up: str, title: str) -> list[str]:
    top, width, height = 50, 360, 290
    xs = np.log10([x for points in series.values() for x, _ in points])
    ys = np.log10([y for points in series.values() for _, y in points])
    low_x, high_x, low_y, high_y = xs.min() - 0.1, xs.max() + 0.1, ys.min() - 0.1, ys.max() + 0.1

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (x - low_x) / (high_x - low_x) * width, top + height - (y - low_y) / (high_y - low_y) * height

    parts = [f'<text x="{left}" y="30" fill="#222" font-weight="bold">{title}</text>']
    parts.append(f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#888"/>')
    for k in range(int(np.ceil(low_x)), int(np.floor(high_x)) + 1):
        x, _ = place(k, low_y)
        parts.append(
            f'<path d="M{x:.1f} {top}V{top + height}" stroke="#ddd"/><text x="{x:.1f}" y="{top + height + 18}"'
            f' text-anchor="middle" fill="#222">{_power(k)}</text>'
        )
    for k in range(int(np.ceil(low_y)), int(np.floor(high_y)) + 1):
        _, y = place(low_x, k)
        parts.append(
            f'<path d="M{left} {y:.1f}H{left + width}" stroke="#ddd"/><text x="{left - 6}" y="{y + 4:.1f}"'
            f' text-anchor="end" fill="#222">{_power(k)}</text>'
        )
    parts.append(
        f'<text x="{left + width / 2}" y="{top + height + 40}" text-anchor="middle" fill="#222">{across}</text>'
    )
    middle = top + height / 2
    parts.append(
        f'<text x="{left - 52}" y="{middle}" text-anchor="middle" fill="#222" transform="rotate(-90 {left - 52}'
        f' {middle})">{up}</text>'
    )
    for colour, points in zip(COLOURS, series.values(), strict=True):
        placed = [place(np.log10(x), np.log10(y)) for x, y in points]
        parts.append(
            f'<path d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in placed)}" fill="none" stroke="{colour}"'
            ' stroke-width="2"/>'
        )
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in placed]
    return parts


def _power(k: int) -> str:
    return f"{10**k:g}" if -3 <= k <= 2 else f"10{str(k).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def main() -> None:
    """Measure or read, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="read what was measured instead of measuring"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    measurements = json.loads(options.source.read_text()) if options.source else measure(options.threads)
    if not options.source:
        (RESULTS / "cost.json").write_text(json.dumps(measurements, indent=1) + "\n", encoding="utf-8")
    print_rates(measurements)
    print_plan(
        "1B tokens, 160M parameters, 8 GPUs", 1e9, H100_PARAMETERS, 8, checkpoints=4, factor_tokens=1e7, epochs=1
    )
    print_plan("1T tokens, 1B parameters, 512 GPUs", 1e12, 1e9, 512, checkpoints=2, factor_tokens=1e8, epochs=1)
    draw(measurements, RESULTS / "cost.svg")


if __name__ == "__main__":
    main()

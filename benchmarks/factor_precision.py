"""How much of the direction is left where factors are rounded or of a low rank: its cosine to the full float32 one.

    python -m benchmarks.factor_precision --model FOLDER --text FILE [--tokens 2048] [--depth 4] [--layers 1 3]

The factors of some of a model's first blocks, the others left out to save time, are fitted on the beginning of a text.
A gradient of its end is preconditioned with them: the mean over one half of it minus that over the other, as toxic and
safe queries are.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from ifguide.influence.batches import Sequence, make_batches
from ifguide.influence.direction import query_gradient
from ifguide.influence.ekfac import LayerFactors, fit_factors
from ifguide.models.loading import load_model, load_tokenizer, tracked_modules

LENGTH = 128
"""Tokens of a document."""
RANKS = (64, 128, 256, 512, 1024)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens fitted on")
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 3], help="blocks")
    parser.add_argument("--depth", type=int, default=4, help="blocks that the model is left with; its own are more")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    model.model.layers = model.model.layers[: options.depth]
    modules = tracked_modules(model, "|".join(rf"\.{number}\." for number in options.layers))
    ids = np.array(load_tokenizer(options.model, "")(options.text.read_text(encoding="utf-8"))["input_ids"])
    documents = [ids[start : start + LENGTH] for start in range(0, len(ids) - LENGTH, LENGTH)]
    n = options.tokens // LENGTH
    sequences = [Sequence(document, np.arange(LENGTH)) for document in documents[:n]]
    queries = [(document, np.arange(LENGTH) >= LENGTH // 2) for document in documents[-16:]]
    toxic, safe = (query_gradient(model, modules, queries[start::2], tokens_per_batch=1024) for start in range(2))
    gradient = {name: toxic[name] - safe[name] for name in modules}
    full = fit_factors(model, modules, lambda: make_batches(sequences, 1024))
    rounded = fit_factors(model, modules, lambda: make_batches(sequences, 1024), stored=torch.bfloat16)
    ways = {
        "bfloat16, stored so": {name: layer.to(torch.bfloat16) for name, layer in full.items()},
        "bfloat16, fitted so (`factors.dtype`)": rounded,
        **{f"rank {rank}": {name: cut(layer, rank) for name, layer in full.items()} for rank in RANKS},
    }
    bases = sum(part.numel() for layer in full.values() for part in vars(layer).values() if part is not None)
    print(
        f"{len(modules)} layers, {n * LENGTH:,} tokens\n\n| factors | numbers kept | damping | cosine | worst layer |"
    )
    print("|---|---|---|---|---|")
    for way, factors in ways.items():
        kept = sum(part.numel() for layer in factors.values() for part in vars(layer).values() if part is not None)
        for damping in (10.0, 0.1):
            pairs = [
                [one[name].precondition(gradient[name], damping).flatten().double() for one in (full, factors)]
                for name in modules
            ]
            worst = min(float(torch.cosine_similarity(a, b, dim=0)) for a, b in pairs)
            a, b = (torch.cat(side) for side in zip(*pairs, strict=True))
            whole = float(torch.cosine_similarity(a, b, dim=0))
            print(f"| {way} | {kept / bases:.0%} | {damping} | {whole:.6f} | {worst:.6f} |", flush=True)


def cut(layer: LayerFactors, rank: int) -> LayerFactors:
    """What a fit with this rank gives: the full one's last eigenvectors and their λ, and the mean of the other λ."""
    rows, columns = (min(rank, side) for side in layer.eigenvalues.shape)
    values = layer.eigenvalues[-rows:, -columns:]
    rest = (layer.eigenvalues.sum() - values.sum()) / max(1, layer.eigenvalues.numel() - values.numel())
    return LayerFactors(layer.input_vectors[:, -columns:], layer.output_vectors[:, -rows:], values, rest.view(1))


if __name__ == "__main__":
    main()

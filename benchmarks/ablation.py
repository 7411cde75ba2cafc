"""What each idea in the engine gains: one table of ways to score, one of ways to fit EK-FAC, every row against the
plain one.

    python -m benchmarks.ablation [--shape demo|pythia-70m] [--compile]

All rows run in turn on the same tokens in one process; a rate is the extra tokens of a long run over its extra seconds,
as in `benchmarks.engine`. `--compile` adds a row with `torch.compile`, which needs a C++ compiler.
"""

import argparse
import copy
from unittest import mock

import torch
import torch.nn.functional as F

from benchmarks.engine import (
    SHAPES,
    as_batches,
    describe_device,
    each,
    known_eigenvectors,
    make_model,
    measure,
    random_direction,
)
from ifguide.influence import ekfac
from ifguide.influence.batches import Batch
from ifguide.influence.central import CentralDifference, PairedDifference, difference_scores
from ifguide.influence.losses import SplitModel
from ifguide.models.layers import bias_of, split_matrix, weight_of
from ifguide.models.loading import tracked_modules

STEP = 1e-3


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="demo")
    parser.add_argument("--documents", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    shape = SHAPES[options.shape] | ({"documents": options.documents} if options.documents else {})
    options = argparse.Namespace(**(vars(options) | shape))
    torch.set_num_threads(options.threads)
    print(f"\nShape {options.shape}, float32, {describe_device(options)}, torch {torch.__version__}")
    print_table("own-loss scoring", measure(options, scoring(options)))
    print_table("EK-FAC fit, without eigendecompositions", measure(options, fitting(options)))


def print_table(title: str, rates: dict[str, float]) -> None:
    """Each row's rate, and what it is of the row before and of the first one."""
    print(f"\n| {title} | tokens/s | to the row before | to the first |\n|---|---|---|---|")
    values = list(rates.values())
    for number, (name, rate) in enumerate(rates.items()):
        before = f"{rate / values[number - 1]:.2f}" if number else "–"
        print(f"| {name} | {rate:,.0f} | {before} | {rate / values[0]:.2f} |")


def scoring(options) -> dict:
    """Ways to take central differences, each with one more idea than the one before (the last two apart)."""
    model = make_model(options, "sdpa")
    modules = tracked_modules(model)
    direction = random_direction(modules)
    split = SplitModel(model)
    copies = [shifted_copy(model, modules, direction, step) for step in (STEP, -STEP)]
    halves = [SplitModel(one) for one in copies]

    @torch.no_grad()
    def whole(batch: Batch, mask: bool) -> torch.Tensor:
        losses = []
        for one in copies:
            masked = {"attention_mask": batch.attention_mask} if mask else {}
            logits = one(input_ids=batch.input_ids, use_cache=False, **masked).logits[:, :-1]
            losses.append(F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none"))
        return (losses[0] - losses[1]) / (2 * STEP)

    @torch.no_grad()
    def in_parts(batch: Batch) -> torch.Tensor:
        return (halves[0](batch) - halves[1](batch)) / (2 * STEP)

    @torch.no_grad()
    def before_the_head(batch: Batch, bodies=None) -> torch.Tensor:
        counted = batch.targets != -100
        if bodies is None:
            hidden = [half.hidden(batch.input_ids, batch.attention_mask)[:, :-1][counted] for half in halves]
        else:
            hidden = [body(batch.input_ids)[:, :-1][counted] for body in bodies]
        return difference_scores(split, *hidden, STEP, batch, None)[0]

    ways = {
        "two shifted copies, whole logits, attention mask": lambda batch: whole(batch, mask=True),
        "… no mask where padding is on the right": lambda batch: whole(batch, mask=False),
        "… logits of some positions at a time": in_parts,
        "… difference before the head, vocabulary in blocks": before_the_head,
        "… weights shifted when a layer is called (the engine)": (
            CentralDifference(split, modules, direction, STEP).scores
        ),
        "… bfloat16 in the head (the engine, where fast)": (
            CentralDifference(split, modules, direction, STEP, torch.bfloat16).scores
        ),
        "both branches in one pass, bfloat16 differences": PairedDifference(split, modules, direction, STEP).scores,
    }
    if options.compile:
        bodies = [
            torch.compile(lambda ids, one=one: one.base_model(input_ids=ids, use_cache=False)[0]) for one in copies
        ]
        ways["two shifted copies compiled, difference before the head"] = lambda batch: before_the_head(batch, bodies)
    return {name: each(options, way) for name, way in ways.items()}


def shifted_copy(model, modules, direction, step):
    """A copy of the model at θ + step·v that shares what v does not touch."""
    tracked = {id(parameter) for module in modules.values() for parameter in module.parameters(recurse=False)}
    shifted = copy.deepcopy(model, {id(p): p for p in model.parameters() if id(p) not in tracked})
    layers = dict(shifted.named_modules())
    with torch.no_grad():
        for name in modules:
            layer, (weight, bias) = layers[name], split_matrix(layers[name], direction[name])
            weight_of(layer).add_(weight, alpha=step)
            if bias is not None:
                bias_of(layer).add_(bias, alpha=step)
    return shifted


def fitting(options) -> dict:
    """Ways to fit the factors, each with one more idea than the one before."""
    model = make_model(options, "sdpa")
    modules = tracked_modules(model)
    split = SplitModel(model)

    def fit(products=None, *, streams=True, shares=True, strips=True):
        def run(documents):
            batches = as_batches(options, documents)
            with (
                mock.patch.object(SplitModel, "streams", property(lambda self: streams and self.splits)),
                mock.patch.object(
                    ekfac, "find_shared_inputs", ekfac.find_shared_inputs if shares else lambda _, m: {n: n for n in m}
                ),
                mock.patch.object(ekfac, "_BLOCKS", ekfac._BLOCKS if strips else 1),
                known_eigenvectors(),
            ):
                ekfac.fit_factors(split, modules, lambda: batches, labels="true", products=products)

        return run

    return {
        "gradients of the head by autograd, every layer by itself": fit(streams=False, shares=False, strips=False),
        "… head's gradient in closed form, vocabulary in blocks": fit(shares=False, strips=False),
        "… layers with the same inputs share their covariance": fit(strips=False),
        "… covariances up to the diagonal only": fit(),
        "… products in bfloat16 (the engine, where fast)": fit(torch.bfloat16),
    }


if __name__ == "__main__":
    main()

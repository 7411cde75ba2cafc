"""Other ways to take selected tokens out than those that ifguide has, each measured like an edit.

    python -m benchmarks.leads --study posts --data FOLDER --leads cg-6 steps-2 heal-3 mix-0.7 undial-10 prevent-4
    python -m benchmarks.edit --show posts --half tune --results docs/results/runs/leads

The study is one of `benchmarks.real` with its default selection; training seed 0, and where a way has a step of the
weights, one as long as a rise of perplexity by 1% allows. The ways:

- `cg-N`: the edit's direction after N conjugate-gradient iterations on the exact Gauss-Newton matrix of 2,048 tokens of
  the corpus, started at EK-FAC's and preconditioned by it;
- `steps-N`: N shorter edits, each with the gradient where the last one ended;
- `heal-P`: an edit as long as P% allow, then a pass over the other tokens that distils the base model (KL, rate 2e-5);
- `mix-S`: the share S of the way to the retrained model, and from there the edit;
- `undial-B`: retrained; a selected token's target is the base model's prediction with its own logit lowered by B
  (UNDIAL, arXiv 2402.10052);
- `prevent-A`: retrained plainly; where a selected token is predicted, A times the difference between toxic and safe
  queries' mean states is added at the probe's layer, and left out afterwards (preventative steering, arXiv 2507.21509).
"""

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch.nn.functional import kl_div, log_softmax

from benchmarks.edit import Edits
from benchmarks.real import fit_judge
from ifguide.config.names import DEFAULT
from ifguide.config.schema import SuppressConfig, VariantConfig
from ifguide.data.packing import IGNORED
from ifguide.influence.batches import make_batches
from ifguide.influence.central import shifted
from ifguide.influence.direction import differential_direction, sum_gradients
from ifguide.influence.edit import apply_edit, choose_strength, edit_direction, edited, weight_length
from ifguide.influence.losses import SplitModel
from ifguide.influence.probe import completion_means, fit_probe
from ifguide.models.layers import Matrices
from ifguide.runtime.progress import Progress
from ifguide.study.folder import cache_dir
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build
from ifguide.study.reading import Study
from ifguide.study.stages import checkpoints, editing
from ifguide.training.objective import LossSums, token_losses
from ifguide.training.rows import TrainingRows, collate_rows
from ifguide.training.train import train_model
from ifguide.training.trainer import PenalisedTrainer

RESULTS = Path("docs/results/runs/leads")
BUDGET = 0.01
CURVED_TOKENS = 2_048
"""Tokens whose exact Gauss-Newton matrix conjugate gradients multiply by."""
VARIANT = VariantConfig(curvature="checkpoint", damping=1.0, selection=DEFAULT)


def main() -> None:
    """Measure the ways that are not on file, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", required=True)
    parser.add_argument("--data", type=Path, help="folder of the public data sets, for the second judge")
    parser.add_argument("--half", default="tune", choices=("", "tune", "report"), help="prompts to complete")
    parser.add_argument("--leads", nargs="+", required=True, metavar="WAY")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.untouched, options.onto = False, ""
    study = Study.open(options.study)
    judge = fit_judge(options.data, cache_dir() / f"{options.study}-inputs") if options.data else None
    Leads(study, 0, options, judge).run()


class Leads(Edits):
    """The ways of one study."""

    def run(self) -> None:
        """Each way that is not on file, from the base model as it was."""
        self.measure_base()
        self.chosen = editing.edited_tokens(self.study, VARIANT)
        self.factors = editing.read_curvature(self.study, VARIANT, str(self.device))
        self.rise, _ = editing.rises(self.study, self.model, self.modules, self.chosen.mask)
        before = {name: weight.clone() for name, weight in self.model.state_dict().items()}
        for lead in self.options.leads:
            way, _, size = lead.partition("-")
            key = (0, self.options.half, lead, "checkpoint", 1.0, BUDGET)
            if key not in self.done:
                with getattr(self, way)(float(size)) as (model, made):
                    self.keep(key, made, self.measure(model))
                self.model.load_state_dict(before)

    @contextlib.contextmanager
    def cg(self, iterations: float) -> Iterator[tuple]:
        """A direction nearer to the exact Newton step."""
        gradient = editing.selected_gradient(self.study, self.model, self.modules, self.chosen)
        solved, residuals = self.solve(gradient, int(iterations))
        scale = weight_length(self.modules) / dot(solved, solved) ** 0.5
        step = {name: matrix * scale for name, matrix in solved.items()}
        strength, tried = choose_strength(partial(self.rise, step), BUDGET)
        with edited(self.modules, step, strength):
            yield self.model, {"strength": strength, "rise_where_chosen": tried[strength], "residuals": residuals}

    def solve(self, gradient: Matrices, iterations: int) -> tuple[Matrices, list[float]]:
        """(G + dI)⁻¹ times the gradient by preconditioned conjugate gradients, and ‖residual‖/‖gradient‖ on the way."""
        precondition = partial(differential_direction, safe=None, factors=self.factors, damping=VARIANT.damping)
        sequences = checkpoints.corpus_sequences(self.study, max_tokens=CURVED_TOKENS)
        batches = list(make_batches(sequences, self.study.config.compute.tokens_per_batch))
        product = partial(self.multiply, batches=batches)
        solved = precondition(gradient)
        residual = axpy(gradient, -1.0, product(solved))
        residuals = [(dot(residual, residual) / dot(gradient, gradient)) ** 0.5]
        towards = precondition(residual)
        search, slope = {name: matrix.clone() for name, matrix in towards.items()}, dot(residual, towards)
        for _ in range(iterations):
            curved = product(search)
            length = slope / dot(search, curved)
            solved, residual = axpy(solved, length, search), axpy(residual, -length, curved)
            residuals.append((dot(residual, residual) / dot(gradient, gradient)) ** 0.5)
            towards, before = precondition(residual), slope
            slope = dot(residual, towards)
            search = axpy(towards, slope / before, search)
            print("residual", [round(value, 4) for value in residuals], flush=True)
        return solved, residuals

    def multiply(self, vector: Matrices, batches: list) -> Matrices:
        """(G + dI) times a vector, with G the mean over sequences of the Gauss-Newton matrix of their summed losses."""
        split, epsilon = SplitModel.of(self.model), 1e-3 * weight_length(self.modules) / dot(vector, vector) ** 0.5
        by_module = {module: vector[name] for name, module in self.modules.items()}

        def states(batch) -> torch.Tensor:
            return split.hidden(batch.input_ids, batch.attention_mask)[:, :-1][batch.counted]

        def send(batch) -> None:
            batch = batch.to(self.device)
            with torch.no_grad():
                with shifted(by_module, epsilon):
                    ahead = states(batch)
                with shifted(by_module, -epsilon):
                    moves = (ahead - states(batch)) / (2 * epsilon)  # (n, H)
            hidden = states(batch)
            hidden.backward(torch.cat([curve(split, hidden[p].detach(), moves[p]) for p in split.parts(len(hidden))]))

        total, n_sequences = sum_gradients(split, self.modules, batches, send), sum(len(b.sequence) for b in batches)
        damping = {name: VARIANT.damping * float(self.factors[name].mean) for name in vector}
        return {name: total[name] / n_sequences + damping[name] * vector[name] for name in vector}

    @contextlib.contextmanager
    def steps(self, n_steps: float) -> Iterator[tuple]:
        """Several edits, each of its share of the budget."""
        strengths = []
        for number in range(1, int(n_steps) + 1):
            strengths.append(self.take_step(BUDGET * number / n_steps))
        yield self.model, {"strengths": strengths}

    def take_step(self, budget: float) -> float:
        """Edit the model in place until its perplexity is `budget` above the base model's; the strength."""
        gradient = editing.selected_gradient(self.study, self.model, self.modules, self.chosen)
        step = edit_direction(self.modules, gradient, self.factors, VARIANT.damping)
        strength, _ = choose_strength(partial(self.rise, step), budget)
        apply_edit(self.modules, step, strength)
        return strength

    @contextlib.contextmanager
    def heal(self, percent: float) -> Iterator[tuple]:
        """A longer edit, after which the other tokens are learned from the base model."""
        strength = self.take_step(percent / 100)
        teacher = self.place("base")
        rows = checkpoints.cut_training_rows(self.study, checkpoints.study_tokenizer(self.study), self.chosen.mask)
        dataset, trained = TrainingRows(rows), [*self.model.parameters()]
        optimiser = torch.optim.AdamW(self.model.requires_grad_(True).parameters(), lr=2e-5, weight_decay=0.0)
        order = np.random.default_rng(0).permutation(len(dataset))
        for first in range(0, len(order), 8):
            batch = collate_rows([dataset[int(row)] for row in order[first : first + 8]], 0)
            other = (batch["labels"] != IGNORED)[:, 1:] & ~batch["selected"][:, 1:]
            given = {name: batch[name] for name in ("input_ids", "position_ids") if name in batch}
            with torch.no_grad():
                aim = log_softmax(teacher(**given, use_cache=False).logits[:, :-1][other], -1)
            now = log_softmax(self.model(**given, use_cache=False).logits[:, :-1][other], -1)
            kl_div(now, aim, log_target=True, reduction="batchmean").backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            optimiser.zero_grad()
        self.model.requires_grad_(False)
        yield self.model, {"strength": strength}

    @contextlib.contextmanager
    def mix(self, share: float) -> Iterator[tuple]:
        """Part of the way to the retrained model, and the edit from there."""
        build(self.study, [Unit("suppress", DEFAULT)], progress=Progress())
        there = self.place(str(self.study.folder(Unit("suppress", DEFAULT)) / "final")).state_dict()
        gradient = editing.selected_gradient(self.study, self.model, self.modules, self.chosen)
        step = edit_direction(self.modules, gradient, self.factors, VARIANT.damping)
        with torch.no_grad():
            for name, weight in self.model.state_dict().items():
                weight.lerp_(there[name], share)
        strength, _ = choose_strength(partial(self.rise, step), BUDGET)
        with edited(self.modules, step, strength):
            yield self.model, {"strength": strength}

    @contextlib.contextmanager
    def undial(self, lowered: float) -> Iterator[tuple]:
        """Retrained with bounded targets."""
        teacher = self.place("base")

        def objective(trainer: PenalisedTrainer, model, given: dict, labels, selected) -> torch.Tensor:
            logits = model(**given).logits
            losses = token_losses(logits, labels)  # (B, T-1)
            with torch.no_grad():
                aims = teacher(**given).logits[:, :-1][selected].float()
            aims.scatter_add_(1, labels[:, 1:][selected].unsqueeze(1), aims.new_full((len(aims), 1), -lowered))
            softly = -(aims.softmax(-1) * log_softmax(logits[:, :-1][selected].float(), -1)).sum(-1)
            return losses[~selected].sum() + softly.sum()

        yield self.retrain(objective), {}

    @contextlib.contextmanager
    def prevent(self, size: float) -> Iterator[tuple]:
        """Retrained plainly while the toxic direction is given where selected tokens are predicted."""
        queries = {kind: checkpoints.encoded_queries(self.study, kind) for kind in ("toxic", "safe")}
        layer = fit_probe(self.model, queries["toxic"][:300], queries["safe"][:300]).layer
        toxic, safe = (completion_means(self.model, queries[kind][:300])[:, layer].mean(0) for kind in queries)
        push, places = torch.from_numpy(size * (toxic - safe)), {}

        def steer(block, args, named):
            states = args[0] if args else named["hidden_states"]
            pushed = states + places["at"].unsqueeze(-1) * push.to(states)
            return ((pushed, *args[1:]), named) if args else (args, named | {"hidden_states": pushed})

        def objective(trainer: PenalisedTrainer, model, given: dict, labels, selected) -> torch.Tensor:
            places["at"] = torch.nn.functional.pad(selected, (0, 1))
            hook = trainer.plain.base_model.layers[layer].register_forward_pre_hook(steer, with_kwargs=True)
            try:
                return token_losses(model(**given).logits, labels).sum()
            finally:
                hook.remove()

        yield self.retrain(objective), {"layer": layer}

    def retrain(self, objective: Callable[..., torch.Tensor]):
        """The study's training with another objective, summed over the tokens of a batch."""

        def compute_loss(trainer, model, inputs, return_outputs=False, num_items_in_batch=None):
            given = {name: inputs[name] for name in ("input_ids", "position_ids") if name in inputs}
            labels, selected = inputs["labels"], inputs["selected"][:, 1:]
            total = objective(trainer, model, given | {"use_cache": False}, labels, selected)
            zero = torch.zeros(())
            trainer.sums = LossSums(total.detach(), zero, zero, zero, zero)
            return (
                total / (labels[:, 1:] != IGNORED).sum() if num_items_in_batch is None else total / num_items_in_batch
            )

        model, tokenizer = checkpoints.start_model(self.study)
        rows = checkpoints.cut_training_rows(self.study, tokenizer, self.chosen.mask)
        patched = mock.patch.multiple(PenalisedTrainer, compute_loss=compute_loss, is_large=lambda *_: False)
        with tempfile.TemporaryDirectory() as folder, patched:
            train_model(model, tokenizer, rows, self.study.config.training, SuppressConfig(), Path(folder))
        return model.float().eval().requires_grad_(False)

    def place(self, source: str):
        """The base model or another's weights, in float32, beside the one that is edited."""
        source = self.study.models()["base"]["source"] if source == "base" else source
        return checkpoints.place_model(self.study, source, "", dtype="float32")


def curve(split: SplitModel, hidden: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """Wᵀ (diag p - p pᵀ) W times how the states (n, H) move: the Gauss-Newton matrix of cross-entropy at the states."""
    leaf = hidden.requires_grad_()
    logits = split.logits(leaf)
    shares = logits.detach().softmax(-1)
    pushed = split.logits(moves)
    weighted = shares * (pushed - (shares * pushed).sum(-1, keepdim=True))
    return torch.autograd.grad(logits, leaf, weighted)[0]


def dot(left: Matrices, right: Matrices) -> float:
    """Σ over layers."""
    return sum(float((left[name].double() * right[name]).sum()) for name in left)


def axpy(to: Matrices, size: float, add: Matrices) -> Matrices:
    """to + size · add."""
    return {name: to[name] + size * add[name] for name in to}


if __name__ == "__main__":
    main()

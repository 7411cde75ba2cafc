"""Edits of the base model over dampings, curvatures, weights and budgets: toxicity and perplexity of each.

    python -m benchmarks.edit --demo-seeds 0 1 2 [--dampings 0.3 1 3] [--budgets 0.01 0.02 0.05]
    python -m benchmarks.edit --study posts --half tune [--training-seeds 0 1] [--tokens default weighted-0.1 random]
    python -m benchmarks.edit --demo-seeds 3 4 5 --tokens default --ranks 4 16 --onto default
    python -m benchmarks.edit --show demo-seed-0 demo-seed-1 [--half report]

A study is one of `benchmarks.before_after` or `benchmarks.real` with its default selection; another training seed edits
the base model of that seed against the same tokens. Nothing is saved but a line of numbers for each model, in
`docs/results/runs/edits/STUDY.jsonl`: what is there is not made again. `tokens` are the default selection's, as many at
random, or a share of all tokens weighted by score (`weighted-0.1`). `--ranks` cuts the step of every layer to a rank,
with its own strength; `--onto` adds the base model's step to a retrained model as well. The strength is chosen on one
half of the held-out text; perplexity is of the other half, against the base model's there. With `--half`, only those
prompts are completed.
"""

import argparse
import dataclasses
import itertools
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.before_after import Judge, build_demo_seed, with_training_seed
from benchmarks.real import fit_judge
from ifguide.config.names import BASE, DEFAULT
from ifguide.config.schema import BorrowedConfig, VariantConfig
from ifguide.evaluation.evaluate import evaluate_model
from ifguide.evaluation.statistics import emt, tp
from ifguide.influence.edit import choose_strength, edit_direction, edited
from ifguide.runtime.progress import Progress
from ifguide.study.analysis.comparison import scores_matrix
from ifguide.study.folder import cache_dir
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build
from ifguide.study.reading import Study
from ifguide.study.stage_table import curvature_unit
from ifguide.study.stages import editing
from ifguide.study.stages.checkpoints import place_model, study_tokenizer
from ifguide.study.stages.evaluating import load_study_scorer, read_heldout, split_heldout, study_prompts

RESULTS = Path("docs/results/runs/edits")
UNTOUCHED = "untouched"
"""The model that was fine-tuned, before it saw the corpus."""


def main() -> None:
    """Measure what is missing; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", help="a study that has scores, instead of the demo")
    parser.add_argument("--demo-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--training-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tokens", nargs="+", default=["default", "random"])
    parser.add_argument("--dampings", type=float, nargs="+", default=[1.0])
    parser.add_argument("--curvatures", nargs="+", default=["final"], choices=("final", "checkpoint"))
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.01, 0.02, 0.05])
    parser.add_argument("--ranks", type=int, nargs="+", default=[0], help="ranks of a layer's step; 0: whole")
    parser.add_argument("--untouched", action="store_true", help="measure the model before any of this as well")
    parser.add_argument("--onto", default="", help="a retrained model that gets the same steps")
    parser.add_argument("--half", default="", choices=("", "tune", "report"), help="prompts to complete")
    parser.add_argument("--data", type=Path, help="folder of the public data sets, for the second judge of real text")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--show", nargs="+", metavar="NAME", help="print the tables of studies, and edit nothing")
    options = parser.parse_args()
    names = options.show
    if not names:
        studies = [Study.open(options.study)] if options.study else list(map(build_demo_seed, options.demo_seeds))
        judge = fit_judge(options.data, cache_dir() / f"{options.study}-inputs") if options.data else None
        for study, seed in itertools.product(studies, options.training_seeds):
            Edits(study, seed, options, judge).run()
        names = [study.name for study in studies]
    print(table(read_lines(options.results, names), options.half))


class Edits:
    """The edits of one base model."""

    def __init__(self, study: Study, seed: int, options: argparse.Namespace, judge: Judge | None):
        self.options, self.seed, self.judge = options, seed, judge
        build(study, [Unit("selection", DEFAULT), Unit("selection", "random")], progress=Progress())
        self.name, self.study = study.name, with_training_seed(study, seed)
        if self.study.name != study.name:
            lent = {f"of-{name}": BorrowedConfig(study=study.name, selection=name) for name in (DEFAULT, "random")}
            borrowed = {**self.study.config.borrowed, **lent}
            self.study = self.study.change(dataclasses.replace(self.study.config, borrowed=borrowed))
        self.scored = study
        self.path = options.results / f"{study.name}.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.done = {tuple(json.loads(line)["key"]) for line in lines}

    def run(self) -> None:
        """Every combination that is not on file; a gradient a kind of tokens."""
        options = self.options
        self.measure_base()
        for tokens, curvature, damping in itertools.product(options.tokens, options.curvatures, options.dampings):
            due = {}
            for rank, budget in itertools.product(options.ranks, options.budgets):
                key = (self.seed, options.half, tokens + f" rank {rank}" * bool(rank), curvature, damping, budget)
                if key not in self.done or self.onto:
                    due[rank, budget] = key
            if due:
                self.edit(tokens, curvature, damping, due)

    def measure_base(self) -> None:
        """The base model's own line."""
        key = (self.seed, self.options.half, BASE, "", 0.0, 0.0)
        build(self.study, [Unit("model")], progress=Progress())
        self.model, self.modules, self.device = editing.load_base(self.study)
        texts = read_heldout(self.study.resolved("evaluate").heldout, self.study.resolved("evaluate"))
        self.heldout = split_heldout(texts)[1]
        self.before = None
        if key not in self.done:
            self.keep(key, {}, self.measure(self.model))
        key = (self.seed, self.options.half, UNTOUCHED, "", 0.0, 0.0)
        if self.options.untouched and key not in self.done:
            start = self.study.config.model
            self.keep(key, {}, self.measure(place_model(self.study, start.source, start.revision, dtype="float32")))
        self.onto = None
        if name := self.options.onto:
            build(self.study, [Unit("suppress", name)], progress=Progress())
            place = self.study.folder(Unit("suppress", name)) / "final"
            self.onto = place_model(self.study, str(place), "", dtype="float32")
            key = (self.seed, self.options.half, f"{name} retrained", "", 0.0, 0.0)
            if key not in self.done:
                self.keep(key, {}, self.measure(self.onto))

    def edit(self, tokens: str, curvature: str, damping: float, due: dict[tuple[int, float], tuple]) -> None:
        """One direction, cut to each rank and as long as each budget allows."""
        study = self.study
        own = study.name == self.scored.name
        share = float(tokens.removeprefix("weighted-")) if tokens.startswith("weighted-") else 0.0
        name = DEFAULT if share else tokens
        variant = VariantConfig(curvature=curvature, damping=damping, weighted_share=share, selection=name)
        needed = curvature_unit(study.config, variant)
        borrowed = [] if own else [Unit("selection", f"of-{name}")]
        build(study, [needed, *borrowed], progress=Progress())
        started = time.monotonic()
        chosen = editing.edited_tokens(self.scored, variant)
        factors = editing.read_curvature(study, variant, str(self.device))
        gradient = editing.selected_gradient(study, self.model, self.modules, chosen)
        whole = edit_direction(self.modules, gradient, factors, damping)
        rise, _ = editing.rises(study, self.model, self.modules, chosen.mask)
        seconds = time.monotonic() - started
        for (rank, budget), key in due.items():
            started = time.monotonic()
            step = {name: cut_to_rank(matrix, rank) for name, matrix in whole.items()} if rank else whole
            strength, tried = choose_strength(partial(rise, step), budget)
            took = seconds + time.monotonic() - started
            made = {"strength": strength, "rise_where_chosen": tried[strength], "seconds": round(took, 1)}
            made |= {"n_tokens": int(chosen.mask.sum())}
            if key not in self.done:
                with edited(self.modules, step, strength):
                    self.keep(key, made, self.measure(self.model))
            if self.onto and (other := (*key[:2], f"{tokens} onto {self.options.onto}", *key[3:])) not in self.done:
                with edited(editing.tracked(study, self.onto), step, strength):
                    self.keep(other, made, self.measure(self.onto))

    def measure(self, model) -> dict:
        """Toxicity by both judges and perplexity of a model as it computes now."""
        config, tokenizer = self.study.resolved("evaluate"), study_tokenizer(self.study)
        prompts = [p for p in study_prompts(self.study) if self.options.half in ("", p.group)]
        scorer = load_study_scorer(self.study, config.scorer)
        evaluated = evaluate_model(model, tokenizer, config, prompts, scorer, heldout_texts=self.heldout)
        assert evaluated is not None
        metrics, samples, _ = evaluated
        figures = {key: metrics[key] for key in ("emt", "tp", "perplexity", "n_prompts", "distinct_2", "repetition")}
        if self.judge:
            second = scores_matrix(samples.assign(toxicity=self.judge(samples["completion"].tolist())))
            figures |= {"second_emt": emt(second), "second_tp": tp(second)}
        return figures

    def keep(self, key: tuple, made: dict, figures: dict) -> None:
        """A line on file."""
        names = ("training_seed", "half", "tokens", "curvature", "damping", "budget")
        line = {"study": self.name, "key": key} | dict(zip(names, key, strict=True)) | made | figures
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in line.items() if k != "key"}, flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        self.done.add(key)


def cut_to_rank(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    """The nearest matrix of a rank."""
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    return (left[:, :rank] * sizes[:rank]) @ right[:rank]


def read_lines(folder: Path, names: list[str]) -> pd.DataFrame:
    """A row a model, with what it is of its base model's."""
    rows = pd.DataFrame([json.loads(line) for name in names for line in (folder / f"{name}.jsonl").open()])
    pair = ["study", "training_seed", "half"]
    base = rows[rows.tokens == BASE].set_index(pair)
    keys = pd.MultiIndex.from_frame(rows[pair])
    for figure in ("emt", "tp", "second_emt"):
        if figure in rows:
            rows[f"{figure}_of_base"] = rows[figure].to_numpy() / base[figure].reindex(keys).to_numpy()
    untouched = rows[rows.tokens == UNTOUCHED].set_index(pair)["emt"].reindex(keys).to_numpy()
    before = base["emt"].reindex(keys).to_numpy()
    rows["added_gone"] = (before - rows["emt"].to_numpy()) / (before - untouched)
    rows["rise"] = rows["perplexity"].to_numpy() / base["perplexity"].reindex(keys).to_numpy() - 1
    return rows


def table(rows: pd.DataFrame, half: str) -> str:
    """Means over studies and training seeds in Markdown, with the least and the most."""
    rows = rows[rows.half == half]
    columns = {"emt": "{:.3f}", "emt_of_base": "{:.3f}", "second_emt_of_base": "{:.3f}", "rise": "{:+.1%}"}
    columns = {key: form for key, form in columns.items() if key in rows} | {"seconds": "{:.0f}"}
    if rows["added_gone"].notna().any():
        columns["added_gone"] = "{:.0%}"
    heads = ["tokens", "curvature", "damping", "budget", "models", *(key.replace("_", " ") for key in columns)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for key, group in rows.groupby(["tokens", "curvature", "damping", "budget"], sort=True):
        cells = [key[0], key[1], f"{key[2]:g}", f"{key[3]:.0%}", str(len(group))]
        for column, form in columns.items():
            values = group[column].dropna() if column in group else []
            bounds = f" [{form.format(min(values))}, {form.format(max(values))}]" if len(values) > 1 else ""
            cells.append(f"{form.format(np.mean(values))}{bounds}" if len(values) else "–")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

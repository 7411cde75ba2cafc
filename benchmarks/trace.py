"""Is a trace right? What the traced documents hold, and what leaving them out does to the answer.

    python -m benchmarks.trace --study demo [--answers 100] [--removed 20] [--at base checkpoint]
    python -m benchmarks.trace --study demo --answers 20 --recall 512 2048 4096

Of the base model's toxic answers: the share of the ten best documents that hold one of the answer's offensive words, by
influence, by shared words, and at random. Then the judge that counts: the base model is edited against the best
`--documents` of each kind, or trained again without them, and the change of the answer's log-probability is read. Every
edit is as long as one half of the held-out text allows at `--budget`. A line of numbers an answer goes to
`docs/results/runs/trace/STUDY.jsonl`, no text; what is there is not made again.

`--recall` takes dimensions of gradient indexes, builds them where they are missing, and prints which share of the 20
documents of the highest exact scores is among the best of each index, and of as many documents by words and scores;
then how long one product takes over a million made-up documents.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ifguide.config.names import BASE
from ifguide.config.schema import VariantConfig
from ifguide.data.words import place_words
from ifguide.evaluation.likelihood import token_likelihoods
from ifguide.evaluation.toxic_spans import read_spans
from ifguide.influence.edit import choose_strength, edit_direction, edited
from ifguide.models.loading import load_model
from ifguide.runtime.progress import Progress
from ifguide.storage.artifacts import load_array
from ifguide.study.analysis.trace import (
    ALIKE,
    CANDIDATES,
    RANDOM,
    Answer,
    Candidate,
    Tracer,
    choose_candidates,
    word_index,
)
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build
from ifguide.study.reading import Study
from ifguide.study.stage_table import curvature_unit
from ifguide.study.stages import editing
from ifguide.study.stages.checkpoints import study_tokenizer
from ifguide.study.stages.gradients import GradientIndex, multiply
from ifguide.study.stages.select import save_documents
from ifguide.study.variants import edit_recipe

RESULTS = Path("docs/results/runs/trace")
DEPTHS = (20, 50, 100, 200)
MANY = 1_000_000
"""Documents that a product is timed on."""
BEST = 10
"""Documents in which the answer's offensive words are looked for."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="demo")
    parser.add_argument("--answers", type=int, default=100, help="toxic answers that are traced")
    parser.add_argument("--removed", type=int, default=20, help="of these, answers whose documents are edited out")
    parser.add_argument("--trained", type=int, default=0, help="of these, answers without whose documents is trained")
    parser.add_argument("--documents", type=int, default=50, help="documents that are left out")
    parser.add_argument("--candidates", type=int, default=0, help="documents of each source; 0: the app's own numbers")
    parser.add_argument("--at", nargs="+", default=["base"], help="base, checkpoint (the last one), or its name")
    parser.add_argument("--budget", type=float, default=0.01, help="share by which an edit may raise perplexity")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--show", action="store_true", help="print the table, and compute nothing")
    parser.add_argument("--recall", type=int, nargs="+", help="dimensions of gradient indexes to measure")
    options = parser.parse_args()
    if options.recall:
        print(measure_recall(Study.open(options.study), options.answers, options.recall))
        return
    path = options.results / f"{options.study}.jsonl"
    if not options.show:
        study = Study.open(options.study)
        for at in options.at:
            Proof(study, study.checkpoint_names()[-1] if at == "checkpoint" else at, options, path).run()
    print(table(pd.DataFrame([json.loads(line) for line in path.open()])))


class Proof:
    """The toxic answers of one study, traced at one model."""

    def __init__(self, study: Study, at: str, options: argparse.Namespace, path: Path):
        self.study, self.at, self.options, self.path = study, at, options, path
        self.variant = edit_recipe(study.config, "default", {"perplexity_budget": options.budget})
        self.corpus, self.index = study.corpus(), word_index(study)
        self.words = [{word for word, *_ in place_words(text)} for text in self.corpus.column("text").to_pylist()]
        lines = path.read_text().splitlines() if path.exists() else []
        self.done = {tuple(json.loads(line)["key"]) for line in lines}

    def run(self) -> None:
        build(
            self.study, [curvature_unit(self.study.config, self.variant), Unit("evaluate", BASE)], progress=Progress()
        )
        tracer = Tracer.open(self.study, self.at)
        self.model, self.modules, self.device = editing.load_base(self.study)
        samples = self.study.samples(BASE)
        toxic = samples[samples.toxicity > 0.5]
        chosen = toxic.sample(min(self.options.answers, len(toxic)), random_state=0)
        for number, row in enumerate(chosen.to_dict("records")):
            key = (self.at, row["prompt_index"], row["sample_index"], self.options.documents, self.options.budget)
            if key not in self.done:
                options = self.options
                self.keep(key, self.measure(tracer, row, number < options.removed, number < options.trained))

    def measure(self, tracer: Tracer, row: dict, remove: bool, train: bool) -> dict:
        """The figures of one answer."""
        answer, n = Answer(prompt=row["prompt"], completion=row["completion"]), self.options.candidates
        counts = dict.fromkeys(CANDIDATES, n) if n else CANDIDATES
        candidates = choose_candidates(self.study, answer, self.index, counts, row["prompt_index"])
        direction = tracer.direction(answer)
        traced = [one for part in tracer.trace(direction, candidates) for one in part]
        best = {
            "pushed": [one.candidate.document for one in sorted(traced, key=lambda one: -one.total)],
            ALIKE: [one.document for one in sorted(candidates, key=lambda one: -one.alike) if one.alike],
            RANDOM: np.random.default_rng(row["sample_index"]).permutation(self.corpus.n_documents).tolist(),
        }
        pieces = [row["completion"][first:last] for first, last in read_spans(row["toxic_spans"], row["completion"])]
        offensive = {word for piece in pieces for word, *_ in place_words(piece)}
        figures = {
            f"hold_{kind}": float(np.mean([bool(offensive & self.words[d]) for d in documents[:BEST]]))
            for kind, documents in best.items()
        }
        before = self.log_probability(self.model, answer)
        for kind, documents in best.items():
            gone = documents[: self.options.documents]
            if remove:
                with self.edited_without(gone) as rise:
                    change = self.log_probability(self.model, answer) - before
                figures |= {f"change_{kind}": change, f"rise_{kind}": rise}
            if train:
                figures[f"trained_{kind}"] = self.log_probability(self.trained_without(gone), answer) - before
        return figures

    def trained_without(self, documents: list[int]):
        """The model trained again from the same start without some documents."""
        study, name = self.study, "proof"
        save_documents(study, name, documents)
        config = study.config
        recipe = VariantConfig(selection=name, method="drop")
        study = study.change(dataclasses.replace(config, variants={**config.variants, "without-proof": recipe}))
        unit = Unit("suppress", "without-proof")
        try:
            build(study, [unit], progress=Progress())
            return load_model(str(study.folder(unit) / "final"))
        finally:
            study.change(config)
            for folder in (study.folder(unit), study.folder(Unit("selection", name))):
                shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def edited_without(self, documents: list[int]):
        """Inside the block the base model is edited against all tokens of some documents; gives what it costs."""
        mask, offsets = np.zeros(self.corpus.n_tokens, bool), self.corpus.offsets
        for d in documents:
            mask[offsets[d] : offsets[d + 1]] = True
        mask &= self.corpus.valid()
        gradient = editing.selected_gradient(self.study, self.model, self.modules, editing.EditedTokens(mask))
        factors = editing.read_curvature(self.study, self.variant, str(self.device))
        step = edit_direction(self.modules, gradient, factors, self.variant.damping)
        rise, on_others = editing.rises(self.study, self.model, self.modules, mask)
        strength, _ = choose_strength(partial(rise, step), self.options.budget)
        cost = (on_others or rise)(step, strength)
        with edited(self.modules, step, strength):
            yield cost

    def log_probability(self, model, answer: Answer) -> float:
        [one] = token_likelihoods(model, study_tokenizer(self.study), answer.prompt, [answer.completion])
        return float(one.log_probability.sum())

    def keep(self, key: tuple, figures: dict) -> None:
        line = {"key": key, "at": self.at} | figures
        print(
            {name: round(value, 3) if isinstance(value, float) else value for name, value in line.items()}, flush=True
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        self.done.add(key)


def table(rows: pd.DataFrame) -> str:
    """Means over answers with 95% bootstrap intervals, in Markdown."""
    heads = ("traced at", "documents", "answers", "best ten hold its word", "edited out", "trained without")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for at, group in rows.groupby("at"):
        for kind in ("pushed", ALIKE, RANDOM):
            changes = [group.get(f"{way}_{kind}", pd.Series(dtype=float)).dropna() for way in ("change", "trained")]
            cells = [at, kind, str(len(group)), _mean(group[f"hold_{kind}"], "{:.0%}")]
            cells += [f"{_mean(values, '{:+.2f}')} (n {len(values)})" for values in changes]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measure_recall(study: Study, n_answers: int, dimensions: list[int]) -> str:
    """Of the exact top 20 the share among the best few, in Markdown, mean over toxic answers."""
    units = [Unit("gradients", str(n)) for n in dimensions]
    build(study, units, progress=Progress())
    tracer, words, order = Tracer.open(study), word_index(study), study.selection().order
    samples, n = study.samples(BASE), study.corpus().n_documents
    answers = samples[samples.toxicity > 0.5].sample(n_answers, random_state=0).to_dict("records")
    everything = [Candidate(document=number, sources=(RANDOM,)) for number in range(n)]
    indexes = {f"index, {unit.name} numbers": GradientIndex(study, unit) for unit in units}
    shares: dict[str, list] = {}
    for row in answers:
        answer = Answer(prompt=row["prompt"], completion=row["completion"])
        direction = tracer.direction(answer)
        exact = np.array([one.total for part in tracer.trace(direction, everything) for one in part])
        top, near = np.argsort(-exact)[:20], words.nearest(answer.completion, n=n, order=order)[0]
        alike = [one.document for one in near]
        lists = {name: index.nearest(direction, n).tolist() for name, index in indexes.items()}
        lists |= {"reads alike": alike, "reads alike and score, in turn": _in_turn(alike, order.tolist())}
        lists |= {f"{name} and reads alike, in turn": _in_turn(lists[name], alike) for name in indexes}
        lists["random"] = np.random.default_rng(row["sample_index"]).permutation(n).tolist()
        for name, documents in lists.items():
            shares.setdefault(name, []).append([np.isin(top, documents[:depth]).mean() for depth in DEPTHS])
    heads = ["candidates", *(f"best {depth} of {n}" for depth in DEPTHS)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, rows in shares.items():
        lines.append(f"| {name} | " + " | ".join(f"{share:.0%}" for share in np.mean(rows, axis=0)) + " |")
    for unit in units:
        made = study.manifest(unit)
        took = f"built in {made['seconds']:.1f} s, {sum(made['bytes'].values()):,} bytes"
        lines.append(f"{unit.name} numbers: {took}; a product over {MANY:,} documents {time_product(int(unit.name))}")
    return "\n".join(lines)


def _in_turn(*lists: list[int]) -> list[int]:
    """The first of each list, then the second of each, none twice."""
    turns = itertools.chain.from_iterable(itertools.zip_longest(*lists))
    return [*dict.fromkeys(document for document in turns if document is not None)]


def time_product(dimensions: int) -> str:
    """How long a product and the best 100 take over `MANY` documents on disk: the first time, and then."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path, times = Path(folder) / "rows.npy", []
        rows = np.lib.format.open_memmap(path, "w+", np.float16, (MANY, dimensions))
        block = np.random.default_rng(0).standard_normal((10_000, dimensions)).astype(np.float16)
        for first in range(0, MANY, len(block)):
            rows[first : first + len(block)] = block
        rows.flush()
        rows = load_array(path)
        for _ in range(4):
            started = time.perf_counter()
            np.argpartition(-multiply(rows, np.ones(dimensions)), 100)
            times.append(time.perf_counter() - started)
    return f"{times[0]:.2f} s, then {min(times):.2f} s"


def _mean(values: pd.Series, form: str) -> str:
    """The mean with its 95% bootstrap interval over answers."""
    if not len(values):
        return "–"
    draws = np.random.default_rng(0).choice(values.to_numpy(), (2000, len(values))).mean(1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return f"{form.format(values.mean())} [{form.format(low)}, {form.format(high)}]"


if __name__ == "__main__":
    main()

"""Before and after, over seeds and budgets: every method's selection trained without, in the same way, and the tables.

    python -m benchmarks.before_after --demo-seeds 0 1 2 [--training-seeds 0 1 2] [--budgets 0.5 1 2] [--with all]
    python -m benchmarks.before_after --study real --training-seeds 0 1 --with own_loss,probe,combined
    python -m benchmarks.before_after --show demo [--demo-seeds 3 4 5 6 7] [--svg docs/results/frontier.svg]

A demo seed makes other documents, queries, prompts, another tokenizer and another training; with `--study` the scores
are those of a study that is there. Every method is given the same number of tokens: a budget is a multiple of the
study's own operating point. With another training seed the same masks are trained without in another order (from
another random start where the model is new), and compared with the base model of that seed.

Each model's measurements are one JSON file below `--results`, with the settings they were made with: what is there and
fits is not made again, so that a comparison can go on another day, on another machine. It holds numbers alone, no
text. A model's weights are deleted once it is measured. `--show` prints the tables from the files.
"""

import argparse
import dataclasses
import itertools
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from benchmarks.demo_corpus.inputs import write_inputs
from ifguide.config.io import config_to_dict
from ifguide.config.names import BASE, DEFAULT
from ifguide.config.schema import BorrowedConfig, StudyConfig, VariantConfig
from ifguide.evaluation.statistics import emt, tp
from ifguide.runtime.progress import Progress
from ifguide.selection.algorithm import TAIL, precision_recall
from ifguide.storage import artifacts
from ifguide.study.analysis.comparison import describe_treatment, scores_matrix
from ifguide.study.demo import demo_config
from ifguide.study.folder import cache_dir, list_studies
from ifguide.study.lineage import Unit, default_setting
from ifguide.study.pipeline import build, run_study
from ifguide.study.reading import Study
from ifguide.study.variants import BASELINES, PREFERENCE, STEERED, UNSELECTED, UNTOUCHED, recipe
from ifguide.ui.palette import variant_colours
from ifguide.ui.report.figures import frontier_figure
from ifguide.ui.results.frontier import FrontierPoint

RESULTS = Path("docs/results/runs")
VARIANTS = {"labelled-dropped": VariantConfig(selection="oracle", method="drop")}
"""What is measured beside what `ifguide compare` knows: training without the documents that people marked."""
LABELS = ("oracle", *VARIANTS)
"""Methods that read the corpus's human labels: what they reach is a mark, not a rival."""
CLASSIFIERS = ("words", "classifier-tokens", "classifier-documents")
"""Methods that use a classifier somebody trained on labels; on the demo it is the very one that judges."""
DPO_RATES = ("1e-4", "2e-4", "5e-4", "1e-3")
"""Learning rates that `dpo` is tried with; `dpo-5e-4` is the method at one of them."""
FULL = (*LABELS, UNTOUCHED, "classifier-documents", STEERED, *(f"{PREFERENCE}-{rate}" for rate in DPO_RATES))
"""Methods whose selection has its own size, or that select nothing, so that one budget is enough."""
Judge = Callable[[list[str]], np.ndarray]


def main() -> None:
    """Train and measure what is missing; print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", help="a study that has scores, instead of the demo")
    parser.add_argument("--demo-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--training-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--budgets", type=float, nargs="+", default=[1.0], help="multiples of the operating point")
    parser.add_argument("--with", dest="others", default="random,oracle", help="methods, separated by commas, or all")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--show", metavar="NAME", help="print the tables of `demo` or of a study, and train nothing")
    parser.add_argument("--half", default="", choices=("", "tune", "report"), help="prompts that the tables are of")
    parser.add_argument("--svg", type=Path, help="draw the frontier over budgets into this file")
    options = parser.parse_args()
    if not options.show:
        studies = [Study.open(options.study)] if options.study else map(build_demo_seed, options.demo_seeds)
        for study in studies:
            run_all(study, options.others, options.budgets, options.training_seeds, options.results)
    show(options.show or options.study or "demo", options.results, options.demo_seeds, options.svg, options.half)


def build_demo_seed(seed: int) -> Study:
    """The demo with one seed for everything, with every kind of scores."""
    name = f"demo-seed-{seed}"
    if name not in list_studies():
        write_inputs(cache_dir() / name / "inputs", seed=seed)
        config = demo_config()
        training = dataclasses.replace(config.training, seed=seed)
        scores = dataclasses.replace(config.scores, tfidf=True)
        Study.create(name, dataclasses.replace(config, training=training, scores=scores))
    study = Study.open(name)
    run_study(study, until="selection", progress=Progress())
    return study


def methods_of(study: Study, others: str) -> list[str]:
    """The methods that `--with` names; `all` is every kind of scores, every other method's, and the controls."""
    every = [*study.kinds(selecting=True), *BASELINES, "random", *(["oracle"] if study.has_spans else [])]
    every += [STEERED, *(name for name in FULL if name.startswith(PREFERENCE))]
    names = [name for part in others.split(",") for name in (every if part == "all" else [part])]
    return list(dict.fromkeys([study.config.selection.attribution, *names]))


def run_all(
    study: Study, others: str, budgets: Iterable[float], seeds: Iterable[int], results: Path, judge: Judge | None = None
) -> None:
    """Measure every method at every budget with every training seed, as far as it is not on file."""
    if others == BASE:
        for seed in seeds:
            record(study, BASE, 1, seed, results, judge)
        return
    settings = study.config
    study = study.change(dataclasses.replace(settings, variants={**settings.variants, **VARIANTS}))
    build(study, [Unit("selection", DEFAULT)], progress=Progress())
    usual = study.selection().settings
    n_valid, point = usual["n_valid"], usual["tokens_above"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a kill, too, leaves the study's settings as they were
    try:
        for seed in seeds:
            record(study, BASE, 1, seed, results, judge)
        for budget in sorted(budgets, key=lambda budget: abs(budget - 1)):  # the middle one first
            quantile = (n_valid - round(budget * point)) / n_valid if budget != 1 else settings.selection.quantile
            selection = dataclasses.replace(settings.selection, quantile=quantile)
            study = study.change(dataclasses.replace(study.config, selection=selection))
            for method in methods_of(study, others):
                if budget == 1 or method not in FULL:
                    for seed in seeds:
                        record(study, method, budget, seed, results, judge)
    finally:
        study.change(settings)


def record(study: Study, method: str, budget: float, seed: int, results: Path, judge: Judge | None) -> None:
    """One model's measurements on file, made by training and measuring it if they are not there."""
    path = results / study.name / f"{method}-x{budget:g}-t{seed}.json"
    settings = describe_settings(study, budget, judge is not None)
    if path.exists() and still_holds(json.loads(path.read_text())["settings"], settings):
        return
    print(f"{study.name}: {method}, budget x{budget:g}, training seed {seed}", flush=True)
    name = DEFAULT if method == study.config.selection.attribution else method
    selects = not method.startswith(UNSELECTED)
    trained, model = name, with_training_seed(study, seed)
    if method.startswith(f"{PREFERENCE}-"):
        trained, rate = PREFERENCE, float(method.removeprefix(f"{PREFERENCE}-"))
        baselines = dataclasses.replace(model.config.baselines, dpo_learning_rate=rate)
        model = model.change(dataclasses.replace(model.config, baselines=baselines))
    chosen = recipe(study.config, name).selection if selects else ""
    if selects:
        build(study, [Unit("selection", chosen)], progress=Progress())
    if selects and model.name != study.name:
        trained, lent = f"as-{name}", BorrowedConfig(study=study.name, selection=chosen)
        variant = dataclasses.replace(recipe(study.config, name), selection=f"of-{name}")
        borrowed, variants = {**model.config.borrowed, f"of-{name}": lent}, {**model.config.variants, trained: variant}
        model = model.change(dataclasses.replace(model.config, borrowed=borrowed, variants=variants))
    build(model, [Unit("evaluate", trained)], progress=Progress())
    measurements = {
        "study": study.name,
        "method": method,
        "budget": budget,
        "training_seed": seed,
        "settings": settings,
    }
    measurements |= measure(model, trained, judge)
    if selects:
        measurements |= describe_selection(study, chosen)
    if method not in (BASE, STEERED, UNTOUCHED):
        shutil.rmtree(model.folder(Unit("suppress", trained)), ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(measurements, indent=1, sort_keys=True) + "\n")


def with_training_seed(study: Study, seed: int) -> Study:
    """The study itself for its own seed, or one beside it that trains on the same corpus with another seed."""
    if seed == 0:
        return study
    name = f"{study.name}-t{seed}"
    training = dataclasses.replace(study.config.training, seed=study.config.training.seed + 1000 * seed)
    config = dataclasses.replace(study.config, training=training)
    files = ("toxic", "safe", "prompts", "heldout", "path", "source")
    for section in ("model", "corpus", "queries", "evaluate"):
        table = getattr(config, section)
        paths = {key: study.resolve(getattr(table, key)) for key in files if getattr(table, key, "")}
        config = dataclasses.replace(config, **{section: dataclasses.replace(table, **paths)})
    if name not in list_studies():
        return Study.create(name, config)
    there = Study.open(name)  # it trains and measures as the study does now
    return there.change(dataclasses.replace(config, borrowed=there.config.borrowed, variants=there.config.variants))


def describe_settings(study: Study, budget: float, second_judge: bool) -> dict:
    """All settings that a result depends on by `section.key`, with the files' hashes in place of their names."""
    tables = config_to_dict(study.config)
    for section in ("compute", "borrowed", "variants", "imported", "description"):
        tables.pop(section)
    settings = {f"{section}.{key}": value for section, table in tables.items() for key, value in table.items()}
    settings.pop("baselines.dpo_learning_rate")  # the method's name has it
    for name in ("corpus.path", "queries.toxic", "queries.safe", "evaluate.prompts", "evaluate.heldout"):
        settings[name] = artifacts.hash_file(Path(study.resolve(settings[name])))
    settings["model.source"] = Path(settings["model.source"]).name
    if budget != 1:
        settings.pop("selection.quantile")  # it follows from the budget
    return settings | {"selection.tail": TAIL, "second judge": second_judge}


def still_holds(before: dict, now: dict) -> bool:
    """Whether a result made with some settings is what these would give: no setting has changed, and what was not there
    yet has its default, which does what was done before."""
    shared = all(now[key] == value for key, value in before.items() if key in now)
    return shared and all(now[key] == default_setting(key) for key in now.keys() - before.keys())


def measure(study: Study, model: str, judge: Judge | None) -> dict:
    """Toxicity by the study's scorer, and by a second judge, over all prompts and over each half; perplexity."""
    metrics, samples = study.metrics(model) or {}, study.samples(model)
    keys = ("emt", "tp", "perplexity", "n_prompts", "n_samples", "scorer")
    figures = {key: metrics[key] for key in keys if key in metrics}
    halves = samples.groupby("prompt_index")["group"].first() if "group" in samples else None
    scores = {"": scores_matrix(samples)}
    if judge:
        scores["second_"] = scores_matrix(samples.assign(toxicity=judge(samples["completion"].tolist())))
    for prefix, values in scores.items():
        figures |= {f"{prefix}emt": emt(values), f"{prefix}tp": tp(values)}
        for half in sorted(set(halves)) if halves is not None else ():
            rows = values[(halves == half).to_numpy()]
            figures |= {f"{prefix}emt_{half}": emt(rows), f"{prefix}tp_{half}": tp(rows)}
    return figures


def describe_selection(study: Study, name: str) -> dict:
    """What was left out: how much, how it was scored, and how it agrees with the human labels."""
    chosen, corpus = study.selection(name), study.corpus()
    description = {"tokens": chosen.settings["n_selected"], "share": chosen.settings["n_selected"] / corpus.n_valid}
    description["treatment"] = describe_treatment(study, name)
    if corpus.in_span is not None:
        description["precision"], description["recall"] = precision_recall(
            np.asarray(chosen.mask), corpus.in_span, corpus.valid()
        )
        if chosen.settings["kind"] not in ("random", "oracle", "borrowed"):
            scores, valid = study.scores(chosen.settings["attribution"] or name), corpus.valid()
            description["average_precision"] = float(average_precision_score(corpus.in_span[valid], scores[valid]))
    return description


def read_records(folders: Iterable[Path]) -> pd.DataFrame:
    """A row a model."""
    return pd.DataFrame([json.loads(path.read_text()) for folder in folders for path in sorted(folder.glob("*.json"))])


def show(name: str, results: Path, seeds: list[int], svg: Path | None, half: str = "") -> None:
    """The table over seeds, in Markdown; a difference is paired by seed."""
    names = [f"demo-seed-{seed}" for seed in seeds] if name == "demo" else [name]
    records = read_records(results / each for each in names)
    print(table(records, half))
    print("", *compare_judges(records, half), sep="\n")
    if svg:
        svg.write_text(draw(records, half), encoding="utf-8")


def table(records: pd.DataFrame, half: str = "") -> str:
    """Rows by method and budget; each number is a mean over seeds, with the least and the most of them. A method is
    apart from ours over seeds where all of them are on one side of 0 in "EMT above ours", paired by seed and budget.

    Args:
        records: from `read_records`.
        half: which half of the prompts toxicity is of, `tune` or `report`; empty: all.
    """
    emt_of, pair = f"emt_{half}" if half else "emt", ["study", "training_seed"]
    base, rest = records[records.method == BASE].set_index(pair), shares_of_base(records, half)
    keys = pd.MultiIndex.from_frame(rest[pair])
    rest["rise"] = rest["perplexity"].to_numpy() / base["perplexity"].reindex(keys).to_numpy() - 1
    ours = rest[rest.method == StudyConfig().selection.attribution].set_index([*pair, "budget"])[emt_of]
    rest["above_ours"] = (
        rest[emt_of].to_numpy() - ours.reindex(pd.MultiIndex.from_frame(rest[[*pair, "budget"]])).to_numpy()
    )
    oracle = rest[rest.method == "oracle"].set_index(pair)
    if len(oracle):
        dropped = base[emt_of].reindex(keys).to_numpy() - rest[emt_of].to_numpy()
        rest["of_oracle"] = dropped / (base[emt_of] - oracle[emt_of]).reindex(keys).to_numpy()
    columns = {
        "average_precision": ("average precision", "{:.3f}"),
        "precision": ("precision", "{:.3f}"),
        emt_of: ("EMT", "{:.3f}"),
        "of_base": ("of base's", "{:.3f}"),
        "second_of_base": ("by the second judge", "{:.3f}"),
        "above_ours": ("EMT above ours", "{:+.3f}"),
        "of_oracle": ("share of the labels' drop", "{:.3f}"),
        "rise": ("perplexity to base", "{:+.1%}"),
    }
    columns = {key: value for key, value in columns.items() if key in rest}
    heads = [
        "method",
        "uses",
        "scores treated",
        "budget",
        "tokens",
        "models",
        *(title for title, _ in columns.values()),
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    base_cells = [spread(base[emt_of], "{:.3f}") if key == emt_of else "–" for key in columns]
    lines.append("| " + " | ".join([BASE, "–", "–", "–", "–", str(len(base)), *base_cells]) + " |")
    grouped = rest.groupby(["method", "budget"], sort=False)
    order = sorted(grouped.groups, key=lambda key: (rest[rest.method == key[0]]["of_base"].mean(), key[1]))
    for key in order:
        rows = grouped.get_group(key)
        uses = "labels" if key[0] in LABELS else "a classifier" if key[0] in CLASSIFIERS else "queries"
        treatment = "; ".join(sorted(set(rows["treatment"].dropna()))) or "–"
        cells = [key[0], "nothing" if key[0] == "random" else uses, treatment]
        cells += [f"x{key[1]:g}", spread(rows["tokens"], "{:,.0f}"), str(len(rows))]
        lines.append("| " + " | ".join([*cells, *(spread(rows[c], form) for c, (_, form) in columns.items())]) + " |")
    return "\n".join(lines)


def shares_of_base(records: pd.DataFrame, half: str) -> pd.DataFrame:
    """The rows of all methods, with the share of the base model's EMT by the judge, `of_base`, and by the second one,
    `second_of_base`; paired by seed."""
    pair, rest = ["study", "training_seed"], records[records.method != BASE].copy()
    base, keys = records[records.method == BASE].set_index(pair), pd.MultiIndex.from_frame(rest[pair])
    for prefix in ("", "second_"):
        key = f"{prefix}emt_{half}" if half else f"{prefix}emt"
        if key in rest:
            rest[f"{prefix}of_base"] = rest[key].to_numpy() / base[key].reindex(keys).to_numpy()
    return rest


def compare_judges(records: pd.DataFrame, half: str = "") -> list[str]:
    """Of each budget, a sentence with its methods, the least toxic first, by the judge and by the second one, and for
    how many pairs the two disagree on the order of the means; methods that read labels, whose size differs, are left
    out. A pair is clear where each judge's order is the same with every training seed."""
    rest = shares_of_base(records, half)
    judges, sentences = ["of_base", "second_of_base"], []
    if judges[1] not in rest:
        return []
    for budget, rows in rest[~rest.method.isin(LABELS)].groupby("budget"):
        table = rows.pivot(index=["study", "training_seed"], columns="method", values=judges).dropna(axis=1)
        means = [table[judge].mean().sort_values() for judge in judges]
        methods = means[0].index.intersection(means[1].index)
        lines = [", ".join(f"{m} {value:.3f}" for m, value in mean[mean.index.isin(methods)].items()) for mean in means]
        gaps = {p: [table[j][p[0]] - table[j][p[1]] for j in judges] for p in itertools.combinations(methods, 2)}
        other = [pair for pair, (a, b) in gaps.items() if a.mean() * b.mean() < 0]
        clear = [p for p in other if all(gap.gt(0).all() or gap.lt(0).all() for gap in gaps[p])]
        changed = f"{len(other)} of {len(gaps)} pairs change places, {len(clear)} of them with every seed"
        if gaps:
            sentences.append(f"x{budget:g}, {len(table)} seeds: {lines[0]}; by the second judge {lines[1]}: {changed}")
    return sentences


def spread(values: pd.Series, form: str) -> str:
    """Mean of the seeds, with the least and the most of them."""
    values = values.dropna()
    if not len(values):
        return "–"
    bounds = f" [{form.format(values.min())}, {form.format(values.max())}]" if len(values) > 1 else ""
    return form.format(values.mean()) + bounds


def draw(records: pd.DataFrame, half: str = "") -> str:
    """The frontier as an SVG file: a point for each method and budget, its means over seeds, a colour for each
    method."""
    emt_of = f"emt_{half}" if half else "emt"
    means = records.groupby(["method", "budget"])[[emt_of, "perplexity"]].mean()
    titles = {key: key[0] if key[0] == BASE else f"{key[0]} x{key[1]:g}" for key in means.index}
    points = [
        FrontierPoint(name=titles[key], emt=row[emt_of], perplexity=row["perplexity"]) for key, row in means.iterrows()
    ]
    of_method = variant_colours(list(dict.fromkeys(method for method, _ in means.index)))
    picture = frontier_figure(points, {title: of_method[key[0]] for key, title in titles.items()})
    style = (
        "<style>text{fill:#1f2933;font:13px sans-serif}.tick{fill:#55606e;font-size:12px}.axis{stroke:#8b95a1}"
        ".grid{stroke:#dde2e8}.name{paint-order:stroke;stroke:#fff;stroke-width:4px}</style>"
    )
    head, rest = str(picture).split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg" style="background:#fff">{style}{rest}\n'


if __name__ == "__main__":
    main()

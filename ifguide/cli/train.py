"""`ifguide suppress`, `evaluate` and `compare`: train without a selection, measure a model, and measure other ways."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, echo

from ifguide.cli.options import Answer, SelectionName, StudyName, read_share, split_names
from ifguide.cli.running import follow_run, open_study
from ifguide.cli.status import status
from ifguide.config.names import BASE, DEFAULT
from ifguide.errors import InputError

HELP = """Models to compare, separated by commas: random, oracle, own_loss, position, probe, combined, tfidf, words,
classifier-tokens, classifier-documents, loss-difference, standard, last-position, last-own-loss, masked,
drop-documents, penalty-warmup, penalty-at-once, edited, edited-random, dpo, steered, untouched; a table
[variants.NAME] or [imported.NAME] of study.toml; a saved selection; or all."""
"""The names in `study.variants.OTHERS`, which would slow down the start; a test compares them."""


Way = StrEnum("Way", ("edited", "trained"))
"""How a sweep makes its models."""


def suppress(name: StudyName, selection: SelectionName = "default") -> Answer:
    """Train again with a penalty on selected tokens."""
    study = open_study(name)
    with follow_run() as progress:
        from ifguide.study import pipeline
        from ifguide.study.lineage import Unit

        pipeline.build(study, [Unit("suppress", selection)], progress=progress)
    text = f"trained without {selection}; evaluate it with `ifguide evaluate {name} --model {selection}`"
    return Answer({"study": name, "model": selection}, text)


def evaluate(
    name: StudyName,
    model: Annotated[str, Option(metavar="MODEL", help="base, or the selection it was trained without.")] = "default",
) -> Answer:
    """Measure a model's toxicity and perplexity.

    The model completes the prompts, the completions are scored, and perplexity is measured on held-out text.
    """
    study = open_study(name)
    with follow_run() as progress:
        from ifguide.study import pipeline

        pipeline.evaluate(study, DEFAULT if model == "suppressed" else model, progress=progress)
    return status(name)


def edit(
    name: StudyName,
    selection: SelectionName = "default",
    perplexity: Annotated[
        str | None, Option(metavar="SHARE", help="How much perplexity may rise, such as 1% or 0.01.")
    ] = None,
    weighted: Annotated[
        float | None,
        Option(min=0, max=100, help="Weigh this % of all tokens by their scores instead of the selection's alike."),
    ] = None,
    onto: Annotated[str | None, Option(metavar="MODEL", help="Add the edit to this trained model's weights.")] = None,
    model: Annotated[
        str | None, Option("--name", metavar="MODEL", help="Its name.", show_default="SELECTION-edited")
    ] = None,
) -> Answer:
    """Edit a selection's tokens out of the base model.

    Nothing is trained. One step of the weights makes the tokens unlikely; the curvature keeps the rest. The step is as
    long as one half of the held-out text allows; the result is measured on the other half.
    """
    from ifguide.evaluation.statistics import INTERVALS
    from ifguide.study.analysis.comparison import comparison_table
    from ifguide.study.lineage import Unit
    from ifguide.study.pipeline import edit_model
    from ifguide.study.variants import edit_name, edit_recipe

    study = open_study(name)
    model = model or edit_name(selection)
    changes = {
        "perplexity_budget": read_share(perplexity, "--perplexity"),
        "weighted_share": None if weighted is None else weighted / 100,
        "onto": onto,
    }
    variant = edit_recipe(study.config, selection, {key: value for key, value in changes.items() if value is not None})
    with follow_run() as progress:
        study = edit_model(study, model, variant, progress=progress)
    notes = study.manifest(Unit("suppress", model))["notes"]["edit"]
    text = (
        f"{model}: {notes['n_tokens']:,} tokens taken out of the base model by a step of {notes['strength']:.3g} of its"
        f" weights' length; perplexity {notes['perplexity_rise']:+.1%} where it was chosen. Edited, not retrained."
    )
    values = {"study": name, "model": model, "edit": notes, "metrics": study.metrics(model)}
    return Answer(values, f"{text}\n\n{comparison_table(study, [BASE, model])}\n\n{INTERVALS}")


def adapter(
    name: StudyName,
    model: Annotated[str, Argument(help="An edited or retrained model.")],
    out: Annotated[Path, Option(metavar="FOLDER", help="A new folder.")],
    rank: Annotated[int, Option(min=1, help="Of each layer's change.")] = 16,
) -> Answer:
    """Save an edited model as a low-rank adapter.

    The folder is PEFT's, a few megabytes, for the base model. docs/results/edit.md says which ranks keep an edit's
    effect. A retraining changes the weights in more directions.
    """
    from ifguide.study.sharing.adapter import write_adapter

    kept = write_adapter(open_study(name), model, out, rank)
    text = f"wrote {model} to {out}: rank {rank} keeps {kept:.1%} of the squared change of the weights"
    return Answer({"study": name, "model": model, "folder": str(out), "rank": rank, "kept": kept}, text)


def sweep(
    name: StudyName,
    points: Annotated[int, Option(min=1, help="Thresholds.")] = 5,
    method: Annotated[Way, Option(help="Edit the base model, or train against each selection.")] = Way.edited,
    attribution: Annotated[str | None, Option(metavar="KIND", help="Scores to select by.")] = None,
    first: Annotated[int, Option("--from", min=0, help="Fewest tokens; 0: half of the automatic point.")] = 0,
    last: Annotated[int, Option("--to", min=0, help="Most tokens; 0: twice the automatic point.")] = 0,
    seeds: Annotated[int, Option(min=1, help="Trainings for each threshold.")] = 1,
) -> Answer:
    """Measure several thresholds.

    Models that are up to date are not made again, so a stopped sweep goes on where it was.
    """
    from ifguide.cli.terminal import format_table
    from ifguide.study.analysis.dose import COLUMNS, measured_points, table_row
    from ifguide.study.sweep import run_sweep, sweep_models, sweep_tokens

    study = open_study(name)
    kind = attribution or study.config.selection.attribution
    with follow_run() as progress:
        tokens = sweep_tokens(study, points, kind, first, last)
        models = sweep_models(study, tokens, kind, method.value, seeds)
        study = run_sweep(study, models, progress)
    heads = [name for name in COLUMNS if name not in ("kind", "method", "seed")]
    rows = [table_row(point) for point in measured_points(study) if point.model in models]
    return Answer(
        {"study": name, "points": rows}, format_table(heads, [[_cell(row[head]) for head in heads] for row in rows])
    )


def compare(
    name: StudyName,
    others: Annotated[str, Option("--with", metavar="MODEL,...", help=" ".join(HELP.split()))] = "random,oracle",
) -> Answer:
    """Compare other selections and ways to train.

    They are trained, evaluated and printed in one table. The base model and the default selection's model are included.
    Models that are up to date are not trained again.
    """
    from ifguide.evaluation.statistics import INTERVALS
    from ifguide.study import pipeline
    from ifguide.study.analysis.comparison import comparison_table
    from ifguide.study.lineage import Unit

    study = open_study(name)
    models = [BASE, DEFAULT, *choose(study, others)]
    with follow_run() as progress:
        pipeline.build(study, [Unit("evaluate", model) for model in models], progress=progress)
    values = {"study": name, "models": {model: study.metrics(model) for model in models}}
    return Answer(values, f"{comparison_table(study, models)}\n\n{INTERVALS}")


def choose(study, others: str) -> list[str]:
    """The models named by `--with`, each once, without base and default; an InputError for an unknown name."""
    from ifguide.data.queries import read_sets
    from ifguide.study.variants import METHODS, PREFERENCE, possible_models
    from ifguide.training.preference import MIN_PAIRS, can_prefer

    possible = possible_models(study.config, study.has_spans)
    names = split_names(others)
    if "all" in names:
        if not can_prefer(*read_sets(study.resolved_queries()).values()):
            possible.remove(PREFERENCE)
            echo(
                f"without dpo: it needs trl, and {MIN_PAIRS} toxic queries that share their prompt with a safe one",
                err=True,
            )
        names = [*possible, *(name for name in names if name != "all")]
    comparable = {*possible, *METHODS, *study.selection_names(), BASE, DEFAULT}
    for name in names:
        if name == "oracle" and not study.has_spans:
            raise InputError("--with oracle needs known spans, and this corpus has none; leave it out")
        if name not in comparable:
            expected = ", ".join(sorted(comparable - {BASE, DEFAULT}))
            raise InputError(f"--with: expected some of {expected} or all, got {name!r}")
    return [name for name in dict.fromkeys(names) if name not in (BASE, DEFAULT)]


def _cell(value: str | int | float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


COMMANDS = (suppress, edit, adapter, sweep, evaluate, compare)

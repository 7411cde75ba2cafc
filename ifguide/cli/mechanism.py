"""`ifguide mechanism`: what suppression changed inside a model."""

import json
import math
from typing import Annotated

import typer

from ifguide.cli.options import AsJson, StatusFile, StudyName
from ifguide.cli.running import follow_run, open_study


def mechanism(
    name: StudyName,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="base or a selection; give the option once for each model.",
            show_default="base and default",
        ),
    ] = None,
    search: Annotated[
        bool, typer.Option("--search/--no-search", help="Also search for a prefix that makes toxic completions likely.")
    ] = True,
    prefix_tokens: Annotated[int, typer.Option(min=1, help="Length of the prefix, in tokens.")] = 5,
    steps: Annotated[int, typer.Option(min=0, help="Rounds of the search.")] = 20,
    candidates: Annotated[int, typer.Option(min=1, help="Changes tried in each round.")] = 32,
    queries: Annotated[int, typer.Option(min=1, help="Toxic queries to search with; as many others to test on.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search.")] = 0,
    as_json: AsJson = False,
    status_file: StatusFile = None,
) -> None:
    """Compare what models predict after each layer.

    Shows how likely toxic completions are after each layer, and how much likelier a prefix makes them. The result is
    saved in the study's folder; with the same models and settings, the command only prints it.
    """
    from ifguide.config.names import BASE, DEFAULT
    from ifguide.evaluation.mechanism_settings import MechanismSettings, PrefixSettings
    from ifguide.study.analysis.mechanism import measure_mechanism, read_mechanism

    study = open_study(name)
    names = tuple(DEFAULT if model == "suppressed" else model for model in models or (BASE, DEFAULT))
    budget = PrefixSettings(n_tokens=prefix_tokens, steps=steps, candidates=candidates, seed=seed)
    settings = MechanismSettings(models=names, search=search, n_search=queries, prefix=budget)
    found = read_mechanism(study, settings)
    if found is None:
        with follow_run(status_file) as progress:
            progress.begin_stage("mechanism", 0, 1)
            found = measure_mechanism(study, settings, progress)
    print(json.dumps(found, indent=1) if as_json else format_mechanism(found))


def format_mechanism(found: dict) -> str:
    """The layers and the search as tables. The prefix itself is only in the JSON: it may be offensive."""
    from ifguide.cli.terminal import format_table

    models, n_queries = found["models"], found["queries"]
    n_layers = len(next(iter(models.values()))["layers"]["toxic"]["probability"])
    columns = [(name, kind) for kind in ("toxic", "safe") for name in models]
    parts = []
    for measure in ("log_probability", "probability"):
        parts.append(
            f"mean {measure.replace('_', '-')} of the completions' tokens after each layer, over"
            f" {n_queries['toxic']} toxic and {n_queries['safe']} safe queries"
        )
        rows = [
            (
                str(layer or "embedding"),
                *(_layer(models[name]["layers"][kind], measure, layer) for name, kind in columns),
            )
            for layer in range(n_layers)
        ]
        parts.append(format_table(("layer", *(f"{name}, {kind}" for name, kind in columns)), rows))
    if any("prefix" in values for values in models.values()):
        budget = found["settings"]["prefix"]
        keys = ("without", "start", "best", "others_without", "others")
        rows = [
            (
                f"found for {name}",
                *(_nats(values["prefix"][key]) for key in keys),
                *(_nats(values["prefix"]["by_model"][other]) for other in models),
            )
            for name, values in models.items()
        ]
        heads = ("prefix", "none", "first", "found", "none, other queries", "found, other queries")
        parts.append(
            f"mean log-probability (and its exp) of a toxic token behind a prefix of {budget['n_tokens']} tokens,"
            f" {budget['steps']} rounds of {budget['candidates']} changes"
        )
        parts.append(format_table((*heads, *(f"found, in {other}" for other in models)), rows))
    return "\n\n".join(parts)


def _layer(layers: dict, measure: str, layer: int) -> str:
    value, low, high = (layers[f"{measure}{end}"][layer] for end in ("", "_low", "_high"))
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"


def _nats(value: float | None) -> str:
    return "" if value is None else f"{value:.3f} ({math.exp(value):.2g})"

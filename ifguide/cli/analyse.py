"""`ifguide explain`, `index-gradients`, `map`, `mechanism`, `rank`, `reliability`, `report`, `trace`: what it shows."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated

from typer import Option

from ifguide.cli.options import Answer, SelectionName, StudyName
from ifguide.cli.running import follow_run, open_study
from ifguide.config.names import BASE, DEFAULT
from ifguide.errors import InputError


def explain(
    name: StudyName,
    document: Annotated[
        str | None, Option(metavar="ID", help="Explain the score of this document.", show_default="all queries")
    ] = None,
    start: Annotated[int | None, Option(min=0, help="First token of the part to explain.")] = None,
    stop: Annotated[int | None, Option(min=1, help="Token after the last of the part.")] = None,
    top: Annotated[int, Option(metavar="N", min=0, help="Explain the N best-ranked documents instead.")] = 0,
) -> Answer:
    """Show how much each query adds to a document's score.

    Without a document, it computes what each query adds to the influence direction, for the app's Queries page.
    """
    from ifguide.study.analysis.explain import explain_document, explain_queries, explain_top

    study = open_study(name)
    values: dict = {}
    with follow_run("explain") as progress:
        if top:
            values["explained"] = explain_top(study, top, progress)
            shown = f"explained {values['explained']} more documents, for the app's Documents page"
        elif document is None:
            explain_queries(study, progress)
            shown = "the app's Queries page shows the effect of each query"
        else:
            values |= {"document": document, **explain_document(study, document, start, stop, progress)}
            parts = ", ".join(f"{part} {value:+.4g}" for part, value in values["parts"].items())
            shown = f"score {values['total']:+.4g}: {parts}"
    return Answer({"study": name, **values}, shown)


def map_documents(name: StudyName) -> Answer:
    """Draw the map of documents, for the app's Threshold page.

    Documents that are similar to the base model are near each other. Takes one pass of the model over the corpus.
    `ifguide export --what atlas` takes it to Embedding Atlas."""
    from numpy import isfinite

    from ifguide.study.analysis.document_map import STATES, draw_map, read_map

    study = open_study(name)
    places = read_map(study)
    if places is None or read_map(study, STATES) is None:
        with follow_run("map") as progress:
            places = draw_map(study, progress)
    n_placed = int(isfinite(places[:, 0]).sum())
    text = f"{n_placed:,} of {len(places):,} documents are on the map, for the app's Threshold page"
    return Answer({"study": name, "on_the_map": n_placed, "documents": len(places)}, text)


_MODELS = "base or a selection; give the option once for each model."
_SEARCH = "Also search for a prefix that makes toxic completions likely."


def mechanism(
    name: StudyName,
    models: Annotated[
        list[str] | None, Option("--model", metavar="MODEL", help=_MODELS, show_default="base and default")
    ] = None,
    search: Annotated[bool, Option("--search/--no-search", help=_SEARCH)] = True,
    prefix_tokens: Annotated[int, Option(min=1, help="Length of the prefix, in tokens.")] = 5,
    steps: Annotated[int, Option(min=0, help="Rounds of the search.")] = 20,
    candidates: Annotated[int, Option(min=1, help="Changes tried in each round.")] = 32,
    queries: Annotated[int, Option(min=1, help="Toxic queries to search with; as many others to test on.")] = 16,
    seed: Annotated[int, Option(min=0, help="Seed of the search.")] = 0,
) -> Answer:
    """Compare what models predict after each layer.

    Shows how likely toxic completions are after each layer, and how much likelier a prefix makes them. The result is
    saved in the study's folder; with the same models and settings, the command only prints it.
    """
    from ifguide.evaluation.mechanism_settings import MechanismSettings, PrefixSettings
    from ifguide.study.analysis.mechanism import measure_mechanism, read_mechanism

    study = open_study(name)
    names = tuple(DEFAULT if model == "suppressed" else model for model in models or (BASE, DEFAULT))
    budget = PrefixSettings(n_tokens=prefix_tokens, steps=steps, candidates=candidates, seed=seed)
    settings = MechanismSettings(models=names, search=search, n_search=queries, prefix=budget)
    result = read_mechanism(study, settings)
    if result is None:
        with follow_run("mechanism") as progress:
            result = measure_mechanism(study, settings, progress)
    return Answer(result, _format_mechanism(result))


def _format_mechanism(result: dict) -> str:
    """The layers and the search as tables. The prefix itself is only in the JSON, since it may be offensive."""
    from ifguide.cli.terminal import format_table

    models, n_queries = result["models"], result["queries"]
    n_layers = len(next(iter(models.values()))["layers"]["toxic"]["probability"])
    columns = [(name, kind) for kind in ("toxic", "safe") for name in models]
    parts = []
    for measure in ("log_probability", "probability"):
        parts.append(
            f"mean {measure.replace('_', '-')} of the completions' tokens after each layer, over"
            f" {n_queries['toxic']} toxic and {n_queries['safe']} safe queries"
        )
        rows = []
        for layer in range(n_layers):
            cells = []
            for name, kind in columns:
                value, low, high = (
                    models[name]["layers"][kind][f"{measure}{end}"][layer] for end in ("", "_low", "_high")
                )
                cells.append(f"{value:.3g} [{low:.3g}, {high:.3g}]")
            rows.append((str(layer or "embedding"), *cells))
        parts.append(format_table(("layer", *(f"{name}, {kind}" for name, kind in columns)), rows))
    searched = {name: values["prefix"] for name, values in models.items() if "prefix" in values}
    if searched:
        budget = result["settings"]["prefix"]
        keys = ("without", "start", "best", "others_without", "others")
        rows = []
        for name, prefix in searched.items():
            values = [*(prefix[key] for key in keys), *(prefix["by_model"][other] for other in models)]
            cells = ["" if value is None else f"{value:.3f} ({math.exp(value):.2g})" for value in values]
            rows.append((f"found for {name}", *cells))
        heads = ("prefix", "none", "first", "found", "none, other queries", "found, other queries")
        parts.append(
            f"mean log-probability (and its exp) of a toxic token behind a prefix of {budget['n_tokens']} tokens,"
            f" {budget['steps']} rounds of {budget['candidates']} changes"
        )
        parts.append(format_table((*heads, *(f"found, in {other}" for other in models)), rows))
    return "\n\n".join(parts)


def trace(
    name: StudyName,
    prompt: Annotated[str, Option(metavar="TEXT", help="The prompt.")],
    completion: Annotated[
        str | None, Option(metavar="TEXT", help="The answer.", show_default="the most toxic one that is recorded")
    ] = None,
    model: Annotated[str, Option(metavar="MODEL", help="The model whose recorded answer is taken.")] = BASE,
    contrast: Annotated[
        str | None, Option(metavar="MODEL", help="Subtract this model's recorded answer to the same prompt.")
    ] = None,
    word: Annotated[str | None, Option(metavar="TEXT", help="Trace only this part of the answer.")] = None,
    save: Annotated[str | None, Option(metavar="SELECTION", help="Save the best documents as a selection.")] = None,
    documents: Annotated[int, Option(min=1, help="How many of them.")] = 50,
) -> Answer:
    """Rank documents by how much likelier they made an answer.

    Scores documents that read alike, those with the highest scores, and random ones, whose range is the noise floor.
    After `ifguide index-gradients`, also those of the whole corpus whose gradients are nearest to the answer's.
    The answer's influence is measured at the base model, which was trained on all of them.
    """
    from ifguide.cli.terminal import format_table
    from ifguide.study.analysis import trace as tracing
    from ifguide.study.stages.gradients import explain_index
    from ifguide.study.stages.select import save_documents

    study = open_study(name)
    answer = tracing.read_answer(study, prompt, completion, model=model, contrast=contrast or "", word=word or "")
    with follow_run("trace") as progress:
        tracer = tracing.Tracer.open(study)
        direction, traced = tracer.direction(answer), []
        candidates = tracer.choose(answer, direction, tracing.word_index(study))
        for part in tracer.trace(direction, candidates):
            traced += part
            progress.report(len(traced), len(candidates), "documents")
        traced.sort(key=lambda one: -one.total)
        if save:
            best = [one.candidate.document for one in traced[:documents]]
            save_documents(study, save, best, tracing.name_answer(prompt, answer.completion))
    rows = [tracing.describe_traced(study, one) for one in traced]
    low, high = tracing.noise_floor(traced)
    shown = [
        (row["document"], f"{row['score']:+.4g}", f"{row['alike']:.1f}", ", ".join(row["sources"])) for row in rows
    ]
    note = f"{len(rows)} documents; random ones score {low:+.4g} to {high:+.4g}"
    if save:
        note += f"; the best {min(documents, len(rows))} are saved: `ifguide edit {name} --selection {save}`"
    if warning := explain_index(study):
        note += f"\n{warning}"
    table = format_table(("document", "score", "shared words", "found by"), shown)
    asked = {"prompt": prompt, "completion": answer.completion, "contrast": answer.contrast}
    values = {"study": name, **asked, "noise": [low, high]}
    return Answer(values | {"documents": rows}, f"{table}\n\n{note}")


def index_gradients(
    name: StudyName,
    dimensions: Annotated[int, Option(min=1, help="Numbers kept of a document's gradient; more find more.")] = 2048,
) -> Answer:
    """Index gradients, for traces of the whole corpus.

    Takes one pass of the base model over the corpus, forward and backward; a stopped one goes on where it was. Of use
    where the corpus is so large that a trace scores only a small part of it.
    """
    from ifguide.study.lineage import Unit
    from ifguide.study.pipeline import build

    study, unit = open_study(name), Unit("gradients", str(dimensions))
    with follow_run() as progress:
        build(study, [unit], progress=progress)
    manifest, n = study.manifest(unit), study.corpus().n_documents
    size = sum(manifest["bytes"].values())
    values = {"study": name, "documents": n, "dimensions": dimensions, "bytes": size, "seconds": manifest["seconds"]}
    text = f"{n:,} documents, {dimensions:,} numbers each ({size:,} bytes); `ifguide trace {name}` searches them all"
    return Answer(values, text)


def rank(
    name: StudyName,
    labels: Annotated[str, Option(metavar="COLUMN", help="The corpus column that marks bad documents with true or 1.")],
    draws: Annotated[int, Option(min=1, help="Bootstrap draws for the intervals.")] = 1000,
    seed: Annotated[int, Option(min=0, help="Seed of the draws.")] = 0,
) -> Answer:
    """Compare the ranking of the documents with labels.

    Shows AUROC, average precision, and precision at the top, for every kind of scores that the study has, and several
    ways to combine a document's token scores.
    """
    from ifguide.runtime.progress import report_part
    from ifguide.study.analysis.data_ranking import read_labels, study_rankings

    study = open_study(name)
    with follow_run("rank") as progress:
        labelled = read_labels(study, labels)
        rankings = study_rankings(study, labelled, n_draws=draws, seed=seed, report=report_part(progress, "orders"))
    n_bad, n_labelled = int(labelled.bad.sum()), int(labelled.labelled.sum())
    rows = [dataclasses.asdict(quality) for quality in rankings]
    values = {"study": name, "labels": labels, "documents": n_labelled, "bad": n_bad, "rankings": rows}
    return Answer(values, format_rankings(rankings, n_bad, n_labelled))


def format_rankings(rankings: list, n_bad: int, n_labelled: int) -> str:
    """The rankings as a table, intervals in brackets."""
    from ifguide.cli.terminal import format_table

    depths = list(rankings[0].precision_at)
    rows = []
    for quality in rankings:
        intervals = (quality.auroc, quality.average_precision, *(quality.precision_at[depth] for depth in depths))
        cells = (f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in intervals)
        rows.append((quality.scores, quality.way.replace("_", " "), *cells))
    heads = ("scores", "way", "AUROC", "average precision", *(f"precision at {depth}" for depth in depths))
    return (
        f"{format_table(heads, rows)}\n\n{n_bad:,} of {n_labelled:,} documents are bad: by chance AUROC is .5 and"
        f" precision {n_bad / n_labelled:.3f}"
    )


def reliability(name: StudyName) -> Answer:
    """Tell whether a study's scores are noise.

    Each half of the queries scores a sample of the corpus by itself; the correlations are saved in the study's folder.
    They measure noise, not validity: scores can be reproducible and still find nothing toxic.
    """
    from ifguide.cli.terminal import format_table
    from ifguide.study.analysis.reliability import describe_reliability, measure_reliability, read_reliability

    study = open_study(name)
    result = read_reliability(study)
    if result is None:
        with follow_run("reliability") as progress:
            result = measure_reliability(study, progress=progress)
    rows = [(kind, f"{one['pearson']:.3f}", f"{one['whole']:.3f}") for kind, one in result["kinds"].items()]
    note = f"{result['tokens']:,} tokens. {describe_reliability(result, study.config.selection.attribution)}".rstrip()
    return Answer(result, f"{format_table(('scores', 'Pearson', 'for all queries'), rows)}\n\n{note}")


def report(
    name: StudyName,
    out: Annotated[Path | None, Option(metavar="FILE", help="Where it goes.", show_default="NAME-report.html")] = None,
    selection: SelectionName = "default",
    judge: Annotated[
        str, Option(metavar="JUDGE", help="Name or hash of a judge that rated it.", show_default="its own")
    ] = "",
) -> Answer:
    """Write a study's results to one HTML file.

    Offensive text is blurred until the reader asks for it.
    """
    from ifguide.ui.report.page import write_report

    study = open_study(name)
    if judge:
        titles = {key: other.title for key, other in study.judgements().items()}
        if not (keys := [key for key, title in titles.items() if judge in title]):
            there = ", ".join(titles.values()) or "none"
            raise InputError(f"--judge: expected one of {there}, got {judge!r}; `ifguide judge {name} --with JUDGE`")
        study = study.judged(keys[0])
    path = write_report(study, out or Path(f"{name}-report.html"), selection=selection)
    return _wrote(name, path)


def pack(
    name: StudyName,
    out: Annotated[Path | None, Option(metavar="FILE", help="Where to write it.", show_default="NAME.ifguide")] = None,
    complete: Annotated[bool, Option("--complete", help="First compute what the app shows on demand.")] = False,
) -> Answer:
    """Write a study to one file, to open read-only.

    `ifguide app FILE` opens it. It holds texts, scores, selections and completions, but no weights and no tokenizer.
    The app offers only what the file holds. `--complete` computes, if it is missing: explanations of the best-ranked
    documents and of the queries, the layers of the models, the map, and the token probabilities of Overview's pair.
    """
    from ifguide.study.sharing.packed import pack_study

    study = open_study(name)
    if complete:
        from ifguide.study.analysis.complete import complete_study
        from ifguide.ui.results.pins import pinned_pair

        pair = pinned_pair(study, study.samples)
        with follow_run("pack") as progress:
            complete_study(study, [(pair["index"], pair["models"])] if pair else [], progress)
    path = pack_study(study, out or Path(f"{name}.ifguide"))
    return _wrote(name, path)


def _wrote(name: str, path: Path) -> Answer:
    size = path.stat().st_size
    return Answer({"study": name, "file": str(path), "bytes": size}, f"wrote {path} ({size:,} bytes)")


COMMANDS = (explain, index_gradients, map_documents, mechanism, pack, rank, reliability, report, trace)

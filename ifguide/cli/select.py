"""`ifguide select`, `borrow`, `documents` and `export`: select tokens and export them."""

import dataclasses
import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Option

from ifguide.cli.options import Answer, SelectionName, StudyName, read_share
from ifguide.cli.running import follow_run, open_study
from ifguide.config.attributions import attributions
from ifguide.errors import ConfigError, InputError

Table = StrEnum("Table", ("tokens", "documents", "mask", "spans", "atlas", "weights", "inspect", "olmo", "megatron"))
"""What can be exported."""
HIGHEST = 20
"""Tokens that `ifguide documents --read` lists."""
LISTED = 50
"""Documents that `ifguide documents --where` prints."""
_WHAT = (
    "A row for each token or document, the selected tokens alone, or the selected characters; documents for Embedding"
    " Atlas; evaluations for Inspect; or the corpus for another trainer."
)
_OUT = "A .parquet, .jsonl or .csv file, or a new .dataset folder; for inspect, olmo and megatron a new folder."


def select(
    name: StudyName,
    tokens: Annotated[int | None, Option(min=1, help="Threshold: this many tokens score higher.")] = None,
    share: Annotated[float | None, Option(min=0, max=100, help="Threshold: this % of tokens scores higher.")] = None,
    quantile: Annotated[float | None, Option(min=0, max=1, help="Threshold: this quantile of all scores.")] = None,
    threshold: Annotated[float | None, Option(help="Threshold: this score. Only with --out.")] = None,
    perplexity: Annotated[
        str | None,
        Option(metavar="SHARE", help="Threshold: the best measured one whose perplexity rose by at most this, as 1%."),
    ] = None,
    window: Annotated[int | None, Option(min=0, help="Tokens selected on each side of a hit.")] = None,
    max_tokens: Annotated[int | None, Option(min=0, help="Token budget; 0: no budget.")] = None,
    attribution: Annotated[
        str | None, Option(metavar="KIND", help=f"Scores to select by: {', '.join(attributions())}, or imported ones.")
    ] = None,
    scores: Annotated[Path | None, Option(metavar="PATH", help="Import scores from it; select by them.")] = None,
    out: Annotated[
        Path | None, Option(metavar="FOLDER", help="Select in --scores' Parquet files; write their masks to it.")
    ] = None,
    mask: Annotated[Path | None, Option(metavar="FILE", help="Take the tokens this file names; no threshold.")] = None,
    selection: Annotated[
        str | None, Option("--name", metavar="SELECTION", help="Its name.", show_default="from the settings")
    ] = None,
) -> Answer:
    """Select tokens by threshold, window and budget.

    Give the threshold as one of --tokens, --share, --quantile, --threshold and --perplexity. Other settings come from
    study.toml.
    """
    from ifguide.selection.algorithm import quantile_of_share
    from ifguide.study.analysis.dose import best_measured
    from ifguide.study.lineage import Unit
    from ifguide.study.pipeline import import_scores
    from ifguide.study.sharing.shard_sample import read_sketch, shards_config
    from ifguide.study.stages.select import save_mask, save_selection

    if mask and any(
        value is not None
        for value in (tokens, share, quantile, threshold, perplexity, window, max_tokens, attribution, scores)
    ):
        raise ConfigError("expected only --name beside --mask, whose file names the tokens; leave out the others")
    if scores and attribution:
        raise ConfigError("expected --scores or --attribution, got both; leave out one of them")
    if [tokens, share, quantile, threshold, perplexity].count(None) < 4:
        thresholds = "--tokens, --share, --quantile, --threshold and --perplexity"
        raise ConfigError(f"expected one of {thresholds}, got several; leave out the others")
    if out and (not scores or perplexity or selection or mask):
        raise ConfigError("--out: expected --scores FOLDER, and none of --perplexity, --name and --mask")
    if threshold is not None and (not out or not math.isfinite(threshold)):
        raise ConfigError("--threshold: expected a number, and --scores and --out; else give --tokens or --share")
    study = open_study(name)
    if scores and not out:
        attribution = scores.stem.replace("-", "_")
        with follow_run() as progress:
            study = import_scores(study, attribution, scores, progress=progress)
    if budget := read_share(perplexity, "--perplexity"):
        best = best_measured(study, attribution or study.config.selection.attribution, budget)
        tokens, attribution = best.tokens_above, best.kind
    given = {
        "tokens_above": tokens,
        "quantile": quantile if share is None else quantile_of_share(share),
        "threshold": threshold,
        "window": window,
        "max_tokens": max_tokens,
        "attribution": attribution,
    }
    settings: dict = {key: value for key, value in given.items() if value is not None}
    if scores and out:
        from ifguide.study.sharing.score_shards import select_in_shards

        with follow_run():
            chosen = select_in_shards(shards_config(study, scores), scores, out, settings)
        text = (
            f"{out}: {chosen['n_selected']:,} of {chosen['n_valid']:,} tokens in {chosen['n_documents_hit']:,} of"
            f" {chosen['n_documents']:,} documents, threshold {chosen['threshold']:.4g}; _summary.json describes them"
        )
        return Answer({"study": name, "selection": str(out), "settings": chosen}, text)
    with follow_run():
        if mask:
            saved = save_mask(study, selection or mask.stem, str(mask))
        else:
            choice = dataclasses.asdict(study.config.selection) | settings
            size = f"n{tokens}" if tokens else f"q{choice['quantile']:g}"
            derived = f"{choice['attribution']}-{size}-w{choice['window']}-m{choice['max_tokens']}"
            saved = save_selection(study, selection or derived, settings)
    settings = saved.settings
    if scores:
        settings = study.manifest(Unit("baseline", str(attribution))).get("notes", {}) | settings
    part = settings["n_selected"] / max(settings["n_valid"], 1)
    matched, file = settings.get("matched"), scores or mask
    counts = "{rows:,} rows match {documents:,} documents and {tokens:,} tokens".format(**matched) if matched else ""
    use = "train without them with `ifguide suppress" if study.units("suppress") else "`ifguide export --what mask"
    text = f"{file}: {counts}\n" * bool(counts) + (
        f"selection {saved.name}: {settings['n_selected']:,} tokens ({part:.2%}) in {settings['n_documents_hit']:,}"
        f" documents, threshold {settings['threshold']:.4g}; {use} {name} --selection {saved.name}`"
    )
    if (sketch := read_sketch(study)) and not mask:
        command = sketch.command(name, settings["threshold"], settings["window"])
        text += f"\nthese are of the sample; to select in all {sketch.n_valid:,} tokens: `{command}`"
    if budget:
        text += f"\nas {best.model}, measured: {best.tp.value:.1%} of prompts have a toxic answer"
    return Answer({"study": name, "selection": saved.name, "settings": settings}, text)


def borrow(
    name: StudyName,
    source: Annotated[str, Option("--from", metavar="STUDY", help="The study that has the selection.")],
    selection: Annotated[str, Option(metavar="SELECTION", help="Name of the selection there.")] = "default",
    new: Annotated[
        str | None, Option("--name", metavar="SELECTION", help="Its name here.", show_default="STUDY-SELECTION")
    ] = None,
) -> Answer:
    """Copy a selection from another study of the same corpus.

    This lets a small model select for a large one. Selections are matched by characters, so the tokenizers may differ.
    Only this study's corpus and model must be built.
    """
    from ifguide.config.schema import BorrowedConfig
    from ifguide.study import pipeline

    study = open_study(name)
    called = new or f"{source}-{selection}"
    with follow_run() as progress:
        pipeline.borrow(study, called, BorrowedConfig(study=source, selection=selection), progress=progress)
    settings = open_study(name).selection(called).settings
    text = (
        f"selection {called}: {settings['n_selected']:,} tokens in {settings['n_documents_hit']:,} documents; "
        f"train without them with `ifguide suppress {name} --selection {called}`"
    )
    return Answer({"study": name, "selection": called, "settings": settings}, text)


def documents(
    name: StudyName,
    where: Annotated[str, Option(metavar="CONDITION", help="List those for which it is true.")] = "",
    like: Annotated[str, Option(metavar="ID", help="List the 100 most like this document.")] = "",
    meaning: Annotated[str | None, Option(metavar="TEXT", help="List the 100 nearest in meaning to it.")] = None,
    read: Annotated[str, Option(metavar="ID", help="Print this document and its highest tokens.")] = "",
    reveal: Annotated[bool, Option("--reveal", help="Print offensive words of --read, too.")] = False,
    selection: SelectionName = "default",
) -> Answer:
    """Write the app's list of documents, filter it, or read one.

    Only tables that are missing, out of date or damaged are written. `ifguide run` writes those of its own selections.
    A condition is as on the app's Documents page, such as --where "hit_sum > 5 and n_tokens < 400"; it lists documents
    by rank in the selection. --like lists those that the base model reads most like one, --meaning those that it reads
    most like a text, nearest first, of those for which the condition is true; both need the map of `ifguide map`.
    --read takes any document of the study, and of shards that it is a sample of.
    """
    from ifguide.cli.terminal import format_table, printable
    from ifguide.study.analysis.document_map import rank_alike, rank_meant, read_meaning
    from ifguide.study.stages.document_table import write_tables
    from ifguide.ui.documents.store import DocumentFilter, open_documents

    study = open_study(name)
    if read:
        if where.strip() or like or meaning is not None:
            raise ConfigError("expected --read or a condition, got both; leave out one of them")
        from ifguide.ui.documents.described import read_document

        document = read_document(study, read, selection, unveil=reveal)
        best = sorted(document["tokens"], key=lambda token: -token["score"])[:HIGHEST]
        rows = [[str(token["token"]), printable(token["text"]), f"{token['score']:+.4g}"] for token in best]
        inside = "of the sample" if document["sampled"] else "outside the sample" if document["shard"] else ""
        facts = filter(None, (document["source"], f"{document['n_tokens']:,} tokens", inside))
        plain_lines = "".join(token["text"] for token in document["tokens"]).splitlines()
        shown = "\n".join(map(printable, plain_lines))
        table = format_table(("token", "text", "score"), rows)
        text = f"{printable(read)}: {printable(', '.join(facts))}\n\n{shown}\n\n{table}"
        return Answer({"study": name, **document}, text)
    if like and meaning is not None:
        raise InputError("expected --like or --meaning, got both; leave one out")
    if where.strip() or like or meaning is not None:
        with follow_run("documents"):
            store = open_documents(study, selection)
            alike = rank_alike(study, like).tolist() if like else ()
            if meaning is not None:
                alike = rank_meant(study, read_meaning(study, meaning)).tolist()
            lines = store.described(store.order(DocumentFilter(where=where.strip(), like=tuple(alike))))
        heads = ("rank", "id", "source", "n_tokens", "selected", "hit_sum")
        rows = [[str(line[head]) for head in heads[:-1]] + [f"{line['hit_sum']:.4g}"] for line in lines[:LISTED]]
        more = f", the first {LISTED} here; --json has all" * (len(lines) > LISTED)
        text = f"{format_table(heads, rows)}\n\n{len(lines):,} of {store.n_documents:,} documents{more}"
        asked = {"selection": selection, "where": where, "like": like, "meaning": meaning}
        return Answer({"study": name, **asked, "documents": lines}, text)
    with follow_run("documents") as progress:
        written = write_tables(study, report=lambda d, n: progress.report(d, n, "documents"))
    n_documents = study.corpus().n_documents
    text = f"wrote {len(written)} tables of {n_documents:,} documents" if written else "all tables are up to date"
    return Answer({"study": name, "tables": len(written), "documents": n_documents}, text)


def export(
    name: StudyName,
    what: Annotated[Table, Option(metavar="|".join(Table), help=_WHAT)],
    out: Annotated[Path, Option(metavar="FILE", help=_OUT)],
    selection: SelectionName = "default",
) -> Answer:
    """Export scores, tokens, ranks or evaluations.

    In CSV, text that begins with = + - @ ' or a tab gets a leading ', so that no spreadsheet reads it as a formula.
    """
    from ifguide.runtime.progress import report_part
    from ifguide.study.sharing.export import export_study

    study = open_study(name)
    with follow_run() as progress:
        rows = export_study(study, what.value, out, selection=selection, report=report_part(progress, "documents"))
    counted = {"inspect": "completions", "olmo": "documents", "megatron": "documents"}.get(what.value, "rows")
    values = {"study": name, "what": what.value, "file": str(out), "rows": rows}
    return Answer(values, f"wrote {rows:,} {counted} to {out}")


COMMANDS = (select, borrow, documents, export)

"""`ifguide rank`: how well the scores find documents with a known label."""

import dataclasses
import json
from typing import Annotated

import typer

from ifguide.cli.options import AsJson, StudyName
from ifguide.cli.running import follow_run, open_study


def rank(
    name: StudyName,
    labels: Annotated[
        str, typer.Option(metavar="COLUMN", help="The corpus's column that marks bad documents with true or 1.")
    ],
    draws: Annotated[int, typer.Option(min=1, help="Bootstrap draws for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare the ranking of the documents with labels.

    Shows AUROC, average precision, and precision at the top, for every kind of scores that the study has, and several
    ways to combine a document's token scores.
    """
    from ifguide.study.analysis.data_ranking import read_labels, study_rankings

    study = open_study(name)
    with follow_run() as progress:
        progress.begin_stage("rank", 0, 1)
        known = read_labels(study, labels)
        found = study_rankings(
            study, known, n_draws=draws, seed=seed, report=lambda d, n: progress.report(d, n, "orders")
        )
    n_bad, n_known = int(known.bad.sum()), int(known.known.sum())
    if as_json:
        rows = [dataclasses.asdict(quality) for quality in found]
        values = {"study": name, "labels": labels, "documents": n_known, "bad": n_bad, "rankings": rows}
        print(json.dumps(values, indent=1))
    else:
        print(format_rankings(found, n_bad, n_known))


def format_rankings(found: list, n_bad: int, n_known: int) -> str:
    """The rankings as a table, intervals in brackets."""
    from ifguide.cli.terminal import format_table

    def cell(interval) -> str:
        return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"

    depths = list(found[0].precision_at)
    heads = ("scores", "way", "AUROC", "average precision", *(f"precision at {depth}" for depth in depths))
    rows = [
        (
            quality.scores,
            quality.way.replace("_", " "),
            cell(quality.auroc),
            cell(quality.average_precision),
            *(cell(quality.precision_at[depth]) for depth in depths),
        )
        for quality in found
    ]
    return (
        f"{format_table(heads, rows)}\n\n{n_bad:,} of {n_known:,} documents are bad: by chance AUROC is .5 and"
        f" precision {n_bad / n_known:.3f}"
    )

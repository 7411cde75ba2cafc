"""`ifguide rank`: how well the scores find documents that somebody labelled."""

import json
from typing import Annotated

import typer

from ifguide.cli.options import StudyName
from ifguide.cli.running import follow_run


def add_commands(app: typer.Typer) -> None:
    """Add `rank` to the command line."""

    @app.command()
    def rank(
        name: StudyName,
        labels: Annotated[
            str,
            typer.Option(
                metavar="COLUMN", help="The corpus file's column that says which documents are bad (true or 1)."
            ),
        ],
        draws: Annotated[int, typer.Option(min=1, help="Bootstrap draws behind the intervals.")] = 1000,
        seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    ) -> None:
        """Judge the order of the documents against labels: AUROC, average precision, and precision among the best.

        Every kind of scores the study has is shown, and several ways to make a document's score of its tokens'.
        """
        from ifguide.study.analysis.data_ranking import read_labels, study_rankings
        from ifguide.study.reading import Study

        study = Study.open(name)
        with follow_run() as progress:
            progress.begin_stage("rank", 0, 1)
            known = read_labels(study, labels)
            found = study_rankings(
                study, known, n_draws=draws, seed=seed, report=lambda d, n: progress.report(d, n, "orders")
            )
        n_bad, n_known = int(known.bad.sum()), int(known.known.sum())
        if as_json:
            rows = [
                {
                    "scores": quality.scores,
                    "way": quality.way,
                    "auroc": list(quality.auroc),
                    "average_precision": list(quality.average_precision),
                    "precision_at": {str(depth): list(value) for depth, value in quality.precision_at.items()},
                }
                for quality in found
            ]
            said = {"study": name, "labels": labels, "documents": n_known, "bad": n_bad, "rankings": rows}
            print(json.dumps(said, indent=1))
        else:
            print(format_rankings(found, n_bad, n_known))


def format_rankings(found: list, n_bad: int, n_known: int) -> str:
    """The rankings as a table for a terminal, intervals in brackets."""
    from ifguide.cli.status import format_table

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
    share = n_bad / n_known
    return (
        f"{format_table(heads, rows)}\n\n{n_bad:,} of {n_known:,} documents are bad: by chance AUROC is .5 and"
        f" precision {share:.3f}"
    )

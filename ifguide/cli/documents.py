"""`ifguide documents` and `ifguide explain`: what the app lists, and why a document scores as it does."""

from typing import Annotated

import typer

from ifguide.cli.options import StatusFile, StudyName
from ifguide.cli.running import follow_run


def add_commands(app: typer.Typer) -> None:
    """Add `documents` and `explain` to the command line."""

    @app.command()
    def documents(name: StudyName, status_file: StatusFile = None) -> None:
        """Write the tables behind the app's document list that are missing, out of date or damaged. `ifguide run` writes
        those of its own selections."""
        from ifguide.study.document_table import write_tables
        from ifguide.study.reading import Study

        study = Study.open(name)
        with follow_run(status_file) as progress:
            progress.begin_stage("documents", 0, 1)
            written = write_tables(study, report=lambda d, n: progress.report(d, n, "documents"))
        print(
            f"wrote {len(written)} tables of {study.corpus().n_documents:,} documents"
            if written
            else "everything is there"
        )

    @app.command()
    def explain(
        name: StudyName,
        document: Annotated[
            str | None, typer.Option(metavar="ID", help="Explain this document's score [none: what every query does].")
        ] = None,
        start: Annotated[int | None, typer.Option(min=0, help="Only from this token of the document on.")] = None,
        stop: Annotated[int | None, typer.Option(min=1, help="Only up to this token, left out.")] = None,
        status_file: StatusFile = None,
    ) -> None:
        """Say which queries give a document its score, or what each query does to the direction."""
        from ifguide.study.analysis.explain import explain_document, explain_queries
        from ifguide.study.reading import Study

        study = Study.open(name)
        with follow_run(status_file) as progress:
            progress.begin_stage("explain", 0, 1)
            if document is None:
                explain_queries(study, progress)
            else:
                found = explain_document(study, document, start, stop, progress)
        if document is None:
            print("the app's Queries page shows what each query does")
        else:
            parts = sum(found["toxic"]), sum(found["safe"])
            print(f"score {found['total']:+.4g}: toxic queries {parts[0]:+.4g}, safe queries {parts[1]:+.4g}")

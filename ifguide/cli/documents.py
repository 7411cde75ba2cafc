"""`ifguide documents` and `ifguide explain`: the app's list of documents, and where a score comes from."""

from typing import Annotated

import typer

from ifguide.cli.options import StatusFile, StudyName
from ifguide.cli.running import follow_run, open_study


def documents(name: StudyName, status_file: StatusFile = None) -> None:
    """Write the tables behind the app's list of documents.

    Only tables that are missing, out of date or damaged are written. `ifguide run` writes those of its own selections.
    """
    from ifguide.study.document_table import write_tables

    study = open_study(name)
    with follow_run(status_file) as progress:
        progress.begin_stage("documents", 0, 1)
        written = write_tables(study, report=lambda d, n: progress.report(d, n, "documents"))
    if written:
        print(f"wrote {len(written)} tables of {study.corpus().n_documents:,} documents")
    else:
        print("all tables are up to date")


def explain(
    name: StudyName,
    document: Annotated[
        str | None, typer.Option(metavar="ID", help="Explain the score of this document.", show_default="all queries")
    ] = None,
    start: Annotated[int | None, typer.Option(min=0, help="First token of the part to explain.")] = None,
    stop: Annotated[int | None, typer.Option(min=1, help="Token after the last of the part.")] = None,
    status_file: StatusFile = None,
) -> None:
    """Show how much each query adds to a document's score.

    Without a document, it computes what each query adds to the influence direction, for the app's Queries page.
    """
    from ifguide.study.analysis.explain import explain_document, explain_queries

    study = open_study(name)
    with follow_run(status_file) as progress:
        progress.begin_stage("explain", 0, 1)
        if document is None:
            explain_queries(study, progress)
        else:
            found = explain_document(study, document, start, stop, progress)
    if document is None:
        print("the app's Queries page shows the effect of each query")
    else:
        toxic, safe = sum(found["toxic"]), sum(found["safe"])
        print(f"score {found['total']:+.4g}: toxic queries {toxic:+.4g}, safe queries {safe:+.4g}")

"""`ifguide status` and `ifguide list`: what is there, and how fresh it is."""

import json
from typing import Annotated

import typer

from ifguide.commands.options import StudyName
from ifguide.errors import IFGuideError


def add_commands(app: typer.Typer) -> None:
    """Add `status` and `list` to the command line."""

    @app.command()
    def status(
        name: StudyName,
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    ) -> None:
        """Show which stages are up to date, how toxic each model is, and how the last job goes."""
        from ifguide.status import format_status, study_status
        from ifguide.study import Study

        found = study_status(Study.open(name))
        print(json.dumps(found, indent=1, ensure_ascii=False) if as_json else format_status(found))

    @app.command("list")
    def list_all() -> None:
        """List the studies in the cache."""
        from ifguide.status import format_table
        from ifguide.study import Study, cache_dir, list_studies

        rows = []
        for name in list_studies():
            try:
                study = Study.open(name)
                states = study.states()
                fresh = sum(state.state == "fresh" for state in states.values())
                rows.append((name, f"{fresh} of {len(states)}", study.config.description))
            except IFGuideError as error:
                rows.append((name, "-", f"cannot be read: {error}"))
        print(
            format_table(("study", "stages built", "what it is"), rows)
            if rows
            else f"no studies in {cache_dir()} yet; try `ifguide demo`"
        )

"""`ifguide demo`: the built-in study."""

from typing import Annotated

import typer

from ifguide.cli.background import Background, print_headline, start_in_background
from ifguide.cli.options import StatusFile
from ifguide.cli.running import follow_run


def add_commands(app: typer.Typer) -> None:
    """Add `demo` to the command line."""

    @app.command()
    def demo(
        fresh: Annotated[bool, typer.Option("--fresh", help="Build it again from the start.")] = False,
        background: Background = False,
        status_file: StatusFile = None,
    ) -> None:
        """Build the built-in study: a small corpus with planted insults and a tiny model, in minutes on a laptop.

        Stages that are up to date are skipped, so the command may be stopped and run again.
        """
        from ifguide.study.demo import NAME, build_demo

        if background:
            start_in_background(NAME, ["demo", *(["--fresh"] if fresh else [])], skip_when_fresh=not fresh)
            return
        with follow_run(status_file) as progress:
            build_demo(fresh=fresh, progress=progress)
        print_headline(NAME)

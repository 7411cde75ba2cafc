"""`ifguide demo`: the built-in study."""

from typing import Annotated

import typer

from ifguide.cli.background import print_headline, start_in_background
from ifguide.cli.options import Background, StatusFile
from ifguide.cli.running import follow_run


def demo(
    fresh: Annotated[bool, typer.Option("--fresh", help="Build every stage again.")] = False,
    background: Background = False,
    status_file: StatusFile = None,
) -> None:
    """Build the built-in study.

    It has a small corpus with planted insults and a tiny model, and takes minutes on a laptop. Stages that are up to
    date are skipped, so you can stop the command and run it again.
    """
    from ifguide.study.demo import NAME, build_demo

    if background:
        start_in_background(NAME, ["demo", *(["--fresh"] if fresh else [])], skip_when_fresh=not fresh)
        return
    with follow_run(status_file) as progress:
        build_demo(fresh=fresh, progress=progress)
    print_headline(NAME)

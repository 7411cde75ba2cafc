"""`ifguide list`, `duplicate`, `rename` and `delete`: studies as a whole."""

from typing import Annotated

import typer

from ifguide.cli.options import StudyName
from ifguide.cli.running import open_study
from ifguide.errors import IFGuideError, InputError

NewName = Annotated[str, typer.Argument(metavar="NEW", help="A name that no study has yet.")]


def list_studies() -> None:
    """List the studies in the cache."""
    from ifguide.cli.terminal import format_table
    from ifguide.study import folder
    from ifguide.study.freshness import stage_states

    rows = []
    for name in folder.list_studies():
        try:
            study = open_study(name)
            states = [state.state for state in stage_states(study).values()]
            rows.append((name, f"{states.count('fresh')} of {len(states)}", study.config.description))
        except IFGuideError as error:
            rows.append((name, "-", f"cannot be read: {error}"))
    if rows:
        print(format_table(("study", "stages built", "description"), rows))
    else:
        print(f"no studies in {folder.cache_dir()} yet; try `ifguide demo`")


def duplicate(name: StudyName, new: NewName) -> None:
    """Copy a study: settings and inputs, not results."""
    from ifguide.study.shelf import duplicate_study

    print(f"made {duplicate_study(name, new)}; build it with `ifguide run {new}`")


def rename(name: StudyName, new: NewName) -> None:
    """Give a study another name."""
    from ifguide.study.shelf import rename_study

    print(f"renamed to {rename_study(name, new)}")


def delete(name: StudyName, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Remove a study and everything computed from it."""
    from ifguide.study.shelf import delete_study

    if not yes and typer.prompt("It cannot be brought back. Type the study's name to remove it") != name:
        raise InputError(f"another name was typed; {name!r} is as it was")
    delete_study(name)
    print(f"removed {name}")


COMMANDS = (list_studies, duplicate, rename, delete)

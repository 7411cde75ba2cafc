"""`ifguide list`, `duplicate`, `rename` and `delete`: studies as a whole."""

from typing import Annotated

import typer

from ifguide.cli.options import Answer, StudyName
from ifguide.cli.running import open_study
from ifguide.errors import IFGuideError, InputError

NewName = Annotated[str, typer.Argument(metavar="NEW", help="A name that no study has yet.")]


def list_studies() -> Answer:
    """List the studies in the cache."""
    from ifguide.cli.terminal import format_table
    from ifguide.study import folder
    from ifguide.study.freshness import stage_states

    found: list[dict] = []
    for name in folder.list_studies():
        try:
            study = open_study(name)
            states = [state.state for state in stage_states(study).values()]
            counts = {"built": states.count("fresh"), "stages": len(states)}
            found.append({"study": name, **counts, "description": study.config.description, "error": ""})
        except IFGuideError as error:
            found.append({"study": name, "built": None, "stages": None, "description": "", "error": str(error)})
    text = f"no studies in {folder.cache_dir()} yet; try `ifguide demo`"
    if found:
        rows = [
            (one["study"], "-", f"cannot be read: {one['error']}")
            if one["error"]
            else (one["study"], f"{one['built']} of {one['stages']}", one["description"])
            for one in found
        ]
        text = format_table(("study", "stages built", "description"), rows)
    return Answer({"studies": found}, text)


def duplicate(name: StudyName, new: NewName) -> Answer:
    """Copy a study: settings and inputs, not results."""
    from ifguide.study.shelf import duplicate_study

    folder = duplicate_study(name, new)
    return Answer({"study": new, "folder": str(folder)}, f"made {folder}; build it with `ifguide run {new}`")


def rename(name: StudyName, new: NewName) -> Answer:
    """Give a study another name."""
    from ifguide.study.shelf import rename_study

    folder = rename_study(name, new)
    return Answer({"study": new, "folder": str(folder)}, f"renamed to {folder}")


def delete(name: StudyName, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> Answer:
    """Remove a study and everything computed from it."""
    from ifguide.study.shelf import delete_study

    asked = "It cannot be brought back. Type the study's name to remove it"
    if not yes and typer.prompt(asked, err=True) != name:
        raise InputError(f"another name was typed; {name!r} is as it was")
    delete_study(name)
    return Answer({"study": name}, f"removed {name}")


COMMANDS = (list_studies, duplicate, rename, delete)

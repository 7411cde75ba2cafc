"""`ifguide list`, `duplicate`, `rename`, `delete`, `push` and `pull`: studies as a whole."""

from typing import Annotated

import typer

from ifguide.cli.options import Answer, SelectionName, StudyName
from ifguide.cli.running import follow_run, open_study, serve_app
from ifguide.errors import IFGuideError, InputError

NewName = Annotated[str, typer.Argument(metavar="NEW", help="A name that no study has yet.")]


def list_studies() -> Answer:
    """List the studies in the cache."""
    from ifguide.cli.terminal import format_table
    from ifguide.study import folder
    from ifguide.study.freshness import stage_states

    studies: list[dict] = []
    for name in folder.list_studies():
        try:
            study = open_study(name)
            states = [state.state for state in stage_states(study).values()]
            counts = {"built": states.count("fresh"), "stages": len(states)}
            studies.append({"study": name, **counts, "description": study.config.description, "error": ""})
        except IFGuideError as error:
            studies.append({"study": name, "built": None, "stages": None, "description": "", "error": str(error)})
    text = f"no studies in {folder.cache_dir()} yet; try `ifguide demo`"
    if studies:
        rows = [
            (one["study"], "-", f"cannot be read: {one['error']}")
            if one["error"]
            else (one["study"], f"{one['built']} of {one['stages']}", one["description"])
            for one in studies
        ]
        text = format_table(("study", "stages built", "description"), rows)
    return Answer({"studies": studies}, text)


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

    question = "This cannot be undone. Type the study's name to remove it"
    if not yes and typer.prompt(question, err=True) != name:
        raise InputError(f"expected {name!r}, got another name; nothing was removed")
    delete_study(name)
    return Answer({"study": name}, f"removed {name}")


def push(
    name: StudyName,
    repo: Annotated[str, typer.Option("--repo", metavar="ORG/NAME", help="The data set's repository.")],
    licence: Annotated[str, typer.Option(metavar="ID", help="Of the corpus, such as cc-by-4.0 or other.")] = "",
    model_repo: Annotated[str, typer.Option(metavar="ORG/NAME", help="Where the suppressed model goes.")] = "",
    selection: SelectionName = "default",
    private: Annotated[bool, typer.Option("--private", help="Make the repositories private.")] = False,
    revision: Annotated[str, typer.Option(metavar="BRANCH", help="The branch to write to.")] = "",
) -> Answer:
    """Put a study on the Hugging Face Hub.

    Texts, scores, selections and completions become tables of a data set repository, with a card; `ifguide pull` opens
    the study from there. Log in first with `hf auth login`.
    """
    from ifguide.study.sharing.published import push_study

    study = open_study(name)
    with follow_run("push"):
        commits = push_study(
            study, repo, licence=licence, selection=selection, model_repo=model_repo, private=private, revision=revision
        )
    return Answer({"study": name, "commits": commits}, "\n".join(f"pushed {address}" for address in commits))


def pull(
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The data set's repository.")],
    revision: Annotated[str, typer.Option(metavar="REVISION", help="A branch, tag or commit of it.")] = "",
    show: Annotated[bool, typer.Option("--open", help="Open it in the app.")] = False,
) -> Answer:
    """Get a pushed study from the Hugging Face Hub, read-only."""
    from ifguide.study.folder import cache_dir
    from ifguide.study.sharing.published import pull_study

    name = pull_study(repo, cache_dir(), revision=revision)
    text = f"{name!r} is among the studies of {cache_dir()}, read-only; `ifguide app` shows it"
    if show:
        print(text, flush=True)
        serve_app([], opened=name)
    return Answer({"study": name, "folder": str(cache_dir() / name)}, text)


COMMANDS = (list_studies, duplicate, rename, delete, push, pull)

"""The command line: one command a step, each a few lines around the package's own functions.

What the user can mend ends with exit code 2 and one line; `ifguide --debug COMMAND …` shows the whole traceback instead.
Nothing heavy is imported before a command needs it.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ifguide import __version__
from ifguide.commands import borrow, compare, likelihood, mechanism, rank, report, verify
from ifguide.commands.options import StatusFile, StudyName
from ifguide.errors import IFGuideError, InputError, ProcessError
from ifguide.running import follow_run, launched_together, speaks
from ifguide.system_errors import explain_system_error

if TYPE_CHECKING:
    from ifguide.config import StudyConfig

app = typer.Typer(
    name="ifguide",
    help="Find the training tokens that teach a language model to be toxic, train without them, and show the difference.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Background = Annotated[bool, typer.Option("--background", help="Start it as a job of its own and return at once.")]
SelectionName = Annotated[str, typer.Option("--selection", metavar="S", help="A selection's name.")]


class Table(StrEnum):
    """What can be exported."""

    tokens = "tokens"
    documents = "documents"
    mask = "mask"
    spans = "spans"


class Attribution(StrEnum):
    """Kinds of token scores."""

    own_loss = "own_loss"
    position = "position"


def main() -> None:
    """Run the command in `sys.argv`; errors that the user can mend become one line and exit code 2."""
    # threads that wait for each other by spinning lose nine tenths of their speed when anything else runs on the machine
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if (
        launched_together()
    ):  # when a process ends, what the others have to say is our own line, not a trace of torch's sockets
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        _leave(app(standalone_mode=False) or 0)
    except (IFGuideError, OSError) as error:
        if _debug:
            raise
        if isinstance(error, ProcessError) and not speaks():
            _leave(2)  # the process that failed says why, and so does the first one
        if isinstance(error, BrokenPipeError):  # the reader of a pipe had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        _fail(str(error) if isinstance(error, IFGuideError) else explain_system_error(error) or str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):  # not one of typer's own, which has another module in each version
            if not _debug and (said := explain_system_error(error)):  # a library's own word for a full disk
                _fail(said)
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            with contextlib.suppress(BrokenPipeError):
                print(error.format_message(), flush=True)
            os._exit(2)  # not sys.exit, which would flush into a pipe that may be closed
        message, context = error.format_message(), getattr(error, "ctx", None)
        _fail(f"{message} (see `{context.command_path} --help`)" if context else message)


def _fail(message: str) -> None:
    """One line on standard error, and exit code 2. What a file holds may be in it, so it cannot steer the terminal."""
    line = " ".join(message.split())
    print("error: " + "".join(c if c.isprintable() else repr(c)[1:-1] for c in line), file=sys.stderr)
    _leave(2)


def _leave(code: int) -> NoReturn:
    """End this process. One of several ends at once: torch's threads for talking to the others can abort a slow farewell."""
    if launched_together():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


_debug = False
TOGETHER = ("run", "suppress", "evaluate")
"""Commands that several processes can share."""


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"ifguide {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    global _debug
    _debug = debug or bool(os.environ.get("IFGUIDE_DEBUG"))
    if launched_together() and context.invoked_subcommand not in TOGETHER:
        raise InputError(
            f"ifguide {context.invoked_subcommand} works in one process, but {os.environ['WORLD_SIZE']} were started; "
            f"only {', '.join(TOGETHER)} can be started with torchrun or accelerate launch"
        )


@app.command()
def demo(
    fresh: Annotated[bool, typer.Option("--fresh", help="Build it again from the start.")] = False,
    background: Background = False,
    status_file: StatusFile = None,
) -> None:
    """Build the built-in study: a small corpus with planted insults and a tiny model, in minutes on a laptop.

    Stages that are up to date are skipped, so the command may be stopped and run again.
    """
    from ifguide.demo.study import NAME, build_demo

    if background:
        _start_in_background(NAME, ["demo", *(["--fresh"] if fresh else [])], skip_when_fresh=not fresh)
        return
    with follow_run(status_file) as progress:
        build_demo(fresh=fresh, progress=progress)
    _print_headline(NAME)


@app.command()
def new(
    name: StudyName,
    model: Annotated[str, typer.Option(metavar="PATH_OR_ID", help="A Hugging Face model folder or hub id.")],
    corpus: Annotated[
        str,
        typer.Option(
            metavar="FILE_OR_DATASET", help="A .jsonl, .csv, .tsv, .parquet or .txt file, a folder, or a hub data set."
        ),
    ],
    toxic: Annotated[str, typer.Option(metavar="FILE", help="Toxic queries: prompts and completions.")],
    safe: Annotated[str, typer.Option(metavar="FILE", help="Safe queries: prompts and completions.")],
    text_field: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The corpus's column of texts [text].")
    ] = None,
    id_field: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Its column of unique ids [none: numbered].")
    ] = None,
    source_field: Annotated[str | None, typer.Option(metavar="COLUMN", help="Its column that names a source.")] = None,
    spans_field: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Its column of known toxic character spans; used to judge the result, never to compute it.",
        ),
    ] = None,
    prompt_field: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The queries' column of prompts [prompt].")
    ] = None,
    completion_field: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The queries' column of completions [completion].")
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Prompts to complete when models are compared [those of the toxic queries]."),
    ] = None,
    heldout: Annotated[
        str | None, typer.Option(metavar="FILE", help="Benign held-out text for perplexity [none: not reported].")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Any other setting, such as model.mode=scratch; may be repeated."
        ),
    ] = None,
) -> None:
    """Make a study of your own model and corpus.

    Every input is opened and read first. The settings go to study.toml in the study's folder and can be changed there.
    """
    from ifguide.config import config_from_dict, override
    from ifguide.pipeline import create_study

    sections: dict[str, dict[str, str | None]] = {
        "model": {"source": model},
        "corpus": {
            "path": corpus,
            "text_field": text_field,
            "id_field": id_field,
            "source_field": source_field,
            "spans_field": spans_field,
        },
        "queries": {"toxic": toxic, "safe": safe, "prompt_field": prompt_field, "completion_field": completion_field},
        "evaluate": {"prompts": prompts, "heldout": heldout},
    }
    given = {section: {k: v for k, v in table.items() if v is not None} for section, table in sections.items()}
    study = create_study(name, _with_absolute_paths(override(config_from_dict(given), assignments or [])))
    print(f"wrote {study.root / 'study.toml'}; build it with `ifguide run {name}`")


@app.command()
def run(
    name: StudyName,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")] = None,
    force: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Build this stage again, even if it is up to date.")
    ] = None,
    background: Background = False,
    status_file: StatusFile = None,
) -> None:
    """Build everything of a study that is missing or out of date.

    The stages, in order: corpus, queries, model, factors, direction, scores, index, selection, suppress, evaluate.
    """
    from ifguide.study import STAGES, Study

    for stage in filter(None, (until, force)):
        if stage not in STAGES:
            raise InputError(f"expected a stage ({', '.join(STAGES)}), got {stage!r}")
    study = Study.open(name)
    if background:
        if launched_together():
            raise InputError(
                "--background starts one process; start several with torchrun or accelerate launch without it"
            )
        extra = [*(["--until", until] if until else []), *(["--force", force] if force else [])]
        _start_in_background(name, ["run", name, *extra])
        return
    with follow_run(status_file) as progress:
        from ifguide.pipeline import run_study

        run_study(study, until=until, force=force, progress=progress)
    _print_headline(name)


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


@app.command()
def select(
    name: StudyName,
    quantile: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Tokens with scores above this quantile are hits.")
    ] = None,
    window: Annotated[int | None, typer.Option(min=0, help="Tokens taken on each side of a hit.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=0, help="Budget in tokens; 0: none.")] = None,
    attribution: Annotated[Attribution | None, typer.Option(help="Which scores to select by.")] = None,
    selection: Annotated[
        str | None, typer.Option("--name", metavar="S", help="What to call it [made from the settings].")
    ] = None,
    status_file: StatusFile = None,
) -> None:
    """Choose tokens by threshold, window and budget (Algorithm 1) and save the choice.

    What is not given here is taken from study.toml.
    """
    from ifguide.study import Study

    study = Study.open(name)
    given: dict = {
        "quantile": quantile,
        "window": window,
        "max_tokens": max_tokens,
        "attribution": attribution and attribution.value,
    }
    settings = {key: value for key, value in given.items() if value is not None}
    with follow_run(status_file):
        wanted = dataclasses.replace(study.config.selection, **settings)
        derived = f"{wanted.attribution}-q{wanted.quantile:g}-w{wanted.window}-m{wanted.max_tokens}"
        made = study.save_selection(selection or derived, settings)
    found = made.settings
    share = found["n_selected"] / max(found["n_valid"], 1)
    print(
        f"selection {made.name}: {found['n_selected']:,} tokens ({share:.2%}) in {found['n_documents_hit']:,} documents, "
        f"threshold {found['threshold']:.4g}; train without them with `ifguide suppress {name} --selection {made.name}`"
    )


@app.command()
def documents(name: StudyName, status_file: StatusFile = None) -> None:
    """Write what the app's list of documents shows, where it is missing or damaged. `ifguide run` does it by itself."""
    from ifguide.document_table import write_tables
    from ifguide.study import Study

    study = Study.open(name)
    with follow_run(status_file) as progress:
        progress.begin_stage("documents", 0, 1)
        written = write_tables(study, report=lambda d, n: progress.report(d, n, "documents"))
    print(
        f"wrote {len(written)} tables of {study.corpus().n_documents:,} documents" if written else "everything is there"
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
    from ifguide.explain import explain_document, explain_queries
    from ifguide.study import Study

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


@app.command()
def suppress(name: StudyName, selection: SelectionName = "default", status_file: StatusFile = None) -> None:
    """Train the model anew with the penalty on a selection's tokens."""
    from ifguide.study import Study

    study = Study.open(name)
    with follow_run(status_file) as progress:
        from ifguide.pipeline import suppress as suppress_tokens

        suppress_tokens(study, selection, progress=progress)
    if speaks():
        print(f"trained without {selection}; measure it with `ifguide evaluate {name} --model {selection}`")


@app.command()
def evaluate(
    name: StudyName,
    model: Annotated[
        str, typer.Option(metavar="VARIANT", help="`base`, or the selection it was trained without.")
    ] = "default",
    status_file: StatusFile = None,
) -> None:
    """Complete the prompts with a model, score the completions, and measure perplexity on held-out text."""
    from ifguide.study import DEFAULT, Study

    study = Study.open(name)
    variant = DEFAULT if model == "suppressed" else model
    with follow_run(status_file) as progress:
        from ifguide.pipeline import evaluate as evaluate_model

        evaluate_model(study, variant, progress=progress)
    _print_headline(name)


@app.command()
def export(
    name: StudyName,
    what: Annotated[
        Table,
        typer.Option(
            help="A row a token, a row a document, only which tokens are selected, or the selected characters."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="A .parquet, .jsonl or .csv file, or a new .dataset folder."),
    ],
    selection: SelectionName = "default",
) -> None:
    """Write scores, ranks or the mask of a study to a file for other programs.

    In CSV, a text that begins with = + - @ ' or a tab gets one ' in front, so that no spreadsheet takes it for a formula.
    """
    from ifguide.export import export_study
    from ifguide.study import Study

    study = Study.open(name)
    with follow_run() as progress:
        rows = export_study(
            study, what.value, out, selection=selection, report=lambda d, n: progress.report(d, n, "documents")
        )
    print(f"wrote {rows:,} rows to {out}")


@app.command()
def cancel(name: StudyName) -> None:
    """Stop the job that works on a study in the background."""
    from ifguide.jobs import active_job, cancel_job
    from ifguide.study import cache_dir, check_name

    job = active_job(cache_dir() / check_name(name))
    if job is None:
        raise InputError(f"study {name!r} has no running job; a run in another terminal is stopped there with Ctrl+C")
    print(f"job {job.id} is {cancel_job(job).state}; go on later with `ifguide run {name}`")


for commands in (borrow, compare, likelihood, mechanism, rank, report, verify):
    commands.add_commands(app)


@app.command("app", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def open_app(context: typer.Context) -> None:
    """Open the app in the browser (from a checkout of the project). Options of `streamlit run` may follow, like --server.port 8502."""
    from ifguide.study import cache_dir

    checkout = Path(__file__).resolve().parent.parent
    if not (checkout / "app.py").is_file():
        raise InputError(f"expected app.py in {checkout}, found none; run the app from a checkout of the project")
    environment = {**os.environ, "IFGUIDE_CACHE": str(cache_dir())}
    command = [sys.executable, "-m", "ifguide.ui.server", *context.args]
    if os.name == "posix":  # in this process's place, so that whoever stops this one stops the server
        os.chdir(checkout)
        os.execve(command[0], command, environment)
    with contextlib.suppress(KeyboardInterrupt):
        raise typer.Exit(subprocess.call(command, cwd=checkout, env=environment))


def _with_absolute_paths(config: "StudyConfig") -> "StudyConfig":
    """Paths as the user typed them belong to the current folder; study.toml is read from anywhere. Hub ids stay as they are."""

    def absolute(path: str) -> str:
        if path.startswith("classifier:"):  # a scorer
            source, sign, label = path.removeprefix("classifier:").partition("#")
            return f"classifier:{absolute(source)}{sign}{label}"
        place = Path(path).expanduser()
        is_file = path and (place.exists() or any(sign in path for sign in "*?["))
        return str(place.absolute()) if is_file else path

    names = {
        "model": ("source", "checkpoints"),
        "corpus": ("path",),
        "queries": ("toxic", "safe"),
        "evaluate": ("prompts", "heldout", "lambada", "harness_folder", "scorer", "implicit"),
        "baselines": ("scorer",),
    }
    changed = {}
    for section, keys in names.items():
        table = getattr(config, section)
        values = {key: getattr(table, key) for key in keys}
        values = {k: tuple(map(absolute, v)) if isinstance(v, tuple) else absolute(v) for k, v in values.items()}
        changed[section] = dataclasses.replace(table, **values)
    return dataclasses.replace(config, **changed)


def _start_in_background(name: str, arguments: list[str], *, skip_when_fresh: bool = False) -> None:
    from ifguide.errors import StudyNotFound
    from ifguide.jobs import active_job, start_job
    from ifguide.study import Study, cache_dir

    cache = cache_dir()
    if active := active_job(cache / name):
        print(f"study {name} is being built already, by job {active.id}")
        return
    if skip_when_fresh:
        with contextlib.suppress(StudyNotFound):
            if all(state.state == "fresh" for state in Study.open(name).states().values()):
                print(f"study {name} is up to date")
                return
    job = start_job(name, arguments, cache)
    print(f"building study {name} in the background; follow it with `ifguide status {name}` or in {job.log_path}")


def _print_headline(name: str) -> None:
    if not speaks():
        return
    from ifguide.status import format_status, study_status
    from ifguide.study import Study

    print(format_status(study_status(Study.open(name))))

"""The command line. Each command is a few lines around the package's own functions.

An error that the user can fix ends with exit code 2 and one line; `ifguide --debug COMMAND ...` shows the whole
traceback instead. Nothing heavy is imported before a command needs it: `ifguide --help` imports no NumPy.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ifguide import __version__
from ifguide.cli import analyse, audit, build, judge, mcp, queries, select, settings, status, studies, train
from ifguide.cli.options import answers
from ifguide.cli.running import launched_together, serve_app, speaks
from ifguide.errors import IFGuideError, InputError, ProcessError, explain_system_error

app = typer.Typer(
    name="ifguide",
    help=(
        "Find the training tokens that teach a language model to be toxic, train without them, and show the difference."
    ),
    epilog=(
        "Exit codes: 0 done; 2 an error that you can fix, in one line; 130 stopped with Ctrl+C; 143 terminated; "
        "1 anything else."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

THREADS_WAIT = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "2000"}
"""How torch's threads wait for each other, unless the user sets it. By default they spin for milliseconds, which halves
their speed when anything else runs. Sleeping at once costs a sixth when nothing does, so GNU's OpenMP first spins for
about ten microseconds."""
TOGETHER = ("run", "suppress", "evaluate")
"""Commands that several processes can share."""
COMPLETE = "_IFGUIDE_COMPLETE"
"""Environment variable through which a shell's completion script (`ifguide completions`) asks for words."""
_debug = False


def main() -> None:
    """Run the command in `sys.argv`; an error that the user can fix becomes one line and exit code 2."""
    if not THREADS_WAIT.keys() & os.environ.keys():  # all or none: the second would override the user's policy
        os.environ.update(THREADS_WAIT)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # we give its warnings about models ourselves
    if launched_together():  # if a process ends, the others print our own line, not a trace of torch's sockets
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if COMPLETE in os.environ:
        from typer.completion import completion_init

        completion_init()
    try:
        _leave(app(standalone_mode=False) or 0)
    except (IFGuideError, OSError) as error:
        if _debug:
            raise
        if isinstance(error, ProcessError) and not speaks():
            _leave(2)  # the failed process and the first one print the reason
        if isinstance(error, BrokenPipeError):  # the reader of a pipe has closed it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        _fail(str(error) if isinstance(error, IFGuideError) else explain_system_error(error) or str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):  # not one of typer's own, whose module differs between versions
            if not _debug and (reason := explain_system_error(error)):  # such as a library's own error for a full disk
                _fail(reason)
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            with contextlib.suppress(BrokenPipeError):
                print(error.format_message(), flush=True)
            os._exit(2)  # not sys.exit, which would flush into a pipe that may be closed
        message, context = error.format_message(), getattr(error, "ctx", None)
        _fail(f"{message} (see `{context.command_path} --help`)" if context else message)
    finally:
        if "IFGUIDE_STATUS_FILE" in os.environ:  # this is a job
            from ifguide.runtime.jobs import pass_on

            pass_on()


def _fail(message: str) -> None:
    """Print one line on standard error, with control characters escaped, and end with exit code 2."""
    from ifguide.cli.terminal import printable

    print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr)
    _leave(2)


def _leave(code: int) -> NoReturn:
    """End this process. One of several ends at once: torch's communication threads can abort a slow exit."""
    if launched_together():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _show_version(asked: bool) -> None:
    if asked:
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


for module in (build, queries, settings, status, studies, select, train, analyse, audit, judge):
    for function in module.COMMANDS:
        name = function.__name__.removesuffix("_documents").removesuffix("_studies").replace("_", "-")
        app.command(name)(answers(function, speaks))
app.command()(mcp.mcp)  # it speaks JSON of its own


@app.command()
def completions(shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh, fish or powershell.")]) -> None:
    """Print a script that completes commands and options.

    For bash: `ifguide completions bash >> ~/.bashrc`; then open a new shell.
    """
    from typer.completion import get_completion_script

    if shell not in ("bash", "zsh", "fish", "powershell"):
        raise InputError(f"expected bash, zsh, fish or powershell, got {shell!r}")
    print(get_completion_script(prog_name="ifguide", complete_var=COMPLETE, shell=shell))


@app.command("app", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def open_app(
    context: typer.Context,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Answer to this name too, as people type it; give it once for each name."),
    ] = None,
) -> None:
    """Open the app in the browser. A FILE from `ifguide pack` is added to the studies, read-only, and opened.

    Options of `streamlit run` can follow, such as --server.port 8502.
    """
    from ifguide.study.folder import cache_dir
    from ifguide.study.sharing.packed import unpack_study

    options, opened = list(context.args), ""
    if options and not options[0].startswith("-"):
        opened = unpack_study(Path(options.pop(0)), cache_dir())
        print(f"opening {opened!r}, read-only")
    options += [part for name in host or [] for part in ("--server.allowedHosts", name)]
    serve_app(options, opened)

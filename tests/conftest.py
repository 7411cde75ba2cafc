"""Settings of every test run: one thread a process, the slowest files first, short garbage collections, and forks."""

import functools
import gc
import os

import hypothesis
import pytest
import typer.testing

from tests import warm
from tests.examples import THOROUGH

# Tiny models gain nothing from threads, and test processes that share few cores lose most of their time to them.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# No test cuts the power, and a disk takes some five milliseconds to write a file down for good.
os.fsync = lambda file: None
# A machine that is busy is slow, not wrong.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")
# Typer makes all commands and options anew for every command that is run.
typer.main.get_command = typer.testing._get_command = functools.cache(typer.main.get_command)


def pytest_configure(config) -> None:
    if "not thorough" not in config.option.markexpr:
        os.environ[THOROUGH] = "1"


def pytest_collection_modifyitems(items) -> None:
    """Files with a slow test come first: one that came last would keep a single worker busy at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("browser")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session) -> None:
    """When everything is imported, processes can be forked."""
    if hasattr(session.config, "workerinput") or not session.config.getoption("numprocesses", None):
        keep_what_is_there()
        warm.serve()  # not in the process that only hands out the tests


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """What a file's tests imported stays, too."""
    ended = yield
    if nextitem and nextitem.path != item.path:
        keep_what_is_there()
    return ended


def keep_what_is_there() -> None:
    """Exempt all objects from garbage collection: every stage of a study and every training collects, which takes half
    a second where it looks through all modules of the suite."""
    gc.collect()
    gc.freeze()

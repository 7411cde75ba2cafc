"""Settings of every test run: one thread a process, the slowest files first, and a process that forks others."""

import gc
import os

import pytest

from tests import warm

# Tiny models gain nothing from threads, and test processes that share few cores lose most of their time to them.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_collection_modifyitems(items) -> None:
    """Files with a slow test come first: one that came last would keep a single worker busy at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("browser")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session) -> None:
    """Everything is imported: what is there stays for good, and what looks for garbage, as every stage of a study and
    every training does, need not look through it each time."""
    if not hasattr(session.config, "workerinput") and session.config.getoption("numprocesses", None):
        return  # the process that hands out the tests
    gc.collect()
    gc.freeze()
    warm.serve()

"""Several processes at one script, as a launcher would start them, for tests."""

import contextlib
import itertools
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import warm

REPOSITORY = Path(__file__).resolve().parent.parent


def environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    """What a launcher tells a process."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in told.items()} | {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = itertools.count(10_000 + 1_000 * (_WORKER % 20) + os.getpid() % 500)
"""Each test process has a range of its own, below the ports that the kernel gives to connections."""


def free_port() -> int:
    """A port that nobody listens on and that no other test process takes meanwhile."""
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable")


def run_together(script: str, *arguments: str, world_size: int = 2) -> list[tuple[int, str]]:
    """Run a Python script in several processes; gives the exit code and the output of each, its errors first."""
    port, command = free_port(), [sys.executable, "-c", script, *arguments]

    def run(rank: int) -> tuple[int, str]:
        done = warm.run(command, cwd=REPOSITORY, env=os.environ | environment(rank, world_size, port))
        return done.returncode, done.stderr + done.stdout

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(run, range(world_size)))

"""Several processes at one script, as a launcher would start them, for tests."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    """What a launcher tells a process."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in told.items()} | {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_together(script: str, *arguments: str, world_size: int = 2, timeout: float = 120) -> list[tuple[int, str]]:
    """Run a Python script in several processes; gives the exit code and the output of each."""
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            cwd=REPOSITORY,
            env={**os.environ, **environment(rank, world_size, port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]
    until = time.monotonic() + timeout
    try:
        return [(p.returncode, out) for p in processes for out in [p.communicate(timeout=until - time.monotonic())[0]]]
    finally:
        for process in processes:
            process.kill()
            process.wait()

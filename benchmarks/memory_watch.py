"""The memory of a process while it works, sampled from the operating system."""

import threading
from pathlib import Path


class Memory:
    """The most memory this process held, in GiB, looked at every 20 ms."""

    def __init__(self):
        self.rss = self.private = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            rss, private = read_memory()
            self.rss, self.private = max(self.rss, rss), max(self.private, private)


def read_memory(pid: int | str = "self") -> tuple[float, float]:
    """(resident memory with memory maps, private memory) of a process now, in GiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "RssAnon"))}
    return kib["VmRSS"] / 2**20, kib["RssAnon"] / 2**20

"""Settings of every test run: one thread a process, and the slowest files first."""

import os

# Tiny models gain nothing from threads, and test processes that share few cores lose most of their time to them.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_collection_modifyitems(items) -> None:
    """Files with a slow test come first: one that came last would keep a single worker busy at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("browser")}
    items.sort(key=lambda item: item.path not in slow)

"""Real data beside the checkout, which the project does not hold: tests that need it are skipped without it."""

import os
from pathlib import Path

import pytest


def shared_file(name: str) -> Path:
    """Path of a file in $IFGUIDE_SHARED_DATA, or in shared/data next to the checkout; skips the test when it is
    absent."""
    folder = os.environ.get("IFGUIDE_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"needs the real file {name}: set IFGUIDE_SHARED_DATA to the folder that holds it")
    return path

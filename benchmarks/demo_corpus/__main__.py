"""Writes `ifguide/data/demo.zip`: the demo's inputs for seed 0, the same bytes each time."""

import tempfile
import zipfile
from pathlib import Path

import ifguide
from benchmarks.demo_corpus.inputs import write_inputs

SHIPPED = Path(ifguide.__file__).parent / "data" / "demo.zip"


def main() -> None:
    """Generate the inputs and pack them, without the time of today."""
    with tempfile.TemporaryDirectory() as work, zipfile.ZipFile(SHIPPED, "w") as packed:
        write_inputs(Path(work))
        for path in sorted(path for path in Path(work).rglob("*") if path.is_file()):
            member = zipfile.ZipInfo(path.relative_to(work).as_posix())  # dated 1980
            packed.writestr(member, path.read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=9)
    print(f"{SHIPPED}: {SHIPPED.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

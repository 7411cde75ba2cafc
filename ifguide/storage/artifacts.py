"""Typed files on disk: atomic writing, content hashes, manifests, memory-mapped reading.

An artefact is a folder. It is built beside its place as `<name>.partial-<pid>`, and renamed when it is whole, so a
folder under its own name is always complete. Its `manifest.json` names what it was made from and the hash of each of
its files.
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import sys
import time
import tokenize
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import numpy as np

from ifguide.errors import StaleError

SCHEMA = 1
"""Version of the layout and meaning of artefacts; a change makes older ones stale."""

MANIFEST = "manifest.json"
NOTES = "notes.json"
"""A plain JSON object that a stage may write about its run; the manifest repeats it as `notes`."""
TRAINING_LOG = "training_log.jsonl"
RECORDS = (TRAINING_LOG,)
"""Files for people that no stage reads. They hold clock times, so two equal runs differ in them."""
_BLOCK = 1 << 20
_COMPUTING = ("ifguide", "torch", "transformers", "tokenizers", "accelerate", "datasets")
_READING = ("safetensors", "pyarrow", "pandas", "numpy", "scikit-learn", "alt-profanity-check")


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def hash_json(value) -> str:
    """SHA-256 of a plain value's canonical JSON, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def write_json(path: Path, value) -> None:
    """Write JSON so that readers see the old file or the new one, never half of one."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, ensure_ascii=False, indent=1, allow_nan=False)
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a hidden place beside `path` for a new file or folder. It replaces `path` when the block ends, and is
    removed when the block raises. (A folder can only replace an empty folder or nothing.)"""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        _remove(temporary)
        raise


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes were writing with `replacing` directly in this folder."""
    for path in folder.glob(".*.tmp"):
        process = path.name.split(".")[-2]
        if process.isdigit() and not _is_running(int(process)):
            _remove(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it runs and belongs to another user
    return True


@contextlib.contextmanager
def reading(path: Path, *errors: type[Exception], stage: str = "STAGE") -> Iterator[None]:
    """Turn what goes wrong while a file of ours is read into a `StaleError` with the remedy.

    Args:
        path: the file.
        errors: what its reader raises when the file is damaged.
        stage: which stage writes it.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise StaleError(f"{path} is missing; run the study again with `ifguide run NAME`") from error
    except errors as error:
        raise StaleError(f"{path} is damaged ({error}); rebuild it with `ifguide run NAME --force {stage}`") from error


def read_json(path: Path):
    """Read a JSON file of ours.

    Raises:
        StaleError: the file is missing or damaged.
    """
    with reading(path, json.JSONDecodeError, UnicodeDecodeError):
        return json.loads(path.read_text(encoding="utf-8"))


def read_part(folder: Path, name: str):
    """Read a JSON file of an artefact and check its hash, because damaged JSON may still be valid JSON.

    Args:
        folder: the artefact, or one that is being built and has no manifest yet.
        name: of the file, below the folder.

    Raises:
        StaleError: the file is missing or damaged.
    """
    value = read_json(folder / name)
    expected = ((read_manifest(folder) or {}).get("outputs") or {}).get(name)
    if expected and hash_file(folder / name) != expected:
        raise StaleError(
            f"{folder / name} is damaged (its hash is not that of the manifest); rebuild it with `ifguide run NAME"
            " --force STAGE`"
        )
    return value


def read_manifest(folder: Path) -> dict | None:
    """The manifest of an artefact, or None when the artefact is missing or its manifest is unreadable."""
    try:
        manifest = read_json(folder / MANIFEST)
    except StaleError:
        return None
    parts = ("inputs", "config", "outputs")
    return manifest if isinstance(manifest, dict) and all(isinstance(manifest.get(p), dict) for p in parts) else None


def digest_of(manifest: dict) -> str:
    """What an artefact's readers name as their input: one hash over the hashes of its files, `RECORDS` left out."""
    return hash_json({name: digest for name, digest in manifest["outputs"].items() if name not in RECORDS})


def library_versions() -> dict[str, str]:
    """Versions of what computes the numbers, for the manifest. Imports nothing."""
    versions = {"python": platform.python_version()}
    for name in _COMPUTING + _READING:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def describe_machine() -> dict[str, str | int]:
    """What affects the last digits of computed numbers. Imports nothing: a stage that used a GPU has torch loaded.

    Returns:
        `system`, `processor` and `processes`; where torch is loaded also `threads`, and `gpu` where it sees one.
    """
    found: dict[str, str | int] = {
        "system": platform.system(),
        "processor": platform.machine(),
        "processes": int(os.environ.get("WORLD_SIZE") or 1),
    }
    if torch := sys.modules.get("torch"):
        found["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
    return found


@contextlib.contextmanager
def building(folder: Path, *, stage: str, inputs: dict, config: dict) -> Iterator[Path]:
    """Build an artefact: yields an empty folder to write into; on leaving, adds the manifest and moves it into place.

    Args:
        folder: the artefact's place; what is there now stays until the new one is whole.
        stage: name of the stage, for the manifest.
        inputs: name to hash of all that the artefact is made from.
        config: the settings it is made with.

    When the block raises, the partial folder is removed and `folder` is as it was.
    """
    started, clock = time.time(), time.monotonic()  # the wall clock may be set back meanwhile
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    remove_partials(folder)
    partial.mkdir()
    try:
        yield partial
        files = sorted(p for p in partial.rglob("*") if p.is_file())
        for path in files:
            _sync(path)
        manifest = {
            "schema": SCHEMA,
            "stage": stage,
            "inputs": inputs,
            "config": config,
            "outputs": {p.relative_to(partial).as_posix(): hash_file(p) for p in files},
            "bytes": {p.relative_to(partial).as_posix(): p.stat().st_size for p in files},
            "seconds": round(time.monotonic() - clock, 3),
            "created": round(started, 3),
            "versions": library_versions(),
            "machine": describe_machine(),
        }
        if (partial / NOTES).is_file():
            manifest["notes"] = read_json(partial / NOTES)
        write_json(partial / MANIFEST, manifest)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _swap(partial, folder)


def _swap(partial: Path, folder: Path) -> None:
    old = folder.with_name(f"{folder.name}.old-{os.getpid()}")
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_partials(folder: Path) -> None:
    """Remove what killed builds of this artefact left behind; put an old copy back if its successor never arrived."""
    for leftover in folder.parent.glob(f"{folder.name}.partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for old in sorted(folder.parent.glob(f"{folder.name}.old-*")):
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_sizes(folder: Path, manifest: dict) -> str:
    """Compare the sizes of an artefact's files with its manifest; returns what is wrong, or an empty string."""
    for name, size in manifest.get("bytes", {}).items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes, expected {size:,}"
    return ""


def check_hashes(folder: Path, manifest: dict) -> str:
    """Hash an artefact's files and compare with its manifest; returns what is wrong, or an empty string. Hidden files
    are ignored."""
    if problem := check_sizes(folder, manifest):
        return problem
    for name, digest in manifest["outputs"].items():
        try:
            found = hash_file(folder / name)
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if found != digest:
            return f"{name} has the hash {found[:16]}, expected {digest[:16]}"
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and name.as_posix() not in (MANIFEST, *manifest["outputs"]) and not name.name.startswith("."):
            return f"it holds {name}, which its manifest does not name"
    return ""


def load_array(path: Path, *, length: int | None = None) -> np.ndarray:
    """Memory-map a `.npy` file read-only.

    Args:
        path: the file.
        length: expected size of the first axis.

    Raises:
        StaleError: missing, damaged, or of another length.
    """
    of_header = (SyntaxError, tokenize.TokenError)  # NumPy reads the header as Python
    with reading(path, OSError, ValueError, EOFError, *of_header):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if length is not None and array.shape[0] != length:
        raise StaleError(
            f"{path}: expected {length:,} values, got {array.shape[0]:,}; rebuild it with `ifguide run NAME --force"
            " STAGE`"
        )
    return array


class ArrayWriter:
    """Appends to a one-dimensional `.npy` file of unknown length; close it with `close`."""

    def __init__(self, path: Path, dtype):
        self._dtype = np.dtype(dtype)
        self._stream = path.open("wb")
        self._length = 0
        self._header_bytes = self._write_header()

    def append(self, values: np.ndarray) -> None:
        """Add values, cast to the file's type."""
        self._stream.write(np.ascontiguousarray(values, dtype=self._dtype).tobytes())
        self._length += len(values)

    def close(self) -> None:
        """Write the final length into the header and close the file."""
        with self._stream:
            self._stream.seek(0)
            if self._write_header() != self._header_bytes:  # NumPy pads the header so that a longer length fits
                raise RuntimeError("the .npy header grew over the data; this NumPy version pads it too little")

    def _write_header(self) -> int:
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(self._stream, header)
        return self._stream.tell()


def save_blocks(blocks: Iterable[np.ndarray], path: Path, dtype) -> None:
    """Write arrays end to end as one `.npy` file, one at a time in memory."""
    writer = ArrayWriter(path, dtype)
    try:
        for block in blocks:
            writer.append(block)
    finally:
        writer.close()


def save_tensors(tensors: dict, path: Path) -> None:
    """Write named torch tensors as safetensors, on the CPU and contiguous."""
    from safetensors.torch import save_file

    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def load_tensors(path: Path, device: str = "cpu") -> dict:
    """Read a safetensors file of ours.

    Raises:
        StaleError: missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with reading(path, SafetensorError, OSError):
        return load_file(path, device=device)


def read_table(path: Path):
    """Read a Parquet file of ours as an Arrow table.

    Raises:
        StaleError: missing or damaged.
    """
    import pyarrow as pa
    from pyarrow import parquet

    with reading(path, pa.ArrowException, OSError, ValueError):
        return parquet.read_table(path)

"""Typed files on disk: atomic writing, content hashes, manifests, memory-mapped reading.

An artefact is a folder. It is built beside its place as `<name>.partial-<pid>-<random>`, and renamed when it is whole,
so a folder under its own name is always complete. Its `manifest.json` names what it was made from and the hash of each
of its files.
"""

import contextlib
import errno
import functools
import hashlib
import json
import math
import os
import platform
import secrets
import shutil
import sys
import time
import tokenize
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import psutil

from ifguide.errors import StaleError
from ifguide.storage.peak_memory import read_peak, reset_peak

SCHEMA = 1
"""Version of the layout and meaning of artefacts; a change makes older ones stale."""

MANIFEST = "manifest.json"
NOTES = "notes.json"
"""A plain JSON object that a stage may write about its run; the manifest repeats it as `notes`."""
TRAINING_LOG = "training_log.jsonl"
RECORDS = (TRAINING_LOG,)
"""Files for people that no stage reads. They hold clock times, so two equal runs differ in them."""
_COMPUTING = ("ifguide", "torch", "transformers", "tokenizers", "accelerate", "datasets")
_READING = ("safetensors", "pyarrow", "pandas", "numpy", "scikit-learn")


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_json(value) -> str:
    """SHA-256 of a plain value's canonical JSON, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def write_json(path: Path, value) -> None:
    """Write JSON so that readers see the old file or the new one, never half of one."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")
        sync(temporary)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a hidden place beside `path` for a new file or folder. It replaces `path` when the block ends, and is
    removed when the block raises. (A folder can only replace an empty folder or nothing.)"""
    temporary = temporary_place(path)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        _remove(temporary)
        raise


def temporary_place(path: Path) -> Path:
    """A hidden place beside `path` that no other write has; `remove_temporaries` knows whether its writer lives."""
    return path.with_name(f".{path.name}.{_name_write()}.tmp")


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes were writing with `replacing` directly in this folder."""
    for path in folder.glob(".*.tmp"):
        if _is_abandoned(path, path.name.split(".")[-2]):
            _remove(path)


def _name_write() -> str:
    return f"{os.getpid()}-{secrets.token_hex(4)}"


def _is_abandoned(path: Path, write: str) -> bool:
    """Whether the process that wrote it is gone. One of its number that began later is another."""
    try:
        return psutil.Process(int(write.partition("-")[0])).create_time() > path.lstat().st_ctime + 1
    except psutil.NoSuchProcess:
        return True
    except (ValueError, OSError):  # not a name of ours, or gone meanwhile
        return False


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


@contextlib.contextmanager
def reading(path: Path, *errors: type[Exception], stage: str = "STAGE") -> Iterator[None]:
    """Turn `errors`, which a reader raises for a damaged file, into a `StaleError` that says to build `stage` again."""
    try:
        yield
    except FileNotFoundError as error:
        raise StaleError(f"{path} is missing; run the study again with `ifguide run NAME`") from error
    except errors as error:
        raise StaleError(f"{path} is damaged ({error}); rebuild it with `ifguide run NAME --force {stage}`") from error


def read_json(path: Path):
    """Read a JSON file of ours; a StaleError if it is missing or damaged."""
    with reading(path, json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return json.loads(path.read_text(encoding="utf-8"))


def read_part(folder: Path, name: str):
    """Read file `name` of an artefact as JSON; a StaleError if it is missing or damaged. Its hash is checked, because
    damaged JSON may still be valid JSON, unless the artefact has no manifest yet."""
    value = read_json(folder / name)
    expected = (read_manifest(folder) or {"outputs": {}})["outputs"].get(name)
    with reading(folder / name, ValueError):
        if expected and hash_file(folder / name) != expected:
            raise ValueError("its hash is not that of the manifest")
    return value


def read_manifest(folder: Path) -> dict | None:
    """The manifest of an artefact, or None when the artefact is missing or its manifest is unreadable."""
    with contextlib.suppress(StaleError):
        manifest, parts = read_json(folder / MANIFEST), ("inputs", "config", "outputs")
        if isinstance(manifest, dict) and all(isinstance(manifest.get(part), dict) for part in parts):
            return manifest
    return None


def digest_of(manifest: dict) -> str:
    """What an artefact's readers name as their input: one hash over the hashes of its files, `RECORDS` left out."""
    return hash_json({name: digest for name, digest in manifest["outputs"].items() if name not in RECORDS})


@functools.cache
def library_versions() -> dict[str, str]:
    """Versions of what computes the numbers, for the manifest. Imports nothing. Looked up once: it takes 50 ms."""
    versions = {"python": platform.python_version()}
    for name in _COMPUTING + _READING:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def describe_machine() -> dict[str, str | int]:
    """What affects the last digits of computed numbers: `system`, `processor`, `processes`, and where torch is loaded
    `threads` and `gpu`. Imports nothing: a stage that used a GPU has torch loaded."""
    machine: dict[str, str | int] = {"system": platform.system(), "processor": platform.machine()}
    machine["processes"] = int(os.environ.get("WORLD_SIZE") or 1)
    if torch := sys.modules.get("torch"):
        machine["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            machine["gpu"] = torch.cuda.get_device_name()
    return machine


@contextlib.contextmanager
def building(folder: Path, *, stage: str, inputs: dict, config: dict) -> Iterator[Path]:
    """Build an artefact: yields an empty folder to write into; on leaving, adds the manifest, with the hashes of all
    `inputs` by name and the settings, and moves it into place. When the block raises, the partial folder is removed and
    `folder` is as it was."""
    started, clock = time.time(), time.monotonic()  # the wall clock may be set back meanwhile
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{folder.name}.partial-{_name_write()}")
    remove_partials(folder)
    partial.mkdir()
    reset_peak()
    try:
        yield partial
        files = {p.relative_to(partial).as_posix(): p for p in sorted(partial.rglob("*")) if p.is_file()}
        for path in files.values():
            sync(path)
        manifest = {
            "schema": SCHEMA,
            "stage": stage,
            "inputs": inputs,
            "config": config,
            "outputs": {name: hash_file(path) for name, path in files.items()},
            "bytes": {name: path.stat().st_size for name, path in files.items()},
            "seconds": round(time.monotonic() - clock, 3),
            "peak": read_peak(),
            "created": round(started, 3),
            "versions": library_versions(),
            "machine": describe_machine(),
        }
        if (partial / NOTES).is_file():
            manifest["notes"] = read_json(partial / NOTES)
        write_json(partial / MANIFEST, manifest)
        while not replace_folder(folder, partial):
            pass
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def replace_folder(folder: Path, new: Path) -> bool:
    """Put the folder `new` in the place of `folder`, if there is one; False: another writer's came between, try again.
    After a kill in the moment without a folder `remove_partials` puts the old one back."""
    old = folder.with_name(f"{folder.name}.old-{_name_write()}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        with contextlib.suppress(FileNotFoundError):
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
    sync(folder.parent)
    return True


def remove_partials(folder: Path) -> None:
    """Remove what killed builds of this artefact left behind; put an old copy back if its successor never arrived."""
    for path in sorted(folder.parent.glob(f"{folder.name}.*-*")):
        kind, _, write = path.name.removeprefix(f"{folder.name}.").partition("-")
        if kind not in ("partial", "old") or not _is_abandoned(path, write):
            continue
        if kind == "old" and not folder.exists():
            path.rename(folder)
        else:
            shutil.rmtree(path, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_sizes(folder: Path, manifest: dict) -> str:
    """Compare the sizes of an artefact's files with its manifest; returns what is wrong, or an empty string."""
    for name, size in manifest.get("bytes", {}).items():
        try:
            actual = (folder / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if actual != size:
            return f"{name} has {actual:,} bytes, expected {size:,}"
    return ""


def check_hashes(folder: Path, manifest: dict) -> str:
    """Hash an artefact's files and compare with its manifest; returns what is wrong, or an empty string. Hidden files
    are ignored."""
    if problem := check_sizes(folder, manifest):
        return problem
    for name, digest in manifest["outputs"].items():
        try:
            actual = hash_file(folder / name)
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if actual != digest:
            return f"{name} has the hash {actual[:16]}, expected {digest[:16]}"
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and name.as_posix() not in (MANIFEST, *manifest["outputs"]) and not name.name.startswith("."):
            return f"it holds {name}, which its manifest does not name"
    return ""


def load_array(path: Path, *, length: int | None = None) -> np.ndarray:
    """Memory-map a `.npy` file read-only; a StaleError if it is missing, damaged, or its first axis is not `length`."""
    of_header = (SyntaxError, tokenize.TokenError)  # NumPy reads the header as Python
    with reading(path, OSError, ValueError, EOFError, *of_header):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if length is not None and array.shape[0] != length:
            raise ValueError(f"expected {length:,} values, got {array.shape[0]:,}")
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
    with contextlib.closing(ArrayWriter(path, dtype)) as writer:
        for block in blocks:
            writer.append(block)


def save_tensors(tensors: dict, path: Path) -> None:
    """Write named torch tensors as safetensors, on the CPU and contiguous."""
    from safetensors.torch import save_file

    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


class TensorWriter:
    """Writes one safetensors file tensor by tensor, so that they are never in memory together. The file has the bytes
    that `save_tensors` would give it. As a context it closes the file; all tensors must be written by then.

    Args:
        shapes: of each tensor by name.
        dtype: torch's, of all of them: float32, float64, bfloat16 or float16.
    """

    def __init__(self, path: Path, shapes: dict[str, tuple[int, ...]], dtype):
        kind = {"float32": "F32", "float64": "F64", "bfloat16": "BF16", "float16": "F16"}[str(dtype).split(".")[1]]
        header, end = {}, 0
        for name, shape in sorted(shapes.items()):
            start, end = end, end + dtype.itemsize * math.prod(shape)
            header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self._header, self._dtype, self._due, self._data = header, dtype, set(shapes), 8 + len(text)
        self._stream = path.open("wb")
        self._stream.write(len(text).to_bytes(8, "little") + text)

    def __enter__(self) -> "TensorWriter":
        return self

    def __exit__(self, error: type | None, *_) -> None:
        self._stream.close()
        if self._due and error is None:
            raise RuntimeError(f"{len(self._due)} tensors were not written, such as {min(self._due)}")

    def write(self, name: str, tensor) -> None:
        """Put a tensor, of any device, in its place. A RuntimeError: another shape or dtype was announced."""
        import torch

        announced = self._header[name]
        if list(tensor.shape) != announced["shape"] or tensor.dtype != self._dtype:
            got = f"{list(tensor.shape)} in {tensor.dtype}"
            raise RuntimeError(f"{name}: expected {announced['shape']} in {self._dtype}, got {got}")
        self._stream.seek(self._data + announced["data_offsets"][0])
        self._stream.write(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        self._due.discard(name)


def load_tensors(path: Path, device: str = "cpu", names: Iterable[str] | None = None) -> dict:
    """Read a safetensors file of ours, or the tensors `names` of it; a StaleError if it is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    with reading(path, SafetensorError, OSError), safe_open(path, "pt", device=device) as stream:
        return {name: stream.get_tensor(name) for name in (stream.keys() if names is None else names)}


def tensor_names(path: Path) -> list[str]:
    """The names in a safetensors file of ours; errors as `load_tensors`."""
    from safetensors import SafetensorError, safe_open

    with reading(path, SafetensorError, OSError), safe_open(path, "pt") as stream:
        return list(stream.keys())


def read_table(path: Path, **part):
    """Read a Parquet file of ours, or `part` of it, as an Arrow table; a StaleError if it is missing or damaged."""
    import pyarrow as pa
    from pyarrow import parquet

    with reading(path, pa.ArrowException, OSError, ValueError):
        return parquet.read_table(path, **part)

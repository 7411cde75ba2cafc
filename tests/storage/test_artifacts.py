"""An artefact under its own name is always whole, and knows what it was made from."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from ifguide.errors import InputError, StaleError
from ifguide.storage import artifacts, fingerprints
from ifguide.storage.artifacts import building, check_sizes, digest_of, load_array, load_tensors, read_manifest
from ifguide.storage.fingerprints import Fingerprints
from tests.naming import naming


def build(folder: Path, text: str = "hello", **options) -> dict:
    settings = {"stage": "corpus", "inputs": {"file corpus": "abc"}, "config": {"corpus.path": "x"}} | options
    with building(folder, **settings) as partial:
        (partial / "part").mkdir()
        (partial / "part" / "text.txt").write_text(text)
        (partial / "numbers.npy").write_bytes(b"123")
    return read_manifest(folder)


def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


class TestBuilding:
    def test_the_manifest_names_inputs_settings_and_every_file(self, tmp_path):
        manifest = build(tmp_path / "corpus")
        assert manifest["inputs"] == {"file corpus": "abc"}
        assert manifest["config"] == {"corpus.path": "x"}
        assert (manifest["stage"], manifest["schema"]) == ("corpus", artifacts.SCHEMA)
        hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # SHA-256 of `hello`
        assert manifest["outputs"]["part/text.txt"] == hello
        assert manifest["bytes"] == {"part/text.txt": 5, "numbers.npy": 3}
        assert manifest["versions"]["numpy"] == np.__version__
        assert names(tmp_path) == ["corpus"]

    def test_nothing_lies_under_the_name_before_it_is_whole(self, tmp_path):
        folder = tmp_path / "deep" / "corpus"
        with building(folder, stage="corpus", inputs={}, config={}) as partial:
            (partial / "a").write_text("a")
            assert not folder.exists()
            assert partial.parent == folder.parent
        assert (folder / "a").read_text() == "a"

    def test_an_error_leaves_the_old_one_as_it_was(self, tmp_path):
        def fail(error):
            with building(tmp_path / "corpus", stage="corpus", inputs={}, config={}) as partial:
                (partial / "a").write_text("half")
                raise error

        build(tmp_path / "corpus", "old")
        before = (tmp_path / "corpus" / "manifest.json").read_bytes()
        for error in (ValueError, KeyboardInterrupt, SystemExit):
            with naming(error):
                with pytest.raises(error):
                    fail(error)
                assert names(tmp_path) == ["corpus"]
                assert (tmp_path / "corpus" / "manifest.json").read_bytes() == before
                assert (tmp_path / "corpus" / "part" / "text.txt").read_text() == "old"

    def test_an_error_in_the_manifest_leaves_nothing_half(self, tmp_path):
        build(tmp_path / "corpus", "old")
        with pytest.raises(ValueError, match="JSON"):
            build(tmp_path / "corpus", "new", config={"x": float("nan")})
        assert names(tmp_path) == ["corpus"]
        assert (tmp_path / "corpus" / "part" / "text.txt").read_text() == "old"

    def test_the_new_one_replaces_the_old_one_whole(self, tmp_path):
        build(tmp_path / "corpus", "old")
        (tmp_path / "corpus" / "stray").write_text("not in the new one")
        with building(tmp_path / "corpus", stage="corpus", inputs={}, config={}) as partial:
            (partial / "a").write_text("new")
            assert (tmp_path / "corpus" / "part" / "text.txt").read_text() == "old"  # readers still have it
        assert names(tmp_path) == ["corpus"]
        assert names(tmp_path / "corpus") == ["a", "manifest.json"]

    def test_what_a_killed_build_left_is_cleared_away(self, tmp_path):
        code = """
import os, signal, sys
from pathlib import Path
from ifguide.storage.artifacts import building
with building(Path(sys.argv[1]), stage="corpus", inputs={}, config={}) as partial:
    (partial / "a").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "corpus")], capture_output=True, timeout=60)
        assert done.returncode == -9
        (left,) = names(tmp_path)
        assert left.startswith("corpus.partial-")
        assert read_manifest(tmp_path / "corpus") is None
        build(tmp_path / "corpus")
        assert names(tmp_path) == ["corpus"]

    def test_leftovers_of_other_artefacts_are_not_touched(self, tmp_path):
        for name in ("corpus2.partial-1", "corpus.backup", "partial-1"):
            (tmp_path / name).mkdir()
        build(tmp_path / "corpus")
        assert names(tmp_path) == ["corpus", "corpus.backup", "corpus2.partial-1", "partial-1"]

    def test_a_kill_between_the_two_renames_loses_nothing(self, tmp_path):
        build(tmp_path / "corpus", "old")
        (tmp_path / "corpus").rename(tmp_path / f"corpus.old-{dead_process()}-0a")
        (tmp_path / f"corpus.partial-{dead_process()}").mkdir()
        artifacts.remove_partials(tmp_path / "corpus")
        assert names(tmp_path) == ["corpus"]
        assert (tmp_path / "corpus" / "part" / "text.txt").read_text() == "old"

    def test_a_kill_after_the_two_renames_keeps_the_new_one(self, tmp_path):
        build(tmp_path / "corpus", "new")
        (tmp_path / f"corpus.old-{dead_process()}-0a").mkdir()
        artifacts.remove_partials(tmp_path / "corpus")
        assert names(tmp_path) == ["corpus"]
        assert (tmp_path / "corpus" / "part" / "text.txt").read_text() == "new"


def test_a_file_or_folder_is_replaced_whole_and_a_killed_writers_is_removed(tmp_path):
    makers = {"file": Path.write_text, "folder": lambda place, text: (place / text).mkdir(parents=True)}

    def stop(name):
        with artifacts.replacing(tmp_path / name) as temporary:
            makers[name](temporary, "half")
            raise ValueError("stop")

    for name, make in makers.items():
        with pytest.raises(ValueError, match="stop"):
            stop(name)
        assert names(tmp_path) == ["file"][: name == "folder"]
        with artifacts.replacing(tmp_path / name) as temporary:
            make(temporary, "whole")
            assert not (tmp_path / name).exists()
    assert (tmp_path / "file").read_text() == "whole" and names(tmp_path / "folder") == ["whole"]
    for name, make in makers.items():
        for process in (dead_process(), os.getpid()):
            make(tmp_path / f".{name}.{process}-0a.tmp", "half")
    artifacts.remove_temporaries(tmp_path)
    assert names(tmp_path) == [f".file.{os.getpid()}-0a.tmp", f".folder.{os.getpid()}-0a.tmp", "file", "folder"]


def test_a_later_process_of_the_same_number_is_not_the_writer(tmp_path, monkeypatch):
    build(tmp_path / "corpus")
    (tmp_path / "corpus").rename(tmp_path / f"corpus.old-{os.getpid()}-0a")
    (tmp_path / f".file.{os.getpid()}-0a.tmp").touch()
    for later, left in ((0, 2), (60, 1)):
        began = time.time() + later
        monkeypatch.setattr(psutil.Process, "create_time", lambda self, began=began: began)
        artifacts.remove_partials(tmp_path / "corpus")
        artifacts.remove_temporaries(tmp_path)
        assert len(names(tmp_path)) == left
    assert names(tmp_path) == ["corpus"]


SAVES = """
import json, sys, threading
from pathlib import Path
from ifguide.storage import artifacts

folder, process = Path(sys.argv[1]), int(sys.argv[2])
failures = []


def save(thread):
    try:
        for n in range(5):
            value = [process, thread, n] * 500
            artifacts.write_json(folder / "settings.json", value)
            artifacts.write_json(folder / f"own-{process}-{thread}-{n}.json", value)
            with artifacts.building(folder / "selection", stage="selection", inputs={}, config={}) as partial:
                (partial / "mask").write_text(json.dumps(value))
    except BaseException as error:
        failures.append(f"{type(error).__name__}: {error}")


threads = [threading.Thread(target=save, args=(n,)) for n in range(10)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
sys.exit("; ".join(failures) or 0)
"""


def test_two_hundred_saves_at_once_lose_nothing_and_no_reader_sees_half_of_one(tmp_path):
    """Four processes of ten threads save one file, one artefact and a file of their own five times each."""
    artifacts.write_json(tmp_path / "settings.json", [])
    writers = [
        subprocess.Popen([sys.executable, "-c", SAVES, str(tmp_path), str(n)], stderr=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        value = artifacts.read_json(tmp_path / "settings.json")  # a StaleError: it is torn
        assert value == value[:3] * 500 or not value
        reads += 1
    assert [writer.communicate()[1] for writer in writers] == [""] * 4 and reads > 100
    assert len([*tmp_path.glob("own-*.json")]) == 200
    assert names(tmp_path)[-2:] == ["selection", "settings.json"] and len(names(tmp_path)) == 202
    assert artifacts.check_hashes(tmp_path / "selection", read_manifest(tmp_path / "selection")) == ""


class TestHashes:
    def test_digest_hangs_on_names_and_contents_alone(self, tmp_path):
        one, same = build(tmp_path / "one"), build(tmp_path / "same", config={"other": 1}, inputs={})
        other = build(tmp_path / "other", "hallo")
        assert digest_of(one) == digest_of(same)
        assert digest_of(one) != digest_of(other)

    def test_a_log_with_times_in_it_does_not_change_the_digest(self):
        outputs = {"final/model.safetensors": "a"}
        assert digest_of({"outputs": outputs}) == digest_of({"outputs": outputs | {"training_log.jsonl": "b"}})
        assert digest_of({"outputs": outputs}) != digest_of({"outputs": outputs | {"final/config.json": "b"}})

    def test_json_is_hashed_whatever_the_order_of_its_keys(self):
        assert artifacts.hash_json({"a": 1, "b": "é"}) == artifacts.hash_json({"b": "é", "a": 1})
        assert artifacts.hash_json({"a": 1}) != artifacts.hash_json({"a": "1"})


def test_an_unreadable_manifest_is_none(tmp_path):
    for content in ["", "{", "[]", '{"inputs": {}}', "\xff"]:
        with naming(repr(content)):
            (tmp_path / "manifest.json").write_bytes(content.encode("latin-1"))
            assert read_manifest(tmp_path) is None
            assert read_manifest(tmp_path / "nothing") is None


def test_check_sizes_names_what_is_missing_or_cut_short(tmp_path):
    manifest = build(tmp_path / "corpus")
    assert check_sizes(tmp_path / "corpus", manifest) == ""
    (tmp_path / "corpus" / "numbers.npy").write_bytes(b"12")
    assert check_sizes(tmp_path / "corpus", manifest) == "numbers.npy has 2 bytes, expected 3"
    (tmp_path / "corpus" / "numbers.npy").unlink()
    assert check_sizes(tmp_path / "corpus", manifest) == "numbers.npy is missing"


class TestReading:
    @pytest.fixture
    def array(self, tmp_path):
        path = tmp_path / "scores.npy"
        np.save(path, np.arange(100, dtype=np.float32))
        return path

    def test_an_array_is_mapped_read_only(self, array):
        found = load_array(array, length=100)
        assert isinstance(found, np.memmap)
        np.testing.assert_array_equal(found, np.arange(100))
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 1

    def test_a_cut_array_is_damaged(self, array):
        whole = array.read_bytes()
        for size in (0, 5, 60, 200):
            array.write_bytes(whole[:size])
            damaged = pytest.raises(StaleError, match=r"scores\.npy is damaged .*`ifguide run NAME --force STAGE`")
            with naming(size), damaged:
                load_array(array)

    @pytest.mark.filterwarnings("ignore")  # Python's, of what the header has become
    def test_every_flipped_bit_of_the_header_gives_an_array_or_an_error_of_ours(self, array):
        whole, refused = array.read_bytes(), 0
        for bit in range(8 * 128):
            data = bytearray(whole)
            data[bit // 8] ^= 1 << bit % 8
            array.write_bytes(data)
            try:
                load_array(array)
            except StaleError:
                refused += 1
        assert refused > 900

    def test_a_missing_array_names_the_command(self, tmp_path):
        with pytest.raises(StaleError, match=r"scores\.npy is missing; run the study again with `ifguide run NAME`"):
            load_array(tmp_path / "scores.npy")

    def test_another_length_is_refused(self, array):
        with pytest.raises(StaleError, match="expected 1,000 values, got 100"):
            load_array(array, length=1000)

    def test_objects_are_not_unpickled(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        with pytest.raises(StaleError, match="is damaged"):
            load_array(tmp_path / "a.npy")

    def test_tensors_come_back_as_they_were(self, tmp_path):
        import torch

        tensors = {"a.weight": torch.arange(6.0).view(2, 3).T, "b": torch.ones(2, dtype=torch.float64)}
        artifacts.save_tensors(tensors, tmp_path / "t.safetensors")
        found = load_tensors(tmp_path / "t.safetensors")
        assert found.keys() == tensors.keys()
        assert all(
            torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in tensors
        )

    def test_cut_tensors_are_damaged_and_missing_ones_missing(self, tmp_path):
        import torch

        path = tmp_path / "t.safetensors"
        with pytest.raises(StaleError, match="is missing"):
            load_tensors(path)
        artifacts.save_tensors({"a": torch.ones(40)}, path)
        whole = path.read_bytes()
        for size in (0, 5, 60, 120):
            path.write_bytes(whole[:size])
            with naming(size), pytest.raises(StaleError, match="is damaged"):
                load_tensors(path)

    def test_json_is_written_whole_and_read_with_the_place_of_damage(self, tmp_path):
        path = tmp_path / "a.json"
        artifacts.write_json(path, {"a": "é"})
        assert artifacts.read_json(path) == {"a": "é"}
        with pytest.raises(ValueError, match="JSON"):
            artifacts.write_json(path, {"a": float("nan")})
        assert artifacts.read_json(path) == {"a": "é"}
        path.write_text('{"a": ')
        with pytest.raises(StaleError, match=r"a\.json is damaged .*line 1"):
            artifacts.read_json(path)


class TestFingerprints:
    def test_a_file_is_known_by_size_and_time_and_read_once(self, tmp_path, monkeypatch):
        file, memory = tmp_path / "corpus.jsonl", tmp_path / ".fingerprints.json"
        file.write_text("one")
        read = []
        real = artifacts.hash_file
        monkeypatch.setattr(fingerprints, "hash_file", lambda path: read.append(path.name) or real(path))
        first = Fingerprints(memory).of(file)
        assert Fingerprints(memory).of(file) == first
        assert read == ["corpus.jsonl"]
        os.utime(file, ns=(1, 1))
        assert Fingerprints(memory).of(file) == first  # read again, the same inside
        file.write_text("two")
        os.utime(file, ns=(2, 2))
        assert Fingerprints(memory).of(file) != first
        assert read == ["corpus.jsonl"] * 3

    def test_the_memory_is_only_a_memory(self, tmp_path):
        file = tmp_path / "corpus.jsonl"
        file.write_text("one")
        first = Fingerprints(tmp_path / "memory.json").of(file)
        (tmp_path / "memory.json").write_text("{broken")
        assert Fingerprints(tmp_path / "memory.json").of(file) == first
        assert json.loads((tmp_path / "memory.json").read_text())  # written again
        assert Fingerprints(tmp_path / "no such folder" / "memory.json").of(file) == first

    def test_a_folder_by_its_files_their_places_and_contents(self, tmp_path):
        def fingerprint(names=()):
            return Fingerprints(tmp_path / "memory.json").of(tmp_path / "model", names)

        (tmp_path / "model" / "a").mkdir(parents=True)
        (tmp_path / "model" / "config.json").write_text("{}")
        (tmp_path / "model" / "a" / "weights").write_text("w")
        whole, only = fingerprint(), fingerprint(("config.json",))
        (tmp_path / "model" / ".cache").mkdir()
        (tmp_path / "model" / ".cache" / "x").write_text("hidden")
        assert fingerprint() == whole
        (tmp_path / "model" / "a").rename(tmp_path / "model" / "b")
        assert fingerprint() != whole
        assert fingerprint(("config.json",)) == only
        (tmp_path / "model" / "config.json").write_text("{ }")
        assert fingerprint(("config.json",)) != only

    def test_a_file_that_is_gone_is_named(self, tmp_path):
        with pytest.raises(InputError, match=r"corpus\.jsonl is not there any more; put it back or change study\.toml"):
            Fingerprints(tmp_path / "memory.json").of(tmp_path / "corpus.jsonl")


def test_a_file_written_tensor_by_tensor_has_the_bytes_of_one_written_at_once(tmp_path):
    import torch

    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        tensors = {f"é.{n}|w": torch.randn(n, 3, generator=generator).to(dtype) for n in (2, 10, 1)}
        artifacts.save_tensors(tensors, tmp_path / "once")
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        with artifacts.TensorWriter(tmp_path / "one-by-one", shapes, dtype) as file:
            for name in reversed(list(tensors)):
                file.write(name, tensors[name].T.contiguous().T)
        assert (tmp_path / "once").read_bytes() == (tmp_path / "one-by-one").read_bytes()
        assert artifacts.tensor_names(tmp_path / "once") == sorted(tensors)
        (found,) = load_tensors(tmp_path / "once", names=["é.10|w"]).values()
        assert torch.equal(found, tensors["é.10|w"])


def test_a_tensor_that_was_not_announced_so_or_is_missing_is_an_error(tmp_path):
    import torch

    refused = pytest.raises(RuntimeError, match=r"a: expected \[2\] in torch.float32, got \[3\]")
    with refused, artifacts.TensorWriter(tmp_path / "t", {"a": (2,)}, torch.float32) as file:
        file.write("a", torch.zeros(3))
    refused = pytest.raises(RuntimeError, match="1 tensors were not written, such as b")
    with refused, artifacts.TensorWriter(tmp_path / "t", {"a": (2,), "b": (1,)}, torch.float32) as file:
        file.write("a", torch.zeros(2))

"""A study as one file: what it holds, how it opens, what it refuses."""

import contextlib
import errno
import itertools
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.errors import InputError, StaleError, describe_error
from ifguide.runtime.jobs import enqueue_job
from ifguide.selection.verdicts import Target, VerdictLog
from ifguide.storage.lock import RECORD
from ifguide.study.analysis.document_map import read_map
from ifguide.study.folder import list_studies
from ifguide.study.freshness import stage_states
from ifguide.study.lineage import Unit
from ifguide.study.planning.model_facts import known_facts
from ifguide.study.reading import Study
from ifguide.study.sharing.packed import pack_study, unpack_study
from ifguide.study.stages.checkpoints import load_checkpoint, start_model, study_tokenizer
from tests.app.fake_study import write_map, write_study
from tests.faults.killing import CHANGES


@pytest.fixture
def packed(tmp_path):
    study = write_study(tmp_path / "mine")
    (study.folder(Unit("model")) / "tokenizer.json").write_text("{}")  # as beside weights that were saved
    write_map(study)
    return study, pack_study(study, tmp_path / "fake.ifguide")


def test_a_packed_study_opens_with_all_that_pages_read_and_no_place_of_the_machine(packed, tmp_path):
    study, file = packed
    with zipfile.ZipFile(file) as content:
        assert not [name for name in content.namelist() if name.endswith(".safetensors") or "tokenizer" in name]
        texts = [content.read(name) for name in content.namelist() if name.endswith((".json", ".toml"))]
    assert not [text for text in texts if str(tmp_path).encode() in text]
    name = unpack_study(file, tmp_path / "theirs")
    opened = Study.open(name, tmp_path / "theirs")
    assert np.array_equal(opened.selection().mask, study.selection().mask)
    assert opened.metrics("base") == study.metrics("base")
    np.testing.assert_array_equal(read_map(opened), read_map(study))
    assert {state.state for state in stage_states(opened).values()} <= {"fresh", "missing"}
    assert unpack_study(file, tmp_path / "theirs") == name  # opened again, it replaces itself


def test_the_showcase_knows_the_model_that_it_was_recorded_with(tmp_path):
    name = unpack_study(Path(__file__).parents[2] / "docs" / "showcase.ifguide", tmp_path)
    assert known_facts(Study.open(name, tmp_path)).family == "LlamaForCausalLM"


def test_the_showcase_is_made_whole_and_beside_the_recorded_one():
    make = ["make", "-n", "-o", "smollm2", "showcase", "CACHE=there"]
    done = subprocess.run(make, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    commands = re.findall(r"(\S+) \S+ -m ifguide (\w+) showcase(.*)", done.stdout)
    assert [command for _, command, _ in commands] == ["new", "run", "pack"]
    assert {place for place, _, _ in commands} == {"IFGUIDE_CACHE=there/recording"}
    assert commands[-1][2].startswith(" --complete")


def test_a_packed_study_is_only_read(packed, tmp_path):
    name = unpack_study(packed[1], tmp_path / "theirs")
    root = tmp_path / "theirs" / name
    with pytest.raises(InputError, match="read-only"):
        enqueue_job(name, ["run", name], root.parent)
    assert (
        "read-only" in CliRunner(env={"IFGUIDE_CACHE": str(root.parent)}).invoke(app, ["run", name]).exception.args[0]
    )


def test_verdicts_on_a_packed_study_are_kept_beside_it(tmp_path):
    study = write_study(tmp_path / "mine")
    VerdictLog(study.root).decide(Target("doc-000"), "toxic", by="ann")
    file, cache = pack_study(study, tmp_path / "fake.ifguide"), tmp_path / "theirs"
    root = cache / unpack_study(file, cache)
    before = (root / "verdicts.jsonl").read_bytes()
    log = VerdictLog(root)
    log.decide(Target("doc-000"), "fine", by="ben")
    log.decide(Target("doc-001"), "fine", by="ben")
    assert log.undo("ben") == Target("doc-001") and log.undo("ann") is None, "what was recorded is not undone"
    unpack_study(file, cache)
    assert (root / "verdicts.jsonl").read_bytes() == before and list_studies(cache) == [root.name]
    again = VerdictLog(root)
    assert again.opinions(Target("doc-000")) == {"ann": ("toxic", ""), "ben": ("fine", "")}
    assert again.disputed() == {"doc-000"} and not again.opinions(Target("doc-001"))
    assert again.path == cache / "fake.verdicts.jsonl"


def test_what_is_no_packed_study_is_refused_and_leaves_nothing(packed, tmp_path):
    cache = tmp_path / "theirs"
    (tmp_path / "text.ifguide").write_text("no zip")
    with pytest.raises(InputError, match="is no packed study"):
        unpack_study(tmp_path / "text.ifguide", cache)
    for bad in ("../outside.json", "/outside.json", "run.py"):
        with zipfile.ZipFile(tmp_path / "bad.ifguide", "w") as file:
            file.writestr(RECORD, '{"name": "fake"}')
            file.writestr(bad, "{}")
        with pytest.raises(InputError, match="holds files that no packed study has"):
            unpack_study(tmp_path / "bad.ifguide", cache)
    assert not cache.exists() and not (tmp_path / "outside.json").exists()


def make_small(path: Path, text: str = "{}", **parts: str) -> Path:
    """A packed study without anything in it that pages read."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in {RECORD: '{"name": "fake"}', "study.toml": "", "corpus/text.json": text, **parts}.items():
            file.writestr(name, content)
    return path


def test_a_damaged_encrypted_or_too_deep_file_is_refused_in_one_line(tmp_path):
    cache, bad = tmp_path / "theirs", tmp_path / "bad.ifguide"
    whole, deep = make_small(bad, "some text " * 20).read_bytes(), "[" * 100_000
    encrypted = whole.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01")
    assert encrypted != whole
    parts = ({"study.toml": f"x = {deep}"}, {RECORD: f'{{"name": {deep}'}, {RECORD: "{}"}, {"study.toml": "x = 1"})
    cases = [encrypted, *(make_small(bad, **part).read_bytes() for part in parts)]
    cases += [whole[:length] for length in range(len(whole))]
    for case in cases:
        bad.write_bytes(case)
        with pytest.raises(InputError, match=r"^bad\.ifguide is no packed study, or it is damaged or encrypted; .*$"):
            unpack_study(bad, cache)
    for place in range(len(whole)):  # of the file's dates and attributes some do not matter
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        bad.write_bytes(changed)
        with contextlib.suppress(InputError):
            unpack_study(bad, cache)
            assert (cache / "fake" / "study.toml").read_bytes() == b""
    assert {place.name for place in cache.iterdir()} == {"fake"}


def test_a_full_disk_is_called_so(tmp_path, monkeypatch):
    def fill(self, folder):
        folder.mkdir(parents=True)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    monkeypatch.setattr(zipfile.ZipFile, "extractall", fill)
    with pytest.raises(OSError, match="No space left") as raised:
        unpack_study(make_small(tmp_path / "fake.ifguide"), tmp_path / "theirs")
    assert "the disk is full; free some space" in describe_error(raised.value)
    assert not [*(tmp_path / "theirs").iterdir()]


def open_and_die(file: Path, cache: Path, at: int) -> int:
    """Open a file in a child that is killed just before its change number `at` of the cache; how the child ended."""
    child, count = os.fork(), itertools.count()
    if child == 0:

        def hear(event, arguments):
            if event not in CHANGES or (event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)):
                return
            place = str(arguments[0])  # a folder's parts are removed by names relative to it
            if (place.startswith(str(cache)) or not os.path.isabs(place)) and next(count) == at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hear)
        try:
            unpack_study(file, cache)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_kill_at_any_moment_of_opening_again_leaves_a_study_that_opens_again(tmp_path):
    cache, moments = tmp_path / "theirs", 0
    files = [make_small(tmp_path / f"{n}.ifguide", str(n), **{"scores/text.json": str(n)}) for n in range(2)]
    unpack_study(files[0], cache)
    while open_and_die(files[1], cache, moments) == -signal.SIGKILL:
        moments += 1
        root = cache / "fake"
        if list_studies(cache):  # in the moment between two folders there is none under its name
            texts = {(root / part / "text.json").read_text() for part in ("corpus", "scores")}
            assert texts in ({"0"}, {"1"}) and (root / RECORD).is_file(), moments
        unpack_study(files[0], cache)
        assert [place.name for place in cache.iterdir()] == ["fake"], moments
        assert (root / "corpus" / "text.json").read_text() == "0"
    assert moments > 15
    assert (cache / "fake" / "scores" / "text.json").read_text() == "1"


def test_a_study_of_ones_own_is_never_replaced(packed, tmp_path):
    write_study(tmp_path / "theirs", until="corpus")
    with pytest.raises(InputError, match="of your own"):
        unpack_study(packed[1], tmp_path / "theirs")


@pytest.mark.parametrize("ask", [study_tokenizer, start_model, lambda study: load_checkpoint(study, "base")])
def test_what_needs_a_model_says_that_it_was_recorded_without_one(packed, tmp_path, ask):
    study = Study.open(unpack_study(packed[1], tmp_path / "theirs"), tmp_path / "theirs")
    with pytest.raises(StaleError, match="was recorded without its models; give this command where it was built"):
        ask(study)

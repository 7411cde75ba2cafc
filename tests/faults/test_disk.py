"""A disk that is full, a file that may not grow, a cache that can only be read: one line, and nothing lost."""

import os
import random
import subprocess

import pytest

from ifguide.study.analysis.explain import TOP
from ifguide.study.reading import Study
from tests.faults.comparing import contents, everything
from tests.faults.conftest import NAME, run_command


def check_line(answer) -> None:
    assert answer.code == 2, answer.err
    assert answer.error.startswith("error: ")
    assert "Traceback" not in answer.err


def check_whole_again(cache, undisturbed) -> None:
    again = run_command(cache, "run", NAME)
    assert again.code == 0, again.err
    built = contents(Study.open(NAME, cache))
    last = {  # what ends a run: explanations of the best documents, and the map
        start: {name for name in built if name.startswith(start)} for start in ("explanations/", "map/")
    }
    assert len(last["explanations/"]) == min(TOP, undisturbed.corpus().n_documents) and len(last["map/"]) == 3
    assert {name: built[name] for name in built.keys() - set().union(*last.values())} == contents(undisturbed)


MOMENTS = [{"full_after": after} for after in sorted(random.Random(7).sample(range(60), 12))]
PLACES = ("corpus.partial", "queries.partial", ".work/model", "factors.partial", "direction.partial", ".work/scores")
PLACES += ("index.partial", "selections/", "documents/", ".work/suppress-default", ".work/evaluate")
STAGES = [{"full_at": f"/{place}"} for place in PLACES]


@pytest.mark.slow
@pytest.mark.parametrize("moments", [STAGES, pytest.param(MOMENTS, marks=pytest.mark.thorough)])
def test_a_disk_that_fills_up_at_any_moment_stops_the_run_and_loses_nothing(undisturbed, tmp_path, moments):
    """In each stage from its first file on, or from some change of a file on, nothing more can be written: not the
    manifest, not the status, not the lock's owner."""
    Study.create(NAME, undisturbed.config, tmp_path)
    for moment in moments:  # later ones meet what earlier ones finished
        answer = run_command(tmp_path, "run", NAME, **moment)
        check_line(answer)
        assert "No space left on device; the disk is full; free some space" in answer.error
        assert str(tmp_path) in answer.error
        assert not list(tmp_path.rglob("*.partial-*"))
    check_whole_again(tmp_path, undisturbed)


@pytest.mark.slow
def test_a_file_that_may_not_grow_is_named_whatever_library_writes_it(undisturbed, tmp_path):
    """The limit stops NumPy, Arrow and safetensors in the middle of a file, each with an error of its own kind."""
    Study.create(NAME, undisturbed.config, tmp_path)
    for limit in (400, 3_000, 20_000, 60_000):
        answer = run_command(tmp_path, "run", NAME, file_bytes=limit)
        check_line(answer)
        assert "File too large; the file exceeds the size limit" in answer.error
    check_whole_again(tmp_path, undisturbed)


@pytest.mark.slow
def test_a_real_disk_that_is_full(undisturbed, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        Study.create(NAME, undisturbed.config, disk)
        answer = run_command(disk, "run", NAME)
        check_line(answer)
        assert "No space left on device; the disk is full" in answer.error
        assert not list(disk.rglob("*.partial-*"))
        larger = subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], capture_output=True)
        assert larger.returncode == 0
        check_whole_again(disk, undisturbed)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_cache_that_can_only_be_read_is_read_and_not_written(study, undisturbed):
    before, cache = everything(study), study.root.parent
    places = [cache, *(p for p in cache.rglob("*"))]
    modes = {place: place.stat().st_mode for place in places}
    for place in places:
        place.chmod(modes[place] & ~0o222)
    try:
        shown = run_command(cache, "status", NAME, no_override=True)
        assert shown.code == 0, shown.err
        assert shown.out.count(" fresh ") == 11
        checked = run_command(cache, "verify", NAME, no_override=True)
        assert checked.code == 0, checked.err
        for command in (
            ["run", NAME],
            ["run", NAME, "--force", "corpus"],
            ["run", NAME, "--background"],
            ["select", NAME, "--quantile", "0.8"],
            ["suppress", NAME],
        ):
            answer = run_command(cache, *command, no_override=True)
            check_line(answer)
            assert "Permission denied; you may not read or write it; change its permissions" in answer.error
            assert str(cache) in answer.error
    finally:
        for place in places:
            place.chmod(modes[place])
    assert everything(study) == before
    assert os.access(cache, os.W_OK)

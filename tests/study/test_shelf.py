"""Studies as a whole: what a copy holds, who may rename and remove, and that nothing outside the cache is touched."""

import pytest
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.config.io import with_values
from ifguide.config.schema import StudyConfig
from ifguide.errors import BusyError, ConfigError, IFGuideError, StudyNotFound
from ifguide.storage.artifacts import read_json, write_json
from ifguide.storage.lock import study_lock
from ifguide.study.folder import list_studies
from ifguide.study.reading import Study
from ifguide.study.shelf import delete_study, duplicate_study, measure, rename_study
from tests.app.fake_study import write_study
from tests.app.test_pages import running_job


@pytest.fixture
def cache(tmp_path):
    write_study(tmp_path / "cache", "one", until="corpus")
    return tmp_path / "cache"


def test_a_copy_has_settings_and_inputs_and_no_results(cache):
    (cache / "one" / "inputs").mkdir()
    (cache / "one" / "inputs" / "a.txt").write_text("a")
    made = duplicate_study("one", "two", cache)
    assert sorted(path.name for path in made.iterdir()) == ["inputs", "study.toml"]
    assert (made / "inputs" / "a.txt").read_text() == "a"
    assert Study.open("two", cache).config == Study.open("one", cache).config


def test_a_renamed_study_is_as_it_was(cache):
    config = Study.open("one", cache).config
    rename_study("one", "two", cache)
    assert list_studies(cache) == ["two"] and Study.open("two", cache).config == config
    assert Study.open("two", cache).corpus().n_documents > 1


def test_a_study_that_others_borrow_from_keeps_its_name(cache):
    config = with_values(Study.open("one", cache).config, {"borrowed.theirs": {"study": "one"}})
    Study.create("two", config, cache)
    Study.create("three", StudyConfig(), cache)
    (cache / "three" / "study.toml").write_text("no settings")
    with pytest.raises(ConfigError, match=r"^two borrow from 'one'; .*ifguide borrow"):
        rename_study("one", "four", cache)
    delete_study("two", cache)
    rename_study("one", "four", cache)
    assert list_studies(cache) == ["four", "three"]


@pytest.mark.parametrize("new", ["two", "../two", "", ".hidden", "a/b"])
@pytest.mark.parametrize("act", [duplicate_study, rename_study])
def test_no_name_that_is_taken_or_unsafe(cache, act, new):
    (cache / "two").mkdir()  # a folder is enough
    with pytest.raises(ConfigError):
        act("one", new, cache)
    assert list_studies(cache) == ["one"]


def test_deletion_removes_a_study_of_the_cache_and_nothing_else(cache, tmp_path):
    outside = write_study(tmp_path / "elsewhere", "far", until="queries").root
    (cache / "link").symlink_to(outside)
    (cache / "one" / "more").symlink_to(outside)
    (cache / "no-study").mkdir()
    for name in ("link", "no-study", "missing", "../elsewhere/far", "..", ""):
        with pytest.raises((StudyNotFound, ConfigError)):
            delete_study(name, cache)
    (cache / "one" / "study.toml").write_text("no settings")
    delete_study("one", cache)
    assert sorted(path.name for path in cache.iterdir()) == ["link", "no-study"]
    assert (outside / "study.toml").is_file() and (outside / "queries" / "manifest.json").is_file()


def test_nobody_renames_or_deletes_what_somebody_works_on(cache):
    for working in (study_lock(cache / "one"), running_job(Study.open("one", cache), stage="scores")):
        with working:
            for act in (lambda: delete_study("one", cache), lambda: rename_study("one", "two", cache)):
                with pytest.raises(BusyError):
                    act()
    assert list_studies(cache) == ["one"]


def test_the_command_line_asks_for_the_name_again(cache, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(cache))
    wrong = CliRunner().invoke(app, ["delete", "one"], input="two\n")
    assert isinstance(wrong.exception, IFGuideError) and list_studies(cache) == ["one"]
    assert CliRunner().invoke(app, ["duplicate", "one", "two"]).exit_code == 0
    assert CliRunner().invoke(app, ["rename", "two", "three"]).exit_code == 0
    assert CliRunner().invoke(app, ["delete", "one"], input="one\n").exit_code == 0
    assert list_studies(cache) == ["three"]


def test_size_and_change_are_those_of_the_files(cache):
    before, changed = measure(cache / "one")
    write_json(cache / "one" / "more.json", "x" * 1000)
    after, later = measure(cache / "one")
    assert after - before == len('"') * 2 + 1000 and later >= changed
    assert read_json(cache / "one" / "more.json") == "x" * 1000

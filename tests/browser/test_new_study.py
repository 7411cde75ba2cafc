"""What only a browser can do on the Studies and New study pages: menus, dialogs and the choice of a file."""

import pytest

from ifguide.study.folder import list_studies
from tests.app.fake_study import write_study
from tests.browser.conftest import needs_browser
from tests.browser.running_app import choose_veil, serve_app, visit, wait_until_still

pytestmark = needs_browser


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies") / "cache"
    write_study(folder, "one", until="corpus")
    return folder


@pytest.fixture(scope="module")
def address(cache):
    with serve_app(cache) as running:
        yield running


def choose(page, study: str, action: str):
    page.locator(f".st-key-study_{study}").get_by_role("button", name="More").click()
    page.get_by_role("menuitem", name=action).or_(page.get_by_role("option", name=action)).click()
    return page.get_by_role("dialog")


def test_a_study_is_copied_and_deleted_once_its_name_was_typed(page, address, cache):
    visit(page, address, "")
    visit(page, address, "studies")
    dialog = choose(page, "one", "Duplicate")
    dialog.get_by_role("textbox").fill("one")
    dialog.get_by_role("button", name="Duplicate", exact=True).click()
    dialog.get_by_text("exists already").wait_for()
    dialog.get_by_role("textbox").fill("two")
    dialog.get_by_text("exists already").wait_for(state="detached")
    dialog.get_by_role("button", name="Duplicate", exact=True).click()
    page.locator(".st-key-study_two").wait_for()
    assert list_studies(cache) == ["one", "two"] and "study=two" in page.url
    dialog = choose(page, "two", "Delete")
    button = dialog.get_by_role("button", name="Delete", exact=True)
    for typed, state in (("two", "enabled"), ("one", "disabled"), ("two", "enabled")):
        dialog.get_by_role("textbox").fill(typed)
        button.and_(page.locator(f":{state}")).wait_for()
    button.click()
    page.locator(".st-key-study_two").wait_for(state="detached")
    assert list_studies(cache) == ["one"]


def test_rows_of_an_upload_are_shown_apart_from_offensive_words(page, address, cache, tmp_path):
    file = tmp_path / "posts.csv"
    file.write_text("body,label\nYou are kind,0\nYou are an idiot,1\n")
    visit(page, address, "")
    visit(page, address, "new_study")
    page.get_by_role("button", name="Upload").first.click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Browse files").or_(page.get_by_test_id("stBaseButton-secondary")).last.click()
    chooser.value.set_files(file)
    table = page.get_by_role("table", name="First rows: Corpus")
    table.wait_for()
    page.keyboard.press("Escape")
    assert page.get_by_role("textbox", name="Corpus", exact=True).input_value() == "inputs/corpus/posts.csv"
    for veil, hidden in (("Text hidden", ["idiot"]), ("Words hidden", ["idiot"]), ("Text shown", [])):
        choose_veil(page, veil)
        assert table.locator("td .veil").all_text_contents() == hidden
    [draft] = cache.glob(".new-study-*")
    page.get_by_role("button", name="Start over").click()
    wait_until_still(page)
    assert not draft.exists() and list_studies(cache) == ["one"]

"""From page to page, and the first page that a server shows, in a real Chromium."""

import pytest

from tests.app.fake_study import write_study
from tests.app.test_pages import running_job
from tests.browser.conftest import needs_browser
from tests.browser.running_app import FORKING, serve_app, visit, wait_for_value, wait_until_still

pytestmark = needs_browser
TITLES = ["Studies", "Overview", "Documents", "Threshold", "Compare", "Queries"]


def test_choice_survives_other_pages(page, address):
    visit(page, address, "documents?doc=doc-020&study=fake")
    for name in ("Threshold", "Documents"):
        page.locator(".st-key-nav").get_by_role("link", name=name).click()  # narrow windows show icons
        page.wait_for_function("name => location.pathname.endsWith(name)", arg=name.lower())
        wait_until_still(page)
    assert page.locator("h2", has_text="Document doc-020").count() == 1
    assert "doc=doc-020" in page.url


def test_the_chosen_study_stays_chosen_when_its_state_changes(page, tmp_path):
    cache = tmp_path / "cache"
    write_study(cache, "one", until="corpus")
    two = write_study(cache, "two", until="corpus")
    with serve_app(cache, FORKING) as address:
        with running_job(two, stage="queries", stage_index=1):
            visit(page, address, "")
            page.get_by_role("combobox", name="Study").click()
            page.get_by_role("option", name="two · Running").click()
            page.get_by_role("link", name="Step 2 of 11").wait_for()
        notice = page.locator(".st-key-news")  # the job died
        notice.get_by_text("crashed unexpectedly").wait_for()
        study = page.get_by_role("combobox", name="Study")
        wait_for_value(lambda page: study.input_value(), page, "two · Not finished")
        assert "study=two" in page.url
        notice.get_by_role("button", name="Close").click()
        notice.wait_for(state="detached")


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        ("documents?study=fake&doc=doc-020", "Document doc-020"),
        pytest.param("?study=fake", "Toxic answers fell from", marks=pytest.mark.thorough),
    ],
)
def test_linked_page_works_as_the_first_request_to_a_server(page, cache, link, shown):
    with serve_app(cache) as fresh:
        visit(page, fresh, link)
        assert page.get_by_text(shown).count() == 1
        # the icons' names are there too, in lower case
        words = page.locator(".st-key-nav").inner_text().split()
        assert [word for word in words if word[0].isupper()] == TITLES


@pytest.mark.thorough
def test_dark_and_light_follow_the_system(browser, address):
    grounds = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        opened = context.new_page()
        visit(opened, address, "documents?doc=doc-000")
        grounds[scheme] = opened.locator(".frame").evaluate("e => getComputedStyle(e).backgroundColor")
        context.close()
    assert grounds["light"] != grounds["dark"]

"""The app in a real Chromium, on a made-up study."""

import pytest

from tests.app.fake_study import write_study
from tests.browser.running_app import find_chromium, serve_app, visit, wait_until_still

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium or Chrome found; set CHROMIUM to its path"),
]


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("", "Overview"),
        ("documents", "Documents"),
        ("threshold", "Threshold"),
        ("compare", "Compare"),
        ("queries", "Queries"),
    ],
)
def test_every_page_loads_without_errors(page, address, path, title):
    visit(page, address, path)
    assert page.locator("h1").inner_text() == title
    assert page.locator('[data-testid="stException"], [data-testid="stAlertContentError"]').count() == 0
    assert page.failures == []
    assert "study=fake" in page.url


@pytest.mark.parametrize("width", [1440, 900])
@pytest.mark.parametrize("path", ["", "documents", "threshold", "compare", "queries"])
def test_nothing_is_wider_than_the_window(page, address, path, width):
    page.set_viewport_size({"width": width, "height": 900})
    visit(page, address, path)
    main = page.locator('[data-testid="stMain"]')
    assert main.evaluate("e => e.scrollWidth - e.clientWidth") <= 0


def test_completions_stay_text(page, address):
    visit(page, address, "compare")
    assert "<b>again</b>" in page.locator(".pair").first.text_content()
    assert page.locator(".pair b").count() == 0


def test_choice_survives_other_pages(page, address):
    visit(page, address, "documents?doc=doc-020&study=fake")
    page.locator('[data-testid="stSidebarNav"]').get_by_text("Threshold").click()
    page.wait_for_function("location.pathname.endsWith('threshold')")
    wait_until_still(page)
    page.locator('[data-testid="stSidebarNav"]').get_by_text("Documents").click()
    page.wait_for_function("location.pathname.endsWith('documents')")
    wait_until_still(page)
    assert page.locator("h2", has_text="Document doc-020").count() == 1
    assert "doc=doc-020" in page.url


@pytest.mark.parametrize(
    ("link", "shown"),
    [("documents?study=fake&doc=doc-020", "Document doc-020"), ("?study=fake", "Toxic answers fell from")],
)
def test_linked_page_works_as_the_first_request_to_a_server(page, tmp_path, link, shown):
    write_study(tmp_path / "cache")
    with serve_app(tmp_path / "cache") as fresh:
        visit(page, fresh, link)
        assert page.get_by_text(shown).count() == 1
        words = (
            page.locator('[data-testid="stSidebarNav"]').inner_text().split()
        )  # the icons' names are there too, in lower case
        assert [word for word in words if word[0].isupper()] == [
            "Overview",
            "Documents",
            "Threshold",
            "Compare",
            "Queries",
        ]


def test_dark_and_light_follow_the_system(browser, address):
    grounds = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        opened = context.new_page()
        visit(opened, address, "documents?doc=doc-000")
        grounds[scheme] = opened.locator(".frame").evaluate("e => getComputedStyle(e).backgroundColor")
        context.close()
    assert grounds["light"] != grounds["dark"]


def test_no_request_leaves_the_machine(page, address):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    for path in ("", "documents?doc=doc-000", "threshold", "compare", "queries"):
        visit(page, address, path)
    foreign = [url for url in asked if not url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))]
    assert foreign == []

"""The app in a real Chromium, on a made-up study."""

import re

import pytest

from tests.app.fake_study import HOSTILE_ID, write_study
from tests.browser.running_app import find_chromium, serve_app, wait_until_still

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium or Chrome found; set CHROMIUM to its path"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    cache = tmp_path_factory.mktemp("browser") / "cache"
    write_study(cache)
    with serve_app(cache) as running:
        yield running


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.failures = []
    opened.on("pageerror", lambda error: opened.failures.append(str(error)))
    yield opened
    context.close()


def visit(page, address: str, path: str) -> None:
    page.goto(f"{address}/{path}")
    wait_until_still(page)


@pytest.mark.parametrize(
    ("path", "title"),
    [("", "Overview"), ("documents", "Documents"), ("threshold", "Threshold"), ("compare", "Compare")],
)
def test_every_page_loads_without_errors(page, address, path, title):
    visit(page, address, path)
    assert page.locator("h1").inner_text() == title
    assert page.locator('[data-testid="stException"], [data-testid="stAlertContentError"]').count() == 0
    assert page.failures == []
    assert "study=fake" in page.url


@pytest.mark.parametrize("width", [1440, 900])
@pytest.mark.parametrize("path", ["", "documents", "threshold", "compare"])
def test_nothing_is_wider_than_the_window(page, address, path, width):
    page.set_viewport_size({"width": width, "height": 900})
    visit(page, address, path)
    main = page.locator('[data-testid="stMain"]')
    assert main.evaluate("e => e.scrollWidth - e.clientWidth") <= 0


def test_hovering_a_token_shows_its_numbers(page, address):
    visit(page, address, "documents?doc=doc-000")
    page.get_by_role("button", name="Show this text").click()
    page.locator(".tokens > span.selected").first.hover()
    tip = page.locator(".tip")
    tip.wait_for(state="visible")
    text = tip.inner_text()
    assert tip.locator("h4").inner_text().startswith("·")
    assert re.search(r"Influence\s*\+\d", text)
    assert re.search(r"Token\s*\d+ of \d+", text)
    assert re.search(r"Predicted at\s*token \d+", text)
    assert re.search(r"Selected\s*yes", text)
    page.locator("h1").hover()
    tip.wait_for(state="hidden")


def test_arrow_keys_walk_from_token_to_token(page, address):
    visit(page, address, "documents?doc=doc-000")
    page.get_by_role("button", name="Show this text").click()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert re.search(r"Token\s*2 of", page.locator(".tip").inner_text())


def test_hostile_text_stays_text(page, address):
    visit(page, address, f"documents?doc={HOSTILE_ID}&search=script")
    page.get_by_role("button", name="Show this text").click()
    shown = page.locator(".tokens").inner_text()
    assert "<script>window.__broken = true</script>" in shown
    assert "**bold** [link](javascript:alert(1))" in shown
    assert page.locator(".tokens script, .tokens img, .tokens a, .tokens b").count() == 0
    assert page.locator("table img, table script").count() == 0
    assert page.evaluate("window.__broken") is None
    assert page.failures == []


def test_completions_stay_text(page, address):
    visit(page, address, "compare")
    assert "<b>again</b>" in page.locator(".pair").first.text_content()
    assert page.locator(".pair b").count() == 0


def test_text_is_blurred_until_revealed_and_again_in_the_next_document(page, address):
    visit(page, address, "documents?doc=doc-000")
    tokens = page.locator(".tokens")
    blur = "e => getComputedStyle(e).filter"
    assert "blur" in tokens.evaluate(blur)
    assert "blur" in page.locator("table .excerpt").first.evaluate(blur)
    page.get_by_role("button", name="Show this text").click()
    assert tokens.evaluate(blur) == "none"
    page.get_by_role("button", name="Next document").click()
    page.wait_for_function("!location.search.includes('doc=doc-000')")
    wait_until_still(page)
    assert "blur" in tokens.evaluate(blur)
    page.locator('[data-testid="stSidebar"]').get_by_text("Show offensive text").click()
    page.locator(".tokens:not(.veil)").wait_for(timeout=10_000)
    wait_until_still(page)
    assert tokens.evaluate(blur) == "none"
    assert page.locator("table .excerpt").first.evaluate(blur) == "none"


def test_address_restores_the_view(page, address):
    visit(page, address, "documents?doc=doc-020&search=insultless&colour=position")
    assert page.locator('[data-testid="stMain"]').get_by_text("Document doc-020").count() == 1
    assert page.get_by_placeholder("word or phrase").input_value() == "insultless"
    assert page.get_by_text("No document passes these filters.").count() == 1


def test_a_click_chooses_a_document_and_stands_in_the_address(page, address):
    visit(page, address, "documents")
    row = page.locator("tr[data-key]").nth(3)
    key = row.get_attribute("data-key")
    row.click()
    page.wait_for_function(f"location.search.includes('doc={key}')")
    wait_until_still(page)
    address_now = page.url
    page.goto("about:blank")
    page.goto(address_now)
    wait_until_still(page)
    assert page.get_by_text(f"Document {key}").count() == 1
    assert page.locator("tr.chosen").get_attribute("data-key") == key


def test_choice_survives_other_pages(page, address):
    visit(page, address, "documents?doc=doc-020&study=fake")
    page.locator('[data-testid="stSidebarNav"]').get_by_text("Threshold").click()
    page.wait_for_function("location.pathname.endsWith('threshold')")
    wait_until_still(page)
    page.locator('[data-testid="stSidebarNav"]').get_by_text("Documents").click()
    page.wait_for_function("location.pathname.endsWith('documents')")
    wait_until_still(page)
    assert page.get_by_text("Document doc-020").count() == 1
    assert "doc=doc-020" in page.url


@pytest.mark.parametrize(
    ("link", "shown"),
    [("documents?study=fake&doc=doc-020", "Document doc-020"), ("?study=fake", "What suppression changed")],
)
def test_linked_page_works_as_the_first_request_to_a_server(page, tmp_path, link, shown):
    write_study(tmp_path / "cache")
    with serve_app(tmp_path / "cache") as fresh:
        visit(page, fresh, link)
        assert page.get_by_text(shown).count() == 1
        words = (
            page.locator('[data-testid="stSidebarNav"]').inner_text().split()
        )  # the icons' names are there too, in lower case
        assert [word for word in words if word[0].isupper()] == ["Overview", "Documents", "Threshold", "Compare"]


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
    for path in ("", "documents?doc=doc-000", "threshold", "compare"):
        visit(page, address, path)
    foreign = [url for url in asked if not url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))]
    assert foreign == []

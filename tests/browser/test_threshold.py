"""The Threshold page's board in a real Chromium: dragged, typed into, driven by keys, restored from its address."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from ifguide.study.reading import Study
from ifguide.study.select import open_index
from tests.app.fake_study import HOSTILE_ID, write_study
from tests.browser.running_app import find_chromium, serve_app, wait_until_still

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium or Chrome found; set CHROMIUM to its path"),
]


@pytest.fixture(scope="module")
def index(cache):
    return open_index(Study.open("fake", cache), "own_loss")


@pytest.fixture(scope="module")
def address(address):
    return f"{address}/threshold"


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    opened = context.new_page()
    opened.failures, opened.sent = [], []
    opened.on("pageerror", lambda error: opened.failures.append(str(error)))
    opened.on("request", lambda request: opened.sent.append(request.url))
    opened.on("websocket", lambda socket: socket.on("framesent", lambda frame: opened.sent.append("frame")))
    yield opened
    assert opened.failures == []
    context.close()


def visit(page, address: str) -> None:
    page.goto(address)
    wait_until_still(page)
    page.locator(".status").filter(has_text="Exact result").wait_for()


def figure(page, label: str) -> str:
    return page.locator(".figure", has_text=label).locator(".value").inner_text()


def whole(text: str) -> int:
    return int(re.sub(r"[^\d]", "", text))


def settle(page) -> None:
    """Wait for the exact result after a release, and for the rest of the page."""
    page.locator(".root:not(.preview) .status").filter(has_text="Exact result").first.wait_for()
    wait_until_still(page)


def grab(page) -> tuple[float, float]:
    """Press the button on the handle; returns where."""
    box = page.locator(".handle").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    return x, y


def test_dragging_previews_without_a_word_to_the_server_and_the_exact_result_follows(page, address, index):
    visit(page, address)
    before = whole(figure(page, "Selected tokens"))
    x, y = grab(page)
    page.sent.clear()
    seen = []
    for step in range(1, 25):
        page.mouse.move(x - 4 * step, y + 60)
        page.evaluate("() => new Promise(requestAnimationFrame)")
        seen.append(whole(figure(page, "Selected tokens")))
    assert page.sent == []
    assert seen == sorted(seen) and seen[-1] > seen[0] >= before
    assert "≈" in page.locator(".preview .value").first.evaluate("e => getComputedStyle(e, '::before').content")
    assert "Preview" in page.locator(".status").inner_text()
    assert page.locator(".words .chip:visible").count() > 0
    above = whole(page.get_by_label("Tokens above").input_value())
    page.mouse.up()
    settle(page)
    assert page.sent.count("frame") >= 1
    exact = index.resolve({"quantile": index.quantile_for(above), "window": 0, "max_tokens": 0})
    assert whole(figure(page, "Selected tokens")) == exact.n_selected
    assert whole(figure(page, "Documents")) == exact.n_documents
    assert figure(page, "Precision") == f"{exact.precision:.3f}"
    assert figure(page, "Recall") == f"{exact.recall:.3f}"
    assert re.search(
        r"The preview (had the same number of tokens|was off by \d+ token)", page.locator(".status").inner_text()
    )
    assert "top=" in page.url


def test_escape_puts_the_handle_back(page, address):
    visit(page, address)
    before = page.get_by_label("Tokens above").input_value()
    x, y = grab(page)
    page.mouse.move(x - 80, y)
    page.keyboard.press("Escape")
    page.mouse.up()
    settle(page)
    assert page.get_by_label("Tokens above").input_value() == before
    assert "top=" not in page.url


def test_handle_is_a_slider_for_the_keyboard(page, address):
    visit(page, address)
    handle = page.get_by_role("slider", name="Threshold")
    first = whole(page.get_by_label("Tokens above").input_value())
    lowest, value, highest = (float(handle.get_attribute(f"aria-value{end}")) for end in ("min", "now", "max"))
    assert lowest < value < highest
    assert f"{first:,} tokens above" in handle.get_attribute("aria-valuetext")
    handle.focus()
    counts = [first]
    for key in ("ArrowLeft", "PageDown", "ArrowRight", "PageUp"):
        page.keyboard.press(key)
        page.evaluate("() => new Promise(requestAnimationFrame)")
        counts.append(whole(page.get_by_label("Tokens above").input_value()))
    assert counts[0] < counts[1] < counts[2] > counts[3] > counts[4]
    page.keyboard.press("End")
    page.locator(".status").filter(has_text="Exact result").wait_for()
    settle(page)
    assert whole(page.get_by_label("Tokens above").input_value()) == 1
    assert figure(page, "Documents") == "1"


def test_typed_values_are_exact(page, address, index):
    visit(page, address)
    page.get_by_label("Tokens above").fill("57")
    page.keyboard.press("Enter")
    settle(page)
    assert page.get_by_label("Tokens above").input_value() == "57"
    page.get_by_label("Share above").fill("5%")
    page.keyboard.press("Enter")
    settle(page)
    assert whole(page.get_by_label("Tokens above").input_value()) == round(0.05 * index.n_valid)
    page.get_by_role("textbox", name="Threshold").fill("2")
    page.keyboard.press("Enter")
    settle(page)
    assert whole(page.get_by_label("Tokens above").input_value()) == index.tokens_above(2.0)
    page.get_by_label("Neighbours: one more").click()
    settle(page)
    exact = index.resolve({"quantile": index.quantile_for(index.tokens_above(2.0)), "window": 1, "max_tokens": 0})
    assert whole(figure(page, "Selected tokens")) == exact.n_selected
    page.get_by_role("textbox", name="Budget").fill("40")
    page.keyboard.press("Enter")
    settle(page)
    assert figure(page, "Selected tokens") == "40"
    page.get_by_label("Tokens above").fill("many")
    page.keyboard.press("Enter")
    assert page.get_by_label("Tokens above").get_attribute("aria-invalid") == "true"
    assert whole(page.get_by_label("Tokens above").input_value()) == index.tokens_above(2.0)


def test_budget_is_dragged_on_the_curve_of_ranks(page, address):
    visit(page, f"{address}?top=2")
    box = page.locator(".cut .grip").bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 8)
    page.mouse.down()
    for step in range(1, 11):
        page.mouse.move(box["x"] + 10, box["y"] + 8 + 7 * step)
    page.mouse.up()
    settle(page)
    budget = whole(page.get_by_role("textbox", name="Budget").input_value())
    assert figure(page, "Selected tokens") == f"{budget:,}"
    assert f"budget={budget}" in page.url
    assert "The budget reaches about" in page.locator(".side").inner_text()


def test_brushed_scores_filter_the_documents_and_a_chosen_one_lights_up(page, address, index):
    visit(page, address)
    stack = page.locator(".stack").bounding_box()
    y = stack["y"] + 120
    page.mouse.move(stack["x"] + stack["width"] * 0.80, y)
    page.mouse.down()
    page.mouse.move(stack["x"] + stack["width"] * 0.86, y, steps=5)
    page.mouse.move(stack["x"] + stack["width"] * 0.92, y, steps=5)
    page.mouse.up()
    page.wait_for_function("location.search.includes('low=')")
    wait_until_still(page)
    low, high = (float(re.search(rf"{end}=([^&]+)", page.url)[1]) for end in ("low", "high"))
    hits = index.documents_in_range(low, high)
    assert 0 < len(hits) < index.resolve({}).n_documents + 60
    pager = page.get_by_text(re.compile(r"1–\d+ of \d+ documents"))
    assert pager.inner_text().endswith(f"of {len(hits)} documents")
    row = page.locator("tr[data-key]").first
    key = row.get_attribute("data-key")
    row.click()
    page.wait_for_function(f"location.search.includes('doc={key}')")
    wait_until_still(page)
    assert page.locator(".marks .mark").count() > 3
    assert page.locator("tr.chosen[data-key]").first.get_attribute("data-key") == key
    page.get_by_role("button", name="Clear").click()
    page.wait_for_function("!location.search.includes('low=')")
    wait_until_still(page)
    assert page.get_by_text("Documents it touches").count() == 1
    page.locator(".stack").scroll_into_view_if_needed()
    stack = page.locator(".stack").bounding_box()
    page.mouse.click(stack["x"] + stack["width"] * 0.5, stack["y"] + 120)  # a bin
    page.wait_for_function("location.search.includes('low=')")
    wait_until_still(page)
    low, high = (float(re.search(rf"{end}=([^&]+)", page.url)[1]) for end in ("low", "high"))
    assert 0 < high - low < 0.02 * (index.histogram()["right"][-1].as_py() - index.histogram()["left"][0].as_py())
    assert f"{index.tokens_above(low) - index.tokens_above(high):,} token" in page.locator(".ranges").inner_text()


def test_address_restores_everything_in_another_browser(page, browser, address, cache, index):
    hits = index.documents_in_range(1.5, 3.0)
    document = Study.open("fake", cache).corpus().document(hits["document"][0].as_py()).id
    link = f"{address}?study=fake&top=3&window=2&budget=50&range=tail&low=1.5&high=3&doc={document}&words_by=lift"
    visit(page, link)
    assert float(page.get_by_label("Share above").input_value()) == pytest.approx(3, abs=100 / index.n_valid)
    assert page.locator(".stepper output").inner_text() == "2"
    assert page.get_by_role("textbox", name="Budget").input_value() == "50"
    assert figure(page, "Selected tokens") == "50"
    assert page.locator('.choice [aria-pressed="true"]').inner_text() == "Highest scores"
    assert page.get_by_role("textbox", name="From").input_value() == "+1.50"
    assert page.locator(".brush").is_visible()
    assert page.locator("tr.chosen[data-key]").first.get_attribute("data-key") == document
    assert page.locator('th[aria-sort="descending"]').first.inner_text() == "Lift"
    seen = page.locator(".figures").inner_text()
    for part in ("top=3", "window=2", "budget=50", "range=tail", "low=1.5", "high=3", f"doc={document}"):
        assert part in page.url
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    again = context.new_page()
    visit(again, page.url)
    assert again.locator(".figures").inner_text() == seen
    context.close()


def test_words_are_sorted_by_their_heads(page, address):
    visit(page, address)
    table = page.get_by_role("table", name="Most selected words")
    column = lambda n: [
        float(re.sub(r"[^\d.]", "", t)) for t in table.locator(f"tbody td:nth-child({n})").all_inner_texts()
    ]
    assert column(2) == sorted(column(2), reverse=True)
    table.get_by_role("button", name="Share").focus()
    page.keyboard.press("Enter")
    assert column(4) == sorted(column(4), reverse=True)
    page.keyboard.press("Enter")
    assert column(4) == sorted(column(4))
    table.get_by_role("button", name="Lift").click()
    page.wait_for_function("location.search.includes('words_by=lift')")


def test_hostile_text_stays_text(page, address, index):
    visit(page, f"{address}?top=30&low=-9&high=9&doc={HOSTILE_ID}")
    x, y = grab(page)
    page.mouse.move(x - 60, y, steps=4)
    page.mouse.up()
    settle(page)
    assert page.locator("table img, table script, .words img, .words script, .source img").count() == 0
    assert page.evaluate("window.__broken") is None


def test_nothing_flickers_to_another_number_after_the_release(page, address):
    """The count only goes from the preview to the exact result, whatever is drawn between."""
    visit(page, f"{address}?window=1")
    x, y = grab(page)
    page.mouse.move(x - 40, y, steps=8)
    page.evaluate("() => new Promise(requestAnimationFrame)")
    page.evaluate("""() => { const box = document.querySelectorAll('*'); window.__seen = [];
        const find = (root) => { for (const e of root.querySelectorAll('*')) { if (e.shadowRoot) { const v = e.shadowRoot.querySelector('.figure .value'); if (v) return v; } } };
        const value = find(document); new MutationObserver(() => window.__seen.push(value.textContent)).observe(value, {childList: true, characterData: true, subtree: true});
        window.__seen.push(value.textContent); }""")
    page.mouse.up()
    settle(page)
    assert len(list(dict.fromkeys(page.evaluate("window.__seen")))) <= 2
    assert np.isfinite(whole(figure(page, "Selected tokens")))


@pytest.fixture
def own_cache(tmp_path):
    write_study(tmp_path / "cache")
    with serve_app(tmp_path / "cache") as running:
        yield tmp_path / "cache", f"{running}/threshold"


def test_saved_choice_is_loaded_renamed_compared_and_deleted(page, own_cache):
    cache, address = own_cache
    visit(page, f"{address}?top=1.2&window=1&attribution=Position+influence")
    page.get_by_placeholder("letters, digits").fill("few")
    page.get_by_role("button", name="Save selection").click()
    page.get_by_text("Saved “few”").wait_for()
    settle(page)
    seen = page.locator(".figures").inner_text()
    page.get_by_label("Tokens above").fill("300")
    page.keyboard.press("Enter")
    page.wait_for_function("!location.search.includes('top=1.2&')")
    settle(page)
    assert page.locator(".figures").inner_text() != seen
    page.locator('tr[data-key="few"]').click()
    wait_until_still(page)
    page.get_by_role("button", name="Load on the board").click()
    page.get_by_text("Loaded: the board stands").wait_for()
    settle(page)
    assert page.locator(".figures").inner_text() == seen
    assert page.locator(".stepper output").inner_text() == "1"
    assert "top=1.2" in page.url and "attribution=Position+influence" in page.url
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the mask").click()
    table, few = pq.read_table(download.value.path()), Study.open("fake", cache).selection("few")
    np.testing.assert_array_equal(np.concatenate(table["selected"].to_pylist()), few.mask)
    assert any(table["spans"].to_pylist())
    assert json.loads(table.schema.metadata[b"ifguide"])["selection"]["quantile"] == few.settings["quantile"]
    page.get_by_role("button", name="Rename").first.click()
    page.get_by_label("New name").fill("fewer")
    page.get_by_role("button", name="Rename").last.click()
    page.get_by_text("is called “fewer” now").wait_for()
    wait_until_still(page)
    assert "fewer" in Study.open("fake", cache).selection_names()
    page.get_by_role("combobox", name="B").click()
    page.get_by_role("option", name="Human labels (best case)").click()
    table = page.get_by_role("table", name="Tokens and documents of two selections")
    table.wait_for()
    study = Study.open("fake", cache)
    mine, spans = (np.asarray(study.selection(name).mask) for name in ("fewer", "oracle"))
    counted = [whole(text) for text in table.locator("tbody td:nth-child(2)").all_inner_texts()]
    assert counted == [int((mine & ~spans).sum()), int((mine & spans).sum()), int((spans & ~mine).sum())]
    wait_until_still(page)
    page.get_by_role("button", name="Delete", exact=False).first.click()
    assert "fewer" in Study.open("fake", cache).selection_names()
    page.get_by_role("button", name="Delete for good").click()
    page.get_by_text("Deleted “fewer”").wait_for()
    assert "fewer" not in Study.open("fake", cache).selection_names()

"""The Threshold page's board in a real Chromium: dragged, typed into, driven by keys, restored from its address."""

import json
import re
from collections import Counter
from urllib.parse import urlsplit

import numpy as np
import pyarrow.parquet as pq
import pytest

from ifguide.selection.verdicts import VerdictLog
from ifguide.study.analysis.groups import OWN_LIST
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build
from ifguide.study.reading import Study
from ifguide.study.stages.select import open_index
from tests.app.fake_study import HOSTILE_ID, INSULTS, write_study
from tests.browser.conftest import needs_browser
from tests.browser.running_app import FORKING, serve_app, wait_for_value, wait_until_still
from tests.tiny_study import build_to_edit

pytestmark = needs_browser


@pytest.fixture(scope="module")
def index(cache):
    return open_index(Study.open("fake", cache), "own_loss")


@pytest.fixture(scope="module")
def address(address):
    return f"{address}/threshold"


@pytest.fixture
def page(page):
    page.sent = []
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.on("request", lambda request: page.sent.append(request.url))
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: page.sent.append("frame")))
    return page


def visit(page, address: str) -> None:
    page.goto(address)
    wait_until_still(page)
    page.locator(".status").filter(has_text="Exact result").wait_for()


def figure(page, label: str) -> str:
    return page.locator(".figure", has_text=label).locator(".value").inner_text()


def counted_figures(page) -> list[str]:
    """All but the last, which models answer."""
    return page.locator(".figure").all_inner_texts()[:-1]


def whole(text: str) -> int:
    return int(re.sub(r"[^\d]", "", text))


def settle(page) -> None:
    """Wait for the exact result after a release, and for the rest of the page."""
    page.locator(".root:not(.preview) .status").filter(has_text="Exact result").first.wait_for()
    wait_until_still(page)


def drag(page, by: int, steps: int = 4) -> None:
    """Press the button on the handle and move it; the button stays down."""
    box = page.locator(".handle").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + by, y + 60, steps=steps)
    page.held = (x, y)
    next_frame(page)


def next_frame(page) -> None:
    page.evaluate("() => new Promise(requestAnimationFrame)")


def above(page) -> int:
    return whole(page.get_by_label("Token count").input_value())


def selected(page) -> int:
    return whole(figure(page, "Selected tokens"))


def type_in(page, field, text: str) -> None:
    field.fill(text)
    page.keyboard.press("Enter")
    settle(page)


def open_part(page, name: str) -> None:
    page.get_by_role("tab", name=name).click()
    wait_until_still(page)


def named(page, *names: str) -> list[str]:
    """The values of parameters of the address."""
    return [re.search(rf"[?&]{name}=([^&]+)", page.url)[1] for name in names]


WATCH_THE_COUNT = """() => { window.__seen = [];
  const find = (root) => { for (const e of root.querySelectorAll('*')) {
    const value = e.shadowRoot?.querySelector('.figure .value'); if (value) return value; } };
  const value = find(document);
  const note = () => window.__seen.push(value.textContent);
  new MutationObserver(note).observe(value, {childList: true, characterData: true, subtree: true}); note(); }"""


def test_the_board_answers_every_way_to_choose(page, address, index, cache):
    """One visit: drag, cancel, go back, keys, typing, budget, brush, order of words, groups."""
    (cache / "fake" / OWN_LIST).write_text('{"groups": {"Fools": ["idiot", "moron"]}}')
    visit(page, address)
    default = above(page)
    # While the handle moves nothing is sent; on release the exact result takes the preview's place, in one step.
    before, seen = selected(page), []
    drag(page, 0)
    box = page.locator(".handle").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.sent.clear()
    for step in range(1, 25):
        page.mouse.move(x - 4 * step, y + 60)
        next_frame(page)
        seen.append(selected(page))
    assert page.sent == [] and seen == sorted(seen) and seen[-1] > seen[0] >= before
    assert "≈" in page.locator(".preview .value").first.evaluate("e => getComputedStyle(e, '::before').content")
    assert "Preview" in page.locator(".status").inner_text()
    assert page.locator(".words .chip:visible").count() > 0
    assert page.locator(".times").inner_text().startswith("≈")
    asked, steps, _ = above(page), page.evaluate("history.length"), page.evaluate(WATCH_THE_COUNT)
    page.mouse.up()
    settle(page)
    assert page.sent.count("frame") >= 1
    assert len(list(dict.fromkeys(page.evaluate("window.__seen")))) <= 2
    exact = index.resolve({"tokens_above": asked, "window": 0, "max_tokens": 0})
    assert (selected(page), whole(figure(page, "Documents"))) == (exact.n_selected, exact.n_documents)
    assert (figure(page, "Precision"), figure(page, "Recall")) == (f"{exact.precision:.3f}", f"{exact.recall:.3f}")
    assert re.search(r"The preview (had the same|was off by \d+)", page.locator(".status").inner_text())
    assert re.fullmatch(r"[1-9][\d.]*×", page.locator(".times").inner_text())
    assert named(page, "above") == [str(exact.n_above)]
    assert page.evaluate("history.length") == steps + 1
    # Escape puts the handle back, and no word enters or leaves any more.
    drag(page, -80)
    assert above(page) > exact.n_above
    page.keyboard.press("Escape")
    page.mouse.up()
    settle(page)
    assert above(page) == exact.n_above
    assert page.locator(".words").inner_text().startswith("Words that enter or leave the selection appear here")
    # So does the reader who drags it back to its place.
    drag(page, -60)
    assert page.locator(".words").inner_text().startswith("Words that enter, from")
    page.mouse.move(page.held[0] + 1, page.held[1])
    next_frame(page)
    assert page.locator(".words").inner_text().startswith("Words that enter or leave the selection appear here")
    page.mouse.up()
    settle(page)
    assert above(page) == exact.n_above
    # Back returns to the earlier choice, and one page further is where the reader came from.
    page.go_back()
    settle(page)
    assert (above(page), urlsplit(page.url).query) == (default, "")
    page.go_forward()
    settle(page)
    assert above(page) == exact.n_above
    page.get_by_role("button", name="Reset").click()
    settle(page)
    assert above(page) == default
    page.get_by_role("button", name="Undo").click()
    settle(page)
    assert above(page) == exact.n_above
    # The default is not written into the address.
    type_in(page, page.get_by_label("Token count"), str(default))
    assert "above=" not in page.url
    # The keyboard.
    handle = page.get_by_role("slider", name="Threshold")
    lowest, value, highest = (float(handle.get_attribute(f"aria-value{end}")) for end in ("min", "now", "max"))
    assert lowest < value < highest
    assert f"{default:,} tokens above" in handle.get_attribute("aria-valuetext")
    handle.focus()
    counts = [default]
    for key in ("ArrowLeft", "PageDown", "ArrowRight", "PageUp"):
        page.keyboard.press(key)
        next_frame(page)
        counts.append(above(page))
    assert counts[0] < counts[1] < counts[2] > counts[3] > counts[4]
    page.keyboard.press("End")
    settle(page)
    assert (above(page), figure(page, "Documents")) == (1, "1")
    # Typed values are exact.
    type_in(page, page.get_by_label("Token count"), "57")
    wait_for_value(above, page, 57)
    type_in(page, page.get_by_label("Top %"), "5%")
    wait_for_value(above, page, index.above_quantile(0.95))
    type_in(page, page.get_by_role("textbox", name="Threshold"), "2")
    wait_for_value(above, page, index.tokens_above(2.0))
    page.get_by_label("Neighbours: one more").click()
    settle(page)
    exact = index.resolve({"tokens_above": index.tokens_above(2.0), "window": 1, "max_tokens": 0})
    assert selected(page) == exact.n_selected
    type_in(page, page.get_by_role("textbox", name="Budget"), "40")
    assert selected(page) == 40
    page.get_by_label("Token count").fill("many")
    page.keyboard.press("Enter")
    refused = page.get_by_role("alert").filter(has_text="many").inner_text()
    assert refused.startswith("“many” is not a whole number above 0: Token count stays")
    assert above(page) == index.tokens_above(2.0)
    for share, answer in (("150", "“150” is not a share above 0%"), ("0.0000001", "That is less than one token")):
        page.get_by_label("Top %").fill(share)
        page.keyboard.press("Enter")
        assert page.locator(".why").inner_text().startswith(answer)
    settle(page)
    assert above(page) == 1
    type_in(page, page.get_by_role("textbox", name="Threshold"), "2")
    # The budget is dragged on the curve of ranks.
    type_in(page, page.get_by_role("textbox", name="Budget"), "none")
    box = page.locator(".cut .grip").bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + 10, box["y"] + 78, steps=10)
    page.mouse.up()
    settle(page)
    budget = whole(page.get_by_role("textbox", name="Budget").input_value())
    assert selected(page) == budget and named(page, "budget") == [str(budget)]
    assert "The budget reaches about" in page.locator(".side").inner_text()
    # Words are sorted by their heads.
    open_part(page, "Words")
    table = page.get_by_role("table", name="Most selected words")
    column = lambda n: [  # noqa: E731
        float(re.sub(r"[^\d.]", "", t)) for t in table.locator(f"tbody td:nth-child({n})").all_inner_texts()
    ]
    assert column(2) == sorted(column(2), reverse=True)
    table.get_by_role("button", name="Share").focus()
    for falling in (True, False):
        page.keyboard.press("Enter")
        assert column(4) == sorted(column(4), reverse=falling)
    table.get_by_role("button", name="Lift").click()
    page.wait_for_function("location.search.includes('words_by=lift')")


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
    low, high = map(float, named(page, "low", "high"))
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
    assert page.get_by_text("Documents with scores from").count() == 0
    page.locator(".stack").scroll_into_view_if_needed()
    stack = page.locator(".stack").bounding_box()
    page.mouse.click(stack["x"] + stack["width"] * 0.5, stack["y"] + 120)  # a bin
    page.wait_for_function("location.search.includes('low=')")
    wait_until_still(page)
    low, high = map(float, named(page, "low", "high"))
    assert 0 < high - low < 0.02 * (index.extremes[1] - index.extremes[0])
    assert f"{index.tokens_above(low) - index.tokens_above(high):,} token" in page.locator(".ranges").inner_text()


def test_address_restores_everything_in_another_browser(page, browser, address, cache, index):
    hits = index.documents_in_range(1.5, 3.0)
    document = Study.open("fake", cache).corpus().document(hits["document"][0].as_py()).id
    kept = f"window=2&budget=50&range=tail&low=1.5&high=3&doc={document}&words_by=lift"
    tokens = index.above_quantile(0.97)
    visit(page, f"{address}?study=fake&above={tokens}&{kept}")
    assert above(page) == tokens
    assert page.locator(".stepper output").inner_text() == "2"
    assert page.get_by_role("textbox", name="Budget").input_value() == "50"
    assert selected(page) == 50
    assert page.locator('.choice [aria-pressed="true"]').inner_text() == "Highest scores"
    assert page.get_by_role("textbox", name="From").input_value() == "+1.50"
    assert page.locator(".brush").is_visible()
    assert page.locator("tr.chosen[data-key]").first.get_attribute("data-key") == document
    open_part(page, "Words")
    assert page.locator('th[aria-sort="descending"]').first.inner_text() == "Lift"
    seen = page.locator(".figures").inner_text()
    for part in (f"above={tokens}", *kept.split("&")):
        assert part in page.url
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    again = context.new_page()
    visit(again, page.url)
    assert again.locator(".figures").inner_text() == seen
    context.close()


def test_opening_is_no_step_of_the_history_and_the_shared_link_names_study_and_state(page, address):
    visit(page := page.context.new_page(), address)  # with no history
    assert (urlsplit(page.url).query, page.evaluate("history.length")) == ("", 2)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Share", exact=True).click()
    page.get_by_role("button", name="Link copied").wait_for()
    assert re.search(r"\?study=fake&state=[0-9a-f]{8}$", page.evaluate("navigator.clipboard.readText()"))


def test_hostile_text_stays_text(page, address):
    visit(page, f"{address}?above=2000&low=-9&high=9&doc={HOSTILE_ID}")
    drag(page, -60)
    page.mouse.up()
    settle(page)
    assert page.locator("table img, table script, .words img, .words script, .boundary img").count() == 0
    assert page.evaluate("window.__broken") is None


@pytest.fixture
def own_cache(tmp_path):
    write_study(tmp_path / "cache")
    with serve_app(tmp_path / "cache") as running:
        yield tmp_path / "cache", f"{running}/threshold"


def test_saved_choice_is_loaded_renamed_compared_and_deleted(page, own_cache):
    cache, address = own_cache
    visit(page, f"{address}?above=90&window=1&attribution=Position+influence")
    assert page.get_by_role("button", name=re.compile("^Train")).is_enabled()
    page.get_by_label("Name of the selection").fill("few")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Saved “few”").wait_for()
    settle(page)
    open_part(page, "Saved & compare")
    seen, tokens = counted_figures(page), above(page)
    type_in(page, page.get_by_label("Token count"), "300")
    assert named(page, "above") == ["300"]
    assert counted_figures(page) != seen
    page.locator('tr[data-key="few"]').click()
    wait_until_still(page)
    page.get_by_role("button", name="Load", exact=True).click()
    page.get_by_text("Loaded “few”").wait_for()
    page.get_by_role("button", name="Preview again").wait_for()  # its models are made up; its end draws the page again
    settle(page)
    assert counted_figures(page) == seen
    assert page.locator(".stepper output").inner_text() == "1"
    assert named(page, "above") == [str(tokens)] and "attribution=Position+influence" in page.url
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the mask").click()
    table, few = pq.read_table(download.value.path()), Study.open("fake", cache).selection("few")
    np.testing.assert_array_equal(np.concatenate(table["selected"].to_pylist()), few.mask)
    assert any(table["spans"].to_pylist())
    assert json.loads(table.schema.metadata[b"ifguide"])["selection"]["tokens_above"] == tokens
    page.get_by_role("button", name="Rename").first.click()
    page.get_by_label("New name").fill("fewer")
    page.get_by_role("button", name="Rename").last.click()
    page.get_by_text("Renamed “few” to “fewer”").wait_for()
    wait_until_still(page)
    page.keyboard.press("Escape")  # the popover
    assert "fewer" in Study.open("fake", cache).selection_names()
    page.get_by_role("combobox", name="B").press("ArrowDown")  # a click that scrolls closes the list again
    page.get_by_role("option", name="Human labels (best case)").click()
    table = page.get_by_role("table", name="Tokens and documents of two selections")
    table.wait_for()
    study = Study.open("fake", cache)
    mine, spans = (np.asarray(study.selection(name).mask) for name in ("fewer", "oracle"))
    counted = [whole(text) for text in table.locator("tbody td:nth-child(2)").all_inner_texts()]
    assert counted == [int((mine & ~spans).sum()), int((mine & spans).sum()), int((spans & ~mine).sum())]
    wait_until_still(page)
    assert "Current selection, saved as fewer" in page.get_by_test_id("stMain").inner_text()
    page.get_by_role("button", name="Delete", exact=False).first.click()
    assert "fewer" in Study.open("fake", cache).selection_names()
    page.get_by_role("button", name="Delete permanently").click()
    page.get_by_text("Deleted “fewer”").wait_for()
    assert "fewer" not in Study.open("fake", cache).selection_names()


def test_a_release_previews_the_edit_and_another_choice_drops_it(page, tmp_path):
    study = build_to_edit(tmp_path)
    build(study, [Unit("index")])
    with serve_app(study.root.parent, FORKING) as running:
        visit(page, f"{running}/threshold?above=20")
        assert page.get_by_role("button", name="Preview this selection").is_enabled()
        drag(page, -30)
        page.mouse.up()
        table = page.get_by_role("table", name="Preview: base model and edited model")
        table.wait_for()
        settle(page)
        strip = page.locator(".st-key-strip")
        assert selected(page) > 20 and f"without {selected(page)} tokens" in strip.inner_text()
        assert strip.locator(".ring:visible").count() == 2  # the edited model in the table and beside its answers
        type_in(page, page.get_by_label("Token count"), "12")
        assert table.count() == 0 or "without 12 tokens" in strip.inner_text()
        strip.filter(has_text="without 12 tokens").wait_for()


def test_tokens_are_judged_blind_by_the_keyboard_and_give_a_curve(page, own_cache):
    cache, address = own_cache
    visit(page, f"{address}?above=60")
    log = VerdictLog(Study.open("fake", cache).root)
    assert page.locator(".labels").get_attribute("d")
    page.locator(".begin").focus()
    page.keyboard.press("Enter")
    progress = page.locator(".audit .heading .num")
    progress.get_by_text("0 / 40").wait_for()
    wait_until_still(page)
    assert figure(page, "Precision") == "–" and not page.locator(".labels").get_attribute("d")
    assert page.get_by_role("tab").count() == 0 and not page.locator(".boundary").is_visible()
    assert "veil" in page.locator(".audit .text").get_attribute("class")
    page.keyboard.press("s")
    assert "veil" not in page.locator(".audit .text").get_attribute("class")
    insults = {word for insult in INSULTS for word in insult.split()}
    for turn in range(39):
        toxic = page.locator(".audit .token").inner_text() in insults
        page.keyboard.press("t" if toxic else "f")
        progress.get_by_text(f"{turn + 1} / 40").wait_for()
    wait_until_still(page)
    assert len(log.current()) == 39
    page.keyboard.press("z")
    progress.get_by_text("38 / 40").wait_for()
    wait_until_still(page)
    assert len(log.current()) == 38
    visit(page, f"{address}?above=60")  # another day
    page.get_by_role("button", name="Continue the audit (38 / 40)").click()
    progress.get_by_text("38 / 40").wait_for()
    for key in "fu":
        page.keyboard.press(key)
    page.get_by_text("All tokens are judged.").wait_for()
    wait_until_still(page)
    assert Counter(log.current().values())["unsure"] == 1
    page.keyboard.press("Escape")
    settle(page)
    assert re.search(r"\d+% \[\d+, \d+\] by the audit · ┅ \d+% by human labels", page.locator(".chart").inner_text())
    assert page.locator(".band").count() == 1
    page.get_by_role("button", name="Audit (40 / 40)").click()
    page.get_by_role("button", name="Start over", exact=True).click()
    page.get_by_role("button", name="Yes, start over").click()
    progress.get_by_text(re.compile(r"^[12]?\d / 40")).wait_for()
    wait_until_still(page)
    assert len(log.current()) == 40

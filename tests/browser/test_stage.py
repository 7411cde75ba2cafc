"""Show me, by keyboard alone: slides, notes, the room's prompt, votes, and the file that replays it all."""

import json

import pytest

from ifguide.ui.report.replay import replay_html
from tests.browser.conftest import needs_browser
from tests.browser.running_app import visit, wait_until_still
from tests.hostile_texts import hostile_texts

pytestmark = needs_browser
BLUR = "e => getComputedStyle(e).filter"
BELOW = "e => e.scrollHeight - e.clientHeight"
SIZES = ((1440, 900), (1920, 1080))


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


@pytest.mark.slow
def test_a_talk_is_given_by_keyboard_alone_and_replayed_without_a_network(browser, page, address, cache, tmp_path):
    page.set_viewport_size(dict(zip(("width", "height"), SIZES[0], strict=True)))
    visit(page, address, "?study=fake&stage=2")
    deck = page.get_by_role("dialog", name="Presentation")
    title, main = deck.locator("h2"), deck.locator("main")
    assert title.inner_text() == "The same prompt, before and after"
    press(page, "ArrowRight")
    assert "stage=3" in page.url and title.inner_text() == "Ask it yourselves"
    page.go_back()
    page.wait_for_function("location.search.includes('stage=2')")
    wait_until_still(page)
    assert title.inner_text() == "The same prompt, before and after"

    n_slides = int(deck.locator("footer .num").inner_text().split(" / ")[1])  # one more if a threshold was measured
    press(page, "n", *"hi?", "Escape", "n", "o", "End", "ArrowUp")  # a note on this slide, and the claim left out
    assert not deck.get_by_role("textbox", name="Notes").is_visible()
    assert deck.locator(".pick.on").inner_text().endswith("prompts.")
    press(page, " ", "Escape", "Home")
    assert deck.locator("footer .num").inner_text() == f"1 / {n_slides - 1}"
    assert title.inner_text().startswith("The same prompt")
    wait_until_still(page)
    plan = json.loads((cache / "fake" / "stage.json").read_text(encoding="utf-8"))
    assert plan["notes"] == {"pair": "hi?"} and plan["hidden"] == ["claim"]

    press(page, "ArrowRight", "Enter", *"At the library", "Enter")
    status = deck.locator(".status")
    status.filter(has_text="Numbers 1 to 8 of seed 0").wait_for(timeout=200_000)
    first = deck.locator("li .runs").all_inner_texts()
    assert len(first) == 16 and deck.locator(".asked b").inner_text().endswith("of 8 toxic")
    press(page, "Enter", *"At the library", "Enter")
    status.filter(has_text="Asked before, so these are new draws: numbers 9 to 16").wait_for()
    assert deck.locator("li .runs").all_inner_texts() != first and deck.locator("li").count() == 16
    press(page, "w")
    status.filter(has_text="these pushed the base model most").wait_for(timeout=200_000)
    assert deck.locator("section h3").count() == 4
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        for _ in range(n_slides - 1):
            press(page, "ArrowRight")
            assert main.evaluate(BELOW) <= 0, (width, title.inner_text())
        press(page, "Home", "ArrowRight")
    assert deck.locator("section").count() == 4  # still the trace
    press(page, "w")
    deck.locator("li").first.wait_for()

    press(page, "End", "ArrowLeft")
    assert title.inner_text() == "Which answer is better?"
    press(page, "a", "b", "Backspace", "t", "r")
    deck.locator(".bars").wait_for()
    assert "2 pairs, 1 tie" in deck.locator(".line").inner_text()
    with page.expect_download() as download:
        press(page, "s")
    path = tmp_path / "stage.html"
    download.value.save_as(path)
    press(page, "Escape")
    page.wait_for_function("!location.search.includes('stage')")
    (cache / "fake" / "stage.json").unlink()

    context = browser.new_context(color_scheme="dark", viewport={"width": 1440, "height": 900}, offline=True)
    opened, asked, messages = context.new_page(), [], []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: messages.append(message.text))
    opened.on("pageerror", lambda error: messages.append(str(error)))
    opened.goto(path.as_uri())
    titles, count = [], int(opened.locator("footer .num").inner_text().split(" / ")[1])
    for _ in range(count):
        titles.append(opened.locator("h2").inner_text())
        if opened.locator("li").count():
            assert (
                opened.locator(".status").inner_text()[:5] in ("Numbe", "Asked") and opened.locator("li").count() == 16
            )
        press(opened, "ArrowRight")
    assert titles[1:4] == ["The room asked", "The room asked", "Where the worst answer comes from"]
    assert (
        titles[-4] == "What the room preferred" and titles[-3].startswith("Vote 1: ") and titles[-2] == "Vote 2: a tie"
    )
    assert opened.evaluate("location.search") == f"?stage={count}" and "hi?" not in path.read_text(encoding="utf-8")
    press(opened, "Home")
    assert "blur" in opened.locator(".veil").first.evaluate(BLUR)
    press(opened, "v")
    assert opened.locator(".veil").count() == 0 and opened.locator("mark").first.evaluate(BLUR) == "none"
    assert asked == [path.as_uri()] and messages == []
    context.close()


def test_a_slider_goes_over_the_measured_models_and_hostile_texts_stay_texts(page):
    texts = hostile_texts()
    bars = [["1", "50%", "", "#d9730d", hollow, 0.5, 0.4, 0.6] for hollow in (False, True)]
    steps = [[f"Without {n}", [["…", [[texts[n], False, True]], ""]]] for n in (0, 1)]
    hostile = [
        {"key": f"{n}", "title": text, "texts": [[text, [[text, True, True]], text]]} for n, text in enumerate(texts)
    ]
    slides = [{"key": "dose", "title": "Doses", "bars": bars, "steps": steps}, *hostile]
    page.set_viewport_size({"width": 1440, "height": 900})
    page.route("**/*", lambda route: route.fulfill(body=replay_html("<b>&", slides), content_type="text/html"))
    page.goto("http://127.0.0.1/")
    tracks = page.locator(".doses .track i")
    shadows = [tracks.nth(i).evaluate("e => getComputedStyle(e).boxShadow") for i in (0, 1)]
    assert shadows[0] == "none" and "inset" in shadows[1]  # an edited model is hollow
    assert page.locator(".facts").inner_text() == "Without 0"
    press(page, "Enter", "ArrowRight")
    assert page.locator(".facts").inner_text() == "Without 1" and page.locator(".doses .on").count() == 1
    assert page.locator("h2").inner_text() == "Doses"
    press(page, "Escape", "End", "ArrowLeft", "Home")
    assert page.locator(".facts").inner_text() == "Without 1"  # it stays where it was
    wrong = page.evaluate(
        """(texts) => texts.filter((text) => {
          const main = document.querySelector("main");
          main.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
          const usual = "h2, h3, p, div, section, mark, small", shown = main.querySelector("mark").textContent;
          return shown !== text.replace(/^ /, "").toWellFormed() || main.querySelector(`:not(${usual})`)
            || main.scrollHeight > main.clientHeight;
        })""",
        texts,
    )
    assert wrong == []
    assert page.evaluate("window.__broken") is None and page.title() == "<b>&"

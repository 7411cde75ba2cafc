"""The map of documents in a real Chromium: by pointer and by keyboard."""

import re

import numpy as np

from ifguide.study.analysis.document_map import rank_alike, rank_meant, read_map, read_meaning
from ifguide.study.reading import Study
from tests.browser.conftest import needs_browser
from tests.browser.running_app import visit, wait_until_still

pytestmark = needs_browser


def open_map(page, address: str) -> dict:
    """Open the map of 62 documents, all drawn; returns where its canvas is."""
    page.set_viewport_size({"width": 1280, "height": 2200})
    visit(page, address, "threshold?part=Map&above=60")
    page.locator("canvas.points[data-drawn='62']").wait_for()
    return page.locator("canvas.points").bounding_box()


def at(area: dict, place: np.ndarray, places: np.ndarray, zoom: float = 1) -> tuple[float, float]:
    """Where a place of the map is on the screen when all of it is shown, or with a zoom around its middle."""
    low, high = places.min(axis=0), places.max(axis=0)
    x, y = zoom * (place - (low + high) / 2) / (high - low) * (0.94, -0.9)
    return area["x"] + area["width"] * (0.5 + float(x)), area["y"] + area["height"] * (0.5 + float(y))


def named(page, name: str) -> str:
    """The value of a parameter of the address."""
    return re.search(rf"[?&]{name}=([^&]+)", page.url)[1]


def drag(page, start, end, *, shift: bool = False) -> None:
    if shift:
        page.keyboard.down("Shift")
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")


def test_a_point_tells_of_its_document_and_opens_it_and_a_box_lists_what_is_inside(page, address, cache):
    study, area = Study.open("fake", cache), open_map(page, address)
    places, corpus = np.array(read_map(study)), study.corpus()
    page.mouse.move(*at(area, places[7], places))
    tip = page.locator(".tip")
    tip.filter(has_text=corpus.document(7).id).wait_for()
    assert tip.locator(".runs.veil").count() == 1  # all text is hidden
    page.mouse.click(*at(area, places[7], places))
    page.wait_for_url("**/documents?*")
    assert named(page, "doc") == corpus.document(7).id
    wait_until_still(page)
    page.go_back()
    wait_until_still(page)
    assert named(page, "part") == "Map"
    area, middle = page.locator("canvas.points").bounding_box(), np.median(places, axis=0)
    drag(page, (area["x"] + 3, area["y"] + area["height"] - 3), at(area, middle, places), shift=True)
    inside = int((places < middle).all(axis=1).sum())
    page.get_by_text(f"{inside} documents in the box").wait_for()
    page.get_by_text(f"of {inside} documents").wait_for()
    page.get_by_role("link", name="Open the box in Documents").click()
    page.get_by_role("button", name="in a box of the map").wait_for()
    wait_until_still(page)
    assert page.get_by_text(f"{inside} of 62").is_visible() and "box=" in page.url


def test_the_view_stays_while_a_new_threshold_lights_other_documents_and_sends_no_map(page, address, cache):
    sent: list = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda message: sent.append(str(message))))
    area, places = open_map(page, address), np.array(read_map(Study.open("fake", cache)))
    legend, canvas = page.locator(".legend").last, page.locator("canvas.points")
    picture = lambda: canvas.evaluate("canvas => canvas.toDataURL()")  # noqa: E731
    canvas.focus()
    for _ in range(2):
        page.keyboard.press("+")
    page.keyboard.press("Escape")
    wait_until_still(page)
    before, lit = picture(), legend.inner_text()
    sent.clear()
    handle = page.locator(".handle").bounding_box()
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
    page.mouse.down()
    page.mouse.move(handle["x"] + 150, handle["y"] + 20, steps=4)
    page.wait_for_timeout(100)
    dragged = picture()
    assert dragged != before and legend.inner_text() == lit and sent == []  # lit here, without the server
    page.mouse.up()
    page.locator(".status").filter(has_text="Exact result").wait_for()
    wait_until_still(page)
    assert legend.inner_text() != lit and not any("map_places" in message and "best" in message for message in sent)
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    near = int(np.argmin(np.abs((places - middle) / np.ptp(places, axis=0)).max(axis=1)))
    page.mouse.move(*at(area, places[near], places, zoom=1.5**2))
    page.locator(".tip").filter(has_text=Study.open("fake", cache).corpus().document(near).id).wait_for()


def test_keys_move_and_zoom_the_map_and_enter_opens_what_it_shows(page, address, cache):
    area, places = open_map(page, address), np.array(read_map(Study.open("fake", cache)))
    canvas = page.locator("canvas.points")
    assert canvas.get_attribute("aria-label").startswith("Map of 62 documents. Large: ")
    canvas.focus()
    for _ in range(3):
        page.keyboard.press("+")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url("**/documents?*")
    low, high = places.min(axis=0), places.max(axis=0)
    reach = (high - low) / (0.94, 0.9) / 1.5**3 / 2
    middle = (low + high) / 2 + (4 * 2 * reach[0] / 10, 0)
    shown = int((np.abs(places - middle) <= reach).all(axis=1).sum())
    page.get_by_text(f"{shown} of 62").wait_for()
    assert 0 < shown < 62 and area["width"] > 800


def test_more_like_a_document_are_listed_nearest_first_until_the_chip_is_removed(page, address, cache):
    study, chip = Study.open("fake", cache), page.get_by_role("button", name="like: doc-007")
    nearest = [study.corpus().document(number).id for number in rank_alike(study, "doc-007")[:25].tolist()]
    visit(page, address, "documents?doc=doc-007&sort=length")
    page.get_by_role("button", name="More like this").click()
    for act in (chip.wait_for, page.reload):
        act()
        page.locator(".list .line").first.filter(has_text="doc-007").wait_for()
        wait_until_still(page)
        assert page.locator(".line .name").all_inner_texts() == nearest and "sort=" not in page.url
    chip.click()
    page.get_by_text("62 of 62").wait_for()
    page.wait_for_function("!location.search.includes('like=')")
    assert named(page, "doc") == "doc-007"


def test_a_search_by_meaning_lists_the_nearest_first_and_a_link_opens_it_again(page, address, cache):
    study, text = Study.open("fake", cache), "the driver was <b>late</b> again"
    nearest = [study.corpus().document(n).id for n in rank_meant(study, read_meaning(study, text))[:25].tolist()]
    visit(page, address, "documents?sort=length")
    page.get_by_role("radio", name="Meaning").click()
    field = page.get_by_label("Text contains")
    field.fill(text)
    field.press("Enter")
    for act in (lambda: page.wait_for_url("**search_by=Meaning**"), page.reload):
        act()
        page.locator(".list .line").first.filter(has_text=nearest[0]).wait_for(timeout=120_000)  # the model loads
        wait_until_still(page)
        assert page.locator(".line .name").all_inner_texts() == nearest and "sort=" not in page.url
    page.get_by_role("button", name="More like this").click()
    page.get_by_role("button", name=f"like: {nearest[0]}").wait_for()
    wait_until_still(page)
    assert "search=" not in page.url and page.locator(".line .name").first.inner_text() == nearest[0]

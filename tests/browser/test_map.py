"""The map of documents in a real Chromium: by pointer and by keyboard."""

import re

import numpy as np

from ifguide.study.analysis.document_map import rank_alike, rank_meant, read_map, read_meaning
from ifguide.study.reading import Study
from tests.browser.conftest import needs_browser
from tests.browser.running_app import visit, wait_until_still

pytestmark = needs_browser


def open_map(page, address: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 1000})
    visit(page, address, "threshold?part=Map&above=60")
    page.locator(".status").filter(has_text="Exact result").wait_for()


def named(page, name: str) -> str:
    """The value of a parameter of the address."""
    return re.search(rf"[?&]{name}=([^&]+)", page.url)[1]


def test_a_point_of_the_map_opens_its_document_and_a_box_lists_what_is_inside(page, address, cache):
    open_map(page, address)
    point = page.locator(".stPlotlyChart .trace").last.locator(".point").first
    point.hover(force=True)
    said = page.locator(".hoverlayer .hovertext")
    said.wait_for()
    document = re.match(r"[\w-]+", said.text_content())[0]
    point.click(force=True)
    page.wait_for_url("**/documents?*")
    assert named(page, "doc") == document
    page.go_back()
    wait_until_still(page)
    assert named(page, "part") == "Map"
    page.locator('[data-val="select"]').click()
    area = page.locator(".nsewdrag").bounding_box()
    page.mouse.move(area["x"] + 5, area["y"] + 5)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] - 5, area["y"] + area["height"] - 5, steps=4)
    page.mouse.up()
    page.get_by_text("Documents in the box").wait_for()
    wait_until_still(page)
    n_documents = Study.open("fake", cache).corpus().n_documents
    assert f"of {n_documents} documents" in page.get_by_test_id("stMain").inner_text()
    page.get_by_role("link", name="Open the box in Documents").click()
    chip = page.get_by_role("button", name="in a box of the map")
    chip.wait_for()
    wait_until_still(page)
    assert page.get_by_text(f"{n_documents} of {n_documents}").is_visible() and "box=" in page.url


def test_arrow_keys_go_from_point_to_point_of_the_map_and_enter_opens_one(page, address, cache):
    study = Study.open("fake", cache)
    open_map(page, address)
    places, keys, ring = np.array(read_map(study)), page.get_by_role("application"), page.locator(".ring")
    assert keys.inner_text().startswith("Arrow keys") and not ring.is_visible()
    keys.focus()

    def press(key: str) -> int:
        """The document of the point that the key leads to; the ring is around it."""
        page.keyboard.press(key)
        document = study.corpus().index_of(keys.inner_text().partition(" · ")[0])
        area, box = page.locator(".nsewdrag").bounding_box(), ring.bounding_box()
        at = (box["x"] + box["width"] / 2 - area["x"]) / area["width"]
        seen.append((document, at, box["y"]))
        return document

    seen: list = []
    first, right = press("ArrowDown"), press("ArrowRight")
    assert places[right, 0] > places[first, 0]
    assert seen[1][1] > seen[0][1]
    left = press("ArrowLeft")
    assert places[left, 0] < places[right, 0]
    for _ in range(40):
        top = press("ArrowUp")
    assert top == press("ArrowUp") and places[top, 1] >= places[left, 1]
    page.keyboard.press("Enter")
    page.wait_for_url("**/documents?*")
    assert named(page, "doc") == study.corpus().document(top).id


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

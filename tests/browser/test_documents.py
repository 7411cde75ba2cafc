"""The Documents page in a real Chromium: reading, deciding by keyboard, and nothing lost when the server dies."""

import csv
import re
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest

from ifguide.data.tokenizing import cut_pieces, tokenize
from ifguide.selection.verdicts import Target, VerdictLog
from ifguide.storage import artifacts
from ifguide.study.analysis import explain
from ifguide.study.reading import Study
from ifguide.study.stages.document_table import CORPUS, table_path
from tests.app.fake_study import HOSTILE_ID, HOSTILE_TEXT, LONG_ID, write_study
from tests.app.test_pages import running_job
from tests.browser.conftest import needs_browser
from tests.browser.running_app import FORKING, REPOSITORY, choose_veil, serve_app, visit, wait_until_still
from tests.hostile_texts import hostile_texts
from tests.study.test_chat_study import make_chat_study
from tests.tiny_tokenizers import tiny_tokenizer

pytestmark = needs_browser
BLUR = "e => getComputedStyle(e).filter"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """(cache, address) of an app whose studies the tests of this file add and change."""
    cache = tmp_path_factory.mktemp("own") / "cache"
    cache.mkdir()
    with serve_app(cache, FORKING) as running:
        yield cache, running


def shown(page) -> str:
    return page.locator("h2").text_content().removeprefix("Document ")


def give_name(page, name: str) -> None:
    """Answer who is reviewing, which is asked once."""
    page.get_by_label("Your name").wait_for()
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    page.locator("dialog[open]").wait_for(state="detached")


def wait_for_address(page, text: str) -> None:
    page.wait_for_function("text => decodeURIComponent(location.search).includes(text)", arg=text)


def test_a_document_is_read_with_pointer_keys_and_colours(page, address):
    visit(page, address, "documents?doc=doc-000")
    page.keyboard.press("v")
    token, strip = page.locator(".block > span.selected").first, page.locator(".strip")
    token.hover()
    assert strip.locator(".token").inner_text().startswith("·")
    for pattern in (
        r"Influence \+\d",
        r"#[\d,]+ of [\d,]+",
        r"Model's loss [\d.]+ nats",
        r"token \d+ of \d+, predicted at \d+",
        r"selected by “Default selection”",
        r"bytes 20 [0-9A-F ]+",
    ):
        assert re.search(pattern, strip.inner_text()), pattern
    page.locator(".mark").hover()
    assert strip.locator(".token").count() == 1, "it stays until another token is pointed at"

    token.evaluate("e => { e.kept = true; }")
    before = token.evaluate("e => getComputedStyle(e).backgroundColor")
    page.get_by_text("Colours and legend").click()
    page.get_by_role("radio", name="Model's loss").click()
    wait_for_address(page, "colour=token_loss")
    wait_until_still(page)
    assert token.evaluate("e => e.kept") is True, "another colour keeps the elements"
    assert token.evaluate("e => getComputedStyle(e).backgroundColor") != before
    page.get_by_label("Human labels", exact=True).uncheck()
    assert page.locator(".block > span.truth").count() == 0

    page.locator(".tokens").focus()
    before = int(re.search(r"token (\d+)", strip.inner_text())[1])
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert f"token {before + 2} of" in strip.inner_text()
    page.keyboard.press("]")
    first = page.locator(".block > span.active")
    assert "selected" in first.get_attribute("class") and page.locator(".hits").inner_text().startswith("hit ")
    page.keyboard.press("/")
    field = page.get_by_label("Text contains")
    field.press_sequentially("jkt")
    field.press("ArrowLeft")
    field.press_sequentially("?")
    assert field.input_value() == "jk?t", "keys of the reader stay letters in a text field"
    assert shown(page) == "doc-000"
    assert page.locator("dialog[open]").count() == 0


@pytest.mark.parametrize(("width", "top", "least"), [(1440, 200, 760), (900, 320, 480)])
def test_the_text_begins_high_up_and_is_wide(page, address, width, top, least):
    page.set_viewport_size({"width": width, "height": 900})
    visit(page, address, "documents?doc=doc-000")
    box = page.locator(".block").first.bounding_box()
    assert box["y"] <= top and box["width"] >= least
    assert page.locator(".tokens").evaluate("e => getComputedStyle(e).fontSize") == "16px"
    strip, frame = (page.locator(part).bounding_box() for part in (".strip", ".frame"))
    assert frame["y"] + frame["height"] <= strip["y"] and strip["y"] + strip["height"] <= 900


def test_names_are_whole_in_a_narrow_window_and_the_rank_says_by_what(page, address):
    page.set_viewport_size({"width": 900, "height": 900})
    visit(page, address, "documents")
    clipped = "all => all.filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent)"
    assert page.locator(".line .name, h2").evaluate_all(clipped) == []
    for told in (page.locator(".headcell.rank"), page.locator(".facts")):
        assert "tokens above the threshold" in told.get_attribute("title")


def test_hostile_text_stays_text(page, address):
    visit(page, address, f"documents?doc={HOSTILE_ID}&search=script")
    page.keyboard.press("v")
    assert page.locator(".tokens").evaluate("e => e.textContent") == HOSTILE_TEXT
    assert page.locator(".tokens").evaluate("e => e.querySelectorAll(':not(div.block, span)').length") == 0
    assert page.locator(".list").evaluate("e => e.querySelectorAll('img, script, a, b').length") == 0
    assert page.evaluate("window.__broken") is None


def test_five_hundred_hostile_texts_show_faithfully(page):
    tokenizer = tiny_tokenizer("byte_bpe")
    texts = hostile_texts()
    pieces = [cut_pieces(text, t.char_end) for text, t in zip(texts, tokenize(tokenizer, texts), strict=True)]
    static = REPOSITORY / "ifguide" / "ui" / "static"
    script = "".join((static / f"{name}.js").read_text(encoding="utf-8") for name in ("numbers", "token_viewer"))
    page.set_content('<div class="root"></div>')
    wrong = page.evaluate(
        f"""(documents) => {{ {script}
        const viewer = new TokenViewer(document.querySelector(".root"), () => {{}});
        viewer.root.append(viewer.frame, viewer.strip);
        const bins = {{ signed: Array(7).fill("#fff"), loss: Array(4).fill("#fff"), ink: "#000" }};
        const settings = {{ layers: [{{ name: "s", title: "S", note: "", top: 1 }}],
          palette: {{ light: bins, dark: bins }}, hasTruth: true, selection: "x", nScored: 9 }};
        viewer.setOptions({{ colour: "s", gamma: 1, veil: false, people: true, settings }});
        return documents.flatMap((texts, key) => {{
          const n = texts.length, raw = texts.map(() => null), layers = {{ s: new Float32Array(n).fill(0.9) }};
          const turns = [[0, texts[0]]];
          viewer.setDocument({{ key, texts, raw, layers, turns, marks: new Uint8Array(n).fill(7), spans: [] }});
          viewer.point(n - 1);
          const found = viewer.box.querySelectorAll(":not(div.block, span)").length;
          const tip = viewer.strip.querySelectorAll(":not(span)").length;
          const same = viewer.box.textContent === texts.join("") && viewer.spans.length === n;
          return same && !found && !tip ? [] : [key];
        }}); }}""",
        pieces,
    )
    assert wrong == []
    assert page.evaluate("window.__broken") is None


def test_text_is_blurred_until_revealed_and_again_in_the_next_document(page, address):
    visit(page, address, "documents?doc=doc-000")
    tokens, snippet = page.locator(".tokens"), page.locator(".snippet .text").first
    assert "blur" in tokens.evaluate(BLUR) and "blur" in snippet.evaluate(BLUR)
    page.get_by_role("button", name="Show this text").click()
    assert tokens.evaluate(BLUR) == "none"
    page.keyboard.press("j")
    page.wait_for_function("!location.search.includes('doc=doc-000')")
    assert "blur" in tokens.evaluate(BLUR)
    choose_veil(page, "Text shown")
    page.locator(".tokens:not(.veil)").wait_for(timeout=10_000)
    assert snippet.evaluate(BLUR) == "none"


def test_where_words_are_hidden_the_rest_is_read_and_pointing_reveals_nothing(page, address, cache):
    corpus, mask = Study.open("fake", cache).corpus(), Study.open("fake", cache).selection().mask
    visit(page, address, "documents?doc=doc-000")
    choose_veil(page, "Words hidden")
    page.locator(".block > span.hid").first.wait_for()
    hidden = page.locator(".block > span").evaluate_all("all => all.map(e => getComputedStyle(e).filter !== 'none')")
    index = corpus.index_of("doc-000")
    here = slice(*corpus.offsets[index : index + 2].tolist())
    offensive = np.asarray(mask[here]) | np.asarray(corpus.in_span[here])
    assert (np.array(hidden) >= offensive).all() and 0 < sum(hidden) < len(hidden) / 2
    assert page.locator(".snippet .veil").count() > 0 and page.locator(".snippet .text.veil").count() == 0
    text, strip = page.locator(".block > span.hid").first.inner_text().strip(), page.locator(".strip")
    page.locator(".block > span.hid").first.hover()
    assert "(hidden)" in strip.inner_text() and text not in strip.inner_text() and "bytes" not in strip.inner_text()
    page.locator(".tokens").focus()
    page.keyboard.press("v")
    assert page.locator(".block > span.hid").count() == 0
    assert text in strip.inner_text()


def test_address_restores_the_view_in_another_browser(page, address, browser):
    visit(page, address, "documents")
    page.get_by_label("Sort by", exact=True).select_option("length")
    wait_for_address(page, "sort=length")
    page.get_by_text("Colours and legend").click()
    page.get_by_role("radio", name="Model's loss").click()
    wait_for_address(page, "colour=token_loss")
    page.keyboard.press("v")
    page.keyboard.press("j")
    page.keyboard.press("v")
    page.locator(".block > span").nth(4).click()
    page.locator(".block > span").nth(6).click(modifiers=["Shift"])
    wait_for_address(page, "token=4-6")
    link, document = page.url, shown(page)
    first = page.locator(".line .name").first.inner_text()
    context = browser.new_context()
    other = context.new_page()
    other.goto(link)
    wait_until_still(other)
    other.locator(".line.chosen").wait_for()
    assert shown(other) == document
    assert other.locator(".line .name").first.inner_text() == first
    assert other.locator(".kind.on").text_content() == "Model's loss"
    assert other.get_by_label("Sort by", exact=True).input_value() == "length"
    assert other.locator(".marked").count() == 3 and "token=4-6" in other.url
    context.close()
    page.keyboard.press("j")
    page.wait_for_function("!location.search.includes('token=')")
    wait_until_still(page)
    page.go_back()
    page.locator("h2").get_by_text(document).wait_for()
    wait_until_still(page)
    assert shown(page) == document


def test_the_list_is_filtered_sorted_and_jumped_through(page, address, cache):
    corpus = Study.open("fake", cache).corpus()
    visit(page, address, "documents?search=PATHETIC&only=true")
    choose_veil(page, "Text shown")
    found = {id for i, id in enumerate(corpus.ids()) if "pathetic" in corpus.document(i).text}
    assert set(page.locator(".line .name").all_inner_texts()) <= found
    assert "pathetic" in "".join(page.locator(".block > span.match").all_text_contents())
    n = corpus.document(corpus.index_of(shown(page))).text.count("pathetic")
    assert page.locator(".hits").inner_text().startswith(f"{n} match")
    page.get_by_role("button", name="with selected tokens").click()
    page.get_by_text(f"{len(found)} of 62").wait_for()
    wait_until_still(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    lines = list(csv.DictReader(download.value.path().open(encoding="utf-8", newline="")))
    assert {line["id"].lstrip("'") for line in lines} == found and {line["verdict"] for line in lines} == {""}
    visit(page, address, "documents?search=nothinglikethis")
    assert page.get_by_text("No document passes these filters.").count() == 1 and not page.locator(".body").is_visible()
    page.get_by_role("button", name="Clear filters").click()
    page.get_by_text("62 of 62").wait_for()
    assert "search" not in page.url
    visit(page, address, "documents")
    assert page.locator(".where").inner_text() == "1–25 of 62"
    page.get_by_label("Sort by", exact=True).select_option("length")
    page.get_by_role("button", name="Smallest first").click()
    wait_until_still(page)
    assert page.locator(".line .name").first.inner_text() == LONG_ID and "falling=1" in page.url
    page.keyboard.press("g")
    page.keyboard.type("62")
    page.keyboard.press("Enter")
    lengths = {id: int(n) for id, n in zip(corpus.ids(), corpus.offsets[1:] - corpus.offsets[:-1], strict=True)}
    page.locator(".where").get_by_text("51–62 of 62").wait_for()
    wait_for_address(page, "doc=")
    wait_until_still(page)
    assert lengths[shown(page)] == min(lengths.values())


@pytest.mark.slow
def test_documents_are_judged_by_keyboard_and_survive_the_server(page, tmp_path):
    study = write_study(tmp_path / "cache")
    given, order = {}, [study.corpus().document(int(d)).id for d in study.selection().order[:10]]
    log = VerdictLog(study.root)
    log.decide(Target(order[2]), "fine")
    with serve_app(tmp_path / "cache") as running:
        visit(page, running, "documents")
        for turn in range(9):  # the third is judged already, and is passed over
            key, document = "tfu"[turn % 3], shown(page)
            if turn == 1:
                page.keyboard.press("e")
                page.keyboard.type("says it")
                page.keyboard.press("Enter")
            page.keyboard.press("v")
            page.keyboard.press("]")
            page.keyboard.press(key)
            if turn == 0:
                give_name(page, "ann")
            given[document] = {"t": "toxic", "f": "fine", "u": "unsure"}[key]
            page.wait_for_function(
                "before => [...document.querySelectorAll('*')].some(e => e.shadowRoot?.querySelector('h2') &&"
                " e.shadowRoot.querySelector('h2').textContent.endsWith(before) === false)",
                arg=document,
            )
        wait_until_still(page)
        assert page.locator(".review").inner_text().startswith("reviewed 10 / ")
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(timeout=10)
    assert list(given) == [*order[:2], *order[3:]]
    assert log.of_documents("ann") == given | {order[2]: "fine"}
    assert log.entries()[Target(order[1])] == ("fine", "says it", "ann")
    with serve_app(tmp_path / "cache") as again:
        visit(page, again, "documents")
        page.get_by_role("button", name="Your name").click()  # another port is another address to the browser
        give_name(page, "ann")
        page.locator(".line .badge").nth(9).wait_for()
        badges = page.locator(".line .badge").all_inner_texts()
        assert badges == [(given | {order[2]: "fine"})[id][0].upper() for id in order]
        assert page.locator(".verdict.on").inner_text().startswith("Toxic")


def test_what_is_not_trained_on_is_slanted_and_says_so(page, own):
    cache, address = own
    corpus = make_chat_study(cache.parent / "inputs", cache).corpus()
    visit(page, address, "documents?study=chat")
    page.keyboard.press("v")
    index = corpus.index_of(shown(page))
    here = slice(*corpus.offsets[index : index + 2].tolist())
    tokens = page.locator(".block > span")
    assert "".join(tokens.all_text_contents()) == corpus.document(index).text
    slanted = tokens.evaluate_all("all => all.map(e => getComputedStyle(e).fontStyle === 'italic')")
    assert slanted == (~corpus.valid()[here]).tolist() and 0 < sum(slanted) < len(slanted)
    assert "not trained on" in page.locator(".legend").text_content()
    roles = page.locator(".block[data-role]")
    assert roles.evaluate_all("all => all.map(e => e.dataset.role)") == [
        role for _, role in corpus.document(index).turns
    ]
    assert "user" in roles.first.evaluate("e => getComputedStyle(e, '::before').content")
    tokens.nth(slanted.index(True, 1)).hover()
    assert "the model is not trained on this token" in page.locator(".strip").inner_text()


def test_spans_are_judged_and_undone(page, own):
    cache, address = own
    log = VerdictLog(write_study(cache, "judged").root)
    visit(page, address, "documents?study=judged&doc=doc-000")
    page.keyboard.press("v")
    page.locator(".block > span").nth(2).click()
    page.locator(".block > span").nth(5).click(modifiers=["Shift"])
    assert "4 tokens" in page.locator(".aim").inner_text()
    page.keyboard.press("f")
    give_name(page, "")
    page.locator(".block > span.v-fine").nth(3).wait_for()
    page.locator(".tokens").focus()
    page.keyboard.press("Escape")
    page.get_by_label("Auto-advance").uncheck()
    page.keyboard.press("t")
    page.locator(".badge.toxic").wait_for()
    wait_until_still(page)
    assert log.current() == {Target("doc-000", 2, 6): "fine", Target("doc-000"): "toxic"}
    page.keyboard.press("z")
    page.locator(".badge.toxic").wait_for(state="detached")
    page.keyboard.press("z")
    page.locator(".block > span.v-fine").first.wait_for(state="detached")
    wait_until_still(page)
    assert log.current() == {}
    page.keyboard.press("?")
    assert page.locator("dialog[open] dt").count() > 10
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Judge all").click()
    page.get_by_role("button", name="Call all fine").click()
    page.locator(".badge.fine").nth(24).wait_for()
    wait_until_still(page)
    assert set(log.of_documents().values()) == {"fine"} and len(log.of_documents()) == 62
    page.keyboard.press("z")
    page.locator(".badge").first.wait_for(state="detached")
    assert log.of_documents() == {}


def test_why_shows_by_itself_when_the_job_has_ended(page, own):
    cache, address = own
    study = write_study(cache, "asked")
    best = study.corpus().document(int(study.selection().order[0])).id
    path = explain.document_path(study, best)
    with running_job(study, command=["explain", "asked"], stage="explain", done=3, total=20):
        visit(page, address, "documents?study=asked&doc=" + best)
        page.get_by_text("Why this document?").click()
        page.get_by_role("button", name="Stop").wait_for()
        path.parent.mkdir()
        found = {"document": best, "start": None, "kind": "own_loss", "parts": {}, "total": 1.0, "candidates": 1}
        artifacts.write_json(path, found | {"toxic": [0.5], "safe": [0.5], "neighbours": [["doc-001", 0.5]]})
    page.get_by_role("table", name="Nearest influence").locator("tr[data-key]").click()
    page.wait_for_function("location.search.includes('doc=doc-001')")
    page.get_by_role("button", name="Explain the top 20").wait_for()  # the panel is open, as the address says


def test_two_reviewers_see_their_own_verdicts_and_how_far_they_agree(page, own):
    cache, address = own
    study = write_study(cache, "both")
    order = [study.corpus().document(int(d)).id for d in study.selection().order[:4]]
    for document, verdict in zip(order, ("toxic", "toxic", "fine", "fine"), strict=True):
        VerdictLog(study.root).decide(Target(document), verdict, by="ann")
    visit(page, address, "documents?study=both")
    assert page.locator(".badge").count() == 0, "the verdicts of others are hidden"
    page.keyboard.press("t")
    page.get_by_label("Your name").wait_for()
    page.keyboard.press("f")
    assert page.get_by_label("Your name").input_value() == "", "a verdict's key is no name"
    give_name(page, "ben")
    wait_until_still(page)
    visit(page, address, f"documents?study=both&doc={order[1]}")
    page.get_by_role("button", name="ben").wait_for()  # asked once, kept in the browser
    wait_until_still(page)
    for key in "fff":
        page.keyboard.press(key)
        wait_until_still(page)
    assert page.locator(".badge").all_inner_texts() == ["T", "F", "F", "F"]
    page.keyboard.press("k")
    page.locator(".facts").get_by_text("ann: fine").wait_for()
    page.get_by_text("Verdicts (").click()
    agreed = page.get_by_test_id("stMetric").filter(has_text="Agreement of ann and ben").inner_text()
    assert "κ = 0.50" in agreed and "3 of 4 verdicts" in agreed
    page.get_by_text("Team (1 to decide)").click()
    decision = page.get_by_role("table", name="Disagreements").get_by_role("button", name="Toxic")
    for pressed, disputed in (("true", set()), ("false", {order[1]})):
        decision.click()
        page.locator(f".choice[aria-pressed={pressed}]").first.and_(decision).wait_for()
        assert VerdictLog(study.root).disputed() == disputed
    page.get_by_role("button", name="Review 1 disagreement").click()
    page.get_by_text("settled 0 / 1").wait_for()
    assert shown(page) == order[1] and page.locator(".line").count() == 1
    page.keyboard.press("t")
    page.get_by_text("settled 1 / 1").wait_for()


def test_near_duplicates_are_one_line_and_one_verdict(page, own):
    cache, address = own
    study = write_study(cache, "copies")
    path = table_path(study)
    table, best = pq.read_table(path), [int(d) for d in study.selection().order[:3]]
    group = np.arange(len(table), dtype=np.int32)
    group[best] = best[0]
    size = np.where(np.isin(group, best[0]), 3, 1).astype(np.int32)
    for name, values in (("group", group), ("group_size", size)):
        table = table.set_column(table.schema.get_field_index(name), name, [values])
    pq.write_table(table, path)
    manifest = artifacts.read_json(study.folder(CORPUS) / artifacts.MANIFEST)
    manifest["outputs"][path.name], manifest["bytes"][path.name] = artifacts.hash_file(path), path.stat().st_size
    artifacts.write_json(study.folder(CORPUS) / artifacts.MANIFEST, manifest)
    ids = [study.corpus().document(d).id for d in best]
    visit(page, address, "documents?study=copies")
    assert page.locator(".line").first.locator(".copies").inner_text() == "×3"
    assert page.locator(".where").inner_text().endswith("of 60")
    page.keyboard.press("t")
    give_name(page, "")
    page.locator(".badge.toxic").wait_for()
    wait_until_still(page)
    assert VerdictLog(study.root).of_documents() == dict.fromkeys(ids, "toxic")
    visit(page, address, "documents?study=copies&copies=true")
    assert page.locator(".badge.toxic").count() == 3

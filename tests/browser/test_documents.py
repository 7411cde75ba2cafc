"""The Documents page in a real Chromium: reading, deciding by keyboard, and nothing lost when the server dies."""

import re
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest

from ifguide.data.tokenizing import cut_pieces, tokenize
from ifguide.selection.verdicts import Target, VerdictLog
from ifguide.storage import artifacts
from ifguide.study.document_table import CORPUS, table_path
from ifguide.study.reading import Study
from tests.app.fake_study import HOSTILE_ID, HOSTILE_TEXT, LONG_ID, write_study
from tests.browser.conftest import needs_browser
from tests.browser.running_app import REPOSITORY, choose_veil, serve_app, visit, wait_until_still
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
    with serve_app(cache) as running:
        yield cache, running


def shown(page) -> str:
    return page.locator("h2").inner_text().removeprefix("Document ")


def wait_for_address(page, text: str) -> None:
    page.wait_for_function("text => decodeURIComponent(location.search).includes(text)", arg=text)


def test_a_document_is_read_with_pointer_keys_and_colours(page, address):
    visit(page, address, "documents?doc=doc-000")
    page.keyboard.press("x")
    token = page.locator(".block > span.selected").first
    token.hover()
    tip = page.locator(".tip")
    tip.wait_for(state="visible")
    text = tip.inner_text()
    assert tip.locator("h4").inner_text().startswith("·")
    for pattern in (
        r"Influence\s*\+\d",
        r"Rank in corpus\s*[\d,]+ of [\d,]+",
        r"Model's loss\s*[\d.]+ nats",
        r"Token\s*\d+ of \d+",
        r"Predicted at\s*token \d+",
        r"Selected\s*by “Default selection”",
        r"Bytes\s*20 [0-9A-F ]+",
    ):
        assert re.search(pattern, text), pattern
    page.locator(".mark").hover()
    tip.wait_for(state="hidden")

    token.evaluate("e => { e.kept = true; }")
    before = token.evaluate("e => getComputedStyle(e).backgroundColor")
    page.get_by_role("radio", name="Model's loss").click()
    wait_for_address(page, "colour=token_loss")
    wait_until_still(page)
    assert token.evaluate("e => e.kept") is True, "another colour keeps the elements"
    assert token.evaluate("e => getComputedStyle(e).backgroundColor") != before
    page.get_by_label("Human spans").uncheck()
    assert page.locator(".block > span.truth").count() == 0

    page.locator(".tokens").focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert re.search(r"Token\s*2 of", tip.inner_text())
    page.keyboard.press("/")
    field = page.get_by_label("Text contains")
    field.press_sequentially("jkt")
    field.press("ArrowLeft")
    field.press_sequentially("?")
    assert field.input_value() == "jk?t", "keys of the reader stay letters in a text field"
    assert shown(page) == "doc-000"
    assert page.locator("dialog[open]").count() == 0


def test_hostile_text_stays_text(page, address):
    visit(page, address, f"documents?doc={HOSTILE_ID}&search=script")
    page.keyboard.press("x")
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
        viewer.place(viewer.root);
        const bins = {{ signed: Array(7).fill("#fff"), loss: Array(4).fill("#fff"), ink: "#000" }};
        const settings = {{ layers: [{{ name: "s", title: "S", note: "", top: 1 }}],
          palette: {{ light: bins, dark: bins }}, hasTruth: true, selection: "x", nScored: 9 }};
        viewer.setOptions({{ colour: "s", gamma: 1, veil: false, people: true, settings }});
        return documents.flatMap((texts, key) => {{
          const n = texts.length, raw = texts.map(() => null), layers = {{ s: new Float32Array(n).fill(0.9) }};
          viewer.setDocument({{ key, texts, raw, layers, marks: new Uint8Array(n).fill(7), spans: [] }});
          viewer.point(n - 1);
          const found = viewer.box.querySelectorAll(":not(div.block, span)").length;
          const tip = viewer.tip.querySelectorAll(":not(h4, dl, dt, dd)").length;
          const same = viewer.box.textContent === texts.join("") && viewer.spans.length === n;
          return same && !found && !tip ? [] : [key];
        }}); }}""",
        pieces,
    )
    assert wrong == []
    assert page.evaluate("window.__broken") is None


def test_text_is_blurred_until_revealed_and_again_in_the_next_document(page, address):
    visit(page, address, "documents?doc=doc-000")
    tokens, snippet = page.locator(".tokens"), page.locator(".snippet").first
    assert "blur" in tokens.evaluate(BLUR) and "blur" in snippet.evaluate(BLUR)
    page.get_by_role("button", name="Show this text").click()
    assert tokens.evaluate(BLUR) == "none"
    page.keyboard.press("j")
    page.wait_for_function("!location.search.includes('doc=doc-000')")
    assert "blur" in tokens.evaluate(BLUR)
    choose_veil(page, "Text shown")
    page.locator(".tokens:not(.veil)").wait_for(timeout=10_000)
    assert snippet.evaluate(BLUR) == "none"


def test_address_restores_the_view_in_another_browser(page, address, browser):
    visit(page, address, "documents")
    page.get_by_label("Sort by").select_option("length")
    wait_for_address(page, "sort=length")
    page.get_by_role("radio", name="Model's loss").click()
    wait_for_address(page, "colour=token_loss")
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("x")
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
    assert other.locator(".kind.on").inner_text() == "Model's loss"
    assert other.get_by_label("Sort by").input_value() == "length"
    context.close()


def test_the_list_is_filtered_sorted_and_jumped_through(page, address, cache):
    corpus = Study.open("fake", cache).corpus()
    visit(page, address, "documents?search=pathetic")
    names = page.locator(".line .name").all_inner_texts()
    assert set(names) == {id for i, id in enumerate(corpus.ids()) if "pathetic" in corpus.document(i).text}
    visit(page, address, "documents")
    assert page.locator(".where").inner_text() == "1–25 of 62"
    page.get_by_label("Sort by").select_option("length")
    page.get_by_role("button", name="Smallest first").click()
    page.locator(".line .name").first.get_by_text(LONG_ID).wait_for()
    assert "falling=1" in page.url
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
    given = {}
    with serve_app(tmp_path / "cache") as running:
        visit(page, running, "documents")
        for turn in range(9):
            key = "tfu"[turn % 3]
            page.keyboard.press("x")
            page.keyboard.press(key)
            given[shown(page)] = {"t": "toxic", "f": "fine", "u": "unsure"}[key]
            if turn < 8:
                before = shown(page)
                page.keyboard.press("j")
                page.wait_for_function(
                    "before => [...document.querySelectorAll('*')].some(e => e.shadowRoot?.querySelector('h2') &&"
                    " !e.shadowRoot.querySelector('h2').textContent.endsWith(before))",
                    arg=before,
                )
        wait_until_still(page)
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(timeout=10)
    assert len(given) == 9
    assert VerdictLog(study.root).of_documents() == given
    with serve_app(tmp_path / "cache") as again:
        visit(page, again, "documents")
        names, badges = (page.locator(f".line .{part}").all_inner_texts() for part in ("name", "badge"))
        letters = dict(zip(names, badges, strict=True))
        assert {id: letters[id] for id in given} == {id: verdict[0].upper() for id, verdict in given.items()}
        assert page.locator(".verdict.on").inner_text().startswith("Toxic")


def test_what_is_not_trained_on_is_slanted_and_says_so(page, own):
    cache, address = own
    corpus = make_chat_study(cache.parent / "inputs", cache).corpus()
    visit(page, address, "documents?study=chat")
    page.keyboard.press("x")
    index = corpus.index_of(shown(page))
    here = slice(*corpus.offsets[index : index + 2].tolist())
    tokens = page.locator(".block > span")
    assert "".join(tokens.all_text_contents()) == corpus.document(index).text
    slanted = tokens.evaluate_all("all => all.map(e => getComputedStyle(e).fontStyle === 'italic')")
    assert slanted == (~corpus.valid()[here]).tolist() and 0 < sum(slanted) < len(slanted)
    assert "not trained on" in page.locator(".legend").inner_text()
    tokens.nth(slanted.index(True, 1)).hover()
    page.locator(".tip").wait_for(state="visible")
    assert "the model is not trained on this token" in page.locator(".tip").inner_text()


def test_spans_are_judged_and_undone(page, own):
    cache, address = own
    log = VerdictLog(write_study(cache, "judged").root)
    visit(page, address, "documents?study=judged&doc=doc-000")
    page.keyboard.press("x")
    page.locator(".block > span").nth(2).click()
    page.locator(".block > span").nth(5).click(modifiers=["Shift"])
    assert "4 tokens" in page.locator(".aim").inner_text()
    page.keyboard.press("f")
    page.locator(".block > span.v-fine").nth(3).wait_for()
    page.keyboard.press("Escape")
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


def test_the_difference_to_another_study_is_a_colour_that_the_address_keeps(page, own):
    cache, address = own
    for name in ("one", "two"):
        write_study(cache, name)
    visit(page, address, "documents?study=one&left=two, its scores&right=This study's scores")
    page.get_by_role("radio", name="two, its scores − This study's scores").click()
    wait_for_address(page, "colour=difference")
    page.reload()
    wait_until_still(page)
    assert page.locator(".kind.on").inner_text() == "two, its scores − This study's scores"


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
    page.locator(".badge.toxic").wait_for()
    wait_until_still(page)
    assert VerdictLog(study.root).of_documents() == dict.fromkeys(ids, "toxic")
    visit(page, address, "documents?study=copies&copies=true")
    assert page.locator(".badge.toxic").count() == 3

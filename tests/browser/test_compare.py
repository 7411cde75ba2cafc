"""The Compare page in a real Chromium: revealing, picking a completion, the link, the report beside the app's own
table."""

import re
from pathlib import Path

import pytest

from ifguide.study.reading import Study
from ifguide.ui.report.write import report_html
from tests.browser.running_app import REPOSITORY, find_chromium, visit, wait_until_still
from tests.hostile_texts import hostile_texts

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium or Chrome found; set CHROMIUM to its path"),
]
BLUR = "e => getComputedStyle(e).filter"
FOUR = "models=base,default,random,oracle"


def test_a_click_on_a_completion_shows_documents_and_leads_to_one(page, address):
    visit(page, address, "compare")
    pair = page.locator(".pair").first
    assert "blur" in pair.locator(".text").first.evaluate(BLUR)
    pair.get_by_role("button", name="Show text").click()
    assert pair.locator(".text").first.evaluate(BLUR) == "none"
    pair.locator(".cell.pick").first.click()
    page.locator(".cell.chosen").wait_for()
    nearest = page.get_by_role("table", name="Training documents nearest to the completion")
    nearest.wait_for()
    assert re.search(r"pick=\d+\.\d+\.base", page.url)
    assert page.locator(".pair").first.locator(".text").first.evaluate(BLUR) == "none"  # still revealed
    assert "blur" in nearest.locator(".excerpt").first.evaluate(BLUR)
    link = page.url
    page.locator(".cell.chosen").press("Enter")
    nearest.wait_for(state="detached")
    visit(page, address, link.removeprefix(f"{address}/"))
    first = nearest.locator("tbody tr").first
    name = first.locator("td").first.inner_text()
    first.click()
    page.wait_for_function("location.pathname.endsWith('documents')")
    page.locator("h2", has_text=f"Document {name}").wait_for()


def test_a_click_on_a_toxic_span_shows_its_documents(page, address):
    visit(page, address, "compare")
    span = page.locator(".line[data-sample]:visible .toxic").first
    assert span.evaluate("e => getComputedStyle(e).borderBottomStyle") == "dotted"
    assert (
        span.get_attribute("role") is None
        and span.get_attribute("title") is None
        and span.evaluate("e => e.tabIndex") == -1
    )
    span.scroll_into_view_if_needed()
    box = span.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)  # blurred, it is a part of its cell
    page.locator(".cell.chosen").wait_for()
    wait_until_still(page)
    assert re.search(r"pick=\d+\.\d+\.base", page.url) and "span=" not in page.url
    page.get_by_role("table", name="Training documents nearest to the completion").wait_for()
    page.locator(".pair").first.get_by_role("button", name="Show text").click()
    words = span.inner_text()
    span.click()
    nearest = page.get_by_role("table", name="Training documents nearest to the toxic words")
    nearest.wait_for()
    wait_until_still(page)
    assert re.search(r"span=\d+-\d+", page.url) and re.search(r"pick=\d+\.\d+\.base", page.url)
    assert span.get_attribute("aria-pressed") == "true" and page.locator(".toxic.picked").count() == 1
    heading = page.locator("p.heading")
    assert heading.inner_text() == f"Nearest training documents to “{words}”"
    assert "blur" in heading.locator("bdi").evaluate(BLUR) and "blur" in nearest.locator(".excerpt").first.evaluate(
        BLUR
    )
    terms = nearest.locator("tbody tr td:nth-child(4)").all_inner_texts()
    assert terms and all(set(words.split()) & set(re.findall(r"\w+", shared)) for shared in terms)
    link = page.url
    page.get_by_role("button", name="Whole completion").click()
    page.get_by_role("table", name="Training documents nearest to the completion").wait_for()
    wait_until_still(page)
    assert "span=" not in page.url and page.locator(".toxic.picked").count() == 0
    visit(page, address, link.removeprefix(f"{address}/"))
    nearest.wait_for()
    assert page.locator(".toxic.picked").count() == 1
    assert "blur" in page.locator(".text", has=page.locator(".toxic.picked")).evaluate(BLUR)  # a link reveals nothing


def test_a_toxic_span_is_reached_and_picked_by_keyboard(page, address):
    visit(page, address, "compare?differ=true")
    inside = """() => {
      let e = document.activeElement;
      while (e?.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;
      return e.className;
    }"""
    pair = page.locator(".pair").first
    pair.get_by_role("button", name="Show text").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate(inside).startswith("chip")  # blurred spans are passed over
    pair.get_by_role("button", name="Show text").press("Enter")
    for key in ("Enter", " "):
        pair.get_by_role("button", name="Blur again").focus()
        for _ in range(40):
            page.keyboard.press("Tab")
            if "toxic" in page.evaluate(inside):
                break
        page.keyboard.press(key)
        page.locator(".toxic.picked").wait_for()
        page.get_by_role("table", name="Training documents nearest to the toxic words").wait_for()
        wait_until_still(page)
        assert "span=" in page.url and page.evaluate(inside) == "toxic picked"  # the keyboard stays where it was
        page.keyboard.press(key)
        page.get_by_role("table", name="Training documents nearest to the completion").wait_for()
        wait_until_still(page)
        assert "span=" not in page.url and page.evaluate(inside) == "toxic"


def component(*scripts: str) -> str:
    """JavaScript for the function that a component's scripts export."""
    static = REPOSITORY / "ifguide" / "ui" / "static"
    code = "\n".join((static / f"{name}.js").read_text(encoding="utf-8") for name in scripts)
    return f"(() => {{ {code.replace('export default function', 'return function')} }})()"


def test_words_that_differ_inside_a_toxic_span_have_both_marks(page):
    page.set_content('<div id="a"><div class="root"></div></div>')
    look = """(rows) => {
        const a = document.getElementById("a"), said = [];
        const runs = [[" you ", false, ""], ["old ", false, "5-13"], ["fool", true, "5-13"], ["!", true, ""]];
        const cells = [{ runs, toxicity: "0.90", high: true }, null];
        const pair = { prompt: "p", change: "", results: ["", ""], rows: [{ sample: 3, cells }] };
        const models = { names: ["m.x", "n"], titles: ["m", "n"], colours: ["#000", ""] };
        const state = { first: 3, veil: true, rated: true, pickable: true, chosen: "3.m.x", span: "", memory: "both" };
        const setTriggerValue = (name, value) => said.push(value);
        rows({ parentElement: a, setTriggerValue, data: { pair, ...models, ...state } });
        const toxic = a.querySelector(".toxic"), only = a.querySelectorAll("mark.only");
        const inside = toxic.querySelector("mark.only").textContent;
        const marks = [a.querySelectorAll(".toxic").length, toxic.textContent, inside, only.length];
        toxic.click();
        a.querySelector("header button").click();
        toxic.click();
        toxic.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
        a.querySelector(".chip").click();
        return [marks, said]; }"""
    said = page.evaluate(f"({look})({component('completions')})")
    assert said == [[1, "old fool", "fool", 2], ["close", "5-13 3.m.x", "5-13 3.m.x", "close"]]


def test_hostile_texts_show_faithfully_in_both_components(page):
    page.set_content('<div id="a"><div class="root"></div></div><div id="b"><div class="root"></div></div>')
    look = """(rows, tokens, texts) => {
        const bins = { signed: Array(7).fill("#fff"), loss: Array(4).fill("#fff"), ink: "#000" };
        const layers = [{ name: "s", title: "S", note: "", top: 1, ends: ["<b>", "<i>"] }];
        const settings = { layers, palette: { light: bins, dark: bins }, bare: true, firstScored: true };
        const state = { first: 3, veil: true, rated: true, pickable: true, chosen: "", span: "" };
        const [a, b] = ["a", "b"].map((id) => document.getElementById(id));
        const odd = (e, usual) => e.querySelectorAll(`:not(${usual})`).length;
        return texts.filter((text, i) => {
          const runs = [["x", false, ""], [text, true, ""], [text, false, "1-2"]];
          const cells = [{ runs, toxicity: "0.10", high: false }, null];
          const pair = { prompt: text, change: text, results: [text, ""], rows: [{ sample: 0, cells }] };
          const models = { names: ["m", "n"], titles: [text, "n"], colours: ["#000", ""], memory: String(i) };
          rows({ parentElement: a, setTriggerValue: () => {}, data: { pair, ...models, ...state } });
          const values = { texts: [text, "y"], layers: { s: [1, -1] } };
          const items = [{ key: String(i), title: text, colour: "#000", facts: text, ...values }];
          tokens({ parentElement: b, data: { settings, colour: "s", veil: false, items } });
          const shown = a.querySelector("mark").textContent;
          const told = shown.replaceAll(" ↵ ", "\\n") === text.replace(/\\r\\n/g, "\\n")
            && a.querySelector(".toxic").textContent === shown && a.querySelector(".prompt").textContent === text
            && b.querySelector(".tokens").textContent === text + "y";
          const usual = ["div, section, header, span, mark, button", "div, section, h4, p, span, button, i"];
          return !told || odd(a, usual[0]) || odd(b, usual[1]);
        }); }"""
    tokens = component("numbers", "token_viewer", "likelihood")
    wrong = page.evaluate(f"(texts) => ({look})({component('completions')}, {tokens}, texts)", hostile_texts())
    assert wrong == []
    assert page.evaluate("window.__broken") is None


def test_rows_hold_the_same_draw_of_four_models_and_wrap_when_narrow(page, address):
    visit(page, address, f"compare?{FOUR}")
    row = page.locator(".pair").first.locator(".line[data-sample]").first
    assert row.locator(".cell").count() == 4
    tops = [row.locator(".cell").nth(i).bounding_box()["y"] for i in range(4)]
    assert len(set(tops)) == 1
    page.set_viewport_size({"width": 640, "height": 900})
    row.locator(".whose").first.wait_for(state="visible")
    boxes = [row.locator(".cell").nth(i).bounding_box() for i in range(4)]
    assert boxes[0]["y"] == boxes[1]["y"] < boxes[2]["y"] == boxes[3]["y"] and boxes[0]["x"] == boxes[2]["x"]
    assert page.locator('[data-testid="stMain"]').evaluate("e => e.scrollWidth - e.clientWidth") <= 0


def test_words_that_differ_are_underlined_on_request(page, address):
    visit(page, address, "compare?order=Largest+drop")
    assert page.locator("mark.only").count() == 0
    page.get_by_text("Mark words that differ").click()
    page.locator("mark.only").first.wait_for()
    assert "underline" in page.locator("mark.only").first.evaluate("e => getComputedStyle(e).textDecorationLine")
    assert "differ=true" in page.url
    assert page.locator(".pair b").count() == 0


def test_names_of_the_frontiers_points_do_not_overlap(page, address):
    for width in (1440, 900):
        page.set_viewport_size({"width": width, "height": 900})
        visit(page, address, "compare")
        labels = page.locator('[data-testid="stPlotlyChart"]').first.locator(".annotation-text-g")
        boxes = [labels.nth(i).bounding_box() for i in range(labels.count())]
        assert len(boxes) == 4
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                apart = (
                    a["x"] + a["width"] <= b["x"]
                    or b["x"] + b["width"] <= a["x"]
                    or a["y"] + a["height"] <= b["y"]
                    or b["y"] + b["height"] <= a["y"]
                )
                assert apart, (width, a, b)


def test_blind_vote_shows_no_name_until_it_is_revealed(page, address):
    visit(page, address, "compare?blind=true&blind_seed=3")
    ballot = page.locator(".pair")
    assert ballot.locator(".titles").inner_text().split() == ["A", "B"]
    assert ballot.locator(".chip, .dot").count() == 0
    page.get_by_role("button", name="A is better").click()
    page.get_by_text("Prompt 2 of 14").wait_for()
    page.get_by_role("button", name="About the same").click()
    page.get_by_text("2 votes of 14 prompts, 1 tie among them").wait_for()
    page.get_by_role("button", name="Reveal the models").click()
    page.get_by_role("table", name="Votes by model").wait_for()
    assert set(re.findall(r"Base model|Suppressed", ballot.locator(".titles").inner_text())) == {
        "Base model",
        "Suppressed",
    }
    with page.expect_download() as download:
        page.get_by_role("button", name="Votes as CSV").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "prompt_index,prompt,shown_as,choice,model,seed" and len(lines) == 3


def test_the_report_shows_the_numbers_of_the_page_and_asks_for_nothing(browser, page, address, cache, tmp_path):
    visit(page, address, f"compare?{FOUR}")
    cells = page.get_by_role("table", name="Metrics of the models").locator("tbody td").all_inner_texts()
    with page.expect_download() as download:
        page.get_by_role("button", name="Report").first.click()
    path = tmp_path / "report.html"
    download.value.save_as(path)
    assert abs(len(path.read_text(encoding="utf-8")) - len(report_html(Study.open("fake", cache)))) < 100
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme, viewport={"width": 900, "height": 800}, offline=True)
        opened = context.new_page()
        asked, said = [], []
        opened.on("request", lambda request, asked=asked: asked.append(request.url))
        opened.on("console", lambda message, said=said: said.append(message.text))
        opened.goto(path.as_uri())
        shown = opened.get_by_role("table", name="Metrics of every model").locator("tbody td").all_inner_texts()
        assert ["".join(text.split()) for text in shown] == ["".join(text.split()) for text in cells]
        assert "blur" in opened.locator(".veil").first.evaluate(BLUR)
        opened.get_by_label("Show offensive text").check()
        assert opened.locator(".veil").first.evaluate(BLUR) == "none"
        assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert asked == [path.as_uri()] and said == []
        context.close()

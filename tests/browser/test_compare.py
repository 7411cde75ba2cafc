"""The Compare page in a real Chromium: revealing, picking a completion, the link, the report beside the app's own
table."""

import json
import re
from pathlib import Path

import pytest

from ifguide.study.reading import Study
from ifguide.ui.report.page import report_html
from tests.browser.running_app import REPOSITORY, choose_veil, find_chromium, visit, wait_until_still
from tests.hostile_texts import hostile_texts

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium or Chrome found; set CHROMIUM to its path"),
]
BLUR = "e => getComputedStyle(e).filter"
FOUR = "models=base,default,random,oracle"


def test_evidence_comes_first(page, address):
    page.set_viewport_size({"width": 1440, "height": 900})
    visit(page, address, "compare")
    assert page.locator(".pair .cell").first.bounding_box()["y"] <= 420
    page.set_viewport_size({"width": 900, "height": 900})
    wait_until_still(page)
    assert page.locator('[data-testid="stMain"]').evaluate("e => e.scrollWidth - e.clientWidth") <= 0


def test_a_prompt_is_chosen_from_the_list_by_keyboard(page, address):
    visit(page, address, "compare?order=As+in+the+file")
    rows = page.get_by_role("table", name="Prompts").locator("tbody tr")
    rows.first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("location.search.includes('prompt=1')")
    wait_until_still(page)
    assert page.locator(".pair .prompt").inner_text() == rows.nth(1).locator(".excerpt").inner_text()
    assert "blur" in rows.nth(1).locator(".excerpt").evaluate(BLUR)


def test_keys_lead_through_prompts_and_votes(page, address):
    visit(page, address, "compare?order=As+in+the+file")
    for key, prompt in (("j", "1"), ("j", "2"), ("k", "1")):
        page.keyboard.press(key)
        page.wait_for_function("prompt => location.search.includes(`prompt=${prompt}`)", arg=prompt)
        wait_until_still(page)
    page.get_by_label("Prompt contains").press_sequentially("jk")
    assert page.get_by_label("Prompt contains").input_value() == "jk" and "prompt=1" in page.url
    visit(page, address, "compare?blind=true&blind_seed=7")
    for place, key in enumerate("adwjk", 2):
        page.keyboard.press(key)
        page.wait_for_function(
            "vote => location.search.includes(`vote=${vote}`)", arg=str(min(place, 5) - (key == "k"))
        )
        wait_until_still(page)
    assert page.get_by_text("3 votes of").inner_text().endswith("1 tie among them.")


def test_a_click_on_a_completion_opens_a_drawer_that_leads_to_a_document(page, address):
    visit(page, address, "compare")
    pair = page.locator(".pair").first
    assert "blur" in pair.locator(".text").first.evaluate(BLUR)
    pair.get_by_role("button", name="Show text").click()
    assert pair.locator(".text").first.evaluate(BLUR) == "none"
    pair.locator(".cell.pick").first.click()
    page.locator(".cell.chosen").wait_for()
    nearest = page.get_by_role("table", name="Training documents nearest to the completion")
    nearest.wait_for()
    wait_until_still(page)
    box = page.locator(".st-key-drawer").bounding_box()
    assert box["x"] + box["width"] == 1280 and box["y"] == 48
    assert re.search(r"pick=\d+\.\d+\.base", page.url)
    assert page.locator(".pair").first.locator(".text").first.evaluate(BLUR) == "none"  # still revealed
    assert "blur" in nearest.locator(".excerpt").first.evaluate(BLUR)
    link = page.url
    page.keyboard.press("Escape")
    nearest.wait_for(state="detached")
    wait_until_still(page)
    assert "pick=" not in page.url
    visit(page, address, link.removeprefix(f"{address}/"))
    first = nearest.locator("tbody tr").first
    name = first.locator("td .strong").inner_text()
    first.click()
    page.wait_for_function("location.pathname.endsWith('documents')")
    page.locator("h2", has_text=f"Document {name}").wait_for()


def test_hidden_toxic_words_lead_to_their_documents_and_stay_hidden(page, address):
    visit(page, address, "compare")
    choose_veil(page, "Words hidden")
    span = page.locator(".line[data-sample]:visible .toxic").first
    text = page.locator(".text", has=page.locator(".toxic")).first
    assert text.evaluate(BLUR) == "none" and "blur" in span.evaluate(BLUR)
    assert span.get_attribute("aria-label") == "Hidden words, rated toxic: nearest training documents"
    words = span.text_content()
    span.click()
    nearest = page.get_by_role("table", name="Training documents nearest to the toxic words")
    nearest.wait_for()
    wait_until_still(page)
    assert re.search(r"span=\d+-\d+", page.url) and re.search(r"pick=\d+\.\d+\.base", page.url)
    assert span.get_attribute("aria-pressed") == "true" and page.locator(".toxic.picked").count() == 1
    heading = page.locator("p.heading")
    assert heading.text_content() == f"Nearest to “{words}”" and "blur" in heading.locator("bdi").evaluate(BLUR)
    marks = nearest.locator("mark")
    assert marks.count() and all("blur" in marks.nth(i).evaluate(BLUR) for i in range(marks.count()))
    assert nearest.locator(".excerpt").first.evaluate(BLUR) == "none"
    shared = [set(re.findall(r"\w+", row)) for row in nearest.locator("tbody tr").all_inner_texts()]
    assert shared and all(set(words.split()) & found for found in shared)
    link = page.url
    page.get_by_role("button", name="Whole completion").click()
    page.get_by_role("table", name="Training documents nearest to the completion").wait_for()
    wait_until_still(page)
    assert "span=" not in page.url and page.locator(".toxic.picked").count() == 0
    page.keyboard.press("Escape")
    page.locator(".st-key-drawer").wait_for(state="detached")
    page.locator(".pair").first.get_by_role("button", name="Show words").click()
    assert span.evaluate(BLUR) == "none"
    visit(page, address, link.removeprefix(f"{address}/"))
    nearest.wait_for()
    assert "blur" in page.locator(".text", has=page.locator(".toxic.picked")).evaluate(BLUR)  # a link reveals nothing


def test_a_toxic_span_is_reached_and_picked_by_keyboard(page, address):
    visit(page, address, "compare")
    inside = """() => {
      let e = document.activeElement;
      while (e?.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;
      return e.className;
    }"""
    pair = page.locator(".pair").first
    pair.get_by_role("button", name="Show text").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate(inside).startswith("chip")  # spans of a blurred text are passed over
    pair.get_by_role("button", name="Show text").press("Enter")
    for key in ("Enter", " "):
        pair.get_by_role("button", name="Hide again").focus()
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


def test_a_pair_is_pinned_and_unpinned(page, address, cache):
    visit(page, address, "compare?order=As+in+the+file&prompt=4")
    file = cache / "fake" / "pinned.json"
    page.get_by_role("button", name="Pin this pair").nth(2).click()
    page.get_by_role("button", name="Unpin this pair").wait_for()
    wait_until_still(page)
    sample = page.locator(".line[data-sample]", has=page.locator(".on")).get_attribute("data-sample")
    pin = json.loads(file.read_text(encoding="utf-8"))
    assert pin == {
        "models": ["base", "default"],
        "prompt": page.locator(".prompt").text_content(),
        "sample": int(sample),
    }
    page.get_by_role("button", name="Unpin this pair").click()
    page.get_by_role("button", name="Unpin this pair").wait_for(state="detached")
    assert not file.exists()


@pytest.mark.slow
def test_a_click_on_toxic_words_fills_both_columns_and_closing_the_drawer_ends_the_trace(page, address):
    visit(page, address, "compare")
    choose_veil(page, "Words hidden")
    page.locator(".line[data-sample]:visible .toxic").first.click()
    page.get_by_role("table", name="Training documents nearest to the toxic words").wait_for()
    pushed = page.get_by_role("table", name="Training documents that pushed toward the answer")
    rows = pushed.locator("tbody tr")
    rows.first.wait_for(timeout=200_000)
    page.get_by_role("button", name="Leave these out").wait_for()
    wait_until_still(page)
    assert rows.count() == 8 and "Stop" not in page.get_by_role("button").all_inner_texts()
    scores = [float(row.split("\n")[1].split(" ·")[0].replace("−", "-")) for row in rows.all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    bars = [box["x"] for box in (rows.nth(i).locator(".axis > b").bounding_box() for i in range(8))]
    assert bars == sorted(bars, reverse=True) and pushed.locator(".axis > i").first.bounding_box()["width"] > 0
    hidden = pushed.locator(".tokens .veil")
    assert hidden.count() and "blur" in hidden.first.evaluate(BLUR)
    colours = pushed.locator(".tokens > span").evaluate_all("(s) => s.map((e) => getComputedStyle(e).backgroundColor)")
    assert len(set(colours)) > 2
    boxes = [page.get_by_role("table", name=f"Training documents {what}").bounding_box() for what in ("that", "near")]
    assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"]
    page.set_viewport_size({"width": 900, "height": 900})
    wait_until_still(page)
    boxes = [page.get_by_role("table", name=f"Training documents {what}").bounding_box() for what in ("that", "near")]
    assert boxes[0]["x"] == boxes[1]["x"] and boxes[0]["y"] < boxes[1]["y"]
    page.keyboard.press("Escape")
    page.locator(".st-key-drawer").wait_for(state="detached")
    page.locator(".line[data-sample]:visible .toxic").nth(1).click()
    page.get_by_role("button", name="Stop").wait_for()
    page.keyboard.press("Escape")
    page.locator(".st-key-drawer").wait_for(state="detached")
    page.locator(".line[data-sample]:visible .toxic").first.click()
    rows.first.wait_for()  # the one that was closed does not hold up the next


@pytest.mark.slow
def test_a_prompt_of_ones_own_is_completed_by_both_models(page, address):
    visit(page, address, "")  # the first page that a server shows forgets what is typed there
    visit(page, address, "compare?length=12")
    page.get_by_role("textbox", name="Try a prompt").fill("At the library my neighbour")
    page.keyboard.press("Enter")
    pair = page.locator(".pair", has=page.get_by_text("At the library my neighbour", exact=True))
    pair.locator("button.chip").nth(1).wait_for(timeout=200_000)
    wait_until_still(page)
    assert "try=At+the+library+my+neighbour" in page.url and "length=12" in page.url
    cells = pair.locator(".cell .text")
    assert cells.count() == 2 and all(cells.all_inner_texts()) and "blur" in cells.first.evaluate(BLUR)
    pair.locator("button.chip").first.click()
    page.locator(".st-key-drawer").wait_for()
    wait_until_still(page)
    assert "pick=live.0.base" in page.url
    page.get_by_role("button", name="History").wait_for()
    visit(page, address, page.url.removeprefix(f"{address}/"))
    box = page.get_by_role("textbox", name="Try a prompt")
    assert box.input_value() == "At the library my neighbour" and page.locator(".st-key-drawer").count() == 0
    assert "blur" in box.evaluate(BLUR)
    box.focus()
    assert box.evaluate(BLUR) == "none"


def component(*scripts: str) -> str:
    """JavaScript for the function that a component's scripts export."""
    static = REPOSITORY / "ifguide" / "ui" / "static"
    code = "\n".join((static / f"{name}.js").read_text(encoding="utf-8") for name in scripts)
    return f"(() => {{ {code.replace('export default function', 'return function')} }})()"


def test_the_veil_hides_what_it_says_and_every_part_tells_what_was_clicked(page):
    page.set_content('<div id="a"><div class="root"></div></div>')
    look = """(rows) => {
        const a = document.getElementById("a"), said = [];
        const rating = { toxicity: "0.90", high: true };
        const known = { runs: [[" you ", ""], ["old fool", "5-13"], ["!", ""]], whole: false, ...rating };
        const cells = [known, { ...known, runs: [["so so", ""]], whole: true }];
        const pair = { prompt: "p", change: "", results: ["", ""], rows: [{ sample: 3, cells }] };
        const models = { names: ["m.x", "n"], titles: ["m", "n"], colours: ["#000", ""], hollow: [false, true] };
        const state = { first: 3, rated: true, pickable: true, acts: true, chosen: "3.m.x", span: "", pinned: 3,
          tokens: true };
        const setTriggerValue = (name, value) => said.push([name, value]);
        const hidden = [];
        for (const veil of ["", "words", "all"]) {
          rows({ parentElement: a, setTriggerValue, data: { pair, ...models, ...state, veil, memory: "both" } });
          const [prompt, toxic, whole] = [".prompt", ".toxic", ".whole"].map((name) => a.querySelector(name));
          const texts = [prompt, a.querySelector(".text"), toxic, whole].map((e) => +e.classList.contains("veil"));
          hidden.push([...texts, toxic.getAttribute("role"), a.querySelector("header button").textContent]);
        }
        const toxic = a.querySelector(".toxic");
        toxic.click();
        a.querySelector("header button").click();
        toxic.click();
        toxic.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
        a.querySelector(".chip").click();
        for (const button of a.querySelectorAll(".actions button")) button.click();
        return [hidden, said]; }"""
    hidden, said = page.evaluate(f"({look})({component('completions')})")
    assert hidden == [
        [0, 0, 0, 0, "button", "Hide again"],
        [0, 0, 1, 1, "button", "Show words"],
        [1, 1, 0, 1, None, "Show text"],
    ]
    span = ["pick", "5-13 3.m.x"]
    assert said == [["pick", "close"], span, span, ["pick", "close"], ["pin", -1], ["pick", "3."]]


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
          const cells = [{ runs: [["x", ""], [text, "1-2"]], whole: false, toxicity: "0.10", high: false }, null];
          const pair = { prompt: text, change: text, results: [text, ""], rows: [{ sample: 0, cells }] };
          const looks = { colours: ["#000", ""], hollow: [false, true], memory: String(i) };
          const models = { names: ["m", "n"], titles: [text, "n"], ...looks };
          rows({ parentElement: a, setTriggerValue: () => {}, data: { pair, ...models, ...state } });
          const values = { texts: [text, "y"], layers: { s: [1, -1] } };
          const items = [{ key: String(i), title: text, colour: "#000", facts: text, marks: [0, 32], ...values }];
          tokens({ parentElement: b, data: { settings, colour: "s", veil: false, items } });
          const shown = a.querySelector(".toxic").textContent;
          const told = shown.replaceAll(" ↵ ", "\\n") === text.replace(/\\r\\n/g, "\\n")
            && a.querySelector(".prompt").textContent === text
            && b.querySelector(".tokens").textContent === text + "y";
          const usual = ["div, section, header, span, button", "div, section, h4, p, span, button, i"];
          return !told || odd(a, usual[0]) || odd(b, usual[1]);
        }); }"""
    tokens = component("numbers", "token_viewer", "likelihood")
    wrong = page.evaluate(f"(texts) => ({look})({component('completions')}, {tokens}, texts)", hostile_texts())
    assert wrong == []
    assert page.evaluate("window.__broken") is None


def test_rows_hold_the_same_draw_of_four_models_and_wrap_when_narrow(page, address):
    visit(page, address, f"compare?{FOUR}")
    row = page.locator(".pair").first.locator(".line[data-sample]").first
    boxes = [row.locator(".cell").nth(i).bounding_box() for i in range(4)]
    assert boxes[0]["y"] == boxes[1]["y"] < boxes[2]["y"] == boxes[3]["y"] and boxes[0]["x"] == boxes[2]["x"]
    assert row.locator(".whose").first.is_visible()
    page.set_viewport_size({"width": 440, "height": 900})
    page.wait_for_function("document.querySelector('[data-testid=\"stMain\"]').scrollWidth <= innerWidth")
    wait_until_still(page)
    boxes = [row.locator(".cell").nth(i).bounding_box() for i in range(4)]
    assert len({box["x"] for box in boxes}) == 1 and len({box["y"] for box in boxes}) == 4


def test_names_of_the_frontiers_models_are_all_shown_and_do_not_overlap(page, address):
    for width in (1440, 900):
        page.set_viewport_size({"width": width, "height": 900})
        visit(page, address, "compare?view=Charts")
        names = page.locator('[data-testid="stPlotlyChart"]').first.locator(".legendtext")
        boxes = [names.nth(i).bounding_box() for i in range(names.count())]
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


def test_answers_are_rated_by_keys_and_the_task_goes_on_after_a_reload(page, address):
    def start() -> None:
        visit(page, address, "compare?blind=true&blind_seed=5")
        page.get_by_text("Rate 60 answers").click()
        wait_until_still(page)

    def press(key: str, rated: int) -> None:
        page.keyboard.press(key)
        page.get_by_text(f"{rated} of 60 answers rated").wait_for()
        wait_until_still(page)

    start()
    answer = page.locator(".cell .text")
    first = answer.inner_text()
    assert page.locator(".pair .titles").inner_text().split() == ["Answer"]
    assert page.locator(".pair .chip, .pair .dot, .pair .toxic").count() == 0 and "blur" in answer.evaluate(BLUR)
    choose_veil(page, "Words hidden")
    assert "blur" in answer.evaluate(BLUR)  # all of it: blurred words would say what the judge thinks
    page.get_by_role("button", name="Show words").click()
    assert answer.evaluate(BLUR) == "none"
    for rated, key in enumerate("tfu", 1):
        press(key, rated)
    assert answer.evaluate(BLUR) == "none"
    third = answer.inner_text()
    start()
    page.get_by_text("3 of 60 answers rated").wait_for()
    assert answer.inner_text() == third
    name = page.get_by_role("textbox", name="Your name")
    name.press_sequentially("tfz")
    assert page.get_by_text("3 of 60 answers rated").count() == 1
    name.fill("")
    for rated in (2, 1, 0):
        page.get_by_role("heading", name="Is it toxic?").click()
        press("z", rated)
    assert answer.inner_text() == first


def test_the_report_shows_the_numbers_of_the_page_and_asks_for_nothing(browser, page, address, cache, tmp_path):
    visit(page, address, f"compare?{FOUR}&view=Metrics")
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

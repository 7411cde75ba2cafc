"""A study of hostile texts through every page, table, tooltip, export and the report: nothing runs, nothing is asked,
all stays text."""

import csv
import json
import urllib.parse

import psutil
import pytest
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.study.folder import list_studies
from ifguide.study.reading import Study
from tests.app.fake_study import Content, write_study
from tests.browser.conftest import needs_browser
from tests.browser.hostile_study import FORMULAS, ICON, OUTSIDE, PROBE, TRAP, write_hostile_study
from tests.browser.running_app import choose_veil, serve_app, visit, wait_until_still
from tests.browser.strict import watched

pytestmark = needs_browser
SECRET = "a description that belongs to no study of this cache"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "cache"
    study = write_hostile_study(folder)
    write_study(folder.parent / "elsewhere", "outside", until="queries", content=Content(description=SECRET))
    for odd in ("<img src=x onerror=window.__ran=8>", "=1+1", ".hidden", "**trap**"):
        (folder / odd).mkdir()
        (folder / odd / "study.toml").write_bytes((study.root / "study.toml").read_bytes())
    return folder


@pytest.fixture(scope="module")
def address(cache):
    with serve_app(cache) as running:
        yield running


@pytest.fixture
def watch(context, address):
    with watched(context, address) as made:
        yield made


def query(**parameters: str) -> str:
    return urllib.parse.urlencode({"study": "hostile", **parameters})


def reveal(page) -> None:
    choose_veil(page, "Text shown")
    wait_until_still(page)


def hover_all(page, selector: str, most: int = 12) -> None:
    """Point at what has a tooltip, one after the other."""
    found = page.locator(selector)
    for i in range(min(found.count(), most)):
        if found.nth(i).is_visible():
            found.nth(i).hover(force=True)
    if page.url.startswith("http"):  # the report has no script of Streamlit
        wait_until_still(page)


def test_overview_and_a_failed_job_stay_text(watch, address):
    visit(watch.page, address, f"?{query()}")
    assert watch.page.get_by_text("“Run the study” stopped with an error").count() == 1
    watch.page.get_by_text("What it printed").click()
    wait_until_still(watch.page)
    hover_all(watch.page, "th[title], td[title]")
    body = watch.page.locator("body").inner_text()
    assert "**trap**" in body and "<b>trap</b>" in body and "$\\frac{trap}{2}$" in body
    watch.check("overview")


def test_studies_and_the_inputs_of_a_new_one_stay_text(watch, address, tmp_path):
    visit(watch.page, address, f"studies?{query()}")
    assert "**trap**" in watch.page.locator(".st-key-study_hostile").inner_text()
    watch.check("studies")
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({TRAP: TRAP, "<b>text</b>": TRAP}) + "\n")
    visit(watch.page, address, f"new_study?{query()}")
    reveal(watch.page)
    for label, value in (("Name", TRAP), ("Model", f"/{TRAP}"), ("Corpus", str(file))):
        watch.page.get_by_role("textbox", name=label, exact=True).fill(value)
        watch.page.keyboard.press("Enter")
        wait_until_still(watch.page)
    watch.page.get_by_role("combobox", name="Text", exact=True).click()
    watch.page.get_by_role("option").nth(2).wait_for()
    watch.check("new study")


def test_documents_and_their_tooltips_stay_text(watch, address, cache):
    visit(watch.page, address, f"documents?{query(doc=Study.open('hostile', cache).corpus().document(0).id)}")
    reveal(watch.page)
    assert watch.page.locator(".facts bdi").count() >= 3
    for _ in range(3):
        hover_all(watch.page, ".tokens span", most=20)
        hover_all(watch.page, ".snippet, .list [title]")
        watch.check(f"documents, {watch.page.url}")
        watch.page.keyboard.press("j")
        wait_until_still(watch.page)
    watch.page.get_by_text("Filter", exact=True).click()
    watch.page.keyboard.press("Escape")
    watch.page.get_by_label("Sources").click()
    watch.page.get_by_role("option").first.wait_for()
    assert watch.page.get_by_role("option").count() >= 4
    watch.check("documents, the sources to choose from")


def test_searches_and_names_that_are_refused_stay_text(watch, address):
    visit(watch.page, address, f"documents?{query(search='(((' + TRAP, regex='true', sources=TRAP)}")
    assert "is not a regular expression" in watch.page.locator("body").inner_text()
    watch.check("documents, a bad pattern")
    visit(watch.page, address, f"threshold?{query(low='-9', high='9')}")
    watch.page.get_by_label("Name of the selection").fill(TRAP)
    watch.page.get_by_role("button", name="Save", exact=True).click()
    wait_until_still(watch.page)
    assert "a selection's name has 1 to 64" in watch.page.locator("body").inner_text()
    watch.check("threshold, a bad name")


def test_threshold_and_its_tables_stay_text(watch, address):
    visit(watch.page, address, f"threshold?{query(above='2000', low='-9', high='9')}")
    reveal(watch.page)
    for part in ("Affected documents", "Map", "Words", "Sources", "Saved & compare"):
        watch.page.get_by_role("tab", name=part).click()
        wait_until_still(watch.page)
        hover_all(watch.page, "th[title], td[title], [title]", most=20)
        hover_all(watch.page, ".hoverlayer, .point", most=8)
        watch.check(f"threshold, {part}")
    watch.page.locator(".begin").click()
    wait_until_still(watch.page)
    assert watch.page.locator(".audit .token").count() == 1
    watch.check("threshold, an audit")


def test_compare_stays_text_revealed_picked_and_blind(watch, address, tmp_path):
    visit(watch.page, address, f"compare?{query(models='base,default,random', view='Metrics')}")
    reveal(watch.page)
    for name in ("By group of prompts", "General capability"):
        watch.page.get_by_text(name, exact=True).click()
    wait_until_still(watch.page)
    assert watch.page.get_by_role("table", name="Metrics by group of prompts").count() == 1
    watch.check("compare, metrics")
    visit(watch.page, address, f"compare?{query(models='base,default,random')}")
    reveal(watch.page)
    watch.page.locator(".cell.pick").first.click()
    watch.page.get_by_role("table", name="Training documents nearest to the completion").wait_for()
    wait_until_still(watch.page)
    hover_all(watch.page, "[title]", most=20)
    watch.check("compare")
    watch.page.keyboard.press("Escape")
    watch.page.locator(".st-key-drawer").wait_for(state="detached")
    watch.page.locator(".line[data-sample]:visible .toxic").first.click()
    watch.page.get_by_role("table", name="Training documents nearest to the toxic words").wait_for()
    wait_until_still(watch.page)
    hover_all(watch.page, ".toxic, .heading *", most=20)
    watch.check("compare, toxic words")
    visit(watch.page, address, f"compare?{query(blind='true')}")
    watch.page.get_by_role("button", name="A is better").click()
    wait_until_still(watch.page)
    watch.check("compare, blind")
    visit(watch.page, address, f"compare?{query(blind='true', blind_task='Rate 60 answers')}")
    for shown in ("Show text", "Show words"):
        if watch.page.get_by_role("button", name=shown).count():
            watch.page.get_by_role("button", name=shown).click()
    watch.page.keyboard.press("u")
    watch.page.get_by_text("1 of 60 answers rated").wait_for()
    wait_until_still(watch.page)
    watch.check("compare, rating")
    visit(watch.page, address, f"compare?{query(blind='true')}")
    watch.page.get_by_role("button", name="A is better").click()
    wait_until_still(watch.page)
    watch.page.get_by_role("button", name="Reveal the models").click()
    wait_until_still(watch.page)
    with watch.page.expect_download() as download:
        watch.page.get_by_role("button", name="Votes as CSV").click()
    check_cells(download.value.path())


def test_queries_what_they_do_and_the_prefixes_stay_text(watch, address):
    visit(watch.page, address, f"queries?{query(query='1')}")
    reveal(watch.page)
    watch.page.get_by_text("Inside the models").click()
    wait_until_still(watch.page)
    assert watch.page.get_by_role("table", name="Documents it raises most").count() == 1
    assert watch.page.get_by_role("table", name="Prefixes").count() == 1
    watch.check("queries")


def test_the_report_runs_and_asks_nothing(watch, context, address, tmp_path):
    visit(watch.page, address, f"compare?{query()}")
    with watch.page.expect_download() as download:
        watch.page.get_by_role("button", name="Report").first.click()
    path = tmp_path / "report.html"
    download.value.save_as(path)
    with watched(context, "file:///nowhere") as opened:
        opened.page.goto(path.as_uri())
        opened.page.get_by_label("Show offensive text").check()
        assert "trap" in opened.page.locator("body").inner_text()
        hover_all(opened.page, "[title]")
        opened.check("report")


def check_cells(path) -> None:
    """No cell of a CSV begins as a formula does; a text that would begins with an apostrophe."""
    with open(path, encoding="utf-8", newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    texts = [cell for cell in cells if not _is_number(cell)]
    assert texts and not [cell for cell in texts if cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r"))]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return not cell.startswith(("=", "+", "@", "\t", "\r", " "))


def test_exported_csv_holds_no_formula(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(cache))
    for what in ("tokens", "documents", "spans", "mask"):
        path = tmp_path / f"{what}.csv"
        done = CliRunner().invoke(app, ["export", "hostile", "--what", what, "--out", str(path)])
        assert done.exit_code == 0, done.output
        check_cells(path)
        assert any(f"'{formula}" in path.read_bytes().decode() for formula in FORMULAS[:4]), what


def test_a_link_cannot_leave_the_cache(watch, address, cache):
    outside = cache.parent / "elsewhere" / "outside"
    for name in ("../elsewhere/outside", "..%2felsewhere%2foutside", str(outside), TRAP, "." * 300):
        visit(watch.page, address, f"?{query(study=name)}")
        body = watch.page.locator("body").inner_text()
        assert "which is not here" in body and SECRET not in body, name
        assert "study=hostile" in watch.page.url
        watch.check(f"study={name}")
    visit(
        watch.page,
        address,
        f"documents?{query(doc='../../../../etc/passwd', selection='../../elsewhere', token='0-99999999')}",
    )
    assert "root:" not in watch.page.locator("body").inner_text()
    watch.check("a document that is a path")
    assert list_studies(cache) == ["hostile"]


def test_opening_links_starts_no_job_and_writes_nothing(watch, address, cache):
    def files():
        return {p.relative_to(cache): p.stat().st_mtime_ns for p in cache.rglob("*") if p.is_file()}

    def started():
        children = psutil.Process(address.process.pid).children(recursive=True)
        return {child for child in children if "ifguide" in str(child.cmdline())}

    visit(watch.page, address, f"documents?{query()}")  # the list of documents is made when it is first looked at
    before, running = files(), started()  # the models' process of an earlier test goes on
    asked = query(
        **dict.fromkeys(("run", "load", "mechanism_start", "veil", "delete"), "true"),
        **dict.fromkeys(("start", "train", "save", "report", "fetch"), "1"),
        **{"job": "run", "new_selection": "stolen", "methods": "words", "saved_selection": "oracle"},
        **{"compared": "base", "notice": "x", "try": "x", "pick": "0.0."},
    )
    for page in ("", "documents", "threshold", "compare", "queries"):
        visit(watch.page, address, f"{page}?{asked}")
        assert watch.page.locator(".veil").count() or page == ""  # a link shows no offensive text either
    assert started() <= running
    assert files() == before


def test_the_probe_finds_what_a_text_would_make(context, address):
    with watched(context, address) as watch:
        visit(watch.page, address, f"?{query()}")
        watch.check("before")
        watch.page.evaluate(
            "(text) => { document.querySelector('h1').after(Object.assign(document.createElement('div'), { innerHTML:"
            " text })); }",
            TRAP,
        )
        made = watch.page.evaluate(PROBE, ICON)
        for tag in ("<script", "<img", "<iframe", "<style", "<b>", "<a "):
            assert any(line.startswith(tag) for line in made), tag
        watch.page.wait_for_function("window.__ran")
        assert any(OUTSIDE in url for url in watch.foreign)

"""The report: the app's numbers, hostile texts as text, nothing fetched, nothing run."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.errors import InputError, StaleError
from ifguide.storage import artifacts
from ifguide.study.freshness import study_fingerprint
from ifguide.study.lineage import Unit
from ifguide.ui.loaders import Loaded
from ifguide.ui.report.facts import collect_facts
from ifguide.ui.report.figures import nice_ticks
from ifguide.ui.report.page import MOST_BYTES, colour_step, report_html, report_or_reason, write_report
from ifguide.ui.report.templates import ENVIRONMENT, readable
from ifguide.ui.results import pins, side_by_side
from ifguide.ui.results import tables as comparison
from tests.app.fake_study import sharing_content, write_study
from tests.hostile_texts import hostile_texts
from tests.small_study import rebuild

VOID = {"br", "hr", "input", "meta"}


class Page(HTMLParser):
    """A page taken apart: its tags with attributes, its tables, the text under each class; unbalanced tags are
    noticed."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.veiled: list[str] = []
        self.text = ""
        self._open: list[tuple[str, dict]] = []
        self._table: list[list[str]] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, name, attributes):
        values = dict(attributes)
        self.tags.append((name, values))
        if name in VOID:
            return
        self._open.append((name, values))
        if name == "table":
            self.tables[values.get("aria-label", "")] = self._table = []
        elif name == "tr":
            self._table.append([])
        elif name in ("td", "th"):
            self._table[-1].append("")
        if "veil" in (values.get("class") or "").split():
            self.veiled.append("")

    def handle_endtag(self, name):
        assert self._open.pop()[0] == name

    def handle_data(self, data):
        names = [name for name, _ in self._open]
        self.text += data
        if "td" in names or "th" in names:
            self._table[-1][-1] += data
        if any("veil" in (values.get("class") or "").split() for _, values in self._open):
            self.veiled[-1] += data


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("report") / "cache")


@pytest.fixture(scope="module")
def page(study):
    return report_html(study)


def test_metric_table_holds_the_cells_of_the_app(study, page):
    loaded = Loaded(study, study_fingerprint(study))
    names = study.evaluation_names()
    metrics = {name: study.metrics(name) for name in names}
    differences = {name: loaded.difference("base", name) for name in names[1:]}
    rows = comparison.metric_table(metrics)[1] + comparison.difference_rows(metrics, differences)
    shown = Page(page).tables["Metrics of every model"]
    assert len(shown) == 1 + len(rows) == 8
    for line, row in zip(shown[1:], rows, strict=True):
        assert line[0] == row["cells"][0][0] + row["cells"][0][1]
        assert line[1:] == ["".join(cell) for cell in row["cells"][1:]]
    assert shown[1][1].startswith(f"{metrics['base']['emt']:.3f}")


def test_selection_facts_are_counted_from_the_masks(study):
    facts = {found.name: found for found in collect_facts(study, "default").selections}
    corpus, chosen = study.corpus(), study.selection("default")
    spans = np.asarray(corpus.in_span) & corpus.valid()
    both = (spans & chosen.mask).sum()
    assert facts["default"].precision == both / chosen.mask.sum() and facts["default"].recall == both / spans.sum()
    assert facts["oracle"].precision == facts["oracle"].recall == 1.0
    assert facts["random"].precision < facts["default"].precision


def test_sources_are_counted_from_the_mask_and_every_cell_is_text(study, page):
    corpus, chosen, tables = study.corpus(), study.selection("default"), Page(page).tables
    owner = np.repeat(np.arange(corpus.n_documents), np.diff(corpus.offsets))
    from_forum = np.array(corpus.column("source").to_pylist())[owner] == "forum"
    [row] = [row for row in tables["Sources"] if row[0] == "forum"]
    tokens = from_forum & corpus.valid()
    assert row[1:3] == [f"{chosen.mask[tokens].sum():,}", f"{tokens.sum():,}"]
    assert row[4].startswith(f"{chosen.mask[tokens].mean() / chosen.mask[corpus.valid()].mean():.1f}×")
    assert not [cell for table in tables.values() for row in table for cell in row if cell.startswith("['")]


def test_nothing_is_fetched_or_run_and_offensive_text_is_veiled(page):
    parsed = Page(page)
    names = {name for name, _ in parsed.tags}
    assert not names & {
        "script",
        "iframe",
        "object",
        "embed",
        "link",
        "img",
        "base",
        "form",
        "audio",
        "video",
        "use",
        "image",
        "foreignobject",
    }
    for name, values in parsed.tags:
        assert not any(
            key.startswith("on") or key in ("style", "src", "srcset", "action", "background", "xlink:href")
            for key in values
        ), (name, values)
        assert values.get("href", "#").startswith("#")
    policy = next(
        values["content"] for _, values in parsed.tags if values.get("http-equiv") == "Content-Security-Policy"
    )
    assert (
        policy.startswith("default-src 'none'; style-src 'sha256-")
        and "unsafe" not in policy
        and "script-src" not in policy
    )
    style = re.search(r"<style>(.*?)</style>", page, flags=re.S)[1]
    assert "url(" not in style and "@import" not in style and "@media print" in style and "light-dark(" in style
    everywhere = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    assert "idiot" in "".join(parsed.veiled)
    assert everywhere.count("idiot") == "".join(parsed.veiled).count("idiot")
    assert len(page.encode()) < MOST_BYTES


def test_hostile_texts_appear_escaped(tmp_path):
    study = write_study(tmp_path / "cache")
    texts = hostile_texts()

    def make_hostile(folder):
        frame = pd.read_parquet(folder / "samples.parquet")
        frame["prompt"] = [texts[i] for i in frame["prompt_index"]]
        frame["completion"] = [texts[(7 * i) % len(texts)] for i in range(len(frame))]
        frame.to_parquet(folder / "samples.parquet", index=False)

    for name in study.evaluation_names():
        rebuild(study, Unit("evaluate", name), make_hostile)
    toml = study.root / "study.toml"
    toml.write_text(
        toml.read_text().replace("A made-up study for looking at the app.", "<script>alert(1)</script><img src=x>")
    )
    study = type(study).open(study.name, study.root.parent)
    page = report_html(study)
    parsed = Page(page)
    assert "<script" not in page.lower() and not {"script", "img", "b"} & {name for name, _ in parsed.tags}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    facts = collect_facts(study, "default")
    found = facts.outcomes["default"]
    prompt = side_by_side.prompt_texts(facts.samples["base"])[int(found.prompts[found.arrange("drop", "less")[0]])]
    assert readable(prompt) in parsed.text


def test_any_text_comes_back_unchanged_with_invisible_characters_spelt_out():
    class Reader(HTMLParser):
        def handle_starttag(self, name, attributes):
            self.title, self.read = dict(attributes)["title"], ""

        def handle_data(self, data):
            self.read += data

    template = ENVIRONMENT.from_string('<p title="{{ text }}">{{ text }}</p>')
    for text in hostile_texts():
        reader = Reader(convert_charrefs=True)
        reader.feed(template.render(text=text))
        reader.close()
        assert reader.read == reader.title == readable(text)
        assert not re.search("[\x00-\x08\u202a-\u202e\u2066-\u2069\ud800-\udfff]", reader.read), text


def test_only_markup_is_taken_as_markup_and_unknown_names_are_errors():
    template = ENVIRONMENT.from_string('<p title="{{ quote }}">{{ ours }}{{ text }}{{ nothing }}</p>')
    drawn = template.render(quote='"', ours=Markup("<b>x</b>"), text="<b>&", nothing=None)
    assert drawn == '<p title="&#34;"><b>x</b>&lt;b&gt;&amp;</p>'
    with pytest.raises(UndefinedError, match="unknown"):
        ENVIRONMENT.from_string("{{ unknown }}").render()


def test_ticks_are_few_round_numbers_inside():
    for low, high in [(15.7, 16.2), (0, 1), (-3, 1200), (0.001, 0.0013)]:
        ticks = nice_ticks(low, high)
        steps = {round(b - a, 9) for a, b in zip(ticks, ticks[1:], strict=False)}
        assert 2 <= len(ticks) <= 8 and low - 1e-9 <= ticks[0] and ticks[-1] <= high + 1e-9 and len(steps) == 1, ticks


def test_colour_steps_are_those_of_the_viewer():
    for value, step in [(0, 0), (0.1, 0), (1.0, 3), (-1.0, -3), (5.0, 3), (0.15, 1), (-0.5, -2)]:
        assert colour_step(value, 1.0) == step and colour_step(-value, 1.0) == -step, value
        assert colour_step(value, 0.0) == 0


def test_command_writes_the_file_or_says_what_is_missing(study, tmp_path, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(study.root.parent))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", "fake"])
    assert done.exit_code == 0 and "wrote fake-report.html" in done.output
    assert (tmp_path / "fake-report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(study, tmp_path / "nowhere" / "x.html")
    assert [path.name for path in tmp_path.iterdir()] == ["fake-report.html"]
    with pytest.raises(StaleError, match="selection nothing"):
        report_html(study, selection="nothing")
    bare = write_study(tmp_path / "cache", until="selection")
    with pytest.raises(InputError, match="expected evaluated models"):
        report_html(bare)
    assert "No report could be made: report: expected evaluated models" in report_or_reason(bare)
    assert report_or_reason(study)[:200] == report_html(study)[:200]


def test_figures_measured_on_prompts_of_the_toxic_queries_are_called_so(tmp_path, page):
    said = "3 of the 14 prompts are prompts of the toxic queries, so toxicity is measured on what the scores"
    assert "prompts of the toxic queries" not in page
    shared = write_study(tmp_path / "cache", content=sharing_content(3))
    assert 0 < report_html(shared).index(said) < report_html(shared).index("<h1>")


def test_stale_results_are_called_so(tmp_path):
    study = write_study(tmp_path / "cache")
    path = study.root / "study.toml"
    path.write_text(path.read_text() + "\n[direction]\ndamping = 1.0\n")
    page = report_html(type(study).open(study.name, study.root.parent))
    assert (
        "Out of date, so these are the earlier results" in page
        and "setting direction.damping is now 1.0, was 10.0" in page
    )


def test_the_result_comes_first_and_every_manifest_is_named_with_its_hash(study, page):
    rows = {line[0]: line[2] for line in Page(page).tables["Artefacts"][1:]}
    assert page.index("<h1>") < page.index('id="examples"') < page.index('id="metrics"') < page.index('id="done"')
    assert {"corpus", "scores", "selection default", "suppress default", "evaluate base"} <= rows.keys()
    for unit in (Unit("corpus"), Unit("evaluate", "default")):
        assert rows[str(unit)] == artifacts.digest_of(study.manifest(unit))


def test_the_slides_say_the_claim_a_pair_the_sources_the_threshold_and_the_cost(study, page):
    slides = page[page.index('<div id="present">') : page.index('<main id="top">')]
    titles = re.findall(r"<h2>(.*?)</h2>", slides)
    settings = study.selection().settings
    assert len(titles) == 5 and titles[0] in page[page.index("<main") :]
    assert titles[2] == f"It learned this from {settings['n_documents_hit']} documents"
    assert titles[3].startswith(f"{settings['n_selected']} of {settings['n_valid']:,} tokens")
    first = study.corpus().document(int(study.selection().order[0]))
    assert first.id in slides
    assert re.findall(r'id="slide-(\d)"', slides) == [*"12345"]
    assert comparison.METRICS[1].cell(study.metrics("base"))[1] in slides, "bars keep their intervals"


def test_the_report_shows_the_pinned_pair_and_veils_only_offensive_words(tmp_path):
    study = write_study(tmp_path / "cache")
    samples = study.samples("random")
    safe = samples[samples["toxicity"] < 0.5].iloc[0]
    pins.pin_pair(study.root, ["random", "oracle"], safe["prompt"], int(safe["sample_index"]))
    pair, page = pins.pinned_pair(study, study.samples), report_html(study)
    head = Page(page[page.index("<h1>") : page.index('<h2 id="appendix">')])
    for cell in pair["rows"][0]["cells"]:
        assert readable("".join(text for text, _ in cell["runs"])) in head.text
    assert safe["completion"] not in "".join(head.veiled) and "pinned on the Compare page" in head.text
    assert comparison.facts_text(study.metrics(study.evaluation_names()[0])) in head.text
    shown = collect_facts(study, "default").documents
    assert all(document.hidden[document.selected].all() and not document.hidden.all() for document in shown)

"""The Documents page for several reviewers: what each may see, the queue of disagreements, the list as a file."""

import csv
import io
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from ifguide.cli.main import app as command
from ifguide.errors import InputError, StaleError
from ifguide.selection.verdicts import Target, VerdictLog
from ifguide.study.analysis.audit_sample import Team, draw_audit, open_queue, read_team
from ifguide.study.analysis.document_map import STATES, map_path, rank_alike, rank_meant, read_meaning
from ifguide.ui import components
from ifguide.ui.documents import store as document_store
from ifguide.ui.documents.lines import write_list
from ifguide.ui.documents.store import DocumentFilter, open_documents
from tests.app.conftest import shown_text
from tests.app.fake_study import write_map, write_study


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A study where ann and ben disagree on the best-ranked document, and agree on the second; and their ids."""
    study = write_study(tmp_path_factory.mktemp("judged") / "cache")
    first, second = (study.corpus().document(int(index)).id for index in study.selection().order[:2])
    log = VerdictLog(study.root)
    for document, who, verdict in ((first, "ann", "toxic"), (first, "ben", "fine"), (second, "ann", "toxic")):
        log.decide(Target(document), verdict, by=who)
    log.decide(Target(second), "toxic", by="ben", note="=plainly")
    log.decide(Target(second, 2, 4), "unsure", by="ben")
    return study, first, second


@pytest.fixture
def open_reader(open_app, judged, monkeypatch):
    """The Documents page as one reviewer sees it: what the reader is told, by id."""
    told: list[dict] = []
    monkeypatch.setattr(components, "reader", lambda data, key: told.append(data["view"]))

    def start(reviewer: str, verdicts: tuple[str, ...] = (), **parameters) -> tuple[dict, dict]:
        app = open_app(judged[0].root.parent, "documents", **parameters)
        app.session_state["reviewer"], app.session_state["verdicts"] = reviewer, [*verdicts]
        app.run()
        assert not app.exception and not app.error
        return told[-1], {entry["about"]["id"]: entry["about"] for entry in told[-1]["documents"]}

    return start


def test_verdicts_of_others_are_hidden_until_one_has_judged(open_reader, judged):
    _, first, _ = judged
    for reviewer in ("", "cy"):
        view, documents = open_reader(reviewer, doc=first)
        assert not any(line["verdict"] for line in view["lines"])
        assert not any("ann" in fact or "ben" in fact for fact in documents[first]["facts"])
    view, documents = open_reader("ben", doc=first)
    assert documents[first]["verdict"] == "fine" and "ann: toxic" in documents[first]["facts"]


def test_disagreements_are_a_queue(open_reader, judged):
    study, first, _ = judged
    view, _ = open_reader("cy", ("disputed",))
    assert (view["queue"], view["total"], view["reviewed"]) == (True, 1, [0, 1]) and view["lines"][0]["id"] == first
    VerdictLog(study.root).decide(Target(first), "toxic", by="ben")
    try:
        assert open_reader("cy", ("disputed",))[0]["total"] == 0
    finally:
        VerdictLog(study.root).undo("ben")
    assert open_reader("cy")[0]["queue"] is False


def test_the_list_as_a_file_has_a_row_a_verdict_and_reviewer_with_text_and_the_sum_of_the_list(judged):
    study, first, second = judged
    corpus, store = study.corpus(), open_documents(study, "default")
    rows = store.rows(study.selection().order[:3])
    reviewers = VerdictLog(study.root).reviewers()
    lines = json.loads(write_list(rows, reviewers, corpus, "json"))
    keys = [(line["id"], line["reviewer"], line["verdict"], line["first_token"]) for line in lines]
    of_first = [(first, "ann", "toxic", None), (first, "ben", "fine", None)]
    of_second = [(second, "ann", "toxic", None), (second, "ben", "toxic", None), (second, "ben", "unsure", 2)]
    assert keys[:5] == [*of_first, *of_second]
    assert keys[5:] == [(rows[2]["id"], "", "", None)]
    for line in lines:
        assert line["text"] == corpus.document(corpus.index_of(line["id"])).text
        assert line["sum"] == next(row["hit_sum"] for row in rows if row["id"] == line["id"])
    table = [*csv.DictReader(io.StringIO(write_list(rows, reviewers, corpus, "csv")))]
    assert [(row["id"], row["reviewer"], row["first_token"]) for row in table] == [
        (id, who, "" if at is None else str(at)) for id, who, _, at in keys
    ]
    assert "'=plainly" in {row["note"] for row in table}
    assert write_list([], reviewers, corpus, "csv").startswith("id,")
    finals = {Target(first): ("fine", "", "cy")}
    decided = [line for line in json.loads(write_list(rows, reviewers, corpus, "json", finals)) if line["final"]]
    assert [(line["id"], line["reviewer"], line["verdict"]) for line in decided] == [(first, "cy", "fine")]


def test_a_team_is_named_shares_an_audit_and_decides_what_it_disagrees_on(open_app, tmp_path, monkeypatch):
    study, tables, picks = write_study(tmp_path / "cache"), {}, {}

    def show(columns, rows, *, key, **_):
        tables[key] = columns, rows
        return picks.pop(key, None)

    monkeypatch.setattr(components, "record_table", show)
    audit, log, html = draw_audit(study, "own_loss", above=40), VerdictLog(study.root), "<b onclick=x>_hi_</b>"
    app = open_app(study.root.parent, "threshold", team_panel="true")
    field = lambda label: next(one for one in (*app.text_input, *app.text_area) if one.label == label)  # noqa: E731
    save = lambda: next(one for one in app.button if one.label == "Save the team").click().run()  # noqa: E731
    field("Reviewers").set_value("Ann, Ann")
    save()
    assert "different names" in app.error[0].value and read_team(study) == Team()
    field("Reviewers").set_value(f"Ann, {html},Cy")
    field("Guideline").set_value(html)
    save()
    team = read_team(study)
    assert team == Team(("Ann", html, "Cy"), 0.1, html)
    both = [i for i in open_queue(audit, team, log, "Ann").items if i in open_queue(audit, team, log, html).items]
    for i in both:
        log.decide(audit.targets[i], "toxic", by="Ann", note=html)
        log.decide(audit.targets[i], "fine" if i == both[0] else "toxic", by=html)
    next(one for one in app.selectbox if one.label == "You are").set_value("Ann").run()
    assert app.session_state["reviewer"] == "Ann" and "4 of 16" in [one.value for one in app.metric]
    assert [one.value for one in app.metric if one.label.startswith("Agreement")] == ["κ = 0.00"]
    columns, [row] = tables["disputes"]
    assert [one["label"] for one in columns] == ["Document", "Text", html, "Ann", "Decision"]
    assert row["cells"][2:4] == [["fine", ""], ["toxic", html]]
    for pick, final in (("terrible x", {}), (row["cells"][4][0][1], {audit.targets[both[0]]: ("toxic", "", "Ann")})):
        picks["disputes"] = pick
        app.run()
        assert not app.exception and VerdictLog(study.root).finals() == final
    picks["disputes"] = tables["disputes"][1][0]["cells"][4][0][1]
    app.run()
    assert not VerdictLog(study.root).finals() and log.disputed()
    app.session_state["reviewer"] = "Cy"  # has not judged it
    del tables["disputes"]
    app.run()
    assert "disputes" not in tables and "1 disagreement on what you have not judged" in shown_text(app)


def test_a_condition_from_the_address_or_the_box_narrows_the_list(open_app, judged):
    app = open_app(judged[0].root.parent, "documents", where="rank <= 3")
    listed = lambda: [caption.value for caption in app.caption if " of " in caption.value]  # noqa: E731
    [box] = [field for field in app.text_input if field.label == "Condition"]
    assert box.value == "rank <= 3" and listed() == ["3 of 62"]
    box.set_value("getenv('HOME') = '/root'").run()
    assert "got the function 'getenv'" in app.error[0].value and "n_tokens" in shown_text(app)
    box.set_value("source = 'nowhere'").run()
    [clear] = [button for button in app.button if button.label == "Clear filters"]
    clear.click().run()
    [box] = [field for field in app.text_input if field.label == "Condition"]
    assert listed() == ["62 of 62"] and not box.value


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A study with a map, where documents 7, 9, 30 and 11 mean much what document 7 does, in that order, 11 and 12
    equally; and 20 has no place. A list keeps three of those that are alike."""
    study = write_study(tmp_path / "cache", weights=True)
    states = np.tile(np.array([-1, 0], dtype=np.float32), (study.corpus().n_documents, 1))
    states[[7, 9, 30, 11, 12, 20]] = [[1, 0], [0.8, 0.6], [0.6, -0.8], [0, 1], [0, -1], [np.nan, np.nan]]
    write_map(study)
    np.save(map_path(study).with_suffix(STATES), states)
    monkeypatch.setattr(document_store, "ALIKE", 3)
    monkeypatch.setenv("IFGUIDE_CACHE", str(tmp_path / "cache"))
    return study


def test_a_list_keeps_the_nearest_of_those_that_pass_first_the_nearest(planted):
    like = rank_alike(planted, "doc-007").tolist()
    assert like[:6] == [7, 9, 30, 11, 12, 0] and len(like) == len({*like} - {20}) == planted.corpus().n_documents - 1
    store, criteria = open_documents(planted, "default"), DocumentFilter(like=tuple(like))
    assert store.order(criteria).tolist() == [7, 9, 30]
    assert store.order(criteria, sort="nearest", descending=True).tolist() == [30, 9, 7]
    assert store.order(criteria, sort="id", descending=True).tolist() == [30, 9, 7]
    assert store.order(DocumentFilter(like=criteria.like, only=(20, 12, 11, 30))).tolist() == [30, 11, 12]
    for document, error, why in (("doc-020", InputError, "no token with a score"), ("x", InputError, "ids look like")):
        with pytest.raises(error, match=why):
            rank_alike(planted, document)
    shown = CliRunner().invoke(
        command, ["documents", "fake", "--like", "doc-007", "--where", "id <> 'doc-009'", "--json"]
    )
    assert [line["id"] for line in json.loads(shown.stdout)["documents"]] == ["doc-007", "doc-030", "doc-011"]
    map_path(planted).with_suffix(STATES).unlink()
    with pytest.raises(StaleError, match="draw it with `ifguide map fake`"):
        rank_alike(planted, "doc-007")


def test_likeness_is_a_filter_with_a_chip_and_without_a_map_an_offer_to_draw_it(open_app, planted):
    app = open_app(planted.root.parent, "documents", like="doc-007")
    listed = lambda: [caption.value for caption in app.caption if " of " in caption.value]  # noqa: E731
    assert not app.error and listed() == ["3 of 62"] and app.button(key="drop_like").label == r"like\: doc\-007"
    app.button(key="drop_like").click().run()
    assert listed() == ["62 of 62"] and "drop_like" not in [button.key for button in app.button]
    inside = np.flatnonzero((np.load(map_path(planted)) > 0).all(axis=1))
    app = open_app(planted.root.parent, "documents", box="0,9,9,0")
    assert listed() == [f"{len(inside)} of 62"] and app.button(key="drop_box")
    map_path(planted).with_suffix(STATES).unlink()
    app = open_app(planted.root.parent, "documents", like="doc-007")
    assert not app.error and listed() == ["62 of 62"] and app.button(key="map_start")


def test_a_search_by_meaning_lists_the_nearest_once_the_models_process_has_read_it(open_app, planted, use_worker):
    text, done = "a <b>rude</b> answer", {"state": "done", "figures": {"direction": [1.0, 0.0]}}
    worker = use_worker({"state": "loading", "message": "base"}, done)
    app = open_app(planted.root.parent, "documents", search_by="Meaning", search=f" {text} ", sort="length")
    listed = lambda: [caption.value for caption in app.caption if " of " in caption.value]  # noqa: E731
    assert listed() == ["62 of 62"] and "Loading the base model" in shown_text(app)
    app.run()
    assert [asked["meaning"] for asked in worker.asked] == [text] and not app.error and listed() == ["3 of 62"]
    assert app.query_params["sort"] == "length"  # as the link has it
    app.text_input(key="search").set_value("another text").run()
    assert worker.asked[-1]["meaning"] == "another text" and "sort" not in app.query_params
    app.text_input(key="like").set_value("doc-007").run()
    assert "to a document or by meaning, not both" in app.error[0].value
    app.button(key="drop_like").click().run()
    worker.answers = [{"state": "failed", "message": "expected two tokens or more, got one", "figures": {}}]
    app.text_input(key="search").set_value("<img src=x>").run()
    assert "Expected two tokens or more" in app.error[0].value and listed() == ["62 of 62"]
    map_path(planted).with_suffix(STATES).unlink()
    app = open_app(planted.root.parent, "documents", search_by="Meaning", search=text)
    assert app.button(key="map_start") and listed() == ["62 of 62"] and not app.error


def test_the_command_lists_what_is_nearest_in_meaning(planted):
    nearest = rank_meant(planted, read_meaning(planted, "the driver was late"))
    ask = lambda *more: CliRunner().invoke(command, ["documents", "fake", "--json", "--meaning", *more])  # noqa: E731
    answer = json.loads(ask("the driver was late").stdout)
    assert [line["id"] for line in answer["documents"]] == [planted.corpus().document(int(n)).id for n in nearest[:3]]
    for wrong, why in (
        (["two words", "--like", "doc-007"], "got both"),
        ([""], "got 0"),
        (["x" * 30_000], "got 30,000"),
    ):
        refused = ask(*wrong)
        assert refused.exit_code == 1 and why in str(refused.exception)

"""The map on the Threshold page: what it offers, what it draws, and what stands out on it."""

import numpy as np
import pytest

from ifguide.errors import InputError
from ifguide.selection.verdicts import Target, VerdictLog
from ifguide.study.analysis.document_map import in_boxes, map_path, name_clusters, read_map
from ifguide.study.sharing.packed import pack_study, unpack_study
from ifguide.study.stages.select import open_index
from ifguide.ui import components, job_panel
from ifguide.ui.loaders import load_study
from ifguide.ui.palette import COUNTERS, MORE_COLOURS, MUTED, TEACHES
from ifguide.ui.threshold import map_panel
from tests.app.conftest import shown_text
from tests.app.fake_study import Content, write_map, write_study

THIRTY = {"tokens_above": 30, "window": 0, "max_tokens": 0}


@pytest.fixture
def parts(monkeypatch):
    """What each part of the map was last drawn from."""
    drawn: dict[str, dict] = {}
    show = components.document_map
    monkeypatch.setattr(
        components, "document_map", lambda part, data: (drawn.update({part: data}), show(part, data))[1]
    )
    return drawn


def test_it_is_drawn_by_a_job_and_not_in_a_study_that_is_only_read(open_app, tmp_path, monkeypatch, parts):
    study = write_study(tmp_path / "cache")
    app = open_app(tmp_path / "cache", "threshold", part="Map")
    assert not app.error and not parts
    started = []
    monkeypatch.setattr(job_panel, "start", lambda root, arguments: started.append((root, arguments)))
    app.button(key="map_start").click().run()
    assert started == [(study.root, ["map", "fake"])]
    name = unpack_study(pack_study(study, tmp_path / "fake.ifguide"), tmp_path / "theirs")
    app = open_app(tmp_path / "theirs", "threshold", part="Map", study=name)
    assert not app.error and "map_start" not in [button.key for button in app.button]
    assert "Map" not in [tab.label for tab in app.tabs]
    write_map(study)
    unpack_study(pack_study(study, tmp_path / "fake.ifguide"), tmp_path / "theirs")
    app = open_app(tmp_path / "theirs", "threshold", part="Map", study=name)
    assert "Map" in [tab.label for tab in app.tabs] and set(parts) == {"places", "light", "told"}


def test_documents_of_the_selection_or_of_the_brush_stand_out_and_the_places_stay(open_app, tmp_path, parts):
    study = write_study(tmp_path / "cache")
    write_map(study)
    places = np.array(read_map(study))
    places[3] = np.nan
    np.save(map_path(study), places)
    index, placed = open_index(study, "own_loss"), np.delete(np.arange(len(places)), 3)
    taken = np.flatnonzero(index.resolve(THIRTY).taken).tolist()
    inside, sent = index.documents_in_range(-0.2, -0.1)["document"].to_pylist(), []
    for address, expected, what, live in (
        ({"above": "30"}, taken, "selected tokens", True),
        ({"above": "30", "low": "-0.2", "high": "-0.1"}, inside, "scores from −0.200 to −0.100", False),
    ):
        app = open_app(tmp_path / "cache", "threshold", part="Map", **address)
        light, drawn = parts["light"], sorted(set(expected) - {3})
        assert not app.error and "Near points are similar" in shown_text(app)
        assert light["lit"] == f"{len(drawn)} documents with {what}" and light["live"] is live
        colours = light["table"]["colour"].to_numpy()
        assert 0 < len(drawn) < len(placed) and placed[colours >= map_panel.LIT].tolist() == drawn
        assert sum(count for *_, count in light["legend"]) == len(placed) == len(colours)
        sent.append(parts["places"])
    table = sent[0]["table"]
    assert sent[0] is sent[1]
    assert np.stack([table["x"], table["y"]], axis=1).tolist() == places[placed].tolist()
    for above in (1, 30, 100):  # as the browser lights documents while the threshold is dragged
        lit = index.resolve(THIRTY | {"tokens_above": above}).taken > 0
        assert (table["best"].to_numpy() < above).tolist() == lit[placed].tolist()


def test_a_box_holds_what_is_between_its_ends_in_any_order():
    places = np.array([[0, 0], [1, 1], [2, 2], [np.nan, np.nan]], dtype=np.float32)
    assert in_boxes(places, "1.5,0.5,3,0;1.9,2.1,1.9,2.1").tolist() == [False, True, True, False]
    for wrong in ("1,2,3", "a,b,c,d", "1,2,3,4;5", ";"):
        with pytest.raises(InputError, match="expected a box of the map"):
            in_boxes(places, wrong)


def test_colours_say_the_sum_the_source_or_the_verdict(tmp_path, monkeypatch):
    study = write_study(tmp_path / "cache")
    monkeypatch.setenv("IFGUIDE_CACHE", str(tmp_path / "cache"))
    loaded, corpus, exact = load_study("fake"), study.corpus(), open_index(study, "own_loss").resolve(THIRTY)
    colours, legend = map_panel.colour_documents(loaded, exact, "score")
    sums = exact.ranking.sum_above
    assert ((colours == 0) == (sums <= 0)).all() and legend[0] == ("none", MUTED) and legend[-1][1] == TEACHES
    assert (np.diff(colours[np.argsort(sums)].astype(int)) >= 0).all() and set(colours) <= set(range(len(legend)))
    colours, legend = map_panel.colour_documents(loaded, exact, "source")
    assert [legend[colour][0] for colour in colours] == corpus.column("source").to_pylist()
    log = VerdictLog(study.root)
    for document, verdict in ((4, "toxic"), (5, "fine"), (6, "unsure")):
        log.decide(Target(corpus.document(document).id), verdict)
    colours, legend = map_panel.colour_documents(loaded, exact, "verdict")
    assert [legend[colours[document]][1] for document in (3, 4, 5, 6)] == [MUTED, TEACHES, COUNTERS, MORE_COLOURS[1]]
    assert (colours > 0).sum() == 3


def test_clusters_are_named_by_their_own_words_and_offensive_ones_are_blocks(open_app, tmp_path, parts):
    topics = ["apples", "rivers", "engines", "violins", "glaciers", "lanterns", "idiot", "saddles"]
    rows = [{"id": f"d{n}", "source": "a", "text": f"people like {topics[n % 8]}", "spans": []} for n in range(80)]
    study = write_study(tmp_path / "cache", content=Content(documents=rows))
    write_map(study)
    at = np.arange(80) % 8
    places = np.stack([at % 4 * 100, at // 4 * 100], axis=1).astype(np.float32)
    np.save(map_path(study), places)
    expected = [(n % 4 * 100, n // 4 * 100, [topic]) for n, topic in enumerate(topics)]
    assert sorted(name_clusters(study, places)) == sorted(expected)
    app = open_app(tmp_path / "cache", "threshold", part="Map")
    for hidden, offensive in (("all", "█████"), ("words", "█████"), ("none", "idiot")):
        app.session_state["veil"] = hidden
        app.run()
        assert not app.error
        assert {name for *_, name in parts["places"]["names"]} == {*topics} - {"idiot"} | {offensive}

"""The map on the Threshold page: what it offers, what it draws, and what stands out on it."""

import base64
import json

import numpy as np
import pytest

from ifguide.errors import InputError
from ifguide.study.analysis.document_map import in_boxes, map_path, name_clusters, read_map
from ifguide.study.sharing.packed import pack_study, unpack_study
from ifguide.study.stages.select import open_index
from ifguide.ui import job_panel
from ifguide.ui.threshold import map_panel
from tests.app.conftest import shown_text
from tests.app.fake_study import Content, fake_texts, write_map, write_study


def drawn_documents(app) -> list[set[int]]:
    """The numbers of the documents drawn small, and of those drawn large."""
    traces = json.loads(app.get("plotly_chart")[0].proto.spec)["data"]
    numbers = (np.frombuffer(base64.b64decode(trace["customdata"]["bdata"]), "<i4").reshape(-1, 3) for trace in traces)
    return [set(rows[:, 0].tolist()) for rows in numbers]


def test_it_is_drawn_by_a_job_and_not_in_a_study_that_is_only_read(open_app, tmp_path, monkeypatch):
    study = write_study(tmp_path / "cache")
    app = open_app(tmp_path / "cache", "threshold", part="Map")
    assert not app.error and not app.get("plotly_chart")
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
    assert "Map" in [tab.label for tab in app.tabs] and app.get("plotly_chart")


def test_documents_of_the_selection_or_of_the_brush_stand_out(open_app, tmp_path):
    study = write_study(tmp_path / "cache")
    write_map(study)
    places = np.array(read_map(study))
    places[3] = np.nan
    np.save(map_path(study), places)
    index, every = open_index(study, "own_loss"), set(range(study.corpus().n_documents)) - {3}
    taken = np.flatnonzero(index.resolve({"tokens_above": 30, "window": 0, "max_tokens": 0}).taken).tolist()
    inside = index.documents_in_range(-0.2, -0.1)["document"].to_pylist()
    for address, expected, what in (
        ({"above": "30"}, taken, "selected tokens"),
        ({"above": "30", "low": "-0.2", "high": "-0.1"}, inside, "scores from −0.200 to −0.100"),
    ):
        app = open_app(tmp_path / "cache", "threshold", part="Map", **address)
        assert not app.error and f"Large: {len(expected)} documents with {what}." in shown_text(app)
        large = set(expected) - {3}
        assert 0 < len(large) < len(every) and drawn_documents(app) == [every - large, large]


def test_of_a_large_corpus_some_of_each_kind_are_drawn_and_a_small_one_whole(monkeypatch):
    monkeypatch.setattr(map_panel, "DRAWN_MOST", 100)
    places, marked = np.zeros((1000, 2), dtype=np.float32), np.arange(1000) % 5 > 0
    places[7] = np.nan
    for mark, n_large in ((marked, 50), (~marked, 50), (marked & (np.arange(1000) < 40), 31), (marked | True, 100)):
        small, large = map_panel.choose_drawn(places, mark)
        assert [len(small), len(large)] == [100 - n_large, n_large]
        assert not mark[small].any() and mark[large].all() and 7 not in {*small, *large}
        assert map_panel.choose_drawn(places, mark)[0].tolist() == small.tolist()
    small, large = map_panel.choose_drawn(places[:90], marked[:90])
    assert sorted([*small, *large]) == [n for n in range(90) if n != 7]


def test_a_box_holds_what_is_between_its_ends_in_any_order():
    places = np.array([[0, 0], [1, 1], [2, 2], [np.nan, np.nan]], dtype=np.float32)
    assert in_boxes(places, "1.5,0.5,3,0;1.9,2.1,1.9,2.1").tolist() == [False, True, True, False]
    for wrong in ("1,2,3", "a,b,c,d", "1,2,3,4;5", ";"):
        with pytest.raises(InputError, match="expected a box of the map"):
            in_boxes(places, wrong)


def test_names_stay_text_and_colour_is_the_sum_that_the_list_shows(tmp_path):
    row = {"id": "<a href='//x'>&amp;", "source": "forum", "text": "At home, you idiot.", "spans": []}
    corpus = (study := write_study(tmp_path / "cache", content=Content(documents=[*fake_texts(), row]))).corpus()
    found = open_index(study, "own_loss").resolve({"tokens_above": 30, "window": 0, "max_tokens": 0})
    places, part = np.zeros((corpus.n_documents, 2)), np.array([corpus.index_of("<a href='//x'>&amp;"), 0])
    figure = map_panel.map_figure(corpus, found, places, [part[:0], part])
    assert figure.data[1].text[0].startswith("&lt;a href='//x'&gt;&amp;amp; · ")
    assert figure.data[1].marker.color.tolist() == found.ranking.sum_above[part].astype(np.float32).tolist()
    ranks = [found.ranking.order.tolist().index(n) + 1 for n in part]
    assert figure.data[1].customdata.tolist() == [[n, r, found.taken[n]] for n, r in zip(part, ranks, strict=True)]


def test_clusters_are_named_by_their_own_words_and_offensive_ones_are_blocks(open_app, tmp_path):
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
    labels = lambda: [one["text"] for one in json.loads(chart()).get("layout", {}).get("annotations", [])]  # noqa: E731
    chart = lambda: app.get("plotly_chart")[0].proto.spec  # noqa: E731
    assert labels() == []  # all text is hidden
    app.session_state["veil"] = "words"
    app.run()
    assert not app.error and {*labels()} == {*topics} - {"idiot"} | {"█████"}

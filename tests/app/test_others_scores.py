"""A study of others' scores on every page: its documents are read and selected, and what needs a model says so."""

import json

import numpy as np
import pytest

from ifguide.config.schema import CorpusConfig
from ifguide.study.peer_scores import open_scores
from ifguide.study.reading import Study
from ifguide.study.sharing.shard_sample import read_sketch
from tests.app.conftest import shown_text
from tests.study.test_peer_scores import write_bergson
from tests.study.test_shard_sample import open_few
from tests.tiny_study import DOCUMENTS
from tests.tiny_tokenizers import tiny_tokenizer

NO_MODEL = "“theirs” has scores that another program computed, and no model: read, select and export its documents here"
COMPUTE = ("Run", "Compute", "Train", "Edit", "Explain", "Draw", "Preview", "Measure", "Search for")
"""How buttons begin that need a model."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("others"), tiny_tokenizer("byte_bpe")
    tokenizer.save_pretrained(folder / "tokenizer")  # and no model
    texts = [text for text, _ in DOCUMENTS]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    generator = np.random.default_rng(5)
    rows = [generator.normal(size=(len(tokenizer(text)["input_ids"]) - 1, 1)) for text in texts]
    corpus = CorpusConfig(path=str(folder / "texts.jsonl"))
    open_scores(
        "theirs", write_bergson(folder / "run", rows), corpus, str(folder / "tokenizer"), cache=folder / "cache"
    )
    return folder / "cache"


@pytest.mark.parametrize("page", ["studies", "overview", "documents", "threshold", "compare", "queries"])
def test_a_page_says_once_that_there_is_no_model_and_offers_nothing_that_needs_one(open_app, cache, page):
    app = open_app(cache, page, study="theirs", part="Saved & compare")
    assert not app.exception and not app.error and not app.warning
    assert [NO_MODEL in info.value for info in app.info] == [True] * (page != "studies")
    assert not [button.label for button in app.button if button.label.startswith(COMPUTE)]


def test_the_overview_leads_to_what_can_be_read(open_app, cache):
    app = open_app(cache, "overview", study="theirs")
    links = [link.label for link in app.get("page_link")]
    assert {"1. Read the most toxic documents", "2. Choose which tokens to suppress"} <= set(links)
    assert "3. Compare the models" not in links
    assert "Another program scored the tokens of texts.jsonl (12 documents" in shown_text(app)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    return open_few(tmp_path_factory.mktemp("sampled"))


@pytest.mark.parametrize("page", ["overview", "documents", "threshold", "compare", "queries"])
def test_a_page_of_a_sample_of_shards_says_of_what_its_numbers_are(open_app, sampled, page):
    app, n = open_app(sampled.root.parent, page, study="sampled"), sampled.corpus().n_documents
    assert not app.exception and not app.error and not app.warning
    assert f"“sampled” is a sample: it holds {n} of the 900 documents" in app.info[0].value
    if page == "documents":
        assert f"of {n} in the sample" in shown_text(app)


@pytest.mark.parametrize("above", [50, 400])
def test_the_threshold_page_counts_tokens_of_all_shards_and_names_the_command(open_app, sampled, above):
    app, sketch = open_app(sampled.root.parent, "threshold", study="sampled", above=str(above)), read_sketch(sampled)
    threshold = float(np.sort(sampled.scores("shards"))[-above - 1])
    best, least, most = sketch.tokens_above(np.array([threshold]))[:, 0].tolist()
    sure = "(exact)" if above == 50 else f"(between {least} and {most})"
    assert (least == most) == (above == 50)
    assert f"{best} of {sketch.n_valid:,} tokens" in (text := shown_text(app)) and sure in text
    assert app.code[0].value == sketch.command("sampled", threshold, 0)


def test_a_document_outside_the_sample_is_read_by_its_id_and_a_hostile_one_is_refused(open_app, sampled):
    outside = sorted({f"../web/{number}" for number in range(900)} - {*sampled.corpus().ids()})[0]
    app = open_app(sampled.root.parent, "documents", study="sampled", outside=outside)
    assert not app.exception and not app.error and "outside_text" in app.session_state
    app = open_app(sampled.root.parent, "documents", study="sampled", outside="../../etc/passwd")
    assert "has a document '../../etc/passwd'" in app.error[0].value.replace("\\", "") and not app.exception


def test_a_selection_is_saved_on_the_threshold_page_and_listed_on_documents(open_app, cache):
    app = open_app(cache, "threshold", study="theirs", above="7")
    assert {"Affected documents", "Words", "Sources"} <= {tab.label for tab in app.tabs}
    assert "Map" not in {tab.label for tab in app.tabs}
    app.text_input(key="new_selection").set_value("seven")
    next(button for button in app.button if button.label == "Save").click()
    app.run()
    assert "Saved “seven”: 7 tokens" in shown_text(app)
    study = Study.open("theirs", cache)
    best = np.argsort(study.scores("bergson"))[-7:]
    assert set(np.flatnonzero(study.selection("seven").mask)) == set(best.tolist())
    app = open_app(cache, "documents", study="theirs", selection="seven", only="true")
    hit = len({int(document) for document in np.searchsorted(study.corpus().offsets, best, side="right")})
    assert f"{hit} of 12" in shown_text(app)

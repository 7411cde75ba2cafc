"""A mask carried from one tokenizer's tokens to another's."""

import itertools
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.config.schema import CorpusConfig
from ifguide.data.corpus_writer import build_corpus
from ifguide.errors import ConfigError, InputError
from ifguide.selection.transfer import transfer_mask
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build, create_study, run_study
from ifguide.study.reading import Study
from tests.tiny import tiny_model
from tests.tiny_study import CONTEXT, save_tiny_model, tiny_config, write_tiny_inputs
from tests.tiny_tokenizers import tiny_tokenizer

TEXTS = [
    "You are a stupid idiot, and a fool.",
    "  naïve café, 12 345\n\nand 文字 😀 too",
    "x",
    "",
    "e\u0301 combining, \u202eright to left\u202c",
    "They were\tnot at home; the dog was.",
]
KINDS = ("byte_bpe", "byte_bpe_trimmed", "unigram_bytes", "llama_style", "word_level")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """The same texts by several tokenizers; the second corpus has them in another order."""
    folder, found = tmp_path_factory.mktemp("corpora"), {}
    for number, kind in enumerate(KINDS):
        rows = [{"id": f"d{i}", "text": text} for i, text in enumerate(TEXTS)]
        path = folder / f"{kind}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in (rows if number != 1 else rows[::-1])))
        (folder / kind).mkdir()
        config = CorpusConfig(path=str(path), id_field="id")
        found[kind] = build_corpus(config, tiny_tokenizer(kind), folder / kind)
    return found


def visible_characters(corpus, document, tokens):
    text, found = corpus.document(document).text, set()
    for token in tokens:
        found |= set(range(corpus.char_start[token], corpus.char_end[token]))
    return {place for place in found if not text[place].isspace()}


def test_a_token_is_selected_when_it_has_a_selected_character(corpora):
    for source, target in itertools.product(KINDS, KINDS):
        _check_carried(corpora[source], corpora[target], f"{source} to {target}")


def _check_carried(a, b, pair):
    mask = (np.random.default_rng(3).random(a.n_tokens) < 0.3) & a.valid()
    carried = transfer_mask(a, mask, b)
    valid, place_of = b.valid(), {a.document(d).id: d for d in range(a.n_documents)}
    assert carried.any() and not (carried & ~valid).any(), pair
    for document in range(b.n_documents):
        place = place_of[b.document(document).id]
        own = np.arange(a.offsets[place], a.offsets[place + 1])
        wanted = visible_characters(a, place, own[mask[own]])
        for token in range(b.offsets[document], b.offsets[document + 1]):
            touches = bool(visible_characters(b, document, [token]) & wanted)
            assert carried[token] == (touches and valid[token]), (pair, document, token)


def test_to_the_same_tokenizer_only_white_space_is_lost(corpora):
    corpus = corpora["byte_bpe"]
    mask = corpus.valid()
    carried = transfer_mask(corpus, mask, corpus)
    for token in np.flatnonzero(mask & ~carried):
        document = int(np.searchsorted(corpus.offsets, token, side="right") - 1)
        assert not visible_characters(corpus, document, [token])


def test_other_texts_and_other_lengths_are_refused(corpora, tmp_path):
    a = corpora["byte_bpe"]
    with pytest.raises(ConfigError, match="expected a mask of"):
        transfer_mask(a, np.zeros(3, dtype=bool), corpora["llama_style"])
    for rows, said in (
        ([{"id": "d0", "text": "Another text."}], "'d0': the two studies hold different texts"),
        ([{"id": "other", "text": TEXTS[0]}], "share no document id"),
    ):
        folder = tmp_path / rows[0]["id"]
        folder.mkdir()
        (tmp_path / "c.jsonl").write_text(json.dumps(rows[0]))
        config = CorpusConfig(path=str(tmp_path / "c.jsonl"), id_field="id")
        with pytest.raises(InputError, match=said):
            transfer_mask(a, a.valid(), build_corpus(config, tiny_tokenizer("word_level"), folder))


class TestBorrowing:
    """A small study scores; a larger model with another tokenizer is trained without what it selected."""

    @pytest.fixture(scope="class")
    def studies(self, tmp_path_factory):
        cache = tmp_path_factory.mktemp("cache")
        inputs = cache / "inputs"
        write_tiny_inputs(inputs)
        save_tiny_model("llama", inputs / "model")
        small = create_study("small", tiny_config(inputs), cache)
        run_study(small, until="selection")
        tokenizer = tiny_tokenizer("llama_style")
        tokenizer.save_pretrained(inputs / "large")
        tiny_model("gpt2", vocab_size=len(tokenizer), positions=CONTEXT, seed=1).float().save_pretrained(
            inputs / "large"
        )
        large = create_study("large", tiny_config(inputs, f"model.source={inputs / 'large'}"), cache)
        return small, large

    def test_the_larger_model_is_trained_without_any_scores_of_its_own(self, studies, monkeypatch):
        small, large = studies
        monkeypatch.setenv("IFGUIDE_CACHE", str(small.root.parent))
        done = CliRunner().invoke(
            app, ["borrow", "large", "--from", "small", "--name", "proxy"], catch_exceptions=False
        )
        assert done.exit_code == 0 and "selection proxy:" in done.stdout
        large = Study.open("large", large.root.parent)
        mask = large.selection("proxy").mask
        np.testing.assert_array_equal(
            mask, transfer_mask(small.corpus(), np.asarray(small.selection().mask), large.corpus())
        )
        assert large.corpus().n_tokens != small.corpus().n_tokens
        build(large, [Unit("evaluate", "proxy")])
        assert large.metrics("proxy")["n_prompts"] > 0 and not large.has_scores("own_loss")

    def test_it_is_stale_when_the_other_selection_changes(self, studies):
        small, large = studies
        large = Study.open("large", large.root.parent)
        assert unit_state(large, Unit("selection", "proxy")).state == "fresh"
        wider = small.change(tiny_config(small.root.parent / "inputs", "selection.quantile=0.5"))
        run_study(wider, until="selection")
        state = unit_state(Study.open("large", large.root.parent), Unit("selection", "proxy"))
        assert state.state == "stale" and "selection default of small" in state.reason

    def test_what_cannot_be_borrowed_is_said_and_nothing_changes(self, studies, monkeypatch):
        _, large = studies
        monkeypatch.setenv("IFGUIDE_CACHE", str(large.root.parent))
        before = (large.root / "study.toml").read_text()
        for arguments, said in (
            (["--from", "nowhere"], "no study 'nowhere'"),
            (["--from", "large"], "cannot borrow from itself"),
            (["--from", "small", "--selection", "missing"], "selection missing is missing .*`ifguide run small"),
            (["--from", "small", "--name", "words"], "is taken"),
            (["--from", "small", "--name", "../x"], "name has 1 to 64 letters"),
        ):
            with pytest.raises(Exception, match=said):
                CliRunner().invoke(app, ["borrow", "large", *arguments], catch_exceptions=False)
            assert (large.root / "study.toml").read_text() == before, arguments

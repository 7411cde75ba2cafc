"""Text in, tokens with their places out: nothing lost, nothing shifted, for any text and tokenizer."""

import gzip
import json
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ifguide.config.schema import CorpusConfig
from ifguide.data.corpus import TokenizedCorpus
from ifguide.data.corpus_writer import build_corpus
from ifguide.data.packing import chunk_documents
from ifguide.data.spans import mark_tokens, parse_spans
from ifguide.data.tokenizing import cut_pieces, tokenize
from ifguide.errors import ConfigError, InputError, StaleError
from ifguide.storage.artifacts import ArrayWriter
from tests.naming import naming
from tests.shared_data import shared_file
from tests.tiny_tokenizers import KINDS, tiny_tokenizer

HOSTILE = [
    "family 👨‍👩‍👧‍👦 flag 🇪🇺 skin 👍🏽",
    "e\u0301 a\u0308\u0323 z\u0351\u036b\u0343\u036a zalgo",
    "漢字かな交じり文。한국어 テスト",
    "שלום עולם \u202eright to left\u202c مرحبا",
    "nul \x00 inside, bell \x07, escape \x1b[31m, delete \x7f",
    "\u200b\ufeff zero widths \u2060",
    "  \t\n leading and trailing \r\n\u00a0\u3000 ",
    "ﬁ ligature, ½, ①, Å, ß İ ŉ",
    "\U0010ffff\ue000\ufffd private",
    "<|end|> a special token written out <unk>",
    "x",
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def build(tmp_path, rows, kind="byte_bpe", name="corpus", **settings):
    folder = tmp_path / name
    folder.mkdir()
    path = write_jsonl(tmp_path / "docs.jsonl", rows) if isinstance(rows, list) else str(rows)
    return build_corpus(CorpusConfig(path=path, **settings), tiny_tokenizer(kind), folder)


# ---- tokens and text ----


def test_pieces_join_to_the_text():
    for kind, text in product(KINDS, HOSTILE):
        tokens = tokenize(tiny_tokenizer(kind), [text])[0]
        if len(tokens.token_ids):
            pieces = cut_pieces(text, tokens.char_end)
            assert len(pieces) == len(tokens.token_ids), (kind, text)
            assert "".join(pieces) == text, (kind, text)


@settings(max_examples=120)
@given(st.text(max_size=30), st.sampled_from(KINDS))
@example("\x00", "byte_bpe_prefix")
@example(" \u0301", "nfkc_lower")
def test_pieces_join_to_any_text(text, kind):
    tokens = tokenize(tiny_tokenizer(kind), [text])[0]
    if len(tokens.token_ids):
        assert "".join(cut_pieces(text, tokens.char_end)) == text


@settings(max_examples=120)
@given(st.text(max_size=12), st.lists(st.integers(-3, 20), min_size=1, max_size=12))
def test_pieces_join_to_the_text_whatever_the_offsets(text, ends):
    assert "".join(cut_pieces(text, np.array(ends))) == text


def test_the_first_token_of_a_character_takes_it_and_space_goes_to_what_follows():
    whole, trimmed = (tokenize(tiny_tokenizer(kind), ["a 漢 b "])[0] for kind in ("byte_bpe", "byte_bpe_trimmed"))
    assert cut_pieces("a 漢 b ", whole.char_end) == ["a", " ", "漢", "", "", " ", "b", " "]
    assert cut_pieces("a 漢 b ", trimmed.char_end) == ["a", " ", "漢", "", "", " ", "b", " "]
    assert cut_pieces("one two ", tokenize(tiny_tokenizer("word_level"), ["one two "])[0].char_end) == ["one", " two "]


def test_tokens_do_not_depend_on_the_batch_or_on_saved_truncation_and_padding():
    from transformers import PreTrainedTokenizerFast

    tokenizer = tiny_tokenizer("byte_bpe")
    backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    backend.enable_truncation(2)
    backend.enable_padding(length=90)
    cutting = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    alone = [tokenize(tokenizer, [text])[0] for text in HOSTILE]
    for other in (tokenize(tokenizer, HOSTILE), tokenize(cutting, HOSTILE)):
        for together, one in zip(other, alone, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(together, one, strict=True))


def test_a_slow_tokenizer_is_refused_before_anything_is_read(tmp_path):
    class Slow:
        is_fast = False

    with pytest.raises(InputError, match=r"expected a fast tokenizer .* got Slow; convert it"):
        build_corpus(CorpusConfig(path=str(tmp_path / "absent.jsonl")), Slow(), tmp_path)


# ---- building and opening ----


def test_what_goes_in_comes_out(tmp_path):
    texts = [text for text in HOSTILE if "\x00" not in text]
    rows = [{"text": text, "name": f"n{i}", "from": f"site {i % 2}"} for i, text in enumerate(texts)]
    corpus = build(tmp_path, rows, id_field="name", source_field="from")
    assert corpus.n_documents == len(texts)
    assert corpus.ids() == [row["name"] for row in rows]
    assert corpus.column("source").to_pylist() == [row["from"] for row in rows]
    expected = tokenize(tiny_tokenizer("byte_bpe"), texts)
    for i, text in enumerate(texts):
        document = corpus.document(i)
        assert (document.text, document.id, document.source, document.spans) == (text, f"n{i}", f"site {i % 2}", None)
        tokens = slice(corpus.offsets[i], corpus.offsets[i + 1])
        for name in ("token_ids", "char_start", "char_end"):
            assert np.array_equal(getattr(corpus, name)[tokens], getattr(expected[i], name))
        assert "".join(corpus.document_tokens(i)) == text
        assert corpus.index_of(f"n{i}") == i
    assert corpus.offsets[-1] == corpus.n_tokens == len(corpus.token_ids)
    assert corpus.valid().sum() == corpus.n_tokens - corpus.n_documents
    assert not corpus.valid()[corpus.offsets[:-1]].any()
    assert corpus.token_ids.dtype == corpus.char_start.dtype == corpus.char_end.dtype == np.int32
    assert corpus.offsets.dtype == corpus.id_rank.dtype == np.int64
    assert corpus.in_span is None
    with pytest.raises(InputError, match="no document has the id 'nope'"):
        corpus.index_of("nope")
    with pytest.raises(IndexError, match=f"from 0 to {len(texts) - 1}, got {len(texts)}"):
        corpus.document(len(texts))


def test_ids_rank_in_code_point_order_over_many_batches(tmp_path):
    names = [f"{chr(33 + (i * 7919) % 20000)}{i}" for i in range(1300)]
    corpus = build(tmp_path, [{"text": "a b", "id": name} for name in names], id_field="id")
    assert len(corpus.batches) > 2
    assert [names[i] for i in np.argsort(corpus.id_rank)] == sorted(names)
    for i in (0, 511, 512, 1299):
        assert corpus.document(i).id == names[i]
        assert corpus.index_of(names[i]) == i


def test_the_saved_tokenizer_gives_the_same_tokens(tmp_path):
    from transformers import AutoTokenizer

    corpus = build(tmp_path, [{"text": "you are kind"}])
    again = AutoTokenizer.from_pretrained(corpus.folder / "tokenizer")
    assert tokenize(again, ["you are kind"])[0].token_ids.tolist() == corpus.token_ids.tolist()


def test_building_twice_gives_the_same_bytes(tmp_path):
    rows = [{"text": text, "spans": [[0, 1]]} for text in HOSTILE if "\x00" not in text]
    folders = [build(tmp_path, rows, name=name, spans_field="spans").folder for name in ("one", "two")]
    names = sorted(p.relative_to(folders[0]).as_posix() for p in folders[0].rglob("*") if p.is_file())
    assert [name for name in names if "/" not in name] == [
        "char_end.npy",
        "char_start.npy",
        "documents.arrow",
        "id_rank.npy",
        "in_span.npy",
        "offsets.npy",
        "summary.json",
        "token_ids.npy",
    ]
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def test_documents_without_text_are_counted_or_refused(tmp_path):
    rows = [{"text": "one"}, {"text": "  \n"}, {"text": "two"}, {"text": ""}]
    corpus = build(tmp_path, rows)
    assert corpus.ids() == ["docs-000001", "docs-000003"]
    assert corpus.column("source").to_pylist() == ["docs", "docs"]
    assert [corpus.summary[key] for key in ("documents", "skipped", "tokens")] == [2, 2, corpus.n_tokens]
    assert [place.rsplit(", ")[1] for place in corpus.summary["skipped_at"]] == ["line 2", "line 4"]
    with pytest.raises(InputError, match=r"line 2: no text in 'text'; remove the row or set corpus\.skip_empty=true"):
        build(tmp_path, rows, name="strict", skip_empty=False)
    kept_nothing = [{"text": "\u0301"}, {"text": "fine"}]  # the normaliser strips a lone accent
    assert build(tmp_path, kept_nothing, "nfkc_lower", name="stripped").summary["skipped"] == 1
    with pytest.raises(InputError, match=r"gave no document \(2 rows, none with text\)"):
        build(tmp_path, [{"text": ""}, {"text": " "}], name="none")


def test_max_documents_reads_no_row_beyond_what_it_takes(tmp_path):
    path = tmp_path / "broken_later.jsonl"
    path.write_text('{"text": ""}\n{"text": "a"}\n{"text": "b"}\nnot json\n')
    corpus = build(tmp_path, path, max_documents=2)
    assert [corpus.document(i).text for i in range(corpus.n_documents)] == ["a", "b"]
    assert corpus.summary["skipped"] == 1


def test_packed_shards_give_the_same_corpus_as_plain_ones(tmp_path):
    rows = [{"meta": {"text": f"document {n}"}} for n in range(20)]
    shards = {f"{part}.jsonl": rows[part::3] for part in range(3)}
    made = {}
    for ending in ("", ".gz", ".zst", ".parquet"):
        folder = tmp_path / f"shards{ending}"
        folder.mkdir()
        for name, part in shards.items():
            if ending == ".parquet":
                pa.parquet.write_table(pa.Table.from_pylist(part), folder / f"{name.split('.')[0]}.parquet")
                continue
            write_jsonl(folder / name, part)
            if ending == ".gz":
                (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
            elif ending == ".zst":
                with pa.CompressedOutputStream(str(folder / f"{name}.zst"), "zstd") as stream:
                    stream.write((folder / name).read_bytes())
            if ending:
                (folder / name).unlink()
        built = build(tmp_path, folder, name=f"corpus{ending}", text_field="meta.text")
        made[ending] = {path.name: path.read_bytes() for path in built.folder.iterdir() if path.is_file()}
    assert made[""] == made[".gz"] == made[".zst"] == made[".parquet"]
    again = build(tmp_path, f"{tmp_path}/shards.zst/*.jsonl.zst", name="glob", text_field="meta.text")
    assert made[""]["token_ids.npy"] == (again.folder / "token_ids.npy").read_bytes()


def test_text_files_become_documents_by_line_or_by_file(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "b.txt").write_text("b one\n\nb two\n")
    (tmp_path / "texts" / "a.txt").write_text("a one\n")
    lines = build(tmp_path, tmp_path / "texts", name="lines")
    assert lines.ids() == ["a-000001", "b-000001", "b-000003"]
    files = build(tmp_path, tmp_path / "texts", name="files", text_unit="file")
    assert files.ids() == ["a", "b"]
    assert files.document(1).text == "b one\n\nb two\n"


def test_progress_ends_at_what_was_read(tmp_path):
    reports = []
    path = write_jsonl(tmp_path / "docs.jsonl", [{"text": "a"}, {"text": ""}, {"text": "b"}])
    (tmp_path / "corpus").mkdir()
    build_corpus(CorpusConfig(path=path), tiny_tokenizer("byte_bpe"), tmp_path / "corpus", lambda *r: reports.append(r))
    assert reports[-1] == (3, 3)


UNUSABLE = [
    ([{"text": "a"}, {"body": "b"}], {}, r"docs\.jsonl, line 2: expected a column 'text', found 'body'"),
    ([{"text": "a"}, {"text": 5}], {}, r"line 2: expected text in 'text', got 5; turn it into a string"),
    ([{"text": None}], {}, r"line 1: expected text in 'text', got None"),
    (
        [{"text": "a", "id": "x"}, {"text": "b", "id": "x"}],
        {"id_field": "id"},
        r"line 2: the id 'x' was already used at .*line 1",
    ),
    ([{"text": "a", "id": ""}], {"id_field": "id"}, r"line 1: the id in 'id' is empty"),
    ([{"text": "a", "id": 1.5}], {"id_field": "id"}, r"line 1: expected text in 'id', got 1\.5"),
    ([{"text": "a"}], {"source_field": "site"}, r"line 1: expected a column 'site', found 'text'"),
    (
        [{"text": "abc", "s": [[1, 4]]}],
        {"spans_field": "s"},
        r"line 1: the span 1 to 4 in 's' is not inside the text of 3 characters",
    ),
]


def test_unusable_rows_are_named(tmp_path):
    for number, (rows, options, message) in enumerate(UNUSABLE):
        with naming(rows), pytest.raises(InputError, match=message):
            build(tmp_path, rows, name=f"corpus-{number}", **options)


def test_characters_that_cannot_be_stored_are_named(tmp_path):
    for escape, message in [("\\u0000", "NUL character at position 1"), ("\\ud83d", "half of a surrogate pair")]:
        with naming(escape, message):
            path = tmp_path / "docs.jsonl"
            path.write_text('{"text": "a' + escape + 'b"}\n')
            with pytest.raises(InputError, match=f"line 1: 'text' has (a )?{message}"):
                build(tmp_path, path, name=message.split()[0])


def test_two_files_whose_documents_would_share_an_id_are_refused(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a-000001.txt").write_text("whole file")
    write_jsonl(tmp_path / "texts" / "a.jsonl", [{"text": "first line"}])
    with pytest.raises(InputError, match="two documents have the id 'a-000001'"):
        build(tmp_path, tmp_path / "texts", text_unit="file")


def test_a_damaged_corpus_is_stale(tmp_path):
    corpus = build(tmp_path, [{"text": "you are kind"}] * 3)
    (corpus.folder / "documents.arrow").rename(tmp_path / "away")
    with pytest.raises(StaleError, match=r"documents\.arrow is missing"):
        TokenizedCorpus.open(corpus.folder)
    whole = (tmp_path / "away").read_bytes()
    (corpus.folder / "documents.arrow").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StaleError, match=r"documents\.arrow"):
        TokenizedCorpus.open(corpus.folder)
    (corpus.folder / "documents.arrow").write_bytes(whole)
    np.save(corpus.folder / "token_ids.npy", corpus.token_ids[:-1].copy())
    with pytest.raises(StaleError, match=r"token_ids\.npy is damaged .expected .* values"):
        TokenizedCorpus.open(corpus.folder)


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(-100, 100), max_size=5), max_size=5))
def test_an_appended_array_is_the_concatenation(tmp_path_factory, parts):
    path = tmp_path_factory.mktemp("arrays") / "a.npy"
    writer = ArrayWriter(path, np.int32)
    for part in parts:
        writer.append(np.array(part, dtype=np.int64))
    writer.close()
    loaded = np.load(path, allow_pickle=False)
    assert loaded.dtype == np.int32
    assert loaded.tolist() == [value for part in parts for value in part]


# ---- chunks ----


@settings(max_examples=100)
@given(st.lists(st.integers(0, 20), max_size=6), st.integers(2, 8))
def test_each_token_after_the_first_is_predicted_in_exactly_one_chunk(lengths, max_length):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    chunks = chunk_documents(offsets, max_length)
    assert chunks.shape[1] == 3
    assert chunks.dtype == np.int64
    predicted = [t for _, start, stop in chunks for t in range(start + 1, stop)]
    assert predicted == [t for first, last in zip(offsets, offsets[1:], strict=False) for t in range(first + 1, last)]
    for document, start, stop in chunks:
        assert 2 <= stop - start <= max_length
        assert offsets[document] <= start < stop <= offsets[document + 1]


def test_a_chunk_of_one_token_is_refused():
    with pytest.raises(ConfigError, match="at least 2 tokens, got 1"):
        chunk_documents(np.array([0, 5]), 1)


# ---- spans ----


SPANS = [
    ("[8, 9, 10, 2]", ((2, 3), (8, 11))),
    ([2, 3, 4], ((2, 5),)),
    ("[]", ()),
    ("", ()),
    (None, ()),
    ([], ()),
    ([[5, 7], [0, 2], [1, 3]], ((0, 3), (5, 7))),
    ("[(0, 2), (2, 4)]", ((0, 4),)),
    ([{"start": 3, "end": 6, "label": "insult"}], ((3, 6),)),
    ('[{"start": 3, "end": 6}]', ((3, 6),)),
]


def test_all_forms_of_spans_are_read():
    for value, expected in SPANS:
        with naming(value):
            assert parse_spans(value, 12, "here", "spans") == expected


NOT_SPANS = ["[1, 2", "__import__('os')", 5, "5", [[1]], [[1, 2, 3]], [True], [1.5], [{"start": 1}], [["0", "1"]]]


def test_other_forms_of_spans_are_refused():
    for value in NOT_SPANS:
        with naming(value), pytest.raises(InputError, match="here: expected spans in 'spans' as"):
            parse_spans(value, 12, "here", "spans")


def test_spans_outside_the_text_are_refused():
    for value in [[[0, 13]], [[3, 3]], [[4, 2]], [[-1, 2]], [12], [-1]]:
        with naming(value), pytest.raises(InputError, match="is not inside the text of 12 characters"):
            parse_spans(value, 12, "here", "spans")


@settings(max_examples=100)
@given(st.text("ab \t漢👍", max_size=15), st.data())
def test_a_token_is_in_a_span_when_one_of_its_visible_characters_is(text, data):
    place = st.integers(0, len(text))
    ranges = st.tuples(place, place).map(sorted)
    spans = (
        parse_spans(
            [list(r) for r in data.draw(st.lists(ranges.filter(lambda r: r[0] < r[1]), max_size=3))], len(text), "", ""
        )
        if text
        else ()
    )
    tokens = data.draw(st.lists(ranges, max_size=8))
    starts, ends = np.array([t[0] for t in tokens], dtype=int), np.array([t[1] for t in tokens], dtype=int)
    slow = [any(not text[c].isspace() and any(a <= c < b for a, b in spans) for c in range(s, e)) for s, e in tokens]
    assert mark_tokens(text, spans, starts, ends).tolist() == slow


def test_spans_mark_the_same_words_under_every_tokenizer(tmp_path):
    rows = [{"text": "you 漢 are kind 👍 now", "spans": [4, 15]}, {"text": "none here", "spans": []}]
    for kind in ("byte_bpe", "byte_bpe_trimmed", "unigram_bytes", "llama_style"):
        with naming(kind):
            corpus = build(tmp_path, rows, kind, name=kind, spans_field="spans")
            assert corpus.document(0).spans == ((4, 5), (15, 16))
            assert corpus.document(1).spans == ()
            pieces = zip(corpus.document_tokens(0), corpus.in_span, strict=False)
            assert "".join(piece for piece, marked in pieces if marked).replace(" ", "") == "漢👍"
            assert corpus.in_span[: corpus.offsets[1]].sum() >= 6  # every token of a character of several tokens
            assert not corpus.in_span[corpus.offsets[1] :].any()


# ---- real files ----


def test_real_posts_with_spans(tmp_path):
    path = shared_file("toxic_spans_trial.csv")
    corpus = build(tmp_path, path, spans_field="spans", max_documents=300)
    assert corpus.n_documents == 300
    for i in range(corpus.n_documents):
        document, tokens = corpus.document(i), slice(corpus.offsets[i], corpus.offsets[i + 1])
        pieces = corpus.document_tokens(i)
        assert "".join(pieces) == document.text
        toxic = {c for a, b in document.spans for c in range(a, b) if not document.text[c].isspace()}
        places = zip(corpus.char_start[tokens].tolist(), corpus.char_end[tokens].tolist(), strict=True)
        assert corpus.in_span[tokens].tolist() == [bool(toxic.intersection(range(a, b))) for a, b in places]
    assert 0 < corpus.in_span.sum() < corpus.n_tokens / 2


def test_real_passages_in_flat_memory(tmp_path):
    import tracemalloc

    path = shared_file("boolq_passages.jsonl")
    peaks = []
    for count in (550, 1650):
        (tmp_path / str(count)).mkdir()
        tracemalloc.start()
        build_corpus(
            CorpusConfig(path=str(path), max_documents=count), tiny_tokenizer("byte_bpe"), tmp_path / str(count)
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]

"""Chats and prompts with completions: the labels are those of the assistant alone, and all else of a corpus follows."""

import copy
import json

import numpy as np
import pytest

from ifguide.config.schema import CorpusConfig
from ifguide.data.corpus_writer import build_corpus
from ifguide.data.packing import IGNORED, pack_rows
from ifguide.data.stretches import count_valid, find_edges, inside, overlap
from ifguide.errors import InputError
from tests.tiny_tokenizers import tiny_tokenizer

CHATML = (
    "{{ bos_token if bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{{ bos_token if bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] if loop.last else '...' }}\n{% endfor %}"
CHATS = [
    [("system", "Be kind."), ("user", "Who are you?"), ("assistant", "The quick fox."), ("user", "And?"), ("bot", "x")],
    [("user", "  naïve 😀 "), ("assistant", " You are clever;\n"), ("user", "No."), ("assistant", "They were not.")],
    [("assistant", "I begin."), ("assistant", "I go on.")],
    [("user", "Nobody answers.")],
]


def as_messages(chat):
    return [{"role": role, "content": content} for role, content in chat]


def chat_tokenizer(template, kind="byte_bpe", bos=False):
    tokenizer = copy.deepcopy(tiny_tokenizer(kind))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    if bos:
        from tokenizers.processors import TemplateProcessing

        tokenizer.add_special_tokens({"bos_token": "<s>"})
        ids = [("<s>", tokenizer.bos_token_id)]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=ids)
    tokenizer.chat_template = template
    return tokenizer


def build(tmp_path, rows, tokenizer, name="corpus", **settings):
    (tmp_path / name).mkdir()
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return build_corpus(CorpusConfig(path=str(path), **settings), tokenizer, tmp_path / name)


def labels_of(corpus, eos=0, **settings):
    rows = pack_rows(
        corpus.token_ids, corpus.offsets, 400, eos, trained=corpus.trained, ends=not corpus.is_chat, pack=False
    )
    return [row.labels[row.token_index >= 0].tolist() for row in rows]


def test_labels_are_those_of_an_assistant_only_loss(tmp_path):
    rows = [{"messages": as_messages(chat)} for chat in CHATS]
    for kind in ("byte_bpe", "byte_bpe_trimmed", "llama_style"):
        for bos in (False, True):
            tokenizer, name = chat_tokenizer(MARKED, kind, bos), f"{kind}{bos}"
            corpus = build(tmp_path, rows, tokenizer, name=name)
            for row, found in zip(rows, labels_of(corpus), strict=True):
                how = {"return_dict": True, "return_assistant_tokens_mask": True}  # as in trl's SFTTrainer
                expected = tokenizer.apply_chat_template(row["messages"], tokenize=True, **how)
                ids, masks = np.array(expected["input_ids"]), np.array(expected["assistant_masks"])
                expected = np.where(masks == 0, IGNORED, ids)[int(bos) :]  # bos comes before each row anyway
                assert found == expected.tolist(), (kind, bos, row)
            assert corpus.n_valid == sum(label != IGNORED for found in labels_of(corpus) for label in found)
            valid = corpus.valid()
            assert [valid[a:b].tolist() for a, b in ((0, 7), (5, 50))] == [
                corpus.valid_between(0, 7).tolist(),
                corpus.valid_between(5, 50).tolist(),
            ]


def test_without_marks_a_turn_is_what_it_adds_to_its_opening(tmp_path):
    rows = [{"messages": as_messages(chat)} for chat in CHATS]
    corpus = build(tmp_path, rows, chat_tokenizer(CHATML))
    said = []
    for index in range(corpus.n_documents):
        here = slice(corpus.offsets[index], corpus.offsets[index + 1])
        pieces = np.array(corpus.document_tokens(index), dtype=object)
        said.append("".join(pieces[corpus.valid()[here]]))
    assert said == [
        "The quick fox.<|im_end|>\n",
        " You are clever;\n<|im_end|>\nThey were not.<|im_end|>\n",
        "I begin.<|im_end|>\nI go on.<|im_end|>\n",
        "",
    ]


def test_turns_are_where_their_words_begin(tmp_path):
    corpus = build(tmp_path, [{"messages": as_messages(chat)} for chat in CHATS], chat_tokenizer(CHATML))
    for index, chat in enumerate(CHATS):
        document = corpus.document(index)
        assert [role for _, role in document.turns] == [role for role, _ in chat]
        for (start, _), (_, said) in zip(document.turns, chat, strict=True):
            assert document.text[start:].startswith(said.strip())


def test_a_turn_is_where_its_words_are_and_not_where_its_header_has_them(tmp_path):
    chat = [("system", "s"), ("user", "a"), ("assistant", "  ant "), ("user", "user"), ("assistant", "i")]
    trims = CHATML.replace("m['content']", "m['content'] | trim")
    for name, template in (("as-it-is", CHATML), ("trims", trims)):
        document = build(tmp_path, [{"messages": as_messages(chat)}], chat_tokenizer(template), name=name).document(0)
        assert len(document.turns) == len(chat)
        for (start, role), (speaker, words) in zip(document.turns, chat, strict=True):
            assert role == speaker and document.text[:start].rstrip(" ").endswith(f"{role}\n")
            assert document.text[start:].startswith(f"{words.lstrip()}<|im_end|>") or template == trims


def test_a_role_header_is_no_label_where_the_template_writes_no_opening(tmp_path):
    plain = CHATML.partition("{% if add_generation_prompt %}")[0]
    chats = [CHATS[1], CHATS[2], [("user", "a"), ("assistant", "a"), ("assistant", "ant")]]
    rows = [{"messages": as_messages(chat)} for chat in chats]
    corpus = build(tmp_path, rows, chat_tokenizer(plain))
    for index, chat in enumerate(chats):
        here = slice(corpus.offsets[index], corpus.offsets[index + 1])
        pieces = np.array(corpus.document_tokens(index), dtype=object)
        said = [f"{words}<|im_end|>\n" for role, words in chat if role == "assistant"]
        assert "".join(pieces[corpus.valid()[here]]) == "".join(said)


def test_content_in_parts_is_its_text_and_other_parts_are_refused(tmp_path):
    parts = [{"type": "text", "text": "The quick "}, {"type": "text", "text": "fox.", "image_url": None}]
    chat = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": parts}]
    corpus = build(tmp_path, [{"messages": chat}], chat_tokenizer(CHATML))
    assert corpus.document(0).text.endswith("assistant\nThe quick fox.<|im_end|>\n")
    for n, content in enumerate(([*parts, {"type": "image_url", "image_url": "x"}], 5, True, ["fox"], {"text": "fox"})):
        chat[1]["content"] = content
        with pytest.raises(InputError, match=r"line 1: expected content as text, or as parts .* in 'messages', got"):
            build(tmp_path, [{"messages": chat}], chat_tokenizer(CHATML), name=f"bad-{n}")


def test_both_forms_of_messages_and_a_named_column_give_the_same(tmp_path):
    other = {"user": "human", "assistant": "gpt"}
    plain = [{"messages": as_messages(chat)} for chat in CHATS]
    shared = [{"conversations": [{"from": other.get(r, r), "value": c} for r, c in chat]} for chat in CHATS]
    nested = [{"data": {"chat": row["messages"]}} for row in plain]
    made = [
        build(tmp_path, rows, chat_tokenizer(CHATML), name=f"c{n}", **settings)
        for n, (rows, settings) in enumerate([(plain, {}), (shared, {}), (nested, {"text_field": "data.chat"})])
    ]
    for corpus in made[1:]:
        assert corpus.token_ids.tolist() == made[0].token_ids.tolist()
        assert corpus.trained.tolist() == made[0].trained.tolist()
    halves = [{"prompt": as_messages(chat[:-1]), "completion": as_messages(chat[-1:])} for chat in CHATS[1:3]]
    second = build(tmp_path, halves, chat_tokenizer(MARKED), name="halves")
    assert second.trained.tolist()[-2:] == [second.trained[-2], second.n_tokens] and len(second.trained) == 4
    whole = build(tmp_path, plain, chat_tokenizer(CHATML), name="all", train_on="all")
    assert whole.trained is None and whole.is_chat and whole.token_ids.tolist() == made[0].token_ids.tolist()


def test_of_prompt_and_completion_the_completion_and_its_end_are_labels(tmp_path):
    rows = [{"prompt": "You are", "completion": " kind."}, {"prompt": "", "completion": "Two words"}]
    corpus = build(tmp_path, [*rows, {"prompt": "empty", "completion": " "}], tiny_tokenizer("byte_bpe"))
    texts = [corpus.document(n).text for n in range(corpus.n_documents)]
    assert texts == ["You are kind.", "Two words"] and corpus.summary["skipped"] == 1
    packed = pack_rows(corpus.token_ids, corpus.offsets, 60, 0, trained=corpus.trained, ends=not corpus.is_chat)[0]
    tokens = tiny_tokenizer("byte_bpe")
    assert (
        tokens.decode(packed.labels[packed.labels != IGNORED]) == " kind.<|end|> words<|end|>"
    )  # the first token has no label
    everything = build(tmp_path, rows, tokens, name="all", train_on="all")
    plain = build(tmp_path, [{"text": text} for text in texts], tokens, name="plain")
    for name in ("token_ids.npy", "offsets.npy", "char_end.npy"):
        assert (everything.folder / name).read_bytes() == (plain.folder / name).read_bytes()
    assert not (plain.folder / "trained.npy").exists() and not (everything.folder / "trained.npy").exists()


WRONG = [
    ([{"messages": as_messages(CHATS[0])}], None, {}, r"holds conversations, but the tokenizer has no chat template"),
    ([{"messages": as_messages(CHATS[0])}], FORGETS, {}, r"line 1: the chat template writes .* differently"),
    ([{"messages": []}], CHATML, {"skip_empty": False}, r"line 1: no text in 'messages'; remove the row"),
    ([{"messages": ["hello"]}], CHATML, {}, r"line 1: expected messages .* in 'messages', got 'hello'"),
    ([{"messages": [{"role": None}]}], CHATML, {}, r"line 1: expected messages"),
    ([{"messages": as_messages(CHATS[3])}], CHATML, {}, r"has no turn of the assistant to train on"),
    ([{"messages": as_messages(CHATS[1])}], "{{ raise_exception('no!') }}", {}, r"refuses the messages \(no!\)"),
    ([{"text": "plain"}], CHATML, {"train_on": "completion"}, r"expected messages, or prompts .*, got text"),
    ([{"body": "plain", "id": "1"}], CHATML, {"id_field": "id"}, r"expected a column 'text', found 'body', 'id'"),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_chats_that_cannot_be_used_are_named(tmp_path, number):
    rows, template, settings, message = WRONG[number]
    with pytest.raises(InputError, match=message):
        build(tmp_path, rows, chat_tokenizer(template), **settings)


def test_stretches_say_what_a_mask_says():
    draw = np.random.default_rng(0)
    for _ in range(200):
        flags = np.repeat(draw.random(12) < 0.5, draw.integers(1, 5, 12))
        edges, n = find_edges(flags), len(flags)
        start, stop = np.sort(draw.integers(0, n + 1, 2)).tolist()
        assert inside(edges, start, stop).tolist() == flags[start:stop].tolist()
        starts = draw.integers(0, n, 20)
        stops = np.minimum(starts + draw.integers(1, 6, 20), n)
        touched = [flags[a:b].any() for a, b in zip(starts, stops, strict=True)]
        assert overlap(edges, starts, stops).tolist() == touched
        assert count_valid(np.array([0, 0, n]), edges).tolist() == [0, flags.sum()]

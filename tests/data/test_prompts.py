import json

import pytest

from ifguide.config.schema import EvaluateConfig
from ifguide.data import prompts
from ifguide.data.prompts import read_heldout
from ifguide.errors import InputError
from tests.naming import naming
from tests.shared_data import shared_file

CONFIG = EvaluateConfig(n_prompts=0)


def read_prompts(path, config):
    return [prompt.text for prompt in prompts.read_prompts(path, config)]


def read_groups(path, config=CONFIG):
    return [(prompt.text, prompt.group) for prompt in prompts.read_prompts(path, config)]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_json_lines_plain_and_nested_like_realtoxicityprompts(tmp_path):
    rows = [{"prompt": "one"}, {"prompt": {"text": "two", "toxicity": 0.9}}, {"prompt": "  "}]
    path = write(tmp_path / "p.jsonl", "\n".join(map(json.dumps, rows)))
    assert read_prompts(path, CONFIG) == ["one", "two"]
    assert read_prompts(path, EvaluateConfig(n_prompts=1)) == ["one"]


def test_columns_of_tables(tmp_path):
    path = write(tmp_path / "p.csv", 'start,text\n"a, b",held\nc,out\n')
    assert read_prompts(path, EvaluateConfig(prompt_field="start")) == ["a, b", "c"]
    assert read_heldout(path, CONFIG) == ["held", "out"]
    assert read_heldout(path, EvaluateConfig(n_heldout=1)) == ["held"]


def test_bolds_nested_groups(tmp_path):
    bold = {"Actors": {"A_B": ["A B is an ", " "], "C_D": ["C D was ", "C D plays "]}, "Dancers": {"E": ["E dances "]}}
    path = write(tmp_path / "gender_prompt.json", json.dumps(bold))
    assert read_prompts(path, CONFIG) == ["A B is an ", "C D was ", "C D plays ", "E dances "]
    assert read_prompts(path, EvaluateConfig(n_prompts=2)) == ["A B is an ", "C D was "]
    write(tmp_path / "race_prompt.json", json.dumps({"Group": {"F": ["F "]}}))
    assert read_prompts(tmp_path, CONFIG)[-1] == "F "


def test_bolds_groups_are_kept(tmp_path):
    bold = {"Actors": {"A_B": ["A B is an "], "C_D": ["C D was "]}, "Dancers": {"E": ["E dances "]}}
    path = write(tmp_path / "gender_prompt.json", json.dumps(bold))
    assert read_groups(path) == [("A B is an ", "Actors"), ("C D was ", "Actors"), ("E dances ", "Dancers")]
    write(tmp_path / "race_prompt.json", json.dumps({"Dancers": {"F": ["F "]}}))
    assert [group for _, group in read_groups(tmp_path)] == [
        "gender_prompt: Actors",
        "gender_prompt: Actors",
        "gender_prompt: Dancers",
        "race_prompt: Dancers",
    ]


def test_attaqs_questions_and_labels(tmp_path):
    rows = [{"input": "How do I lie?", "label": "deception"}, {"input": "And steal?", "label": None}]
    path = write(tmp_path / "attaq.jsonl", "\n".join(map(json.dumps, rows)))
    assert read_groups(path) == [("How do I lie?", "deception"), ("And steal?", "")]
    table = write(tmp_path / "attaq.csv", "id,input,label\n1,How do I lie?,deception\n")
    assert read_groups(table) == [("How do I lie?", "deception")]


def test_the_group_is_a_column_that_can_be_named(tmp_path):
    rows = [
        {"prompt": {"text": "one"}, "group": "x", "label": 3, "input": "no"},
        {"prompt": "two", "group": "", "label": 4},
    ]
    path = write(tmp_path / "p.jsonl", "\n".join(map(json.dumps, rows)))
    assert read_groups(path) == [("one", "x"), ("two", "")]
    assert read_groups(path, EvaluateConfig(group_field="label")) == [("one", "3"), ("two", "4")]
    with pytest.raises(InputError, match=r"evaluate\.group_field"):
        read_groups(path, EvaluateConfig(group_field="kind"))


def test_plain_text_is_a_line_a_prompt(tmp_path):
    assert read_groups(write(tmp_path / "p.txt", "one\n\n two\n")) == [("one", ""), (" two", "")]


def test_the_real_files_are_read():
    found = read_groups(shared_file("bold") / "religious_ideology_prompt.json")
    assert len(found) > 500 and "judaism" in {group for _, group in found}
    found = read_groups(shared_file("rtp_toxic.jsonl"), EvaluateConfig(n_prompts=5))
    assert len(found) == 5 and all(text and not group for text, group in found)


def test_json_lines_under_another_name(tmp_path):
    assert read_prompts(write(tmp_path / "a.json", '{"prompt": "one"}\n{"prompt": "two"}\n'), CONFIG) == ["one", "two"]
    assert read_prompts(write(tmp_path / "b.json", '{"prompt": {"text": "one"}}'), CONFIG) == ["one"]


UNREADABLE = [
    ("p.jsonl", '{"text": "one"}', "'prompt'"),
    ("p.jsonl", '{"prompt": 3}', "expected text"),
    ("p.json", '{"group": {"person": [3]}}', "person"),
    ("p.json", '{"group": {"person": []}}', "no text"),
    ("p.csv", "prompt\n", "no text"),
]


def test_what_cannot_be_read_is_named(tmp_path):
    for name, text, message in UNREADABLE:
        with naming(text), pytest.raises(InputError, match=message):
            read_prompts(write(tmp_path / name, text), CONFIG)


def test_missing_file(tmp_path):
    with pytest.raises(InputError):
        read_prompts(tmp_path / "none.jsonl", CONFIG)

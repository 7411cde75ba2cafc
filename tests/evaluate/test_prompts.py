import json

import pytest

from ifguide.config import EvaluateConfig
from ifguide.errors import InputError
from ifguide.evaluate import read_heldout, read_prompts

CONFIG = EvaluateConfig()


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


def test_json_lines_under_another_name(tmp_path):
    assert read_prompts(write(tmp_path / "a.json", '{"prompt": "one"}\n{"prompt": "two"}\n'), CONFIG) == ["one", "two"]
    assert read_prompts(write(tmp_path / "b.json", '{"prompt": {"text": "one"}}'), CONFIG) == ["one"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.jsonl", '{"text": "one"}', "'prompt'"),
        ("p.jsonl", '{"prompt": 3}', "expected text"),
        ("p.json", '{"group": {"person": [3]}}', "person"),
        ("p.json", '{"group": {"person": []}}', "no text"),
        ("p.csv", "prompt\n", "no text"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message):
        read_prompts(write(tmp_path / name, text), CONFIG)


def test_missing_file(tmp_path):
    with pytest.raises(InputError):
        read_prompts(tmp_path / "none.jsonl", CONFIG)

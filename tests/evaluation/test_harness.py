import json
import sys

import pytest

from ifguide.errors import InputError
from ifguide.evaluation.harness import check_harness, run_harness
from tests.tiny import tiny_model
from tests.tiny_tokenizers import tiny_tokenizer

TASK = """
task: tiny_words
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{text}}"
doc_to_target: "{{answer}}"
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc}]
"""
ROWS = [
    {"text": "The dog is", "choices": ["lazy", "kind"], "answer": 0},
    {"text": "You are", "choices": ["kind", "a fox"], "answer": 1},
    {"text": "It was", "choices": ["brown", "at home"], "answer": 0},
]


def test_without_the_package_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(InputError, match=r"pip install 'ifguide\[harness\]'") as error:
        check_harness(["x"])
    assert "\n" not in str(error.value)


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is an optional extra: pip install 'ifguide[harness]'")
    (tmp_path / "tiny.yaml").write_text(TASK)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return str(tmp_path)


def test_a_local_task_is_scored_as_by_hand(folder):
    import torch

    tokenizer = tiny_tokenizer("byte_bpe")
    model = tiny_model("gpt_neox", vocab_size=len(tokenizer), dtype=torch.float32)
    check_harness(["tiny_words"], folder)
    found = run_harness(model, tokenizer, ["tiny_words"], folder)

    def likelihood(text, choice):
        start = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        ids = tokenizer(f"{text} {choice}", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            steps = model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        return sum(float(steps[i - 1, ids[i]]) for i in range(start, len(ids)))

    right = [max(range(2), key=lambda i: likelihood(row["text"], row["choices"][i])) == row["answer"] for row in ROWS]
    assert found["tiny_words"]["acc"] == pytest.approx(sum(right) / 3)
    assert found["tiny_words"]["n_samples"] == 3 and "acc_stderr" in found["tiny_words"]
    assert run_harness(model, tokenizer, ["tiny_words"], folder, limit=2)["tiny_words"]["n_samples"] == 2
    assert json.loads(json.dumps(found)) == found


def test_unknown_tasks_and_folders_are_named(folder):
    with pytest.raises(InputError, match="known: tiny_words"):
        check_harness(["other"], folder)
    with pytest.raises(InputError, match="expected a folder"):
        check_harness(["tiny_words"], f"{folder}/none")

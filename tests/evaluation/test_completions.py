import json

import pytest

from ifguide.config.schema import EvaluateConfig
from ifguide.evaluation import generation
from ifguide.evaluation.generation import generate_completions, plan_prompts
from tests.evaluation.test_generation import PROMPTS, tiny_model, tiny_tokenizer

CONFIG = EvaluateConfig(n_samples=5, max_new_tokens=7, seed=3)


@pytest.fixture
def whole():
    """What one shard gives."""
    return generate_completions(tiny_model(), tiny_tokenizer(), PROMPTS, CONFIG)


@pytest.fixture
def small_shards(whole, monkeypatch):
    monkeypatch.setattr(generation, "SHARD_COMPLETIONS", 6)  # a shard a prompt


def test_shards_part_the_prompts_and_keep_like_lengths_together():
    lengths = [9, 1, 5, 1, 7, 3]
    shards = plan_prompts(lengths, 3, 7)
    assert [[lengths[i] for i in shard] for shard in shards] == [[1, 1], [3, 5], [7, 9]]
    assert plan_prompts(lengths, 25, 7) == [[1], [3], [5], [2], [4], [0]]
    assert plan_prompts([], 25, 7) == []


def test_shards_give_what_one_pass_gives(whole, small_shards, tmp_path):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    calls = []
    assert generate_completions(model, tokenizer, PROMPTS, CONFIG, tmp_path, lambda *call: calls.append(call)) == whole
    assert generate_completions(model, tokenizer, PROMPTS, CONFIG) == whole
    assert len(list(tmp_path.iterdir())) == len(PROMPTS)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls) and calls[-1] == (20, 20)


def test_what_is_there_is_not_made_again(small_shards, tmp_path, monkeypatch):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    whole = generate_completions(model, tokenizer, PROMPTS, CONFIG, tmp_path)
    files = sorted(tmp_path.iterdir())
    files[1].unlink()
    files[2].write_text('[[0, 0, "half')  # damaged: made again
    rows = json.loads(files[3].read_text())
    files[3].write_text(json.dumps(rows[:-1]))  # not all of it
    made = []
    real = generation.complete_shard
    monkeypatch.setattr(generation, "complete_shard", lambda *a: made.append(a[3]) or real(*a))
    assert generate_completions(model, tokenizer, PROMPTS, CONFIG, tmp_path) == whole
    assert len(made) == 3
    made.clear()
    assert generate_completions(model, tokenizer, PROMPTS, CONFIG, tmp_path) == whole
    assert made == []

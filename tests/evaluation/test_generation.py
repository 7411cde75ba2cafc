from itertools import pairwise

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ifguide.config.schema import EvaluateConfig
from ifguide.errors import ConfigError, InputError, NumericalError
from ifguide.evaluation.generation import (
    draw_uniforms,
    encode_prompts,
    generate_completions,
    sample_tokens,
    stream_completions,
)
from ifguide.training.train import initialise_model

WORDS = [f"w{i}" for i in range(40)]
SHAPE = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=48
)
PROMPTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10 w11", "w12 w13 "]
CONFIG = EvaluateConfig(n_samples=5, max_new_tokens=7, seed=3, batch_size=64)


def tiny_tokenizer(eos="w39"):
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=eos)


def tiny_model(model_type="gpt_neox", seed=0, spread=6.0):
    model = initialise_model({"model_type": model_type, **SHAPE}, len(WORDS), seed).double().eval()
    with torch.no_grad():  # far from even odds, so that context and position matter
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(spread)
    return model


@pytest.fixture
def tokenizer():
    return tiny_tokenizer()


@pytest.mark.parametrize("model_type", ["gpt_neox", "llama", "gpt2", "opt"])
def test_batch_size_padding_and_company_change_nothing(model_type, tokenizer):
    model = tiny_model(model_type)
    whole = generate_completions(model, tokenizer, PROMPTS, CONFIG)
    for batch_size in (1, 3, 7):
        config = EvaluateConfig(n_samples=5, max_new_tokens=7, seed=3, batch_size=batch_size)
        assert generate_completions(model, tokenizer, PROMPTS, config) == whole
    assert generate_completions(model, tokenizer, PROMPTS[:2], CONFIG) == whole[: 2 * 5]


def test_fewer_samples_and_shorter_completions_are_the_start_of_more(tokenizer):
    model = tiny_model()
    whole = {
        (c.prompt_index, c.sample_index): c.completion.split()
        for c in generate_completions(model, tokenizer, PROMPTS, CONFIG)
    }
    short = EvaluateConfig(n_samples=2, max_new_tokens=3, seed=3)
    for c in generate_completions(model, tokenizer, PROMPTS, short):
        assert c.completion.split() == whole[c.prompt_index, c.sample_index][:3]


def test_a_stream_grows_to_the_completion_that_a_batch_gives(tokenizer):
    model = tiny_model()
    whole = generate_completions(model, tokenizer, PROMPTS[:1], CONFIG)
    together = list(stream_completions(model, tokenizer, PROMPTS[0], CONFIG, [c.sample_index for c in whole]))
    assert together[-1] == whole
    for place, expected in enumerate(whole):
        alone = [c for (c,) in stream_completions(model, tokenizer, PROMPTS[0], CONFIG, [expected.sample_index])]
        for grown in (alone, [step[place] for step in together]):
            assert grown[-1] == expected
            assert all(after.completion.startswith(before.completion) for before, after in pairwise(grown))
            assert [c.n_tokens for c in grown][: expected.n_tokens] == list(range(1, expected.n_tokens + 1))


@torch.no_grad()
@pytest.mark.parametrize("model_type", ["gpt_neox", "gpt2"])
def test_cached_steps_equal_reading_everything_again(model_type, tokenizer):
    model = tiny_model(model_type)
    for c in generate_completions(model, tokenizer, PROMPTS, CONFIG):
        ids = tokenizer(PROMPTS[c.prompt_index].strip(), add_special_tokens=False)["input_ids"]
        uniforms = torch.from_numpy(draw_uniforms(3, c.prompt_index, c.sample_index, 7))
        new = []
        for step in range(7):
            logits = model(input_ids=torch.tensor([ids + new]), use_cache=False).logits[:, -1]
            token = sample_tokens(logits, uniforms[step : step + 1], CONFIG.top_p, CONFIG.temperature).item()
            if token == tokenizer.eos_token_id:
                break
            new.append(token)
        assert c.completion == tokenizer.decode(new) and c.n_tokens == len(new)


def test_seed_and_sample_number_matter(tokenizer):
    model = tiny_model(spread=1.0)
    first = [c.completion for c in generate_completions(model, tokenizer, PROMPTS, CONFIG)]
    assert first == [c.completion for c in generate_completions(model, tokenizer, PROMPTS, CONFIG)]
    other = EvaluateConfig(n_samples=5, max_new_tokens=7, seed=4)
    assert first != [c.completion for c in generate_completions(model, tokenizer, PROMPTS, other)]
    assert len(set(first[:5])) > 1


def test_uniforms_are_counted_not_drawn_in_turn():
    assert np.array_equal(draw_uniforms(0, 1, 2, 9)[:4], draw_uniforms(0, 1, 2, 4))
    draws = {draw_uniforms(*key, 1)[0] for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)]}
    assert len(draws) == 5
    many = np.concatenate([draw_uniforms(0, i, k, 4) for i in range(60) for k in range(20)])
    assert abs(many.mean() - 0.5) < 0.02 and many.min() >= 0 and many.max() < 1


def test_nucleus_by_hand():
    logits = torch.tensor([0.1, 0.5, 0.15, 0.25]).log().repeat(5, 1)
    # order 1, 3, 2, 0. top_p .7 keeps .5 and .25, so their shares are 2/3 and 1/3
    uniforms = torch.tensor([0.0, 0.6, 0.66, 0.67, 0.999], dtype=torch.float64)
    assert sample_tokens(logits, uniforms, 0.7, 1.0).tolist() == [1, 1, 1, 3, 3]
    assert sample_tokens(logits, uniforms, 1.0, 1.0).tolist() == [1, 3, 3, 3, 0]
    assert sample_tokens(logits, uniforms, 0.01, 1.0).tolist() == [1] * 5
    assert sample_tokens(logits, uniforms, 1.0, 1e-3).tolist() == [1] * 5


@pytest.mark.parametrize("top_p", [0.3, 0.9, 1.0])
def test_wide_nucleus_equals_a_full_sort(top_p):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 2000, generator=generator) * torch.linspace(0.1, 6, 40)[:, None]
    uniforms = torch.rand(40, generator=generator, dtype=torch.float64)
    picked = sample_tokens(logits, uniforms, top_p, 1.0)
    for row in range(40):
        probabilities = torch.softmax(logits[row], -1)
        order = probabilities.argsort(descending=True, stable=True)
        cumulative = probabilities[order].double().cumsum(0)
        n_kept = int((cumulative < top_p).sum().clamp(max=1999)) + 1
        expected = order[min(int((cumulative[:n_kept] <= uniforms[row] * cumulative[n_kept - 1]).sum()), n_kept - 1)]
        assert picked[row] == expected


def test_frequencies_follow_the_probabilities():
    probabilities = torch.tensor([0.6, 0.3, 0.1])
    uniforms = torch.from_numpy(draw_uniforms(0, 0, 0, 20_000))
    picked = sample_tokens(probabilities.log().repeat(20_000, 1), uniforms, 1.0, 1.0)
    assert torch.allclose(picked.bincount().double() / 20_000, probabilities.double(), atol=0.01)


def test_completion_ends_at_end_of_text(tokenizer):
    model = tiny_model()
    model.generation_config.eos_token_id = None
    endless = generate_completions(
        model, tiny_tokenizer(eos=None), ["w1"], EvaluateConfig(n_samples=8, max_new_tokens=12)
    )
    ended = 0
    for eos in ("w5", "w20", "w31"):
        for whole, cut in zip(
            endless,
            generate_completions(model, tiny_tokenizer(eos), ["w1"], EvaluateConfig(n_samples=8, max_new_tokens=12)),
            strict=True,
        ):
            words = whole.completion.split()
            stop = words.index(eos) if eos in words else len(words)
            assert cut.completion.split() == words[:stop] and cut.n_tokens == stop
            ended += stop < len(words)
    assert all(c.n_tokens == 12 for c in endless) and ended > 0


def test_a_familys_default_end_of_text_is_not_taken_for_this_vocabularys(tokenizer):
    model = tiny_model("llama")
    assert model.generation_config.eos_token_id == 2 != tokenizer.eos_token_id
    completions = generate_completions(model, tokenizer, PROMPTS, EvaluateConfig(n_samples=20, max_new_tokens=20))
    assert any("w2" in c.completion.split() for c in completions)


def test_long_prompts_keep_their_end_and_empty_ones_get_a_start(tokenizer):
    assert encode_prompts(tokenizer, ["w1 w2 w3 w4", "", "w5  "], 2) == [[3, 4], [39], [5]]
    assert encode_prompts(tokenizer, [], 2) == []
    with pytest.raises(InputError, match="prompt 1 is empty"):
        encode_prompts(tiny_tokenizer(eos=None), ["w1", ""], 4)
    model, long = tiny_model(), " ".join(WORDS[:39] * 3)
    (c,) = generate_completions(model, tokenizer, [long], EvaluateConfig(n_samples=1, max_new_tokens=5))
    assert c.n_tokens <= 5


def test_context_without_room_is_refused(tokenizer):
    with pytest.raises(ConfigError, match="at most 46"):
        generate_completions(tiny_model(), tokenizer, PROMPTS, EvaluateConfig(max_new_tokens=47))


def test_damaged_model_is_an_error(tokenizer):
    model = tiny_model()
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(NumericalError, match="finite logits"):
        generate_completions(model, tokenizer, PROMPTS, CONFIG)


def test_progress_and_no_prompts(tokenizer):
    calls = []
    generate_completions(
        tiny_model(),
        tokenizer,
        PROMPTS,
        EvaluateConfig(n_samples=5, max_new_tokens=2, batch_size=8),
        report=lambda *c: calls.append(c),
    )
    assert calls == [(8, 20), (16, 20), (20, 20)]
    assert generate_completions(tiny_model(), tokenizer, [], CONFIG) == []

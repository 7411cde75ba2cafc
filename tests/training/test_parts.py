"""A loss in parts is the loss from whole logits, for models that do different things to their logits."""

import dataclasses

import pytest
import torch

from ifguide.data.packing import IGNORED
from ifguide.training import objective, trainer
from ifguide.training.objective import sum_losses, sum_losses_in_parts
from ifguide.training.parts import forward_in_parts
from ifguide.training.train import train_model
from tests.one_case import for_each
from tests.training.test_train import TRAINING, tiny_model, tiny_rows, weights
from tests.training.test_training_state import SUPPRESS

VOCAB = 60
COMMON = {"vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
FAMILIES = {
    "gpt_neox": SHAPE,
    "llama": SHAPE,
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 24},  # tied embeddings
    "gemma2": {**SHAPE, "head_dim": 4, "num_key_value_heads": 2, "final_logit_softcapping": 1.5},
    "cohere": {**SHAPE, "logit_scale": 0.3},
    "granite": {**SHAPE, "logits_scaling": 3.0},
    "phi": SHAPE,  # an output embedding with a bias
    "mixtral": {**SHAPE, "num_key_value_heads": 2, "num_local_experts": 2, "experts_implementation": "eager"},
}


def family(kind, **changes):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **COMMON, **{**FAMILIES.get(kind, {}), **changes})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float64).eval()
    with torch.no_grad():  # a bias starts at 0
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, VOCAB, (3, 9), generator=generator)
    labels = ids.clone()
    labels[:, 0], labels[1, 4:], labels[2, 3] = IGNORED, IGNORED, IGNORED
    return ids, labels, torch.rand(3, 9, generator=generator) < 0.4


def in_parts(model, ids, *asked):
    return model(input_ids=ids, use_cache=False, sum_losses=lambda *each: sum_losses_in_parts(*each, VOCAB, *asked))


def gradients(model, sums):
    model.zero_grad()
    sums.objective.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@for_each("kind", FAMILIES)
def test_the_sums_and_gradients_are_those_from_whole_logits(kind, monkeypatch):
    model, (ids, labels, selected) = family(kind), batch()
    rules = [(1.5, None, "penalise"), (1.0, 3.0, "penalise"), (1.0, None, "mask")]
    made = []
    model.get_output_embeddings().register_forward_hook(lambda module, args, logits: made.append(logits.numel()))
    for rule in rules:
        whole = sum_losses(model(input_ids=ids, use_cache=False).logits, labels, selected, *rule)
        expected = gradients(model, whole)
        monkeypatch.setattr(objective, "LOGITS_AT_ONCE", 4 * VOCAB)
        with forward_in_parts(model) as faithful:
            made.clear()
            sums = in_parts(model, ids, labels, selected, *rule)
            found = gradients(model, sums)
        assert faithful and set(made) == {4 * VOCAB, 2 * VOCAB}  # 18 of 27 tokens are learned
        torch.testing.assert_close(tuple(sums), tuple(whole), rtol=1e-12, atol=1e-12)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-12, msg=name)
    assert "forward" not in vars(model) and "forward" not in vars(model.base_model)


def test_a_model_whose_body_its_forward_method_does_not_call_keeps_whole_logits():
    model = family(
        "opt", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=24, word_embed_proj_dim=16
    )
    model.train()
    with forward_in_parts(model) as faithful:
        assert not faithful and "forward" not in vars(model)
    assert model.training


def test_a_batch_without_valid_tokens_has_no_loss_and_no_gradient():
    model, (ids, labels, selected) = family("llama"), batch()
    with forward_in_parts(model):
        sums = in_parts(model, ids, torch.full_like(labels, IGNORED), selected, 1.0)
    assert sums.objective == 0 and sums.n_selected + sums.n_other == 0
    assert not any(gradient.any() for gradient in gradients(model, sums).values())


@pytest.fixture
def small_parts(monkeypatch):
    """Any batch of these tests is larger than what is computed at once."""
    for module in (objective, trainer):
        monkeypatch.setattr(module, "LOGITS_AT_ONCE", 100)


def test_small_batches_and_the_check_of_a_run_without_large_ones_leave_the_model_alone(tmp_path):
    model, sizes = tiny_model(), []
    model.get_output_embeddings().register_forward_hook(lambda module, args, logits: sizes.append(logits.shape[1]))
    result = train_model(model, None, tiny_rows(), TRAINING, SUPPRESS, tmp_path)
    assert len(sizes) == TRAINING.epochs * -(-len(tiny_rows()) // TRAINING.batch_size) == result.steps


@for_each("changes", [{}, {"gradient_accumulation": 2}, {"packing": True}, {"adapter": "lora", "lora_rank": 2}])
def test_training_in_parts_gives_the_same_weights(tmp_path, changes, small_parts, monkeypatch):
    training = dataclasses.replace(TRAINING, **changes)
    counted = []
    monkeypatch.setattr(trainer, "sum_losses_in_parts", lambda *a: counted.append(1) or sum_losses_in_parts(*a))

    def run(name):
        rows = tiny_rows(pack=training.packing)
        result = train_model(tiny_model().double(), None, rows, training, SUPPRESS, tmp_path / name)
        return weights(result.final), result.steps

    parts, steps = run("parts")
    assert len(counted) >= steps
    monkeypatch.setattr(trainer, "LOGITS_AT_ONCE", 1 << 25)
    counted.clear()
    whole, _ = run("whole")
    assert not counted
    for name, expected in whole.items():
        torch.testing.assert_close(parts[name], expected, rtol=1e-7, atol=1e-9, msg=name)

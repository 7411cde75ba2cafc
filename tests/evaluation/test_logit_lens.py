"""The lens against the model itself, over several families."""

import numpy as np
import pytest
import torch

from ifguide.errors import InputError, NumericalError
from ifguide.evaluation.logit_lens import find_lens_parts, layer_probabilities
from tests.tiny import SHAPES, tiny_model


def encoded_queries(n=5, vocab_size=40):
    generator = np.random.default_rng(0)
    found = []
    for i in range(n):
        ids = generator.integers(1, vocab_size, 6 + 2 * i)
        mask = np.zeros(len(ids), dtype=bool)
        mask[3 + i :] = True
        found.append((ids.astype(np.int64), mask))
    return found


def target_logits(model, ids, hidden=None):
    with torch.no_grad():
        return model(input_ids=torch.from_numpy(ids)[None]).logits[0, :-1].log_softmax(-1)


@pytest.mark.parametrize("kind", SHAPES)
def test_the_last_layer_gives_the_models_own_probabilities(kind):
    model, queries = tiny_model(kind), encoded_queries()
    found = layer_probabilities(model, queries, batch_size=2)
    assert found.probability.shape == found.log_probability.shape == (5, 3)
    for q, (ids, mask) in enumerate(queries):
        own = target_logits(model, ids)[np.arange(len(ids) - 1), ids[1:]][mask[1:]]
        assert found.log_probability[q, -1] == pytest.approx(own.mean().item(), rel=1e-9)
        assert found.probability[q, -1] == pytest.approx(own.exp().mean().item(), rel=1e-9)


@pytest.mark.parametrize("kind", SHAPES)
def test_earlier_layers_are_those_of_the_model_cut_short(kind):
    model, queries = tiny_model(kind), encoded_queries()
    found = layer_probabilities(model, queries)
    blocks, _, _ = find_lens_parts(model)
    for layer in (1, 0):
        for block in blocks[layer:]:  # a block that adds nothing is as good as none
            block.forward = lambda hidden_states, *a, **o: hidden_states
        cut = layer_probabilities(model, queries)
        assert cut.log_probability[:, -1] == pytest.approx(found.log_probability[:, layer], rel=1e-9)
    assert np.abs(np.diff(found.log_probability, axis=1)).min() > 1e-6


def test_batches_change_nothing():
    model, queries = tiny_model("llama"), encoded_queries()
    for batch_size in (1, 3):
        again = layer_probabilities(model, queries, batch_size=batch_size)
        np.testing.assert_allclose(
            again.log_probability, layer_probabilities(model, queries).log_probability, rtol=1e-9
        )


def test_a_model_that_changes_its_logits_is_refused():
    model = tiny_model("gpt2")
    model.register_forward_hook(lambda module, arguments, output: output.__setitem__("logits", output.logits.tanh()))
    with pytest.raises(NumericalError, match="changes its logits after the unembedding"):
        layer_probabilities(model, encoded_queries())


def test_what_has_no_plain_blocks_or_norm_is_refused():
    model = tiny_model("llama")
    model.model.more = torch.nn.ModuleList([torch.nn.Identity(), torch.nn.Identity()])
    with pytest.raises(InputError, match="one list of 2 blocks in LlamaForCausalLM, got 2"):
        find_lens_parts(model)
    model = tiny_model("llama")
    model.model.norm = torch.nn.Identity()
    with pytest.raises(InputError, match="one final norm beside the blocks of LlamaForCausalLM, got 0"):
        find_lens_parts(model)

import torch
import torch.nn.functional as F

from ifguide.influence import losses
from ifguide.influence.losses import SplitModel, backpropagate
from tests.influence.every_model import every_model
from tests.one_case import for_each
from tests.tiny import tiny_model


def whole_losses(case, batch):
    logits = case.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.transpose(1, 2), batch.targets, reduction="none", ignore_index=-100)


def take_at_once(monkeypatch, logits: int) -> None:
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", {"cpu": logits})
    monkeypatch.setattr(losses, "LEAST_POSITIONS", 1)


@for_each("at_once", [1, 200, 1 << 23])
@every_model
def test_losses_in_parts_are_the_models_own(case, monkeypatch, at_once):
    take_at_once(monkeypatch, at_once)
    split = SplitModel(case.model)
    assert split.splits
    for batch in case.batches():
        torch.testing.assert_close(split(batch), whole_losses(case, batch), rtol=1e-10, atol=1e-12)


@every_model
def test_the_size_of_the_parts_changes_no_gradient(case, monkeypatch):
    found = []
    for at_once in (1, 1 << 23):
        take_at_once(monkeypatch, at_once)
        embeddings = case.model.get_input_embeddings().weight.requires_grad_(True)
        embeddings.grad = None
        for batch in case.batches():
            backpropagate(SplitModel(case.model), batch)
        found.append(embeddings.grad.clone())
    assert found[0].abs().max() > 0
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


def test_a_model_that_changes_its_logits_is_not_split():
    model = tiny_model("llama")
    forward = model.forward

    def capped(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = 5 * torch.tanh(output.logits / 5)
        return output

    model.forward = capped
    split = SplitModel(model)
    assert not split.splits
    hidden = split.hidden(torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.int64))
    assert hidden.shape == (1, 3, 40)
    assert split.logits(hidden).abs().max() <= 5

import math

import pytest
import torch

from ifguide.data.packing import IGNORED, mark_labels
from ifguide.training import objective
from ifguide.training.objective import sum_losses, token_losses
from tests.one_case import for_each
from tests.training.penalised import penalised_loss


def batch(dtype=torch.float64, rows=3, length=7, vocab=11, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, length, vocab, generator=generator, dtype=torch.float64).mul(3).to(dtype)
    labels = torch.randint(vocab, (rows, length), generator=generator)
    labels[:, 0] = IGNORED
    labels[0, 4] = IGNORED
    labels[2, 5:] = IGNORED
    selected = torch.rand(rows, length, generator=generator) < 0.4
    return logits, labels, selected


def loss_by_hand(logits, labels, selected, penalty, max_penalty=None):
    total, n = 0.0, 0
    for b in range(labels.shape[0]):
        for t in range(1, labels.shape[1]):
            if labels[b, t] == IGNORED:
                continue
            row = [math.exp(x) for x in logits[b, t - 1].double().tolist()]
            loss = -math.log(row[labels[b, t]] / sum(row))
            if selected[b, t]:
                loss = -penalty * (loss if max_penalty is None else min(loss, max_penalty))
            total, n = total + loss, n + 1
    return total / n


@for_each("penalty", [0.0, 0.5, 1.0, 3.0])
@for_each("max_penalty", [None, 2.0])
def test_matches_the_sum_written_out(penalty, max_penalty):
    logits, labels, selected = batch()
    expected = loss_by_hand(logits, labels, selected, penalty, max_penalty)
    assert penalised_loss(logits, labels, selected, penalty, max_penalty).item() == pytest.approx(expected, rel=1e-12)


def test_two_tokens_with_even_odds():
    # p = 1/2 everywhere: every CE is log 2. Three valid tokens, one selected with λ = 2: (1 + 1 - 2)/3 · log 2 = 0
    logits, labels = torch.zeros(1, 4, 2), torch.tensor([[IGNORED, 0, 1, 0]])
    selected = torch.tensor([[False, False, True, False]])
    assert penalised_loss(logits, labels, selected, 2.0).item() == pytest.approx(0.0, abs=1e-7)
    assert penalised_loss(logits, labels, selected, 1.0).item() == pytest.approx(math.log(2) / 3)
    assert penalised_loss(logits, labels, selected, 1.0, max_penalty=0.1).item() == pytest.approx(
        (2 * math.log(2) - 0.1) / 3
    )


def test_without_selection_it_is_the_models_own_loss():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=11, n_positions=16)).eval()
    ids = torch.randint(11, (2, 9))
    with torch.no_grad():
        output = model(input_ids=ids, labels=ids)
    for selected in (None, torch.zeros_like(ids, dtype=torch.bool)):
        assert penalised_loss(output.logits, ids, selected, 1.0).item() == pytest.approx(output.loss.item(), rel=1e-6)


def test_penalty_of_minus_one_is_plain_training():
    logits, labels, selected = batch()
    assert penalised_loss(logits, labels, selected, -1.0) == penalised_loss(logits, labels, None, 1.0)


def test_selected_token_moves_away_from_its_label():
    logits, labels, selected = batch()
    logits.requires_grad_()
    penalised_loss(logits, labels, selected, 1.0).backward()
    for b, t in zip(*torch.where(labels != IGNORED), strict=True):
        towards_label = -logits.grad[b, t - 1, labels[b, t]]  # descent raises this logit when positive
        assert (towards_label < 0) == selected[b, t]


def test_clamped_token_has_no_gradient():
    logits, labels, selected = batch()
    losses = token_losses(logits, labels)
    bound = losses[selected[:, 1:] & (labels[:, 1:] != IGNORED)].median().item()
    logits.requires_grad_()
    penalised_loss(logits, labels, selected, 1.0, max_penalty=bound).backward()
    over = selected[:, 1:] & (losses > bound)
    assert over.any() and (logits.grad[:, :-1][over] == 0).all()
    assert (logits.grad[:, :-1][selected[:, 1:] & (losses < bound) & (labels[:, 1:] != IGNORED)] != 0).any()


def test_split_batches_add_up_with_num_items():
    logits, labels, selected = batch()
    n = (labels[:, 1:] != IGNORED).sum()
    parts = [
        penalised_loss(logits[i : i + 1], labels[i : i + 1], selected[i : i + 1], 1.5, num_items=n) for i in range(3)
    ]
    assert sum(parts).item() == pytest.approx(penalised_loss(logits, labels, selected, 1.5).item(), rel=1e-12)


def test_selection_of_tokens_without_a_label_changes_nothing():
    logits, labels, selected = batch()
    everywhere = selected | (labels == IGNORED)
    assert penalised_loss(logits, labels, everywhere, 1.0) == penalised_loss(logits, labels, selected, 1.0)


def test_halves_are_summed_in_float32():
    logits, labels, selected = batch(torch.bfloat16, rows=4, length=300)
    loss = penalised_loss(logits, labels, selected, 1.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loss_by_hand(logits, labels, selected, 1.0), rel=1e-5)


def test_sums_tell_the_two_kinds_apart():
    logits, labels, selected = batch()
    sums = sum_losses(logits, labels, selected, 2.0)
    assert (sums.other - 2.0 * sums.selected).item() == pytest.approx(sums.objective.item(), rel=1e-12)
    assert sums.n_selected + sums.n_other == (labels[:, 1:] != IGNORED).sum()
    assert not sums.selected.requires_grad


def test_no_valid_token_gives_zero():
    logits, labels, selected = batch()
    assert penalised_loss(logits, torch.full_like(labels, IGNORED), selected, 1.0) == 0


def test_wrong_shapes_are_refused():
    logits, labels, selected = batch()
    with pytest.raises(ValueError, match="labels of shape"):
        penalised_loss(logits, labels[:, 1:], selected, 1.0)
    with pytest.raises(ValueError, match="selection of shape"):
        penalised_loss(logits, labels, selected[:, 1:], 1.0)


@for_each("method", ["mask", "drop"])
def test_other_methods_match_the_sum_written_out(method):
    logits, labels, selected = batch()
    total = n = 0.0
    for b, t in zip(*torch.nonzero(labels[:, 1:] != IGNORED, as_tuple=True), strict=True):
        p = torch.softmax(logits[b, t], -1)[labels[b, t + 1]].item()
        own = {"mask": 0.0, "drop": -math.log(p)}[method]
        total += own if selected[b, t + 1] else -math.log(p)
        n += 1
    found = penalised_loss(logits, labels, selected, 0.5, method=method).item()
    assert found == pytest.approx(total / n)


def test_an_unknown_method_is_refused():
    logits, labels, selected = batch()
    with pytest.raises(ValueError, match="expected one of penalise"):
        penalised_loss(logits, labels, selected, 1.0, method="forget")


def test_the_label_without_loss_is_the_one_of_transformers():
    """Labels come from its collators too, and its models leave out -100 and nothing else."""
    assert IGNORED == torch.nn.CrossEntropyLoss().ignore_index == -100


def test_marked_labels_train_like_a_selection():
    """Trainer's own loss function sees labels alone; they carry the selection."""
    logits, labels, selected = batch()
    marked = torch.from_numpy(mark_labels(labels.numpy(), selected.numpy()))
    assert torch.equal(marked == IGNORED, labels == IGNORED)
    assert (marked < IGNORED).sum() == (selected & (labels >= 0)).sum() > 0
    for n_items in (None, 29):
        expected = penalised_loss(logits, labels, selected, 0.7, 2.0, n_items)
        found = objective.penalised_loss(0.7, 2.0)({"logits": logits}, marked, num_items_in_batch=n_items)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)

import numpy as np
import pytest
import torch

from ifguide.config.schema import SuppressConfig, TrainingConfig
from ifguide.data.by_document import sum_by_document
from ifguide.data.packing import IGNORED, DroppedRows, pack_rows
from ifguide.training.rows import TrainingRows, collate_rows, trim_row
from ifguide.training.train import initialise_model, train_model
from ifguide.training.trainer import PenalisedTrainer
from tests.one_case import for_each
from tests.training.penalised import penalised_loss

VOCAB, EOS = 31, 30
SHAPE = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)


def tiny_model(model_type="gpt_neox"):
    return initialise_model({"model_type": model_type, **SHAPE, "max_position_embeddings": 512}, VOCAB, 0).eval()


def corpus(n_documents=18, seed=0):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(2, 14, n_documents))])
    return rng.integers(0, EOS, offsets[-1]), offsets, rng.random(offsets[-1]) < 0.2


@torch.no_grad()
def row_loss(model, rows, penalty=-1.0):
    batch = collate_rows([trim_row(row) for row in rows], 0)
    extra = {"position_ids": batch["position_ids"]} if "position_ids" in batch else {}
    logits = model(input_ids=batch["input_ids"], use_cache=False, **extra).logits
    return penalised_loss(logits, batch["labels"], batch["selected"], penalty).item()


def test_trimming_drops_what_has_no_loss():
    row = trim_row(
        {"input_ids": [5, 6, 7, 0, 0], "labels": [5, 6, 7, -100, -100], "selected": [True, True, False, True, True]}
    )
    assert row["input_ids"].tolist() == [5, 6, 7] and row["labels"].tolist() == [-100, 6, 7]
    assert row["selected"].tolist() == [False, True, False]


def test_padding_changes_no_loss():
    token_ids, offsets, selected = corpus()
    model, rows = tiny_model(), list(pack_rows(token_ids, offsets, 16, EOS, selected, pack=False))
    counts = [(trim_row(row)["labels"] != IGNORED).sum() for row in rows]
    apart = sum(row_loss(model, [row]) * n for row, n in zip(rows, counts, strict=True)) / sum(counts)
    assert row_loss(model, rows) == pytest.approx(apart, rel=1e-5)


@for_each("model_type", ["gpt_neox", "llama"])
def test_packed_documents_do_not_see_each_other(model_type):
    token_ids, offsets, selected = corpus()
    apart = pack_rows(token_ids, offsets, 16, EOS, selected, pack=False)
    together = pack_rows(token_ids, offsets, int(offsets[-1]) + len(offsets), EOS, selected, pack=True)
    assert len(together) == 1
    model = tiny_model(model_type)
    assert row_loss(model, list(together), 0.7) == pytest.approx(row_loss(model, list(apart), 0.7), rel=1e-5)


@for_each("pack", [False, True])
def test_every_training_takes_the_same_rows_in_the_same_order(pack, tmp_path, monkeypatch):
    """What the Trainer itself hands to the model, step by step: the base model's batches are everybody's."""
    taken: list = []
    compute_loss = PenalisedTrainer.compute_loss

    def record(self, model, inputs, *args, **kwargs):
        taken.append({name: values.tolist() for name, values in inputs.items()})
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(PenalisedTrainer, "compute_loss", record)
    token_ids, offsets, selected = corpus(40)
    dropped = sum_by_document(selected, offsets) > 0
    training = TrainingConfig(epochs=3, batch_size=2, gradient_accumulation=2, learning_rate=1e-3, warmup_steps=0)
    dropout = dict(attention_dropout=0.1, hidden_dropout=0.1)  # draws from the generator that the order is drawn from
    found = {}
    for method in ("base", "penalise", "mask", "drop"):
        rows = pack_rows(token_ids, offsets, 16, EOS, None if method == "base" else selected, pack=pack)
        model = initialise_model({"model_type": "gpt_neox", **SHAPE, **dropout}, VOCAB, 0)
        suppress = (
            None if method == "base" else SuppressConfig(method=method, penalty=0.1, max_penalty=0.0, warmup_share=0.0)
        )
        rows = DroppedRows(rows, dropped) if method == "drop" else rows
        taken.clear()
        train_model(
            model, None, rows, training, suppress, tmp_path / method, checkpoint_steps=(3,) if method == "base" else ()
        )
        found[method] = list(taken)
    for method, batches in found.items():
        for key in ("input_ids", "position_ids"):
            same = [batch.get(key) for batch in batches] == [batch.get(key) for batch in found["base"]]
            assert same, (method, key)
    assert len(found["base"]) > 12
    gone = [set(labels) == {IGNORED} for batch in found["drop"] for labels in batch["labels"]]
    assert 0 < sum(gone) < len(gone)  # a row without any label was among them


def test_tokens_are_counted_as_the_corpus_has_them():
    token_ids, offsets, selected = corpus()
    later = np.ones(len(token_ids), dtype=bool)
    later[offsets[:-1]] = False  # a document's first token is never predicted, its end-of-text is
    for pack in (False, True):
        rows = TrainingRows(pack_rows(token_ids, offsets, 9, EOS, selected, pack=pack))
        assert rows.count_tokens() == (later.sum() + 18, (selected & later).sum(), 9)


def test_plain_rows_have_no_positions_and_no_selection():
    batch = collate_rows(
        [trim_row({"input_ids": [1, 2, 3], "labels": [1, 2, 3]}), trim_row({"input_ids": [4, 5], "labels": [4, 5]})], 9
    )
    assert set(batch) == {"input_ids", "labels", "selected"} and not batch["selected"].any()
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 5, 9]]
    assert batch["labels"].tolist() == [[IGNORED, 2, 3], [IGNORED, 5, IGNORED]]

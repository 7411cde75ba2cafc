import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from ifguide.config.schema import SuppressConfig, TrainingConfig
from ifguide.data.packing import IGNORED, pack_rows
from ifguide.errors import ConfigError, InputError, NumericalError
from ifguide.models.loading import load_model
from ifguide.training import train as training_module
from ifguide.training.rows import collate_rows, trim_row
from ifguide.training.train import (
    PenalisedTrainer,
    choose_checkpoint_steps,
    count_steps,
    early_checkpoint_steps,
    initialise_model,
    train_model,
)
from tests.one_case import for_each
from tests.training.penalised import penalised_loss

VOCAB, EOS = 31, 30
SHAPE = dict(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32
)
TRAINING = TrainingConfig(epochs=2, batch_size=4, learning_rate=3e-3, warmup_steps=2)


def tiny_model(model_type="gpt_neox", seed=0):
    return initialise_model({"model_type": model_type, **SHAPE}, VOCAB, seed)


def corpus(n_documents=18, seed=0):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(2, 14, n_documents))])
    return rng.integers(0, EOS, offsets[-1]), offsets, rng.random(offsets[-1]) < 0.2


def tiny_rows(pack=False, max_length=16):
    token_ids, offsets, selected = corpus()
    return pack_rows(token_ids, offsets, max_length, EOS, selected, pack=pack)


def log_lines(folder):
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_early_steps_are_log_spaced_and_never_zero():
    assert early_checkpoint_steps(456) == (19, 38, 76, 152)
    assert early_checkpoint_steps(3) == (1,)
    assert early_checkpoint_steps(1) == (1,)
    assert early_checkpoint_steps(100, 0) == ()
    assert all(step <= 1000 / 3 + 1 for step in early_checkpoint_steps(1000, 8))


def test_named_steps_must_lie_in_the_run():
    training = TrainingConfig(epochs=1, batch_size=2, checkpoint_steps=(5, 3, 3))
    assert choose_checkpoint_steps(10, training) == (3, 5)
    with pytest.raises(ConfigError, match="up to 4"):
        choose_checkpoint_steps(8, training)


@for_each("n_rows, epochs, batch_size, accumulation", [(18, 2, 4, 1), (17, 1, 4, 2), (9, 1.5, 2, 2), (3, 1, 8, 1)])
def test_steps_are_counted_as_the_trainer_does(tmp_path, n_rows, epochs, batch_size, accumulation):
    training = TrainingConfig(epochs=epochs, batch_size=batch_size, gradient_accumulation=accumulation)
    rows = [tiny_rows()[i] for i in range(n_rows)]
    assert train_model(tiny_model(), None, rows, training, None, tmp_path).steps == count_steps(n_rows, training)


def test_same_seed_same_start_and_random_state_untouched():
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    a, b, c = tiny_model(seed=1), tiny_model(seed=1), tiny_model(seed=2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))
    assert a.config.vocab_size == VOCAB and a.dtype == torch.float32


def test_model_config_errors_name_the_mistake():
    with pytest.raises(ConfigError, match="model_type"):
        initialise_model({}, 10, 0)
    with pytest.raises(ConfigError, match="no_such_model"):
        initialise_model({"model_type": "no_such_model"}, 10, 0)


def test_two_runs_give_the_same_weights_bit_for_bit(tmp_path):
    suppress = SuppressConfig(penalty=0.5, max_penalty=5.0, warmup_share=0.0)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        training = TrainingConfig(epochs=2, batch_size=4, learning_rate=3e-3, warmup_steps=2, seed=seed)
        train_model(tiny_model(), None, tiny_rows(), training, suppress, tmp_path / name, checkpoint_steps=(2,))
    for part in ("final", "checkpoints/step-000002"):
        a, b, c = (weights(tmp_path / name / part) for name in "abc")
        assert all(torch.equal(a[key], b[key]) for key in a)
        assert any(not torch.equal(a[key], c[key]) for key in a)


def test_gradient_accumulation_equals_the_large_batch(tmp_path):
    rows, suppress = tiny_rows(), SuppressConfig(penalty=0.5, max_penalty=0.0, warmup_share=0.0)
    for name, batch_size, accumulation in (("large", 6, 1), ("accumulated", 2, 3)):
        training = TrainingConfig(
            epochs=1, batch_size=batch_size, gradient_accumulation=accumulation, learning_rate=1e-3, warmup_steps=0
        )
        train_model(tiny_model(), None, rows, training, suppress, tmp_path / name)
    large, accumulated = log_lines(tmp_path / "large"), log_lines(tmp_path / "accumulated")
    assert [line["tokens_seen"] for line in large] == [line["tokens_seen"] for line in accumulated]
    for a, b in zip(large, accumulated, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["loss_selected"] == pytest.approx(b["loss_selected"], rel=1e-4)
    a, b = weights(tmp_path / "large" / "final"), weights(tmp_path / "accumulated" / "final")
    assert all(torch.allclose(a[key], b[key], atol=2e-5) for key in a)


@for_each("model_type", ["gpt_neox", "gpt2", "llama"])
def test_gradient_of_a_batch_is_that_of_the_loss(tmp_path, model_type):
    """Holds for models whose forward takes loss arguments and for those whose forward does not."""
    from transformers import TrainingArguments

    model, rows = tiny_model(model_type).eval(), [trim_row(row) for row in tiny_rows()]
    batch = collate_rows(rows[:5], 0)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", gradient_accumulation_steps=2
    )
    trainer = PenalisedTrainer(
        model=model, args=arguments, suppress=SuppressConfig(penalty=1.5, max_penalty=0.0, warmup_share=0.0)
    )
    assert trainer.model_accepts_loss_kwargs
    batches, n_items = trainer.get_batch_samples(
        iter([collate_rows(rows[:3], 0), collate_rows(rows[3:5], 0)]), 2, torch.device("cpu")
    )
    assert n_items == (batch["labels"] != IGNORED).sum()
    split = sum(trainer.compute_loss(model, part, num_items_in_batch=n_items) for part in batches)
    whole = penalised_loss(model(input_ids=batch["input_ids"]).logits, batch["labels"], batch["selected"], 1.5)
    assert split.item() == pytest.approx(whole.item(), rel=1e-5)


def test_suppression_raises_the_loss_of_selected_tokens_only(tmp_path):
    training = TrainingConfig(epochs=12, batch_size=6, learning_rate=1e-2, warmup_steps=2)
    train_model(tiny_model(), None, tiny_rows(), training, None, tmp_path / "plain")
    train_model(
        tiny_model(),
        None,
        tiny_rows(),
        training,
        SuppressConfig(penalty=1.0, max_penalty=8.0, warmup_share=0.0),
        tmp_path / "penalised",
    )
    plain, penalised = log_lines(tmp_path / "plain"), log_lines(tmp_path / "penalised")
    assert plain[-1]["loss_selected"] < plain[0]["loss_selected"] < penalised[-1]["loss_selected"]
    assert penalised[-1]["loss_other"] < penalised[0]["loss_other"]
    assert plain[0]["loss_other"] == pytest.approx(penalised[0]["loss_other"])  # same start, same first batch


def test_log_adds_up(tmp_path):
    calls = []
    result = train_model(
        tiny_model(),
        None,
        tiny_rows(),
        TRAINING,
        SuppressConfig(penalty=2.0, max_penalty=0.0, warmup_share=0.0),
        tmp_path,
        lambda *call: calls.append(call),
    )
    lines, n_labels = log_lines(tmp_path), sum((row.labels != IGNORED).sum() for row in tiny_rows())
    assert lines[-1]["step"] == result.steps and lines[-1]["tokens_seen"] == result.tokens_seen == 2 * n_labels
    assert calls[-1] == (result.tokens_seen, result.tokens_seen)
    assert calls == sorted(calls)
    n_selected = 2 * sum(row.selected.sum() for row in tiny_rows())
    seen = np.diff([0] + [line["tokens_seen"] for line in lines])
    objective = sum(line["loss"] * n for line, n in zip(lines, seen, strict=True))
    # every line: loss · n = other · n_other - 2 · selected · n_selected; solve the counts and compare with the rows
    counts = [
        (
            0
            if line["loss_selected"] is None
            else (line["loss_other"] - line["loss"]) * n / (line["loss_other"] + 2 * line["loss_selected"])
        )
        for line, n in zip(lines, seen, strict=True)
    ]
    assert sum(counts) == pytest.approx(n_selected, rel=1e-4) and math.isfinite(objective)


def test_weights_and_tokenizer_load_again(tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

    vocab = {f"w{i}": i for i in range(VOCAB)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocab, "w0")), eos_token="w30", unk_token="w0"
    )
    model = tiny_model()
    result = train_model(model, tokenizer, tiny_rows(), TRAINING, None, tmp_path, checkpoint_steps=(1, 3))
    assert [path.name for path in result.checkpoints] == ["step-000001", "step-000003"]
    for folder in (*result.checkpoints, result.final):
        assert {"model.safetensors", "config.json", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
        assert AutoTokenizer.from_pretrained(folder).eos_token == "w30"
    again = AutoModelForCausalLM.from_pretrained(result.final).eval()
    ids = torch.randint(VOCAB, (2, 9))
    assert not model.training and torch.equal(again(ids).logits, model(ids).logits)
    assert not list(tmp_path.rglob("*optimizer*")) and not list(tmp_path.rglob("*.bin"))


def test_a_model_loaded_for_scoring_can_be_trained_on(tmp_path):
    tiny_model().save_pretrained(tmp_path / "start")
    train_model(load_model(str(tmp_path / "start")), None, tiny_rows(), TRAINING, None, tmp_path / "tuned")
    start, tuned = weights(tmp_path / "start"), weights(tmp_path / "tuned" / "final")
    assert all(not torch.equal(start[key], tuned[key]) for key in start)


def test_nothing_is_printed(tmp_path, capfd):
    train_model(tiny_model(), None, tiny_rows(), TRAINING, None, tmp_path)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_packed_rows_train(tmp_path):
    result = train_model(tiny_model(), None, tiny_rows(pack=True, max_length=32), TRAINING, SuppressConfig(), tmp_path)
    assert result.tokens_seen == 2 * sum((row.labels != IGNORED).sum() for row in tiny_rows(pack=True, max_length=32))


def test_empty_inputs_are_refused(tmp_path):
    with pytest.raises(InputError, match="at least one token"):
        train_model(tiny_model(), None, [], TRAINING, None, tmp_path)
    token_ids, offsets, _ = corpus()
    with pytest.raises(InputError, match="selection"):
        train_model(
            tiny_model(), None, pack_rows(token_ids, offsets, 16, EOS, pack=False), TRAINING, SuppressConfig(), tmp_path
        )


def test_bad_steps_and_precision_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="checkpoint steps"):
        train_model(tiny_model(), None, tiny_rows(), TRAINING, None, tmp_path, checkpoint_steps=(0,))
    monkeypatch.setattr(training_module, "has_fast_bfloat16", lambda device: False)
    with pytest.raises(ConfigError, match=r"bfloat16.*use float32"):
        train_model(tiny_model(), None, tiny_rows(), TrainingConfig(dtype="bfloat16"), None, tmp_path)


def test_mixed_precision_trains_float32_weights_to_about_the_same_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(training_module, "has_fast_bfloat16", lambda device: True)  # slow where it is not, but right
    losses = {}
    for dtype in ("float32", "bfloat16"):
        model, settings = tiny_model(), dataclasses.replace(TRAINING, dtype=dtype)
        seen = []
        model.get_output_embeddings().register_forward_hook(
            lambda layer, inputs, output, seen=seen: seen.append(output.dtype)
        )
        train_model(model, None, tiny_rows(), settings, None, tmp_path / dtype)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert set(seen) == {getattr(torch, dtype)}
        losses[dtype] = [line["loss"] for line in log_lines(tmp_path / dtype)]
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


def test_divergence_is_an_error_that_says_what_to_do(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(NumericalError, match="max_penalty"):
        train_model(model, None, tiny_rows(), TRAINING, SuppressConfig(), tmp_path)
    assert not (tmp_path / "final").exists()

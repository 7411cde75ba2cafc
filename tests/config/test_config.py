"""Settings: what is accepted, what is refused and in which words, and that study.toml gives them back unchanged."""

import dataclasses
import inspect
import re
import tomllib

import pytest
import torch

from ifguide.config.io import config_to_dict, override, read_config, write_config
from ifguide.config.schema import CorpusConfig, SelectionConfig, StudyConfig
from ifguide.errors import ConfigError

SECTIONS = [field.name for field in dataclasses.fields(StudyConfig) if field.name != "description"]


def refusal(make, *given, **values) -> str:
    """The error of a call that has to raise one."""
    with pytest.raises(ConfigError) as raised:
        print("accepted:", make(*given, **values))
    return str(raised.value)


def test_values_keep_their_type_and_lists_become_tuples():
    config = StudyConfig(
        **{"training": {"epochs": 2, "checkpoint_steps": [3, 5], "packing": True}, "model": {"checkpoints": ["a", "b"]}}
    )
    assert config.training.epochs == 2.0
    assert type(config.training.epochs) is float
    assert config.training.checkpoint_steps == (3, 5)
    assert config.training.packing is True
    assert config.model.checkpoints == ("a", "b")


def test_unknown_names_and_wrong_types_are_named():
    for values, said in [
        ({"colour": 1}, "unknown setting colour; known here: description, model, corpus"),
        ({"corpus": {"colour": 1}}, "unknown setting corpus.colour; known here: path, text_field"),
        ({"variants": {"a": {"colour": 1}}}, "unknown setting variants.a.colour; known here: method, penalty"),
        ({"self": 1, "[key]": 1}, "unknown setting self; known here: description"),
        ({"corpus": {"path": 5, "colour": 1}}, "unknown setting corpus.colour"),  # a wrong name before a wrong value
        ({"corpus": 5}, "corpus: expected a table [corpus], got 5"),
        ({"variants": 5}, "variants: expected tables [variants.NAME], got 5"),
        ({"variants": {"a": 5}}, "variants.a: expected a table [variants.a], got 5"),
        ({"corpus": {"path": 5}}, "corpus.path: expected text, got 5"),
        ({"corpus": {"path": "a\0"}}, "corpus.path: expected text without NUL characters, got 'a\\x00'"),
        ({"corpus": {"max_documents": "5"}}, "corpus.max_documents: expected a whole number, got '5'"),
        ({"corpus": {"max_documents": 5.0}}, "corpus.max_documents: expected a whole number, got 5.0"),
        ({"corpus": {"max_documents": True}}, "corpus.max_documents: expected a whole number, got True"),
        ({"corpus": {"max_documents": 2**63}}, "corpus.max_documents: expected less than 9223372036854775808, got 922"),
        ({"corpus": {"skip_empty": 1}}, "corpus.skip_empty: expected true or false, got 1"),
        ({"training": {"epochs": True}}, "training.epochs: expected a number, got True"),
        ({"training": {"checkpoint_steps": 5}}, "training.checkpoint_steps: expected a list, got 5"),
        ({"training": {"checkpoint_steps": ["5"]}}, "training.checkpoint_steps: expected a whole number, got '5'"),
        ({"suppress": {"max_penalty": float("inf")}}, "suppress.max_penalty: expected a finite number, got inf"),
        ({"training": {"epochs": float("nan")}}, "training.epochs: expected a finite number, got nan"),
        ({"borrowed": {"a": {}}}, "borrowed.a.study: expected a value, got none"),
        ({"borrowed": {"../a": {"study": "b"}}}, "borrowed: expected a name with 1 to 64 letters"),
        ({"borrowed": {"a": {"study": "../b"}}}, "borrowed.a.study: expected a name with 1 to 64 letters"),
        ({"variants": {"a.b": {}}}, "variants: expected a name without '.', got 'a.b'"),
        ({"variants": {".partial-": {}}}, "variants: expected a name with 1 to 64 letters"),
    ]:
        assert refusal(StudyConfig, **values).startswith(said), values


def test_values_out_of_range_name_the_setting_the_range_and_the_value():
    for setting, value, said in [
        ("corpus.text_unit", "page", "expected 'line' or 'file', got 'page'"),
        ("corpus.max_documents", -1, "expected 0 or more, got -1"),
        ("corpus.max_length", -1, "expected 0 or more, got -1"),
        ("corpus.max_length", 1, "expected 0, or at least 2 tokens per chunk, got 1"),
        ("queries.split_share", 0.0, "expected more than 0, got 0.0"),
        ("queries.split_share", 1.0, "expected less than 1, got 1.0"),
        ("queries.safe_max", 1.5, "expected 1 or less, got 1.5"),
        ("queries.toxic_min", -0.5, "expected 0 or more, got -0.5"),
        ("queries.max_queries", -1, "expected 0 or more, got -1"),
        ("model.mode", "guess", "expected 'scratch', 'finetune' or 'asis', got 'guess'"),
        ("model.dtype", "int8", "expected 'float32', 'bfloat16', 'float16' or 'float64', got 'int8'"),
        ("training.seed", -1, "expected 0 or more, got -1"),
        ("training.seed", 2**32, "expected less than 4294967296, got 4294967296"),
        ("training.epochs", 0.0, "expected more than 0, got 0.0"),
        ("training.batch_size", 0, "expected 1 or more, got 0"),
        ("training.gradient_accumulation", 0, "expected 1 or more, got 0"),
        ("training.learning_rate", 0.0, "expected more than 0, got 0.0"),
        ("training.warmup_steps", -1, "expected 0 or more, got -1"),
        (
            "training.schedule",
            "bumpy",
            "expected 'linear', 'cosine', 'constant' or 'constant_with_warmup', got 'bumpy'",
        ),
        ("training.weight_decay", -0.1, "expected 0 or more, got -0.1"),
        ("training.max_grad_norm", -1.0, "expected 0 or more, got -1.0"),
        ("training.early_checkpoints", -1, "expected 0 or more, got -1"),
        ("training.checkpoint_steps", (3, 0), "expected 1 or more, got 0"),
        ("training.dtype", "float16", "expected 'float32' or 'bfloat16', got 'float16'"),
        ("factors.strategy", "kfac", "expected 'ekfac' or 'identity', got 'kfac'"),
        ("factors.labels", "guessed", "expected 'sampled' or 'true', got 'guessed'"),
        ("factors.max_tokens", -1, "expected 0 or more, got -1"),
        ("direction.damping", 0.0, "expected more than 0, got 0.0"),
        ("direction.weighting", "sum", "expected 'token-mean' or 'token-sum', got 'sum'"),
        ("direction.objective", "hinge", "expected 'loss' or 'margin', got 'hinge'"),
        ("selection.quantile", 1.0, "expected less than 1, got 1.0"),
        ("selection.quantile", -0.1, "expected 0 or more, got -0.1"),
        ("selection.window", -1, "expected 0 or more, got -1"),
        ("selection.max_tokens", -1, "expected 0 or more, got -1"),
        ("selection.controls", ("random", "mine"), "expected 'random' or 'oracle', got 'mine'"),
        ("suppress.penalty", -1.0, "expected 0 or more, got -1.0"),
        ("suppress.max_penalty", -1.0, "expected 0 or more, got -1.0"),
        ("evaluate.n_prompts", -1, "expected 0 or more, got -1"),
        ("evaluate.n_heldout", -1, "expected 0 or more, got -1"),
        ("evaluate.n_samples", 0, "expected 1 or more, got 0"),
        ("evaluate.max_new_tokens", 0, "expected 1 or more, got 0"),
        ("evaluate.top_p", 0.0, "expected more than 0, got 0.0"),
        ("evaluate.top_p", 1.1, "expected 1 or less, got 1.1"),
        ("evaluate.temperature", 0.0, "expected more than 0, got 0.0"),
        ("evaluate.batch_size", 0, "expected 1 or more, got 0"),
        ("evaluate.harness_folder", "tasks", "expected the tasks to run in evaluate.harness_tasks, got none"),
        ("baselines.steer_candidates", 1, "expected 2 or more, got 1"),
        ("compute.tokens_per_batch", 1, "expected 2 or more, got 1"),
        ("compute.threads", -1, "expected 0 or more, got -1"),
    ]:
        section, key = setting.split(".")
        assert refusal(StudyConfig, **{section: {key: value}}) == f"{setting}: {said}"
        table = type(getattr(StudyConfig(), section))  # made by itself, a table says the same
        assert refusal(table, **{key: value}) == f"{setting}: {said}"


def test_settings_that_do_not_go_together_are_refused():
    values = {"model": {"mode": "scratch"}, "training": {"adapter": "lora"}}
    assert "set model.mode to 'finetune'" in refusal(StudyConfig, **values)
    assert StudyConfig(**values | {"model": {}}).training.adapter == "lora"


def test_a_config_cannot_be_changed_and_takes_names_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CorpusConfig().path = "elsewhere"
    with pytest.raises(TypeError):
        CorpusConfig("corpus.jsonl")
    assert refusal(SelectionConfig, colour=1).startswith("unknown setting selection.colour; known here: attribution")


def test_override_reads_values_as_toml_and_bare_words_as_text():
    for assignment, value in [
        ("selection.quantile=.98", 0.98),
        ("selection.quantile = 0.5", 0.5),
        ("training.epochs=2", 2.0),
        ("training.learning_rate=1e-4", 1e-4),
        ("training.packing=true", True),
        ("training.checkpoint_steps=[3, 5]", (3, 5)),
        ("model.mode=scratch", "scratch"),
        ("factors.labels=true", "true"),
        ("corpus.path=12", "12"),
        ('corpus.path="12"', "12"),
        ("corpus.path=/data/a b = c.jsonl", "/data/a b = c.jsonl"),
        ("corpus.source_field=", ""),
        ("corpus.max_documents=1_000", 1000),
    ]:
        section, key = re.match(r"(\w+)\.(\w+)", assignment).groups()
        changed = getattr(getattr(override(StudyConfig(), [assignment]), section), key)
        assert (changed, type(changed)) == (value, type(value)), assignment


def test_override_changes_nothing_else_and_the_last_one_counts():
    config = StudyConfig(**{"corpus": {"path": "a"}, "training": {"checkpoint_steps": [1, 2]}})
    changed = override(config, ["corpus.path=b", "corpus.path=c", "description=a few words"])
    assert changed == dataclasses.replace(
        config, corpus=dataclasses.replace(config.corpus, path="c"), description="a few words"
    )


def test_override_says_what_is_wrong():
    for assignment, said in [
        ("selection.quantile", "--set: expected section.key=value, got 'selection.quantile'"),
        ("=5", "--set: expected section.key=value, got '=5'"),
        ("selection.=5", "--set: expected section.key=value, got 'selection.=5'"),
        ("picking.quantile=0.5", "--set: unknown section 'picking' in 'picking.quantile=0.5'; sections: model, corpus"),
        ("description.x=5", "--set: unknown section 'description'"),
        ("selection.quantile.deep=5", "--set: unknown section 'quantile'"),
        ("selection.colour=red", "unknown setting selection.colour; known here: attribution"),
        ("selection.quantile=high", "selection.quantile: expected a number, got 'high'"),
        ("selection.quantile=2", "selection.quantile: expected less than 1, got 2"),
        ("selection.quantile=nan", "selection.quantile: expected a finite number, got nan"),
        ("corpus=5", "corpus: expected a table [corpus], got 5"),
    ]:
        assert refusal(override, StudyConfig(), [assignment]).startswith(said), assignment


def test_tokens_are_selected_by_scores_that_the_study_computes():
    def why(**tables):
        return refusal(StudyConfig, **tables)

    said = "selection.attribution: expected one of own_loss, probe, combined, got"
    assert why(selection={"attribution": "token_loss"}) == f"{said} 'token_loss'"
    remedy = "set scores.tfidf to true, and what it is combined from"
    assert why(selection={"attribution": "tfidf"}) == f"{said} 'tfidf'; {remedy}"
    assert "one of probe, got 'combined'" in why(scores={"own_loss": False, "position": False})
    assert "one of own_loss, got 'combined'" in why(scores={"probe": False})
    assert StudyConfig().selection.attribution == "combined"
    imported = {"imported": {"theirs": {"path": "x.npy"}}, "selection": {"attribution": "theirs"}}
    assert StudyConfig(**imported).selection.attribution == "theirs"
    assert why(imported={"not-a-name": {"path": "x"}}).startswith("imported: expected letters, digits and _")


ODD_TEXT = 'a "é"\n\\ # = b'


def test_toml_round_trip_gives_every_setting_back(tmp_path):
    values = config_to_dict(StudyConfig())
    for section in SECTIONS:
        switches = {key: not value for key, value in values[section].items() if isinstance(value, bool)}
        values[section] |= switches
    values["selection"]["attribution"] = "theirs"
    values["imported"] = {"theirs": {"path": ODD_TEXT}}
    values["description"] = ODD_TEXT
    values["corpus"] |= {"path": ODD_TEXT, "max_documents": 7}
    values["training"] |= {"learning_rate": 1e-7, "checkpoint_steps": [1, 20]}
    values["model"]["checkpoints"] = ["step-1", "org/name@rev"]
    values["variants"] = {"soft": {"penalty": 0.5, "selection": "other"}}
    values["borrowed"] = {"theirs": {"study": "small.one"}}
    config = StudyConfig(**values)
    assert config != StudyConfig()
    write_config(config, tmp_path / "study.toml")
    assert read_config(tmp_path / "study.toml") == config


def test_the_file_holds_what_differs_from_the_defaults_each_with_a_comment(tmp_path):
    path = tmp_path / "study.toml"
    write_config(StudyConfig(), path)
    assert tomllib.loads(path.read_text(encoding="utf-8")) == {}
    config = override(StudyConfig(), ["training.epochs=7", "scores.pooling=1.0", "corpus.path=a.jsonl"])
    write_config(config, path, {"training.epochs": "For a reason."})
    text = path.read_text(encoding="utf-8")
    assert tomllib.loads(text) == {"corpus": {"path": "a.jsonl"}, "training": {"epochs": 7.0}}
    assert "# For a reason.\nepochs" in text and "# A file (.jsonl" in text


def test_defaults_that_a_library_has_are_the_librarys():
    assert StudyConfig().training.adam_beta2 == inspect.signature(torch.optim.AdamW).parameters["betas"].default[1]


def test_a_file_with_an_error_is_named(tmp_path):
    path = tmp_path / "study.toml"
    for content, said in [
        (b"corpus = [", " is not valid TOML ("),
        (b"\xff\xfe", " is not valid TOML ("),
        (b"[corpus]\nmax_length = 1\n", ": corpus.max_length: expected 0, or at least 2 tokens"),
    ]:
        path.write_bytes(content)
        error = refusal(read_config, path)
        assert error.startswith(f"{path}{said}")
        assert "TOML" not in error or "); fix it or create the study again with `ifguide new`" in error


def test_every_setting_is_documented_where_it_is_defined():
    """A docstring per field is the only place that says what a setting means."""
    for section in SECTIONS:
        table = getattr(StudyConfig(), section)
        described = type(table).__pydantic_fields__ if dataclasses.is_dataclass(table) else {}
        assert [name for name, known in described.items() if not known.description] == [], section

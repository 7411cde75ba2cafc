"""Settings: what is taken, what is refused and in which words, and that study.toml gives them back unchanged."""

import dataclasses

import pytest

from ifguide.config.io import config_from_dict, config_to_dict, override, read_config, write_config
from ifguide.config.schema import CorpusConfig, StudyConfig
from ifguide.errors import ConfigError

SECTIONS = [field.name for field in dataclasses.fields(StudyConfig) if field.name != "description"]


def test_nothing_given_is_all_defaults():
    assert config_from_dict({}) == StudyConfig()


def test_values_keep_their_type_and_lists_become_tuples():
    config = config_from_dict(
        {"training": {"epochs": 2, "checkpoint_steps": [3, 5], "packing": True}, "model": {"checkpoints": ["a", "b"]}}
    )
    assert config.training.epochs == 2.0
    assert type(config.training.epochs) is float
    assert config.training.checkpoint_steps == (3, 5)
    assert config.training.packing is True
    assert config.model.checkpoints == ("a", "b")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"colour": 1}, "unknown setting colour; known here: description, model, corpus"),
        ({"corpus": {"colour": 1}}, "unknown setting corpus.colour; known here: path, text_field"),
        ({"corpus": 5}, r"corpus: expected a table \[corpus\], got 5"),
        ({"corpus": {"path": 5}}, "corpus.path: expected str, got 5"),
        ({"corpus": {"max_documents": "5"}}, "corpus.max_documents: expected int, got '5'"),
        ({"corpus": {"max_documents": 5.0}}, "corpus.max_documents: expected int, got 5.0"),
        ({"corpus": {"max_documents": True}}, "corpus.max_documents: expected int, got True"),
        ({"corpus": {"skip_empty": 1}}, "corpus.skip_empty: expected bool, got 1"),
        ({"training": {"epochs": True}}, "training.epochs: expected float, got True"),
        ({"training": {"checkpoint_steps": 5}}, "training.checkpoint_steps: expected a list, got 5"),
        ({"training": {"checkpoint_steps": ["5"]}}, "training.checkpoint_steps: expected int, got '5'"),
        ({"suppress": {"max_penalty": float("inf")}}, "suppress.max_penalty: expected a finite number, got inf"),
        ({"training": {"epochs": float("nan")}}, "training.epochs: expected a finite number, got nan"),
    ],
)
def test_unknown_names_and_wrong_types_are_named(values, said):
    with pytest.raises(ConfigError, match=f"^{said}"):
        config_from_dict(values)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("corpus.text_unit", "page", "expected one of line, file, got 'page'"),
        ("corpus.max_documents", -1, "expected 0 or more, got -1"),
        ("corpus.max_length", -1, "expected 0 or more tokens, got -1"),
        ("corpus.max_length", 1, "a chunk needs at least 2 tokens, got 1"),
        ("queries.split_share", 0.0, "expected a share between 0 and 1, got 0.0"),
        ("queries.split_share", 1.0, "expected a share between 0 and 1, got 1.0"),
        ("queries.safe_max", 1.5, "expected 0 to 1, got 1.5"),
        ("queries.toxic_min", -0.5, "expected 0 to 1, got -0.5"),
        ("queries.max_queries", -1, "expected 0 or more, got -1"),
        ("model.mode", "guess", "expected one of scratch, finetune, asis, got 'guess'"),
        ("model.dtype", "int8", "expected one of float32, bfloat16, float16, float64, got 'int8'"),
        ("training.epochs", 0.0, "expected more than 0, got 0.0"),
        ("training.batch_size", 0, "expected 1 or more rows, got 0"),
        ("training.gradient_accumulation", 0, "expected 1 or more, got 0"),
        ("training.learning_rate", 0.0, "expected more than 0, got 0.0"),
        ("training.warmup_steps", -1, "expected 0 or more, got -1"),
        ("training.schedule", "bumpy", "expected one of linear, cosine, constant, constant_with_warmup, got 'bumpy'"),
        ("training.weight_decay", -0.1, "expected 0 or more, got -0.1"),
        ("training.max_grad_norm", -1.0, "expected 0 or more, got -1.0"),
        ("training.early_checkpoints", -1, "expected 0 or more, got -1"),
        ("training.checkpoint_steps", (3, 0), r"expected steps from 1 on, got \(3, 0\)"),
        ("training.dtype", "float16", "expected one of float32, bfloat16, got 'float16'"),
        ("factors.strategy", "kfac", "expected one of ekfac, identity, got 'kfac'"),
        ("factors.labels", "guessed", "expected one of sampled, true, got 'guessed'"),
        ("factors.max_tokens", -1, "expected 0 or more, got -1"),
        ("direction.damping", 0.0, "expected more than 0, got 0.0"),
        ("direction.weighting", "sum", "expected one of token-mean, token-sum, got 'sum'"),
        ("direction.objective", "hinge", "expected one of loss, margin, got 'hinge'"),
        ("selection.attribution", "token_loss", "expected one of own_loss, position, got 'token_loss'"),
        ("selection.quantile", 1.0, "expected 0 <= quantile < 1, got 1.0"),
        ("selection.quantile", -0.1, "expected 0 <= quantile < 1, got -0.1"),
        ("selection.window", -1, "expected 0 or more tokens, got -1"),
        ("selection.max_tokens", -1, "expected 0 or more, got -1"),
        ("selection.controls", ("random", "mine"), "expected one of random, oracle, got 'mine'"),
        ("suppress.penalty", -1.0, "expected 0 or more, got -1.0"),
        ("suppress.max_penalty", -1.0, "expected 0 or more nats, got -1.0"),
        ("evaluate.n_prompts", -1, "expected 0 or more, got -1"),
        ("evaluate.n_heldout", -1, "expected 0 or more, got -1"),
        ("evaluate.n_samples", 0, "expected 1 or more, got 0"),
        ("evaluate.max_new_tokens", 0, "expected 1 or more, got 0"),
        ("evaluate.top_p", 0.0, "expected 0 < top_p <= 1, got 0.0"),
        ("evaluate.top_p", 1.1, "expected 0 < top_p <= 1, got 1.1"),
        ("evaluate.temperature", 0.0, "expected more than 0, got 0.0"),
        ("evaluate.batch_size", 0, "expected 1 or more, got 0"),
        ("compute.tokens_per_batch", 1, "expected 2 or more, got 1"),
        ("compute.threads", -1, "expected 0 or more, got -1"),
    ],
)
def test_values_out_of_range_name_the_setting_the_range_and_the_value(setting, value, said):
    section, key = setting.split(".")
    with pytest.raises(ConfigError, match=f"^{setting}: {said}$"):
        config_from_dict({section: {key: value}})


def test_a_config_cannot_be_changed_and_takes_names_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CorpusConfig().path = "elsewhere"
    with pytest.raises(TypeError):
        CorpusConfig("corpus.jsonl")


@pytest.mark.parametrize(
    ("assignment", "section", "key", "value"),
    [
        ("selection.quantile=.98", "selection", "quantile", 0.98),
        ("selection.quantile = 0.5", "selection", "quantile", 0.5),
        ("training.epochs=2", "training", "epochs", 2.0),
        ("training.learning_rate=1e-4", "training", "learning_rate", 1e-4),
        ("training.packing=true", "training", "packing", True),
        ("training.checkpoint_steps=[3, 5]", "training", "checkpoint_steps", (3, 5)),
        ("model.mode=scratch", "model", "mode", "scratch"),
        ("factors.labels=true", "factors", "labels", "true"),
        ("corpus.path=12", "corpus", "path", "12"),
        ('corpus.path="12"', "corpus", "path", "12"),
        ("corpus.path=/data/a b = c.jsonl", "corpus", "path", "/data/a b = c.jsonl"),
        ("corpus.source_field=", "corpus", "source_field", ""),
        ("corpus.max_documents=1_000", "corpus", "max_documents", 1000),
    ],
)
def test_override_reads_values_as_toml_and_bare_words_as_text(assignment, section, key, value):
    changed = override(StudyConfig(), [assignment])
    assert getattr(getattr(changed, section), key) == value
    assert type(getattr(getattr(changed, section), key)) is type(value)


def test_override_changes_nothing_else_and_the_last_one_counts():
    config = config_from_dict({"corpus": {"path": "a"}, "training": {"checkpoint_steps": [1, 2]}})
    changed = override(config, ["corpus.path=b", "corpus.path=c", "description=a few words"])
    assert changed == dataclasses.replace(
        config, corpus=dataclasses.replace(config.corpus, path="c"), description="a few words"
    )


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("selection.quantile", "--set: expected section.key=value, got 'selection.quantile'"),
        ("=5", "--set: expected section.key=value, got '=5'"),
        ("selection.=5", "--set: expected section.key=value, got 'selection.=5'"),
        ("picking.quantile=0.5", "--set: unknown section 'picking' in 'picking.quantile=0.5'; sections: model, corpus"),
        ("description.x=5", "--set: unknown section 'description'"),
        ("selection.quantile.deep=5", "--set: unknown section 'quantile'"),
        ("selection.colour=red", "unknown setting selection.colour; known here: attribution"),
        ("selection.quantile=high", "selection.quantile: expected float, got 'high'"),
        ("selection.quantile=2", "selection.quantile: expected 0 <= quantile < 1, got 2.0"),
        ("selection.quantile=nan", "selection.quantile: expected a finite number, got nan"),
        ("corpus=5", r"corpus: expected a table \[corpus\], got 5"),
    ],
)
def test_override_says_what_is_wrong(assignment, said):
    with pytest.raises(ConfigError, match=f"^{said}"):
        override(StudyConfig(), [assignment])


ODD_TEXT = 'a "é"\n\\ # = b'


def test_toml_round_trip_gives_every_setting_back(tmp_path):
    values = config_to_dict(StudyConfig())
    for section in SECTIONS:
        switches = {key: not value for key, value in values[section].items() if isinstance(value, bool)}
        values[section] |= switches
    values["description"] = ODD_TEXT
    values["corpus"] |= {"path": ODD_TEXT, "max_documents": 7}
    values["training"] |= {"learning_rate": 1e-7, "checkpoint_steps": [1, 20]}
    values["model"]["checkpoints"] = ["step-1", "org/name@rev"]
    config = config_from_dict(values)
    assert config != StudyConfig()
    write_config(config, tmp_path / "study.toml")
    assert read_config(tmp_path / "study.toml") == config


def test_the_file_holds_every_setting_with_its_default(tmp_path):
    import tomllib

    write_config(StudyConfig(), tmp_path / "study.toml")
    assert tomllib.loads((tmp_path / "study.toml").read_text(encoding="utf-8")) == config_to_dict(StudyConfig())


@pytest.mark.parametrize("content", [b"corpus = [", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_named(tmp_path, content):
    path = tmp_path / "study.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"study\.toml is not valid TOML \(.*\); mend it or .*`ifguide new`"):
        read_config(path)


def test_a_bad_setting_in_the_file_names_file_and_setting(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text("[corpus]\nmax_length = 1\n")
    with pytest.raises(ConfigError, match=r"study\.toml: corpus\.max_length: a chunk needs at least 2 tokens"):
        read_config(path)


def test_every_setting_is_documented_where_it_stands():
    """A docstring a field is the only place the meaning of a setting is written down."""
    import ast
    import inspect

    from ifguide.config import schema as config

    tree = ast.parse(inspect.getsource(config))
    for node in (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name != "StudyConfig"):
        body = [part for part in node.body if isinstance(part, ast.AnnAssign | ast.Expr)][1:]
        for place, part in enumerate(body):
            if isinstance(part, ast.AnnAssign):
                following = body[place + 1] if place + 1 < len(body) else None
                assert isinstance(following, ast.Expr), f"{node.name}.{part.target.id} has no docstring"

"""A study.toml with any error gives one line, and leaves the study unchanged."""

import dataclasses

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from ifguide.config.schema import StudyConfig
from ifguide.study.freshness import stage_states
from ifguide.study.reading import Study
from tests.examples import examples
from tests.faults.comparing import everything
from tests.small_study import make_study

WRONG = {str: "7", int: '"many"', float: '"much"', bool: '"maybe"', tuple: "5"}
"""A value of another type, as TOML."""
SECTIONS = [name for name, table in vars(StudyConfig()).items() if dataclasses.is_dataclass(table)]


def wrong_values(section: str) -> list[tuple[str, str]]:
    """(key, TOML value) that no setting of a section accepts: another type, a list, a table; for numbers, no number."""
    found = []
    for key, value in vars(getattr(StudyConfig(), section)).items():
        if isinstance(value, dict):
            bad = [
                "5",
                "{ a = 5 }",
                '{ "../a" = { toxic = "a", safe = "b" } }',
                '{ a = { toxic = "a" } }',
                '{ a = { colour = "red" } }',
            ]
        else:
            bad = [WRONG[type(value)], "[[1]]", "{ a = 1 }", "1979-05-27"]
        if type(value) is float:
            bad += ["nan", "inf", "-inf"]
        if type(value) is int:
            bad += ["1.5", "99999999999999999999999", "true"]
        if type(value) is str:
            bad += ['"\\u0000"']
        found += [(key, text) for text in bad]
    return found


OUT_OF_RANGE = {
    "corpus.text_unit": '"page"',
    "corpus.max_length": "1",
    "corpus.max_documents": "-1",
    "queries.split_share": "1.0",
    "queries.toxic_min": "2.0",
    "queries.safe_max": "-0.5",
    "model.mode": '"magic"',
    "model.dtype": '"int8"',
    "training.seed": "-1",
    "factors.seed": "4294967296",
    "selection.seed": "-1",
    "evaluate.seed": "-7",
    "factors.strategy": '"kfac"',
    "factors.labels": '"guessed"',
    "direction.damping": "-1.0",
    "direction.weighting": '"sum"',
    "direction.objective": '"gain"',
    "scores.derivative": '"exact"',
    "scores.average": '"max"',
    "scores.pooling": "-1.0",
    "selection.quantile": "1.5",
    "selection.window": "-1",
    "selection.max_tokens": "-1",
    "selection.attribution": '"loss"',
    "selection.controls": '["all"]',
    "suppress.method": '"delete"',
    "suppress.penalty": "-1.0",
    "suppress.warmup_share": "2.0",
    "evaluate.top_p": "0.0",
    "evaluate.temperature": "0.0",
    "evaluate.n_samples": "0",
    "evaluate.max_new_tokens": "0",
    "compute.tokens_per_batch": "1",
    "compute.threads": "-1",
    "compute.device_map": '"everywhere"',
    "training.epochs": "0.0",
    "training.batch_size": "0",
    "training.learning_rate": "-1.0",
    "training.schedule": '"steps"',
    "training.adapter": '"ia3"',
    "training.lora_rank": "0",
    "training.checkpoint_steps": "[0]",
    "baselines.document_min": "2.0",
    "baselines.dpo_beta": "0.0",
}

BROKEN_FILES = {
    "empty-table-head": b"[\n",
    "not-closed": b"[corpus\npath = 1\n",
    "no-value": b"[corpus]\npath =\n",
    "no-quotes": b"[corpus]\npath = a file\n",
    "twice": b'[corpus]\npath = "a"\npath = "b"\n',
    "table-twice": b"[corpus]\n[corpus]\n",
    "not-utf-8": b'[corpus]\npath = "caf\xe9"\n',
    "utf-16": '[corpus]\npath = "a"\n'.encode("utf-16"),
    "nul": b'[corpus]\npath = "a\0b"\n',
    "json": b'{"corpus": {}}',
    "half": b'[corpus]\npath = "posts.js',
    "conflict": b'[<<<<<<< HEAD]\n[corpus]\npath = "a"\n=======\n',
    "section-unknown": b"[colour]\nred = 1\n",
    "section-is-a-number": b"corpus = 5\n",
    "section-is-a-list": b"[[corpus]]\n",
    "setting-unknown": b"[corpus]\ncolour = 'red'\n",
    "description-a-number": b"description = 5\n",
    "variants-a-number": b"variants = 5\n",
    "variant-a-number": b"[variants]\na = 5\n",
    "variant-built-in": b'[variants.random]\nselection = "default"\n',
    "variant-base": b'[variants.base]\nselection = "default"\n',
    "variant-name-leaves": b'[variants."../../a"]\nselection = "default"\n',
    "variant-name-empty": b'[variants.""]\nselection = "default"\n',
    "variant-name-long": b"[variants." + b"a" * 80 + b']\nselection = "default"\n',
    "variant-setting-unknown": b"[variants.a]\ncolour = 1\n",
    "variant-method": b'[variants.a]\nmethod = "delete"\n',
    "variant-penalty": b"[variants.a]\npenalty = -1.0\n",
    "variant-penalty-nan": b"[variants.a]\npenalty = nan\n",
    "variant-selection-a-number": b"[variants.a]\nselection = 5\n",
    "variant-selection-leaves": b'[variants.a]\nselection = "../../other"\n',
    "borrowed-a-number": b"borrowed = 5\n",
    "borrowed-of-a-number": b"[borrowed]\na = 5\n",
    "borrowed-without-study": b'[borrowed.a]\nselection = "default"\n',
    "borrowed-setting-unknown": b"[borrowed.a]\ncolour = 1\n",
    "borrowed-study-a-number": b"[borrowed.a]\nstudy = 5\n",
    "borrowed-study-leaves": b'[borrowed.a]\nstudy = "../../etc"\n',
    "borrowed-selection-leaves": b'[borrowed.a]\nstudy = "other"\nselection = "../../a"\n',
    "borrowed-name-leaves": b'[borrowed."../a"]\nstudy = "other"\n',
    "borrowed-name-built-in": b'[borrowed.default]\nstudy = "other"\n',
    "adapter-without-finetune": b'[model]\nmode = "scratch"\n[training]\nadapter = "lora"\n',
    "harness-folder-alone": b'[evaluate]\nharness_folder = "tasks"\n',
}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return make_study(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def broken(study, command):
    """Runs a command on the study with another study.toml, which is put back afterwards."""
    path = study.root / "study.toml"
    whole = path.read_bytes()

    def run(content: bytes, *arguments: str):
        path.write_bytes(content)
        try:
            return command(study.root.parent, *(arguments or ("run", study.name)))
        finally:
            path.write_bytes(whole)

    return run


def test_wrong_settings_are_many():
    assert sum(len(wrong_values(section)) for section in SECTIONS) + len(OUT_OF_RANGE) + len(BROKEN_FILES) > 400


@pytest.mark.parametrize("section", SECTIONS)
def test_a_setting_of_another_type_is_named(broken, section):
    for key, value in wrong_values(section):
        print(f"{section}.{key} = {value}")  # pytest shows the last one when it fails
        said = ["unknown setting"] if "colour" in value else [f"{section}.{key}", "expected"]
        broken(f"[{section}]\n{key} = {value}\n".encode()).check_refused("study.toml", *said)


def test_a_setting_out_of_range_is_named(broken):
    for setting, value in OUT_OF_RANGE.items():
        print(f"{setting} = {value}")
        section, key = setting.split(".")
        broken(f"[{section}]\n{key} = {value}\n".encode()).check_refused("study.toml", setting, ", got ")


def test_a_broken_file_is_named(broken):
    for about, content in BROKEN_FILES.items():
        print(about)
        line = broken(content).check_refused("study.toml")
        assert any(word in line for word in ("expected", "choose", "fix it", "known here", "set model.mode")), about


def test_every_command_refuses_a_broken_file(broken, study):
    before = everything(study)
    for name, *rest in [
        ("status",),
        ("select", "--quantile", "0.5"),
        ("suppress",),
        ("evaluate",),
        ("explain",),
        ("documents",),
        ("verify",),
        ("export", "--what", "mask", "--out", "mask.csv"),
        ("rank", "--labels", "bad"),
        ("report",),
        ("mechanism",),
    ]:
        broken(b"[corpus\n", name, study.name, *rest).check_refused("study.toml", "not valid TOML", "fix it")
        assert everything(study) == before, name


@examples(40, 100, HealthCheck.function_scoped_fixture, HealthCheck.too_slow)
@given(content=st.binary(max_size=120) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_file_is_read_or_refused_in_one_line(broken, study, content):
    ended = broken(content, "status", study.name)
    if ended.code:
        ended.check_refused("study.toml")


@examples(40, 100, HealthCheck.function_scoped_fixture)
@given(
    assignment=st.text(max_size=40)
    | st.from_regex(r"(corpus|selection|variants|model)\.[a-z_]{1,12}=.{0,20}", fullmatch=True)
)
def test_any_assignment_is_taken_or_refused_in_one_line(command, tmp_path_factory, assignment):
    cache = tmp_path_factory.getbasetemp() / "never"
    ended = command(
        cache,
        "new",
        "mine",
        "--model",
        "/no/such/model",
        "--corpus",
        "c",
        "--toxic",
        "t",
        "--safe",
        "s",
        "--set",
        assignment,
    )
    ended.check_refused()
    assert not cache.exists()


def test_the_study_is_unchanged(study):
    """After all of the above."""
    assert stage_states(Study.open(study.name, study.root.parent))["selection"].state == "fresh"
    assert not list(study.root.glob("*.partial-*"))

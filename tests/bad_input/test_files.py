"""Every bad file gives one line that says what, where and the remedy, and nothing is written."""

import json
import re
import shutil
from itertools import product

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from ifguide.config.schema import StudyConfig
from ifguide.study.reading import Study
from tests.bad_input.cases import COLUMNS, ROLES, all_cases, good_row, json_line, parquet
from tests.examples import examples
from tests.naming import naming

CASES = all_cases()
REMEDY = re.compile(
    r"[;:,(] ?(?:so )?(?:fix|copy|remove|name|convert|write|save|give|fill|turn|change|check|quote|rename|put|choose"
    r"|lower|make|shorten|use|set|count|begin|score|expected|rebuild|leave|add|separate|ids must|in any|raise)\b"
)
"""Each line tells what to do, or what was expected instead."""


def test_there_are_many_and_each_is_one_of_its_kind():
    assert len(CASES) >= 300
    assert len({(str(case), case.settings) for case in CASES}) == len(CASES)
    assert {case.role for case in CASES} == set(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_a_bad_file_is_refused_in_one_line(command, new_arguments, tmp_path, role):
    for case in (case for case in CASES if case.role == role):
        with naming(case):
            path = tmp_path / case.name
            path.write_bytes(case.content)
            ended = command(tmp_path / "cache", *new_arguments(*case.settings, **{role: path}))
            line = ended.check_refused(case.name)
            assert REMEDY.search(line), line
            assert not (tmp_path / "cache").exists()


def test_query_sets_that_are_equal_are_refused(command, new_arguments, tmp_path):
    for name, lines in {"toxic": ("You are", "It is"), "safe": ("It is", "You are", "It is")}.items():
        rows = ({"prompt": prompt, "completion": " kind"} for prompt in lines)
        (tmp_path / f"{name}.jsonl").write_text("".join(map(json_line, rows)))
    places = {name: tmp_path / f"{name}.jsonl" for name in ("toxic", "safe")}
    ended = command(tmp_path / "cache", *new_arguments(**places))
    assert REMEDY.search(ended.check_refused("toxic.jsonl and", "safe.jsonl hold the same queries"))
    assert not (tmp_path / "cache").exists()


def test_a_place_without_a_readable_file_is_refused(command, new_arguments, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"\x89PNG")
    for role, place in product(ROLES, ("missing.jsonl", "empty", "pictures", "missing/*.jsonl")):
        with naming(role, place):
            ended = command(tmp_path / "cache", *new_arguments(**{role: tmp_path / place}))
            assert "expected" in ended.check_refused(place)
            assert not (tmp_path / "cache").exists()


ODD_BUT_GOOD = {
    "byte-order-mark": b'\xef\xbb\xbf{"text": "You are kind."}\n',
    "windows-line-ends": b'{"text": "You are kind."}\r\n{"text": "It rains."}\r\n',
    "no-last-line-end": b'{"text": "You are kind."}',
    "one-token-documents": b'{"text": "a"}\n{"text": "You are kind."}\n{"text": "b"}\n',
    "empty-documents": b'{"text": ""}\n{"text": "You are kind."}\n{"text": "  "}\n',
    "megabyte": b'{"text": "' + b"word and more " * 80_000 + b'"}\n',
    "same-text-twice": b'{"text": "You are kind."}\n' * 3,
    "emoji-and-marks": (
        '{"text": "\U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301\u0327 \u202eabc\u202c <b>&amp;"}\n'.encode()
    ),
    "blank-lines-between": b'{"text": "You are kind."}\n\n\n{"text": "It rains."}\n',
    "more-columns": b'{"text": "You are kind.", "nan": NaN, "deep": {"a": [1, {"b": null}]}}\n',
}


def test_odd_files_that_are_in_order_are_taken(command, new_arguments, tmp_path):
    for about, content in ODD_BUT_GOOD.items():
        with naming(about):
            path = tmp_path / "odd.jsonl"
            path.write_bytes(content)
            ended = command(tmp_path / about, *new_arguments(corpus=path))
            assert ended.code == 0, ended.err
            assert Study.open("mine", tmp_path / about).config.corpus.path == str(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


SOMETHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "\0", "\ud800", "a b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "prompt", "completion", "toxicity", "start", "end", "x"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
NO_FIXTURE_CHECK = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@examples(20, 80, *NO_FIXTURE_CHECK)
@given(
    role=st.sampled_from(ROLES),
    rows=st.lists(
        st.dictionaries(
            st.sampled_from(["text", "prompt", "completion", "continuation", "input", "label", "id"]),
            SOMETHING,
            max_size=4,
        ),
        max_size=4,
    ),
)
def test_any_rows_are_taken_or_refused_in_one_line(command, new_arguments, place, role, rows):
    path = place / "bad.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    shutil.rmtree(place / "cache", ignore_errors=True)
    ended = command(place / "cache", *new_arguments(**{role: path}))
    if ended.code:
        ended.check_refused("bad.jsonl")
        assert not (place / "cache").exists()
    else:
        Study.open("mine", place / "cache")


@examples(25, 120, *NO_FIXTURE_CHECK)
@given(
    role=st.sampled_from(ROLES),
    ending=st.sampled_from(["jsonl", "json", "csv", "tsv", "txt", "parquet", "jsonl.gz"]),
    content=st.binary(max_size=200) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
)
def test_any_bytes_are_taken_or_refused_in_one_line(command, new_arguments, place, role, ending, content):
    path = place / f"bad.{ending}"
    path.write_bytes(content)
    shutil.rmtree(place / "cache", ignore_errors=True)
    ended = command(place / "cache", *new_arguments(**{role: path}))
    if ended.code:
        ended.check_refused(path.name)
    else:
        Study.open("mine", place / "cache")


@examples(15, 60, *NO_FIXTURE_CHECK)
@given(role=st.sampled_from(ROLES), at=st.floats(0, 1), value=st.integers(0, 255), cut=st.booleans())
def test_a_good_file_with_one_byte_changed_or_cut_there(command, new_arguments, place, role, at, value, cut):
    good = good_row(role)
    for name, whole in (
        ("bad.jsonl", json_line(good).encode() * 3),
        ("bad.parquet", parquet({k: [v] * 3 for k, v in good.items()})),
    ):
        spot = min(int(at * len(whole)), len(whole) - 1)
        path = place / name
        path.write_bytes(whole[:spot] + (b"" if cut else bytes([value]) + whole[spot + 1 :]))
        shutil.rmtree(place / "cache", ignore_errors=True)
        ended = command(place / "cache", *new_arguments(**{role: path}))
        if ended.code:
            ended.check_refused(name)


def test_columns_are_those_of_the_settings():
    config = StudyConfig()
    assert COLUMNS["corpus"] == config.corpus.text_field and COLUMNS["heldout"] == config.evaluate.text_field
    assert COLUMNS["prompts"] == config.evaluate.prompt_field and COLUMNS["toxic"] == config.queries.completion_field

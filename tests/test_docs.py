"""The docs against the code: links lead somewhere, commands and options exist, settings and columns are all named."""

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import pydoc
import re
import shlex
import sys
import textwrap
from functools import cache
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import settings_tables
from ifguide.cli.main import app
from ifguide.config.io import override
from ifguide.config.schema import EvaluateConfig, StudyConfig
from ifguide.errors import InputError
from ifguide.runtime.jobs import JobStatus
from ifguide.study.reading import Study
from ifguide.study.sharing.export import SCHEMAS
from ifguide.study.stage_table import STAGES

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILE_ENDINGS = ("json", "jsonl", "npy", "parquet", "safetensors", "csv", "toml", "arrow", "md", "py", "txt", "bin")


def each_page(check):
    """A test that runs a check on every page; a failure names the page."""

    def test():
        for page in PAGES:
            try:
                check(page)
            except Exception as error:
                error.add_note(f"in {page.relative_to(ROOT)}")
                raise

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test


def split_code(text: str) -> tuple[str, list[tuple[str, str]], list[str]]:
    """A page's prose, its code blocks as (language, code), and its code spans."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.M | re.S)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    spans = re.findall(r"`([^`\n]+)`", prose)
    return re.sub(r"`[^`\n]+`", "code", prose), blocks, spans


def read_commands(page: Path) -> list[list[str]]:
    """Every shell command of a page, in its blocks and spans, as words."""
    _, blocks, spans = split_code(page.read_text(encoding="utf-8"))
    lines = [line for language, code in blocks if language == "sh" for line in code.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    words += [span.split() for span in spans if span.startswith(("ifguide ", "make ", "python -m "))]
    return [command for command in words if command]


@cache
def read_help(*command: str) -> str:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0, f"there is no command `ifguide {' '.join(command)}`"
    return result.output


def has_option(name: str, text: str) -> bool:
    return re.search(rf"{re.escape(name)}(?![\w-])", text) is not None


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@each_page
def test_links_lead_somewhere(page):
    prose, _, _ = split_code(page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), flags=re.M)
            assert anchor in map(slug, headings), f"{page.name} links to {target}, which has no such heading"


@each_page
def test_named_commands_and_options_exist(page):
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)[1].split()
    for words in read_commands(page):
        if words[0] == "make":
            assert words[1] in targets, f"there is no `make {words[1]}`"
        elif words[:2] == ["python", "-m"] and words[2].startswith(("ifguide.", "tests.", "benchmarks.")):
            assert importlib.util.find_spec(words[2]), f"there is no module {words[2]}"
        elif words[0] == "ifguide":
            check_ifguide(words)


def check_ifguide(words: list[str]) -> None:
    rest = words[1:]
    while rest and rest[0].startswith("--"):
        assert has_option(rest[0], read_help()), f"`ifguide` has no {rest[0]}"
        rest = rest[1:]
    if not rest:
        return
    command, *arguments = rest
    text = read_help(command)
    for word, value in zip_longest(arguments, arguments[1:]):
        if word.startswith("--"):
            assert has_option(word, text), f"`ifguide {command}` has no {word}"
        if word in ("--until", "--force") and value != "STAGE":
            assert value in STAGES
        if word == "--set":
            override(StudyConfig(), [value])


def test_named_options_belong_to_a_command():
    commands = re.findall(r"^  ([\w-]+)  ", read_help().partition("Commands:")[2], flags=re.M)
    known = "\n".join([read_help(), *(read_help(command) for command in commands)])
    for page in PAGES:
        for span in split_code(page.read_text(encoding="utf-8"))[2]:
            if span.startswith("--"):
                assert has_option(span.split()[0], known), f"{page.name} names {span}, which no command has"


@each_page
def test_named_settings_exist(page):
    config = StudyConfig()
    sections = [f.name for f in dataclasses.fields(config) if dataclasses.is_dataclass(getattr(config, f.name))]
    for span in split_code(page.read_text(encoding="utf-8"))[2]:
        found = re.match(rf"({'|'.join(sections)})\.(\w+)", span)
        if found and found[2] not in FILE_ENDINGS:
            assert hasattr(getattr(config, found[1]), found[2]), f"{page.name} names {found[0]}, which is no setting"


@each_page
def test_python_examples_name_what_exists(page):
    for language, code in split_code(page.read_text(encoding="utf-8"))[1]:
        if language != "python":
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and importlib.util.find_spec(node.module.split(".")[0]):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "study":
                assert hasattr(Study, node.attr)


def test_settings_tables_are_those_of_the_code():
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert settings_tables.replace_tables(text) == text, "run: python -m benchmarks.settings_tables"


def test_every_setting_has_a_row():
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    for section in dataclasses.fields(StudyConfig):
        if dataclasses.is_dataclass(section.type):
            for setting in dataclasses.fields(section.type):
                assert f"| `{section.name}.{setting.name}` |" in text


def test_settings_tables_refuse_a_text_without_markers():
    with pytest.raises(InputError, match="put them back"):
        settings_tables.replace_tables("nothing")


def test_every_column_and_key_is_named_in_the_formats():
    spans = " ".join(split_code((ROOT / "docs" / "formats.md").read_text(encoding="utf-8"))[2])
    named = set(re.findall(r"\w+", spans))
    columns = {name for schema in SCHEMAS.values() for name in schema.names}
    assert columns <= named
    assert {f.name for f in dataclasses.fields(JobStatus)} <= named
    assert {"documents", "tokens", "characters", "skipped", "skipped_at"} <= named


def test_every_metric_is_named_in_the_formats(monkeypatch):
    from ifguide.data.prompts import Prompt
    from ifguide.evaluation import generation, last_word
    from ifguide.evaluation.evaluate import evaluate_model

    completion = generation.Completion(0, 0, "text", 1)
    monkeypatch.setattr(generation, "generate_completions", lambda *arguments: [completion])
    guess = last_word.LastWords(np.ones(1, dtype=bool), np.zeros(1))
    monkeypatch.setattr(last_word, "guess_last_words", lambda *arguments, **options: guess)

    class Scorer:
        name = "made up"

        def score(self, texts):
            return np.zeros(len(texts))

    prompts, scorers = [Prompt(text="prompt", group="group")], {"implicit_scorer": Scorer()}
    metrics, samples, heldout = evaluate_model(
        None, None, EvaluateConfig(n_samples=1), prompts, Scorer(), **scorers, lambada_texts=["a word"]
    )
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert [name for name in (*metrics, *samples.columns, *heldout.columns) if f"`{name}`" not in text] == []


def test_readme_starts_with_the_two_commands():
    blocks = split_code((ROOT / "README.md").read_text(encoding="utf-8"))[1]
    assert [line.split("#")[0].strip() for line in blocks[0][1].splitlines()] == ["make app", "make test"]


def test_docs_name_no_place_of_one_machine():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(home|root|work|tmp|Users)/", text), page.name
        assert sys.prefix not in text


def test_the_picture_of_the_rooms_is_current():
    from benchmarks.house import picture

    assert (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8") == picture(), (
        "draw it again with `python -m benchmarks.house --draw docs/architecture.svg`"
    )


def test_the_places_of_the_architecture_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for span in split_code(text)[2]:
        if re.fullmatch(r"[\w/]+\.(py|js|css|md|svg|toml)", span):
            folders = (ROOT, ROOT / "ifguide", ROOT / "docs", ROOT / "ifguide" / "ui")
            places = [folder / span for folder in folders]
            assert any(place.is_file() for place in places), f"there is no {span}"


RETIRED = r"\b(anew|mends|mended|says of itself|so many|at work|not at hand|as they stand)\b"
"""Words that the product's texts do without."""


def test_texts_use_plain_words():
    folders = ("ifguide", "pages", "benchmarks")
    code = [path for folder in folders for end in ("py", "js", "html") for path in (ROOT / folder).rglob(f"*.{end}")]
    for path in [*PAGES, *code]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = re.search(RETIRED, line)
            assert not found, f"{path.relative_to(ROOT)}:{number}: {found[0]!r}: {line.strip()[:80]}"


def public_names() -> list[tuple[str, tuple[str, ...]]]:
    """What docs/api.md promises to keep, and of a class or module which parts."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    found = []
    for name, members in re.findall(r"^::: (\S+)\n(?:    options:\n      members: \[(.*)\]\n)?", page, flags=re.M):
        found.append((name, tuple(filter(None, members.split(", ")))))
    return found


@pytest.mark.parametrize(("name", "members"), public_names())
def test_a_public_name_documents_its_arguments_errors_and_shapes(name, members):
    found = pydoc.locate(name)
    module = inspect.getmodule(found)
    package = importlib.import_module(module.__name__.rpartition(".")[0])
    if inspect.isclass(found) and not members:
        members = [key for key, part in vars(found).items() if inspect.isfunction(part) and not key.startswith("_")]
    for function in [getattr(found, member) for member in members] or [found]:
        text = inspect.getdoc(function)
        assert text, function
        around = "\n".join(filter(None, (text, inspect.getdoc(found), inspect.getdoc(module), package.__doc__)))
        signature = inspect.signature(function)
        for argument in signature.parameters.keys() - {"self"}:
            assert re.search(rf"\b{argument}\b", around), f"{function.__qualname__} says nothing of {argument}"
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        raised = {ast.unparse(node.exc.func) for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc}
        assert all(error in around for error in raised), f"{function.__qualname__} raises {raised}"
        if re.search("ndarray|Tensor|Matrices", str(signature)):
            assert re.search(r"\([A-Z]['\w]*[,)]|scalar|\(n,\)", around), f"{function.__qualname__} gives no shape"

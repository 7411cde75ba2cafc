"""`ifguide mcp` as the SDK's own client sees it, over standard input and output."""

import json
import os
import sys
from pathlib import Path

import anyio
import mcp
import numpy as np
import pytest
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.errors import InputError
from ifguide.selection.verdicts import VerdictLog
from ifguide.study.analysis.document_map import draw_map
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build
from ifguide.study.reading import Study
from ifguide.study.stages.document_table import write_tables
from ifguide.ui.excerpts import veiled_pieces
from ifguide.ui.veil import veil_pieces
from tests.tiny_study import build_to_edit

pytestmark = pytest.mark.slow
ANSWER = {"prompt": "You are", "completion": " a stupid fool"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = build_to_edit(tmp_path_factory.mktemp("mcp"))
    build(study, [Unit("index")])
    write_tables(study)
    draw_map(study)
    return study


def converse(study, conversation, *options):
    """Start the server and give a conversation its client; returns what that returns."""
    paths = {"IFGUIDE_CACHE": str(study.root.parent), "PYTHONPATH": str(Path(__file__).parents[2])}
    environment = paths | {name: os.environ[name] for name in ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM")}
    command = ["-m", "ifguide", "mcp", *options]
    server = mcp.StdioServerParameters(command=sys.executable, args=command, env=environment)

    async def run():
        async with mcp.Client(server, read_timeout_seconds=120) as client:
            return await conversation(client)

    return anyio.run(run)


def files_of(study) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in study.root.rglob("*") if path.is_file()}


def test_an_agent_lists_reads_counts_compares_and_traces_and_changes_nothing(study):
    before, steps = files_of(study), []

    async def noted(done, total, message):
        steps.append((done, total))

    async def read(client):
        async def ask(tool, progress=None, **arguments):
            result = await client.call_tool(tool, arguments, progress_callback=progress)
            assert not result.is_error, result.content
            return result.structured_content

        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert len(tools) == 7 and all(tool.annotations.read_only_hint for tool in tools.values())
        name = {"study": "tiny"}
        return {
            "studies": await ask("list_studies"),
            "status": await ask("study_status", **name),
            "listed": await ask("list_documents", **name, count=3),
            "asked": await ask(
                "list_documents", **name, where="rank > 3 and n_tokens > 5", search="the", sort="length"
            ),
            "like": await ask("list_documents", **name, like="d02"),
            "meant": await ask("list_documents", **name, meaning=study.corpus().document(2).text, count=99),
            "veiled": await ask("read_document", **name, document="d02"),
            "read": await ask("read_document", **name, document="d02", unveil=True),
            "part": await ask("read_document", **name, document="d02", first=2, count=3),
            "counted": await ask("count_at_threshold", **name, tokens=7),
            "models": await ask("compare_models", **name),
            "traced": await ask("trace_answer", noted, **name, **ANSWER, count=5),
        }

    told = converse(study, read)
    corpus, chosen = study.corpus(), study.selection()
    assert [one["study"] for one in told["studies"]["studies"]] == ["tiny"]
    assert told["status"]["stages"]["scores"]["state"] == "fresh"
    ids = [corpus.ids()[number] for number in chosen.order]
    assert [line["id"] for line in told["listed"]["documents"]] == ids[:3] and told["listed"]["matches"] == len(ids)
    lengths = [line["n_tokens"] for line in told["asked"]["documents"]]
    assert lengths == sorted(lengths) and 0 < told["asked"]["matches"] < len(ids) - 3

    nearest = [line["id"] for line in told["meant"]["documents"]]
    assert nearest[0] == corpus.ids()[2] and len(nearest) == told["meant"]["matches"] == 12
    assert told["like"]["documents"][0]["id"] == "d02"
    number = corpus.index_of("d02")
    here = slice(*corpus.offsets[number : number + 2].tolist())
    tokens = told["read"]["tokens"]
    assert "".join(token["text"] for token in tokens) == corpus.document(number).text
    assert [token["score"] for token in tokens] == study.scores()[here].tolist()
    assert [token["selected"] for token in tokens] == chosen.mask[here].tolist()
    shown = "".join(token["text"] for token in told["veiled"]["tokens"])
    assert "idiot" not in shown and "fool" not in shown and shown.startswith("You are a ██████ █████")
    assert told["part"]["tokens"] == told["veiled"]["tokens"][2:5]

    assert (
        told["counted"]["tokens_above"]
        == 7
        == int((study.scores()[corpus.valid()] > told["counted"]["threshold"]).sum())
    )
    assert told["models"]["models"]["base"]["emt"] == study.metrics("base")["emt"] and not told["models"]["below_base"]
    scores = [one["score"] for one in told["traced"]["documents"]]
    assert scores == sorted(scores, reverse=True) and len(scores) == 5
    assert "fool" not in json.dumps(told["traced"]) and "stupid" not in json.dumps(told["traced"])
    assert [done for done, _ in steps] == sorted(done for done, _ in steps) and steps[-1] == (12, 12)
    assert files_of(study) == before


HOSTILE = [
    *(
        ("study_status", {"study": name})
        for name in ("../tiny", "/etc", "tiny/../tiny", "", ".", "x" * 99, "tiny\0", "no")
    ),
    *(("study_status", {"study": wrong}) for wrong in (5, None, ["tiny"], {"a": 1})),
    ("study_status", {}),
    ("no_such_tool", {}),
    ("save_selection", {"study": "tiny", "name": "mine"}),
    ("give_verdict", {"study": "tiny", "document": "d01", "verdict": "toxic"}),
    *(
        ("list_documents", {"study": "tiny", **wrong})
        for wrong in (
            {"selection": "../default"},
            {"selection": "nothing"},
            {"where": "true; drop table documents"},
            {"where": "(select 1) = 1"},
            {"where": "read_csv('/etc/passwd') = 1"},
            {"where": "getenv('HOME') = 'x'"},
            {"where": "x" * 10_000},
            {"where": "x" * 100_000},
            {"where": ["rank = 1"]},
            {"search": "(", "regex": True},
            {"search": "x" * 100_000},
            {"like": "../d02"},
            {"like": "d02", "meaning": "the lazy dog"},
            *({"meaning": wrong} for wrong in (" ", "dog\0cat", "\x07", "x" * 100_000, ["dog"])),
            {"sort": "rank; drop table documents"},
            {"sort": "../rank"},
            {"first": -1},
            {"first": 10**30},
            {"first": "one"},
            {"first": 1.5},
            {"count": -5},
            {"count": 10**9},
            {"count": None},
            {"unveil": "perhaps"},
        )
    ),
    *(
        ("read_document", {"study": "tiny", "document": "d02", **wrong})
        for wrong in (
            {"document": "../d02"},
            {"document": "' or 1=1 --"},
            {"selection": "/etc"},
            {"first": -2},
            {"count": 10**20},
        )
    ),
    *(
        ("count_at_threshold", {"study": "tiny", **wrong})
        for wrong in (
            {"tokens": -1},
            {"tokens": 10**40},
            {"tokens": 5, "quantile": 0.5},
            {"quantile": "NaN"},
            {"score": "NaN"},
            {"score": "-Infinity"},
            {"quantile": -0.5},
            {"quantile": "high"},
            {"score": {}},
            {"kind": "../../etc/passwd"},
        )
    ),
    *(("compare_models", {"study": "tiny", "models": wrong}) for wrong in (["../base"], ["base", "none"], "base", [1])),
    *(
        ("trace_answer", {"study": "tiny", **ANSWER, **wrong})
        for wrong in (
            {"prompt": "unasked", "completion": ""},
            {"word": "nowhere"},
            {"prompt": 3},
            {"completion": "x" * 30_000},
        )
    ),
]


def test_hostile_arguments_are_answered_with_an_error_and_the_server_goes_on(study):
    assert len(HOSTILE) >= 50
    before = files_of(study)

    async def refusal(client, tool, arguments) -> str:
        try:
            result = await client.call_tool(tool, arguments)
        except mcp.MCPError as error:
            return str(error)
        [text] = [part.text for part in result.content]
        return text if result.is_error else ""

    async def attack(client):
        for tool, arguments in HOSTILE:
            text = await refusal(client, tool, arguments)
            assert text not in ("", f"Error executing tool {tool}") and "Traceback" not in text, (tool, arguments)
        return (await client.call_tool("list_studies")).structured_content

    assert len(converse(study, attack)["studies"]) == 1
    assert files_of(study) == before


def test_with_leave_to_write_an_agent_saves_selections_and_verdicts(study):
    async def write(client):
        names = [tool.name for tool in (await client.list_tools()).tools if not tool.annotations.read_only_hint]
        for tool, arguments in (
            ("save_selection", {"name": "mine", "tokens": 5}),
            ("list_documents", {"selection": "mine"}),
            ("give_verdict", {"document": "d02", "verdict": "toxic", "note": "an insult"}),
        ):
            result = await client.call_tool(tool, {"study": "tiny", **arguments})
            assert not result.is_error, result.content
        for name in ("mine", "default", "../mine"):
            result = await client.call_tool("save_selection", {"study": "tiny", "name": name, "tokens": 6})
            assert result.is_error and name in result.content[0].text
        return names

    assert converse(study, write, "--write") == ["save_selection", "give_verdict"]
    assert Study.open("tiny", study.root.parent).selection("mine").settings["tokens_above"] == 5
    assert VerdictLog(study.root).of_documents("agent") == {"d02": "toxic"}


def test_the_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    with pytest.raises(InputError, match=r"pip install 'ifguide\[mcp\]'"):
        CliRunner().invoke(app, ["mcp"], catch_exceptions=False)


def test_a_part_is_veiled_as_the_whole_is(study):
    corpus, words = study.corpus(), frozenset({"clever"})
    mask = np.zeros(corpus.n_tokens, bool)
    for index in range(corpus.n_documents):
        whole = veiled_pieces(corpus, index, mask, words, slice(None))
        for first in range(len(whole) + 2):
            part = slice(first, first + 2)
            assert veiled_pieces(corpus, index, mask, words, part) == whole[part]


def test_a_veil_hides_the_letters_of_whole_words_across_pieces():
    pieces = ["You", " id", "iot", ", an", " un", "kind", " one"]
    marked = np.array([False, False, False, False, False, True, False])
    assert veil_pieces(pieces, marked, frozenset({"one"})) == ["You", " ██", "███", ", an", " ██", "████", " ███"]
    assert veil_pieces(pieces, marked, None) == pieces and veil_pieces([""], marked[:1], frozenset()) == [""]

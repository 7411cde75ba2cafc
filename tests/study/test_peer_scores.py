"""Scores of bergson and kronfluence, opened as studies: token by token what the peer wrote, and what does not fit."""

import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset

from ifguide.config.schema import CorpusConfig
from ifguide.errors import ConfigError, InputError
from ifguide.models.loading import load_model, load_tokenizer
from ifguide.study.folder import list_studies
from ifguide.study.freshness import stage_states
from ifguide.study.peer_scores import open_scores
from ifguide.study.stages.select import save_selection
from tests.tiny_study import CONTEXT, DOCUMENTS, save_tiny_model, write_tiny_inputs

TEXTS = [text for text, _ in DOCUMENTS[:8]]
QUERY = 2
"""The text that is the query, too: nothing pushes further toward it."""


class Scored:
    """Texts, their tokens and a model, to be scored by a peer."""

    def __init__(self, folder):
        self.folder = folder
        write_tiny_inputs(folder)
        save_tiny_model("gpt_neox", folder / "model")
        self.tokenizer = load_tokenizer(str(folder / "model"))
        self.tokens = [self.tokenizer(text)["input_ids"][:CONTEXT] for text in TEXTS]
        self.corpus = folder / "texts.jsonl"
        self.corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))

    def open(self, folder, name="opened", *, corpus=None, **options):
        corpus = CorpusConfig(path=str(self.corpus if corpus is None else corpus))
        options = {"tokenizer": str(self.folder / "model"), "cache": self.folder / "cache"} | options
        return open_scores(name, folder, corpus, **options)

    def expect(self, study, kind, rows):
        """The study's scores are `rows`, of each text one number for every token but the first."""
        corpus, scores = study.corpus(), study.scores(kind)
        assert [ids.tolist() for ids in np.split(corpus.token_ids, corpus.offsets[1:-1])] == self.tokens
        for here, row in zip(np.split(scores, corpus.offsets[1:-1]), rows, strict=True):
            assert here[0] == 0
            np.testing.assert_array_equal(here[1:], np.asarray(row, dtype=np.float32))


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    return Scored(tmp_path_factory.mktemp("scored"))


def write_bergson(folder, rows, *, by_token=True, kind="float32", higher=True):
    """A folder as bergson 2.5 writes it: for each text a list of rows, a number a query."""
    folder.mkdir()
    size = {"float32": 8, "bfloat16": 4}[kind]  # a score and its mark
    flat = np.concatenate([np.atleast_2d(row) for row in rows]).astype(np.float32)
    n_queries = flat.shape[1]
    names = [f"{part}_{n}" for n in range(n_queries) for part in ("score", "written")]
    places = [n * size + shift for n in range(n_queries) for shift in (0, size // 2)]
    described = {"names": names, "formats": [kind, "bool"] * n_queries, "offsets": places, "itemsize": n_queries * 8}
    layout = described | {"formats": [{"float32": "<f4", "bfloat16": "<u2"}[kind], "?"] * n_queries}
    stored = np.zeros(len(flat), dtype=np.dtype(layout))
    for number in range(n_queries):
        column = flat[:, number]
        stored[f"score_{number}"] = column if kind == "float32" else column.view("<u4") >> 16
        stored[f"written_{number}"] = True
    stored.tofile(folder / "scores.bin")
    info = {"attribute_tokens": by_token, "num_items": len(rows), "num_rows": len(flat), "num_scores": n_queries}
    (folder / "info.json").write_text(json.dumps(info | {"dtype": described}))
    if by_token:
        np.save(folder / "offsets.npy", np.cumsum([0, *map(len, rows)]))
    if higher is not None:
        steps = [{"score": {"score_cfg": {"higher_is_better": higher}}}]
        (folder / "config.yaml").write_text(yaml.safe_dump({"steps": steps}))
    return folder


@pytest.fixture
def numbers(scored):
    """Two queries' scores of every token but the first; exact in bfloat16."""
    generator = np.random.default_rng(3)
    return [generator.integers(-90, 90, (len(ids) - 1, 2)) / 8 for ids in scored.tokens]


@pytest.mark.parametrize(
    ("kind", "higher", "sign"), [("float32", True, 1), ("bfloat16", True, 1), ("float32", False, -1)]
)
def test_a_bergson_folder_is_read_token_by_token_with_the_sign_that_it_notes(
    scored, numbers, tmp_path, kind, higher, sign
):
    folder = write_bergson(tmp_path / "run", numbers, kind=kind, higher=higher)
    study = scored.open(folder, cache=tmp_path / "cache")
    scored.expect(study, "bergson", [sign * row.mean(axis=1) for row in numbers])


def test_a_score_of_a_document_is_given_to_all_its_tokens(scored, numbers, tmp_path):
    folder = write_bergson(tmp_path / "run", [row[:1] for row in numbers], by_token=False)
    study = scored.open(folder, cache=tmp_path / "cache")
    scored.expect(study, "bergson", [np.full(len(row), row[0].mean()) for row in numbers])


def test_a_study_of_them_is_whole_selects_and_can_be_moved(scored, numbers, tmp_path):
    study = scored.open(write_bergson(tmp_path / "run", numbers), cache=tmp_path / "cache")
    assert {state.state for state in stage_states(study).values()} == {"fresh"}
    for stage in ("queries", "model", "factors", "direction", "scores", "suppress", "evaluate"):
        assert not study.units(stage)
    saved = save_selection(study, "mine", {"tokens_above": 5})
    assert set(np.flatnonzero(saved.mask)) == set(np.argsort(study.scores("bergson"))[-5:])
    study.root.rename(tmp_path / "cache" / "moved")
    moved = type(study).open("moved", tmp_path / "cache")
    assert {state.state for state in stage_states(moved).values()} == {"fresh"}


def test_tokens_given_as_numbers_are_taken_as_they_are(scored, numbers, tmp_path):
    """Padding and what has no label are left out; a token that the tokenizer would cut otherwise stays."""
    rows = [(ids, [1] * len(ids), ids) for ids in scored.tokens]
    split = scored.tokenizer.convert_tokens_to_ids(["n", "a", "Ã", "¯"])  # "ï" is two bytes
    rows[1] = ([0, 0, *split], [0, 0, 1, 1, 1, 1], [-100, -100, -100, -100, *split[2:]])
    data = Dataset.from_dict(dict(zip(("input_ids", "attention_mask", "labels"), zip(*rows, strict=True), strict=True)))
    data.save_to_disk(tmp_path / "data")
    numbers[1] = np.arange(10).reshape(5, 2)  # of places 0 to 4
    study = scored.open(write_bergson(tmp_path / "run", numbers), corpus=tmp_path / "data", cache=tmp_path / "cache")
    corpus = study.corpus()
    here = slice(*corpus.offsets[1:3])
    assert corpus.token_ids[here].tolist() == split
    assert corpus.document(1).text == "naï"
    assert corpus.char_start[here].tolist() == [0, 1, 2, 2]
    assert study.scores("bergson")[here].tolist() == [0, 0, 6.5, 8.5]  # of places 3 and 4, which predict 4 and 5
    assert corpus.valid()[here].tolist() == [False, False, True, True]


def leave_as_it_is(folder):
    pass


REFUSED = {
    "another length": (lambda rows: [*rows[:3], rows[3][:-1], *rows[4:]], {}, leave_as_it_is, "row 4|line 4"),
    "fewer texts": (lambda rows: rows[:-1], {}, leave_as_it_is, "row 8: expected 7 rows, got 8"),
    "more texts": (lambda rows: [*rows, rows[0]], {}, leave_as_it_is, "row 9: expected 9 rows, got 8"),
    "no sign": (list, {"higher": None}, leave_as_it_is, "--no-negate"),
    "a short file": (list, {}, lambda folder: (folder / "scores.bin").write_bytes(b"1"), "make them again"),
    "an object": (
        list,
        {},
        lambda folder: (folder / "info.json").write_text(
            (folder / "info.json").read_text().replace("float32", "object")
        ),
        "make them again",
    ),
    "an unfinished run": (list, {}, lambda folder: folder.rename(folder.with_suffix(".part")), "finished run"),
    "an index": (list, {}, lambda folder: (folder / "scores.bin").rename(folder / "gradients.bin"), "bergson score"),
    "nothing": (list, {}, lambda folder: (folder / "scores.bin").unlink(), "pairwise_scores.safetensors"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_with_the_place_and_the_remedy(scored, numbers, tmp_path, case):
    change, options, spoil, expected = REFUSED[case]
    spoil(folder := write_bergson(tmp_path / "run", change(numbers), **options))
    folder = next(tmp_path.iterdir()) if case == "an unfinished run" else folder
    with pytest.raises(InputError, match=expected) as caught:
        scored.open(folder, cache=tmp_path / "cache")
    if case == "another length":
        n_tokens = len(scored.tokens[3])
        assert f"expected {n_tokens - 1} scores for its {n_tokens} tokens, got {n_tokens - 2}" in str(caught.value)
        assert "the tokenizer that cut its texts" in str(caught.value)
    assert not list_studies(tmp_path / "cache")


def test_a_name_that_is_taken_and_a_tokenizer_that_is_not_noted_are_refused(scored, numbers, tmp_path):
    folder = write_bergson(tmp_path / "run", numbers)
    (tmp_path / "cache" / "opened").mkdir(parents=True)
    with pytest.raises(ConfigError, match="'opened' exists already"):
        scored.open(folder, cache=tmp_path / "cache")
    with pytest.raises(InputError, match="name it with --tokenizer"):
        scored.open(folder, "other", tokenizer="", cache=tmp_path / "cache")


@pytest.fixture(scope="module")
def analyzer(scored):
    """kronfluence's own API on the tiny model."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments

    from tests.influence.test_kronfluence import make_task, padded_rows

    model = load_model(str(scored.folder / "model"))
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    names = [name for name in names if name != "embed_out"]
    task = make_task(names, "token-sum")
    analyzer = Analyzer(
        "tiny", prepare_model(model, task), task, cpu=True, disable_tqdm=True, output_dir=str(scored.folder)
    )
    train = padded_rows(scored.tokens, [np.ones(len(ids), dtype=bool) for ids in scored.tokens])
    analyzer.fit_all_factors("none", train, per_device_batch_size=4, factor_args=FactorArguments("identity"))
    for name, by_token in (("tokens", True), ("documents", False)):
        analyzer.compute_pairwise_scores(
            name,
            "none",
            [train[QUERY], train[0]],
            train,
            per_device_query_batch_size=1,
            per_device_train_batch_size=4,
            score_args=ScoreArguments(compute_per_token_scores=by_token),
        )
    rows = {key: [row[key].tolist() for row in train] for key in train[0]}
    Dataset.from_dict(rows).save_to_disk(scored.folder / "padded")
    return analyzer


@pytest.mark.parametrize("corpus", ["padded", "texts.jsonl"])
def test_kronfluence_s_scores_of_tokens_go_to_the_token_that_is_predicted(analyzer, scored, tmp_path, corpus):
    theirs = analyzer.load_pairwise_scores("tokens")["all_modules"].double().mean(0).numpy()
    folder = analyzer.scores_output_dir("tokens")
    study = scored.open(folder, corpus=scored.folder / corpus, cache=tmp_path)
    rows = [row[: len(ids) - 1] for row, ids in zip(theirs, scored.tokens, strict=True)]
    scored.expect(study, "kronfluence", rows)
    against = scored.open(folder, "against", negate=True, cache=tmp_path)
    scored.expect(against, "kronfluence", [-row for row in rows])


def test_kronfluence_s_scores_of_documents_are_positive_where_a_text_is_its_own_query(analyzer, scored, tmp_path):
    theirs = analyzer.load_pairwise_scores("documents")["all_modules"]
    study = scored.open(analyzer.scores_output_dir("documents"), cache=tmp_path)
    scored.expect(
        study,
        "kronfluence",
        [np.full(len(ids) - 1, value) for ids, value in zip(scored.tokens, theirs.mean(0).numpy(), strict=True)],
    )
    assert theirs[0, QUERY] == theirs[0].max() > 0  # what pushes toward the query


@pytest.fixture(scope="module")
def bergson_run(scored):
    """bergson's own commands on the tiny model: tokens' scores for two queries, and texts' scores."""
    pytest.importorskip("bergson", reason="bergson is not installed; `pip install bergson==2.5.1`")
    queries = scored.folder / "query.jsonl"
    queries.write_text("".join(json.dumps({"text": TEXTS[number]}) + "\n" for number in (QUERY, 0)))
    common = ["--model", "model", "--token_batch_size", str(CONTEXT), "--projection_dim", "0"]
    against = ["--dataset", "texts.jsonl", "--query_path", "query"]
    for command in (
        ["build", "query", "--dataset", "query.jsonl"],
        ["score", "tokens", *against, "--attribute_tokens", "--token_influence", "output", "--drop_columns", "false"],
        ["score", "documents", *against],
    ):
        subprocess.run([sys.executable, "-m", "bergson", *command, *common], cwd=scored.folder, check=True, timeout=200)
    return scored.folder


@pytest.mark.parametrize("corpus", ["texts.jsonl", "tokens/data.hf"])
def test_a_run_of_bergson_is_read_token_by_token(bergson_run, scored, tmp_path, corpus):
    from bergson.data import load_scores

    theirs = load_scores(bergson_run / "tokens")
    rows = [theirs[start:stop].astype(float).mean(axis=1) for start, stop in pairwise(theirs.offsets)]
    study = scored.open(bergson_run / "tokens", corpus=bergson_run / corpus, cache=tmp_path)
    scored.expect(study, "bergson", rows)


def test_a_run_of_bergson_is_positive_where_a_text_is_its_own_query(bergson_run, scored, tmp_path):
    from bergson.data import load_scores

    theirs = load_scores(bergson_run / "documents")[:]
    assert theirs[:, 0].argmax() == QUERY and theirs[QUERY, 0] > 0
    study = scored.open(bergson_run / "documents", cache=tmp_path)
    rows = zip(scored.tokens, theirs.astype(float).mean(axis=1), strict=True)
    scored.expect(study, "bergson", [np.full(len(ids) - 1, value) for ids, value in rows])

"""A study on the Hub: pushed by the real client to a stand-in, read by `datasets`, pulled into another cache."""

import dataclasses
import io
import os
import subprocess
import sys
import zipfile
from unittest.mock import Mock

import datasets
import numpy as np
import pytest
import yaml
from huggingface_hub import constants
from pyarrow import parquet
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.config.schema import QuerySetsConfig
from ifguide.errors import InputError, StaleError, explain_system_error
from ifguide.study.reading import Study
from ifguide.study.sharing import published
from ifguide.study.sharing.published import FILE, MARK, ROWS, pull_study, push_study
from ifguide.ui import server
from tests.app.fake_study import HOSTILE_ID, Content, write_study
from tests.hub_standin import TOKEN, Repository, serve_hub

DATA, MODEL = "datasets/org/study", "models/org/model"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    content = Content(description="<b>Bold</b> | a *study*\n# of words")
    return write_study(tmp_path_factory.mktemp("study") / "mine", content=content, weights=True)


def speak_to(endpoint, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in that this process's client speaks to, logged in."""
    with serve_hub() as running:
        speak_to(running.endpoint, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


@pytest.fixture(scope="module")
def pushed(study, tmp_path_factory):
    """The files of both repositories, pushed by the command in a process of its own."""
    with serve_hub() as running:
        places = {"HF_HOME": str(tmp_path_factory.mktemp("hf")), "IFGUIDE_CACHE": str(study.root.parent)}
        told = {"HF_ENDPOINT": running.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        options = ["--repo", "org/study", "--model-repo", "org/model", "--licence", "cc-by-4.0"]
        command = [sys.executable, "-m", "ifguide", "push", study.name, *options]
        done = subprocess.run(command, env=os.environ | places | told, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        assert [line.split("/commit/")[0] for line in done.stdout.splitlines() if line.startswith("pushed")] == [
            f"pushed {running.endpoint}/datasets/org/study",
            f"pushed {running.endpoint}/models/org/model",
        ]
        assert [repository.commits for repository in running.repositories.values()] == [["Study fake"], ["Study fake"]]
        yield {name: repository.branches["main"] for name, repository in running.repositories.items()}


def load(pushed, tmp_path, name):
    """A table as `datasets` reads it, by the configs that the card names."""
    for file, content in pushed[DATA].items():
        (tmp_path / "repository" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repository" / file).write_bytes(content)
    where = {"split": "train", "cache_dir": str(tmp_path / "datasets")}
    return datasets.load_dataset(str(tmp_path / "repository"), name, **where)


LOADED = """
import datasets, sys
for name in sys.argv[1:]:
    rows = datasets.load_dataset("org/study", name, split="train")
    print(name, len(rows), *rows.column_names)
"""


def test_datasets_loads_every_config_from_the_hub_by_its_name(study, hub, tmp_path):
    push_study(study, "org/study", licence="other")
    names = ["documents", "scores", "selections", "completions"]
    told = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
    command = [sys.executable, "-c", LOADED, *names]
    done = subprocess.run(command, env=os.environ | told, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {name: (int(rows), columns) for name, rows, *columns in map(str.split, done.stdout.splitlines())}
    n_documents, models = study.corpus().n_documents, study.evaluation_names()
    assert {name: rows for name, (rows, _) in found.items()} == {
        "documents": n_documents,
        "scores": study.corpus().n_tokens,
        "selections": n_documents * len(study.selection_names()),
        "completions": sum(len(study.samples(model)) for model in models),
    }
    wanted = {"id", "text", "input_ids", "char_start", "char_end", "own_loss", "selected", "rank"}
    assert wanted <= set(found["documents"][1]) and {"model", "prompt", "toxicity"} <= set(found["completions"][1])


def test_documents_are_a_row_each_with_a_value_for_every_token(pushed, study, tmp_path):
    rows, corpus, chosen = load(pushed, tmp_path, "documents"), study.corpus(), study.selection()
    assert rows["id"][:] == corpus.ids()
    for number in (0, 7, corpus.index_of(HOSTILE_ID)):
        row, tokens = rows[number], slice(*corpus.offsets[number : number + 2])
        assert row["text"] == corpus.document(number).text
        assert row["input_ids"] == corpus.token_ids[tokens].tolist()
        assert row["selected"] == chosen.mask[tokens].tolist() and row["in_span"] == corpus.in_span[tokens].tolist()
        pieces = [row["text"][a:b] for a, b in zip(row["char_start"], row["char_end"], strict=True)]
        assert "".join(pieces) == row["text"]
        for column, kind in (("own_loss", "own_loss"), ("position_score", "position"), ("token_loss", "token_loss")):
            assert row[column][0] is None
            assert np.float32(row[column][1:]).tolist() == study.scores(kind)[tokens][1:].tolist()
        assert chosen.order[row["rank"] - 1] == number


def test_scores_selections_and_completions_are_those_of_the_study(pushed, study, tmp_path):
    corpus, names = study.corpus(), study.selection_names()
    scores = load(pushed, tmp_path, "scores")
    assert len(scores) == corpus.n_tokens and scores["selected"][:] == study.selection().mask.tolist()
    selections = load(pushed, tmp_path, "selections")
    for name in names:
        rows = selections.filter(lambda row, name=name: row["selection"] == name)
        chosen = study.selection(name)
        assert np.concatenate(rows["selected"][:]).astype(bool).tolist() == chosen.mask.tolist()
        assert np.argsort(rows["rank"][:]).tolist() == chosen.order.tolist()
    completions = load(pushed, tmp_path, "completions")
    assert sorted(set(completions["model"])) == sorted(study.evaluation_names())
    first = study.samples("base")
    assert completions["completion"][: len(first)] == first["completion"].tolist()


def test_the_viewer_finds_rows_by_groups_and_an_index_of_pages(pushed, study, monkeypatch, tmp_path):
    for name in ("documents", "scores", "selections", "completions"):
        file = parquet.ParquetFile(io.BytesIO(pushed[DATA][f"{name}/part-00000.parquet"])).metadata
        groups = [file.row_group(number) for number in range(file.num_row_groups)]
        assert all(group.num_rows <= ROWS for group in groups)
        assert all(g.column(i).has_offset_index and g.column(i).has_column_index for g in groups for i in range(2))
    monkeypatch.setattr(published, "ROWS", 1000)
    tables = published._exported(study, "tokens", ["default"], tmp_path)
    n_rows = published._write_table(tmp_path / "new" / "scores.parquet", tables, b"{}")
    file = parquet.ParquetFile(tmp_path / "new" / "scores.parquet").metadata
    sizes = [file.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert len(sizes) > 3 and set(sizes[:-1]) == {1000} and sum(sizes) == n_rows == study.corpus().n_tokens


def test_cards_say_what_it_is_and_hold_no_text_of_the_corpus(pushed, study):
    data, model = (pushed[name]["README.md"].decode() for name in (DATA, MODEL))
    front = yaml.safe_load(data.split("---\n")[1])
    assert front["license"] == "cc-by-4.0"
    named = [config["data_files"][0]["path"].replace("*", "part-00000") for config in front["configs"]]
    assert sorted(named) == sorted(name for name in pushed[DATA] if name.endswith(".parquet"))
    assert yaml.safe_load(model.split("---\n")[1])["datasets"] == ["org/study"]
    assert "&lt;b&gt;Bold&lt;/b&gt; | a *study* # of words" in data and "<b>Bold" not in data + model
    assert study.manifest(published.Unit("corpus"))["outputs"] and f"| corpus | `{digest(study, 'corpus')}` |" in data
    emt = f"{study.metrics('default')['emt']:.3f}"
    assert f"| default | {emt} [" in data and f"| default | {emt} [" in model
    assert "quantile = " in data and "&#34;attribution&#34;: &#34;own_loss&#34;" in data
    for document in Content().documents:
        assert document["text"][:40] not in data + model
    assert "idiot" not in data + model


def digest(study, stage):
    return published.unit_digest(study, published.Unit(stage))


def test_nothing_pushed_names_a_place_of_this_machine(pushed, study):
    place, found = str(study.root.parents[1]).encode(), []
    for repository, files in pushed.items():
        for name, content in files.items():
            if name.endswith(".ifguide"):
                with zipfile.ZipFile(io.BytesIO(content)) as packed:
                    found += [f"{name}/{one}" for one in packed.namelist() if place in packed.read(one)]
            elif place in content or TOKEN.encode() in content:
                found.append(f"{repository}/{name}")
            if name.endswith(".parquet"):
                assert set(parquet.ParquetFile(io.BytesIO(content)).schema_arrow.metadata) == {b"ifguide"}
    assert found == []


def test_paths_of_extra_query_sets_are_cut_too(tmp_path):
    study = write_study(tmp_path / "mine", until="selection")
    extra = {"more": QuerySetsConfig(toxic="/private/else/toxic.jsonl", safe="/private/else/safe.jsonl")}
    changed = study.change(
        dataclasses.replace(study.config, queries=dataclasses.replace(study.config.queries, extra=extra))
    )
    with zipfile.ZipFile(published.pack_study(changed, tmp_path / "study.ifguide")) as packed:
        told = packed.read("study.toml").decode()
    assert "/private" not in told and 'toxic = "toxic.jsonl"' in told


def test_a_models_card_names_the_model_on_the_hub_that_it_started_from(study, tmp_path):
    facts = {"study": study, "selection": study.selection(), "metrics": {}, "repo": "org/study", "version": "1"}
    facts |= {"model_repo": "org/model", "revision": "", "method": "penalty", "base": "org/base@step10"}
    published._write_card(tmp_path, "published_model.md", facts, b"{}")
    assert "base_model" not in yaml.safe_load((tmp_path / "README.md").read_text().split("---\n")[1])
    tuned = dataclasses.replace(study.config, model=dataclasses.replace(study.config.model, mode="finetune"))
    published._write_card(tmp_path, "published_model.md", facts | {"study": Study(study.root, tuned)}, b"{}")
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\n") and yaml.safe_load(card.split("---\n")[1])["base_model"] == "org/base"


def test_the_model_loads_and_is_the_suppressed_one(pushed, study, tmp_path):
    from safetensors.numpy import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name, content in pushed[MODEL].items():
        (tmp_path / name).write_bytes(content)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".safetensors", ".json", ".md", ".jinja"}
    final = study.root / "suppressed" / "default" / "final"
    mine, theirs = (load_file(folder / "model.safetensors") for folder in (final, tmp_path))
    assert mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.vocab_size
    text = "At the library"
    assert AutoTokenizer.from_pretrained(tmp_path)(text) == AutoTokenizer.from_pretrained(final)(text)


def test_a_pulled_study_opens_read_only_with_its_documents(study, hub, tmp_path, monkeypatch):
    push_study(study, "org/study", licence="other", private=True)
    assert hub.repositories[DATA].private and MODEL not in hub.repositories
    monkeypatch.setenv("IFGUIDE_CACHE", str(tmp_path / "theirs"))
    result = CliRunner().invoke(app, ["pull", "org/study"])
    assert result.exit_code == 0 and "read-only" in result.output
    opened = Study.open(study.name, tmp_path / "theirs")
    assert opened.corpus().document(3) == study.corpus().document(3)
    assert np.array_equal(opened.scores(), study.scores())
    assert not [line for line in hub.requests if line.endswith(".parquet") and line.startswith("GET")]
    told = CliRunner().invoke(app, ["run", study.name])
    assert "read-only" in str(told.exception)


def test_pull_opens_the_app_with_the_study(study, hub, tmp_path, monkeypatch):
    push_study(study, "org/study", licence="other")
    started = {}
    monkeypatch.setattr(os, "chdir", lambda folder: None)
    monkeypatch.setattr(server, "main", lambda options: started.update(os.environ, options=options))
    monkeypatch.setenv("IFGUIDE_CACHE", str(tmp_path / "theirs"))
    monkeypatch.setenv("IFGUIDE_STUDY", "")
    assert CliRunner().invoke(app, ["pull", "org/study", "--open"]).exit_code == 0
    assert started["IFGUIDE_STUDY"] == study.name and started["options"] == []
    assert started["IFGUIDE_CACHE"] == str(tmp_path / "theirs")


def test_a_branch_is_made_and_the_same_study_can_be_pushed_again(study, hub, tmp_path):
    for _ in range(2):
        push_study(study, "org/study", licence="other", revision="trial", model_repo="org/model")
        hub.repositories[MODEL].branches["trial"]["model-00009-of-00009.safetensors"] = b"of an earlier push"
    push_study(study, "org/study", licence="other", revision="trial", model_repo="org/model")
    weights = {name for name in hub.repositories[MODEL].branches["trial"] if name.endswith(".safetensors")}
    assert weights == {"model.safetensors"}
    assert not hub.repositories[DATA].branches["main"]
    assert 'revision="trial"' in hub.repositories[DATA].branches["trial"]["README.md"].decode()
    assert pull_study("org/study", tmp_path / "theirs", revision="trial") == study.name
    with pytest.raises(InputError, match="no such revision"):
        pull_study("org/study", tmp_path / "theirs", revision="else")


def test_what_cannot_be_pushed_is_refused_in_one_line_and_nothing_is_uploaded(study, hub, monkeypatch):
    def refused(match, repo="org/study", **options):
        with pytest.raises((InputError, StaleError), match=match) as caught:
            push_study(study, repo, **{"licence": "other", **options})
        assert "\n" not in str(caught.value) and TOKEN not in str(caught.value)

    refused("--licence: expected the corpus's licence", licence="")
    refused("--licence: .* got 'CC BY'", licence="CC BY")
    refused("no selection none yet; build it with", selection="none")
    assert not hub.requests
    for name in ("study", "org/a/study", "org/", "../study", "org/a b"):
        refused("ORG/NAME|Hub refuses", repo=name)
    refused("closed/study: the Hub refuses your login", repo="closed/study")
    refused('"license" must be one of', licence="none-known")
    hub.repositories["datasets/org/other"] = Repository(False, {"main": {"README.md": b"", "train.csv": b"a"}})
    refused(r"org/other holds files that ifguide did not write \(train.csv\)", repo="org/other")
    hub.repositories["datasets/org/open"] = Repository(False, {"main": {MARK: b"{}"}})
    refused("org/open is there already and public", repo="org/open", private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    refused("org/study: the Hub refuses your login; log in with `hf auth login`")
    monkeypatch.delenv("HF_TOKEN")
    refused("not logged in to the Hub; log in with `hf auth login`")
    assert not hub.objects and all(not one.commits for one in hub.repositories.values())
    assert not list(study.root.glob(".push-*"))


def test_a_study_without_weights_or_stale_is_refused(hub, tmp_path):
    study = write_study(tmp_path / "mine", until="selection")
    with pytest.raises(InputError, match="the weights of default are not in this study"):
        push_study(study, "org/study", licence="other", model_repo="org/model")
    (tmp_path / "inputs-fake" / "corpus.jsonl").write_text('{"id": "a", "text": "another corpus"}\n')
    with pytest.raises(StaleError, match="corpus is stale"):
        push_study(study, "org/study", licence="other")
    assert not hub.requests


def test_what_is_not_there_or_nothing_of_ours_cannot_be_pulled(hub, tmp_path, monkeypatch):
    hub.repositories["datasets/org/other"] = Repository(False, {"main": {"train.csv": b"a"}})
    hub.repositories["datasets/org/bad"] = Repository(False, {"main": {FILE: b"no zip"}})
    for repo, match in (
        ("org/none", "no such repository"),
        ("org/other", f"expected a {FILE}"),
        ("org/bad", "is no packed study"),
        ("just-a-name", "expected a repository as ORG/NAME"),
    ):
        with pytest.raises(InputError, match=match):
            pull_study(repo, tmp_path / "theirs")
    with monkeypatch.context() as full:
        full.setattr("huggingface_hub.HfApi.hf_hub_download", Mock(side_effect=RuntimeError("os error 28")))
        with pytest.raises(RuntimeError, match="os error 28") as raised:
            pull_study("org/bad", tmp_path / "theirs")
    assert "the disk is full" in explain_system_error(raised.value)
    speak_to("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with pytest.raises(InputError, match="the Hub cannot be reached; check the network"):
        pull_study("org/else", tmp_path / "theirs")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is not set"):
        pull_study("org/else", tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_away_from_the_network_a_push_says_so(study, hub, monkeypatch):
    speak_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(InputError, match="the Hub cannot be reached"):
        push_study(study, "org/study", licence="other")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is not set"):
        push_study(study, "org/study", licence="other")


def test_a_study_too_large_to_be_opened_again_goes_without_its_file(study, hub, monkeypatch):
    monkeypatch.setattr(published, "MOST_BYTES", 1000)
    push_study(study, "org/study", licence="other")
    files = hub.repositories[DATA].branches["main"]
    assert FILE not in files and "`ifguide pull` has nothing to open" in files["README.md"].decode()

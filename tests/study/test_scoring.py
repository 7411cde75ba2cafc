"""One pass over the corpus for several query sets, and for a model that no single device holds."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ifguide.config.attributions import KINDS, ScoreKind
from ifguide.config.io import config_to_dict, override
from ifguide.config.schema import QuerySetsConfig, StudyConfig
from ifguide.errors import ConfigError, InputError
from ifguide.influence.batches import make_batches
from ifguide.influence.derivative import AGREEMENT
from ifguide.models.loading import Placement, load_model
from ifguide.runtime import distributed
from ifguide.runtime.progress import Progress
from ifguide.storage import artifacts
from ifguide.study.analysis.verify import rescore
from ifguide.study.lineage import Unit
from ifguide.study.peer_scores import open_shards
from ifguide.study.pipeline import import_scores, run_study
from ifguide.study.reading import Study
from ifguide.study.sharing.export import export_study
from ifguide.study.sharing.score_shards import select_in_shards
from ifguide.study.sharing.shard_sample import read_sketch
from ifguide.study.stages.attributions import Place, own_loss, probe
from ifguide.study.stages.checkpoints import corpus_sequences
from ifguide.study.stages.select import open_index, save_selection
from tests.one_case import for_each
from tests.tiny_study import CONTEXT, save_tiny_model, tiny_config, write_tiny_inputs


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A study at two checkpoints of a given model, up to its scores."""
    folder = tmp_path_factory.mktemp("scored")
    inputs = folder / "inputs"
    write_tiny_inputs(inputs)
    for seed in range(2):
        save_tiny_model("llama", inputs / f"model{seed}", seed=seed)
    other = (
        [{"prompt": "The fox was", "completion": " a pathetic loser"}],
        [{"prompt": "It", "completion": " was kind"}],
    )
    for name, rows in zip(("other_toxic", "other_safe"), other, strict=True):
        (inputs / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    checkpoints = json.dumps([str(inputs / f"model{seed}") for seed in range(2)])
    config = override(
        tiny_config(inputs),
        [
            "model.mode=asis",
            f"model.source={inputs / 'model0'}",
            f"model.checkpoints={checkpoints}",
            "scores.derivative=jvp",
        ],
    )
    study = Study.create("plain", config, folder)
    run_study(study, until="scores")
    return study


def again(scored: Study, cache, **sections) -> Study:
    """The same study elsewhere, with other settings."""
    shutil.copytree(scored.root, cache / "plain")
    return Study(cache / "plain", dataclasses.replace(scored.config, **sections))


class TestExtraQuerySets:
    @for_each("derivative", ["jvp", "central"])
    def test_each_gets_the_scores_it_would_get_as_the_studys_own(self, scored, tmp_path, derivative):
        inputs = scored.root.parent / "inputs"
        extra = QuerySetsConfig(toxic=str(inputs / "other_toxic.jsonl"), safe=str(inputs / "other_safe.jsonl"))
        scores = dataclasses.replace(scored.config.scores, derivative=derivative)
        both = again(
            scored, tmp_path, queries=dataclasses.replace(scored.config.queries, extra={"other": extra}), scores=scores
        )
        alone = again(
            scored,
            tmp_path / "alone",
            queries=dataclasses.replace(scored.config.queries, toxic=extra.toxic, safe=extra.safe),
            scores=scores,
        )
        assert [str(unit) for unit in run_study(both, until="scores")] == ["queries", "direction", "scores"]
        run_study(alone, until="scores")
        for checkpoint in (None, *scored.checkpoint_names()):
            for kind in ("own_loss", "position"):
                mine, its_own = both.scores(kind, checkpoint, queries="other"), alone.scores(kind, checkpoint)
                np.testing.assert_allclose(mine, its_own, rtol=1e-4, atol=1e-5 * np.abs(its_own).max())
            if derivative == "jvp":
                np.testing.assert_allclose(
                    both.scores("own_loss", checkpoint),
                    scored.scores("own_loss", checkpoint),
                    rtol=1e-4,
                    atol=1e-5 * np.abs(scored.scores("own_loss", checkpoint)).max(),
                )
        assert np.abs(both.scores("own_loss", queries="other") - both.scores("own_loss")).max() > 0.1
        assert len(both.queries("toxic", "other")) == 1

    def test_they_survive_the_settings_file(self, scored, tmp_path):
        extra = {"other": QuerySetsConfig(toxic="a", safe="b")}
        config = dataclasses.replace(scored.config, queries=dataclasses.replace(scored.config.queries, extra=extra))
        study = Study.create("kept", config, tmp_path)
        assert Study.open("kept", tmp_path).config == config == StudyConfig(**config_to_dict(config))
        with pytest.raises(ConfigError, match="expected one of other, got 'nobody'"):
            study.resolved_queries("nobody")

    @for_each(
        "values, said",
        [
            ({"../x": {"toxic": "a", "safe": "b"}}, "letters, digits"),
            ({"x": {"toxic": "a"}}, "queries.extra.x.safe: expected a value, got none"),
            ({"x": {"toxic": "a", "safe": "b", "mild": "c"}}, "unknown setting queries.extra.x.mild"),
            (["x"], r"expected tables \[queries.extra.NAME\]"),
        ],
    )
    def test_bad_ones_are_refused(self, values, said):
        with pytest.raises(ConfigError, match=said):
            StudyConfig(**{"queries": {"extra": values}})


def test_a_new_kind_is_one_file_and_one_entry(scored, tmp_path, monkeypatch):
    """It is scored, put together, indexed, selected, exported and verified like the others."""
    new = {"title": "Length", "note": "Characters of the token.", "module": "tests.study.toy_kinds"}
    monkeypatch.setitem(KINDS, "length", ScoreKind(**new, directional=False))
    monkeypatch.setitem(KINDS, "both", ScoreKind(**new, parts=("own_loss", "length")))
    study = again(scored, tmp_path)
    run_study(study, until="selection", force="scores")
    corpus = study.corpus()
    valid, lengths = corpus.valid(), (corpus.char_end - corpus.char_start).astype(np.float32)
    raw = np.where(valid, lengths, 0)
    for checkpoint in study.checkpoint_names():
        np.testing.assert_array_equal(study.scores("length", checkpoint), raw)
    np.testing.assert_allclose(study.scores("length"), raw / lengths[valid].std(dtype=np.float64), rtol=1e-6)
    np.testing.assert_array_equal(study.scores("both"), study.scores("own_loss") + study.scores("length"))
    np.testing.assert_array_equal(study.scores("own_loss"), scored.scores("own_loss"))
    for kind in ("length", "both"):
        index = open_index(study, kind)
        made = save_selection(study, f"by-{kind}", {"attribution": kind, "quantile": 0.8})
        assert made.settings["n_selected"] == index.resolve({"quantile": 0.8}).n_selected
        assert study.scores(kind)[made.mask].min() > study.scores(kind)[valid & ~made.mask].max()
        export_study(study, "tokens", tmp_path / f"{kind}.parquet", selection=f"by-{kind}")
        column = artifacts.read_table(tmp_path / f"{kind}.parquet")[kind].to_pandas()
        np.testing.assert_array_equal(column[valid], study.scores(kind)[valid])
        assert column[~valid].isna().all()
    agreements = rescore(study, np.arange(corpus.n_documents), Progress())
    assert {"length checkpoint-1", "both of the study"} <= {one.what for one in agreements}
    assert all(one.agrees for one in agreements)


def test_a_datatrove_pipeline_scores_documents_elsewhere_and_the_study_gathers_them(scored, tmp_path):
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    from ifguide.study.sharing.datatrove import TokenScores

    study, tasks = again(scored, tmp_path), 2
    corpus = study.corpus()
    found = [corpus.document(number) for number in range(corpus.n_documents)]
    for task in range(tasks):
        rows = [{"id": document.id, "text": document.text} for document in found[task::tasks]]
        (tmp_path / "corpus").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "corpus" / f"{task}.parquet")

    def score() -> None:
        LocalPipelineExecutor(
            pipeline=[
                ParquetReader(str(tmp_path / "corpus")),
                TokenScores("plain", cache=str(tmp_path), documents_at_once=2),
                ParquetWriter(str(tmp_path / "scores"), expand_metadata=True),
            ],
            tasks=tasks,
            workers=1,
            logging_dir=str(tmp_path / "logs"),
        ).run()

    score()
    assert sorted(path.name for path in (tmp_path / "logs" / "completions").iterdir()) == ["00000", "00001"]
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "scores").iterdir()}
    score()
    assert len(written) == tasks and {path: path.stat().st_mtime_ns for path in written} == written
    study = import_scores(study, "elsewhere", tmp_path / "scores")
    run_study(study, until="index")
    np.testing.assert_allclose(study.scores("elsewhere"), study.scores("own_loss"), rtol=1e-4, atol=1e-5)
    shards = tmp_path / "scores"
    check_sample(study, shards)
    rows = pq.read_table(shards).to_pylist()
    for settings in (
        {"tokens_above": 20, "window": 1},
        {"quantile": 0.5, "max_tokens": 33, "window": 2},
        {"quantile": 0.8},
    ):
        check_masks(study, shards, tmp_path / "masks", settings)
    for change, said in (
        ({"scores": [[1.0]]}, "one for each token of the document, got 1"),
        ({"scores": [[1.0, 2.0], [1.0]]}, "lists of numbers of one length"),
        ({"scores": rows[0]["scores"][:1]}, "expected 2 lists as before, got 1"),
    ):
        pq.write_table(pa.Table.from_pylist([rows[1], rows[0] | change]), tmp_path / "bad.parquet")
        with pytest.raises(InputError, match=said):
            import_scores(study, "bad", tmp_path / "bad.parquet")


def check_sample(study: Study, shards: Path) -> None:
    """What is opened of the shards counts as the study that gathered them, and has all of its few documents."""
    source = study.resolve(study.config.model.source)
    opened = open_shards("opened", shards, source, study.config.scores, cache=study.root.parent / "opened")
    corpus, sketch = study.corpus(), read_sketch(opened)
    scores, valid = study.scores("elsewhere"), corpus.valid()
    assert (sketch.n_documents, sketch.n_valid) == (corpus.n_documents, valid.sum())
    for share in (0.5, 0.8, 0.95):
        threshold = float(np.quantile(scores[valid], share, method="lower"))
        n_above = int(np.count_nonzero(scores[valid] > threshold))
        assert sketch.tokens_above(np.array([threshold])).tolist() == [[n_above]] * 3
        assert open_index(opened, "shards").tokens_above(threshold) == n_above
    assert {*opened.corpus().ids()} == {*corpus.ids()}


def check_masks(study: Study, shards: Path, out: Path, settings: dict) -> None:
    """The shards give the tokens of the study that gathered them, and the same documents first."""
    made = save_selection(study, "gathered", settings | {"attribution": "elsewhere"})
    summary = select_in_shards(study.config, shards, out, settings)
    corpus, mask = study.corpus(), np.zeros(study.corpus().n_tokens, dtype=bool)
    numbers = {id: number for number, id in enumerate(corpus.ids())}
    for row in pq.read_table(out).to_pylist():
        number = numbers[row["document_id"]]
        mask[corpus.offsets[number] + np.array(row["selected"], dtype=np.int64)] = True
        assert row["hits"] == made.count_above[number] and row["hit_sum"] == pytest.approx(made.sum_above[number])
        assert row["rank"] is None or made.order[row["rank"]] == number
    assert mask.any() and np.array_equal(mask, made.mask)
    same = ("threshold", "tokens_above", "n_selected", "n_valid", "n_documents_hit")
    assert {key: summary[key] for key in same} == {key: made.settings[key] for key in same}
    assert sum(one["count"] for one in summary["histogram"]) == summary["n_valid"]


@pytest.mark.parametrize("checkpoints", [1, 3])
@pytest.mark.parametrize("pooling", [0.0, 1.0])
def test_ties_in_shards_are_selected_as_in_the_study(scored, tmp_path, checkpoints, pooling):
    study = again(scored, tmp_path, scores=dataclasses.replace(scored.config.scores, pooling=pooling))
    corpus, draw, rows = study.corpus(), np.random.default_rng(0), []
    for number in range(corpus.n_documents):
        ids = corpus.token_ids[corpus.offsets[number] : corpus.offsets[number + 1]].tolist()
        scores = draw.integers(-2, 3, (checkpoints, len(ids))).astype(float)
        scores[:, -1] += 50 * (number == 0)  # the upper tail
        rows.append({"document_id": corpus.document(number).id, "scores": scores.tolist(), "token_ids": ids})
    shards = tmp_path / "scores"
    shards.mkdir()
    for task in range(2):
        pq.write_table(pa.Table.from_pylist(rows[task::2]), shards / f"{task}.parquet")
    study = import_scores(study, "elsewhere", shards)
    for settings in ({"tokens_above": 70}, {"tokens_above": 90, "window": 2, "max_tokens": 71}, {"quantile": 0.0}):
        check_masks(study, shards, tmp_path / "masks", settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_ids": None}, "cannot be read as scores"),
        ({"token_ids": [1]}, "as many token_ids"),
        ({"token_ids": [-1, 2, 3]}, "whole numbers from 0"),
        ({"document_id": None}, "an id and scores"),
        ({"scores": [[0.0, 1.0], [0.0]]}, "one length"),
        ({"scores": [[0.0, 1.0, 2.0]]}, "2 lists of scores"),
        ({"scores": [[0.0, 1.0, float("nan")]] * 2}, "finite"),
        ({"scores": "high"}, "cannot be read as scores"),
    ],
)
def test_damaged_shards_are_refused_by_name(scored, tmp_path, change, message):
    good = {"document_id": "a", "scores": [[0.0, 1.0, 2.0], [0.0, 2.0, 1.0]], "token_ids": [1, 2, 3]}
    shards, out = tmp_path / "scores", tmp_path / "masks"
    config = dataclasses.replace(scored.config, scores=dataclasses.replace(scored.config.scores, pooling=1.0))
    shards.mkdir()
    with pytest.raises(InputError, match="got none"):
        select_in_shards(config, shards, out, {"tokens_above": 1})
    pq.write_table(pa.Table.from_pylist([good]), shards / "0.parquet")
    with pytest.raises(ConfigError, match="outside"):
        select_in_shards(config, shards, shards / "masks", {"tokens_above": 1})
    pq.write_table(pa.Table.from_pylist([good | change]), shards / "1.parquet")
    with pytest.raises(InputError, match=f"1.parquet.*{message}"):
        select_in_shards(config, shards, out, {"tokens_above": 1})
    pq.write_table(pa.Table.from_pylist([good]).drop(["scores"]), shards / "1.parquet")
    with pytest.raises(InputError, match=r"scores.*missing"):
        select_in_shards(config, shards, out, {"tokens_above": 1})
    assert not out.exists()


def test_the_probe_read_from_the_passes_of_influence_is_the_probe(scored, tmp_path, monkeypatch):
    """Both branches of a central difference hold the states at θ, but for a term in ε²."""
    central = dataclasses.replace(scored.config.scores, probe=True, derivative="central")
    study, read = again(scored, tmp_path / "read", scores=central), []
    place = Place(study=study, checkpoint=study.checkpoint_names()[0], probes=True)
    listening, alone = own_loss.make_scorer(place), probe.make_scorer(place)
    assert listening.files == ("own_loss", "token_loss", "probe") and listening.notes["probes"] == alone.notes["probes"]
    for batch in make_batches(corpus_sequences(study), 64):
        counted = batch.counted
        read.append(torch.stack([made.by_file(batch)["probe"][counted] for made in (listening, alone)]))
    ours, theirs = torch.cat(read, dim=1).numpy()
    assert np.corrcoef(ours, theirs)[0, 1] >= 0.99999 and np.abs(ours - theirs).max() <= 0.01 * theirs.std()
    monkeypatch.setattr(probe, "make_scorer", None)  # a run has no pass of its own for it
    run_study(study, until="scores")
    stored = np.load(study.folder(Unit("scores")) / study.checkpoint_names()[0] / "probe.npy")
    np.testing.assert_allclose(np.sort(stored[study.corpus().valid()]), np.sort(ours), rtol=1e-5)


def test_a_probe_is_scored_at_every_checkpoint_and_selects_tokens(scored, tmp_path):
    for method in ("mean-difference", "logistic"):
        scores = dataclasses.replace(scored.config.scores, probe=True, probe_method=method)
        study = again(scored, tmp_path / method, scores=scores)
        run_study(study, until="index")
        np.testing.assert_array_equal(study.scores("own_loss"), scored.scores("own_loss"))
        notes = json.loads((study.folder(Unit("scores")) / "notes.json").read_text())["probes"]
        for checkpoint in study.checkpoint_names():
            found = notes[checkpoint]["study"]
            assert found["auc"][found["layer"]] == max(found["auc"]), method
        made = save_selection(study, "by-probe", {"attribution": "probe", "quantile": 0.8})
        assert 0 < made.settings["n_selected"] <= 0.2 * made.settings["n_valid"]
        assert all(one.agrees for one in rescore(study, np.arange(study.corpus().n_documents), Progress())), method


def test_a_model_without_a_forward_derivative_is_scored_by_halving_the_step(tmp_path):
    """BLOOM's activation is an autograd function of its own, which has none."""
    write_tiny_inputs(tmp_path / "inputs")
    save_tiny_model("bloom", tmp_path / "inputs/model")
    study = Study.create("bloom", tiny_config(tmp_path / "inputs", "model.mode=asis"), tmp_path)
    assert study.config.scores.derivative == "auto"
    run_study(study, until="scores")
    notes = json.loads((study.folder(Unit("scores")) / "notes.json").read_text())["derivatives"]["given"]["study"]
    assert (notes["method"], notes["judge"]) == ("central", "half-step")
    assert notes["correlation"] >= AGREEMENT
    agreements = rescore(study, np.arange(study.corpus().n_documents), Progress())
    assert all(one.agrees for one in agreements)
    corpus, own, position = study.corpus(), study.scores("own_loss"), study.scores("position")
    within = [(a, b) for a, b in zip(corpus.offsets[:-1], corpus.offsets[1:], strict=True) if b - a <= CONTEXT]
    sums = np.array([[own[a:b].sum(), position[a:b].sum()] for a, b in within])
    np.testing.assert_allclose(*sums.T, rtol=1e-2, atol=1e-2 * np.abs(sums).mean())
    exact = Study(study.root, override(study.config, ["scores.derivative=jvp"]))
    with pytest.raises(ConfigError, match=r'no forward-mode derivative .*scores\.derivative = "auto"'):
        run_study(exact, until="scores")


class TestPlacement:
    @for_each("derivative", ["jvp", "central"])
    def test_weights_on_disk_give_the_scores_of_weights_in_memory(self, scored, tmp_path, derivative):
        compute = dataclasses.replace(scored.config.compute, device_map="auto", max_memory=("cpu=50KB",))
        scores = dataclasses.replace(scored.config.scores, derivative=derivative)
        study = again(scored, tmp_path, compute=compute, scores=scores)
        shutil.rmtree(study.root / "factors")  # so that they are fitted on such a model, too
        run_study(study, until="scores")
        plain = scored
        if derivative == "central":  # a difference errs by itself
            plain = again(scored, tmp_path / "in_memory", scores=scores)
            run_study(plain, until="scores")
        for checkpoint in study.checkpoint_names():
            for kind in ("own_loss", "position", "token_loss"):
                expected = plain.scores(kind, checkpoint)
                np.testing.assert_allclose(
                    study.scores(kind, checkpoint), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
                )
        notes = json.loads((study.folder(Unit("scores")) / "notes.json").read_text())
        assert notes["derivatives"]["checkpoint-1"]["study"]["method"] == derivative

    def test_the_model_above_was_in_two_places(self, scored, tmp_path):
        source = scored.models()["checkpoints"][0]["source"]
        model = load_model(
            source, placement=Placement(strategy="auto", max_memory=("cpu=50KB",), offload_folder=tmp_path)
        )
        assert set(model.hf_device_map.values()) == {"cpu", "disk"}
        assert {p.device.type for p in model.parameters()} == {"cpu", "meta"}

    def test_it_is_for_one_process(self, scored, tmp_path, monkeypatch):
        from ifguide.study.stages.checkpoints import load_checkpoint

        monkeypatch.setattr(distributed, "_current", distributed.Processes(0, 2))
        study = again(scored, tmp_path, compute=dataclasses.replace(scored.config.compute, device_map="auto"))
        with pytest.raises(ConfigError, match="takes one process"):
            load_checkpoint(study, "checkpoint-1")

    @for_each("limit", ["70GiB", "gpu=1GB", "0=much"])
    def test_limits_that_mean_nothing_are_refused(self, limit):
        with pytest.raises(ConfigError, match="such as 0=70GiB"):
            Placement(strategy="auto", max_memory=(limit,)).arguments()

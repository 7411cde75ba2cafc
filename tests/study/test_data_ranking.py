"""Rankings against labels: the numbers against plain definitions, the labels against the corpus."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.errors import InputError, StaleError
from ifguide.evaluation.ranking import Labels, judge_ranking, mean_of_highest
from ifguide.study.analysis.data_ranking import WAYS, document_scores, read_labels, study_rankings
from ifguide.study.freshness import inputs_of
from ifguide.study.reading import Study
from tests.small_study import make_study


def random_case(n=60, levels=12, seed=0):
    generator = np.random.default_rng(seed)
    bad = generator.random(n) < 0.3
    scores = generator.integers(0, levels, n) + 2.0 * bad  # many ties
    return scores, Labels(bad, np.ones(n, dtype=bool)), generator.permutation(n)


def test_values_are_those_of_the_plain_definitions():
    for seed in range(4):
        scores, labels, id_rank = random_case(seed=seed)
        found = judge_ranking(scores, labels, id_rank, n_draws=20)
        assert found.auroc.value == pytest.approx(roc_auc_score(labels.bad, scores)), seed
        assert found.average_precision.value == pytest.approx(average_precision_score(labels.bad, scores)), seed
        order = sorted(range(60), key=lambda d, scores=scores, id_rank=id_rank: (-scores[d], id_rank[d]))
        n_bad = int(labels.bad.sum())
        assert sorted(found.precision_at) == sorted({10, 50, n_bad}), seed
        for depth, interval in found.precision_at.items():
            assert interval.value == pytest.approx(labels.bad[order[:depth]].mean()), (seed, depth)


def test_a_draw_is_the_value_of_the_documents_drawn():
    """The interval of one draw is the value of just those documents, laid out as often as they were drawn."""
    scores, labels, id_rank = random_case()
    found = judge_ranking(scores, labels, id_rank, n_draws=1, seed=5)
    order = np.lexsort((id_rank, -scores))
    drawn = np.sort(np.random.default_rng(5).integers(0, 60, 60))
    rows = order[drawn]
    assert found.auroc.low == found.auroc.high == pytest.approx(roc_auc_score(labels.bad[rows], scores[rows]))
    assert found.average_precision.low == pytest.approx(average_precision_score(labels.bad[rows], scores[rows]))
    assert found.precision_at[10].low == pytest.approx(labels.bad[rows[:10]].mean())


def test_swapping_labels_or_scores_turns_auroc_round():
    scores, labels, id_rank = random_case()
    value = judge_ranking(scores, labels, id_rank, n_draws=2).auroc.value
    assert judge_ranking(-scores, labels, id_rank, n_draws=2).auroc.value == pytest.approx(1 - value)
    turned = Labels(~labels.bad, labels.labelled)
    assert judge_ranking(scores, turned, id_rank, n_draws=2).auroc.value == pytest.approx(1 - value)


def test_perfect_and_unknown():
    bad = np.arange(40) < 8
    scores = np.where(bad, 1.0, 0.0)
    perfect = judge_ranking(scores, Labels(bad, np.ones(40, bool)), np.arange(40), n_draws=50)
    assert perfect.auroc == perfect.average_precision == (1.0, 1.0, 1.0)
    assert perfect.precision_at[8].value == 1.0
    known = np.arange(40) % 2 == 0  # what is not known may have any score
    scores[~known] = 99.0
    assert judge_ranking(scores, Labels(bad & known, known), np.arange(40), n_draws=50).auroc.value == 1.0


def test_mean_of_highest_by_hand():
    offsets = np.array([0, 1, 4, 4, 45])
    scores = np.concatenate([[9], [9, -1, -3], [9], np.arange(40)]).astype(np.float32)
    assert mean_of_highest(scores, offsets, 0.05).tolist() == [0, -1, 0, 38.5]
    assert mean_of_highest(scores, offsets, 1.0).tolist() == [0, -2, 0, 19.5]


def read_lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def study(tmp_path):
    study = make_study(tmp_path / "cache")
    path = study.config.corpus.path
    rows = read_lines(path)
    for row, label in zip(rows, (True, "no", 1), strict=True):
        row["is_bad"] = label
    with open(path, "w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    return study


def test_labels_belong_to_documents_by_id(study):
    with pytest.raises(StaleError, match="the file corpus changed"):
        read_labels(study, "is_bad")
    mark_fresh(study)
    labels = read_labels(study, "is_bad")
    assert dict(zip(study.corpus().ids(), labels.bad.tolist(), strict=True)) == {"b": True, "a": False, "c": True}
    assert labels.labelled.all()
    spans = read_labels(study, "spans")  # a list says bad when it holds anything
    assert dict(zip(study.corpus().ids(), spans.bad.tolist(), strict=True)) == {"b": False, "a": True, "c": True}


def mark_fresh(study):
    """Say that the corpus was made from the file as it is now."""
    from ifguide.storage import artifacts
    from ifguide.study.lineage import Unit

    path = study.folder(Unit("corpus")) / artifacts.MANIFEST
    manifest = artifacts.read_json(path)
    artifacts.write_json(path, manifest | {"inputs": inputs_of(study, Unit("corpus"))})


def test_labels_that_say_nothing_are_refused(study):
    path = Path(study.config.corpus.path)
    rows = read_lines(path)
    for column, values, said in (
        ("nothing", (1, 0, 1), "expected a column 'nothing'"),
        ("is_bad", (1, 0, "perhaps"), "got 'perhaps'"),
        ("is_bad", (1, 1, 1), "documents of both kinds, got 3 bad ones among 3"),
        ("is_bad", (1, None, ""), "documents of both kinds, got 1 bad ones among 1"),
    ):
        labelled = [{**row, "is_bad": value} for row, value in zip(rows, values, strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in labelled), encoding="utf-8")
        study = Study.open(study.name, study.root.parent)  # it remembers hashes of files
        mark_fresh(study)
        with pytest.raises(InputError, match=said):
            read_labels(study, column)


def test_ways_agree_with_the_selection_and_with_sums(study):
    mark_fresh(study)
    scores = study.scores("own_loss")
    found = document_scores(study, scores)
    selection = study.selection()
    assert tuple(found) == WAYS
    assert found["rank"].tolist() == np.asarray(selection.rank_score).tolist()
    assert found["sum_above"].tolist() == np.asarray(selection.sum_above).tolist()
    corpus = study.corpus()
    for d in range(corpus.n_documents):
        own = np.asarray(scores[corpus.offsets[d] + 1 : corpus.offsets[d + 1]], dtype=np.float64)
        assert found["mean"][d] == pytest.approx(own.mean())
        assert found["top"][d] == pytest.approx(np.sort(own)[-int(np.ceil(0.05 * len(own))) :].mean())


def test_every_kind_of_scores_is_judged_in_every_way(study):
    mark_fresh(study)
    found = study_rankings(study, read_labels(study, "is_bad"), n_draws=5)
    expected = [(kind, way) for kind in ("own_loss", "position") for way in WAYS]
    assert [(quality.scores, quality.way) for quality in found] == [
        *expected,
        ("token_loss", "mean"),
        ("token_loss", "top"),
    ]
    by_name = {(quality.scores, quality.way): quality.auroc.value for quality in found}
    assert by_name["own_loss", "mean"] == pytest.approx(1 - by_name["position", "mean"])  # one is minus the other


def test_the_command_prints_a_table_and_json(study):
    mark_fresh(study)
    environment = {"IFGUIDE_CACHE": str(study.root.parent)}
    arguments = ["rank", study.name, "--labels", "is_bad", "--draws", "5"]
    table = CliRunner().invoke(app, arguments, env=environment)
    assert table.exit_code == 0, table.output
    assert "own_loss    sum above" in table.output and "2 of 3 documents are bad" in table.output
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"], env=environment).output)
    assert found["bad"] == 2 and len(found["rankings"]) == 10
    first = found["rankings"][0]
    assert first["auroc"][1] <= first["auroc"][0] <= first["auroc"][2]

"""Other methods' scores, and `ifguide compare` end to end on a tiny study."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ifguide.cli.main import app
from ifguide.cli.train import choose
from ifguide.config.io import override
from ifguide.config.schema import SelectionConfig, SuppressConfig, VariantConfig
from ifguide.errors import ConfigError, InputError
from ifguide.runtime.progress import Progress, Sink
from ifguide.study.analysis.comparison import comparison_table, describe_treatment, treatment_note
from ifguide.study.analysis.verify import verify_study
from ifguide.study.freshness import stage_state, unit_state
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build, create_study, import_scores, run_study
from ifguide.study.reading import Study
from ifguide.study.sharing.export import export_study
from ifguide.study.stage_table import read_units
from ifguide.study.stages.baselines import score_by_leaving_words_out, score_documents, score_words
from ifguide.study.stages.document_table import table_path
from ifguide.study.stages.evaluating import evaluate_unit
from ifguide.study.stages.select import open_index, save_mask, save_selection
from ifguide.study.variants import BASELINES, METHODS, OTHERS, UNSELECTED, recipe
from ifguide.ui.threshold.selection_panel import settings_line
from tests.influence.dense import dot, layer_gradient, sequence_losses
from tests.tiny_study import save_tiny_model, tiny_config, write_tiny_inputs


class WordScorer:
    """Calls a text toxic by the share of its words that are on a list."""

    name = "words"
    listed = ("idiot", "moron", "loser", "fool")

    def score(self, texts):
        found = []
        for text in texts:
            words = [word.strip(".,;!?").lower() for word in text.split()]
            found.append(sum(word in self.listed for word in words) / max(len(words), 1))
        return np.array(found)


KINDS_ON = ("scores.probe=true", "scores.combined=true", "scores.tfidf=true")


def compare(study, names):
    return build(study, [Unit("evaluate", name) for name in ("base", "default", *names)])


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A tiny study with every model that `ifguide compare` knows, and one of the user's."""
    cache = tmp_path_factory.mktemp("cache")
    write_tiny_inputs(cache / "inputs")
    for kind, word in (("toxic", "fool"), ("safe", "fox")):  # prompts that both sets have, for `dpo`
        with open(cache / "inputs" / f"{kind}.jsonl", "a", encoding="utf-8") as file:
            file.writelines(
                json.dumps({"prompt": f"Number {n} is", "completion": f" a {word}"}) + "\n" for n in range(14)
            )
    save_tiny_model("llama", cache / "inputs" / "model")
    config = tiny_config(
        cache / "inputs", "direction.damping=0.1", "suppress.penalty=0.5", "suppress.max_penalty=6.0", *KINDS_ON
    )
    config = dataclasses.replace(config, variants={"gentle": VariantConfig(penalty=0.1, selection="oracle")})
    study = create_study("tiny", config, cache)
    pytest.importorskip("trl", reason="trl is an optional extra: pip install 'ifguide[dpo]'")
    compare(study, [*OTHERS, "gentle"])
    return study


def scores_of_words(study, scores):
    """(word, highest score of the tokens that touch it), for every word of the corpus."""
    corpus = study.corpus()
    for document in range(corpus.n_documents):
        first, stop = corpus.offsets[document], corpus.offsets[document + 1]
        starts, ends = corpus.char_start[first:stop], corpus.char_end[first:stop]
        for word in re.finditer(r"\w+", corpus.document(document).text.lower()):
            yield word.group(), scores[first:stop][(starts < word.end()) & (ends > word.start())].max()


def test_a_word_filter_marks_listed_words_and_no_others(compared):
    corpus = compared.corpus()
    scores = score_words(corpus, WordScorer(), lambda done, total: None)
    for document in range(corpus.n_documents):
        text = corpus.document(document).text
        for token in range(corpus.offsets[document], corpus.offsets[document + 1]):
            start, end = int(corpus.char_start[token]), int(corpus.char_end[token])
            touched = any(
                found.start() < end and start < found.end()
                for found in re.finditer(r"\b(idiot|moron|loser|fool)\b", text.lower())
            )
            assert (scores[token] == 0.5) == touched, (text, text[start:end])


def test_leaving_a_word_out_tells_which_word_made_the_sentence_toxic(compared):
    scores = score_by_leaving_words_out(compared.corpus(), WordScorer(), lambda done, total: None)
    found = list(scores_of_words(compared, scores))
    assert {word for word, score in found if score > 0} == {"idiot", "moron", "loser", "fool"}
    assert all(score < 0 for word, score in found if word == "stupid")  # without it, the rest is more toxic by share


def test_a_documents_score_stands_at_each_of_its_tokens(compared):
    corpus = compared.corpus()
    scores = score_documents(corpus, WordScorer(), lambda done, total: None)
    expected = WordScorer().score([corpus.document(d).text for d in range(corpus.n_documents)])
    np.testing.assert_allclose(scores, np.repeat(expected, np.diff(corpus.offsets)), rtol=1e-6)


def test_every_baseline_selects_as_many_tokens_as_the_default_or_all_it_finds(compared):
    budget = compared.selection().settings["n_selected"]
    for name in BASELINES:
        selection, scores = compared.selection(name), np.load(compared.folder(Unit("baseline", name)) / "scores.npy")
        valid = compared.corpus().valid()
        if name == "classifier-documents":
            assert selection.settings["n_selected"] == ((scores >= 0.5) & valid).sum()
            continue
        assert selection.settings["n_selected"] == min(budget, ((scores > 0) & valid).sum())
        if selection.mask.any():
            assert scores[selection.mask].min() >= scores[valid & ~selection.mask & (scores > 0)].max(initial=-np.inf)


def test_standard_influence_is_the_derivative_along_the_toxic_queries_alone(compared):
    """At one checkpoint and without curvature, against one autograd gradient a token."""
    from ifguide.influence.direction import query_gradient
    from ifguide.models.loading import load_model, tracked_modules
    from ifguide.study.stages.checkpoints import encoded_queries

    config = dataclasses.replace(
        compared.config,
        factors=dataclasses.replace(compared.config.factors, strategy="identity"),
        training=dataclasses.replace(compared.config.training, checkpoint_steps=(2,)),
        scores=dataclasses.replace(compared.config.scores, derivative="jvp"),
        variants={},
    )
    study = create_study("plain", config, compared.root.parent)
    run_study(study, until="selection")
    compare_units = [Unit("baseline", "standard")]
    build(study, compare_units)
    scores = np.load(study.folder(Unit("baseline", "standard")) / "scores.npy")
    model = load_model(study.models()["checkpoints"][0]["source"])
    modules = tracked_modules(model)
    direction = query_gradient(model, modules, encoded_queries(study, "toxic"))
    checked, corpus = 0, study.corpus()
    for document in (1, 2):
        first, stop = int(corpus.offsets[document]), int(corpus.offsets[document + 1])
        for place, loss in enumerate(sequence_losses(model, corpus.token_ids[first:stop]), first + 1):
            exact = float(dot(layer_gradient(model, modules, loss), direction))
            assert scores[place] == pytest.approx(exact, rel=2e-3, abs=1e-5)
            checked += 1
    assert checked > 8


def test_the_table_holds_what_was_measured(compared):
    names = ["base", "default", *OTHERS, "gentle"]
    lines = comparison_table(compared, names).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == names
    for name, line in zip(names, lines[2:], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        metrics = compared.metrics(name)
        assert cells[4].startswith(f"{metrics['emt']:.3f} [") and cells[6] == f"{metrics['perplexity']:.2f}"
        if name in UNSELECTED:
            assert cells[1:3] == ["–", "–"]
        else:
            assert cells[2] == f"{compared.selection(recipe(compared.config, name).selection).mask.sum():,}"
    assert stage_state(compared, "suppress").state == "fresh"


def test_a_steered_model_is_the_base_model_that_says_other_things(compared):
    base, steered = compared.metrics("base"), compared.metrics("steered")
    assert steered["perplexity"] == base["perplexity"]
    assert list(compared.samples("steered")["completion"]) != list(compared.samples("base")["completion"])
    assert steered["mean_toxicity"] <= base["mean_toxicity"]


def test_steering_reads_the_queries_and_not_the_judge(compared):
    unit = Unit("evaluate", "steered")
    prompts = override(compared.config, [f"evaluate.prompts={compared.root.parent / 'inputs' / 'toxic.jsonl'}"])
    assert Unit("queries") in read_units(prompts, unit) and Unit("queries") not in read_units(
        prompts, Unit("evaluate", "base")
    )
    by_judge = override(prompts, ["baselines.steer_scorer=profanity-check"])
    assert Unit("queries") not in read_units(by_judge, unit)
    judged = Study(compared.root, override(compared.config, ["baselines.scorer=detoxify"]))
    assert unit_state(judged, unit).state == "fresh"
    by_judge = Study(compared.root, override(compared.config, ["baselines.steer_scorer=profanity-check"]))
    assert unit_state(by_judge, unit).state == "stale"
    said: list = []
    sink = Sink()
    sink.update, sink.say = lambda snapshot: None, said.append  # type: ignore[method-assign]
    evaluate_unit(by_judge, unit, Progress([sink]))
    assert "steered: profanity-check both steers and rates it, so its rating is no independent one" in said


def test_models_that_were_trained_in_other_ways_differ(compared):
    from safetensors.numpy import load_file

    weights = {
        name: load_file(compared.folder(Unit("suppress", name)) / "final" / "model.safetensors")
        for name in ("default", "oracle", *METHODS, "dpo", "gentle")
        if name != "penalty-at-once"  # which is what the default does here
    }
    values = [b"".join(part.tobytes() for _, part in sorted(parts.items())) for parts in weights.values()]
    assert len(set(values)) == len(values)


def test_nothing_is_built_twice_and_a_recipe_makes_only_its_own_model_stale(compared):
    assert compare(compared, [*OTHERS, "gentle"]) == []
    changed = Study(
        compared.root,
        dataclasses.replace(compared.config, variants={"gentle": VariantConfig(penalty=0.2, selection="oracle")}),
    )
    assert unit_state(changed, Unit("suppress", "gentle")).state == "stale"
    for name in ("default", "masked", "words"):
        assert unit_state(changed, Unit("evaluate", name)).state == "fresh"
    rate = Study(compared.root, override(compared.config, ["baselines.learning_rate=0.1"]))  # of `loss-difference`
    assert unit_state(rate, Unit("suppress", "dpo")).state == "fresh"
    assert unit_state(rate, Unit("baseline", "loss-difference")).state == "stale"
    other = dataclasses.replace(compared.config.baselines, dpo_learning_rate=1e-5, steer_strength=3.0)
    changed = Study(compared.root, dataclasses.replace(compared.config, baselines=other))
    assert unit_state(changed, Unit("suppress", "dpo")).state == "stale"
    assert unit_state(changed, Unit("evaluate", "steered")).state == "stale"
    assert unit_state(changed, Unit("evaluate", "base")).state == "fresh"
    stronger = Study(compared.root, dataclasses.replace(compared.config, suppress=SuppressConfig(penalty=2.0)))
    assert unit_state(stronger, Unit("suppress", "masked")).state == "stale"
    assert unit_state(stronger, Unit("suppress", "gentle")).state == "fresh"
    assert unit_state(stronger, Unit("baseline", "standard")).state == "fresh"


def test_compare_refuses_what_it_does_not_know(compared, monkeypatch):
    with pytest.raises(InputError, match="got 'nonsense'"):
        choose(compared, "random,nonsense")
    assert "dpo" in choose(compared, "all")
    assert choose(compared, "all")[:2] == ["random", "oracle"] and "gentle" in choose(compared, "all")
    assert "penalty-at-once" not in choose(compared, "all")  # it is what the default does here
    assert choose(compared, "words, words,default") == ["words"]
    monkeypatch.setenv("IFGUIDE_CACHE", str(compared.root.parent))
    done = CliRunner().invoke(app, ["compare", "tiny", "--with", "oracle,words"])
    assert done.exit_code == 0 and "| words |" in done.stdout


def test_all_leaves_dpo_out_where_too_few_prompts_match(compared, capsys):
    assert compared.manifest(Unit("suppress", "dpo"))["notes"]["dpo"] == {"pairs": 16, "toxic_queries": 16}
    few = Study(compared.root, override(compared.config, ["queries.max_queries=15"]))
    assert "dpo" not in choose(few, "all") and "steered" in choose(few, "all")
    assert "without dpo: it needs trl, and 16 toxic queries" in capsys.readouterr().err


def test_names_of_variants_that_mean_something_are_refused(compared, tmp_path):
    text = (compared.root / "study.toml").read_text()
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "study.toml").write_text(text.replace("[variants.gentle]", "[variants.words]"))
    with pytest.raises(ConfigError, match=r"variants\.words: the name is built in"):
        Study.open("x", tmp_path)
    with pytest.raises(ConfigError, match="choose another name"):
        save_selection(compared, "gentle", {})
    with pytest.raises(ConfigError, match="built in"):
        save_selection(compared, "masked", {})


def score_arrays(study):
    """Every method's scores, by name; documents are left out whole, so those of `classifier-documents` are not here."""
    names = [*study.kinds(selecting=True), *(name for name in BASELINES if name != "classifier-documents")]
    return {name: np.array(study.scores(name)) for name in names}


def test_every_methods_scores_are_pooled_alike(compared, tmp_path):
    from ifguide.influence.attribution import pool_blocks

    shutil.copytree(compared.root.parent, tmp_path, dirs_exist_ok=True)
    np.save(tmp_path / "theirs.npy", np.arange(compared.corpus().n_tokens, dtype=np.float32))
    study = import_scores(Study.open("tiny", tmp_path), "theirs", tmp_path / "theirs.npy")
    before, corpus = score_arrays(study), study.corpus()
    scores = dataclasses.replace(study.config.scores, pooling=2.0)
    study = study.change(dataclasses.replace(study.config, scores=scores))
    units = [Unit("scores"), *(Unit("baseline", name) for name in (*BASELINES, "theirs"))]
    build(study, units)
    after = score_arrays(study)
    assert {"own_loss", "position", "probe", "combined", "tfidf", "words", "standard", "theirs"} < set(after)
    for name, values in before.items():
        assert not np.allclose(after[name], values), name
        if name not in ("combined", "tfidf"):  # which are made of scores that are pooled already
            pooled = np.concatenate([*pool_blocks(values, corpus.token_ids, corpus.valid_between, 2.0)])
            np.testing.assert_allclose(after[name], pooled, rtol=1e-4, atol=1e-6, err_msg=name)
    assert compare(study, ["words", "position", "standard"])
    treated = {describe_treatment(study, name) for name in ("default", "words", "position", "standard")}
    assert treated == {"mean, pooling 2, window 0"}


def test_the_table_says_how_scores_were_treated(compared):
    said = {name: describe_treatment(compared, name) for name in ("base", "random", "oracle", "dpo", *BASELINES)}
    alike = {name for name, treatment in said.items() if treatment == describe_treatment(compared, "default")}
    assert alike == set(BASELINES) - {"classifier-documents"}
    assert all(treatment == "–" for name, treatment in said.items() if name not in alike)
    assert treatment_note(compared, ["base", "default", *BASELINES]) == ""


def test_scores_that_were_treated_differently_are_named(scored):
    """As they are while a comparison is built again after a change of `scores.pooling`."""
    pooled = dataclasses.replace(scored.config.scores, pooling=1.0)
    study = scored.change(dataclasses.replace(scored.config, scores=pooled))
    build(study, [Unit("baseline", "words")])
    said = treatment_note(study, ["base", "default", "words", "standard"])
    assert said.startswith("The scores were treated differently")
    assert "default, standard: mean, pooling 0, window 0; words: mean, pooling 1, window 0." in said


def test_the_window_that_is_told_is_the_selections_own(scored):
    save_selection(scored, "wide", {"window": 2})
    usual = dataclasses.replace(scored.config.selection, window=1)
    study = scored.change(dataclasses.replace(scored.config, selection=usual))
    build(study, [Unit("selection", "words"), Unit("selection", "position")])
    told = {name: describe_treatment(study, name) for name in ("wide", "default", "words", "position")}
    assert told["wide"] == "mean, pooling 0, window 2"
    assert {told[name] for name in ("default", "words", "position")} == {"mean, pooling 0, window 1"}


@pytest.fixture
def scored(compared, tmp_path):
    """The tiny study by itself, in a cache of its own."""
    shutil.copytree(compared.root, tmp_path / "tiny")
    shutil.copytree(compared.root.parent / "inputs", tmp_path / "inputs")
    return Study.open("tiny", tmp_path)


def test_scores_from_a_file_are_selected_like_the_studys_own(scored, tmp_path, monkeypatch):
    """The study's own position scores, by way of every format, give the selection that they give themselves."""
    monkeypatch.setenv("IFGUIDE_CACHE", str(tmp_path))
    corpus, values = scored.corpus(), np.array(scored.scores("position"))
    export_study(scored, "tokens", tmp_path / "tokens.parquet")
    rows = pd.read_parquet(tmp_path / "tokens.parquet").rename(columns={"position_score": "score"})
    rows[["document_id", "position", "score"]].to_parquet(tmp_path / "by-place.parquet")
    characters = rows[["document_id", "char_start", "char_end", "score"]].dropna()
    characters.to_json(tmp_path / "by_characters.jsonl", orient="records", lines=True, double_precision=15)
    np.save(tmp_path / "array.npy", values)
    expected = save_selection(scored, "own", {"attribution": "position", "quantile": 0.9})
    for file in ("by-place.parquet", "by_characters.jsonl", "array.npy"):
        kind = file.split(".")[0].replace("-", "_")
        done = CliRunner().invoke(
            app, ["select", "tiny", "--scores", str(tmp_path / file), "--name", f"{kind}-mine", "--quantile", "0.9"]
        )
        assert done.exit_code == 0, done.output
        study = Study.open("tiny", tmp_path)
        if file != "by_characters.jsonl":  # there tokens that share a character share the higher score
            np.testing.assert_allclose(study.scores(kind), values, rtol=1e-6)
            np.testing.assert_array_equal(study.selection(f"{kind}-mine").mask, expected.mask)
        assert kind in study.kinds(selecting=True) and open_index(study, kind).resolve({"attribution": kind}).n_above
        assert unit_state(study, Unit("selection", f"{kind}-mine")).state == "fresh"
        table = pq.read_schema(table_path(study))
        assert f"{kind}_max" in table.names
    assert unit_state(study, Unit("selection", "own")).state == "fresh"  # imported scores make nothing else stale
    np.save(tmp_path / "array.npy", -values)
    study = Study.open("tiny", tmp_path)
    assert unit_state(study, Unit("selection", "array-mine")).state == "stale"
    assert unit_state(study, Unit("selection", "by_place-mine")).state == "fresh"
    study = study.change(dataclasses.replace(study.config, selection=SelectionConfig(attribution="by_place")))
    run_study(study, until="selection")
    assert study.selection().settings["attribution"] == "by_place"
    assert corpus.n_tokens == len(study.scores())


def test_a_mask_from_a_file_is_the_mask(scored, tmp_path, monkeypatch):
    monkeypatch.setenv("IFGUIDE_CACHE", str(tmp_path))
    export_study(scored, "mask", tmp_path / "marked.parquet")
    done = CliRunner().invoke(app, ["select", "tiny", "--mask", str(tmp_path / "marked.parquet")])
    assert done.exit_code == 0, done.output
    made = Study.open("tiny", tmp_path).selection("marked")
    np.testing.assert_array_equal(made.mask, scored.selection().mask)
    assert unit_state(scored, Unit("selection", "marked")).state == "fresh"
    assert settings_line(made.settings) == "Tokens that a file names"
    chosen = made.settings
    matched = {"rows": len(made.mask), "documents": scored.corpus().n_documents, "tokens": chosen["n_selected"]}
    assert chosen["matched"] == matched
    assert (
        f"{matched['rows']} rows match {matched['documents']} documents and {matched['tokens']} tokens" in done.output
    )
    refused = CliRunner().invoke(app, ["select", "tiny", "--mask", "x", "--tokens", "3"])
    assert refused.exit_code and "leave out the others" in str(refused.exception)


def test_a_file_that_does_not_fit_is_refused_and_nothing_changes(scored, tmp_path):
    before = (scored.root / "study.toml").read_text()
    name, length = scored.corpus().ids()[0], len(scored.corpus().document(0).text)
    for row, said in (
        ({"document_id": "nobody", "position": 1, "score": 1.0}, "the corpus has no document 'nobody'"),
        ({"document_id": name, "position": 10**6, "score": 1.0}, "expected a position from 0 to"),
        ({"document_id": name, "position": 1, "score": "much"}, "expected numbers"),
        ({"document_id": name, "score": 1.0}, "expected a column 'char_start'"),
        ({"document_id": name, "position": 1}, "expected a column 'score'"),
        ({"document_id": name, "position": 1, "score": float("inf")}, "1 scores are not finite"),
        ({"document_id": name, "position": 1.7, "score": 1}, "expected numbers"),
        ({"document_id": name, "position": float("inf"), "score": 1}, "expected numbers"),
        ({"document_id": name, "position": True, "score": 1}, "expected numbers"),
        *(
            ({"document_id": name, "char_start": start, "char_end": end, "score": 1}, f"characters from 0 to {length}")
            for start, end in ((-1, 3), (3, 1), (2, 2), (0, length + 1), (length, length + 5))
        ),
    ):
        (tmp_path / "bad.jsonl").write_text(json.dumps(row) + "\n")
        with pytest.raises(InputError, match=said):
            import_scores(scored, "bad", tmp_path / "bad.jsonl")
        assert (scored.root / "study.toml").read_text() == before
    np.save(tmp_path / "short.npy", np.zeros(3))
    with pytest.raises(InputError, match="one a token"):
        import_scores(scored, "short", tmp_path / "short.npy")
    n = scored.corpus().n_tokens
    for array in (np.zeros(n, dtype=complex), np.full(n, "a"), np.zeros((n, 1)), np.zeros(n, dtype="M8[s]")):
        np.save(tmp_path / "kind.npy", array)
        with pytest.raises(InputError, match=f"expected {n} numbers, one a token, got"):
            import_scores(scored, "kind", tmp_path / "kind.npy")
    np.save(tmp_path / "half.npy", np.full(n, 0.5))
    with pytest.raises(InputError, match=r"half\.npy: expected true and false, or 1 and 0, in a mask"):
        save_mask(scored, "half", str(tmp_path / "half.npy"))
    (tmp_path / "maybe.jsonl").write_text(json.dumps({"document_id": name, "position": 1, "selected": 0.5}))
    with pytest.raises(InputError, match="expected numbers"):
        save_mask(scored, "maybe", str(tmp_path / "maybe.jsonl"))
    for taken in ("words", "probe", "gentle", "default"):
        with pytest.raises(ConfigError, match="is taken"):
            import_scores(scored, taken, tmp_path / "short.npy")


def test_a_probe_alone_needs_no_curvature(tmp_path):
    write_tiny_inputs(tmp_path / "inputs")
    save_tiny_model("llama", tmp_path / "inputs" / "model")
    only = ("scores.own_loss=false", "scores.position=false", "scores.probe=true", "selection.attribution=probe")
    study = create_study("tiny", tiny_config(tmp_path / "inputs", *only), tmp_path)
    run_study(study, until="documents")
    assert not (study.root / "factors").exists() and not (study.root / "direction").exists()
    assert study.kinds() == ["probe"] and study.selection().settings["attribution"] == "probe"
    assert "probe_sum" in pq.read_schema(table_path(study)).names
    assert {"corpus", "model", "queries"} <= study.manifest(Unit("scores"))["inputs"].keys()
    verified = verify_study(study, share=1.0)
    assert not verified.problem and {one.what for one in verified.agreements} >= {"probe of the study"}

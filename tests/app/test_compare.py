"""The Compare page: which models, which prompts, the panel of a completion, blind mode, the report."""

import json
from types import SimpleNamespace

import numpy as np

from ifguide.errors import ProcessError
from ifguide.evaluation.outcomes import Outcomes
from ifguide.evaluation.statistics import Interval
from ifguide.selection.verdicts import RATINGS, Target, VerdictLog
from ifguide.storage import artifacts
from ifguide.study import demo
from ifguide.study.analysis.judges import judge_study
from ifguide.study.analysis.likelihood import likelihood_path
from ifguide.study.analysis.rating import draw_answers, judge_agreement
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.sharing.packed import pack_study, unpack_study
from ifguide.ui import components, job_panel
from ifguide.ui.compare import models_line
from ifguide.ui.compare.blind_panel import draw_ballots
from ifguide.ui.report.page import report_html
from tests.app.conftest import shown_text
from tests.app.fake_study import Content, sharing_content, write_study
from tests.small_study import rebuild


def param(app, name: str) -> str | None:
    value = app.query_params.get(name)
    return value[0] if isinstance(value, list) else value


def chosen_models(app) -> list[str]:
    return [app.selectbox(key=f"model_{place}").value for place in range(sum("model_" in s.key for s in app.selectbox))]


def test_address_names_two_to_four_models_and_unknown_or_single_ones_are_refused(open_app, cache):
    app = open_app(cache, "compare", models="oracle,random,nobody")
    assert not app.exception and not app.error
    assert chosen_models(app) == ["oracle", "random"] and param(app, "models") == "oracle,random"
    usual = open_app(cache, "compare", models="nobody")
    assert chosen_models(usual) == ["base", "default"]
    usual.selectbox(key="model_1").set_value("base").run()  # the two change places
    assert chosen_models(usual) == ["default", "base"] and param(usual, "models") == "default,base"
    usual.button(key="model_add").click().run()
    usual.button(key="model_add").click().run()
    assert chosen_models(usual) == ["default", "base", "random", "oracle"]
    assert not [b for b in usual.button if b.key == "model_add"]
    assert usual.selectbox(key="versus").value == "base" and shown_text(usual).count(" better · ") == 3
    usual.selectbox(key="model_2").set_value("").run()
    assert not usual.exception and chosen_models(usual) == ["default", "base", "oracle"]


def test_another_judge_rates_every_figure_and_the_address_names_it(open_app, tmp_path, monkeypatch):
    study = write_study(tmp_path)
    judgement = judge_study(study, "profanity-check")
    app = open_app(tmp_path, "compare", view="Metrics")
    assert app.selectbox(key="judge").value == "" and f"({judgement.digest})" not in shown_text(app)
    app.selectbox(key="judge").set_value(judgement.key).run()
    assert not app.exception and param(app, "judge") == judgement.title
    assert f"rated by {judgement.title}" in shown_text(app).replace("\\", "")
    linked = open_app(tmp_path, "compare", view="Metrics", judge=judgement.title)
    assert linked.selectbox(key="judge").value == judgement.key
    jobs = []
    monkeypatch.setattr(job_panel, "start", lambda root, arguments: jobs.append(arguments))
    linked.text_input(key="rate_by").set_value("judge:mine").run()
    next(button for button in linked.button if button.label == "Rate").click().run()
    assert jobs == [["judge", "fake", "--with", "judge:mine"]]


def test_only_the_open_tab_is_computed(open_app, cache):
    app = open_app(cache, "compare")
    assert not app.get("plotly_chart") and "completions rated" not in shown_text(app)
    charts = open_app(cache, "compare", view="Charts", models="oracle,random")
    figure = json.loads(charts.get("plotly_chart")[0].proto.spec)  # the frontier shows all models of the study
    metrics = {name: Study.open("fake", cache).metrics(name) for name in ("base", "default", "random", "oracle")}
    assert [(t["x"][0], t["y"][0]) for t in figure["data"]] == [(m["perplexity"], m["emt"]) for m in metrics.values()]
    samples = Study.open("fake", cache).samples("oracle")
    assert f"Human labels (best case): {(samples['toxicity'] >= 0.5).mean():.1%}" in shown_text(charts)
    assert "Hover over a column header" not in shown_text(charts)
    assert "Hover over a column header" in shown_text(open_app(cache, "compare", view="Metrics"))


def test_wins_ties_and_losses_come_first_and_are_grey_where_the_change_may_be_chance(open_app, cache):
    app = open_app(cache, "compare", margin="1.0")
    assert "**0** better · **14** tie · **0** worse" in shown_text(app)
    outcomes = {"default": Outcomes(np.arange(3), np.array([0.9, 0.1, 0.5]), np.array([0.1, 0.2, 0.5]))}
    for low, said in ((-0.1, ":gray[**1** better · **1** tie · **1** worse (no clear change)]"), (0.1, "**1** better")):
        loaded = SimpleNamespace(difference=lambda *_, low=low: SimpleNamespace(emt=Interval(0.3, low, 0.5)))
        assert models_line.describe_outcomes(loaded, "base", outcomes).startswith(said)


def test_prompts_of_the_toxic_queries_are_said_above_the_figures(open_app, cache, tmp_path):
    assert "prompts of the toxic queries" not in shown_text(open_app(cache, "compare"))
    write_study(tmp_path / "cache", content=sharing_content(14))
    for view in ({}, {"blind": "true"}, {"models": "base,random"}):
        app = open_app(tmp_path / "cache", "compare", **view)
        assert app.warning[0].value.startswith("14 of the 14 prompts are prompts of the toxic queries"), view


def test_filters_search_and_orders_narrow_the_prompts(open_app, cache):
    app = open_app(cache, "compare")
    assert "All 14 prompts, by largest change" in shown_text(app)
    app.text_input(key="find").set_value("NUMBER 1").run()
    assert "5 of 14 prompts" in shown_text(app)  # 1, 10, 11, 12, 13
    app.text_input(key="find").set_value("nowhere").run()
    assert "None of 14 prompts" in app.info[0].value
    app.text_input(key="find").set_value("").run()
    app.selectbox(key="outcome").set_value("more").run()
    assert "None of 14 prompts" in app.info[0].value  # the made-up suppressed model is never more toxic
    app.selectbox(key="outcome").set_value("less").run()
    app.number_input(key="margin").set_value(1.0).run()
    assert "None of 14 prompts" in app.info[0].value
    for order in ("drop", "rise", "prompt"):
        app.selectbox(key="order").set_value(order).run()
        assert not app.exception and not app.error, order


def test_clicked_completion_in_the_address_shows_the_nearest_documents(open_app, cache):
    app = open_app(cache, "compare", pick="3.0.base")
    assert not app.exception and not app.error
    assert "Training documents" in [s.value for s in app.subheader] and "Reads alike" in shown_text(app)
    assert "rarest words and word pairs, out of all documents" in shown_text(app)
    app.button(key="drawer_close").click().run()
    assert not app.subheader and param(app, "pick") is None
    for pick in ("3.99.base", "3.0.nobody", "x.y.z", "3", "3.0.random", "live.0.base", "9.9."):
        app = open_app(cache, "compare", pick=pick)
        assert not app.exception and not app.subheader, pick


def toxic_completion(study: Study, model: str = "base"):
    """The first completion of a model that has a toxic span."""
    frame = study.samples(model)
    return frame[frame["toxic_spans"].map(len) > 0].iloc[0]


def test_clicked_span_in_the_address_shows_the_documents_nearest_to_it(open_app, cache):
    row = toxic_completion(Study.open("fake", cache))
    start, end = row["toxic_spans"][:2]
    pick = f"{row['prompt_index']}.{row['sample_index']}.base"
    app = open_app(cache, "compare", pick=pick, span=f"{start}-{end}")
    assert not app.exception and not app.error
    assert "Documents that contain these words, out of all documents" in shown_text(app)
    assert "the best-ranked by the default selection come first" in shown_text(app)
    assert row["completion"][start:end] not in shown_text(app)  # a text of the study's goes through components alone
    app.button(key="span_close").click().run()
    assert not app.exception and param(app, "span") is None and param(app, "pick") == pick
    assert "share the completion's rarest words" in shown_text(app)
    for span in (
        f"{start}-{end + 1}",
        "0-1",
        f"{end}-{start}",
        "x",
        "-",
        f" {start}-{end}",
        "9" * 5000,
        f"{start}.{end}",
        "٣-٥",
    ):
        app = open_app(cache, "compare", pick=pick, span=span)
        assert not app.exception and not app.error, span
        assert "share the completion's rarest words" in shown_text(app), span
    app = open_app(cache, "compare", span=f"{start}-{end}")
    assert not app.exception and not app.subheader


def test_words_in_too_many_documents_are_said_to_be(open_app, tmp_path):
    documents = [
        {"id": str(i), "source": "s", "text": f"You idiot, number {i}.", "spans": [{"start": 4, "end": 9}]}
        for i in range(12)
    ]
    study = write_study(tmp_path / "cache", content=Content(documents=documents, completion=lambda *_: " an idiot"))
    row = toxic_completion(study)
    app = open_app(tmp_path / "cache", "compare", pick=f"{row['prompt_index']}.{row['sample_index']}.base", span="4-9")
    assert not app.exception and not app.error
    assert "Many documents contain such words, so a match says little" in shown_text(app)


def test_a_study_measured_before_spans_were_looked_for_shows_none(open_app, tmp_path):
    study = write_study(tmp_path / "cache")
    row = toxic_completion(study)

    def drop(folder):
        path = folder / "samples.parquet"
        artifacts.read_table(path).drop_columns(["toxic_spans"]).to_pandas().to_parquet(path, index=False)

    for name in ("base", "default", "random", "oracle"):
        rebuild(study, Unit("evaluate", name), drop)
    app = open_app(tmp_path / "cache", "compare", pick=f"{row['prompt_index']}.{row['sample_index']}.base", span="6-11")
    assert not app.exception and not app.error
    assert "share the completion's rarest words" in shown_text(app)


def run_prompt(app, text: str):
    app.text_input(key="try").set_value(text)
    return next(b for b in app.button if b.label.startswith("Run")).click().run()


def test_a_prompt_is_run_followed_and_kept(open_app, cache, use_worker):
    cells = [{"text": " a fox", "toxicity": 0.9, "spans": [[3, 6]], "ended": True}] * 2
    worker = use_worker({"state": "loading", "message": "default"}, {"state": "done", "cells": cells})
    app = open_app(cache, "compare", temperature="0.5", length="7", draw="3")
    run_prompt(app, "You *are*")
    assert not app.exception and worker.asked[0]["models"] == ["base", "default"]
    assert worker.loads == [{"study": app.session_state["tried"]["of"][0], "models": ["base", "default"], "load": True}]
    assert worker.asked[0]["prompt"] == "You *are*" and worker.asked[0]["sample"] == 2
    assert worker.asked[0]["settings"] == {"temperature": 0.5, "top_p": 0.9, "max_new_tokens": 7}
    assert param(app, "try") == "You *are*" and "veil" not in app.query_params
    app.run()
    assert app.session_state["tried"]["cells"] == cells
    assert [t["ask"]["prompt"] for t in app.session_state["history"]] == ["You *are*"]
    app.query_params["pick"], app.query_params["span"] = "live.0.base", "3-6"
    app.run()
    assert "Documents that contain these words" in shown_text(app) or "Training documents" in app.subheader[0].value
    run_prompt(app, "And you")
    assert [t["ask"]["prompt"] for t in app.session_state["history"]] == ["And you", "You *are*"]
    app.session_state["recalled"] = 1
    app.run()
    assert app.text_input(key="try").value == "You *are*" and app.slider(key="temperature").value == 0.5


def test_a_prompt_that_runs_can_be_stopped_and_a_crash_is_said_in_one_line(open_app, cache, use_worker):
    worker = use_worker({"state": "waiting", "ahead": 2})
    app = run_prompt(open_app(cache, "compare"), "You")
    assert "2 requests" in shown_text(app)
    worker.answers = [{"state": "cancelled"}]
    app.button(key="try_stop").click().run()
    assert worker.cancelled == ["1.1"] and "Stopped." in shown_text(app)
    worker.answers = [ProcessError("the models' process crashed (exit code 3); run again to start it again")]
    app = run_prompt(app, "You are")
    assert not app.exception
    assert [e.value.replace("\\", "") for e in app.error] == [
        "The models' process crashed (exit code 3); run again to start it again."
    ]


def test_a_prompt_cannot_be_run_without_the_weights(open_app, tmp_path):
    study = write_study(tmp_path / "cache")
    (study.folder(Unit("suppress", "default")) / "training_log.jsonl").unlink()
    app = open_app(tmp_path / "cache", "compare")
    assert "Not possible here: the weights of default are not in this study" in shown_text(app)
    assert next(b for b in app.button if b.label.startswith("Run")).disabled


def test_the_recorded_showcase_can_be_built_again_with_a_model_that_answers(open_app, tmp_path, monkeypatch):
    cache, started = tmp_path / "theirs", []
    pack_study(write_study(tmp_path / "mine"), tmp_path / "fake.ifguide")
    monkeypatch.setattr(demo, "SHOWCASE", unpack_study(tmp_path / "fake.ifguide", cache))
    monkeypatch.setattr(job_panel, "start", lambda root, command: started.append((root, command)))
    app = open_app(cache, "compare")
    app.text_input(key="live_model").set_value(" models/mine ").run()
    next(button for button in app.button if button.label == "Start").click().run()
    assert started == [(cache / demo.LIVE, ["demo", "--model", "models/mine"])]
    (cache / demo.LIVE / "evaluations" / "default").mkdir(parents=True)
    assert "Try prompts in showcase-live" in [button.label for button in app.run().button]


def test_a_recorded_study_offers_nothing_that_needs_its_models(open_app, tmp_path, monkeypatch):
    pack_study(write_study(tmp_path / "mine"), tmp_path / "fake.ifguide")
    unpack_study(tmp_path / "fake.ifguide", tmp_path / "theirs")
    offers = []
    monkeypatch.setattr(components, "completions", lambda pair, *, tokens=True, **more: offers.append(tokens))
    for cache, offered in (("mine", True), ("theirs", False)):
        app = open_app(tmp_path / cache, "compare")
        assert offers.pop() == offered and ("≋" in shown_text(app)) == offered
    linked = shown_text(open_app(tmp_path / "theirs", "compare", pick="0.0."))
    assert "Try a prompt" not in linked
    assert "Not possible here: this study was recorded without its models" in linked  # token probabilities
    assert "ifguide reliability" not in shown_text(open_app(tmp_path / "theirs", "threshold"))
    needs = ("Run", "Compute", "Train", "Explain", "Draw", "Compare the layers", "Search for", "List", "Save")
    for page, more in (
        ("compare", {"view": "Other methods"}),
        ("documents", {"why": "true"}),
        ("queries", {"mechanism": "true"}),
        ("threshold", {"part": "Map"}),
        ("overview", {}),
    ):
        for cache, offered in (("mine", True), ("theirs", False)):
            app = open_app(tmp_path / cache, page, **more)
            assert not app.exception and not app.error, page
            titles = {part.label for part in (*app.tabs, *app.expander)}
            empty = {title for title in titles if title in ("Map", "Other methods") or title[:3] in ("Why", "Ins")}
            assert bool(empty) == (offered and page != "overview"), (page, cache)
            live = [b for b in app.button if b.label.startswith(needs) and not b.disabled]
            methods = [choice.key for choice in app.multiselect if choice.key == "methods"]
            assert bool(live + methods) == (offered and page != "overview"), (page, cache, [b.label for b in live])


def test_token_probabilities_are_computed_by_the_models_process_and_shown(open_app, tmp_path, use_worker):
    study = write_study(tmp_path / "cache")
    worker = use_worker({"state": "running"}, {"state": "failed", "message": "no luck"}, {"state": "running"})
    app = open_app(tmp_path / "cache", "compare", pick="0.0.")
    assert worker.asked == []  # a link starts nothing
    next(b for b in app.button if b.label == "Compute").click().run()
    assert worker.asked == [{"study": str(study.root), "models": ["base", "default"], "number": 0}]
    assert not app.exception and "Reading the completions" in shown_text(app)
    app.run()
    assert app.error[0].value == r"No luck\."
    next(b for b in app.button if b.label == "Compute").click().run()
    assert len(worker.asked) == 2 and not app.error
    path = likelihood_path(study, 0, ["base", "default"])
    path.parent.mkdir()
    values = {"pieces": [" a"], "log_probability": {"base": [-1.0], "default": [-2.0]}}
    completion = {"model": "base", "sample": 0, **values}
    artifacts.write_json(
        path, {"prompt": "p", "prompt_index": 0, "models": ["base", "default"], "completions": [completion]}
    )
    app.run()
    assert not app.exception and app.selectbox(key="colour_by").options == [
        "Suppressed minus Base model",
        "Surprise of Base model",
        "Surprise of Suppressed",
    ]


def test_a_blind_vote_hides_results_until_the_models_are_revealed(open_app, cache):
    app = open_app(cache, "compare", blind="true")
    assert not app.exception and not app.error
    assert [s.value for s in app.subheader] == ["Which completions are better?"]
    assert not any(name in shown_text(app) for name in ("Base model", "Suppressed", "0.5 or more"))
    assert app.button(key="vote_reveal").disabled
    ballots = draw_ballots(["base", "default"], range(14), seed=1)
    for ballot in ballots[:3]:
        letter = "AB"[ballot.order.index("default")]
        next(b for b in app.button if b.label == f"{letter} is better").click().run()
    next(b for b in app.button if b.label == "About the same").click().run()
    assert "4 votes of 14 prompts, 1 tie among them" in shown_text(app)
    assert "Prompt 5 of 14" in shown_text(app) and param(app, "vote") == "5"
    app.button(key="vote_reveal").click().run()
    assert not app.exception and not [b for b in app.button if "better" in b.label]
    votes = next(iter(app.session_state["votes"].values()))["votes"]
    assert list(votes.values()) == ["default"] * 3 + [""]
    app.button(key="vote_start_over").click().run()
    assert "0 votes of 14 prompts" in shown_text(app)


def test_answers_are_rated_blindly_resumed_and_compared_with_the_judge(open_app, tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr(components, "record_table", lambda _, rows, *, key, **more: shown.update({key: rows}))
    study = write_study(tmp_path)
    drawn, log = draw_answers(study, ["base", "default"], seed=1), VerdictLog(study.root, RATINGS)
    for i, id in enumerate(drawn["id"][:58]):
        log.decide(Target(id), ("toxic", "fine", "unsure")[i % 3], by="ann")
    app = open_app(tmp_path, "compare", blind="true")
    app.get("button_group")[0].set_value("rate").run()
    assert "0 of 60 answers rated" in app.get("progress")[0].proto.text and not app.exception
    app.text_input(key="rater").set_value("ann ").run()
    assert "58 of 60 answers rated" in app.get("progress")[0].proto.text
    assert not any(text in shown_text(app) for text in ("Suppressed", "κ", "0.5 or more"))
    app.button(key="rate_toxic").click().run()
    app.button(key="rate_undo").click().run()
    assert log.of_documents("ann").keys() == {*drawn["id"][:58]}
    for verdict in ("fine", "toxic"):
        app.button(key=f"rate_{verdict}").click().run()
    assert not app.exception and log.of_documents("ann")[drawn["id"].iloc[59]] == "toxic"
    assert not [b for b in app.button if b.key in ("rate_toxic", "rate_fine", "rate_unsure")]
    [one] = judge_agreement(study)
    assert one.n == 41 and one.bounds and one.reviewers == ("ann", study.judge_title())
    open_app(tmp_path, "compare", view="Metrics")
    kappa = f"{one.kappa:.2f}".replace("-", "−")
    assert shown["rating_agreement"] == shown["agreement"] and shown["agreement"][0]["cells"][2][0] == kappa
    page = report_html(study)
    assert "Agreement of people with the judges" in page and f"{one.same} of 41" in page


def test_a_broken_model_groups_and_a_second_rating_are_shown(open_app, tmp_path):
    study = write_study(tmp_path / "cache")

    def change(folder):
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics |= {
            "fluency_warning": "it *repeats* itself",
            "implicit_emt": 0.7,
            "implicit_emt_low": 0.6,
            "implicit_emt_high": 0.8,
        }
        metrics["groups"] = {"<b>trade</b>": {"n_prompts": 14, "emt": 0.5, "tp": 0.2}}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        frame = study.samples("base")
        frame.assign(implicit_toxicity=0.9).to_parquet(folder / "samples.parquet", index=False)

    for name in ("base", "default"):
        rebuild(study, Unit("evaluate", name), change)
    for name in ("random", "oracle"):  # their fluency is held against the base model's
        rebuild(study, Unit("evaluate", name), lambda folder: None)
    app = open_app(tmp_path / "cache", "compare", view="Metrics")
    assert not app.exception and not app.error
    assert [w.value for w in app.warning] == [
        rf"{name}: it \*repeats\* itself" for name in ("Base model", "Suppressed")
    ]
    assert [e.label for e in app.expander] == ["By group of prompts"]
    assert app.selectbox(key="group_metric").options == ["Worst-case toxicity (EMT)", "Prompts with a toxic answer"]
    app = open_app(tmp_path / "cache", "compare", view="Charts")
    app.selectbox(key="rating").set_value("implicit_toxicity").run()
    assert "Base model: 100.0%" in shown_text(app)


def test_other_methods_are_trained_by_a_job(open_app, cache, monkeypatch):
    from ifguide.ui import job_panel

    started = []
    monkeypatch.setattr(job_panel, "start", lambda root, arguments: started.append(arguments))
    app = open_app(cache, "compare", view="Other methods")
    methods = app.multiselect(key="methods")
    assert "Word filter" in methods.options and "Random control" not in methods.options  # that one is measured
    button = next(b for b in app.button if b.label == "Train")
    assert button.disabled
    methods.set_value(["words", "masked"]).run()
    assert "calls toxic by themselves" in shown_text(app)
    next(b for b in app.button if b.label == "Train 2 models").click().run()
    assert started == [["compare", "fake", "--with", "words,masked"]]

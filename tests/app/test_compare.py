"""The Compare page: which models, which prompts, the panel of a completion, blind mode, the report."""

import json

from ifguide.storage import artifacts
from ifguide.study.analysis.likelihood import likelihood_path
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.ui.compare.blind_panel import draw_ballots
from tests.app.conftest import shown_text
from tests.app.fake_study import Content, sharing_content, write_study
from tests.small_study import rebuild


def prompts_line(app) -> str:
    return next(c.value for c in app.caption if "prompts" in c.value and " of " in c.value and "–" in c.value)


def param(app, name: str) -> str | None:
    value = app.query_params.get(name)
    return value[0] if isinstance(value, list) else value


def test_address_names_two_to_four_models_and_unknown_or_single_ones_are_refused(open_app, cache):
    app = open_app(cache, "compare", models="oracle,random,nobody")
    assert not app.exception and not app.error
    assert app.multiselect(key="compared").value == ["oracle", "random"]
    assert param(app, "models") == "oracle,random"
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)  # the frontier shows all models of the study
    metrics = {name: Study.open("fake", cache).metrics(name) for name in ("base", "default", "random", "oracle")}
    assert [(t["x"][0], t["y"][0]) for t in figure["data"]] == [(m["perplexity"], m["emt"]) for m in metrics.values()]
    samples = Study.open("fake", cache).samples("oracle")
    assert f"Human labels (best case): {(samples['toxicity'] >= 0.5).mean():.1%}" in shown_text(app)
    usual = open_app(cache, "compare", models="nobody")
    assert usual.multiselect(key="compared").value == ["base", "default"] and param(usual, "models") is None
    assert "Base model: " in shown_text(usual) and "completions rated 0.5 or more" in shown_text(usual).lower()
    usual.multiselect(key="compared").set_value(["base"]).run()
    assert not usual.exception and "at least two models" in usual.info[0].value
    usual.multiselect(key="compared").set_value(["base", "random", "oracle", "default"]).run()
    assert not usual.exception and not usual.info and param(usual, "models") == "base,random,oracle,default"
    assert usual.selectbox(key="versus").value == "random"


def test_prompts_of_the_toxic_queries_are_said_above_the_figures(open_app, cache, tmp_path):
    assert "prompts of the toxic queries" not in shown_text(open_app(cache, "compare"))
    write_study(tmp_path / "cache", content=sharing_content(14))
    for view in ({}, {"blind": "true"}, {"models": "base,random"}):
        app = open_app(tmp_path / "cache", "compare", **view)
        assert app.warning[0].value.startswith("14 of the 14 prompts are prompts of the toxic queries"), view


def test_filters_search_and_orders_narrow_the_prompts(open_app, cache):
    app = open_app(cache, "compare")
    assert prompts_line(app) == "1–5 of 14 prompts"
    app.text_input(key="find").set_value("NUMBER 1").run()
    assert prompts_line(app) == "1–5 of 5 prompts"  # 1, 10, 11, 12, 13
    app.text_input(key="find").set_value("nowhere").run()
    assert "None of 14 prompts" in app.info[0].value
    app.text_input(key="find").set_value("").run()
    app.selectbox(key="outcome").set_value("more").run()
    assert "None of 14 prompts" in app.info[0].value  # the made-up suppressed model is never more toxic
    app.selectbox(key="outcome").set_value("less").run()
    app.number_input(key="margin").set_value(1.0).run()
    assert "None of" in app.info[0].value and "at most 1.00 is a tie" in shown_text(app)
    for order in ("drop", "rise", "prompt"):
        app.selectbox(key="order").set_value(order).run()
        assert not app.exception and not app.error, order


def test_clicked_completion_in_the_address_shows_the_nearest_documents(open_app, cache):
    app = open_app(cache, "compare", pick="3.0.base", order="As in the file")
    assert not app.exception and not app.error
    assert any("Completion 1 of Base model" in m.value for m in app.markdown)
    assert "rarest words and pairs of words, searched in all documents" in shown_text(app)
    for pick in ("3.99.base", "3.0.nobody", "x.y.z", "3", "3.0.random"):
        app = open_app(cache, "compare", pick=pick)
        assert not app.exception and not any("Completion" in m.value for m in app.markdown), pick


def toxic_completion(study: Study, model: str = "base"):
    """The first completion of a model that has a toxic span."""
    frame = study.samples(model)
    return frame[frame["toxic_spans"].map(len) > 0].iloc[0]


def test_clicked_span_in_the_address_shows_the_documents_nearest_to_it(open_app, cache):
    row = toxic_completion(Study.open("fake", cache))
    start, end = row["toxic_spans"][:2]
    pick, usual = (
        f"{row['prompt_index']}.{row['sample_index']}.base",
        {"order": "As in the file", "prompts": str(row["prompt_index"] // 5 + 1)},
    )
    app = open_app(cache, "compare", pick=pick, span=f"{start}-{end}", **usual)
    assert not app.exception and not app.error
    assert any(m.value.endswith("**, its toxic words") for m in app.markdown)
    assert "Documents that contain these words, searched in all documents" in shown_text(app)
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
        app = open_app(cache, "compare", pick=pick, span=span, **usual)
        assert not app.exception and not app.error, span
        assert "share the completion's rarest words" in shown_text(app), span
    app = open_app(cache, "compare", span=f"{start}-{end}")
    assert not app.exception and not any("Completion" in m.value for m in app.markdown)


def test_words_in_too_many_documents_are_said_to_be(open_app, tmp_path):
    documents = [
        {"id": str(i), "source": "s", "text": f"You idiot, number {i}.", "spans": [{"start": 4, "end": 9}]}
        for i in range(12)
    ]
    study = write_study(tmp_path / "cache", content=Content(documents=documents, completion=lambda *_: " an idiot"))
    row = toxic_completion(study)
    app = open_app(
        tmp_path / "cache",
        "compare",
        pick=f"{row['prompt_index']}.{row['sample_index']}.base",
        span="4-9",
        order="As in the file",
    )
    assert not app.exception and not app.error
    assert "This word is in many documents (100%), so a match says little, and much of the order" in shown_text(app)


def test_a_study_measured_before_spans_were_looked_for_shows_none(open_app, tmp_path):
    study = write_study(tmp_path / "cache")
    row = toxic_completion(study)
    said = "finds toxic in a completion"
    assert said in shown_text(open_app(tmp_path / "cache", "compare"))

    def drop(folder):
        path = folder / "samples.parquet"
        artifacts.read_table(path).drop_columns(["toxic_spans"]).to_pandas().to_parquet(path, index=False)

    for name in ("base", "default", "random", "oracle"):
        rebuild(study, Unit("evaluate", name), drop)
    app = open_app(
        tmp_path / "cache",
        "compare",
        pick=f"{row['prompt_index']}.{row['sample_index']}.base",
        span="6-11",
        order="As in the file",
    )
    assert not app.exception and not app.error and said not in shown_text(app)
    assert "Toxic words of these models are not marked: an older version measured them" in shown_text(app)
    assert "share the completion's rarest words" in shown_text(app)


def test_likelihood_is_offered_and_shown_once_it_is_there(open_app, tmp_path):
    study = write_study(tmp_path / "cache")
    link = {"pick": "0.0.base", "order": "As in the file", "panel_view": "Token probabilities"}
    app = open_app(tmp_path / "cache", "compare", **link)
    assert not app.exception and "Compute" in [b.label for b in app.button]
    path = likelihood_path(study, 0, ["base", "default"])
    path.parent.mkdir()
    completion = {
        "model": "base",
        "sample": 0,
        "pieces": [" a"],
        "log_probability": {"base": [-1.0], "default": [-2.0]},
    }
    artifacts.write_json(
        path, {"prompt": "p", "prompt_index": 0, "models": ["base", "default"], "completions": [completion]}
    )
    app = open_app(tmp_path / "cache", "compare", **link)
    assert not app.exception and "Compute" not in [b.label for b in app.button]
    assert app.selectbox(key="colour_by").options == [
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
    app.button(key="vote_anew").click().run()
    assert "0 votes of 14 prompts" in shown_text(app)


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
    app = open_app(tmp_path / "cache", "compare")
    assert not app.exception and not app.error
    assert [w.value for w in app.warning] == [
        rf"{name}: it \*repeats\* itself" for name in ("Base model", "Suppressed")
    ]
    assert [e.label for e in app.expander] == ["By group of prompts"]
    assert app.selectbox(key="group_metric").options == ["Worst-case toxicity (EMT)", "Prompts with a toxic answer"]
    app.selectbox(key="rating").set_value("implicit_toxicity").run()
    assert "Base model: 100.0%" in shown_text(app)


def test_other_methods_are_trained_by_a_job(open_app, cache, monkeypatch):
    from ifguide.ui import job_panel

    started = []
    monkeypatch.setattr(job_panel, "start", lambda root, arguments: started.append(arguments))
    app = open_app(cache, "compare")
    methods = app.multiselect(key="methods")
    assert "Word filter" in methods.options and "Random control" not in methods.options  # that one is measured
    button = next(b for b in app.button if b.label == "Train")
    assert button.disabled
    methods.set_value(["words", "unlikelihood"]).run()
    assert "calls toxic by themselves" in shown_text(app)
    next(b for b in app.button if b.label == "Train 2 models").click().run()
    assert started == [["compare", "fake", "--with", "words,unlikelihood"]]

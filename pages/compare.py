"""Two to four models on the same prompts: the completions first, then the numbers."""

import streamlit as st

from ifguide.evaluation.outcomes import compare_with_first, highest_toxicity
from ifguide.evaluation.statistics import INTERVALS, TOXIC_FROM
from ifguide.study.analysis.comparison import treatment_note
from ifguide.study.analysis.rating import judge_agreement
from ifguide.study.freshness import stage_state
from ifguide.study.stages.evaluating import shared_prompts_warning
from ifguide.ui import components, frame, job_panel, layout
from ifguide.ui.chart_style import CONFIG
from ifguide.ui.compare import blind_panel, charts, live, methods_panel, models_line, picks, prompt_list
from ifguide.ui.format import count_of, plain, variant_title
from ifguide.ui.loaders import Loaded
from ifguide.ui.palette import variant_colours
from ifguide.ui.results import tables as comparison
from ifguide.ui.results.dose import dose_csv, dose_table
from ifguide.ui.results.frontier import frontier_points, pull_in
from ifguide.ui.results.judge_menu import ask_judge, show_disagreement

COUNTS = {"all": "Every completion", "highest": "Highest of each prompt"}
VIEWS = ("Side by side", "Metrics", "Charts", "Other methods")


def show_metrics(loaded: Loaded, names: list[str], colours: dict[str, str]) -> None:
    metrics = loaded.metrics(names)
    first, *others = names
    differences = {name: loaded.difference(first, name) for name in others}
    columns, rows = comparison.metric_table(metrics, colours=colours)
    rows += comparison.difference_rows(metrics, differences)
    components.record_table(columns, rows, key="metrics", label="Metrics of the models")
    st.caption(f"{plain(comparison.facts_text(metrics[first]))} Hover over a column header for its definition.")
    for name in names:
        if warning := metrics[name].get("fluency_warning"):
            st.warning(
                f"{plain(variant_title(name, name in loaded.edited))}: {plain(warning)}", icon=":material/warning:"
            )
    show_disagreement(loaded.disagreement())
    if agreements := judge_agreement(loaded.study):
        agreed = comparison.agreement_table(agreements)
        components.record_table(*agreed, key="agreement", label="Agreement of people with the judges")
        st.caption("How far each judge agrees with people who rated answers blindly. Blind has the task.")
    if note := treatment_note(loaded.study, names):
        st.warning(plain(note), icon=":material/warning:")
    if first == "base" and (shares := comparison.share_texts(differences)):
        st.caption(plain(" ".join(shares)))
    if comparison.group_table(metrics):
        with st.expander("By group of prompts"):
            spoken = comparison.with_speech(metrics, {name: loaded.speech(name) for name in names})
            groups = [group for m in spoken.values() for group in (m.get("groups") or {}).values()]
            titles = {m.key: m.title for m in comparison.METRICS if any(m.key in group for group in groups)}
            chosen = layout.choose("Metric", titles, key="group_metric", width=280)
            if table := comparison.group_table(spoken, chosen):
                components.record_table(*table, key="groups", label="Metrics by group of prompts")
    if table := comparison.harness_table(metrics):
        with st.expander("General capability"):
            components.record_table(*table, key="harness", label="Results of lm-evaluation-harness")


def read_samples(loaded: Loaded, names: list[str]) -> dict:
    """The models' completions; if a second classifier rated all of them too, the reader chooses the classifier."""
    samples = {name: loaded.samples(name) for name in names}
    ratings = {c: title for c, title in comparison.RATINGS.items() if all(c in frame for frame in samples.values())}
    if len(ratings) < 2:
        return samples
    rating = layout.choose("Toxicity of completions rated by", ratings, key="rating", width=320)
    return {name: frame.assign(toxicity=frame[rating]) for name, frame in samples.items()}


def show_frontier(loaded: Loaded, chosen: list[str], colours: dict[str, str]) -> None:
    metrics = loaded.metrics(loaded.study.evaluation_names())
    points = frontier_points(metrics)
    st.subheader("Toxicity against fluency", anchor=False)
    if len(points) < 2:
        st.caption("Perplexity was not measured: name held-out text in evaluate.heldout and run the study again.")
        return
    alt = "Worst-case toxicity against perplexity of every measured model; the table beside it has the values"
    with st.grid(2, min_column_width=400):
        figure = charts.frontier_chart(points, colours=colours, chosen=chosen, edited=loaded.edited)
        st.plotly_chart(figure, key="frontier", config=CONFIG, alt=alt)
        with st.container():
            columns, rows = comparison.frontier_rows(metrics, colours)
            components.record_table(columns, rows, key="frontier_table", label="Toxicity and perplexity of every model")
            note = f"Every measured model of this study; lower left is better. Bars and small numbers are {INTERVALS}"
            if loaded.edited:
                note += " Hollow: edited, not retrained; their perplexity is from half of the held-out text."
            if pull_in(points, chosen)[1]:
                note += " A number with an arrow is a perplexity beyond the edge."
            st.caption(plain(note))


def show_doses(loaded: Loaded) -> None:
    points, file = loaded.measured(), f"{loaded.name}-thresholds.csv"
    if len(points) < 2:
        return
    st.subheader("Toxic answers by tokens taken out", anchor=False)
    with st.grid(2, min_column_width=400):
        alt = "Prompts with a toxic answer by the number of tokens taken out; the table beside it has the values"
        st.plotly_chart(charts.dose_chart(points), key="doses", config=CONFIG, alt=alt)
        with st.container():
            table = dose_table(points, loaded.metrics(point.model for point in points))
            components.record_table(*table, key="dose_table", label="Models by tokens taken out")
            st.caption("Dots: retrained; rings: edited, not retrained; dashed: interpolated. Threshold measures more.")
            layout.offer_download("CSV", lambda: dose_csv(points), file, "text/csv", key="dose_csv")


def show_distributions(loaded: Loaded, samples: dict, colours: dict[str, str]) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        st.subheader("How toxic the completions are", anchor=False)
        view = layout.switch("Count", COUNTS, key="count", default="all")
    unit = "completions" if view == "all" else "prompts"
    values = {
        name: (frame["toxicity"] if view == "all" else highest_toxicity(frame)).to_numpy()
        for name, frame in samples.items()
    }
    figure = charts.toxicity_chart(values, unit=unit, colours=colours, edited=loaded.edited)
    st.plotly_chart(figure, key="toxicity", config=CONFIG, alt="Toxicity of the models' completions")
    toxic = " · ".join(comparison.toxic_text(values, loaded.edited))
    st.caption(plain(f"{unit.capitalize()} rated {TOXIC_FROM} or more · {toxic}."))


loaded = frame.open_page("Compare")
with layout.guard():
    evaluated = loaded.study.evaluation_names()
    if len(evaluated) < 2:
        layout.need_stage(loaded, "evaluate", "A comparison needs two measured models.")
        st.info(
            f"Only {count_of(len(evaluated), 'model')} measured so far. Train another one on the Threshold page, or run"
            " the study on the Overview page."
        )
        st.stop()
    if stage_state(loaded.study, "evaluate").state == "stale":
        layout.need_stage(loaded, "evaluate", "")
    if warning := shared_prompts_warning(loaded.study):
        st.warning(plain(warning), icon=":material/warning:")
    colours = variant_colours(evaluated)
    with st.container(key="models_line", horizontal=True, vertical_alignment="center", gap="small"):
        names = models_line.ask_models(evaluated, loaded.edited)
        st.space("stretch")
        outcome_place, margin_place = st.container(width="content"), st.container(width="content")
        note = "Hides names and numbers, so that you can first vote for the better completions."
        loaded = ask_judge(loaded, again=True)
        blind = st.toggle("Blind", key="blind", bind="query-params", help=note)
    if blind:
        blind_panel.show_blind(loaded, {name: loaded.samples(name) for name in names}, colours)
        st.stop()
    samples = read_samples(loaded, names)
    with margin_place:
        margin = models_line.ask_margin()
    outcomes = compare_with_first(samples, margin=margin)
    outcome_place.markdown(models_line.describe_outcomes(loaded, names[0], outcomes), help=models_line.COUNTED)
    titles = VIEWS[:-1] if job_panel.refuse_recorded(loaded.study.root) else VIEWS  # no other method can be trained
    views = dict(zip(titles, st.tabs(titles, key="view", on_change="rerun", bind="query-params"), strict=True))
    view = next((title for title, tab in views.items() if tab.open), VIEWS[0])
    with views[view]:
        if view == "Side by side":
            live.show_try(loaded, list(samples), colours, picks.read_pick(samples, live.tried_rows()))
            prompt_list.show_prompts(loaded, samples, outcomes, colours, live.tried_rows())
        elif view == "Metrics":
            show_metrics(loaded, names, colours)
        elif view == "Charts":
            show_frontier(loaded, names, colours)
            show_doses(loaded)
            show_distributions(loaded, samples, colours)
        else:
            methods_panel.show_methods(loaded)

"""Two to four models on the same prompts."""

import streamlit as st

from ifguide.evaluation.outcomes import highest_toxicity
from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.study.freshness import stage_state
from ifguide.ui import components, layout
from ifguide.ui.chart_style import CONFIG
from ifguide.ui.compare import blind_panel, charts, methods_panel, prompt_list
from ifguide.ui.compare import tables as comparison
from ifguide.ui.compare.frontier import MANY, frontier_points, pull_in
from ifguide.ui.format import count_of, plain, share, variant_title
from ifguide.ui.loaders import Loaded
from ifguide.ui.palette import variant_colours
from ifguide.ui.report.write import report_or_reason

COUNTS = {"all": "Every completion", "highest": "Highest of each prompt"}


def ask_models(names: list[str]) -> list[str]:
    """Which models stand side by side; stops the page with fewer than two."""
    first = "base" if "base" in names else names[0]
    usual = [first, "default" if "default" in names and first != "default" else next(n for n in names if n != first)]
    if st.session_state.get("compared_of") != names or "compared" not in st.session_state:
        linked = [n for n in dict.fromkeys(st.query_params.get("models", "").split(",")) if n in names]
        st.session_state["compared_first"] = linked[: comparison.MODELS_MOST] if len(linked) > 1 else usual
        st.session_state["compared_of"] = names
    chosen = st.multiselect(
        "Models",
        names,
        default=st.session_state["compared_first"],
        max_selections=comparison.MODELS_MOST,
        key="compared",
        format_func=variant_title,
        wrap=True,
        help=(
            f"Two to {comparison.MODELS_MOST}. The first one is what the others are compared with: take it out and"
            " choose again to change the order."
        ),
    )
    if len(chosen) < 2:
        st.info("Choose at least two models.", icon=":material/compare:")
        st.stop()
    if chosen == usual:
        st.query_params.pop("models", None)
    else:
        st.query_params["models"] = ",".join(chosen)
    return chosen


def offer_report(loaded: Loaded) -> None:
    """One button: everything about the study as one file."""
    st.download_button(
        "Report (one HTML file)",
        lambda: report_or_reason(loaded.study),
        file_name=f"{loaded.name}-report.html",
        mime="text/html",
        icon=":material/download:",
        on_click="ignore",
        key="report",
        help=(
            "Settings, metrics, charts, selected words, top documents and examples of all models. Opens offline;"
            " offensive text is blurred in it."
        ),
    )


def show_metrics(loaded: Loaded, names: list[str], colours: dict[str, str]) -> None:
    """The table of metrics, the differences to the first model, and what to know about them."""
    metrics = {name: loaded.study.metrics(name) for name in names}
    first, *others = names
    differences = {name: loaded.difference(first, name) for name in others}
    columns, rows = comparison.metric_table(metrics, colours=colours)
    rows += comparison.difference_rows(metrics, differences)
    components.record_table(columns, rows, key="metrics", label="Metrics of the models")
    st.caption(f"{plain(comparison.facts_text(metrics[first]))} Point at a heading for its meaning.")
    for name in names:
        if warning := metrics[name].get("fluency_warning"):
            st.warning(f"{plain(variant_title(name))}: {plain(warning)}", icon=":material/warning:")
    if first == "base":
        said = [comparison.oracle_text(name, difference.share_of_oracle) for name, difference in differences.items()]
        if any(said):
            st.caption(plain(" ".join(filter(None, said))))


def show_details(loaded: Loaded, names: list[str]) -> None:
    """Metrics by group of prompts, and what the harness measured, where they are."""
    metrics = {name: loaded.study.metrics(name) for name in names}
    if comparison.group_table(metrics):
        with st.expander("By group of prompts"):
            keys = {
                key: title
                for key, title, *_ in comparison.METRICS
                if any(key in group for m in metrics.values() for group in (m.get("groups") or {}).values())
            }
            key = st.selectbox(
                "Metric", list(keys), key="group_metric", bind="query-params", format_func=keys.get, width=280
            )
            components.record_table(
                *comparison.group_table(metrics, key), key="groups", label="Metrics by group of prompts"
            )
    if found := comparison.harness_table(metrics):
        with st.expander("General capability"):
            components.record_table(*found, key="harness", label="What lm-evaluation-harness measured")


def read_samples(loaded: Loaded, names: list[str]) -> dict:
    """The models' completions; where a second classifier rated all of them, the reader chooses whose ratings are
    shown.
    """
    samples = {name: loaded.samples(name) for name in names}
    known = [c for c in comparison.RATINGS if all(c in frame for frame in samples.values())]
    if len(known) < 2:
        return samples
    rating = st.selectbox(
        "Below, toxicity is rated by",
        known,
        key="rating",
        bind="query-params",
        format_func=comparison.RATINGS.get,
        width=320,
    )
    return {name: frame.assign(toxicity=frame[rating]) for name, frame in samples.items()}


def show_frontier(loaded: Loaded, chosen: list[str], colours: dict[str, str]) -> None:
    """All models of the study: how toxic against how fluent."""
    metrics = {name: loaded.study.metrics(name) for name in loaded.study.evaluation_names()}
    points = frontier_points(metrics)
    st.subheader("Toxicity against fluency", anchor=False)
    if len(points) < 2:
        st.caption("Perplexity was not measured: name held-out text in evaluate.heldout and run the study again.")
        return
    with st.grid(2, min_column_width=400):
        st.plotly_chart(
            charts.frontier_chart(points, colours=colours, chosen=chosen),
            key="frontier",
            config=CONFIG,
            alt=(
                "Expected maximum toxicity against perplexity of every measured model; the table beside it holds the"
                " values"
            ),
        )
        with st.container():
            columns, rows = comparison.frontier_rows(metrics, colours)
            components.record_table(columns, rows, key="frontier_table", label="Toxicity and perplexity of every model")
            marked = [f"{variant_title(n)} ({sign})" for n, sign in charts.MARKERS.items() if n in metrics]
            st.caption(
                "Every measured model of this study; bars and small numbers are 95% intervals. Lower left is better. "
                + ("Numbers in the picture are those of the table. " if len(points) > MANY else "")
                + (
                    "A triangle at the edge stands for a perplexity further right. "
                    if pull_in(points, chosen)[1]
                    else ""
                )
                + plain(f"Signs of their own: {', '.join(marked)}." if marked else "")
            )


def show_distributions(loaded: Loaded, samples: dict, colours: dict[str, str]) -> None:
    """How toxic the completions are, all of them or the worst of each prompt, with the numbers that sum them up."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        st.subheader("How toxic the completions are", anchor=False)
        view = st.segmented_control(
            "Count",
            list(COUNTS),
            default="all",
            required=True,
            key="count",
            bind="query-params",
            format_func=COUNTS.get,
            label_visibility="collapsed",
        )
    unit = "completions" if view == "all" else "prompts"
    values = {
        name: (frame["toxicity"] if view == "all" else highest_toxicity(frame)).to_numpy()
        for name, frame in samples.items()
    }
    with st.grid(2, min_column_width=400):
        st.plotly_chart(
            charts.toxicity_chart(values, unit=unit, colours=colours),
            key="toxicity",
            config=CONFIG,
            alt="Toxicity of the models' completions",
        )
        with st.container():
            metrics = {name: loaded.study.metrics(name) for name in samples}
            columns, rows = comparison.metric_table(metrics, comparison.HEADLINE, colours)
            for row in rows:
                row["cells"][0][1] = ""
            components.record_table(columns, rows, key="summary", label="Toxicity and perplexity of the models")
            toxic = [f"{variant_title(name)}: {share(float((v >= TOXIC_FROM).mean()))}" for name, v in values.items()]
            st.caption(
                plain(f"{unit.capitalize()} rated {TOXIC_FROM} or more") + " · " + plain(" · ".join(toxic)) + "."
            )


loaded = layout.open_page(
    "Compare",
    "The same prompts completed by two to four models: how toxic they are, how fluent they stay, and what they say.",
)
with layout.guard():
    evaluated = loaded.study.evaluation_names()
    if len(evaluated) < 2:
        layout.need_stage(loaded, "evaluate", "Two measured models are needed for a comparison.")
        st.info(
            f"Only {count_of(len(evaluated), 'model')} measured so far. Train another one on the Threshold page, or run"
            " the whole study on the overview page."
        )
        st.stop()
    if stage_state(loaded.study, "evaluate").state == "stale":
        layout.need_stage(loaded, "evaluate", "")
    colours = variant_colours(evaluated)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        names = ask_models(evaluated)
        blind = st.toggle(
            "Blind vote",
            key="blind",
            bind="query-params",
            help="Hides names and numbers, and lets you vote for the better completions first.",
        )
        offer_report(loaded)
    if blind:
        blind_panel.show_blind(loaded, {name: loaded.samples(name) for name in names}, colours)
        st.stop()
    show_metrics(loaded, names, colours)
    show_details(loaded, names)
    show_frontier(loaded, names, colours)
    samples = read_samples(loaded, names)
    show_distributions(loaded, samples, colours)
    outcomes = prompt_list.show_outcomes(samples, colours)
    prompt_list.show_prompts(loaded, samples, outcomes, colours)
    methods_panel.show_methods(loaded)

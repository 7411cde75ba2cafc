"""Two models on the same prompts."""

import math

import streamlit as st

from ifguide.evaluate.statistics import TOXIC_FROM
from ifguide.ui import charts, comparison, components, layout
from ifguide.ui.format import count, count_of, plain, share, variant_title
from ifguide.ui.loaders import Loaded

PAGE_SIZE = 5
ORDERS = {"largest": "Largest change", "better": "Largest drop", "worse": "Largest rise", "prompt": "As in the file"}


def ask_models(names: list[str]) -> tuple[str, str]:
    """Which two models to compare."""
    with st.grid(3, min_column_width=220):
        left = st.selectbox(
            "Model",
            names,
            index=names.index("base") if "base" in names else 0,
            key="left",
            bind="query-params",
            format_func=variant_title,
        )
        others = [name for name in names if name != left]
        right = st.selectbox(
            "Compared with",
            others,
            index=others.index("default") if "default" in others else 0,
            key="right",
            bind="query-params",
            format_func=variant_title,
        )
    return left, right


def show_distributions(left, right, names: tuple[str, str]) -> None:
    """How toxic the two models' completions are, all of them and the worst of each prompt."""
    view = st.segmented_control(
        "Count", ["all", "highest"], default="all", required=True, key="count", bind="query-params",
        format_func=lambda v: {"all": "Every completion", "highest": "Highest of each prompt"}[v], label_visibility="collapsed",
    )  # fmt: skip
    pick = (
        (lambda frame: frame["toxicity"])
        if view == "all"
        else (lambda frame: frame.groupby("prompt_index")["toxicity"].max())
    )
    values = {name: pick(frame).to_numpy() for name, frame in zip(names, (left, right), strict=True)}
    unit = "completions" if view == "all" else "prompts"
    st.plotly_chart(
        charts.toxicity_chart(values, unit=unit),
        key="toxicity",
        config=charts.CONFIG,
        alt="Toxicity of both models' completions",
    )
    toxic = [f"{variant_title(name)}: {share(float((v >= TOXIC_FROM).mean()))}" for name, v in values.items()]
    st.caption(plain(f"{unit.capitalize()} rated {TOXIC_FROM} or more") + " · " + plain(" · ".join(toxic)))


def show_prompts(loaded: Loaded, left, right, names: tuple[str, str]) -> None:
    """The same prompts, side by side."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        st.subheader("The same prompts, side by side", anchor=False)
        order = st.selectbox("Order", list(ORDERS), key="order", bind="query-params", format_func=ORDERS.get, width=200)
    shift = comparison.compare_prompts(left, right, order=order)
    st.caption(
        f"Each prompt shows its {comparison.FIRST_SAMPLES} completions with the highest toxicity, with the rating in front; {TOXIC_FROM} or more counts as toxic. "
        f"Order: {ORDERS[order].lower()} in a prompt's highest rating."
    )
    rows = layout.pager(
        "prompts", n_items=len(shift.prompts), page_size=PAGE_SIZE, noun="prompts", of=(loaded.name, names, order)
    )
    components.prompt_pairs(
        comparison.pairs_payload(left, right, shift, rows, names=names, veil=layout.veiled()), key="pairs"
    )


loaded = layout.open_page(
    "Compare", "The same prompts completed by two models: how toxic they are, how fluent they stay, and what they say."
)
with layout.guard():
    names = loaded.study.evaluation_names()
    if len(names) < 2:
        layout.need_stage(loaded, "evaluate", "Two measured models are needed for a comparison.")
        st.info(
            f"Only {count_of(len(names), 'model')} measured so far. Train another one on the Threshold page, or run the whole study on the overview page."
        )
        st.stop()
    if loaded.study.stage_state("evaluate").state == "stale":
        layout.need_stage(loaded, "evaluate", "")
    left_name, right_name = ask_models(names)
    metrics = {name: loaded.study.metrics(name) for name in (left_name, right_name)}
    columns, rows = comparison.metric_table(metrics)
    difference = loaded.difference(left_name, right_name)
    rows.append(comparison.difference_row(metrics[left_name], metrics[right_name], difference))
    components.record_table(columns, rows, key="metrics", label="Metrics of both models")
    facts = metrics[left_name]
    heldout = (
        f" Perplexity on {count_of(facts['heldout_tokens'], 'held-out token')}." if facts.get("heldout_tokens") else ""
    )
    st.caption(
        f"{count_of(facts['n_samples'], 'completion')} for each of {count(facts['n_prompts'])} prompts, rated by {plain(facts['scorer'])}. "
        f"Small numbers: 95% intervals. Point at a heading for its meaning.{heldout}"
    )
    part = difference.share_of_oracle
    if part is not None and math.isfinite(part.value) and left_name == "base" and right_name != "oracle":
        bounds = (
            f" (95% interval: {share(part.low)} – {share(part.high)})"
            if math.isfinite(part.low) and math.isfinite(part.high)
            else ""
        )
        st.caption(
            f"Training against the known toxic spans lowers the expected maximum toxicity too; this model reaches {share(part.value)} of that drop{bounds}."
        )
    left, right = loaded.samples(left_name), loaded.samples(right_name)
    st.subheader("How toxic the completions are", anchor=False)
    show_distributions(left, right, (left_name, right_name))
    show_prompts(loaded, left, right, (left_name, right_name))

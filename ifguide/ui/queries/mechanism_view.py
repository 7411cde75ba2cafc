"""Inside the models: how likely the queries' completions are after each layer, and a prefix that elicits toxic ones."""

import math
from collections.abc import Container, Sequence

import plotly.graph_objects as go
import streamlit as st

from ifguide.config.names import BASE
from ifguide.study.analysis import mechanism
from ifguide.ui import components, job_panel, layout
from ifguide.ui.chart_style import CONFIG, DASHES, calm, error_bars, variant_markers
from ifguide.ui.format import column, count_of, variant_title
from ifguide.ui.loaders import Loaded
from ifguide.ui.palette import variant_colours


def show_mechanism(loaded: Loaded) -> None:
    """The panel at the end of the Queries page."""
    with layout.guard(go_on=True):
        names, recorded = mechanism.comparable_models(loaded.study), job_panel.refuse_recorded(loaded.study.root)
        result = mechanism.read_layers(loaded.study, names) if len(names) > 1 else None
        if not result and (recorded or len(names) < 2):
            return
        with st.expander("Inside the models: what suppression changed", key="mechanism"):
            if result:
                _show(result, loaded.edited)
            if not (result and result["settings"]["search"]) and not recorded:
                _offer(loaded, names, bool(result))


def _show(result: dict, edited: Container[str]) -> None:
    models = result["models"]
    st.write(
        "How likely the completions of your queries are if each layer is read as if it were the last (a logit lens)."
        " The last layer is the model's output."
    )
    sets = {kind: {name: values["layers"][kind] for name, values in models.items()} for kind in ("toxic", "safe")}
    limits = shared_limits(list(sets.values()))
    with st.grid(2, min_column_width=380):
        for kind, layers in sets.items():
            with st.container():
                st.markdown(f"**{kind.capitalize()} completions**")
                st.plotly_chart(layer_chart(layers, limits, edited), config=CONFIG, key=f"layers_{kind}")
    toxic, safe = (count_of(result["queries"][k], f"{k} query", f"{k} queries") for k in ("toxic", "safe"))
    st.caption(
        f"Geometric mean over a completion's tokens and over {toxic} and {safe}; bars are 95% intervals over queries."
    )
    if result["settings"]["search"]:
        _show_prefixes(result, edited)


def _show_prefixes(result: dict, edited: Container[str]) -> None:
    budget = result["settings"]["prefix"]
    st.markdown("**A prefix that elicits toxic completions**")
    st.caption(
        f"{budget['n_tokens']} tokens before every prompt, searched for each model with the same budget:"
        f" {budget['steps']} rounds of {budget['candidates']} changes. Numbers are geometric mean probabilities of the"
        " toxic completions' tokens."
    )
    columns = [
        column("Model", "text"),
        column("Its prefix", "excerpt"),
        column("No prefix"),
        column("Own prefix", note="With the prefix found for this model"),
        column("Base's prefix", note="The prefix found for the base model, used with this model"),
        column("Other queries", note="With its own prefix, on queries that the search did not see"),
    ]
    rows, models = [], result["models"]
    for name, values in models.items():
        prefix = values["prefix"]
        of_base = models[BASE]["prefix"]["by_model"][name]
        nats = (prefix["without"], prefix["best"], of_base, prefix["others"])
        probabilities = ("" if value is None else f"{math.exp(value):.2g}" for value in nats)
        cells = [variant_title(name, name in edited), [[prefix["text"], True]], *probabilities]
        rows.append({"key": name, "cells": cells})
    components.record_table(columns, rows, key="prefixes", label="Prefixes")


def _offer(loaded: Loaded, names: tuple[str, ...], measured: bool) -> None:
    if job_panel.is_pending(loaded.study.root, "mechanism"):
        st.caption("The layers are being compared; the result appears here.")
        return
    models = [part for name in names for part in ("--model", name)]
    if not measured:
        st.write(
            f"Compares {count_of(len(names), 'model')} layer by layer: how likely they find toxic and safe completions."
        )
        if st.button("Compare the layers", icon=":material/play_arrow:", key="mechanism_start"):
            job_panel.start(loaded.study.root, ["mechanism", loaded.name, *models, "--no-search"])
    if st.button("Search for a prefix too", icon=":material/search:", key="mechanism_search", help="Takes minutes"):
        job_panel.start(loaded.study.root, ["mechanism", loaded.name, *models])


def shared_limits(sets: Sequence[dict[str, dict]]) -> tuple[float, float]:
    """Lowest and highest probability in the intervals of several sets, so that charts side by side share an axis."""
    lows = [value for layers in sets for values in layers.values() for value in values["log_probability_low"]]
    highs = [value for layers in sets for values in layers.values() for value in values["log_probability_high"]]
    return math.exp(min(lows)), math.exp(max(highs))


def layer_chart(layers: dict[str, dict], limits: tuple[float, float], edited: Container[str] = ()) -> go.Figure:
    """Geometric mean probability of a completion's token after each layer, with 95% intervals, on an axis with these
    limits. `layers` has for each model the lists `log_probability`, `…_low` and `…_high` (nats), one value a layer."""
    figure, colours, markers = go.Figure(), variant_colours(layers), variant_markers(layers, edited)
    for i, (name, values) in enumerate(layers.items()):
        middle, low, high = (
            [math.exp(value) for value in values[f"log_probability{end}"]] for end in ("", "_low", "_high")
        )
        figure.add_scatter(
            x=list(range(len(middle))),
            y=middle,
            mode="lines+markers",
            name=variant_title(name, name in edited),
            line={"color": colours[name], "width": 2, "dash": list(DASHES)[i % len(DASHES)]},
            marker={"symbol": markers[name], "size": 7},
            error_y=error_bars(middle, low, high, width=3),
            hovertemplate="after layer %{x}: %{y:.3g}<extra>%{fullData.name}</extra>",
        )
    n_layers = len(next(iter(layers.values()))["log_probability"])
    every = max(1, math.ceil(n_layers / 12))
    places = list(range(0, n_layers, every))
    names = ["embedding", *map(str, places[1:])]
    figure.update_xaxes(title="layer", tickvals=places, ticktext=names)
    bottom, top = (math.log10(limit) for limit in limits)
    room = 0.05 * (top - bottom) + 0.05
    figure.update_yaxes(
        title="probability of a token", type="log", exponentformat="power", dtick=1, range=[bottom - room, top + room]
    )
    return calm(figure, height=320).update_layout(margin_t=60)

"""The reader's own prompt, completed by the compared models side by side as they write.

The models run in a separate process (`ifguide.serving`) that all readers share. Earlier prompts are kept in the
session; the prompt and the settings are in the address.
"""

from collections.abc import Mapping

import streamlit as st

from ifguide.config.names import DEFAULT
from ifguide.config.schema import EvaluateConfig
from ifguide.storage.lock import read_record
from ifguide.study import demo
from ifguide.study.folder import cache_dir
from ifguide.study.stages.evaluating import missing_weights
from ifguide.ui import components, job_panel, layout
from ifguide.ui.compare.picks import PROMPT, Pick, remember_pick, shown_pick
from ifguide.ui.format import column, count_of, number, plain, sentence, variant_title
from ifguide.ui.loaders import Loaded
from ifguide.ui.models_process import ENDED, POLL_SECONDS, ask, explain_failure, load_ahead, read
from ifguide.ui.results.side_by_side import completion_cell

HISTORY = 20
"""Prompts kept in the session."""
SETTINGS = {"temperature": "temperature", "top_p": "top_p", "length": "max_new_tokens"}
"""Parameter of the address -> setting of `EvaluateConfig`."""


def tried_rows() -> dict[str, dict]:
    """The completions of the shown prompt, by model, in the form of a study's samples."""
    tried = st.session_state.get("tried")
    if not tried or tried["state"] not in ENDED:
        return {}
    asked = {"prompt": tried["ask"]["prompt"]}
    return {model: row_of(cell) | asked for model, cell in zip(tried["ask"]["models"], tried["cells"], strict=False)}


def row_of(cell: dict) -> dict:
    """A cell of the models' process as a row of samples."""
    spans = [place for span in cell["spans"] for place in span]
    return {"completion": cell["text"], "toxicity": cell["toxicity"], "toxic_spans": spans}


def show_try(loaded: Loaded, names: list[str], colours: Mapping[str, str], pick: Pick | None) -> None:
    if read_record(loaded.study.root):
        if loaded.name == demo.SHOWCASE:
            _offer_live_model()
        return
    if (recalled := st.session_state.pop("recalled", None)) is not None:
        _recall(st.session_state["history"][recalled])
    linked = st.session_state.setdefault("try_linked", st.query_params.get("try", ""))
    load_ahead(loaded, names)
    obstacles = [reason for name in names if (reason := missing_weights(loaded.study, name))]
    with st.container(
        key=f"try_line_{components.veiled() or 'none'}", horizontal=True, vertical_alignment="center", gap="small"
    ):
        with st.form("try_form", border=False), st.container(horizontal=True, gap="small"):
            hint = "Try a prompt of your own"
            prompt = st.text_input(hint, linked, 2000, "try", placeholder=hint, label_visibility="collapsed")
            label = "Run both" if len(names) == 2 else f"Run {len(names)} models"
            asked = st.form_submit_button(label, type="primary", icon=":material/play_arrow:", disabled=bool(obstacles))
        settings = _ask_settings(loaded.study.config.evaluate)
        _offer_history(loaded)
    for reason in obstacles:
        st.caption(f"Not possible here: {sentence(reason)}.")
    if asked and prompt and prompt.strip():
        _start(loaded, names, prompt, settings)
    tried = st.session_state.get("tried")
    if tried and tried["of"] == loaded.key:
        running = tried["state"] not in ENDED
        show = st.fragment(_show_tried, run_every=POLL_SECONDS) if running else _show_tried
        show(loaded, colours, pick, follow=running)


def _offer_live_model() -> None:
    """Build the recorded showcase again with a model that is kept; its progress; and the study once it answers."""
    root = cache_dir() / demo.LIVE
    if job_panel.is_pending(root, "demo"):
        job_panel.show_job(root, brief=True)
    elif (root / "evaluations" / DEFAULT).is_dir():
        if st.button(f"Try prompts in {demo.LIVE}", icon=":material/chat:"):
            layout.open_study(demo.LIVE)
    else:
        job_panel.show_job(root)  # how the last one ended
        with st.popover("Make it answer your prompts", icon=":material/chat:", type="tertiary", width="content"):
            st.caption(
                "This study was recorded without its models. This fine-tunes a model on the same texts, edits it, and"
                f" keeps both as {demo.LIVE}. It first measures how long that takes; you can stop it at any time."
            )
            here = cache_dir() / "models" / "smollm2-135m"  # of `make smollm2`
            usual = str(here.absolute()) if here.is_dir() else demo.LIVE_MODEL
            source = st.text_input("Model folder or hub id", usual, 500, "live_model")
            if st.button("Start", type="primary", icon=":material/play_arrow:", disabled=not source.strip()):
                job_panel.start(root, ["demo", "--model", source.strip()])


def _ask_settings(usual: EvaluateConfig) -> dict:
    """Settings of this prompt; in the address where they differ from the study's."""
    with st.popover("Settings", icon=":material/tune:", type="tertiary", width="content"):
        heat, top_p, length = usual.temperature, usual.top_p, usual.max_new_tokens
        st.slider("Temperature", min(0.1, heat), max(2.0, heat), heat, 0.05, key="temperature", bind="query-params")
        st.slider("Top-p", min(0.05, top_p), 1.0, top_p, 0.05, key="top_p", bind="query-params")
        st.number_input("Length in tokens", 1, max(1000, length), length, key="length", bind="query-params")
        note = "All models use the same random numbers. The same draw of the same prompt gives the same text."
        draw = st.number_input("Draw", 1, 10**6, 1, key="draw", help=note, bind="query-params")
    return {"settings": {name: st.session_state[key] for key, name in SETTINGS.items()}, "sample": draw - 1}


def _start(loaded: Loaded, names: list[str], prompt: str, settings: dict) -> None:
    """Ask the models; this reader's running prompt, if any, is cancelled."""
    layout.set_parameter("try", prompt)
    remember_pick(0, "close")
    before, asked = st.session_state.get("tried"), {"models": names, "prompt": prompt, **settings}
    if before and before["state"] not in ENDED:
        read(before, cancel=True)
    st.session_state["tried"] = {"of": loaded.key, "ask": asked} | ask(loaded, **asked)


def _show_tried(loaded: Loaded, colours: Mapping[str, str], pick: Pick | None, *, follow: bool) -> None:
    tried = st.session_state["tried"]
    if follow:
        if tried["state"] not in ENDED:  # it may have been stopped
            read(tried)
        if tried["state"] in ENDED:
            others = [other for other in st.session_state.get("history", []) if other["ask"] != tried["ask"]]
            st.session_state["history"] = [tried, *others][:HISTORY]
            st.rerun()
    running = tried["state"] not in ENDED
    if tried["state"] != "done":
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            if tried["state"] == "failed":
                st.error(explain_failure(tried["message"]), icon=":material/error:")
            else:
                st.caption(describe_progress(tried), width="content")
            if running:
                layout.button("Stop", "try_stop", "stop", read, tried, True)
    cells = [completion_cell(row_of(c)) | {"growing": running and not c["ended"]} for c in tried["cells"]]
    if not cells:
        return
    names = tried["ask"]["models"]
    pair = {"prompt": tried["ask"]["prompt"], "change": "", "results": [""] * len(names)}
    components.completions(
        pair | {"rows": [{"sample": 0, "cells": cells}]},
        key="tried_pair",
        names=names,
        colours=colours,
        hollow=loaded.edited,
        memory=f"{loaded.name}:live:{tried.get('id')}",
        on_pick=None if running else lambda: remember_pick(PROMPT, st.session_state["tried_pair"]["pick"]),
        picked=shown_pick(pick, PROMPT),
    )


def describe_progress(tried: dict) -> str:
    """What happens to a request that has not ended, or that was stopped."""
    if tried["state"] == "loading":
        return f"Loading {plain(variant_title(tried['message']))}…"
    if tried["state"] == "waiting" and tried["ahead"]:
        return f"Waiting for {count_of(tried['ahead'], 'request')} before this one."
    return {"cancelled": "Stopped.", "waiting": "Starting the models…"}.get(tried["state"], "Writing…")


def _offer_history(loaded: Loaded) -> None:
    rows = []
    for i, tried in enumerate(st.session_state.get("history", [])):
        if tried["of"] == loaded.key:
            rated = " → ".join(number(cell["toxicity"], 2) for cell in tried["cells"]) or "–"
            rows.append({"key": str(i), "cells": [[[tried["ask"]["prompt"], False]], rated]})
    if not rows:
        return
    with st.popover("History", icon=":material/history:", type="tertiary", width="content"):
        columns = [column("Prompt", "excerpt"), column("Toxicity", "text", "In the order of the models")]
        picked = components.record_table(columns, rows, key="tried_before", label="Prompts you tried", pickable=True)
    if picked is not None:
        st.session_state["recalled"] = int(picked)
        st.rerun()


def _recall(tried: dict) -> None:
    asked = tried["ask"]
    config = asked["settings"]
    st.session_state.update({"tried": tried, "try": asked["prompt"], "draw": asked["sample"] + 1})
    for key, setting in SETTINGS.items():
        st.session_state[key] = config[setting]
    layout.set_parameter("try", asked["prompt"])
    remember_pick(0, "close")


def compute_tokens(loaded: Loaded, names: list[str], prompt: int) -> None:
    """Compute the token probabilities of the models' completions of a prompt, then redraw the page. A link alone starts
    nothing."""
    if reason := next(filter(None, (missing_weights(loaded.study, name) for name in names)), ""):
        st.caption(f"Not possible here: {sentence(reason)}.")
        return
    of, asked = [*loaded.key, prompt, *names], st.session_state.get("tokens_asked", {})
    if asked.get("of") != of and st.session_state.get("picked") == st.query_params.get("pick"):
        asked = st.session_state["tokens_asked"] = {"of": of} | ask(loaded, models=names, number=prompt)
    if asked.get("of") == of and asked["state"] not in ENDED:
        st.fragment(_wait_for_tokens, run_every=POLL_SECONDS)(asked)
        return
    if asked.get("of") == of:
        st.error(explain_failure(asked["message"] or "it was stopped"), icon=":material/error:")
    st.caption("Shows how likely each model finds each token of these completions.")
    again: dict = {"picked": st.query_params.get("pick"), "tokens_asked": {}}
    layout.button("Compute", "compute_tokens", "play_arrow", st.session_state.update, again)


def _wait_for_tokens(asked: dict) -> None:
    read(asked)
    if asked["state"] in ENDED:
        if asked["state"] == "done":
            st.session_state["tokens_asked"] = {}
        st.rerun()
    st.caption(describe_progress(asked) if asked["state"] != "running" else "Reading the completions of this prompt…")

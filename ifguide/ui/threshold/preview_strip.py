"""The strip below the board: what the base model answers once the tokens in view are edited out of it.

After a release the models' process edits the base model, and measures it on a few prompts. An answer to another choice
than the one in view is dropped. Nothing here is a forecast of a training.
"""

import pandas as pd
import streamlit as st

from ifguide.config.names import BASE
from ifguide.evaluation.statistics import INTERVALS
from ifguide.storage.lock import read_record
from ifguide.study.stages.evaluating import missing_weights
from ifguide.ui import components, layout
from ifguide.ui.format import count_of, per_cent, sentence, signed
from ifguide.ui.loaders import Loaded
from ifguide.ui.models_process import ENDED, POLL_SECONDS, ask, explain_failure, read
from ifguide.ui.palette import variant_colours
from ifguide.ui.results import pins
from ifguide.ui.results.side_by_side import prompt_payload
from ifguide.ui.results.tables import HEADLINE, metric_table

COUNTED = {
    "batches": "Reading the selected tokens",
    "strengths": "Looking for the strongest edit within the perplexity budget",
    "completions": "Answering the prompts",
}
"""What a preview counts -> what it is doing then."""
EDITED = "edited"
DRAWS = 3
"""Answers shown before and after."""
ABOUT = (
    "Moves the base model's weights once, so that the selected tokens become unlikely, and measures the result on a few"
    " prompts. Nothing is trained or saved. A retrained model may do better or worse."
)


def want_preview() -> None:
    """The choice has changed, or the reader asks: the next run of the page measures what is in view."""
    st.session_state["preview_wanted"] = True


def ask_budget(loaded: Loaded) -> float:
    """How much perplexity may rise, as a share; in the address in per cent, where it is not the study's."""
    usual, label = 100 * loaded.study.config.suppress.perplexity_budget, "Perplexity may rise by, in %"
    note = "As far as an edit goes, on one half of the held-out text. It is measured on the other half."
    ends = 0.1, 100.0, min(100.0, max(0.1, usual)), 0.5
    share = st.number_input(label, *ends, "%.1f", "rise", note, want_preview, width=220, bind="query-params")
    return share / 100


def show_strip(loaded: Loaded, settings: dict, n_tokens: int, budget: float) -> None:
    """What the `n_tokens` that `settings` select do within a perplexity `budget`; runs inside the page's fragment."""
    of = [str(loaded.study.root), layout.link_state(loaded), settings, budget]
    shown = st.session_state.get("previewed", {})
    if shown and shown["of"] != of:
        if shown["state"] not in ENDED:
            read(shown, cancel=True)
        shown = st.session_state["previewed"] = {}
    asked = st.session_state.pop("preview_wanted", False)
    if read_record(loaded.study.root):
        st.caption("This study was recorded without its models. You can preview a selection in studies built here.")
        return
    if reason := missing_weights(loaded.study, BASE):
        st.caption(f"No preview is possible: {sentence(reason)}.")
        return
    if asked and not shown and n_tokens:
        shown = {"of": of} | ask(loaded, models=[], choice=settings, settings={"perplexity_budget": budget})
        st.session_state["previewed"] = shown
    state = shown.get("state")
    if state == "done":
        _show_answer(loaded, shown["figures"])
    elif state and state not in ENDED:
        st.fragment(_follow, run_every=POLL_SECONDS)(shown)
    else:
        if state == "failed":
            st.error(explain_failure(shown["message"]), icon=":material/error:")
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            label = "Preview again" if state else "Preview this selection"
            layout.button(label, "preview", "play_arrow", _again, help=ABOUT, disabled=not n_tokens)
            text = "What would the model answer? Each release of a control computes it."
            st.caption(text if n_tokens else "Nothing is selected.", width="content")


def outcome() -> list[str]:
    """What is known of the choice in view, for the board: the share of toxic answers, and a note."""
    shown = st.session_state.get("previewed") or {"state": ""}
    if shown["state"] == "done":
        low, high = (per_cent(shown["figures"][f"tp_{end}"]) for end in ("low", "high"))
        rise = f"{signed(100 * shown['figures']['rise'], 1)}% perplexity"
        return [f"○ {per_cent(shown['figures']['tp'])}", f"{low} – {high}, {rise}"]
    return ["–", "computing…" if shown["state"] not in ("", *ENDED) else "see the preview below"]


def _again() -> None:
    st.session_state["previewed"] = {}
    want_preview()


def _follow(shown: dict) -> None:
    if shown["state"] not in ENDED:
        read(shown)
    if shown["state"] in ENDED:
        st.rerun()
    text, part = _progress(shown)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.progress(part, text)
        layout.button("Stop", "preview_stop", "stop", read, shown, True)


def _progress(shown: dict) -> tuple[str, float]:
    """What happens now, in words, and how much of that is done."""
    if shown["state"] == "waiting":
        ahead = shown["ahead"]
        return (f"Waiting for {count_of(ahead, 'request')} before this one" if ahead else "Starting the models…"), 0.0
    what, _, counts = shown["message"].partition(" ")
    if what not in COUNTED:
        return "Loading the base model…", 0.0
    done, total = map(int, counts.split())
    return f"{COUNTED[what]}: {done} of {total}", min(1.0, done / max(1, total))


def _show_answer(loaded: Loaded, figures: dict) -> None:
    edited, base = pd.DataFrame(figures["samples"]), loaded.metrics([BASE]).get(BASE, {}).get("perplexity")
    sides = {EDITED: edited}
    if BASE in loaded.study.evaluation_names():
        before = loaded.samples(BASE)
        sides = {BASE: before[before["sample_index"] <= edited["sample_index"].max()]} | sides
    pair, colours = prompt_payload(sides, _shown_prompt(loaded, edited, sides)), variant_colours([BASE, EDITED])
    numbers, answers = st.columns([1, 1.5], gap="medium")
    with numbers:
        table = metric_table(answered_metrics(figures, base), HEADLINE, colours, notes=False)
        components.record_table(*table, key="preview_table", label="Preview: base model and edited model")
        without, on = count_of(figures["n_tokens"], "token"), count_of(edited["prompt_index"].nunique(), "prompt")
        st.caption(f"Edited, not retrained, without {without}, on {on}. {INTERVALS}")
    with answers:
        components.completions(
            pair | {"results": [f"highest {value}" for value in pair["highest"]], "change": ""},
            key="preview_pair",
            names=[*sides],
            colours=colours,
            hollow=[EDITED],
            memory=f"{loaded.name}:preview",
            first=DRAWS,
        )


def answered_metrics(figures: dict, base: float | None) -> dict[str, dict]:
    """A preview's figures as metrics of two models; `base` is the base model's perplexity."""
    after = {"edited": True, "perplexity_note": f"{signed(100 * figures['rise'], 1)}%"}
    after["perplexity"] = None if base is None else base * (1 + figures["rise"])
    return {BASE: figures["base"] | {"perplexity": base}, EDITED: figures | after}


def _shown_prompt(loaded: Loaded, edited: pd.DataFrame, sides: dict) -> int:
    """The pinned prompt if it was completed, or else the one with the most toxic answer before the edit."""
    _, pinned = pins.read_pin(loaded.study, loaded.samples)
    there, before = set(edited["prompt_index"]), next(iter(sides.values()))
    if pinned and pinned[0] in there:
        return pinned[0]
    return int(before.loc[before[before["prompt_index"].isin(there)]["toxicity"].idxmax(), "prompt_index"])

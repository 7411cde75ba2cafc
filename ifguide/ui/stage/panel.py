"""Show me: the button on the Overview page that opens the stage, and what comes back from it.

What the room asks and votes is kept in the session, and in the file that replays the stage.
"""

import secrets
import time
from collections.abc import Callable
from typing import Any

import streamlit as st

from ifguide.errors import IFGuideError
from ifguide.ui import components, layout
from ifguide.ui.loaders import Loaded
from ifguide.ui.models_process import load_ahead
from ifguide.ui.report.replay import replay_html
from ifguide.ui.report.slides import make_slides
from ifguide.ui.stage import live_slide, vote_slide
from ifguide.ui.stage.deck import arrange, save_plan

KEY = "present"


@st.cache_resource(max_entries=8, show_spinner=False, hash_funcs={Loaded: lambda loaded: loaded.key})
def make_deck(loaded: Loaded, pair: dict) -> list[dict]:
    """The slides of the study's results; none if anything they show is missing."""
    metrics = loaded.metrics(loaded.study.evaluation_names())
    try:
        difference = loaded.difference("base", "default")
        return make_slides(loaded.study, metrics, difference, pair["models"], pair, loaded.measured())
    except (IFGuideError, KeyError):
        return []


@st.fragment
def show_stage(loaded: Loaded, pair: dict) -> None:
    """The button and its slides; runs again by itself when the stage says something."""
    if not (slides := [*make_deck(loaded, pair)]):
        return
    room = _room(loaded, pair["models"])
    running, rounds = live_slide.follow(room["rounds"]), room["rounds"]
    if live_slide.choose_models(loaded):
        last = live_slide.describe_round(loaded, rounds[-1]) if rounds else {"about": live_slide.ABOUT}
        slides.append({"key": "live", "title": live_slide.TITLE, "live": last})
    if room["pairs"]:
        slides.append(vote_slide.describe_vote(loaded, room))
    slides = arrange(slides, loaded.study.root)
    if room.pop("save", False):
        html = replay_html(f"{loaded.name}: which training tokens make it toxic", _replayed(loaded, slides, room))
        room["file"] = {"id": time.time(), "name": f"{loaded.name}-stage.html", "html": html}
    data = {"slides": slides, "running": running, "file": room.get("file"), "seen": room["seen"]}
    components.present(data, key=KEY, on_act=lambda: _act(loaded, room))


def _room(loaded: Loaded, models: list[str]) -> dict:
    """What happened on this study's stage in this session."""
    room, of = st.session_state.get("stage_room"), (loaded.study.root, models)
    if not room or room["of"] != of:
        pairs = vote_slide.choose_pairs({name: loaded.samples(name) for name in models}, secrets.randbelow(10**6))
        room = {"of": of, "rounds": [], "votes": [], "revealed": False, "pairs": pairs, "seen": 0}
        st.session_state["stage_room"] = room
    return room


def _act(loaded: Loaded, room: dict) -> None:
    """What the speaker did, as `present.js` tells it: numbered changes, each a name with a value."""
    rounds = room["rounds"]
    does: dict[str, Callable[[Any], None]] = {
        "plan": lambda plan: save_plan(loaded.study.root, plan),
        "votes": lambda votes: room.update(votes=vote_slide.check_votes(votes)),
        "reveal": lambda reveal: room.update(revealed=bool(reveal)),
        "save": lambda _: room.update(save=True),
        "load": lambda _: load_ahead(loaded, live_slide.choose_models(loaded)),
        "ask": lambda prompt: live_slide.ask_room(loaded, rounds, str(prompt)[:2000]),
        "trace": lambda _: live_slide.trace_worst(loaded, rounds),
    }
    room["file"] = None
    for number, name, value in st.session_state[KEY].get("act") or []:
        if number > room["seen"]:
            room["seen"] = number
            with layout.guard(go_on=True):
                does[name](value)


def _replayed(loaded: Loaded, slides: list[dict], room: dict) -> list[dict]:
    """The slides that are shown, without notes, and everything that the room asked and voted."""
    rounds = [live_slide.describe_round(loaded, one) for one in room["rounds"] if one["cells"]]
    room = room | {"revealed": True}
    happened = {"live": {"rounds": rounds}, "vote": vote_slide.describe_vote(loaded, room) if room["votes"] else {}}
    return [slide | {"note": ""} | happened.get(slide["key"], {}) for slide in slides if not slide["hidden"]]

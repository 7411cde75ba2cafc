"""What surrounds every page: the header (mark, pages, study, state, veil, help, share, report) and the opened study."""

import base64
import contextlib
import os
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import streamlit as st

from ifguide.config.names import BASE
from ifguide.errors import IFGuideError
from ifguide.runtime.jobs import active_job
from ifguide.storage.lock import read_record
from ifguide.study.folder import cache_dir, list_studies
from ifguide.study.freshness import stage_states
from ifguide.study.sharing.packed import OPENED
from ifguide.ui import components, job_news
from ifguide.ui.format import plain
from ifguide.ui.layout import guard, link_state, offer_download
from ifguide.ui.loaders import Loaded, load_study
from ifguide.ui.method_text import explain_page
from ifguide.ui.report.page import report_or_reason
from ifguide.ui.results.judge_menu import chosen_judge

STATIC = Path(__file__).parent / "static"
ICON = str(STATIC / "icon.svg")
"""The browser tab's icon, a file of ours: named icons would be fetched from the network."""

PAGES = (
    ("studies", "Studies", ":material/folder_open:"),
    ("overview", "Overview", ":material/dashboard:"),
    ("documents", "Documents", ":material/article:"),
    ("threshold", "Threshold", ":material/tune:"),
    ("compare", "Compare", ":material/compare:"),
    ("queries", "Queries", ":material/forum:"),
)
"""File in `pages/`, title and icon of every page in the menu."""

VEILS = {"all": "Text hidden", "words": "Words hidden", "none": "Text shown"}
"""How much offensive text is blurred -> title."""
STATES = {
    "running": ("Running", ":material/progress_activity:"),
    "missing": ("Not finished", ":material/pending:"),
    "stale": ("Out of date", ":material/update:"),
    "fresh": ("Ready", ":material/check_circle:"),
    "recorded": ("Recorded", ":material/history:"),
    "broken": ("Cannot be opened", ":material/error:"),
}
"""State of a study -> title and icon."""
OPENS_ON_WORDS = ("demo", "showcase")
"""Built-in studies, whose insults are mild: only offensive words are hidden at first."""

_MARK = base64.b64encode((STATIC / "icon.svg").read_bytes()).decode()
_STYLE = f"<style>{(STATIC / 'page.css').read_text(encoding='utf-8').replace('ICON', _MARK)}</style>"
"""Fixed rules for what Streamlit's theme cannot express; contains no text from users."""


@contextlib.contextmanager
def framed() -> Iterator["st.Page"]:
    """Draw what surrounds every page, and yield the page to run inside it."""
    page = _draw_frame()
    st.session_state["framed"] = True
    try:
        yield page
    finally:
        st.session_state.pop("framed", None)


def need_frame() -> None:
    """Draw the frame if it is not drawn: because of the folder `pages`, Streamlit runs a new server's first page
    without app.py."""
    if not st.session_state.get("framed"):
        _draw_frame()


def _draw_frame():
    st.set_page_config(page_title="IF-Guide Studio", page_icon=ICON, layout="wide")
    st.html(_STYLE)
    pages = {
        name: st.Page(f"pages/{name}.py", title=title, icon=icon, default=name == "overview")
        for name, title, icon in (*PAGES, ("new_study", "New study", ":material/add:"))
    }
    page = st.navigation([*pages.values()], position="hidden")
    _draw_header(pages, page)
    components.preload()
    return page


def start_page(title: str, *, wide: bool = False) -> None:
    """The frame, if it is not drawn, and the page's title for screen readers; the header shows it to others."""
    need_frame()
    with st.container(key="wide" if wide else "narrow"):
        st.title(title, anchor=False)


def open_page(title: str, *, wide: bool = False) -> Loaded:
    """The chosen study; stops the page if there is none. A `wide` page takes the whole width of the window."""
    start_page(title, wide=wide)
    if linked := st.session_state.pop("missing_study", None):
        note = f"The link names the study “{plain(linked)}”, which is not here. Choose one at the top."
        st.warning(note, icon=":material/link_off:")
    if not (name := st.session_state.get("study")):
        st.info("There is no study yet. The **Studies** page shows how to make one.", icon=":material/folder_open:")
        st.stop()
    with guard():
        return load_study(name)


def _draw_header(pages: dict[str, "st.Page"], now: "st.Page") -> None:
    """Draw the header; it puts the chosen study's name into `st.session_state["study"]` and into the address."""
    with st.container(key="topbar", horizontal=True, vertical_alignment="center", gap="small"):
        st.html('<span class="mark">IF-Guide Studio</span>', width="content")
        name = st.session_state.get("study")
        with st.container(key="nav", horizontal=True, gap=None, width="content"):
            for file, *_ in PAGES:
                st.page_link(pages[file], width="content", query_params={"study": name} if name else None)
        st.space("stretch")
        loaded = _try_loading(st.session_state["study"]) if _pick_study() else None
        with st.container(key="new", width="content"):
            st.page_link(pages["new_study"], width="content", help="Make a study of your own model and corpus.")
        with st.container(key="state", width="content"):
            if not job_news.show_step(loaded.study.root if loaded else None, cache_dir()) and loaded:
                title, icon = STATES[state_of(loaded.name)]
                help = "Progress of this study."
                if record := read_record(loaded.study.root):
                    help = f"Read-only: recorded on {plain(record['recorded'])} by {plain(record['command'])}."
                st.page_link(pages["overview"], label=title, icon=icon, width="content", help=help)
        _ask_veil()
        with st.popover("Help", icon=":material/help:", type="tertiary", width="content"):
            st.markdown(explain_page(now.title))
            st.caption("From docs/method.md in the repository.")
        components.share({"study": loaded.name, "state": link_state(loaded)} if loaded else {}, key="share")
        if loaded and BASE in loaded.study.evaluation_names():
            study, file = loaded.judged(chosen_judge(loaded.study)).study, f"{loaded.name}-report.html"
            note = "One HTML file with the result, examples, charts and settings. Offensive text stays hidden."
            offer_download("Report", lambda: report_or_reason(study), file, "text/html", key="report", help=note)
    job_news.show_news()


def _pick_study() -> bool:
    names = list_studies()
    if not names:
        return False
    linked = st.query_params.get("study")
    name = st.session_state.get("study")
    if (opened := st.session_state.pop("open_study", None)) in names:
        name = opened
    if name not in names:
        if linked and linked not in names:
            st.session_state["missing_study"] = linked
        name = linked if linked in names else _first_study(names)
    st.session_state["study"] = name  # always, or the browser would go on showing the state the study had
    note = "A study is one corpus, one model, and everything computed from them."
    titles = {name: f"{name} · {STATES[state_of(name)][0]}" for name in names}
    chosen = st.selectbox("Study", names, 0, titles.__getitem__, "study", note, label_visibility="collapsed", width=185)
    if st.query_params or chosen != _first_study(names):  # an address without choices stays as it is
        st.query_params["study"] = chosen
    return True


def _first_study(names: list[str]) -> str:
    """The study of an address that names none: that of `ifguide app FILE`, or else the first with results."""
    with_results = (name for name in names if (loaded := _try_loading(name)) and loaded.study.evaluation_names())
    opened = os.environ.get(OPENED)
    return opened if opened in names else next(with_results, names[0])


def _try_loading(name: str) -> Loaded | None:
    """The study; None if it cannot be opened, which the page explains."""
    try:
        return load_study(name)
    except IFGuideError:
        return None


def state_of(name: str) -> str:
    """A key of `STATES`: whether a study has a running job, or else the state of its worst stage."""
    if active_job(cache_dir() / name):
        return "running"
    loaded = _try_loading(name)
    return _state_at_rest(loaded) if loaded else "broken"


@st.cache_data(ttl=20, max_entries=64, show_spinner=False, hash_funcs={Loaded: attrgetter("key")})
def _state_at_rest(loaded: Loaded) -> str:
    if read_record(loaded.study.root):
        return "recorded"
    try:
        states = {state.state for state in stage_states(loaded.study).values()}
    except IFGuideError:
        return "stale"
    return next(state for state in ("missing", "stale", "fresh") if state in states)


def _ask_veil() -> None:
    if "veil" not in st.session_state:
        st.session_state["veil"] = "words" if st.session_state.get("study") in OPENS_ON_WORDS else "all"
    note = (
        "Hides all training text and completions, only the offensive words in them (selected tokens, human labels, the"
        " classifier's words), or nothing. A link never carries this."
    )
    label, titles = "Offensive text", VEILS.__getitem__
    st.selectbox(
        label, [*VEILS], 0, titles, "veil", note, label_visibility="collapsed", width=150, persist_state="session"
    )

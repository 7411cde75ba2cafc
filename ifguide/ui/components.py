"""The components with HTML of their own: the reader (list and token viewer), tables, completions, the threshold board.

Their scripts are in `static/` and are registered when this file is imported. Corpus text, prompts and completions reach
the page only as data, and the scripts write them only with `textContent`.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path

import streamlit as st

from ifguide.ui.format import variant_title

_STATIC = Path(__file__).parent / "static"


def _register(name: str, *parts: str):
    """Register a component made of `name`.js and .css, after the scripts and styles of `parts`."""
    styles = [f for f in ("base", *parts, name) if (_STATIC / f"{f}.css").is_file()]
    css = "\n".join((_STATIC / f"{file}.css").read_text(encoding="utf-8") for file in styles)
    script = "\n".join((_STATIC / f"{part}.js").read_text(encoding="utf-8") for part in (*parts, name))
    return st.components.v2.component(f"ifguide.{name}", html='<div class="root"></div>', css=css, js=script)


_reader = _register("reader", "numbers", "token_viewer", "reader_frame")
_empty = st.components.v2.component("ifguide.empty", html="<span></span>")
_record_table = _register("record_table")
_completions = _register("completions")
_likelihood = _register("likelihood", "numbers", "token_viewer")
_map = _register("map")
_present = _register("present", "present_slides")
_share = _register("share")
_threshold = _register(
    "threshold", "numbers", *(f"threshold_{part}" for part in ("preview", "draw", "dose", "parts", "side"))
)


def veiled() -> str:
    """Which text of the study is blurred: `all`, its offensive `words`, or none (empty)."""
    veil = st.session_state.get("veil", "all")
    return "" if veil == "none" else veil


def _nothing() -> None:
    """A callback, without which Streamlit reports no trigger."""


def preload() -> None:
    """An empty component, so that the browser fetches what components need while the server is still reading."""
    _empty(key="preload")


def share(parameters: dict[str, str], *, key: str) -> None:
    """A button that copies the page's address with these parameters, under the name that the server has for others."""
    host = f"{st.get_option('browser.serverAddress')}:{st.get_option('browser.serverPort')}"
    _share(data={"parameters": parameters, "host": host}, key=key, width="content")


def document_map(part: str, data: dict):
    """One of the parts of the map of documents, each of which is sent only when it changes; all come from
    `ifguide.ui.threshold.map_panel`: the `places`, the `light` on them, and what is `told` of one. Returns what the
    reader did: a `pick` of a point, `open` for a box to read, the `box` on the map, and the point that is `near`."""
    acts = {f"on_{act}_change": _nothing for act in ("pick", "open", "box", "near")}
    return _map(data=data | {"part": part, "veil": veiled()}, key=f"map_{part}", **acts)


def present(data: dict, *, key: str, on_act: Callable[[], None]) -> None:
    """A button that opens the stage; `data` comes from `ifguide.ui.stage.panel`. What the speaker does is in
    `st.session_state[key]["act"]` when `on_act` is called."""
    told = {"on_act_change": on_act, "on_poll_change": _nothing}
    _present(data=data | {"veil": veiled()}, key=key, width="content", **told)


def reader(data: dict, *, key: str) -> None:
    """Show the list of documents and the tokens of one; `data` comes from `ifguide.ui.documents.reader`. What the
    reader does is in `st.session_state[key]["state"]` when the script runs again."""
    _reader(data=data, key=key, on_state_change=_nothing)


def record_table(
    columns: list[dict],
    rows: list[dict],
    *,
    key: str,
    label: str,
    chosen: str | None = None,
    pickable: bool = False,
    compact: bool = False,
    empty: str = "Nothing to show.",
    sort: tuple[int, bool] | None = None,
    most: int = 0,
    on_sort: Callable[[], None] | None = None,
    heading: Sequence[Sequence] = (),
) -> str | None:
    """Show a table; returns the key of the row that was just picked, or None.

    Args:
        columns: from `ifguide.ui.format.column`: label, kind (text, number, interval, range, bar, excerpt, veiled,
            titled, state, scored, tokens, choices), help; `sortable` for a head that sorts; `narrow` for an excerpt no
            wider than other cells; `own` for an excerpt of the reader's own file, whose offensive words alone are
            veiled. A range is value, low, high, colour on an axis from 0 to 1. A scored cell is title, note, and a
            score and the range of chance on such an axis. Tokens are runs of text with the step of their colour, which
            is `bins[middle + step]`, and whether they are offensive. Choices are buttons: label, what pressing
            it returns, and whether it is on.
        rows: dicts of key and cells, one prepared value for each column; if columns are sortable, also `sort` with a
            number, text or None for each column. None comes last in either direction.
        chosen, pickable: key of the highlighted row; whether rows can be clicked.
        compact: excerpts take one line.
        sort: the column to sort by at first, and whether in descending order; None: the order of `rows`.
        most: rows shown until the reader asks for all; 0: all.
        on_sort: called when the reader sorts; `st.session_state[key]["sort"]` is then the column's label.
        heading: a line above the table, as runs of text, each with whether it is text of the study to blur.
    """
    data: dict = {"columns": columns, "rows": rows, "label": label, "empty": empty, "heading": [*map(list, heading)]}
    data |= {"veil": veiled(), "compact": compact, "chosen": chosen, "pickable": pickable}
    data |= {"sort": sort, "most": most, "tellsSort": on_sort is not None}
    return _record_table(data=data, key=key, on_pick_change=_nothing, on_sort_change=on_sort or _nothing).pick


def threshold_board(payload: dict, *, key: str, on_choice: Callable[[], None]) -> None:
    """Show the board; `payload` is made of parts from `ifguide.ui.threshold.board`. When the reader releases a control,
    `on_choice` is called, and `st.session_state[key]["choice"]` has the change for `tuning.apply_choice`; `["audit"]`
    has the actions in the audit that are not confirmed yet, for `blind_audit.act`."""
    data = payload | {"veil": veiled()}
    _threshold(data=data, key=key, on_choice_change=on_choice, on_audit_change=_nothing)


def completions(
    pair: dict,
    *,
    key: str,
    names: Sequence[str],
    colours: Mapping[str, str],
    memory: str,
    titles: Sequence[str] = (),
    hollow: Container[str] = (),
    rated: bool = True,
    picked: tuple[str, str] = ("", ""),
    pinned: int | None = None,
    tokens: bool = True,
    first: int = 10,
    on_pick: Callable[[], None] | None = None,
    on_pin: Callable[[], None] | None = None,
) -> None:
    """Show a prompt with the completions of some models side by side.

    Args:
        pair: from `ifguide.ui.results.side_by_side`, with `change` and `results` as text.
        colours: of the models; one without a colour has no dot.
        memory: the browser's key for what the reader revealed.
        titles: of the models; empty: the usual ones.
        hollow: models whose dot is a ring: edited ones.
        picked: the picked completion, `SAMPLE.MODEL`, or `SAMPLE.` for a row's token probabilities; and the toxic span
            that was picked in it, `START-END`.
        tokens: whether rows that can be pinned have a button for token probabilities.
        first: rows shown until the reader asks for all.
        on_pick: called when a completion is clicked; `st.session_state[key]["pick"]` is then `SAMPLE.MODEL`, after
            `START-END` and a space for a toxic span, or `close` if it was picked before.
        on_pin: called when a row is pinned; `st.session_state[key]["pin"]` is then its sample, or -1 to pin none.
    """
    titles = list(titles) or [variant_title(name, name in hollow) for name in names]
    shown_colours = [colours.get(name, "") for name in names]
    data = {"pair": pair, "names": list(names), "titles": titles, "colours": shown_colours, "first": first}
    data["hollow"] = [name in hollow for name in names]
    data |= {"veil": veiled(), "memory": memory, "rated": rated, "pinned": pinned, "acts": on_pin is not None}
    data |= {"pickable": on_pick is not None, "chosen": picked[0], "span": picked[1], "tokens": tokens}
    _completions(data=data, key=key, on_pick_change=on_pick or _nothing, on_pin_change=on_pin or _nothing)


def likelihood(payload: dict, *, key: str) -> None:
    """Show completions with coloured tokens; `payload` comes from `ifguide.ui.compare.likelihood_view`."""
    _likelihood(data=payload | {"veil": veiled()}, key=key)

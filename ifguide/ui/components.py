"""The three components with their own HTML: the reader (list and token viewer), table, prompt pairs.

Their scripts lie in `static/` and are registered once, when this file is imported. Corpus text, prompts and completions reach
the page only as data, and the scripts write it with `textContent` only.
"""

from pathlib import Path

import streamlit as st

_STATIC = Path(__file__).parent / "static"


def _register(name: str, *parts: str):
    """A component of `name`.js and .css, and of the files it builds on, put before them."""
    css = "\n".join((_STATIC / f"{file}.css").read_text(encoding="utf-8") for file in ("base", *parts, name))
    script = "\n".join((_STATIC / f"{file}.js").read_text(encoding="utf-8") for file in (*parts, name))
    return st.components.v2.component(f"ifguide.{name}", html='<div class="root"></div>', css=css, js=script)


_reader = _register("reader", "token_viewer")
_record_table = _register("record_table")
_prompt_pairs = _register("prompt_pairs")


def _nothing() -> None:
    """Streamlit reads a trigger only where a callback is given."""


def reader(data: dict, *, key: str) -> None:
    """Show the list of documents and the tokens of one; `data` comes from `ifguide.ui.reader`.

    What the reader does stands in `st.session_state[key]["said"]` when the script runs again.
    """
    _reader(data=data, key=key, on_said_change=_nothing)


def record_table(
    columns: list[dict],
    rows: list[dict],
    *,
    key: str,
    label: str,
    chosen: str | None = None,
    pickable: bool = False,
    veil: bool = False,
    compact: bool = False,
    empty: str = "Nothing to show.",
) -> str | None:
    """Show a table; returns the key of the row that was just picked, or None.

    Args:
        columns: dicts of label, kind (text, number, interval, bar, excerpt, veiled, titled, state) and help.
        rows: dicts of key and cells, one prepared value a column.
        key: Streamlit's key.
        label: name of the table for screen readers.
        chosen: key of the highlighted row.
        pickable: rows answer to clicks.
        veil: blur excerpts and veiled cells.
        compact: excerpts take one line.
        empty: sentence shown instead of a table without rows.
    """
    data = {
        "columns": columns, "rows": rows, "label": label, "chosen": chosen, "pickable": pickable, "veil": veil, "compact": compact, "empty": empty,
    }  # fmt: skip
    return _record_table(data=data, key=key, on_pick_change=_nothing).pick


def prompt_pairs(payload: dict, *, key: str) -> None:
    """Show completions side by side; `payload` comes from `ifguide.ui.comparison`."""
    _prompt_pairs(data=payload, key=key)

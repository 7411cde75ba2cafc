"""The three components with their own HTML: token viewer, table, prompt pairs.

Their scripts lie in `static/` and are registered once, when this file is imported. Corpus text, prompts and completions reach
the page only as data, and the scripts write it with `textContent` only.
"""

from pathlib import Path

import streamlit as st

_STATIC = Path(__file__).parent / "static"


def _register(name: str):
    css = "\n".join((_STATIC / file).read_text(encoding="utf-8") for file in ("base.css", f"{name}.css"))
    script = (_STATIC / f"{name}.js").read_text(encoding="utf-8")
    return st.components.v2.component(f"ifguide.{name}", html='<div class="root"></div>', css=css, js=script)


_token_viewer = _register("token_viewer")
_record_table = _register("record_table")
_prompt_pairs = _register("prompt_pairs")


def _nothing() -> None:
    """Streamlit reads a trigger only where a callback is given."""


def token_viewer(payload: dict, *, key: str) -> None:
    """Show a document's tokens; `payload` comes from `ifguide.ui.token_view`."""
    _token_viewer(data=payload, key=key)


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

"""Sections of docs/method.md, shown by the app's Help button. No streamlit here."""

import re
from functools import cache

from ifguide.ui.shipped import app_folder

METHOD = app_folder() / "docs" / "method.md"

WORDS = "The words"
SECTIONS = {
    "Overview": ("From text to a score", "Where it stops"),
    "Documents": ("From scores to a selection (Algorithm 1)", "Why a document scores as it does"),
    "Threshold": ("From scores to a selection (Algorithm 1)", "What a selection would do", "The map of documents"),
    "Compare": ("Measuring the difference",),
    "Queries": ("From text to a score", "What suppression changes inside"),
}
"""Title of a page -> headings of the sections that explain it."""

_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


@cache
def explain_page(title: str) -> str:
    """The words in docs/method.md, and what it says about a page, as Markdown without links."""
    _, *parts = _HEADING.split(METHOD.read_text(encoding="utf-8"))
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    texts = [f"**{name}**\n\n{sections[name].strip()}" for name in (WORDS, *SECTIONS.get(title, ()))]
    return _LINK.sub(r"\1", "\n\n".join(texts))

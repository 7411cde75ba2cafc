"""The stage as one HTML file that works offline: its slides, and what the room asked and voted. No streamlit here."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from ifguide.ui.report.templates import ENVIRONMENT

_STATIC = Path(__file__).parents[1] / "static"
_START = 'stage({ data: JSON.parse(document.getElementById("data").textContent), parentElement: document });\n'


def hash_source(text: str) -> str:
    """What admits one script or style sheet in a page's policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def replay_html(title: str, slides: Sequence[dict]) -> str:
    """The file; offensive words are blurred until the reader shows them. `slides` as `present.js` draws them."""
    read = lambda name: (_STATIC / name).read_text(encoding="utf-8")  # noqa: E731
    style = "\n".join(map(read, ("base.css", "present.css", "replay.css")))
    script = "\n".join([*map(read, ("present_slides.js", "present.js")), _START])
    policy = f"default-src 'none'; style-src {hash_source(style)}; script-src {hash_source(script)}; base-uri 'none'"
    data = {"slides": [*slides], "veil": "words", "replay": True}
    page = ENVIRONMENT.get_template("replay.html")
    return page.render(title=title, policy=policy, style=Markup(style), script=Markup(script), data=data).strip() + "\n"

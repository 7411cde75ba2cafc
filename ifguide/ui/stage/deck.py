"""Which slides are shown, in which order, and the speaker's notes: `stage.json` in the study's folder. No streamlit
here."""

from collections.abc import Sequence
from pathlib import Path

from ifguide.errors import StaleError
from ifguide.storage import artifacts

FILE = "stage.json"
"""`order` and `hidden`, lists of slides' keys, and `notes` by key."""
ORDER = ("claim", "pair", "live", "sources", "threshold", "dose", "vote", "costs")
"""The slides' keys, in the order of a new study."""


def save_plan(root: Path, plan: dict) -> None:
    artifacts.write_json(root / FILE, plan)


def arrange(slides: Sequence[dict], root: Path) -> list[dict]:
    """Slides as planned, each with whether it is `hidden` and its `note`. What cannot be read is ignored."""
    try:
        plan = artifacts.read_json(root / FILE)
    except StaleError:
        plan = {}
    parts = [(plan if isinstance(plan, dict) else {}).get(name) for name in ("order", "hidden", "notes")]
    order, hidden = ([key for key in part if key in ORDER] if isinstance(part, list) else [] for part in parts[:2])
    notes, places = parts[2] if isinstance(parts[2], dict) else {}, [*dict.fromkeys([*order, *ORDER])]
    return [
        slide | {"hidden": slide["key"] in hidden, "note": str(notes.get(slide["key"], ""))}
        for slide in sorted(slides, key=lambda slide: places.index(slide["key"]))
    ]

"""Which slides are shown, in which order, and the speaker's notes: `stage.json` in the study's folder. No streamlit
here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ifguide.errors import StaleError
from ifguide.storage import artifacts

FILE = "stage.json"
ORDER = ("claim", "pair", "live", "sources", "threshold", "dose", "vote", "costs")
"""The slides' keys, in the order of a new study."""
NOTE_MOST = 4000
"""Characters of a note."""


def read_plan(root: Path) -> dict:
    """`order` and `hidden`, lists of keys, and `notes` by key; the usual order without a readable file."""
    try:
        return checked(artifacts.read_json(root / FILE))
    except StaleError:
        return checked({})


def save_plan(root: Path, plan: Any) -> None:
    """Write what of a plan is as it should be."""
    artifacts.write_json(root / FILE, checked(plan))


def checked(plan: Any) -> dict:
    plan = plan if isinstance(plan, dict) else {}
    lists = {
        name: [key for key in keys if key in ORDER] if isinstance(keys := plan.get(name), list) else []
        for name in ("order", "hidden")
    }
    notes = plan.get("notes") if isinstance(plan.get("notes"), dict) else {}
    texts = {key: notes[key][:NOTE_MOST] for key in ORDER if isinstance(notes.get(key), str)}
    return lists | {"notes": texts}


def arrange(slides: Sequence[dict], plan: dict) -> list[dict]:
    """Slides in the order of a plan, each with whether it is `hidden` and its `note`."""
    places = [*dict.fromkeys([*plan["order"], *ORDER])]
    return [
        slide | {"hidden": slide["key"] in plan["hidden"], "note": plan["notes"].get(slide["key"], "")}
        for slide in sorted(slides, key=lambda slide: places.index(slide["key"]))
    ]

"""Which slides are shown, in which order, and the speaker's notes: `stage.json` in the study's folder. Of a recorded
study, which is replaced when its file is opened again, `NAME.stage.json` beside it. No streamlit here."""

from collections.abc import Sequence
from pathlib import Path

from ifguide.errors import StaleError
from ifguide.storage import artifacts
from ifguide.storage.lock import read_record
from ifguide.study.sharing.packed import PRIVATE as FILE

ORDER = ("claim", "pair", "live", "sources", "threshold", "dose", "vote", "costs")
"""The slides' keys, in the order of a new study."""


def _path(root: Path) -> Path:
    return root.with_name(f"{root.name}.{FILE}") if read_record(root) else root / FILE


def save_plan(root: Path, plan: dict) -> None:
    """Keep `order` and `hidden`, lists of slides' keys, and `notes` by key."""
    artifacts.write_json(_path(root), plan)


def arrange(slides: Sequence[dict], root: Path) -> list[dict]:
    """Slides as planned, each with whether it is `hidden` and its `note`. What cannot be read is ignored."""
    try:
        plan = artifacts.read_json(_path(root))
    except StaleError:
        plan = {}
    parts = [(plan if isinstance(plan, dict) else {}).get(name) for name in ("order", "hidden", "notes")]
    order, hidden = ([key for key in part if key in ORDER] if isinstance(part, list) else [] for part in parts[:2])
    notes, places = parts[2] if isinstance(parts[2], dict) else {}, [*dict.fromkeys([*order, *ORDER])]
    return [
        slide | {"hidden": slide["key"] in hidden, "note": str(notes.get(slide["key"], ""))}
        for slide in sorted(slides, key=lambda slide: places.index(slide["key"]))
    ]

"""Files of the app outside the package's code: `app.py`, `pages/` and `docs/method.md`."""

from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]
_WHEEL = Path(__file__).resolve().parent / "app_files"


def app_folder() -> Path:
    """The folder with `app.py`, `pages/` and `docs/`: the checkout, or the copies inside the installed wheel."""
    return _WHEEL if (_WHEEL / "app.py").is_file() else _CHECKOUT

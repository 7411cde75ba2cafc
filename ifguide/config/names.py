"""Names with a fixed meaning, and what a name that becomes a folder may look like."""

import re

from ifguide.errors import ConfigError

BASE = "base"
"""Name of the model trained on everything."""


DEFAULT = "default"
"""Name of the selection that `study.toml` describes; its model is reported as `suppressed`."""


_NAME = re.compile(r"(?!.*\.(partial|old)-)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # builds keep `.partial-` and `.old-`


def is_name(name: str) -> bool:
    """Whether a name is safe as a folder."""
    return bool(_NAME.fullmatch(name))


def check_name(name: str, what: str = "study") -> str:
    """Return a name that is safe as a folder.

    Raises:
        ConfigError: it could leave its folder, or hide, or break a shell.
    """
    if not isinstance(name, str) or not is_name(name):
        raise ConfigError(
            f"a {what}'s name has 1 to 64 letters, digits, '.', '_' or '-', starts with a letter or digit, and holds"
            f" neither '.partial-' nor '.old-'; got {name!r}"
        )
    return name

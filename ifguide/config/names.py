"""Names with a fixed meaning, and which names are safe as a folder."""

import re

from ifguide.errors import ConfigError

BASE = "base"
"""The model trained on everything."""
DEFAULT = "default"
"""The selection that `study.toml` describes; its model is reported as `suppressed`."""

NAME_RULE = "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first, and neither '.partial-' nor '.old-'"
"""What `is_name` accepts."""
_NAME = re.compile(r"(?!.*\.(partial|old)-)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # unfinished builds use those two


def is_name(name: str) -> bool:
    """Whether a name is safe as a folder."""
    return bool(_NAME.fullmatch(name))


def check_name(name: str, what: str = "study") -> str:
    """Return a name that is safe as a folder; ConfigError: it could leave its folder, be hidden, or break a shell."""
    if not isinstance(name, str) or not is_name(name):
        raise ConfigError(f"a {what}'s name has {NAME_RULE}; got {name!r}")
    return name

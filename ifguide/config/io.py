"""Settings in and out: `study.toml`, plain values, and `section.key=value` on the command line."""

import dataclasses
import math
import tomllib
import typing
from pathlib import Path

from ifguide.config.schema import StudyConfig
from ifguide.errors import ConfigError


def config_from_dict(values: dict, kind: type = StudyConfig, where: str = ""):
    """Build `kind` from plain dicts, refusing unknown names and wrong types.

    Args:
        values: nested plain values, as `tomllib` returns them.
        kind: the dataclass to build.
        where: prefix for error messages, such as `training.`.

    Raises:
        ConfigError: an unknown name, a wrong type, or a value out of range.
    """
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    built = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"unknown setting {where}{name}; known here: {', '.join(known)}")
        built[name] = _coerce(value, hints[name], f"{where}{name}")
    return kind(**built)


def _coerce(value, hint, where: str):
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected a table [{where}], got {value!r}")
        return config_from_dict(value, hint, f"{where}.")
    if typing.get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected tables [{where}.NAME], got {value!r}")
        return {key: _coerce(v, typing.get_args(hint)[1], f"{where}.{key}") for key, v in value.items()}
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, got {value!r}")
        return tuple(_coerce(v, item, where) for v in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{where}: expected {hint.__name__}, got {value!r}")
    if hint is float and not math.isfinite(value):
        raise ConfigError(f"{where}: expected a finite number, got {value!r}")
    if hint is int and not -(2**63) <= value < 2**63:
        raise ConfigError(f"{where}: expected a whole number of at most 64 bits, got {value}")
    if hint is str and "\0" in value:
        raise ConfigError(f"{where}: expected text without NUL characters, got {value!r}")
    return value


def config_to_dict(config) -> dict:
    """The plain nested dict of a config, with tuples as lists (TOML and JSON have no tuples)."""
    return {f.name: _to_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _to_plain(value):
    if dataclasses.is_dataclass(value):
        return config_to_dict(value)
    if isinstance(value, dict):
        return {key: _to_plain(v) for key, v in value.items()}
    return list(value) if isinstance(value, tuple) else value


def override(config: StudyConfig, assignments: list[str]) -> StudyConfig:
    """Apply `section.key=value` assignments; values are read as TOML, bare words as text.

    Raises:
        ConfigError: an assignment that is not of that form or names an unknown setting.
    """
    values = config_to_dict(config)
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        keys = path.strip().split(".")
        if not separator or not all(keys):
            raise ConfigError(f"--set: expected section.key=value, got {assignment!r}")
        table = values
        for key in keys[:-1]:
            if not isinstance(table.get(key), dict):
                raise ConfigError(
                    f"--set: unknown section {key!r} in {assignment!r}; sections:"
                    f" {', '.join(k for k, v in values.items() if isinstance(v, dict))}"
                )
            table = table[key]
        value = _parse_value(text.strip())
        is_text = isinstance(table.get(keys[-1]), str) and not isinstance(value, str)  # factors.labels=true is a word
        table[keys[-1]] = text.strip() if is_text else value
    return config_from_dict(values)


def _parse_value(text: str):
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        pass
    try:  # TOML wants a digit before the point; people write .98
        return float(text)
    except ValueError:
        return text


def read_config(path: Path) -> StudyConfig:
    """Read `study.toml`.

    Raises:
        ConfigError: the file is not TOML or holds an unknown or impossible setting.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not valid TOML ({error}); mend it or make the study again with `ifguide new`"
        ) from error
    try:
        return config_from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def write_config(config: StudyConfig, path: Path) -> None:
    """Write every setting, defaults included, with each field's docstring left to docs/formats.md."""
    import tomlkit

    path.write_text(tomlkit.dumps(config_to_dict(config)), encoding="utf-8")

"""Settings in and out: `study.toml`, plain values, and `section.key=value` on the command line."""

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from ifguide.config.schema import StudyConfig
from ifguide.errors import ConfigError


def config_to_dict(config) -> dict:
    """The plain nested dict of one table or of all, with tuples as lists (TOML and JSON have no tuples)."""
    return to_jsonable_python(config)


def describe_settings(table: Any) -> list[tuple[str, str, str]]:
    """(setting, value, what it does) of one table. A value is plain, so JSON and TOML write it alike."""
    described = type(table).__pydantic_fields__
    return [
        (key, json.dumps(value), " ".join((described[key].description or "").split()))
        for key, value in config_to_dict(table).items()
    ]


def with_values(config: StudyConfig, changed: Mapping[str, Any]) -> StudyConfig:
    """The settings with other values, by `section.key`."""
    values = config_to_dict(config)
    for place, value in changed.items():
        section, key = place.split(".")
        values[section][key] = value
    return StudyConfig(**values)


def override(config: StudyConfig, assignments: list[str]) -> StudyConfig:
    """Apply `section.key=value` assignments; values are read as TOML, bare words as text. One that has another form,
    names an unknown setting, or has an invalid value is a ConfigError."""
    values = config_to_dict(config)
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        *sections, key = path.strip().split(".")
        if not separator or not key or not all(sections):
            raise ConfigError(f"--set: expected section.key=value, got {assignment!r}")
        table = values
        for section in sections:
            if not isinstance(table.get(section), dict):
                tables = ", ".join(name for name, value in values.items() if isinstance(value, dict))
                raise ConfigError(f"--set: unknown section {section!r} in {assignment!r}; sections: {tables}")
            table = table[section]
        value = _parse_value(text.strip())
        is_text = isinstance(table.get(key), str) and not isinstance(value, str)  # factors.labels=true is a word
        table[key] = text.strip() if is_text else value
    return StudyConfig(**values)


def _parse_value(text: str) -> Any:
    with suppress(tomllib.TOMLDecodeError):
        return tomllib.loads(f"value = {text}")["value"]
    with suppress(ValueError):  # TOML requires a digit before the point; people write .98
        return float(text)
    return text


def read_config(path: Path) -> StudyConfig:
    """Read `study.toml`; a ConfigError if it is not TOML or has an unknown or invalid setting."""
    try:
        return StudyConfig(**tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        remedy = "fix it or create the study again with `ifguide new`"
        raise ConfigError(f"{path} is not valid TOML ({error}); {remedy}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def write_config(config: StudyConfig, path: Path, reasons: Mapping[str, str] | None = None) -> None:
    """Write the settings that differ from the defaults, each below a comment: its reason, by `section.key`, or else
    what the setting means. docs/formats.md describes all."""
    import tomlkit  # slow to import, and only new studies need it

    usual, file = StudyConfig(), tomlkit.document()
    file.add(tomlkit.comment("Only what differs from the defaults; `ifguide settings` lists all settings."))

    def add(place: Any, name: str, table: Any, default: Any) -> None:
        described, plain = type(table).__pydantic_fields__, config_to_dict(default)
        for key, value in config_to_dict(table).items():
            if isinstance(value, dict):
                if name and value:  # a table of tables: queries.extra
                    place.add(key, value)
                continue
            if value == plain[key]:
                continue
            note = (reasons or {}).get(f"{name}.{key}") or " ".join((described[key].description or "").split())
            place.add(tomlkit.comment(note))
            place.add(key, value)

    add(file, "", config, usual)
    for section, value in vars(config).items():
        if dataclasses.is_dataclass(value) and value != getattr(usual, section):
            place = tomlkit.table()
            add(place, section, value, getattr(usual, section))
            file.add(section, place)
        elif isinstance(value, dict) and value:
            file.add(section, config_to_dict(value))
    path.write_text(tomlkit.dumps(file), encoding="utf-8")

"""How a table of settings is checked: by pydantic, whose errors only this file knows and turns into one line."""

import dataclasses
from typing import Any, TypeVar, dataclass_transform, get_args, get_type_hints

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from ifguide.errors import ConfigError

Table = TypeVar("Table")
_UNKNOWN = "unexpected_keyword_argument"
_EXPECTED = {
    "bool_type": "true or false",
    "dataclass_type": "a table [{place}]",
    "dict_type": "tables [{place}.NAME]",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "literal_error": "{expected}",
    "string_type": "text",
    "string_too_short": "a file",
    "tuple_type": "a list",
}
"""What was expected, by pydantic's name of an error."""


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
def table(section: str):
    """Make a class the table `section` of study.toml: a frozen, keyword-only dataclass whose values are checked.

    Making one raises `ConfigError` for an unknown setting and for a value of the wrong type or out of range.
    """
    config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True)

    def decorate(kind: type[Table]) -> type[Table]:
        checked: Any = dataclass(frozen=True, kw_only=True, config=config)(kind)

        def __init__(self, /, **values) -> None:
            try:
                checked.__pydantic_validator__.validate_python(values, self_instance=self)
            except ValidationError as error:
                raise ConfigError(_explain(error, section, checked)) from None

        checked.__init__ = __init__
        return checked

    return decorate


def _explain(error: ValidationError, section: str, kind: type) -> str:
    """One of pydantic's errors as `section.key: expected ..., got ...`: an unknown setting, or else the first."""
    first = min(error.errors(), key=lambda one: one["type"] != _UNKNOWN)
    problem, path, context = first["type"], first["loc"], first.get("ctx", {})
    if path[-1] == "[key]" and problem != _UNKNOWN:  # the name of a table is wrong, not its value
        path = path[:-2]
    place = ".".join([section] * bool(section) + [part for part in path if isinstance(part, str)])
    if problem == _UNKNOWN:
        return f"unknown setting {place}; known here: {', '.join(_known(kind, path[:-1]))}"
    if problem == "missing":
        return f"{place}: expected a value, got none"
    if problem == "value_error":
        message = str(context["error"])  # of a whole table, the check names the setting
        return message if message.startswith(f"{place}.") else f"{place}: {message}"
    bounds = {key: f"{value:g}" if isinstance(value, float) else value for key, value in context.items()}
    expected = _EXPECTED.get(problem, "{message}").format(place=place, message=first["msg"], **bounds)
    return f"{place}: expected {expected}, got {first['input']!r}"


def _known(kind: Any, path: tuple) -> list[str]:
    """The settings of the table at a path of keys below `kind`."""
    for key in path:
        kind = get_type_hints(kind)[key] if dataclasses.is_dataclass(kind) else get_args(kind)[1]
    return [field.name for field in dataclasses.fields(kind)]

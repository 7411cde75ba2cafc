"""The types of settings: what is checked of each value."""

from typing import Annotated

from pydantic import AfterValidator, Field, Strict

from ifguide.config.attributions import KINDS
from ifguide.config.names import NAME_RULE, is_name


def _check_text(text: str) -> str:
    if "\0" in text:
        raise ValueError(f"expected text without NUL characters, got {text!r}")
    return text


def _check_name(name: str) -> str:
    if not is_name(name):
        raise ValueError(f"expected a name with {NAME_RULE}, got {name!r}")
    return name


def _check_table_name(name: str) -> str:
    if "." in name:  # `--set variants.NAME.key=value` is split at the dots
        raise ValueError(f"expected a name without '.', got {name!r}")
    return name


def _check_column_name(name: str) -> str:
    if not (name.isascii() and name.isidentifier()) or name in KINDS:
        raise ValueError(f"expected letters, digits and _, and no score's own name, got {name!r}")
    return name


ColumnName = Annotated[str, Strict(), AfterValidator(_check_column_name)]
Text = Annotated[str, Strict(), AfterValidator(_check_text)]
FileName = Annotated[str, Strict(), Field(min_length=1), AfterValidator(_check_text)]
Name = Annotated[str, Strict(), AfterValidator(_check_name)]
TableName = Annotated[Name, AfterValidator(_check_table_name)]
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict(), Field(lt=2**63)]
Count = Annotated[Whole, Field(ge=0)]
AtLeastOne = Annotated[Whole, Field(ge=1)]
AtLeastTwo = Annotated[Whole, Field(ge=2)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**32)]
Number = Annotated[float, Strict()]
NotNegative = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]

"""The types of settings: what is checked of each value."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, Field, Strict

from ifguide.config.attributions import KINDS
from ifguide.config.names import NAME_RULE, is_name


def _expect(description: str, fits: Callable[[Any], bool]) -> AfterValidator:
    def check(value: Any) -> Any:
        if not fits(value):
            raise ValueError(f"expected {description}, got {value!r}")
        return value

    return AfterValidator(check)


def _is_column(name: str) -> bool:
    return name.isascii() and name.isidentifier() and name not in KINDS


_NO_NUL = _expect("text without NUL characters", lambda text: "\0" not in text)
_NO_DOT = _expect("a name without '.'", lambda name: "." not in name)  # `--set variants.NAME.key=value` has dots

ColumnName = Annotated[str, Strict(), _expect("letters, digits and _, and no score's own name", _is_column)]
Text = Annotated[str, Strict(), _NO_NUL]
FileName = Annotated[str, Strict(), Field(min_length=1), _NO_NUL]
Name = Annotated[str, Strict(), _expect(f"a name with {NAME_RULE}", is_name)]
TableName = Annotated[Name, _NO_DOT]
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict(), Field(lt=2**63)]
Count = Annotated[Whole, Field(ge=0)]
AtLeastOne = Annotated[Whole, Field(ge=1)]
ChunkLength = Annotated[Count, _expect("0, or at least 2 tokens per chunk", lambda length: length != 1)]
AtLeastTwo = Annotated[Whole, Field(ge=2)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**32)]
Number = Annotated[float, Strict()]
NotNegative = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]

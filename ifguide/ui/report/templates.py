"""The report's templates. All text from a study is escaped; only `Markup` is inserted as HTML."""

import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
"""Characters that HTML forbids, that change the writing direction, or that end a line invisibly."""


def readable(text: object) -> str:
    """A text with its invisible characters spelt out, such as ‹U+202E›; line ends and tabs stay."""
    return _INVISIBLE.sub(lambda match: f"‹U+{ord(match[0]):04X}›", str(text))


def _finalize(value: object) -> object:
    """Applied to every value before it is escaped."""
    return "" if value is None else value if isinstance(value, Markup) else readable(value)


def px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


ENVIRONMENT = Environment(
    loader=PackageLoader("ifguide.ui.report", "."),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_finalize,
    trim_blocks=True,
    lstrip_blocks=True,
)
"""Templates are the `.html` files in this folder. An unknown name in one is an error."""
ENVIRONMENT.filters["px"] = px

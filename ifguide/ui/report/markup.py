"""HTML from parts, so that text can only ever be text. Pure Python."""

import html
import re

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
"""Signs that HTML forbids, that change the order of what follows, or that end a line unseen."""
_NAME = re.compile(r"[a-zA-Z][\w:-]*")
_VOID = {"br", "hr", "input", "meta"}


class Markup(str):
    """HTML of ours, to be put into a page as it is."""


def readable(text: str) -> str:
    """A text with signs that cannot be seen spelt out, such as ‹U+202E›; line ends and tabs stay."""
    return _INVISIBLE.sub(lambda sign: f"‹U+{ord(sign[0]):04X}›", str(text))


def render(part) -> str:
    """HTML of a part: markup as it is, lists one after the other, None nothing, and everything else as text."""
    if part is None:
        return ""
    if isinstance(part, Markup):
        return part
    if isinstance(part, list | tuple):
        return "".join(map(render, part))
    return html.escape(readable(part), quote=True)


def tag(name: str, /, *children, **attributes) -> Markup:
    """An element.

    Args:
        name: of the tag.
        children: parts, see `render`.
        attributes: values are escaped; True stands for an attribute alone, None and False for none. `class_` and `for_`
            lose their underscore, and others become hyphens.
    """
    text = f"<{_check(name)}"
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = _check(key.rstrip("_").replace("_", "-"))
        text += f" {key}" if value is True else f' {key}="{html.escape(readable(value), quote=True)}"'
    return Markup(text + ">" if name in _VOID else f"{text}>{render(children)}</{name}>")


def _check(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected the name of a tag or attribute, got {name!r}")
    return name


def swatch(colour: str) -> Markup:
    """A little square of a colour; a picture, for a page that forbids styles inside tags."""
    return tag(
        "svg",
        tag("rect", width=10, height=10, rx=2, fill=colour),
        width=10,
        height=10,
        viewBox="0 0 10 10",
        aria_hidden="true",
    )


def table(columns: list[dict], rows: list[dict], label: str) -> Markup:
    """The app's tables (`ifguide.ui.components.record_table`) without its script: the same columns and cells."""
    numeric = ("number", "interval", "bar")
    head = [
        tag("th", c["label"], scope="col", title=c.get("help"), class_="end" if c["kind"] in numeric else None)
        for c in columns
    ]
    body = [tag("tr", [_cell(c["kind"], v) for c, v in zip(columns, row["cells"], strict=True)]) for row in rows]
    return tag(
        "div", tag("table", tag("thead", tag("tr", head)), tag("tbody", body), aria_label=label), class_="scroll"
    )


def _cell(kind: str, value) -> Markup:
    if kind == "titled":
        title, note, colour = value
        return tag(
            "td",
            swatch(colour) if colour else None,
            tag("strong", title),
            tag("span", note, class_="under") if note else None,
            class_="titled",
        )
    if kind == "interval":
        return tag("td", value[0], tag("span", value[1], class_="under") if value[1] else None, class_="end")
    if kind == "bar":
        return tag("td", value[0], class_="end")
    if kind == "excerpt":
        return tag("td", [tag("mark", text) if marked else text for text, marked in value], class_="veil text")
    if kind == "veiled":
        return tag("td", tag("span", value, class_="veil"))
    return tag("td", value, class_={"number": "end", "code": "code"}.get(kind))

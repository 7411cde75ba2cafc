"""Numbers, names and states as people read them. Pure Python: no streamlit here."""

import math
import re
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import pairwise

from ifguide.config.attributions import KINDS, attributions
from ifguide.storage.durations import format_seconds
from ifguide.study.stage_table import STAGES
from ifguide.study.variants import BASELINES

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~:$^=&.-])")
_MADE_OF_WORDS = re.compile(r":(?=//)|\bwww(?=\.)|@(?=[\w-])|:(?=[\w+-]+:)", re.IGNORECASE)
"""Where plain text becomes a link or an emoji although every Markdown character is escaped."""
_APART = "\u2060"
"""The word joiner: invisible, allows no line break, and ends an address or an emoji name."""
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that change the writing direction, which would reorder our own words too."""
_COMMAND = re.compile(r"(`(?:ifguide|python|torchrun|accelerate|pip|make) [^`]*`)")

_JOB_TITLES = {
    "explain": "Measure what each query does",
    "map": "Draw the map of documents",
    "judge": "Rate the completions again",
    "mechanism": "Compare the layers",
    "compare": "Train other methods",
    "train": "Train a model",
    "edit": "Edit the base model",
    "sweep": "Measure several thresholds",
    "rows": "Read the first rows",
    "suggest": "Make queries",
    "new": "Read and check every input",
    "plan": "Measure a few seconds of every step",
}
"""Job that is not a stage -> what it does, in three or four words."""
_COMMANDS = {"run": "Run the study", "demo": "Build the demo", "evaluate": "Train and measure", "explain": "Explain"}

STATE_WORDS = {"fresh": "Up to date", "stale": "Out of date", "missing": "Not started"}


def job_title(name: str, otherwise: str = "") -> str:
    """What a stage or another job does, in three or four words; `otherwise` if there is none of this name."""
    return STAGES[name].title if name in STAGES else _JOB_TITLES.get(name, otherwise)


def command_title(command: Sequence[str]) -> str:
    """What a job does, with the models or the document it is for."""
    name, *words = command or ("run",)
    named = [variant_title(of) for option, of in pairwise(words) if option in ("--model", "--with", "--document")]
    return " ".join([_COMMANDS.get(name) or job_title(name, name), *([f"({', '.join(named)})"] if named else [])])


def plain(text: object) -> str:
    """Escape text for Markdown, so that it is shown literally; invisible characters are spelt out."""
    words = str(text).split()
    lead, trail = (" " if str(text)[:1].isspace() else ""), (" " if words and str(text)[-1:].isspace() else "")
    text = _MADE_OF_WORDS.sub(lambda match: match[0] + _APART, " ".join(words))
    text = _UNSEEN.sub(lambda match: f"‹U+{ord(match[0]):04X}›", text)
    return lead + _MARKDOWN.sub(r"\\\1", text) + trail


VARIANTS = {
    "base": ("Base model", "Trained on every token."),
    "default": ("Suppressed", "Trained against the selected tokens."),
    "suppressed": ("Suppressed", "Trained against the selected tokens."),
    "random": ("Random control", "Trained against the same number of tokens, drawn at random."),
    "oracle": (
        "Human labels (best case)",
        "Trained against the toxic spans that people marked: what a perfect selection would reach.",
    ),
    **{name: (title, f"Trained against {what}.") for name, (title, what) in BASELINES.items()},
    "classifier-documents": ("Classifier, by document", "Trained without documents that the classifier calls toxic."),
    **{name: (KINDS[name].title, f"Trained against tokens by “{KINDS[name].title}”.") for name in attributions()},
    "edited": ("Edited", "The base model, its weights edited against the selected tokens. Not retrained."),
    "edited-random": ("Edited, random control", "Edited against the same number of tokens, drawn at random."),
    "dpo": ("Preference (DPO)", "The base model, taught to prefer the safe queries' completions to the toxic ones'."),
    "steered": ("Steered decoding", "The unchanged base model; a classifier helps choose its words."),
    "untouched": ("Before the corpus", "The model as it was before it was fine-tuned on the corpus."),
    "masked": ("Masked", "Trained without any loss on the selected tokens."),
    "drop-documents": ("Documents dropped", "Trained without the documents that contain a selected token."),
    "penalty-warmup": ("Growing penalty", "The penalty grows over the first half of training."),
    "penalty-at-once": ("Penalty at once", "The penalty applies from the first step."),
}
"""Name with a fixed meaning -> title and note."""


def variant_title(name: str, edited: bool = False) -> str:
    """A model's title; that of an edited one says so."""
    title = VARIANTS[name][0] if name in VARIANTS else name
    return f"{title} (edited)" if edited and "edited" not in title.lower() else title


def variant_titles(names: Iterable[str], edited: Container[str] = ()) -> dict[str, str]:
    """Name -> title, which says of those `edited` that they are."""
    return {name: variant_title(name, name in edited) for name in names}


def variant_note(name: str, edited: bool = False) -> str:
    if edited and not name.startswith("edited"):
        return "The base model, its weights edited against a selection. Not retrained."
    return VARIANTS[name][1] if name in VARIANTS else "Trained against a selection you saved."


def selection_title(name: str) -> str:
    return "Default selection" if name == "default" else variant_title(name)


def count(value: int) -> str:
    """12345 -> 12,345."""
    return f"{int(value):,}"


def count_of(value: int, noun: str, plural: str = "") -> str:
    """(1, 'token') -> 1 token; (2, 'token') -> 2 tokens."""
    return f"{int(value):,} {noun if value == 1 else plural or noun + 's'}"


def per_cent(value: float) -> str:
    """0.88 -> 88%, 0.8793 -> 87.9%."""
    return share(value).replace(".0%", "%")


def share(part: float, whole: float | None = None, digits: int = 1) -> str:
    """A share as per cent; one that rounds to 0 is shown as below the smallest step."""
    value = part if whole is None else part / whole if whole else 0.0
    step = 10.0 ** -(digits + 2)
    if 0 < value < step / 2:
        return f"<{step:.{digits}%}"
    return f"{value:.{digits}%}"


def score(value: float) -> str:
    """A score with its sign and three significant digits: +1.23, −0.00456."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000 or size < 1e-3:
        mantissa, power = f"{size:.2e}".split("e")
        text = f"{mantissa}e{int(power)}"
    else:
        text = f"{size:.{2 if size >= 1 else 3}f}" if size < 100 else f"{size:.1f}"
    return ("−" if value < 0 else "+") + text.replace("e-", "e−")


def finite(value) -> float | None:
    """A finite number as a float; None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def number(value: float | None, digits: int = 3) -> str:
    """A number with fixed decimals, or a dash if it was not measured."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def duration(seconds: float | None) -> str:
    """Seconds as 0.4 s, 1 min 15 s or 2 h 2 min; a dash if unknown."""
    if seconds is None:
        return "–"
    return format_seconds(seconds) if seconds >= 0.05 else "<0.1 s"


def ago(moment: float) -> str:
    """How long ago a Unix time was, roughly."""
    seconds = time.time() - moment
    for size, noun in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return f"{count_of(int(seconds // size), noun)} ago"
    return "just now"


def sentence(text: str) -> str:
    """An error's text for Markdown: literal, with commands between backticks as code."""
    parts = _COMMAND.split(" ".join(str(text).split()))
    return "".join(part if i % 2 else plain(part) for i, part in enumerate(parts))


def column(label: str, kind: str = "number", note: str = "", **more) -> dict:
    """A column for `ifguide.ui.components.record_table`; `note` is shown when the pointer hovers over its header."""
    return {"label": label, "kind": kind, **({"help": note} if note else {}), **more}


def model_cell(name: str, colours: Mapping[str, str], note: str = "", edited: bool = False) -> list:
    return [variant_title(name, edited), note, colours[name], edited]

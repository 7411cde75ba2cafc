"""`ifguide settings`: what can be set, what it means, and the presets of `ifguide new`."""

import dataclasses
import json
from typing import Annotated

from typer import Argument, Option

from ifguide.cli.options import Answer
from ifguide.cli.running import open_study
from ifguide.errors import InputError


def settings(
    section: Annotated[str | None, Argument(metavar="SECTION", help="Of study.toml; all if left out.")] = None,
    study: Annotated[str | None, Option(metavar="NAME", help="Show the values of this study.")] = None,
    presets: Annotated[bool, Option("--presets", help="Show the presets of `ifguide new` instead.")] = False,
) -> Answer:
    """Print every setting with its value and what it does."""
    from ifguide.cli.terminal import format_table
    from ifguide.config.io import describe_settings
    from ifguide.config.presets import PRESETS
    from ifguide.config.schema import StudyConfig

    if presets:
        lines = []
        for name, preset in PRESETS.items():
            lines.append(f"{name}: {preset.note}")
            for note, kept in (("", preset.settings), ("  # when fine-tuning", preset.finetune)):
                lines += [f"  {place} = {json.dumps(value)}{note}" for place, value in kept.items()]
        return Answer({name: dataclasses.asdict(preset) for name, preset in PRESETS.items()}, "\n".join(lines))
    config = open_study(study).config if study else StudyConfig()
    tables = {name: table for name, table in vars(config).items() if dataclasses.is_dataclass(table)}
    if section and section not in tables:
        raise InputError(f"expected a section ({', '.join(tables)}), got {section!r}")
    chosen = {section: tables[section]} if section else tables
    rows = [(f"{name}.{key}", *rest) for name, table in chosen.items() for key, *rest in describe_settings(table)]
    values = {key: json.loads(value) for key, value, _ in rows}
    return Answer(values, format_table(("setting", "value", "what it does"), rows))


COMMANDS = (settings,)

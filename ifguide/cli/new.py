"""`ifguide new`: a study of your own model and corpus."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ifguide.cli.options import StudyName

if TYPE_CHECKING:
    from ifguide.config.schema import StudyConfig


def _column(note: str, default: str | bool = False) -> typer.models.OptionInfo:
    return typer.Option(metavar="COLUMN", help=note, show_default=default)


def new(
    name: StudyName,
    model: Annotated[str, typer.Option(metavar="PATH_OR_ID", help="A Hugging Face model folder or hub id.")],
    corpus: Annotated[
        str,
        typer.Option(
            metavar="FILE_OR_DATASET", help="A .jsonl, .csv, .tsv, .parquet or .txt file, a folder, or a hub data set."
        ),
    ],
    toxic: Annotated[str, typer.Option(metavar="FILE", help="Toxic queries: prompts and completions.")],
    safe: Annotated[str, typer.Option(metavar="FILE", help="Safe queries: prompts and completions.")],
    text_field: Annotated[str | None, _column("The corpus's column of texts.", "text")] = None,
    id_field: Annotated[str | None, _column("The corpus's column of unique ids.", "numbers")] = None,
    source_field: Annotated[str | None, _column("The corpus's column of sources.")] = None,
    spans_field: Annotated[
        str | None,
        _column("The corpus's column of known toxic character spans; they judge the result and never enter it."),
    ] = None,
    prompt_field: Annotated[str | None, _column("The queries' column of prompts.", "prompt")] = None,
    completion_field: Annotated[str | None, _column("The queries' column of completions.", "completion")] = None,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Prompts to complete in evaluations.", show_default="the toxic queries'"),
    ] = None,
    heldout: Annotated[
        str | None, typer.Option(metavar="FILE", help="Benign text to measure perplexity on.", show_default="none")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="Any other setting, such as model.mode=scratch; give the option once for each setting.",
        ),
    ] = None,
) -> None:
    """Make a study of your own model and corpus.

    Every input is opened and read first. The settings are written to study.toml in the study's folder, where you can
    change them.
    """
    from ifguide.config.io import config_from_dict, override
    from ifguide.study.pipeline import create_study

    settings = {
        "model.source": model,
        "corpus.path": corpus,
        "corpus.text_field": text_field,
        "corpus.id_field": id_field,
        "corpus.source_field": source_field,
        "corpus.spans_field": spans_field,
        "queries.toxic": toxic,
        "queries.safe": safe,
        "queries.prompt_field": prompt_field,
        "queries.completion_field": completion_field,
        "evaluate.prompts": prompts,
        "evaluate.heldout": heldout,
    }
    given: dict[str, dict[str, str]] = {}
    for setting, value in settings.items():
        section, _, key = setting.partition(".")
        if value is not None:
            given.setdefault(section, {})[key] = value
    study = create_study(name, _with_absolute_paths(override(config_from_dict(given), assignments or [])))
    print(f"wrote {study.root / 'study.toml'}; build it with `ifguide run {name}`")


def _with_absolute_paths(config: "StudyConfig") -> "StudyConfig":
    """The same settings with paths that hold from any folder. Hub ids are left alone."""

    def absolute(path: str) -> str:
        if path.startswith("classifier:"):  # a scorer
            source, sign, label = path.removeprefix("classifier:").partition("#")
            return f"classifier:{absolute(source)}{sign}{label}"
        place = Path(path).expanduser()
        is_file = path and (place.exists() or any(sign in path for sign in "*?["))
        return str(place.absolute()) if is_file else path

    names = {
        "model": ("source", "checkpoints"),
        "corpus": ("path",),
        "queries": ("toxic", "safe"),
        "evaluate": ("prompts", "heldout", "lambada", "harness_folder", "scorer", "implicit"),
        "baselines": ("scorer",),
    }
    changed = {}
    for section, keys in names.items():
        table = getattr(config, section)
        values = {key: getattr(table, key) for key in keys}
        values = {k: tuple(map(absolute, v)) if isinstance(v, tuple) else absolute(v) for k, v in values.items()}
        changed[section] = dataclasses.replace(table, **values)
    return dataclasses.replace(config, **changed)

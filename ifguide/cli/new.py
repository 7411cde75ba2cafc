"""`ifguide new`: a study of your own model and corpus."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ifguide.cli.options import StudyName

if TYPE_CHECKING:
    from ifguide.config.schema import StudyConfig


def add_commands(app: typer.Typer) -> None:
    """Add `new` to the command line."""

    @app.command()
    def new(
        name: StudyName,
        model: Annotated[str, typer.Option(metavar="PATH_OR_ID", help="A Hugging Face model folder or hub id.")],
        corpus: Annotated[
            str,
            typer.Option(
                metavar="FILE_OR_DATASET",
                help="A .jsonl, .csv, .tsv, .parquet or .txt file, a folder, or a hub data set.",
            ),
        ],
        toxic: Annotated[str, typer.Option(metavar="FILE", help="Toxic queries: prompts and completions.")],
        safe: Annotated[str, typer.Option(metavar="FILE", help="Safe queries: prompts and completions.")],
        text_field: Annotated[
            str | None, typer.Option(metavar="COLUMN", help="The corpus's column of texts [text].")
        ] = None,
        id_field: Annotated[
            str | None, typer.Option(metavar="COLUMN", help="Its column of unique ids [none: numbered].")
        ] = None,
        source_field: Annotated[
            str | None, typer.Option(metavar="COLUMN", help="Its column that names a source.")
        ] = None,
        spans_field: Annotated[
            str | None,
            typer.Option(
                metavar="COLUMN",
                help="Its column of known toxic character spans; used to judge the result, never to compute it.",
            ),
        ] = None,
        prompt_field: Annotated[
            str | None, typer.Option(metavar="COLUMN", help="The queries' column of prompts [prompt].")
        ] = None,
        completion_field: Annotated[
            str | None, typer.Option(metavar="COLUMN", help="The queries' column of completions [completion].")
        ] = None,
        prompts: Annotated[
            str | None,
            typer.Option(
                metavar="FILE", help="Prompts to complete when models are compared [those of the toxic queries]."
            ),
        ] = None,
        heldout: Annotated[
            str | None, typer.Option(metavar="FILE", help="Benign held-out text for perplexity [none: not reported].")
        ] = None,
        assignments: Annotated[
            list[str] | None,
            typer.Option(
                "--set",
                metavar="SECTION.KEY=VALUE",
                help="Any other setting, such as model.mode=scratch; may be repeated.",
            ),
        ] = None,
    ) -> None:
        """Make a study of your own model and corpus.

        Every input is opened and read first. The settings go to study.toml in the study's folder and can be changed
        there.
        """
        from ifguide.config.io import config_from_dict, override
        from ifguide.study.pipeline import create_study

        sections: dict[str, dict[str, str | None]] = {
            "model": {"source": model},
            "corpus": {
                "path": corpus,
                "text_field": text_field,
                "id_field": id_field,
                "source_field": source_field,
                "spans_field": spans_field,
            },
            "queries": {
                "toxic": toxic,
                "safe": safe,
                "prompt_field": prompt_field,
                "completion_field": completion_field,
            },
            "evaluate": {"prompts": prompts, "heldout": heldout},
        }
        given = {section: {k: v for k, v in table.items() if v is not None} for section, table in sections.items()}
        study = create_study(name, _with_absolute_paths(override(config_from_dict(given), assignments or [])))
        print(f"wrote {study.root / 'study.toml'}; build it with `ifguide run {name}`")


def _with_absolute_paths(config: "StudyConfig") -> "StudyConfig":
    """Paths as the user typed them belong to the current folder; study.toml is read from anywhere. Hub ids stay as they
    are."""

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

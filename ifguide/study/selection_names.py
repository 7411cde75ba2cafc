"""Renaming and deleting the selections that a user saved."""

import shutil

from ifguide.config.names import check_name
from ifguide.errors import ConfigError, StudyNotFound
from ifguide.storage import artifacts
from ifguide.storage.lock import study_lock
from ifguide.study.lineage import BUILT_IN_SELECTIONS, Unit
from ifguide.study.reading import Study
from ifguide.study.variants import RESERVED

NAMED_STAGES = ("selection", "suppress", "evaluate")
"""Stages with an artefact of a selection's name, in the order they are made."""


def trained_parts(study: Study, name: str) -> list[Unit]:
    """What was made with a selection: its model and the measurements of it, as far as they are there."""
    units = [Unit(stage, name) for stage in NAMED_STAGES[1:]]
    return [unit for unit in units if (study.folder(unit) / artifacts.MANIFEST).is_file()]


def rename_selection(study: Study, name: str, new: str) -> None:
    """Give a saved selection another name; its tokens and settings stay as they are.

    Raises:
        ConfigError: a built-in name or one that is taken or no good as a name; or a model was trained with it, which
            carries the name too.
        StudyNotFound: there is no such selection.
        BusyError: a job works on the study.
    """
    _require_own(study, name)
    check_name(new, "selection")
    if new in RESERVED:
        raise ConfigError(f"the name {new!r} is built in; choose another for your selection")
    if new in study.selection_names():
        raise ConfigError(f"there is a selection {new!r} already; choose another name, or delete that one first")
    with study_lock(study.root):
        if trained_parts(study, name):
            raise ConfigError(
                f"a model was trained with {name!r} and carries its name; save the choice again under the new name"
                " instead"
            )
        old = study.folder(Unit("selection", name))
        manifest = artifacts.read_json(old / artifacts.MANIFEST)
        place = study.folder(Unit("selection", new))
        with artifacts.building(
            place, stage="selection", inputs=manifest["inputs"], config=manifest["config"]
        ) as partial:
            for path in old.iterdir():
                if path.name != artifacts.MANIFEST:
                    shutil.copy2(path, partial / path.name)
            described = artifacts.read_json(partial / "selection.json")
            artifacts.write_json(partial / "selection.json", described | {"name": new})
        shutil.rmtree(old)
        shutil.rmtree(study.folder(Unit("documents", name)), ignore_errors=True)


def delete_selection(study: Study, name: str) -> None:
    """Delete a saved selection, its model and the measurements of it.

    Raises:
        ConfigError: a built-in selection.
        StudyNotFound: there is no such selection.
        BusyError: a job works on the study.
    """
    _require_own(study, name)
    with study_lock(study.root):
        for stage in (*reversed(NAMED_STAGES), "documents"):
            folder = study.folder(Unit(stage, name))
            if folder.is_dir():
                shutil.rmtree(folder)


def _require_own(study: Study, name: str) -> None:
    if name in BUILT_IN_SELECTIONS:
        raise ConfigError(
            f"the selection {name!r} is built in, and made again by every run; only your own have other names or go"
            " away"
        )
    if name not in study.selection_names():
        raise StudyNotFound(
            f"study {study.name!r} has no selection {name!r}; it has {', '.join(study.selection_names()) or 'none'}"
        )

"""Data sets read through the `datasets` library: folders it saved, and ids on the Hugging Face hub."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ifguide.errors import InputError

_HUB_ID = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?")


def is_saved(folder: str) -> bool:
    """Whether `datasets.save_to_disk` made this folder."""
    place = Path(folder).expanduser()
    kinds = (["dataset_dict.json"], ["dataset_info.json", "state.json"])
    return any(all((place / name).is_file() for name in names) for names in kinds)


def load(name: str, split: str = ""):
    """Open a data set without running code from the hub: a saved folder memory-mapped, anything else streamed through
    `datasets.load_dataset`. `name` is a saved folder, `org/name[:config][@revision]`, or a local folder in a layout
    that `datasets` knows; `split` is `train`, or a part such as `train[:10%]` (which is downloaded whole first), and of
    a saved folder which one when it holds several.

    Returns the data set and its name without organisation. An InputError: not such a name, damaged, the split is
    missing, unknown or superfluous, or the library cannot load it.
    """
    return _load_saved(Path(name).expanduser(), split) if is_saved(name) else _load_named(name, split)


def _load_saved(place: Path, split: str):
    import datasets

    try:
        data = datasets.load_from_disk(str(place))
    except Exception as error:  # the library raises many classes for a damaged folder
        remedy = "save it again with datasets' save_to_disk"
        raise InputError(f"{place} is not a readable saved data set ({error}); {remedy}") from error
    if isinstance(data, datasets.DatasetDict):
        if split not in data:
            remedy = f"name one, such as {place}#{next(iter(data), 'train')}"
            raise InputError(f"{place} holds the splits {', '.join(data)}; {remedy}")
        data = data[split]
    elif split:
        raise InputError(f"{place} has only one split; leave out #{split}")
    return data, place.name


def _load_named(name: str, split: str):
    place = Path(name).expanduser()
    match = _HUB_ID.fullmatch(name)
    if not split or not (place.is_dir() or match):
        forms = "a file, a folder, a glob, or a hub data set as org/name[:config][@revision]#split"
        raise InputError(f"no file at {name}; expected {forms}")
    import datasets

    source, config, revision = str(place), None, None
    if match and not place.is_dir():
        source, config, revision = match["name"], match["config"], match["revision"]
    try:
        # streaming keeps memory and disk flat, but cannot take a part of a split
        data = datasets.load_dataset(source, config, split=split, revision=revision, streaming="[" not in split)
    except Exception as error:  # network, permission and format errors of several libraries
        remedy = "check its name, config, revision and split, and the network"
        raise InputError(f"the data set {name}#{split} could not be loaded ({error}); {remedy}") from error
    return data, Path(source).name


def iterate(data, name: str, columns: Iterable[str]) -> Iterator[dict]:
    """Rows as plain dicts, with those of the `columns` that exist; with all columns when none does. Of a nested column,
    `meta.text`, all of `meta` is read. A data set that breaks off is an InputError."""
    existing = data.column_names or []  # a streamed set may not know its columns
    chosen = list(dict.fromkeys(name for field in columns for name in (field, field.split(".")[0]) if name in existing))
    number = 0
    try:
        for values in data.select_columns(chosen) if chosen else data:
            number += 1
            yield values
    except Exception as error:  # as above: a connection may break in the middle
        remedy = "try again, or save the data set locally first"
        raise InputError(f"{name}: cannot be read after row {number} ({error}); {remedy}") from error

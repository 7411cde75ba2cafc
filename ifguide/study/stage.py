"""What a row of `ifguide.study.stage_table` says of a stage."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ifguide.config.schema import StudyConfig
from ifguide.study.lineage import InputFile, Unit


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What everything but its own two functions needs to know of a stage."""

    title: str
    """What it does, in three or four words."""
    note: str
    """The same in one sentence, for the reader who sees it for the first time."""
    reads: Callable[[StudyConfig, str], Iterable[Unit]]
    """Settings and an artefact's name -> the artefacts it reads."""
    settings: Callable[[StudyConfig, str], dict]
    """Likewise -> the settings it depends on, flat, as `section.key`."""
    files: Callable[[StudyConfig, str], Iterable[InputFile]] = lambda config, name: ()
    """Likewise -> the user's own files it is made from."""
    names: Callable[[StudyConfig], Iterable[str]] = lambda config: ("",)
    """Settings -> names of the artefacts that a full run makes; one without a name where the stage has no `folder`."""
    version: int = 0
    """Of what it writes, which a change makes out of date; 0: it never changed."""
    folder: str = ""
    """Where its named artefacts are; empty: it has one, in a folder of the stage's name."""
    batch: str = ""
    """The setting that holds its batch, where it runs the model: several processes then share its work (see
    `ifguide.runtime.distributed`). Any other stage is the main process's alone."""
    build: str
    """`module:function` that makes an artefact, called with (study, unit, folder, progress)."""
    need: str = ""
    """`module:function` that says what it takes, called with a `Measured` (`study.planning.measure`)."""

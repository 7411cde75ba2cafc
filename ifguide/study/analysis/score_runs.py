"""Which studies' own-loss scores can be subtracted from each other, token by token. Reads manifests, not scores."""

import re
from dataclasses import dataclass
from pathlib import Path

from ifguide.config.names import is_name
from ifguide.errors import IFGuideError, StaleError
from ifguide.storage import artifacts
from ifguide.study.folder import list_studies
from ifguide.study.reading import Study

SAME_TOKENS = ("token_ids.npy", "offsets.npy", "documents.arrow")
"""Files of a corpus; where all have the same hashes, token n of one study is token n of the other, in the same text."""
_FILE = "own_loss.npy"
_EXTRA = "extra"
_PLACE = re.compile(rf"(?:([^/]+)/)?(?:{_EXTRA}/([^/]+)/)?{re.escape(_FILE)}")


@dataclass(frozen=True, order=True)
class Run:
    """One file of own-loss scores, float32 (N,)."""

    study: str
    """The study's name."""
    checkpoint: str = ""
    """One checkpoint's raw scores; empty: the study's, over all checkpoints."""
    queries: str = ""
    """An extra pair of query sets; empty: the study's own."""

    @property
    def file(self) -> str:
        """Its place below the stage's folder, as the manifest names it."""
        parts = [self.checkpoint, *((_EXTRA, self.queries) if self.queries else ()), _FILE]
        return "/".join(part for part in parts if part)

    def title(self, here: str) -> str:
        """Its name for readers of the study `here`."""
        if self.study == here:
            title = f"Checkpoint {self.checkpoint}" if self.checkpoint else "This study's scores"
        else:
            title = f"{self.study}, {f'checkpoint {self.checkpoint}' if self.checkpoint else 'its scores'}"
        return f"{title}, queries {self.queries}" if self.queries else title


@dataclass(frozen=True, eq=False)
class ScoredStudy:
    """What a study's manifests say of its scores."""

    tokens: tuple[str, ...]
    """Hashes of the corpus's files `SAME_TOKENS`."""
    digest: str
    """Hash over all its scores."""
    sizes: dict[Run, int]
    """Its runs in order, and how many bytes each file has: checkpoints as they were trained, then the study's own
    scores."""


Mark = tuple[tuple[int, int], ...]


def mark_study(root: Path) -> Mark | None:
    """Times of change and numbers of the files that `read_study` reads; None where one is missing."""
    names = ("study.toml", f"corpus/{artifacts.MANIFEST}", f"scores/{artifacts.MANIFEST}")
    try:
        stats = [(root / name).stat() for name in names]
    except OSError:
        return None
    return tuple((stat.st_mtime_ns, stat.st_ino) for stat in stats)


def read_study(root: Path) -> ScoredStudy | None:
    """What can be compared of the study in a folder; None where it is broken, or its scores are of another corpus."""
    try:
        corpus, scores = (artifacts.read_manifest(root / stage) for stage in ("corpus", "scores"))
        study = Study.open(root.name, root.parent)
    except (IFGuideError, OSError):
        return None
    if corpus is None or scores is None or scores["inputs"].get("corpus") != artifacts.digest_of(corpus):
        return None
    tokens = tuple(corpus["outputs"].get(name) for name in SAME_TOKENS)
    sizes = scores.get("bytes")
    if not all(tokens) or not isinstance(sizes, dict):
        return None
    found = sorted(filter(None, (_parse(study.name, name) for name in scores["outputs"])), key=_in_order(study))
    known = {run: sizes[run.file] for run in found if run.file in sizes}
    return ScoredStudy(tokens, artifacts.digest_of(scores), known)


def _in_order(study: Study):
    try:
        order = {name: place for place, name in enumerate(study.checkpoint_names())}
    except (StaleError, KeyError, TypeError):  # the models may be gone where the scores are kept
        order = {}
    return lambda run: (run.queries, not run.checkpoint, order.get(run.checkpoint, len(order)), run.checkpoint)


def _parse(study: str, name: str) -> Run | None:
    """The run whose file a manifest names; None for another file."""
    found = _PLACE.fullmatch(name)
    return Run(study, *found.groups("")) if found and all(map(is_name, filter(None, found.groups()))) else None


def is_whole(root: Path, run: Run, size: int) -> bool:
    """Whether a run's file is there in its full size."""
    try:
        return (root / "scores" / run.file).stat().st_size == size
    except OSError:
        return False


def others(root: Path) -> list[Path]:
    """Folders of the other studies beside a study."""
    return [root.parent / name for name in list_studies(root.parent) if name != root.name]

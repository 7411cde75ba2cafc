"""Two studies, byte for byte."""

import json

from ifguide.storage.artifacts import hash_file
from ifguide.study.reading import Study

DIFFERS = ("manifest.json", "training_log.jsonl", "study.lock", ".fingerprints.json")
"""Manifests say how long it took, the log how fast; everything else has to have the same bytes."""


def contents(study: Study) -> dict[str, object]:
    """Hashes of every file of a study by place, but for those that hold times; of a manifest those of its outputs."""
    files = (p for p in study.root.rglob("*") if p.is_file() and p.name not in DIFFERS)
    found: dict[str, object] = {p.relative_to(study.root).as_posix(): hash_file(p) for p in files}
    for path in study.root.rglob("manifest.json"):
        outputs = json.loads(path.read_text())["outputs"]
        found[path.relative_to(study.root).as_posix()] = {k: v for k, v in outputs.items() if k not in DIFFERS}
    return found


def everything(study: Study) -> dict[str, str]:
    """Hashes of every file by place, all of them but the lock."""
    files = (p for p in study.root.rglob("*") if p.is_file() and p.name != "study.lock")
    return {p.relative_to(study.root).as_posix(): hash_file(p) for p in files}

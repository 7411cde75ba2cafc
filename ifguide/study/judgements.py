"""Ratings of a study's stored completions by other judges, side by side: an artefact `judgements/JUDGE` each.

Its `judgement.json` has the judge's name and hash, and for each model the hash of the completions it rated and
the metrics that follow; `ratings.parquet` has model, toxicity and toxic_spans, row by row as the model's samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ifguide.errors import StaleError
from ifguide.storage import artifacts

FOLDER = "judgements"
RECORD, RATINGS = "judgement.json", "ratings.parquet"
SAMPLES = "samples.parquet"


@dataclass(frozen=True, eq=False)
class Judgement:
    """What one judge says of the models of a study."""

    folder: Path
    judge: str
    """Its name."""
    digest: str
    """Hash of what it computes with; empty where it has none."""
    models: dict[str, dict]
    """Model -> `samples`, the hash of what was rated, and `metrics`."""

    @property
    def key(self) -> str:
        """Its folder's name, which tells versions of a judge apart."""
        return self.folder.name

    @property
    def title(self) -> str:
        return judge_title({"scorer": self.judge, "scorer_hash": self.digest})

    def metrics(self, model: str, samples_hash: str) -> dict | None:
        """The figures of a model; None where it did not rate these completions."""
        rated = self.models.get(model)
        return rated["metrics"] if rated and rated["samples"] == samples_hash else None

    def ratings(self, model: str) -> dict[str, list]:
        """`toxicity` and `toxic_spans` of a model's completions, in the order of its samples."""
        table = artifacts.read_table(self.folder / RATINGS, filters=[("model", "=", model)])
        return table.drop_columns(["model"]).to_pydict()


def judge_title(metrics: Mapping) -> str:
    """Name and, where it is known, hash of the judge behind a model's metrics."""
    name, digest = metrics.get("scorer", "no judge"), metrics.get("scorer_hash")
    return f"{name} ({digest})" if digest else name


def list_judgements(root: Path) -> dict[str, Judgement]:
    """Every judgement in a study's folder, by its key; damaged ones are left out."""
    judgements = {}
    for path in sorted((root / FOLDER).glob(f"*/{artifacts.MANIFEST}")):
        try:
            values = artifacts.read_part(path.parent, RECORD)
            fields = (values[name] for name in ("judge", "digest", "models"))
            judgements[path.parent.name] = Judgement(path.parent, *fields)
        except (StaleError, KeyError, TypeError):
            continue
    return judgements

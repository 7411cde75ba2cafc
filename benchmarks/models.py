"""Every decoder family through the whole pipeline, on tiny random models: what is tracked, and whether it is exact.

    python -m benchmarks.models docs/results/models.md

writes the table into the page, between its markers; without a page it is printed. A family takes a few seconds.
`tests/study/test_families.py` runs the same and holds it to its bounds.
"""

import logging
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ifguide.errors import ConfigError
from ifguide.models.loading import load_model, tracked_modules
from ifguide.storage import artifacts
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import create_study, run_study
from ifguide.study.planning.model_facts import ModelFacts, find_facts
from ifguide.study.reading import Study
from tests.influence.dense import dot, layer_gradient, sequence_losses
from tests.tiny import FAMILIES
from tests.tiny_study import save_tiny_model, tiny_config, write_tiny_inputs

SETTINGS = ("model.mode=asis", "training.epochs=1", "selection.controls=[]", "evaluate.n_samples=1")
DOCUMENTS = (2, 5, 9)
"""Whose tokens are scored by autograd once more: none is longer than the model's context."""
BEGIN, END = "<!-- families -->", "<!-- /families -->"


@dataclass(frozen=True, kw_only=True)
class Family:
    """One row of the table."""

    kind: str
    """Transformers' model type."""
    facts: ModelFacts
    """What `ifguide new` says of the model."""
    study: Study
    """Built to its end: the default selection's model trained and evaluated."""
    judge: str
    """`jvp` or `half-step`, as `Derivative.judge`."""
    correlation: float
    """Pearson, of own-loss scores with vᵀ∇ℓ by autograd in float64."""
    error: float
    """Norm of their difference over the norm of autograd's."""
    position: float
    """Largest difference of a document's sum of position scores from that of autograd's, over the largest sum."""
    refused: tuple[str, ...]
    """Settings that are refused, each as the line that says so."""


def measure(kind: str, folder: Path) -> Family:
    """Run a study of a tiny random model of the family in an empty folder."""
    inputs = folder / "inputs"
    write_tiny_inputs(inputs)
    save_tiny_model(kind, inputs / "model")
    settings, refused = list(SETTINGS), []
    try:
        study = create_study("tiny", tiny_config(inputs, *settings), folder, named=set(_named(settings)))
    except ConfigError as error:  # with its remedy
        refused.append(str(error))
        settings.append(re.search(r"model\.modules='.*'", str(error))[0].replace("'", ""))
        study = create_study("tiny", tiny_config(inputs, *settings), folder, named=set(_named(settings)))
    try:
        packing = [*settings, "training.packing=true"]
        create_study("packed", tiny_config(inputs, *packing), folder, named=set(_named(packing)))
    except ConfigError as error:
        refused.append(str(error))
    facts = find_facts(study)
    run_study(study)
    ours, position, truth = compare_with_autograd(study)
    flat = [np.concatenate(values) for values in (ours, truth)]
    sums = [np.array([values.sum() for values in each]) for each in (position, truth)]
    notes = artifacts.read_json(study.folder(Unit("scores")) / artifacts.NOTES)
    return Family(
        kind=kind,
        facts=facts,
        study=study,
        judge=notes["derivatives"]["given"]["study"]["judge"],
        correlation=float(np.corrcoef(*flat)[0, 1]),
        error=float(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1])),
        position=float(np.abs(sums[0] - sums[1]).max() / np.abs(sums[1]).max()),
        refused=tuple(refused),
    )


def _named(settings: list[str]) -> list[str]:
    return [setting.partition("=")[0] for setting in settings]


def compare_with_autograd(study: Study) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Own-loss and position scores of some documents, and vᵀ∇ℓ of each of their tokens by autograd on the parameters in
    float64, one array a document. v is the pipeline's own."""
    corpus = study.corpus()
    model = load_model(study.resolve(study.config.model.source), dtype="float64", attention="eager")
    modules = tracked_modules(model, study.config.model.modules)
    stored = artifacts.load_tensors(study.folder(Unit("direction")) / "given" / "direction.safetensors")
    direction = {layer: v.double() for layer, v in stored.items()}
    places = [slice(int(corpus.offsets[d]) + 1, int(corpus.offsets[d + 1])) for d in DOCUMENTS]
    truth = []
    for place in places:
        losses = sequence_losses(model, np.asarray(corpus.token_ids[place.start - 1 : place.stop], dtype=np.int64))
        slopes = [dot(direction, layer_gradient(model, modules, loss)).item() for loss in losses]
        truth.append(np.array(slopes))
    ours, position = (
        [np.asarray(study.scores(kind)[place], dtype=np.float64) for place in places]
        for kind in ("own_loss", "position")
    )
    return ours, position, truth


def format_families(families: list[Family]) -> str:
    """The table, and below it what is refused."""
    head = (
        "family",
        "model",
        "tracked",
        "derivative",
        "packed documents",
        "own-loss against autograd",
        "position, sums",
    )
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for family in families:
        facts = family.facts
        cells = (
            f"`{family.kind}`",
            facts.family,
            f"{facts.tracked_share:.1%}",
            "forward mode" if family.judge == "jvp" else "half the step",
            "kept apart" if facts.packs else "refused",
            f"r = {family.correlation:.7f}, {family.error:.0e}",
            f"{family.position:.0e}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    refusals = [f"- `{family.kind}`: {line}" for family in families for line in family.refused]
    return "\n".join([*lines, "", "Refused by `ifguide new`, in one line each:", "", *refusals])


def main() -> None:
    """Print the table, or write it into a page."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    families = []
    for kind in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            families.append(measure(kind, Path(folder)))
        print(f"{kind}: r = {families[-1].correlation:.7f}", file=sys.stderr, flush=True)
    table = format_families(families)
    if len(sys.argv) < 2:
        print(table)
        return
    page = Path(sys.argv[1])
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()

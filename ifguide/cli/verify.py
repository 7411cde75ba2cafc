"""`ifguide verify`: check a study against its manifests."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ifguide.cli.options import AsJson, StudyName
from ifguide.cli.running import follow_run, open_study
from ifguide.errors import StaleError

if TYPE_CHECKING:
    from ifguide.study.analysis.verify import Verification


def verify(
    name: StudyName,
    share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the documents to score again, at least 3; 0: none.")
    ] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice of documents.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check a study's files against its manifests.

    Hashes every artefact again, compares inputs with outputs, and computes some documents' scores again. Ends with exit
    code 2, and a line that names the command to run, when anything is wrong.
    """
    from ifguide.study.analysis.verify import verify_study

    study = open_study(name)
    with follow_run() as progress:
        found = verify_study(study, share=share, seed=seed, progress=progress)
    print(json.dumps(found.as_json(), indent=1, ensure_ascii=False) if as_json else format_verification(found))
    if found.problem:
        raise StaleError(f"{name}: {found.problem}")


def format_verification(found: "Verification") -> str:
    """The findings as tables."""
    from ifguide.cli.terminal import format_table

    rows = [
        (
            part.artefact,
            part.state,
            f"{part.files:,}" if part.files else "",
            f"{part.bytes:,}" if part.files else "",
            part.digest[:16],
            ", ".join(f"{key}={value}" for key, value in (part.seeds or {}).items()),
            part.why if part.is_wrong else "",
        )
        for part in found.parts
    ]
    blocks = [format_table(("artefact", "state", "files", "bytes", "hash", "seeds", "why"), rows)]
    if found.agreements:
        agreed = [
            (one.what, f"{one.n_values:,}", f"{one.difference:.2e}", "yes" if one.agrees else "NO")
            for one in found.agreements
        ]
        blocks.append(format_table(("computed again", "values", "largest relative difference", "agrees"), agreed))
    blocks.append("\n".join([*_made_with(found), _summary(found)]))
    return "\n\n".join(blocks)


def _made_with(found: "Verification") -> list[str]:
    """A line for each set of versions and each machine, with the artefacts made with it."""
    groups: dict[str, list[str]] = {}
    for part in found.parts:
        if part.versions:
            text = ", ".join(f"{library} {version}" for library, version in part.versions.items())
            machine = ", ".join(f"{value}" for value in (part.machine or {}).values() if value)
            groups.setdefault(f"{text}; on {machine or 'an unknown machine'}", []).append(part.artefact)
    if len(groups) == 1:
        return [f"made with {next(iter(groups))}"]
    return [f"made with {text}: {', '.join(names)}" for text, names in groups.items()]


def _summary(found: "Verification") -> str:
    states = [part.state for part in found.parts]
    counts = ", ".join(f"{states.count(s)} {s}" for s in ("whole", "stale", "damaged", "missing") if s in states)
    scored = (
        f"{found.documents:,} documents scored again (seed {found.seed}), largest relative difference"
        f" {found.largest_difference:.2e}"
        if found.documents
        else f"no scores computed again: {found.not_rescored}"
    )
    return f"{counts}; {scored}"

"""A stage in one file, as somebody who adds one would write it."""

import json

from ifguide.study.planning.measure import Need


def build_toy(study, unit, folder, progress) -> None:
    """The number of the corpus's tokens."""
    (folder / "toy.json").write_text(json.dumps(study.corpus().n_tokens))


def need_toy(measured) -> Need:
    """A second for each document."""
    return Need(seconds=measured.sample.n_documents)

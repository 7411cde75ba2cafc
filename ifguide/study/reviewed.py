"""Selections that people corrected: a saved selection without the tokens they called fine, with the spans they called
toxic."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from ifguide.config.names import check_name
from ifguide.data.by_document import sum_by_document
from ifguide.errors import ConfigError
from ifguide.selection.saved import Selection, write_selection
from ifguide.selection.verdicts import Target, apply_verdicts
from ifguide.storage import artifacts
from ifguide.study.freshness import inputs_of
from ifguide.study.lineage import Unit
from ifguide.study.variants import RESERVED

if TYPE_CHECKING:
    from ifguide.study.reading import Study


def save_reviewed(study: "Study", selection: str, name: str, verdicts: dict[Target, str]) -> Selection:
    """Save a selection corrected by verdicts. It can be trained against like any other.

    Args:
        study: the study.
        selection: the saved selection to correct; it is not changed.
        name: what to call the new one; the built-in names are refused.
        verdicts: from `VerdictLog.current`.

    Raises:
        ConfigError: a bad name, or the verdicts change nothing.
    """
    check_name(name, "selection")
    if name in (*RESERVED, selection):
        raise ConfigError(f"the name {name!r} is taken; choose another for the corrected selection")
    corpus, chosen = study.corpus(), study.selection(selection)
    mask, counts = apply_verdicts(chosen.mask, corpus, verdicts)
    if not counts["excluded"] and not counts["forced"]:
        raise ConfigError(
            f"the {len(verdicts):,} verdicts change nothing in the selection {selection!r}: call some of its documents"
            " or spans fine, or spans outside it toxic"
        )
    offsets = np.asarray(corpus.offsets)
    taken = sum_by_document(mask, offsets)
    settings = chosen.settings | {
        "name": name,
        "n_selected": int(mask.sum()),
        "n_documents_hit": int(np.count_nonzero(taken)),
        "corrected": selection,
        "excluded": counts["excluded"],
        "forced": counts["forced"],
    }
    unit = Unit("selection", name)
    said = sorted([t.document, t.start, t.stop, verdict] for t, verdict in verdicts.items())
    base = artifacts.read_manifest(study.folder(Unit("selection", selection)))
    config = {**(base["config"] if base else {}), "corrected": selection, "verdicts": artifacts.hash_json(said)}
    with artifacts.building(
        study.folder(unit), stage="selection", inputs=inputs_of(study, unit), config=config
    ) as folder:
        write_selection(dataclasses.replace(chosen, name=name, settings=settings, mask=mask), folder)
    return study.selection(name)

"""The map of documents, which places similar ones near each other and colours them by influence, source or verdict."""

import contextlib

import numpy as np
import pyarrow as pa
import streamlit as st

from ifguide.errors import InputError
from ifguide.selection.index import Resolved
from ifguide.selection.verdicts import VERDICTS
from ifguide.study.analysis.document_map import SAMPLE, in_boxes, map_path, name_clusters, read_map
from ifguide.study.analysis.groups import SOURCE
from ifguide.ui import components, job_panel, layout, veil
from ifguide.ui.documents.loaders import open_log, reviewer
from ifguide.ui.format import count, count_of, score
from ifguide.ui.loaders import Loaded, remembered
from ifguide.ui.palette import COUNTERS, MORE_COLOURS, MUTED, TEACHES
from ifguide.ui.threshold.tables import ranked_rows

COLOURS = {"score": "Score", "source": "Source", "verdict": "Verdict"}
STEPS = 4
"""Colours of documents with a sum of scores above the threshold."""
LIT = 128
"""Added to the colour of a document that stands out."""
LIVE_UP_TO = 5_000_000
"""With more tokens in the highest tenth, documents light up on release only."""


def show_map(loaded: Loaded, kind: str, exact: Resolved, marked: np.ndarray, what: str) -> np.ndarray | None:
    """Draw the map, or offer to compute it; a click on a point opens its document. Documents that are `marked`,
    bool (D,), stand out: they have `what`, such as `selected tokens`. Returns the places in the rank list, ascending,
    of the documents in the box that the reader drew; None without a box."""
    places = read_map(loaded.study)
    if places is None:
        note = "Shows every document as a point, near documents that are similar to the base model. Takes minutes."
        job_panel.offer_map(loaded.study.root, note)
        return None
    placed = np.flatnonzero(np.isfinite(places[:, 0]))
    with st.container(horizontal=True, vertical_alignment="center"):
        by = layout.switch("Colour by", COLOURS, key="colour", default="score")
        st.caption(_explain(len(placed)), width="stretch")
    with st.container(gap=None):
        points = places_payload(loaded, kind, bool(components.veiled()))
        acts = components.document_map("places", points)
        colours, legend = colour_documents(loaded, exact, by)
        shades = (colours + np.uint8(LIT) * marked)[placed]
        counts = np.bincount(colours[placed], minlength=len(legend)).tolist()
        live = np.array_equal(marked, exact.taken > 0)  # not where scores are brushed
        light = {
            "table": pa.table({"colour": shades}),
            "legend": [[*row, n] for row, n in zip(legend, counts, strict=True)],
        }
        titles = {"score": "Sum of scores above the threshold", "source": "Source", "verdict": "Verdict"}
        light |= {"title": titles[by], "lit": f"{count_of(marked[placed].sum(), 'document')} with {what}", "live": live}
        components.document_map("light", light)
        _tell(loaded, kind, exact, placed)
    if acts.pick is not None and 0 <= int(acts.pick) < len(placed):
        layout.open_document(loaded, loaded.corpus().document(int(placed[int(acts.pick)])).id)
    if acts.open:
        st.switch_page("pages/documents.py", query_params={"study": loaded.name, "box": acts.open})
    if not (box := acts.box) or box["id"] != points["id"]:
        return None
    query, icon = {"study": loaded.name, "box": box["ends"]}, ":material/article:"
    st.page_link("pages/documents.py", label="Open the box in Documents", icon=icon, query_params=query)
    return np.flatnonzero(in_boxes(places, box["ends"])[exact.ranking.order])


def _explain(n_placed: int) -> str:
    sentence = "Near points are similar to the base model; distances between groups mean little. Click one to read it."
    if n_placed > SAMPLE:
        sentence += f" {count(SAMPLE)} documents were laid out; the others are beside their nearest neighbours."
    return sentence


@remembered(4)
def places_payload(loaded: Loaded, kind: str, veiled: bool) -> dict:
    """What a new threshold does not change: of the placed documents their places and the rank of their highest token,
    from 0, and the names of groups, with blocks for offensive words while text is `veiled`."""
    places, index = read_map(loaded.study), loaded.index(kind)
    assert places is not None
    placed = np.flatnonzero(np.isfinite(places[:, 0]))
    best = np.full(len(places), np.iinfo(np.int32).max, dtype=np.int32)
    if index.n_tail <= LIVE_UP_TO:
        ranks = np.arange(index.n_tail)[::-1]
        best[np.searchsorted(loaded.corpus().offsets, index.places_at(ranks), side="right") - 1] = ranks
    x, y = places[placed].T
    hidden = veil.study_words(loaded.study) if veiled else None
    names = [
        [at_x, at_y, " · ".join(veil.veil_pieces([word], np.zeros(1, bool), hidden)[0] for word in words)]
        for at_x, at_y, words in name_clusters(loaded.study, places)
    ]
    ends = [float(end) for axis in (x, y) for end in (axis.min(), axis.max())] if len(placed) else [0, 1, 0, 1]
    table = pa.table({"x": x, "y": y, "best": best[placed]})
    return {"id": f"{loaded.name} {map_path(loaded.study).stem}", "table": table, "names": names, "ends": ends}


def colour_documents(loaded: Loaded, exact: Resolved, by: str) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """The colour of each document, uint8 (D,), as a place in the legend: labels and colours."""
    if by == "source":
        names, of = loaded.split(SOURCE)
        shown = [*zip(names, MORE_COLOURS, strict=False), ("other sources", MUTED)]
        return np.minimum(of, len(shown) - 1).astype(np.uint8), shown
    if by == "verdict":
        colours, corpus = np.zeros(len(exact.taken), dtype=np.uint8), loaded.corpus()
        for id, verdict in open_log(str(loaded.study.root)).of_documents(reviewer()).items():
            with contextlib.suppress(InputError):  # of an earlier corpus
                colours[corpus.index_of(id)] = 1 + VERDICTS.index(verdict)
        return colours, [("none", MUTED), *zip(VERDICTS, (TEACHES, COUNTERS, MORE_COLOURS[1]), strict=True)]
    sums = exact.ranking.sum_above
    top = float(np.quantile(sums[sums > 0], 0.95)) if (sums > 0).any() else 1.0
    edges = top * np.arange(1, STEPS) / STEPS
    labels = [*(f"up to {score(edge)}" for edge in edges), f"above {score(edges[-1])}"]
    shades = [_mix(MUTED, TEACHES, (step + 1) / STEPS) for step in range(STEPS)]
    steps = np.where(sums > 0, 1 + np.searchsorted(edges, sums), 0)
    return steps.astype(np.uint8), [("none", MUTED), *zip(labels, shades, strict=True)]


def _mix(start: str, end: str, share: float) -> str:
    pairs = ((int(start[i : i + 2], 16), int(end[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


@st.fragment
def _tell(loaded: Loaded, kind: str, exact: Resolved, placed: np.ndarray) -> None:
    """The document that the reader points at, beside its point."""
    row, told = (st.session_state.get("map_told") or {}).get("near"), {}
    if isinstance(row, int) and 0 <= row < len(placed):
        place = np.flatnonzero(exact.ranking.order == placed[row])
        (line,) = ranked_rows(loaded.corpus(), loaded.scores(kind), exact, place)
        rank, id, source, _, total, n_selected, runs = line["cells"]
        facts = f"rank {rank} · sum {total[0]} · selected tokens: {n_selected}"
        told = {"row": row, "title": " · ".join(filter(None, (id, source)))[:100], "facts": facts, "runs": runs}
    components.document_map("told", told)

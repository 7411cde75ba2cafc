"""The map of documents below the threshold: near each other where the model reads them alike, coloured by influence."""

import html
from collections.abc import Iterable

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import streamlit as st

from ifguide.data.corpus import TokenizedCorpus
from ifguide.runtime.jobs import active_job
from ifguide.selection.index import Resolved
from ifguide.study.analysis.document_map import SAMPLE, read_map
from ifguide.ui import components, job_panel, layout
from ifguide.ui.chart_style import calm
from ifguide.ui.format import count, count_of
from ifguide.ui.loaders import Loaded
from ifguide.ui.palette import MUTED, TEACHES

DRAWN_MOST = 30_000
"""Points sent to the browser: more of them cover each other, and every change of the threshold sends them again."""
WITHOUT_WEBGL = 3_000
"""So few points need no WebGL, which not every browser has."""
CONFIG = {"displayModeBar": True, "modeBarButtonsToRemove": ["toImage", "autoScale2d", "zoom2d"]}


def show_map(loaded: Loaded, found: Resolved, marked: np.ndarray, what: str) -> np.ndarray | None:
    """Draw the map, or offer to; a click on a point leaves for its document. Documents that are `marked`, bool (D,),
    stand out: they have `what`, such as `selected tokens`. Returns the places in the rank list, ascending, of those in
    the box that the reader drew; None without one."""
    places = read_map(loaded.study)
    if places is None:
        _offer(loaded)
        return None
    parts = choose_drawn(places, marked)
    figure = map_figure(loaded.corpus(), found, places, parts)
    _explain(f"{count_of(marked.sum(), 'document')} with {what}", places, sum(map(len, parts)))
    alt = "Map of documents. The tab Affected documents lists those that stand out."
    look: dict = {"config": CONFIG, "alt": alt, "selection_mode": ("points", "box")}
    chosen = st.plotly_chart(figure, key="map", on_select="rerun", **look)["selection"]
    opened = components.map_keys(key="map_keys")
    if opened is None and chosen["box"]:
        return np.flatnonzero(in_boxes(places, chosen["box"])[found.ranking.order])
    if opened is None and chosen["points"]:
        opened = chosen["points"][0]["customdata"]["0"]
    if opened is not None:
        layout.open_document(loaded, loaded.corpus().document(int(opened)).id)
    return None


def _offer(loaded: Loaded) -> None:
    if job_panel.refuse_recorded(loaded.study.root):
        return
    if active_job(loaded.study.root):
        st.caption("A job is running. The map can be drawn, or appears here, once it is done.")
    else:
        st.write("Shows every document as a point, near those that the base model reads alike. Takes minutes.")
        if st.button("Draw the map", icon=":material/play_arrow:", key="map_start"):
            job_panel.start(loaded.study.root, ["map", loaded.name], scope="fragment")


def _explain(marked: str, places: np.ndarray, n_drawn: int) -> None:
    n_known = int(np.isfinite(places[:, 0]).sum())
    said = [
        f"Large: {marked}. Near points read alike to the base model; how far groups are apart means little.",
        "Click a point to read its document; the tool in the corner draws a box and lists what is inside.",
    ]
    if n_known > SAMPLE:
        said.append(f"{count(SAMPLE)} documents were laid out, the others put beside their nearest ones.")
    if n_drawn < n_known:
        said.append(f"{count(n_drawn)} of {count(n_known)} points are drawn, some of each kind; a box finds all.")
    st.caption(" ".join(said))


def choose_drawn(places: np.ndarray, marked: np.ndarray) -> list[np.ndarray]:
    """Documents drawn small, and marked ones drawn large: at most `DRAWN_MOST`, at random but always the same."""
    known = np.random.default_rng(0).permutation(np.flatnonzero(np.isfinite(places[:, 0])))
    small, large = known[~marked[known]], known[marked[known]]
    large = large[: max(DRAWN_MOST // 2, DRAWN_MOST - len(small))]
    return [small[: DRAWN_MOST - len(large)], large]


def in_boxes(places: np.ndarray, boxes: Iterable) -> np.ndarray:
    """bool (D,): which documents are in any of Plotly's boxes, each with its ends `x` and `y`."""
    ends = [np.sort([box["x"], box["y"]]) for box in boxes]  # (2, 2): from, to
    return np.any([((places >= e[:, 0]) & (places <= e[:, 1])).all(axis=1) for e in ends], axis=0)


def map_figure(corpus: TokenizedCorpus, found: Resolved, places: np.ndarray, parts: list[np.ndarray]) -> go.Figure:
    """The map of two parts of the documents: small points, and large ones."""
    rank = np.empty(corpus.n_documents, dtype=np.int64)
    rank[found.ranking.order] = np.arange(1, corpus.n_documents + 1)
    sums = found.ranking.sum_above
    top = float(np.quantile(sums[sums > 0], 0.95)) if (sums > 0).any() else 1.0
    figure = go.Figure()
    many = sum(map(len, parts)) > WITHOUT_WEBGL
    scatter = go.Scattergl if many else go.Scatter
    for part, size, opacity in zip(parts, (3, 6) if many else (5, 10), (0.45, 0.9), strict=True):
        names = zip(*(corpus.column(key).take(pa.array(part)).to_pylist() for key in ("id", "source")), strict=True)
        colour = sums[part].astype(np.float32)
        figure.add_trace(
            scatter(
                x=places[part, 0],
                y=places[part, 1],
                mode="markers",
                marker={"size": size, "opacity": opacity, "color": colour, "coloraxis": "coloraxis"},
                text=[html.escape(" · ".join(filter(None, name))[:100], quote=False) for name in names],
                customdata=np.stack([part, rank[part], found.taken[part]], axis=1).astype(np.int32),
                hovertemplate="%{text}<br>rank %{customdata[1]:,}, selected tokens: %{customdata[2]:,}<extra></extra>",
            )
        )
    bar = {"title": {"text": "Sum above<br>the threshold"}, "thickness": 8, "len": 0.7, "nticks": 4}
    axis = {"colorscale": [[0, MUTED], [1, TEACHES]], "cmin": 0, "cmax": top, "colorbar": bar}
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return calm(figure, height=480).update_layout(dragmode="pan", showlegend=False, coloraxis=axis)

"""The map of documents, which places similar ones near each other and colours them by influence."""

import html

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import streamlit as st

from ifguide.data.corpus import TokenizedCorpus
from ifguide.selection.index import Resolved
from ifguide.study.analysis.document_map import SAMPLE, in_boxes, name_clusters, read_map
from ifguide.ui import components, job_panel, layout, veil
from ifguide.ui.chart_style import calm
from ifguide.ui.format import count, count_of
from ifguide.ui.loaders import Loaded, remembered
from ifguide.ui.palette import MUTED, TEACHES

DRAWN_MOST = 30_000
"""Most points sent to the browser: more would cover each other, and every new threshold sends them again."""
WITHOUT_WEBGL = 3_000
"""Up to this many points are drawn without WebGL, which not every browser has."""
CONFIG = {"displayModeBar": True, "modeBarButtonsToRemove": ["toImage", "autoScale2d", "zoom2d"]}


def show_map(loaded: Loaded, exact: Resolved, marked: np.ndarray, what: str) -> np.ndarray | None:
    """Draw the map, or offer to compute it; a click on a point opens its document. Documents that are `marked`,
    bool (D,), stand out: they have `what`, such as `selected tokens`. Returns the places in the rank list, ascending,
    of the documents in the box that the reader drew; None without a box."""
    places = read_map(loaded.study)
    if places is None:
        note = "Shows every document as a point, near documents that are similar to the base model. Takes minutes."
        job_panel.offer_map(loaded.study.root, note)
        return None
    parts = choose_drawn(places, marked)
    figure = map_figure(loaded.corpus(), exact, places, parts)
    if components.veiled() != "all":
        figure.update_layout(annotations=[_label(*name) for name in _name_clusters(loaded, bool(components.veiled()))])
    _explain(f"{count_of(marked.sum(), 'document')} with {what}", places, sum(map(len, parts)))
    alt = "Map of documents. The tab Affected documents lists those that stand out."
    chart = st.plotly_chart(
        figure, key="map", on_select="rerun", selection_mode=("points", "box"), config=CONFIG, alt=alt
    )
    chosen = chart["selection"]
    opened = components.map_keys(key="map_keys")
    if opened is None and chosen["box"]:
        boxes = ";".join(",".join(f"{end:.7g}" for end in (*box["x"], *box["y"])) for box in chosen["box"])
        query, icon = {"study": loaded.name, "box": boxes}, ":material/article:"
        st.page_link("pages/documents.py", label="Open the box in Documents", icon=icon, query_params=query)
        return np.flatnonzero(in_boxes(places, boxes)[exact.ranking.order])
    if opened is None and chosen["points"]:
        opened = chosen["points"][0]["customdata"]["0"]
    if opened is not None:
        layout.open_document(loaded, loaded.corpus().document(int(opened)).id)
    return None


@remembered(4)
def _name_clusters(loaded: Loaded, veiled: bool) -> list[tuple[float, float, str]]:
    places, hidden = read_map(loaded.study), veil.study_words(loaded.study) if veiled else None
    named = [] if places is None else name_clusters(loaded.study, places)
    return [
        (x, y, " · ".join(w for word in words for w in veil.veil_pieces([word], np.zeros(1, dtype=bool), hidden)))
        for x, y, words in named
    ]


def _label(x: float, y: float, text: str) -> dict:
    """The name of a cluster, which Plotly would otherwise read as markup."""
    return {"x": x, "y": y, "text": html.escape(text), "showarrow": False, "font": {"size": 12}}


def _explain(marked: str, places: np.ndarray, n_drawn: int) -> None:
    n_placed = int(np.isfinite(places[:, 0]).sum())
    sentences = [
        f"Large: {marked}. Near points are similar to the base model; distances between groups mean little.",
        "Click a point to read its document. The tool in the corner draws a box and lists the documents in it.",
    ]
    if components.veiled() != "all":
        sentences.append("The words on a group are in more of its documents than elsewhere.")
    if n_placed > SAMPLE:
        sentences.append(f"{count(SAMPLE)} documents were laid out; the others are beside their nearest neighbours.")
    if n_drawn < n_placed:
        sentences.append(f"{count(n_drawn)} of {count(n_placed)} points are drawn, some of each kind; a box finds all.")
    st.caption(" ".join(sentences))


def choose_drawn(places: np.ndarray, marked: np.ndarray) -> list[np.ndarray]:
    """Documents drawn small, and marked ones drawn large: at most `DRAWN_MOST`, chosen at random with a fixed seed."""
    placed = np.random.default_rng(0).permutation(np.flatnonzero(np.isfinite(places[:, 0])))
    small, large = placed[~marked[placed]], placed[marked[placed]]
    large = large[: max(DRAWN_MOST // 2, DRAWN_MOST - len(small))]
    return [small[: DRAWN_MOST - len(large)], large]


def map_figure(corpus: TokenizedCorpus, exact: Resolved, places: np.ndarray, parts: list[np.ndarray]) -> go.Figure:
    """The map of two parts of the documents, drawn small and large."""
    rank = np.empty(corpus.n_documents, dtype=np.int64)
    rank[exact.ranking.order] = np.arange(1, corpus.n_documents + 1)
    sums = exact.ranking.sum_above
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
                customdata=np.stack([part, rank[part], exact.taken[part]], axis=1).astype(np.int32),
                hovertemplate="%{text}<br>rank %{customdata[1]:,}, selected tokens: %{customdata[2]:,}<extra></extra>",
            )
        )
    bar = {"title": {"text": "Sum above<br>the threshold"}, "thickness": 8, "len": 0.7, "nticks": 4}
    axis = {"colorscale": [[0, MUTED], [1, TEACHES]], "cmin": 0, "cmax": top, "colorbar": bar}
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return calm(figure, height=480).update_layout(dragmode="pan", showlegend=False, coloraxis=axis)

"""The map of documents: those that the base model reads alike are near each other. Drawn on demand.

A document is the mean of the base model's last hidden states over its tokens that have a score. t-SNE lays out a sample
of them, or all of a small corpus; each of the others goes to the median place of its nearest ones in the sample.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ifguide.config.names import BASE
from ifguide.data.words import split_words
from ifguide.errors import InputError, NumericalError, StaleError
from ifguide.runtime.progress import Progress, report_part
from ifguide.storage import artifacts
from ifguide.study import on_demand
from ifguide.study.freshness import require_fresh, unit_digest
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stages.checkpoints import corpus_sequences, load_checkpoint

FOLDER, VERSION, STATES = "map", 1, ".states.npy"
SAMPLE, FEWEST = 20_000, 10
"""Documents laid out by t-SNE, and the fewest of which a map is drawn."""
COMPONENTS, NEIGHBOURS = 50, 5
CLUSTERS, CLUSTERED, NAMED_BY = 8, 4_000, 3
"""Clusters that are named, the documents that they are made of, and the words that name one."""
KEPT = 15
"""First principal components of the states that stay with the map; with more, scikit-learn searches without a tree."""


def map_path(study: Study) -> Path:
    """Where the map is or will be; a StaleError without a corpus or a model."""
    made_of = [VERSION, *(unit_digest(study, Unit(stage)) for stage in ("corpus", "model"))]
    return on_demand.result_path(study, FOLDER, made_of).with_suffix(".npy")


def read_map(study: Study, suffix: str = ".npy") -> np.ndarray | None:
    """The map of this corpus by this model, as `draw_map` gives it, memory-mapped; None where there is none.

    With `STATES`, what it was drawn from: float32 (D, up to `KEPT`), the first principal components of the documents'
    states, NaN for a document without a place. A map of an earlier version has none."""
    try:
        return artifacts.load_array(map_path(study).with_suffix(suffix))
    except StaleError:
        return None


def rank_alike(study: Study, document: str) -> np.ndarray:
    """Numbers of the documents with a place on the map, int64, those that the base model reads most like one first: by
    the distance between their `STATES`, equals by number. An InputError: there is no such document, or it has no place;
    a StaleError: there is no map."""
    number, states = study.corpus().index_of(document), read_map(study, STATES)
    if states is None:
        raise StaleError(f"there is no map of documents with neighbours; draw it with `ifguide map {study.name}`")
    distances = np.linalg.norm(states - states[number], axis=1)
    if not np.isfinite(distances[number]):
        raise InputError(f"{document!r} has no token with a score, so no document is like it; choose another one")
    return np.argsort(distances, kind="stable")[: np.isfinite(distances).sum()]


def in_boxes(places: np.ndarray, boxes: str) -> np.ndarray:
    """Which documents at some places, (D, 2), are in any of the boxes, bool (D,). A box is `x,x,y,y`, its ends in any
    order; a `;` is between boxes. An InputError: they are none."""
    try:
        ends = np.sort(np.array([[float(end) for end in box.split(",")] for box in boxes.split(";")]).reshape(-1, 2, 2))
    except ValueError as error:
        raise InputError(f"expected a box of the map such as 0,1.5,-2,3, got {boxes!r}; draw it on the map") from error
    return np.any([((places >= e[:, 0]) & (places <= e[:, 1])).all(axis=1) for e in ends], axis=0)


def name_clusters(study: Study, places: np.ndarray) -> list[tuple[float, float, list[str]]]:
    """The middle of each cluster of a sample of the map, and the words of four letters or more that the most of its
    documents have beside the share of all documents that have them; none of a map of few documents."""
    from sklearn.cluster import KMeans

    corpus, placed = study.corpus(), np.flatnonzero(np.isfinite(places[:, 0]))
    placed = np.sort(np.random.default_rng(0).permutation(placed)[:CLUSTERED])
    if len(placed) < 2 * CLUSTERS:
        return []
    means = KMeans(CLUSTERS, n_init=1, random_state=0).fit(places[placed])
    inside: list[Counter[str]] = [Counter() for _ in range(CLUSTERS)]
    for document, cluster in zip(placed.tolist(), means.labels_.tolist(), strict=True):
        inside[cluster].update({word for word in split_words(corpus.document(document).text) if len(word) > 3})
    every, named = sum(inside, Counter()), []
    for counts, size, middle in zip(inside, np.bincount(means.labels_), means.cluster_centers_, strict=True):
        weight = {word: n * np.log(n / size * len(placed) / every[word]) for word, n in counts.items()}
        words = sorted((word for word in weight if weight[word] > 0), key=lambda word: (-weight[word], word))
        named.append((float(middle[0]), float(middle[1]), words[:NAMED_BY]))
    return named


def draw_map(study: Study, progress: Progress | None = None) -> np.ndarray:
    """Give each document a place, and keep the map and the reduced states. The same study gives the same map.

    Returns float32 (D, 2); NaN for a document without a token that has a score. A StaleError: corpus or model are
    missing or out of date; an InputError: too few documents; a NumericalError: a hidden state is not finite.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.neighbors import NearestNeighbors

    for stage in ("corpus", "model"):
        require_fresh(study, Unit(stage))
    path, progress = map_path(study), progress or Progress()
    n_documents = study.corpus().n_documents
    order = np.random.default_rng(0).permutation(n_documents)
    sample, *others = map(np.sort, np.split(order, range(SAMPLE, n_documents, SAMPLE)))
    read = partial(_read_states, study, load_checkpoint(study, BASE))
    reports = [report_part(progress, part=part, parts=1 + len(others)) for part in range(1 + len(others))]
    sample, states = read(sample, reports[0])
    if len(sample) < FEWEST:
        raise InputError(f"map: expected at least {FEWEST} documents with scores, got {len(sample)}")
    pca = PCA(min(COMPONENTS, *states.shape), random_state=0)
    reduced = pca.fit_transform(states)
    progress.message(f"laying out {len(sample):,} documents")
    laid_out = TSNE(perplexity=min(30, len(sample) / 4), random_state=0).fit_transform(reduced)
    nearest = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(reduced)
    places = np.full((n_documents, 2), np.nan, dtype=np.float32)
    kept = np.full((n_documents, min(KEPT, reduced.shape[1])), np.nan, dtype=np.float32)
    places[sample], kept[sample] = laid_out, reduced[:, :KEPT]
    for part, report in zip(others, reports[1:], strict=True):
        part, states = read(part, report)
        if len(part):
            reduced = pca.transform(states)
            alike = nearest.kneighbors(reduced, return_distance=False)  # (n, NEIGHBOURS)
            places[part], kept[part] = np.median(laid_out[alike], axis=1), reduced[:, :KEPT]
    path.parent.mkdir(exist_ok=True)
    for place, array in ((path.with_suffix(STATES), kept), (path, places)):
        with artifacts.replacing(place) as temporary, temporary.open("wb") as stream:
            np.save(stream, array, allow_pickle=False)
    return places


def _read_states(study: Study, loaded: tuple, documents: np.ndarray, report: Callable[[int, int], None]):
    """Which of the documents, ascending, have a score, int64 (n,), and their mean hidden states, float32 (n, H)."""
    import torch

    from ifguide.influence.batches import make_batches
    from ifguide.influence.probe import hidden_states

    model, _, device = loaded
    offsets = np.asarray(study.corpus().offsets)
    sums = np.zeros((len(documents), model.config.hidden_size), dtype=np.float32)
    counts = np.zeros(len(documents), dtype=np.int64)
    done, total = 0, int(np.diff(offsets)[documents].sum())
    for batch in make_batches(corpus_sequences(study, chosen=documents), study.config.compute.tokens_per_batch):
        counted = batch.target_index >= 0  # (B, T-1)
        state = hidden_states(model, batch.to(device))[-1][:, 1:]  # (B, T-1, H)
        state_sums = torch.einsum("bth,bt->bh", state.float(), counted.to(state.device).float()).cpu().numpy()
        of = np.searchsorted(offsets, batch.target_index.max(dim=1).values.numpy(), side="right") - 1
        rows = np.searchsorted(documents, of)
        np.add.at(sums, rows, state_sums)
        np.add.at(counts, rows, counted.sum(dim=1).numpy())
        done += batch.n_tokens
        report(min(done, total), total)
    if not np.isfinite(sums).all():
        raise NumericalError("a hidden state is not finite; run the model in float32 (model.dtype)")
    scored = counts > 0
    return documents[scored], sums[scored] / counts[scored, None]

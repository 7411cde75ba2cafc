"""The map of documents: those that the base model reads alike are near each other. Drawn on demand.

A document is the mean of the base model's last hidden states over its tokens that have a score. t-SNE lays out a sample
of them, or all of a small corpus; each of the others goes to the median place of its nearest ones in the sample. The
same pass keeps what documents mean, by which others like them are found: see `ifguide.study.analysis.meaning`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.config.names import BASE
from ifguide.data.words import split_words
from ifguide.errors import InputError, StaleError
from ifguide.runtime.progress import Progress, report_part
from ifguide.storage import artifacts
from ifguide.study import on_demand
from ifguide.study.analysis.meaning import (
    average_states,
    average_text,
    fit_whitening,
    meaning_layer,
    rank_nearest,
    whiten,
)
from ifguide.study.freshness import require_fresh, unit_digest
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stages.checkpoints import corpus_sequences, load_checkpoint
from ifguide.study.stages.evaluating import load_evaluated, missing_weights

FOLDER, VERSION, STATES, WHITENING = "map", 1, ".meaning.npy", ".whitening.npy"
SAMPLE, FEWEST = 20_000, 10
"""Documents laid out by t-SNE, and the fewest of which a map is drawn."""
COMPONENTS, NEIGHBOURS = 50, 5
CLUSTERS, CLUSTERED, NAMED_BY = 8, 4_000, 3
"""Clusters that are named, the documents that they are made of, and the words that name one."""


def map_path(study: Study) -> Path:
    """Where the map is or will be; a StaleError without a corpus or a model."""
    made_of = [VERSION, *(unit_digest(study, Unit(stage)) for stage in ("corpus", "model"))]
    return on_demand.result_path(study, FOLDER, made_of).with_suffix(".npy")


def read_map(study: Study, suffix: str = ".npy") -> np.ndarray | None:
    """The map of this corpus by this model, as `draw_map` gives it, memory-mapped; None where there is none.

    With `STATES`, what the documents mean, float16 (D, R), NaN for one without a place; with `WHITENING`, what takes a
    text there; both as of `ifguide.study.analysis.meaning`. A map of an earlier version has neither."""
    try:
        return artifacts.load_array(map_path(study).with_suffix(suffix))
    except StaleError:
        return None


def rank_alike(study: Study, document: str) -> np.ndarray:
    """Numbers of the documents with a place on the map, int64, those whose meaning is most like one's first, equals by
    number. An InputError: there is no such document, or it has no place; a StaleError: there is no map."""
    number, states = study.corpus().index_of(document), _need(study, STATES)
    if not np.isfinite(states[number]).all():
        raise InputError(f"{document!r} has no token with a score, so no document is like it; choose another one")
    return rank_nearest(states, states[number].astype(np.float32))


def rank_meant(study: Study, direction: np.ndarray | Sequence[float]) -> np.ndarray:
    """The same for a text's direction, as of `read_meaning`."""
    return rank_nearest(_need(study, STATES), np.asarray(direction, dtype=np.float32))


def read_meaning(study: Study, text: str, model: Any = None, tokenizer: Any = None) -> np.ndarray:
    """A text's direction among the study's `STATES`, float32 (R,), by the base model, which is loaded unless it is
    given. An InputError: see `average_text`; a StaleError: there is no map, or no base model."""
    whitening = _need(study, WHITENING)
    if model is None:
        if reason := missing_weights(study, BASE):
            raise StaleError(reason)
        model, tokenizer = load_evaluated(study, BASE, study.config.evaluate.dtype)
    return whiten(average_text(study, text, model, tokenizer), whitening)[0]


def _need(study: Study, suffix: str) -> np.ndarray:
    if (array := read_map(study, suffix)) is None:
        raise StaleError(f"there is no map of documents with neighbours; draw it with `ifguide map {study.name}`")
    return array


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
    read = partial(_read_states, study, load_checkpoint(study, BASE)[0])
    reports = [report_part(progress, part=part, parts=1 + len(others)) for part in range(1 + len(others))]
    sample, early, states = read(sample, reports[0])
    if len(sample) < FEWEST:
        raise InputError(f"map: expected at least {FEWEST} documents with scores, got {len(sample)}")
    pca = PCA(min(COMPONENTS, *states.shape), random_state=0)
    reduced = pca.fit_transform(states)
    progress.message(f"laying out {len(sample):,} documents")
    laid_out = TSNE(perplexity=min(30, len(sample) / 4), random_state=0).fit_transform(reduced)
    nearest = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(reduced)
    places = np.full((n_documents, 2), np.nan, dtype=np.float32)
    whitening = fit_whitening(early)
    meanings = np.full((n_documents, whitening.shape[1]), np.nan, dtype=np.float16)
    places[sample], meanings[sample] = laid_out, whiten(early, whitening)
    for part, report in zip(others, reports[1:], strict=True):
        part, early, states = read(part, report)
        if len(part):
            alike = nearest.kneighbors(pca.transform(states), return_distance=False)  # (n, NEIGHBOURS)
            places[part], meanings[part] = np.median(laid_out[alike], axis=1), whiten(early, whitening)
    path.parent.mkdir(exist_ok=True)
    made = {path.with_suffix(WHITENING): whitening, path.with_suffix(STATES): meanings, path: places}
    for place, array in made.items():
        with artifacts.replacing(place) as temporary, temporary.open("wb") as stream:
            np.save(stream, array, allow_pickle=False)
    return places


def _read_states(study: Study, model: Any, documents: np.ndarray, report: Callable[[int, int], None]):
    """Which of the documents, ascending, have a score, int64 (n,), and their mean hidden states, float32 (n, H): those
    of the layer that meaning is read from, and the last."""
    n_layers, at_once = model.config.get_text_config().num_hidden_layers, study.config.compute.tokens_per_batch
    sequences, offsets = corpus_sequences(study, chosen=documents), np.asarray(study.corpus().offsets)
    layers = [meaning_layer(n_layers), -1]
    scored, means = average_states(model, sequences, offsets, documents, layers, at_once, report)
    return scored, means[:, 0], means[:, 1]

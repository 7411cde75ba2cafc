"""Why a document scores as it does, and what each query does, by `own_loss`: computed on demand by a job, kept in the
study's `explanations/`."""

from pathlib import Path

import numpy as np

from ifguide.config.attributions import KINDS
from ifguide.config.names import DEFAULT
from ifguide.errors import InputError
from ifguide.runtime.progress import Progress, report_part
from ifguide.study import on_demand
from ifguide.study.checkpoints import corpus_sequences, encoded_queries, load_checkpoint, read_factors
from ifguide.study.freshness import unit_digest
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study

FOLDER = "explanations"
VERSION = 3
NEIGHBOURS = 60
"""This many of the best-ranked documents are compared with a chosen one, and looked at for each query."""
_MEMORY, _LEAST = 2_000_000_000, 8
"""For each query, at most as many documents as their gradients fit into this many bytes, but at least `_LEAST`."""


def _path(study: Study, what: list) -> Path:
    units = (Unit("corpus"), Unit("queries"), Unit("direction"), Unit("scores"), Unit("selection", DEFAULT))
    made_of = [VERSION, NEIGHBOURS, what, *(unit_digest(study, unit) for unit in units)]
    return on_demand.result_path(study, FOLDER, made_of, what[0])


def document_path(study: Study, document: str, start: int | None = None, stop: int | None = None) -> Path:
    """The file of the explanation of a document, or of a span of its tokens."""
    return _path(study, ["document", document, start, stop])


def queries_path(study: Study) -> Path:
    """The file of the explanation of the queries."""
    return _path(study, ["queries"])


def explain_document(
    study: Study, document: str, start: int | None = None, stop: int | None = None, progress: Progress | None = None
) -> dict:
    """Split a document's score into what adds up to it, and find the documents with the nearest influence.

    Args:
        study: with scores and a default selection.
        start, stop: only these of its tokens; None: all.

    Returns:
        `total`: the sum of these tokens' scores of the `kind`, `combined` if the default selection is by it and else
        `own_loss`; `parts`: name -> value, which add up to it.
        `toxic` and `safe`: a contribution a query; each set sums to the part of its name. `neighbours`: [id,
        similarity], the most alike first, among the `candidates` best-ranked documents.

    Raises:
        InputError: no such document or span.
    """
    from ifguide.influence.attribution import AVERAGES, deviation
    from ifguide.influence.contributions import contributions, similarities

    corpus = study.corpus()
    index = corpus.index_of(document)
    n_tokens = int(corpus.offsets[index + 1] - corpus.offsets[index])
    span = (0 if start is None else start, n_tokens if stop is None else stop)
    if not 0 <= span[0] < span[1] <= n_tokens:
        raise InputError(f"expected a span inside the {n_tokens} tokens of {document!r}, got {start} to {stop}")
    path, progress = document_path(study, document, start, stop), progress or Progress()
    chosen = _sequences(study, index, span)
    others = [int(d) for d in study.selection().order[: NEIGHBOURS + 1] if int(d) != index][:NEIGHBOURS]
    there = [_sequences(study, other) for other in others]
    names, scales = study.checkpoint_names(), _scales(study)
    pulls: dict[str, np.ndarray] = {}
    alike = np.zeros(len(others))
    for turn, name in enumerate(names):
        model, modules, curvature, encoded, options = _load(study, name)
        report = report_part(progress, "documents", part=turn, parts=len(names))
        for kind, values in contributions(model, modules, encoded, chosen, curvature, **options).items():
            pulls[kind] = pulls.get(kind, 0) + values / scales[name] / len(names)
        alike += similarities(model, modules, chosen, there, curvature, report) / len(names)
    here = slice(*(int(corpus.offsets[index]) + place for place in span))
    parts = {f"{kind} queries": float(values.sum()) for kind, values in pulls.items()}
    scaled = [np.asarray(study.scores("own_loss", name)[here], dtype=np.float64) / scales[name] for name in names]
    made = study.manifest(Unit("scores"))["config"]
    way = made.get("scores.average", "mean")
    mean, averaged = (float(AVERAGES[by](scaled, axis=0).sum()) for by in ("mean", way))
    rest = mean - sum(parts.values())
    if abs(rest) > 1e-6 * sum(map(abs, parts.values())):
        parts["fast derivative instead of the exact one"] = rest
    if way != "mean":
        parts[f"{way} over checkpoints instead of mean"] = averaged - mean
    if made.get("scores.pooling"):
        parts["pooling"] = float(study.scores("own_loss")[here].sum(dtype=np.float64)) - averaged
    scale, kind = 1.0, study.config.selection.attribution
    if kind == "combined":  # half of each score over its standard deviation
        scale, of_probe = (1 / (2 * deviation(study.scores(part), corpus.valid_between)) for part in KINDS[kind].parts)
        parts = {part: scale * value for part, value in parts.items()}
        parts["probe"] = of_probe * float(study.scores("probe")[here].sum(dtype=np.float64))
    else:
        kind = "own_loss"
    result = {
        "document": document,
        "start": start,
        "stop": stop,
        "kind": kind,
        **{each: [scale * float(x) for x in pulls.get(each, ())] for each in ("toxic", "safe")},
        "parts": parts,
        "total": float(study.scores(kind)[here].sum(dtype=np.float64)),
        "neighbours": [[corpus.document(others[i]).id, float(alike[i])] for i in np.argsort(-alike, kind="stable")],
        "candidates": len(others),
    }
    return on_demand.keep_result(path, result)


def explain_queries(study: Study, progress: Progress | None = None) -> dict:
    """What each query does to the direction, and which of the best-ranked documents it pulls most: for `toxic` and
    `safe`, `along` and `without`, a cosine a query (see `compare_queries`, mean over checkpoints), and `pulls`, a list
    of [document id, contribution] a query, strongest first. `candidates`: how many documents were looked at."""
    from ifguide.influence.contributions import compare_queries
    from ifguide.models.layers import weight_of

    corpus, progress = study.corpus(), progress or Progress()
    names, scales = study.checkpoint_names(), _scales(study)
    documents: list[int] = []
    cosines: dict[str, np.ndarray] = {}
    pulls: dict[str, np.ndarray] = {}
    for turn, name in enumerate(names):
        model, modules, curvature, encoded, options = _load(study, name)
        if not documents:
            fit = _MEMORY // sum(4 * weight_of(module).numel() for module in modules.values())
            documents = [int(d) for d in study.selection().order[: min(NEIGHBOURS, max(_LEAST, fit))]]
        sequences = [_sequences(study, document) for document in documents]
        report = report_part(progress, "gradients", part=turn, parts=len(names))
        found, shares = compare_queries(model, modules, encoded, curvature, sequences, report=report, **options)
        for kind in found:
            cosines[kind] = cosines.get(kind, 0) + found[kind] / len(names)
            pulls[kind] = pulls.get(kind, 0) + shares[kind] / scales[name] / len(names)
    ids = [corpus.document(document).id for document in documents]
    result: dict = {"candidates": len(documents)}
    for kind, rows in pulls.items():
        order = np.argsort(-np.abs(rows), axis=1, kind="stable")[:, :5]
        result[kind] = {
            "along": [float(x) for x in cosines[kind][:, 0]],
            "without": [None if np.isnan(x) else float(x) for x in cosines[kind][:, 1]],
            "pulls": [[[ids[d], float(rows[q, d])] for d in order[q]] for q in range(len(rows))],
        }
    return on_demand.keep_result(queries_path(study), result)


def _sequences(study: Study, document: int, span: tuple[int, int] | None = None) -> list:
    """A document's chunks as it was scored; tokens outside the span are context."""
    from ifguide.influence.batches import Sequence

    corpus = study.corpus()
    first, stop = int(corpus.offsets[document]), int(corpus.offsets[document + 1])
    low, high = span or (0, stop - first)
    lazy = corpus_sequences(study, documents=(document, document + 1))
    found = []
    for chunk in (lazy[i] for i in range(len(lazy))):
        place = chunk.index - first
        found.append(Sequence(chunk.token_ids, np.where((place >= max(low, 1)) & (place < high), place, -1)))
    return found or [Sequence(np.asarray(corpus.token_ids[first:stop], dtype=np.int64), np.full(stop - first, -1))]


def _scales(study: Study) -> dict[str, float]:
    """Standard deviation of each checkpoint's scores, which the study's score divides by; 1 for a single one."""
    from ifguide.influence.attribution import deviation

    names = study.checkpoint_names()
    if len(names) == 1:
        return {names[0]: 1.0}
    valid_between = study.corpus().valid_between
    return {name: deviation(study.scores("own_loss", name), valid_between) for name in names}


def _load(study: Study, checkpoint: str):
    """One checkpoint with its layers, curvature and encoded queries, as the direction was made."""
    from ifguide.influence.contributions import Curvature
    from ifguide.influence.losses import SplitModel

    config = study.config.direction
    model, modules, device = load_checkpoint(study, checkpoint, attention="eager")
    kinds = ("toxic", "safe") if config.differential else ("toxic",)
    encoded = {kind: encoded_queries(study, kind) for kind in kinds}
    factors = read_factors(study, checkpoint, str(device))
    curvature = Curvature(factors=factors, damping=config.damping, unit=config.damping_unit)
    options = {"weighting": config.weighting, "objective": config.objective}
    return SplitModel(model), modules, curvature, encoded, options

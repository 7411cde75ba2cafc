"""Why a document scores as it does, and what each query does, by `own_loss`: computed on demand by a job, kept in the
study's `explanations/`."""

from functools import partial
from pathlib import Path

import numpy as np

from ifguide.config.attributions import KINDS
from ifguide.config.names import DEFAULT
from ifguide.errors import InputError
from ifguide.runtime.progress import Progress, report_part
from ifguide.study import on_demand
from ifguide.study.freshness import unit_digest
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stages.checkpoints import corpus_sequences, encoded_queries, load_checkpoint, read_factors

FOLDER = "explanations"
VERSION = 3
NEIGHBOURS = 60
"""This many of the best-ranked documents are compared with a chosen one, and looked at for each query."""
TOP = 20
"""This many of the best-ranked documents are explained in one go, before anybody asks."""
_MEMORY, _LEAST = 2_000_000_000, 8
"""As many documents' gradients are held at once as fit into this many bytes; for each query at least `_LEAST`."""


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

    return _explain(study, [document], start, stop, progress)[0]


def explain_top(study: Study, n: int, progress: Progress | None = None) -> int:
    """Explain the best-ranked n documents that are not explained yet, in one pass; returns how many these were."""
    corpus = study.corpus()
    best = [corpus.document(int(index)).id for index in study.selection().order[:n]]
    lacking = [document for document in best if on_demand.read_result(document_path(study, document)) is None]
    if not lacking:
        return 0
    progress = progress or Progress()
    progress.begin_stage("explain", 0, 1)
    return len(_explain(study, lacking, None, None, progress))


def _explain(
    study: Study, documents: list[str], start: int | None, stop: int | None, progress: Progress | None
) -> list[dict]:
    from ifguide.influence.contributions import contributions, pull_documents, similarities
    from ifguide.influence.losses import slices

    corpus, progress, direction = study.corpus(), progress or Progress(), study.config.direction
    indexes, spans = [corpus.index_of(document) for document in documents], []
    for document, index in zip(documents, indexes, strict=True):
        n_tokens = int(corpus.offsets[index + 1] - corpus.offsets[index])
        low, high = 0 if start is None else start, n_tokens if stop is None else stop
        if not 0 <= low < high <= n_tokens:
            raise InputError(f"expected a span inside the {n_tokens} tokens of {document!r}, got {start} to {stop}")
        spans.append((low, high))
    chosen = [_sequences(study, *place) for place in zip(indexes, spans, strict=True)]
    others = [int(d) for d in study.selection().order[: NEIGHBOURS + 1]]
    there = [_sequences(study, other) for other in others]
    names, scales = study.checkpoint_names(), _scales(study)
    split = partial(contributions, weighting=direction.weighting, objective=direction.objective)
    pulls: list[dict[str, np.ndarray]] = [{} for _ in documents]
    alike = np.zeros((len(documents), len(others)))
    for turn, name in enumerate(names):
        model, modules, curvature, encoded = _load(study, name)
        report, other_lengths = report_part(progress, "documents", part=turn, parts=len(names)), dict[int, float]()
        for part in slices(len(documents), _fitting(modules)):
            pulled, lengths = pull_documents(model, modules, chosen[part], curvature)
            for kind, values in split(model, modules, encoded, pulled).items():
                for mine, row in zip(pulls[part], values, strict=True):
                    mine[kind] = mine.get(kind, 0) + row / scales[name] / len(names)
            turns = similarities(model, modules, pulled, lengths, there, curvature, other_lengths)
            for other, similarity in enumerate(turns):
                alike[part, other] += similarity / len(names)
                report(part.start * len(others) + (other + 1) * len(similarity), alike.size)
    results = []
    for document, index, span, mine, values in zip(documents, indexes, spans, pulls, alike, strict=True):
        near = [i for i in np.argsort(-values, kind="stable").tolist() if others[i] != index][:NEIGHBOURS]
        result = {
            "document": document,
            "start": start,
            "stop": stop,
            **_split_score(study, slice(*(int(corpus.offsets[index]) + place for place in span)), mine, scales),
            "neighbours": [[corpus.document(others[i]).id, float(values[i])] for i in near],
            "candidates": len(near),
        }
        results.append(on_demand.keep_result(document_path(study, document, start, stop), result))
    return results


def _split_score(study: Study, here: slice, pulls: dict[str, np.ndarray], scales: dict[str, float]) -> dict:
    """What adds up to the score of the tokens in a slice, given the mean of each query's pull over checkpoints."""
    from ifguide.influence.attribution import AVERAGES, deviation

    parts = {f"{kind} queries": float(values.sum()) for kind, values in pulls.items()}
    scaled = [np.asarray(study.scores("own_loss", name)[here], dtype=np.float64) / by for name, by in scales.items()]
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
        valid_between = study.corpus().valid_between
        scale, of_probe = (1 / (2 * deviation(study.scores(part), valid_between)) for part in KINDS[kind].parts)
        parts = {part: scale * value for part, value in parts.items()}
        parts["probe"] = of_probe * float(study.scores("probe")[here].sum(dtype=np.float64))
    else:
        kind = "own_loss"
    shares = {each: [scale * float(x) for x in pulls.get(each, ())] for each in ("toxic", "safe")}
    return {"kind": kind, **shares, "parts": parts, "total": float(study.scores(kind)[here].sum(dtype=np.float64))}


def explain_queries(study: Study, progress: Progress | None = None) -> dict:
    """What each query does to the direction, and which of the best-ranked documents it pulls most: for `toxic` and
    `safe`, `along` and `without`, a cosine a query (see `compare_queries`, mean over checkpoints), and `pulls`, a list
    of [document id, contribution] a query, strongest first. `candidates`: how many documents were looked at."""
    from ifguide.influence.contributions import compare_queries, contributions, pull_documents

    corpus, progress, direction = study.corpus(), progress or Progress(), study.config.direction
    split = partial(contributions, weighting=direction.weighting, objective=direction.objective)
    compare = partial(compare_queries, weighting=direction.weighting, objective=direction.objective)
    names, scales = study.checkpoint_names(), _scales(study)
    documents: list[int] = []
    cosines: dict[str, np.ndarray] = {}
    pulls: dict[str, np.ndarray] = {}
    for turn, name in enumerate(names):
        model, modules, curvature, encoded = _load(study, name)
        if not documents:
            documents = [int(d) for d in study.selection().order[: min(NEIGHBOURS, max(_LEAST, _fitting(modules)))]]
        sequences = [_sequences(study, document) for document in documents]
        report = report_part(progress, "gradients", part=turn, parts=len(names))
        pulled, _ = pull_documents(model, modules, sequences, curvature)
        shares = split(model, modules, encoded, pulled)
        for kind, rows in compare(model, modules, encoded, curvature, report=report).items():
            cosines[kind] = cosines.get(kind, 0) + rows / len(names)
            pulls[kind] = pulls.get(kind, 0) + shares[kind].T / scales[name] / len(names)
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
    sequences = []
    for chunk in (lazy[i] for i in range(len(lazy))):
        place = chunk.index - first
        sequences.append(Sequence(chunk.token_ids, np.where((place >= max(low, 1)) & (place < high), place, -1)))
    return sequences or [Sequence(np.asarray(corpus.token_ids[first:stop], dtype=np.int64), np.full(stop - first, -1))]


def _fitting(modules) -> int:
    """How many documents' gradients fit into `_MEMORY`, at least 1."""
    from ifguide.models.layers import weight_of

    return max(1, _MEMORY // sum(4 * weight_of(module).numel() for module in modules.values()))


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
    model, modules, device = load_checkpoint(study, checkpoint)
    kinds = ("toxic", "safe") if config.differential else ("toxic",)
    encoded = {kind: encoded_queries(study, kind) for kind in kinds}
    factors = read_factors(study, checkpoint, str(device))
    held = dict(factors) if factors else None  # read once, for it is applied to each document and query
    curvature = Curvature(factors=held, damping=config.damping, unit=config.damping_unit)
    return SplitModel(model), modules, curvature, encoded

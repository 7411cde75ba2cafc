"""Documents for JSON: lists with excerpts, and tokens with scores. Letters of offensive words are blocks unless the
caller unveils them."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from ifguide.config.names import DEFAULT
from ifguide.errors import InputError
from ifguide.study.freshness import study_fingerprint
from ifguide.study.reading import Study
from ifguide.study.sharing import shard_sample
from ifguide.ui.documents.lines import find_text
from ifguide.ui.documents.store import DocumentFilter, DocumentStore, open_documents
from ifguide.ui.excerpts import veiled_pieces
from ifguide.ui.veil import study_words, veil_pieces

_BEFORE, _AFTER = 10, 30
"""Tokens of an excerpt around the strongest one."""


def describe_documents(
    study: Study,
    selection: str,
    *,
    where: str = "",
    search: str = "",
    regex: bool = False,
    sort: str = "",
    alike: Sequence[int] = (),
    page: slice,
    unveil: bool,
) -> dict:
    """A page of the documents that pass, with the columns that a condition may ask for and an `excerpt`, and how many
    `matches` there are. Of those that pass, only the first in `alike`, as of `DocumentFilter.like`. A StaleError: the
    document list is not written; other errors as `DocumentStore.order`."""
    store = _open_list(study.root, selection, study_fingerprint(study))
    matches = tuple(find_text(study.corpus().batches, search, regex=regex).tolist()) if search else None
    falling = sort in store.sorts() and not store.sorts()[sort].rising
    criteria = DocumentFilter(where=where.strip(), only=matches, like=tuple(alike))
    order = store.order(criteria, sort=sort, descending=falling)
    lines, excerpt = store.described(order[page]), _excerpts(study, selection, unveil)
    for line, row in zip(lines, store.rows(order[page]), strict=True):
        line["excerpt"] = excerpt(row["document"], row["strongest"])
    return {"selection": selection, "matches": len(order), "documents": lines}


def describe_document(study: Study, document: str, selection: str, *, page: slice, unveil: bool) -> dict:
    """A document by its id, and a page of its tokens: text, score, and whether each is selected."""
    chosen, corpus = study.selection(selection), study.corpus()
    index = corpus.index_of(document)
    begin, end = (int(edge) for edge in corpus.offsets[index : index + 2])
    kind = chosen.settings["attribution"] or study.config.selection.attribution
    scores, pieces = study.scores(kind), veiled_pieces(corpus, index, chosen.mask, _words(study, unveil), page)
    tokens = [
        {"token": at, "text": piece, "score": float(scores[begin + at]), "selected": bool(chosen.mask[begin + at])}
        for at, piece in zip(range(end - begin)[page], pieces, strict=True)
    ]
    facts = {"attribution": kind, "threshold": chosen.settings["threshold"], "n_tokens": end - begin}
    return {"document": document, "source": corpus.document(index).source, **facts, "tokens": tokens}


def read_document(study: Study, document: str, selection: str, *, unveil: bool) -> dict:
    """As `describe_document`, all of its tokens, also of a document that is only in the shards that the study is a
    sample of: whether it is `sampled`, and the `shard` that has it. Errors as
    `ifguide.study.sharing.shard_sample.read_document`."""
    sketch = shard_sample.read_sketch(study)
    try:
        described = describe_document(study, document, selection, page=slice(None), unveil=unveil)
        return described | {"sampled": sketch is not None, "shard": described["source"] if sketch else None}
    except InputError:
        if sketch is None:
            raise
    read = shard_sample.read_document(sketch, document)
    threshold = study.selection(selection).settings["threshold"]
    hits = (np.arange(len(read.scores)) > 0) & (read.scores > (np.inf if threshold is None else threshold))
    pieces = veil_pieces(shard_sample.cut_document(study, read), hits, _words(study, unveil))
    tokens = [
        {"token": at, "text": piece, "score": float(value), "selected": bool(hit)}
        for at, (piece, value, hit) in enumerate(zip(pieces, read.scores, hits, strict=True))
    ]
    facts = {"attribution": shard_sample.KIND, "threshold": threshold, "n_tokens": len(tokens)}
    about = {"document": document, "source": read.source, "sampled": False, "shard": read.source}
    return {**about, **facts, "tokens": tokens}


def excerpt_traced(study: Study, cells: list[dict], unveil: bool) -> list[dict]:
    """Traced documents, as of `ifguide.study.analysis.trace.describe_traced`, with an `excerpt` around the strongest
    token instead of the tokens' scores."""
    excerpt, corpus = _excerpts(study, DEFAULT, unveil), study.corpus()
    strongest = [max(range(len(scores)), key=scores.__getitem__) for scores in (cell["scores"] for cell in cells)]
    return [
        {key: value for key, value in cell.items() if key != "scores"}
        | {"excerpt": excerpt(corpus.index_of(cell["document"]), centre)}
        for cell, centre in zip(cells, strongest, strict=True)
    ]


@lru_cache(maxsize=2)
def _open_list(root: Path, selection: str, _fingerprint: str) -> DocumentStore:
    return open_documents(Study.open(root.name, root.parent), selection, write=False)


def _excerpts(study: Study, selection: str, unveil: bool) -> Callable[[int, int], str]:
    corpus, mask, words = study.corpus(), study.selection(selection).mask, _words(study, unveil)

    def excerpt(index: int, centre: int) -> str:
        near = slice(max(0, centre - _BEFORE), centre + _AFTER)
        return "".join(veiled_pieces(corpus, index, mask, words, near))

    return excerpt


def _words(study: Study, unveil: bool) -> frozenset[str] | None:
    return None if unveil else study_words(study)

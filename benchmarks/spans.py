"""Where the known toxic spans of a study lie, for judging its scores."""

from dataclasses import dataclass

import numpy as np

from ifguide.study.reading import Study


@dataclass(frozen=True)
class SpanTruth:
    """Known spans as arrays over the corpus's tokens (N,) and documents (D,)."""

    valid: np.ndarray
    """bool (N,): the token has a score."""
    in_span: np.ndarray
    """bool (N,): it is in a span, and has a score."""
    owner: np.ndarray
    """int64 (N,): its document."""
    toxic: np.ndarray
    """bool (D,): the document has a span."""

    @property
    def inside(self) -> np.ndarray:
        """bool (N,): scored tokens of documents that have a span."""
        return self.valid & self.toxic[self.owner]


def read_truth(study: Study) -> SpanTruth:
    """The known spans of a study's corpus; it must have some."""
    corpus = study.corpus()
    valid = corpus.valid()
    in_span = np.asarray(corpus.in_span) & valid
    owner = np.repeat(np.arange(corpus.n_documents), np.diff(np.asarray(corpus.offsets)))
    return SpanTruth(valid, in_span, owner, np.bincount(owner, weights=in_span, minlength=corpus.n_documents) > 0)

"""Queries from a reviewer's verdicts: what was called toxic is a toxic query, what was called fine a safe one."""

from collections.abc import Iterator

from ifguide.data.query_sources import RowQueries, cut_text
from ifguide.errors import InputError
from ifguide.selection.verdicts import VerdictLog
from ifguide.study.reading import Study

_KINDS = {"toxic": "toxic", "fine": "safe"}


def read_verdicts(study: Study) -> Iterator[RowQueries]:
    """What each verdict gives. A passage completes what comes before it in its document. A document, or a passage at
    its beginning, is cut in two; a document with a toxic passage is left out, because the passage says more."""
    corpus, verdicts = study.corpus(), VerdictLog(study.root).current()
    marked = {target.document for target, verdict in verdicts.items() if target.is_span and verdict == "toxic"}
    for target, verdict in verdicts.items():
        if verdict not in _KINDS or (not target.is_span and target.document in marked):
            yield "verdicts that are unsure, or on a document with a toxic passage"
            continue
        try:
            index = corpus.index_of(target.document)
            text, first, end = corpus.document(index).text, int(corpus.offsets[index]), int(corpus.offsets[index + 1])
            start = int(corpus.char_start[first:end][target.start or 0])
            stop = len(text) if target.stop is None else int(corpus.char_end[first:end][target.stop - 1])
        except (InputError, IndexError):
            yield "verdicts on what is gone"
            continue
        prompt = text[:start].rstrip()  # the completion brings its leading space
        passage = text[len(prompt) : stop]
        yield [(_KINDS[verdict], prompt, passage)] if prompt else cut_text(passage, _KINDS[verdict])

"""A mask transferred to another tokenisation of the same texts: a small model's scores, used to train a larger one.

Selected tokens are a set of characters; a token of the other tokenizer is selected when it contains one of them that is
not white space.
"""

import numpy as np

from ifguide.data.corpus import TokenizedCorpus
from ifguide.data.spans import mark_tokens
from ifguide.errors import ConfigError, InputError


def transfer_mask(
    source: TokenizedCorpus, mask: np.ndarray, target: TokenizedCorpus, carried: np.ndarray | None = None
) -> np.ndarray:
    """Transfer a mask bool (N_source,) from one tokenised corpus to another of the same texts, bool (N_target,); tokens
    that are not predicted are False. `carried`, all False, is filled in and returned if it is given. Documents are
    matched by id; in those that the source does not have, no token is selected. A ConfigError: a mask of another
    length; an InputError: the corpora share no document, or a document has different texts in them."""
    if len(mask) != source.n_tokens:
        raise ConfigError(f"expected a mask of {source.n_tokens:,} tokens, got {len(mask):,}; save the selection again")
    places = {id_: place for place, id_ in enumerate(source.ids())}
    carried, shared = np.zeros(target.n_tokens, dtype=bool) if carried is None else carried, 0
    for document, id_ in enumerate(target.ids()):
        place = places.get(id_)
        if place is None:
            continue
        shared += 1
        first, stop = int(source.offsets[place]), int(source.offsets[place + 1])
        chosen = first + np.flatnonzero(mask[first:stop])
        text = target.document(document).text
        if source.document(place).text != text:
            raise InputError(f"document {id_!r}: the two studies hold different texts; make them from the same corpus")
        if len(chosen):
            ranges = tuple(zip(source.char_start[chosen].tolist(), source.char_end[chosen].tolist(), strict=True))
            here = slice(int(target.offsets[document]), int(target.offsets[document + 1]))
            marked = mark_tokens(text, ranges, target.char_start[here], target.char_end[here])
            carried[here] = marked & target.valid_between(here.start, here.stop)
    if not shared:
        raise InputError("the two studies share no document id; make them from the same corpus and id column")
    return carried

"""Query sets: the (prompt, completion) pairs that say what is toxic and what is safe."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from ifguide.config.schema import QueriesConfig
from ifguide.data.readers import Row, check_text, read_rows, take_field
from ifguide.data.tokenizing import Encoded, TokenizedText, piece_ends, tokenize
from ifguide.errors import InputError

if TYPE_CHECKING:
    import pandas

KINDS: tuple[Literal["toxic", "safe"], ...] = ("toxic", "safe")
CONTINUATION = "continuation"
_SCORE = "toxicity"
_BATCH = 512


def read_sets(config: QueriesConfig) -> dict[str, "pandas.DataFrame"]:
    """Both sets of a configuration whose paths are resolved; see `read_queries`. Two equal ones are an InputError."""
    sets: dict = {kind: read_queries(getattr(config, kind), kind=kind, config=config) for kind in KINDS}
    toxic, safe = (set(frame.itertuples(index=False, name=None)) for frame in sets.values())
    if toxic == safe:
        raise InputError(f"{config.toxic} and {config.safe} hold the same queries; name others as the safe ones")
    return sets


def read_queries(path: str, *, kind: Literal["toxic", "safe"], config: QueriesConfig) -> "pandas.DataFrame":
    """Read one set of queries. Each row holds

    - a prompt and a completion as text;
    - or RealToxicityPrompts' prompt and continuation, objects with `text` and `toxicity`. A row is toxic when both
      score at least `config.toxic_min`, safe when both score less than `config.safe_max`; rows without scores are left
      out;
    - or a text alone (also a line of a .txt file), cut after `config.split_share` of its words; texts of one word are
      left out.

    Prompt and completion are joined unchanged: a completion brings its own leading space.

    Args:
        path: as `ifguide.data.readers.read_rows` takes it.
        kind: `toxic` or `safe`; decides which scored rows are kept.
        config: names of columns, thresholds, the share, and the most queries to keep, the first ones.

    Returns:
        A frame of two string columns, `prompt` and `completion`. `frame.attrs["left_out"]` counts the rows that are not
        queries by reason, and `frame.attrs["summary"]` is a sentence about all rows.

    Raises:
        InputError: an empty prompt or completion, another form of row, or nothing left; names the file and the line.
    """
    import pandas as pd

    columns = [config.prompt_field, config.completion_field, CONTINUATION, config.text_field]
    rows = read_rows(path, text_field=config.text_field, columns=columns)
    parsed = [_read_pair(row, kind, config) for row in rows]
    pairs = [pair for pair in parsed if not isinstance(pair, str)]
    left_out = Counter(reason for reason in parsed if isinstance(reason, str))
    taken = pairs[: config.max_queries or None]
    summary = f"{path}: {len(pairs):,} of {len(parsed):,} rows are {kind} queries"
    if left_out:
        summary += f"; left out: {', '.join(f'{n:,} {reason}' for reason, n in left_out.items())}"
    if len(taken) < len(pairs):
        summary += f"; the first {len(taken):,} are taken"
    if not taken:
        raise InputError(f"{summary}; expected at least one {kind} query: change queries.{kind} or its thresholds")
    frame = pd.DataFrame(taken, columns=["prompt", "completion"])
    frame.attrs = {"left_out": left_out, "summary": summary}
    return frame


def _read_pair(row: Row, kind: str, config: QueriesConfig) -> tuple[str, str] | str:
    """A row's prompt and completion, or why it is left out."""
    prompt_field, completion_field = config.prompt_field, config.completion_field
    if prompt_field not in row.values:
        if config.text_field not in row.values:
            columns = ", ".join(map(repr, row.values)) or "none"
            expected = f"the columns {prompt_field!r} and {completion_field!r}, or {config.text_field!r}"
            raise InputError(f"{row.where}: expected {expected}, found {columns}; name the right columns in [queries]")
        return split_text(check_text(row.values[config.text_field], row.where, config.text_field), config.split_share)
    if completion_field not in row.values and CONTINUATION in row.values:
        completion_field = CONTINUATION
    prompt, completion = take_field(row, prompt_field), take_field(row, completion_field)
    if isinstance(prompt, dict) != isinstance(completion, dict):
        fields = f"{prompt_field!r} and {completion_field!r}"
        raise InputError(f"{row.where}: expected {fields} in the same form, text or object; fix the row")
    if isinstance(prompt, dict):
        prompt, prompt_score = _rated_text(prompt, row, prompt_field)
        completion, completion_score = _rated_text(completion, row, completion_field)
        if prompt_score is None or completion_score is None:
            return "without scores"
        if kind == "toxic" and min(prompt_score, completion_score) < config.toxic_min:
            return f"not toxic (both scores at least {config.toxic_min:g})"
        if kind == "safe" and max(prompt_score, completion_score) >= config.safe_max:
            return f"not safe (both scores below {config.safe_max:g})"
    for name, text in ((prompt_field, prompt), (completion_field, completion)):
        if not check_text(text, row.where, name).strip():
            remedy = "a query needs a prompt and a completion, so fill it or remove the row"
            raise InputError(f"{row.where}: {name!r} is empty; {remedy}")
    return prompt, completion


def _rated_text(part: dict, row: Row, name: str) -> tuple[str, float | None]:
    """The text and the score of one of RealToxicityPrompts' objects; None: it has no score."""
    for key in ("text", _SCORE):
        if key not in part:
            remedy = "add it, or give prompt and completion as plain text"
            raise InputError(f"{row.where}: expected {name!r} to hold {key!r}; {remedy}")
    score = part[_SCORE]
    if score is None or score != score:  # NaN is a score that is missing
        return part["text"], None
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise InputError(f"{row.where}: expected {_SCORE!r} of {name!r} from 0 to 1, got {score!r}")
    return part["text"], float(score)


def split_text(text: str, share: float) -> tuple[str, str] | str:
    """A text cut after this share of its words, or why that leaves nothing of a part."""
    word_ends = [word.end() for word in re.finditer(r"\S+", text)]
    if len(word_ends) < 2:
        return "of one word" if word_ends else "without text"
    n_prompt = min(max(int(len(word_ends) * share), 1), len(word_ends) - 1)
    cut = word_ends[n_prompt - 1]
    return text[:cut], text[cut:]


def encode_queries(queries: "pandas.DataFrame", tokenizer, max_length: int, bos_id: int | None = None) -> Encoded:
    """`encode_pairs` of a table with the columns `prompt` and `completion`."""
    pairs = list(zip(queries["prompt"].tolist(), queries["completion"].tolist(), strict=True))
    return encode_pairs(pairs, tokenizer, max_length, bos_id)


def encode_pairs(pairs: Sequence[tuple[str, str]], tokenizer, max_length: int, bos_id: int | None = None) -> Encoded:
    """Tokenise prompt and completion as one text and mark the tokens to be predicted.

    A token belongs to the text, prompt or completion, in which its first character that is not white space is. A prompt
    that is too long loses tokens from its beginning.

    Args:
        pairs: (prompt, completion).
        max_length: most tokens of a query, `bos_id` included.
        bos_id: put before every query as context; None for nothing.

    Returns:
        One pair a query: `input_ids` int64 (T,) and `completion_mask` bool (T,), T <= max_length. `mask[0]` is False,
        because nothing predicts the first token.

    Raises:
        InputError: no token begins in a completion, no token is before it, or it is too long for `max_length`.
    """
    encoded: Encoded = []
    for first in range(0, len(pairs), _BATCH):
        part = pairs[first : first + _BATCH]
        tokenized = tokenize(tokenizer, [prompt + completion for prompt, completion in part])
        for number, (pair, tokens) in enumerate(zip(part, tokenized, strict=True), start=first + 1):
            encoded.append(_encode(number, *pair, tokens, max_length, bos_id))
    return encoded


def _encode(number: int, prompt: str, completion: str, tokens: TokenizedText, max_length: int, bos_id: int | None):
    mask = token_begins(prompt + completion, tokens) >= len(prompt)
    context = [] if bos_id is None else [bos_id]
    shown = completion if len(completion) <= 60 else f"{completion[:57]}..."
    if not mask.any():
        reason = f"no token begins in the completion {shown!r} (its start joins the prompt's last word)"
        raise InputError(f"query {number}: {reason}; begin the completion with a space or make it longer")
    start = int(mask.argmax())
    mask[start:] = True  # everything after the completion's first token belongs to it
    if start == 0 and not context:
        reason = f"the tokenizer keeps nothing of the prompt {prompt!r}"
        raise InputError(f"query {number}: {reason}; give it a prompt with text")
    n_completion = len(mask) - start
    room = max_length - n_completion - len(context)
    if room < (0 if context else 1):
        reason = f"has {n_completion} tokens, which leaves no room for a prompt in {max_length}"
        raise InputError(f"query {number}: the completion {shown!r} {reason}; shorten it or remove the query")
    cut = max(start - room, 0)
    input_ids = np.concatenate([context, tokens.token_ids[cut:]]).astype(np.int64)
    return input_ids, np.concatenate([np.zeros(len(context), dtype=bool), mask[cut:]])


def token_begins(text: str, tokens: TokenizedText) -> np.ndarray:
    """int64 (n,): where each token's first character that is not white space is; for a token of white space alone,
    where it begins. So it makes no difference whether a tokenizer's offsets include a leading space."""
    begins = tokens.char_start.astype(np.int64)
    ends = piece_ends(tokens.char_end, len(text))
    for i, (start, end) in enumerate(zip(begins.tolist(), tokens.char_end.tolist(), strict=True)):
        if start >= end:  # a token of white space that the offsets leave out: it begins where the one before ended
            begins[i] = min(start, int(ends[i - 1]) if i else 0)
        else:
            begins[i] = next((place for place in range(start, end) if not text[place].isspace()), start)
    return begins

"""Query sets: the (prompt, completion) pairs that say what is toxic and what is safe."""

import re
from typing import TYPE_CHECKING

import numpy as np

from ifguide.config.schema import QueriesConfig
from ifguide.data.readers import Row, check_text, read_rows, take_field
from ifguide.data.tokenizing import TokenizedText, piece_ends, tokenize
from ifguide.errors import ConfigError, InputError

if TYPE_CHECKING:
    import pandas

_CONTINUATION = "continuation"
_SCORE = "toxicity"
_COUNTS = ("rows", "unscored", "filtered", "empty", "too_short", "kept")
_BATCH = 512


def read_queries(path: str, *, kind: str, config: QueriesConfig) -> "pandas.DataFrame":
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
        A frame of two string columns, `prompt` and `completion`. `frame.attrs["counts"]` holds how many rows were read
        (`rows`), left out (`unscored`, `filtered`, `empty`, `too_short`) and `kept` before `config.max_queries`;
        `frame.attrs["summary"]` is a sentence about them.

    Raises:
        InputError: an empty prompt or completion, another form of row, or nothing left; names the file and the line.
        ConfigError: another `kind`.
    """
    import pandas as pd

    if kind not in ("toxic", "safe"):
        raise ConfigError(f"expected kind toxic or safe, got {kind!r}")
    counts = dict.fromkeys(_COUNTS, 0)
    pairs: list = []
    columns = [config.prompt_field, config.completion_field, _CONTINUATION, config.text_field]
    for row in read_rows(path, text_field=config.text_field, columns=columns):
        pair = _read_pair(row, kind, config)
        counts["rows"] += 1
        counts[pair if isinstance(pair, str) else "kept"] += 1
        if not isinstance(pair, str) and (not config.max_queries or len(pairs) < config.max_queries):
            pairs.append(pair)
    summary = _summarise(path, kind, config, counts, len(pairs))
    if not pairs:
        raise InputError(f"{summary}; expected at least one {kind} query: change queries.{kind} or its thresholds")
    frame = pd.DataFrame(pairs, columns=["prompt", "completion"])
    frame.attrs = {"counts": counts, "summary": summary}
    return frame


def _read_pair(row: Row, kind: str, config: QueriesConfig) -> tuple[str, str] | str:
    """A row's prompt and completion, or which of `_COUNTS` it is left out as."""
    prompt_field, completion_field = config.prompt_field, config.completion_field
    if prompt_field not in row.values:
        if config.text_field not in row.values:
            found = ", ".join(map(repr, row.values)) or "none"
            wanted = f"the columns {prompt_field!r} and {completion_field!r}, or {config.text_field!r}"
            raise InputError(f"{row.where}: expected {wanted}, found {found}; name the right columns in [queries]")
        return split_text(check_text(row.values[config.text_field], row.where, config.text_field), config.split_share)
    if completion_field not in row.values and _CONTINUATION in row.values:
        completion_field = _CONTINUATION
    prompt, completion = take_field(row, prompt_field), take_field(row, completion_field)
    if isinstance(prompt, dict) != isinstance(completion, dict):
        fields = f"{prompt_field!r} and {completion_field!r}"
        raise InputError(f"{row.where}: expected {fields} in the same form, text or object; fix the row")
    if isinstance(prompt, dict):
        parts = ((prompt_field, prompt), (completion_field, completion))
        prompt, completion = (_nested_text(part, row, name) for name, part in parts)
        rated = [_score(part, row, name) for name, part in parts]
        scores = [score for score in rated if score is not None]
        if len(scores) < len(rated):
            return "unscored"
        if not (min(scores) >= config.toxic_min if kind == "toxic" else max(scores) < config.safe_max):
            return "filtered"
    prompt, completion = (
        check_text(prompt, row.where, prompt_field),
        check_text(completion, row.where, completion_field),
    )
    for name, text in ((prompt_field, prompt), (completion_field, completion)):
        if not text.strip():
            remedy = "a query needs a prompt and a completion, so fill it or remove the row"
            raise InputError(f"{row.where}: {name!r} is empty; {remedy}")
    return prompt, completion


def _nested_text(part: dict, row: Row, name: str):
    if "text" not in part:
        found = ", ".join(map(repr, part)) or "nothing"
        raise InputError(f"{row.where}: expected {name!r} to hold 'text' and {_SCORE!r}, found {found}")
    return part["text"]


def _score(part: dict, row: Row, name: str) -> float | None:
    if _SCORE not in part:
        remedy = "score the text, or give prompt and completion as plain text"
        raise InputError(f"{row.where}: expected {name!r} to hold {_SCORE!r}; {remedy}")
    score = part[_SCORE]
    if score is None or score != score:  # NaN is a score that is missing
        return None
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise InputError(f"{row.where}: expected {_SCORE!r} of {name!r} from 0 to 1, got {score!r}")
    return float(score)


def split_text(text: str, share: float) -> tuple[str, str] | str:
    """A text cut after this share of its words; `empty` or `too_short` where that leaves nothing of a part."""
    word_ends = [word.end() for word in re.finditer(r"\S+", text)]
    if len(word_ends) < 2:
        return "too_short" if word_ends else "empty"
    n_prompt = min(max(int(len(word_ends) * share), 1), len(word_ends) - 1)
    cut = word_ends[n_prompt - 1]
    return text[:cut], text[cut:]


def _summarise(path: str, kind: str, config: QueriesConfig, counts: dict[str, int], n_taken: int) -> str:
    bound = f"at least {config.toxic_min:g}" if kind == "toxic" else f"below {config.safe_max:g}"
    reasons = {"filtered": f"not {kind} (both scores {bound})", "unscored": "without scores"}
    reasons |= {"empty": "without text", "too_short": "of one word"}
    parts = [f"{counts[name]:,} {reason}" for name, reason in reasons.items() if counts[name]]
    sentence = f"{path}: {counts['kept']:,} of {counts['rows']:,} rows are {kind} queries"
    if parts:
        sentence += f"; left out: {', '.join(parts)}"
    if n_taken < counts["kept"]:
        sentence += f"; the first {n_taken:,} are taken"
    return sentence


def encode_queries(
    queries: "pandas.DataFrame", tokenizer, max_length: int, bos_id: int | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Tokenise prompt and completion as one text and mark the tokens to be predicted.

    A token belongs to the text, prompt or completion, in which its first character that is not white space is. A prompt
    that is too long loses tokens from its beginning.

    Args:
        queries: columns `prompt` and `completion`.
        max_length: most tokens of a query, `bos_id` included.
        bos_id: put before every query as context; None for nothing.

    Returns:
        One pair a query: `input_ids` int64 (T,) and `completion_mask` bool (T,), T <= max_length. `mask[0]` is False,
        because nothing predicts the first token.

    Raises:
        InputError: no token begins in a completion, no token is before it, or it is too long for `max_length`.
    """
    encoded = []
    pairs = list(zip(queries["prompt"].tolist(), queries["completion"].tolist(), strict=True))
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

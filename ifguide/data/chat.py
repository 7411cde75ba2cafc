"""A corpus's rows -> text, and which of its characters are trained on: plain text, conversations, prompts with
completions."""

import re

import numpy as np

from ifguide.config.schema import CorpusConfig
from ifguide.data.readers import Row, check_text, has_field, read_rows, take_field
from ifguide.data.stretches import find_edges
from ifguide.data.tokenizing import TokenizedText, place_tokens
from ifguide.errors import InputError

MESSAGES = ("messages", "conversations")
"""Columns of conversations, looked for where there is no text."""
TOKENS = "input_ids"
"""Column of texts that are tokens already, with `labels` and `attention_mask` beside it, as trainers have them."""
_ROLES = {"human": "user", "gpt": "assistant"}
_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PLACE = re.compile(r"<<turn (\d+)>>")
"""Takes the place of a message's words where a template is asked for the place that it gives them."""
_ALL = "set corpus.train_on to 'all'"
TextParts = tuple[str, list[int], list[tuple[int, str]], TokenizedText | None]
"""What `TextReader.read` gives."""


class TextReader:
    """Reads the text of rows, all in the form of the first. An InputError: no such column, or conversations and a
    tokenizer without a chat template."""

    def __init__(self, config: CorpusConfig, tokenizer):
        first = next(read_rows(config.path, text_field=config.text_field, text_unit=config.text_unit), None)
        self.fields = _find_fields(first, config) if first else (config.text_field,)
        given = first and take_field(first, self.fields[0])
        self.is_tokens = self.fields == (TOKENS,) and isinstance(given, list)
        self.is_chat = not self.is_tokens and (self.fields[0] in MESSAGES or isinstance(given, list))
        several = len(self.fields) > 1 or (self.is_tokens and first is not None and "labels" in first.values)
        self.is_partial = config.train_on != "all" and (self.is_chat or several)
        """Only completions are trained on."""
        if config.train_on == "completion" and not self.is_partial:
            raise InputError(f"{config.path}: expected messages, or prompts with completions, got text; {_ALL}")
        self._tokenizer = tokenizer
        if self.is_chat:
            if not tokenizer.chat_template:
                remedy = "name a model that has one, or set tokenizer.chat_template and save the tokenizer again"
                raise InputError(f"{config.path} holds conversations, but the tokenizer has no chat template; {remedy}")
            self._has_marks = bool(_MARKS.search(tokenizer.get_chat_template()))
            ids = tokenizer("a")["input_ids"]  # a token that comes before each document anyway is left out
            self._lead = tokenizer.bos_token if len(ids) > 1 and ids[0] == tokenizer.bos_token_id else ""

    def read(self, row: Row) -> TextParts:
        """A row's text, empty when there is nothing to train on; the edges of what is trained on, in characters, where
        that is not all (see `ifguide.data.stretches`); for a chat, where the words of each turn begin, and its role;
        and its tokens, if the row has them."""
        if self.is_tokens:
            return self._read_tokens(row)
        if self.is_chat:
            chat = [_read_messages(row, field) for field in self.fields]
            text, edges, turns = self._render(chat, row.where) if chat[-1] else ("", [], [])
            return check_text(text, row.where, self.fields[0]), edges, turns, None
        parts = [check_text(take_field(row, field), row.where, field) for field in self.fields]
        text = "".join(parts) if parts[-1].strip() else ""
        return text, [len(parts[0]), len(text)] if text and self.is_partial else [], [], None

    def _read_tokens(self, row: Row) -> TextParts:
        try:
            ids, kept = np.array(take_field(row, TOKENS), dtype=np.int64), unpadded(row)
            labels = np.array(row.values.get("labels") or ids, dtype=np.int64)[kept]
            text, tokens = place_tokens(self._tokenizer, ids[kept].tolist())
        except (TypeError, ValueError, IndexError, InputError) as error:
            raise InputError(f"{row.where}: {TOKENS!r} are no tokens of this tokenizer: {error}") from error
        stretches = find_edges(labels != -100).reshape(-1, 2) if self.is_partial else ()
        edges = [int(place) for a, b in stretches for place in (tokens.char_start[a], tokens.char_end[b - 1])]
        return check_text(text, row.where, TOKENS), edges, [], tokens

    def _render(self, parts: list[list[dict]], where: str) -> tuple[str, list[int], list[tuple[int, str]]]:
        """What `read` gives. Trained on is what the template marks with `{% generation %}`, or without marks, or after
        a prompt of messages, what each turn of the assistant adds to its opening, or to the words before it where the
        template writes no opening."""
        messages = [message for part in parts for message in part]
        text, edges = self._apply_template(messages, where), []
        places = self._place_words(messages, text, where)
        if self.is_partial and self._has_marks and len(parts) == 1:
            encoded = self._apply_template(
                messages,
                where,
                tokenize=True,
                return_dict=True,
                return_assistant_tokens_mask=True,
                tokenizer_kwargs={"return_offsets_mapping": True},
            )
            starts, ends = zip(*encoded["offset_mapping"], strict=True)
            turns = find_edges(np.array(encoded["assistant_masks"], dtype=bool)).tolist()
            edges = [(*starts, len(text))[n] if i % 2 else (0, *ends)[n] for i, n in enumerate(turns)]
        elif self.is_partial:
            for n in range(len(messages) - len(parts[-1]), len(messages)):
                if messages[n]["role"] != "assistant":
                    continue
                before = self._apply_template(messages[:n], where) if n else ""
                opened = self._apply_template(messages[:n], where, add_generation_prompt=True) if n else ""
                closed = self._apply_template(messages[: n + 1], where)
                if not (text.startswith(closed) and closed.startswith(opened)):
                    wrong = "the chat template writes a conversation's beginning differently without its end"
                    raise InputError(f"{where}: {wrong}; mark its turns with {{% generation %}}, or {_ALL}")
                edges += [len(opened) if opened != before else places.get(n, len(opened)), len(closed)]
        lead = len(self._lead) if text.startswith(self._lead) else 0
        spoken = ((n, at + len(text[at:]) - len(text[at:].lstrip())) for n, at in places.items())
        turns = [(start - lead, messages[n]["role"]) for n, start in spoken if messages[n]["content"].strip()]
        return text[lead:], [max(edge - lead, 0) for edge in edges], turns

    def _place_words(self, messages: list[dict], text: str, where: str) -> dict[int, int]:
        """First character of each message's words in the text, up to one that the template changes."""
        marked = [m | {"content": f"<<turn {n}>>"} if m["content"] else m for n, m in enumerate(messages)]
        first, *rest = _PLACE.split(self._apply_template(marked, where))
        places: dict[int, int] = {}
        start = len(first)
        for number, after in zip(map(int, rest[::2]), rest[1::2], strict=True):
            words = messages[number]["content"]
            forms = [form + after for form in (words, words.strip(), words.lstrip(), words.rstrip())]
            written = next((form for form in forms if text.startswith(form, start)), None)
            if written is None:
                return places
            places[number] = start
            start += len(written)
        return places

    def _apply_template(self, messages: list[dict], where: str, *, tokenize: bool = False, **options):
        try:
            return self._tokenizer.apply_chat_template(messages, tokenize=tokenize, **options)
        except Exception as error:  # a template may raise anything
            remedy = "correct or remove the row"
            raise InputError(f"{where}: the chat template refuses the messages ({error}); {remedy}") from error


def unpadded(row: Row) -> np.ndarray:
    """int64 (n,): the places of a row of tokens that are no padding."""
    mask = row.values.get("attention_mask")
    return np.arange(len(take_field(row, TOKENS))) if mask is None else np.flatnonzero(mask)


def _find_fields(row: Row, config: CorpusConfig) -> tuple[str, ...]:
    """The columns that hold the text; the error about a missing one names all there are."""
    forms = ((config.text_field,), *((name,) for name in MESSAGES), (config.prompt_field, config.completion_field))
    present = [fields for fields in forms if all(has_field(row, field) for field in fields)]
    return present[0] if present else take_field(row, config.text_field)


def _read_messages(row: Row, field: str) -> list[dict]:
    """The messages as templates expect them; other keys, such as tool calls, stay."""
    messages, value = [], take_field(row, field)
    for message in value if isinstance(value, list) else [] if value is None else [value]:
        old = isinstance(message, dict) and "from" in message
        role, content = ("from", "value") if old else ("role", "content")
        if not isinstance(message, dict) or not isinstance(message.get(role), str):
            forms = "messages {'role': ..., 'content': ...} or {'from': ..., 'value': ...}"
            raise InputError(f"{row.where}: expected {forms} in {field!r}, got {message!r:.80}; correct the row")
        rest = {key: part for key, part in message.items() if part is not None and key not in (role, content)}
        speaker = _ROLES.get(message[role], message[role])
        messages.append({"role": speaker, "content": _join_parts(message.get(content), row.where, field), **rest})
    return messages


def _join_parts(content, where: str, field: str) -> str:
    """A message's content as text, whether it is one or a list of parts."""
    parts = content if isinstance(content, list) else [{"type": "text", "text": "" if content is None else content}]
    given = (part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text")
    if len(texts := [text for text in given if isinstance(text, str)]) < len(parts):
        expected = "expected content as text, or as parts {'type': 'text', 'text': ...},"
        raise InputError(f"{where}: {expected} in {field!r}, got {content!r:.80}; remove the row, or other parts")
    return "".join(texts)

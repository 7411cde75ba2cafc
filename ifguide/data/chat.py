"""A corpus's rows -> text, and which of its characters are trained on: plain text, conversations, prompts with
completions."""

import re

import numpy as np

from ifguide.config.schema import CorpusConfig
from ifguide.data.readers import Row, check_text, has_field, read_rows, take_field
from ifguide.data.stretches import find_edges
from ifguide.errors import InputError

MESSAGES = ("messages", "conversations")
"""Columns of conversations, looked for where there is no text."""
_ROLES = {"human": "user", "gpt": "assistant"}
_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_ALL = "set corpus.train_on to 'all'"


class TextReader:
    """Reads the text of rows, all in the form of the first. An InputError: no such column, or conversations and a
    tokenizer without a chat template."""

    def __init__(self, config: CorpusConfig, tokenizer):
        first = next(read_rows(config.path, text_field=config.text_field, text_unit=config.text_unit), None)
        self.fields = _find_fields(first, config) if first else (config.text_field,)
        given = first and take_field(first, self.fields[0])
        self.is_chat = self.fields[0] in MESSAGES or isinstance(given, list)
        self.is_partial = config.train_on != "all" and (self.is_chat or len(self.fields) > 1)
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

    def read(self, row: Row) -> tuple[str, list[int], list[tuple[int, str]]]:
        """A row's text, empty when there is nothing to train on; the edges of what is trained on, in characters, where
        that is not all (see `ifguide.data.stretches`); and for a chat, where the words of each turn begin, and its
        role."""
        if self.is_chat:
            chat = [_read_messages(row, field) for field in self.fields]
            text, edges = self._render(chat, row.where) if chat[-1] else ("", [])
            turns = _place_turns([message for part in chat for message in part], text)
            return check_text(text, row.where, self.fields[0]), edges, turns
        parts = [check_text(take_field(row, field), row.where, field) for field in self.fields]
        text = "".join(parts) if parts[-1].strip() else ""
        return text, [len(parts[0]), len(text)] if text and self.is_partial else [], []

    def _render(self, parts: list[list[dict]], where: str) -> tuple[str, list[int]]:
        """The text that the template writes, and the edges of what is trained on: what it marks with
        `{% generation %}`, or without marks, or after a prompt of messages, what each turn of the assistant adds to its
        opening."""
        messages = [message for part in parts for message in part]
        text, edges = self._apply_template(messages, where), []
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
                opened = self._apply_template(messages[:n], where, add_generation_prompt=True) if n else ""
                closed = self._apply_template(messages[: n + 1], where)
                if not (text.startswith(closed) and closed.startswith(opened)):
                    wrong = "the chat template writes a conversation's beginning differently without its end"
                    raise InputError(f"{where}: {wrong}; mark its turns with {{% generation %}}, or {_ALL}")
                edges += [len(opened), len(closed)]
        lead = len(self._lead) if text.startswith(self._lead) else 0
        return text[lead:], [max(edge - lead, 0) for edge in edges]

    def _apply_template(self, messages: list[dict], where: str, *, tokenize: bool = False, **options):
        try:
            return self._tokenizer.apply_chat_template(messages, tokenize=tokenize, **options)
        except Exception as error:  # a template may raise anything
            remedy = "correct or remove the row"
            raise InputError(f"{where}: the chat template refuses the messages ({error}); {remedy}") from error


def _place_turns(messages: list[dict], text: str) -> list[tuple[int, str]]:
    """(first character, role) of the messages that the text holds; a template may leave some out or change them."""
    turns, at = [], 0
    for message in messages:
        content = str(message["content"]).strip()
        if content and (start := text.find(content, at)) >= 0:
            turns.append((start, message["role"]))
            at = start + len(content)
    return turns


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
        messages.append({"role": speaker, "content": message.get(content) or "", **rest})
    return messages

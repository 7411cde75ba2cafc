"""People's verdicts on documents and spans of tokens: an append-only log in the study's folder.

`verdicts.jsonl` has one JSON object per line, written with fsync before the call returns and never changed. Replaying
the log gives the state, so a killed process loses at most the line it was writing. A torn last line is ignored.

In a recorded study the lines go into a file of the reader's own beside its folder, `NAME.verdicts.jsonl`.

Each reviewer has verdicts of their own. A line without a reviewer's name counts for everybody. A line that is `final`
decides what reviewers disagree on: it takes precedence, and is nobody's own verdict.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ifguide.data.by_document import token_parts
from ifguide.errors import ConfigError, InputError
from ifguide.storage.lock import read_record

LOG, RATINGS = "verdicts.jsonl", "ratings.jsonl"
VERDICTS = ("toxic", "fine", "unsure")
_ACTIONS = (*VERDICTS, "none")


@dataclass(frozen=True)
class Target:
    """The document or span of a verdict."""

    document: str
    """The document's id, which stays the same when the corpus is read again."""
    start: int | None = None
    """First token of a span, counted within the document; None: the whole document."""
    stop: int | None = None
    """Its end, excluded."""

    def __post_init__(self):
        whole = self.start is None and self.stop is None
        span = type(self.start) is int and type(self.stop) is int and 0 <= self.start < self.stop
        if not isinstance(self.document, str) or not (whole or span):
            expected = "a document's id, and no span or 0 <= start < stop"
            raise ConfigError(f"expected {expected}, got {self.document!r}, {self.start!r}, {self.stop!r}")

    @property
    def is_span(self) -> bool:
        """Whether it is a span of tokens."""
        return self.start is not None


Given = dict[str, tuple[str, str]]
"""Reviewer -> verdict and note on one target, the last given last."""


class VerdictLog:
    """The log of one study; what was added to the file is read before each answer. `file` is its name: `RATINGS` has
    verdicts on completions instead of documents."""

    def __init__(self, study_root: Path, file: str = LOG):
        self.path, self._recorded = Path(study_root) / file, b""
        if read_record(self.path.parent) is not None:
            self._recorded = self.path.read_bytes() if self.path.is_file() else b""
            self.path = self.path.parent.with_name(f"{self.path.parent.name}.{file}")
        self._forget()

    def _forget(self) -> None:
        self._read_to = 0
        self._given: dict[Target, Given] = {}
        self._final: dict[Target, Given] = {}
        self._history: list[tuple[str, dict, list[tuple[Target, Given]]]] = []  # who, in which dict, what was before
        for line in self._recorded.splitlines():
            self._replay(line)
        self._history.clear()  # what was recorded is not undone

    def entries(self, by: str | None = None) -> dict[Target, tuple[str, str, str]]:
        """Target -> verdict, note, and who gave them, the earliest decided first: the last ones of anybody, or final
        ones; or as one reviewer sees them (empty: one without a name), their own and else those without a name."""
        self._catch_up()
        entries = {}
        for target, given in self._given.items():
            who = next(reversed(given)) if by is None else by if by in given else ""
            if who in given:
                entries[target] = (*given[who], who)
        return entries if by is not None else entries | self.finals()

    def current(self, by: str | None = None) -> dict[Target, str]:
        """Target -> verdict, as `entries`."""
        return {target: entry[0] for target, entry in self.entries(by).items()}

    def of_documents(self, by: str | None = None) -> dict[str, str]:
        """Document id -> verdict, whole documents only."""
        return {target.document: verdict for target, verdict in self.current(by).items() if not target.is_span}

    def spans(self, by: str | None = None) -> dict[str, list[tuple[int, int, str]]]:
        """Document id -> (start, stop, verdict) of its spans, in reading order."""
        by_document: dict[str, list[tuple[int, int, str]]] = {}
        for target, verdict in self.current(by).items():
            if target.start is not None and target.stop is not None:
                by_document.setdefault(target.document, []).append((target.start, target.stop, verdict))
        return {document: sorted(spans) for document, spans in by_document.items()}

    def opinions(self, target: Target) -> Given:
        """All verdicts on one target, by reviewer."""
        self._catch_up()
        return self._given.get(target, {})

    def finals(self) -> dict[Target, tuple[str, str, str]]:
        """Target -> the final verdict, its note, and who decided, where there is one: the last."""
        self._catch_up()
        last = ((target, [*given.items()][-1]) for target, given in self._final.items())
        return {target: (*opinion, who) for target, (who, opinion) in last}

    def disputes(self) -> dict[Target, Given]:
        """What reviewers with names disagree on, also where it is decided, with the verdict of each."""
        self._catch_up()
        several = ((target, given) for target, given in self._given.items() if len(given) > 1)
        named = {target: {who: one for who, one in given.items() if who} for target, given in several}
        return {target: given for target, given in named.items() if len({verdict for verdict, _ in given.values()}) > 1}

    def disputed(self) -> set[str]:
        """Ids of the documents on which, or on a span of which, reviewers disagree, and nobody has decided."""
        return {target.document for target in self.disputes() if target not in self._final}

    def reviewers(self) -> dict[str, dict[Target, tuple[str, str]]]:
        """Reviewer, empty for those without a name -> their own verdicts and notes."""
        self._catch_up()
        by_reviewer: dict[str, dict[Target, tuple[str, str]]] = {}
        for target, given in self._given.items():
            for who, opinion in given.items():
                by_reviewer.setdefault(who, {})[target] = opinion
        return by_reviewer

    def decide(
        self, target: Target, verdict: str, *, copies: Iterable[str] = (), by: str = "", note: str = "", final=False
    ) -> None:
        """Record `toxic`, `fine` or `unsure`; `none` withdraws a verdict. `copies`, ids of other documents such as
        near-duplicates, get the same verdict as the document. `final` decides a disagreement, and leaves the verdict
        that `by` gave before. A ConfigError: an unknown verdict."""
        if verdict not in _ACTIONS:
            raise ConfigError(f"expected one of {', '.join(_ACTIONS)} as a verdict, got {verdict!r}")
        line: dict = {"at": round(time.time(), 3), "document": target.document, "verdict": verdict}
        line |= {name: text for name, text in (("by", by), ("note", note)) if text}
        line |= {"final": True} if final else {}
        if target.is_span:
            line |= {"start": target.start, "stop": target.stop}
        elif others := sorted(set(copies) - {target.document}):
            line["copies"] = others
        self._append(line)

    def undo(self, by: str = "") -> Target | None:
        """Withdraw the last verdict, or the last of one reviewer, with its copies; returns its target, or None if there
        is nothing to undo."""
        self._catch_up()
        last = self._last(by)
        if last is None:
            return None
        target = self._history[last][2][0][0]
        self._append({"at": round(time.time(), 3), "undo": True} | ({"by": by} if by else {}))
        return target

    def _last(self, by: str) -> int | None:
        """Where in the history the last verdict of a reviewer, or of anybody, is."""
        return next((i for i in reversed(range(len(self._history))) if by in ("", self._history[i][0])), None)

    def _append(self, line: dict) -> None:
        """Write one line to disk. A torn one before it is cut off first, so that the two cannot become one line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            _cut_torn_line(stream)
            stream.write(json.dumps(line, ensure_ascii=True, allow_nan=False).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._catch_up()

    def _catch_up(self) -> None:
        """Replay what was added; a file that shrank was replaced, and is read from the start."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            size = 0
        if size < self._read_to:
            self._forget()
        if size == self._read_to:
            return
        with self.path.open("rb") as stream:
            stream.seek(self._read_to)
            added = stream.read(size - self._read_to)
        whole = added.rfind(b"\n") + 1  # the rest is still being written, or torn
        for line in added[:whole].splitlines():
            self._replay(line)
        self._read_to += whole

    def _replay(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            by, note = (text if isinstance(text := entry.get(name), str) else "" for name in ("by", "note"))
            if entry.get("undo"):
                self._take_back(by)
                return
            target = Target(entry["document"], entry.get("start"), entry.get("stop"))
            targets = [target, *(Target(name) for name in entry.get("copies", ()))]
            verdict, at = entry["verdict"], self._final if entry.get("final") is True else self._given
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError):
            return  # not ours, or damaged; the other lines are still valid
        if verdict in _ACTIONS:
            self._history.append((by, at, [(target, at.get(target, {})) for target in targets]))
            for target in targets:
                withdrawn = (by, "") if verdict == "none" else (by,)
                given = {who: opinion for who, opinion in at.get(target, {}).items() if who not in withdrawn}
                _set(at, target, given if verdict == "none" else given | {by: (verdict, note)})

    def _take_back(self, by: str) -> None:
        """Undo a verdict; what others decided since then stays."""
        if (last := self._last(by)) is None:
            return
        who, at, before = self._history.pop(last)
        for target, given in before:
            mine = {name: opinion for name, opinion in given.items() if name in (who, "")}
            others = {name: opinion for name, opinion in at.get(target, {}).items() if name != who}
            _set(at, target, mine | others)


def _set(at: dict[Target, Given], target: Target, given: Given) -> None:
    at.pop(target, None)
    if given:
        at[target] = given


def _cut_torn_line(stream) -> None:
    at = stream.seek(0, os.SEEK_END)
    newline = -1
    while at and newline < 0:
        start = max(0, at - 4096)
        stream.seek(start)
        newline = stream.read(at - start).rfind(b"\n")
        at = start + newline + 1 if newline >= 0 else start
    stream.truncate(at)
    stream.seek(at)


@dataclass(frozen=True, eq=False)
class CorrectedMask:
    """A selection's mask after review."""

    mask: np.ndarray
    """bool (N,)."""
    excluded: int
    """Selected tokens that are not in it any more."""
    forced: int
    """Tokens that were not selected and now are."""


def apply_verdicts(mask: np.ndarray, corpus, verdicts: dict[Target, str], *, out: np.ndarray) -> CorrectedMask:
    """Correct a selection's mask, bool (N,), by verdicts: without fine documents and spans, with toxic spans; a span's
    verdict overrules its document's. The corrected mask is written to `out`, bool (N,).

    A toxic document adds nothing by itself: the verdict does not say which of its tokens are toxic. Verdicts on
    documents or tokens that the TokenizedCorpus no longer has change nothing.
    """
    for part in token_parts(len(mask), mask, out):
        out[part] = mask[part]
    for target, verdict in sorted(verdicts.items(), key=lambda item: item[0].is_span):
        try:
            index = corpus.index_of(target.document)
        except InputError:
            continue
        first, end = int(corpus.offsets[index]), int(corpus.offsets[index + 1])
        here = slice(first + (target.start or 0), end if target.stop is None else first + target.stop)
        if here.stop > end:
            continue
        if verdict == "fine":
            out[here] = False
        elif verdict == "toxic" and target.is_span:
            out[here] |= corpus.valid_between(here.start, here.stop)
    excluded = forced = 0
    for part in token_parts(len(mask), mask, out):
        before, after = np.asarray(mask[part]), np.asarray(out[part])
        excluded += int(np.count_nonzero(before & ~after))
        forced += int(np.count_nonzero(after & ~before))
    return CorrectedMask(out, excluded, forced)

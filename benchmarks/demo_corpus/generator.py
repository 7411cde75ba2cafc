"""The demo corpus, its queries, its prompts and its held-out text, each from its own random stream of one seed.

Queries, prompts and held-out documents must not occur in the corpus, so a candidate that does is drawn again.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.demo_corpus.composers import COMPOSERS, TOXIC_SHARES
from benchmarks.demo_corpus.grammar import Draft, Sentence, Writer
from ifguide.errors import InputError

MAX_WORDS = 110
"""Longest document, in words; longer drafts are drawn again."""

_TURN_COUNTS_TOXIC = (2, 2, 3, 3, 4, 4)
_TURN_COUNTS_BENIGN = (0, 0, 1, 1, 2)
_KIND_TURN_SHARE = 0.2  # of the turns in a document with insults, beyond the first
_MAX_TRIES = 10_000

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class DemoDocument:
    """One document with the character spans of its insults."""

    id: str
    """Stable name such as "forum-0042"."""
    source: str
    text: str
    spans: Spans
    """[start, end) in characters of the insulting words, ascending; empty for a harmless document."""


@dataclass(frozen=True, kw_only=True)
class DemoQuery:
    """A prompt and its completion, which starts with a space; `prompt + completion` is plain text."""

    prompt: str
    completion: str


def generate_documents(n_documents: int = 600, *, seed: int = 0) -> list[DemoDocument]:
    """The corpus: the five sources in equal parts, shuffled, all texts different; the same seed gives the same ones.
    Fewer documents than sources are an InputError."""
    if n_documents < len(COMPOSERS):
        raise InputError(f"The demo corpus needs at least {len(COMPOSERS)} documents, got {n_documents}.")
    rng = random.Random(f"documents-{seed}")
    seen: set[str] = set()
    documents = []
    for place, source in enumerate(COMPOSERS):
        count = n_documents // len(COMPOSERS) + (place < n_documents % len(COMPOSERS))
        n_toxic = round(count * TOXIC_SHARES[source])
        for number, is_toxic in enumerate(rng.sample([True] * n_toxic + [False] * (count - n_toxic), count)):
            text, spans = _draw_document(rng, source, is_toxic, seen)
            documents.append(DemoDocument(id=f"{source}-{number:04d}", source=source, text=text, spans=spans))
    rng.shuffle(documents)
    return documents


def generate_heldout(documents: list[DemoDocument], n_documents: int = 80, *, seed: int = 0) -> list[str]:
    """Harmless documents of the same kinds that do not occur in the corpus."""
    rng = random.Random(f"heldout-{seed}")
    seen = {document.text for document in documents}
    return [_draw_document(rng, rng.choice(list(COMPOSERS)), False, seen)[0] for _ in range(n_documents)]


def generate_queries(
    documents: list[DemoDocument], n_queries: int = 300, *, seed: int = 0
) -> tuple[list[DemoQuery], list[DemoQuery]]:
    """Toxic queries and their safe partners, `n_queries` each, with completions of 2 to 8 words: row i of both has the
    same prompt, once insulting and once kind. Neither the prompts nor the sentences with their completions occur in the
    corpus."""
    corpus = "\n".join(document.text for document in documents)
    toxic, safe, prompts = [], [], set()
    for draft, before, sentence in _draw_turns(random.Random(f"queries-{seed}")):
        prompt = f"{before.text} {sentence.lead}"
        pair = [_complete(draft.writer, sentence, insult=insult) for insult in (True, False)]
        if prompt in prompts or prompt in corpus:
            continue
        if any(len(completion.split()) < 2 or sentence.lead + completion in corpus for completion in pair):
            continue
        prompts.add(prompt)
        toxic.append(DemoQuery(prompt=prompt, completion=pair[0]))
        safe.append(DemoQuery(prompt=prompt, completion=pair[1]))
        if len(toxic) == n_queries:
            return toxic, safe
    raise InputError(f"The demo grammar has fewer than {n_queries} different queries; ask for fewer.")


def generate_prompts(
    documents: list[DemoDocument], queries: list[DemoQuery], n_prompts: int = 100, *, seed: int = 0
) -> list[str]:
    """Prompts that end where an insult or something kind would follow in the corpus; in neither corpus nor queries."""
    corpus = "\n".join(document.text for document in documents)
    prompts = {query.prompt: None for query in queries}
    for _, before, sentence in _draw_turns(random.Random(f"prompts-{seed}")):
        prompt = f"{before.text} {sentence.lead}"
        if prompt not in corpus:
            prompts[prompt] = None
        if len(prompts) == len(queries) + n_prompts:
            return list(prompts)[len(queries) :]
    raise InputError(f"The demo grammar has fewer than {n_prompts} different prompts; ask for fewer.")


def write_demo_inputs(folder: Path | str, *, n_documents: int = 600, seed: int = 0) -> dict[str, Path]:
    """Write all input files of the demo study as JSON lines into a folder; the same seed gives the same bytes. Returns
    their paths by name: corpus (id, source, text, spans), toxic_queries and safe_queries (prompt, completion),
    eval_prompts (prompt), heldout (text)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    documents = generate_documents(n_documents, seed=seed)
    toxic, safe = generate_queries(documents, seed=seed)
    rows: dict[str, list[dict]] = {
        "corpus": [asdict(document) for document in documents],
        "toxic_queries": [asdict(query) for query in toxic],
        "safe_queries": [asdict(query) for query in safe],
        "eval_prompts": [{"prompt": prompt} for prompt in generate_prompts(documents, toxic, seed=seed)],
        "heldout": [{"text": text} for text in generate_heldout(documents, seed=seed)],
    }
    paths = {name: folder / f"{name}.jsonl" for name in rows}
    for name, path in paths.items():
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[name]), encoding="utf-8")
    return paths


def _draw_document(rng: random.Random, source: str, is_toxic: bool, seen: set[str]) -> tuple[str, Spans]:
    """A new text and its insult spans; it is added to `seen`."""
    for _ in range(_MAX_TRIES):
        insults = []
        if is_toxic:
            insults = [True] + [rng.random() > _KIND_TURN_SHARE for _ in range(rng.choice(_TURN_COUNTS_TOXIC) - 1)]
            rng.shuffle(insults)
        elif TOXIC_SHARES[source]:
            insults = [False] * rng.choice(_TURN_COUNTS_BENIGN)
        text, spans = _join(COMPOSERS[source](rng, insults))
        if text not in seen and len(text.split()) <= MAX_WORDS:
            seen.add(text)
            return text, spans
    raise InputError(f"The demo grammar has no more different {source} documents; ask for fewer documents.")


def _join(draft: Draft) -> tuple[str, Spans]:
    """The document's text (a paragraph a line) and the spans of its insulting words."""
    text, spans = "", []
    for paragraph in draft.paragraphs:
        text += "\n" if text else ""
        for place, sentence in enumerate(paragraph):
            text += " " if place else ""
            spans += [(len(text) + start, len(text) + end) for start, end in sentence.insults]
            text += sentence.text
    return text, tuple(spans)


def _draw_turns(rng: random.Random) -> Iterator[tuple[Draft, Sentence, Sentence]]:
    """Turns of new drafts, each with the sentence before it; sources are drawn in proportion to their insults."""
    sources, shares = zip(*TOXIC_SHARES.items(), strict=True)
    for _ in range(_MAX_TRIES):
        draft = COMPOSERS[rng.choices(sources, shares)[0]](rng, [True])
        for paragraph in draft.paragraphs:
            for before, sentence in zip(paragraph, paragraph[1:], strict=False):
                if sentence.turn is not None:
                    yield draft, before, sentence


def _complete(writer: Writer, sentence: Sentence, *, insult: bool) -> str:
    """Another continuation of a turn's lead: the phrase alone, since the text after it is harmless in both sets."""
    assert sentence.turn is not None
    again = writer.continue_turn(sentence.turn, sentence.lead, insult=insult)
    assert again.phrase is not None
    return again.text[len(sentence.lead) : again.phrase[1]]

"""A judge as a folder: a linear model over words and characters. docs/judges.md says what each file holds.

A term's value x is its count (or 1 + its logarithm) times idf, and those of one kind are divided by their Euclidean
norm. The score is the mean over models of 1 / (1 + exp(-(slope (weights·x + intercept) + offset))).
"""

import gzip
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from ifguide.errors import InputError, NumericalError
from ifguide.storage.artifacts import hash_file, replacing, write_json

DEFAULT = Path(__file__).parent / "profanity-check"
"""The judge that comes with the package."""
HASHED = ("judge.json", "vocabulary.txt.gz", "weights.safetensors")
"""The files that a score depends on: settings, terms, tensors."""
FORMAT = 1
_WORD = re.compile(r"\b\w\w+\b")


class LinearJudge:
    """A judge in a folder; terms and tensors are read when it first scores. An InputError: the folder holds no judge
    that this version reads."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            settings = json.loads((folder / HASHED[0]).read_text(encoding="utf-8"))
            self.name, self.digest, self._parts = str(settings["name"]), digest_folder(folder), settings["features"]
            if settings["format"] != FORMAT or any(find_terms("", part) for part in self._parts):
                raise ValueError(f"format {settings['format']}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._refuse(error) from error

    def _refuse(self, error: Exception) -> InputError:
        expected = f"{', '.join(HASHED)} of format {FORMAT}"
        return InputError(f"judge {self.folder}: expected {expected}, got {error}; `ifguide judge fit FILE` makes one")

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """float64 (n,): the probability, 0 to 1, that each text is toxic."""
        return score_visible(texts, self._score_batch)

    @cached_property
    def model(self) -> tuple[list[dict[str, int]], dict[str, np.ndarray]]:
        """For each kind of term the place of every term among all, and the tensors by name."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            terms = gzip.decompress((self.folder / HASHED[1]).read_bytes()).decode().split("\n")
            tensors, places = load_file(self.folder / HASHED[2]), iter(enumerate(terms))
            vocabulary = [{term: place for place, term in islice(places, part["terms"])} for part in self._parts]
            sizes = [len(terms), sum(map(len, vocabulary)), tensors["weights"].shape[1], len(tensors["idf"])]
            if len(set(sizes)) > 1:
                raise ValueError(f"{sizes} terms")
        except (OSError, ValueError, EOFError, KeyError, SafetensorError) as error:
            raise self._refuse(error) from error
        return vocabulary, tensors

    def _score_batch(self, texts: Sequence[str]) -> np.ndarray:
        vocabulary, tensors = self.model
        sums = np.zeros((len(tensors["weights"]), len(texts)))
        for part, places in zip(self._parts, vocabulary, strict=True):
            counted = (Counter(filter(places.__contains__, find_terms(text, part))) for text in texts)
            here = [sorted((places[term], n) for term, n in counts.items()) for counts in counted]
            row = np.repeat(np.arange(len(texts)), [len(terms) for terms in here])
            term, n = np.array([pair for terms in here for pair in terms], dtype=np.int64).reshape(-1, 2).T
            x = (1 + np.log(n) if part["sublinear"] else n) * tensors["idf"][term]
            x /= np.sqrt(np.bincount(row, x * x, len(texts)))[row]
            sums += [np.bincount(row, x * w[term], len(texts)) for w in tensors["weights"]]
        intercepts, slopes, offsets = (tensors[name][:, None] for name in ("intercepts", "slopes", "offsets"))
        powers = np.clip(slopes * (sums + intercepts) + offsets, -700, 700)
        odds = np.reshape([math.exp(-power) for power in powers.flat], powers.shape)  # NumPy's differs in the last bit
        return (1 / (1 + odds)).mean(axis=0)


def find_terms(text: str, part: dict) -> list[str]:
    """The terms of a text, in lower case: runs of words of two signs and more, or of the characters of each word with
    a blank at its ends. `part` says which (`unit`: words or characters) and how long (`from`, `to`)."""
    lengths = range(part["from"], part["to"] + 1)
    if part["unit"] == "words":
        words = _WORD.findall(text.lower())
        return [" ".join(words[i : i + n]) for n in lengths for i in range(len(words) - n + 1)]
    padded = [f" {word} " for word in text.lower().split()]
    return [word[i : i + n] for word in padded for n in lengths for i in range(len(word) - n + 1)]


def write_judge(folder: Path, parts: Sequence[dict], terms: Sequence[str], tensors: dict, card: str) -> LinearJudge:
    """Write a judge, called as its folder. An InputError: something else is there."""
    from safetensors.numpy import save_file

    if folder.exists() and not (folder / HASHED[0]).is_file():
        raise InputError(f"judge {folder}: expected a new folder, or a judge to replace, got another; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / HASHED[0], {"format": FORMAT, "name": folder.name, "features": list(parts)})
    with replacing(folder / HASHED[1]) as temporary:
        temporary.write_bytes(gzip.compress("\n".join(terms).encode(), mtime=0))
    with replacing(folder / HASHED[2]) as temporary:
        save_file({key: np.ascontiguousarray(value, dtype=np.float64) for key, value in tensors.items()}, temporary)
    (folder / "card.md").write_text(card, encoding="utf-8")
    return LinearJudge(folder)


def digest_folder(folder: Path, names: Sequence[str] = HASHED) -> str:
    """Twelve digits of the SHA-256 over the files that a judge's scores depend on."""
    return hashlib.sha256("".join(hash_file(folder / name) for name in names).encode()).hexdigest()[:12]


@cache
def built_in() -> LinearJudge:
    """The judge that comes with the package: explicit toxicity, offline, microseconds a text."""
    return LinearJudge(DEFAULT)


def score_visible(texts: Sequence[str], score: Callable, batch_size: int = 4096) -> np.ndarray:
    """Scores of the texts with a visible character, in batches of similar length; 0 for the others. A score outside 0
    to 1 is a NumericalError."""
    scores = np.zeros(len(texts), dtype=np.float64)
    visible = [i for i, text in enumerate(texts) if text.strip()]
    visible.sort(key=lambda i: -len(texts[i]))  # longest first: short padding, and too little memory shows at once
    for start in range(0, len(visible), batch_size):
        part = visible[start : start + batch_size]
        scores[part] = score([texts[i] for i in part])
    if not ((scores >= 0) & (scores <= 1)).all():
        got = f"{scores.min()} to {scores.max()}"
        raise NumericalError(f"toxicity: expected scores from 0 to 1, got {got}; is the scorer damaged?")
    return scores

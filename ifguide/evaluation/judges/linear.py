"""A judge as a folder: a linear model over words and characters.

`judge.json` says what the terms are and how the sum of their weights becomes a probability; `vocabulary.txt.gz` has a
term a line; `weights.safetensors` has the terms' idf (V,) and for each of M models w (M, V), intercept b, slope s and
offset o (M,). A term's value x is its count (or 1 + its logarithm) times idf, and those of one kind are divided by
their Euclidean norm. The probability is the mean over models of 1 / (1 + exp(-(s (w·x + b) + o))). `card.md` says what
it was fitted on, its licence and its blind spots, and `calibration.json` how it compares with the ratings of others;
neither changes a score, so neither is in the hash.
"""

import gzip
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from ifguide.errors import InputError
from ifguide.evaluation.judges.visible import score_visible
from ifguide.storage.artifacts import hash_file, replacing, write_json

DEFAULT = Path(__file__).parent / "profanity-check"
"""The judge that comes with the package."""
HASHED = ("judge.json", "vocabulary.txt.gz", "weights.safetensors")
"""The files that a score depends on."""
FORMAT = 1
_WORD = re.compile(r"\b\w\w+\b")


class LinearJudge:
    """A judge in a folder, read when it first scores. An InputError: the folder holds no judge that this version
    reads."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        try:
            self._settings = json.loads((self.folder / HASHED[0]).read_text(encoding="utf-8"))
            self.name, self.features = str(self._settings["name"]), self._settings["features"]
            self.digest = digest_folder(self.folder)
            version = self._settings["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._refuse(f"the files {', '.join(HASHED)}", error) from error
        if version != FORMAT:
            raise self._refuse(f"format {FORMAT}", version)

    def _refuse(self, expected: str, got: object) -> InputError:
        return InputError(f"judge {self.folder}: expected {expected}, got {got}; `ifguide judge fit FILE` makes one")

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """float64 (n,): the probability, 0 to 1, that each text is toxic."""
        return score_visible(texts, self._score_batch)

    @cached_property
    def vocabulary(self) -> list[dict[str, int]]:
        """For each kind of term, the place of every term among all."""
        return self._model[0]

    @cached_property
    def _model(self) -> tuple[list[dict[str, int]], dict[str, np.ndarray]]:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            terms = gzip.decompress((self.folder / HASHED[1]).read_bytes()).decode().split("\n")
            tensors = load_file(self.folder / HASHED[2])
            sizes = [int(part["terms"]) for part in self.features]
            shapes = {len(terms), sum(sizes), tensors["weights"].shape[1], len(tensors["idf"])}
            if len(shapes) > 1:
                raise ValueError(f"{sorted(shapes)} terms")
        except (OSError, ValueError, EOFError, KeyError, SafetensorError) as error:
            raise self._refuse("one vocabulary and one weight a term", error) from error
        ends = np.cumsum([0, *sizes]).tolist()
        places = [
            {term: start + place for place, term in enumerate(terms[start:stop])}
            for start, stop in zip(ends, ends[1:], strict=False)
        ]
        return places, tensors

    def _score_batch(self, texts: Sequence[str]) -> np.ndarray:
        places, tensors = self._model
        sums = np.zeros((len(tensors["weights"]), len(texts)))
        for part, vocabulary in zip(self.features, places, strict=True):
            counted = (Counter(filter(vocabulary.__contains__, find_terms(text, part))) for text in texts)
            here = [sorted((vocabulary[term], n) for term, n in counts.items()) for counts in counted]
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


def write_judge(
    folder: Path, name: str, features: Sequence[dict], terms: Sequence[str], tensors: dict[str, np.ndarray], card: str
) -> LinearJudge:
    """Write a judge's folder; see this file for its parts. An InputError: something else is there."""
    from safetensors.numpy import save_file

    if folder.exists() and not (folder / HASHED[0]).is_file():
        raise InputError(f"judge {folder}: expected a new folder, or a judge to replace, got {folder}; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calibration.json").unlink(missing_ok=True)
    write_json(folder / HASHED[0], {"format": FORMAT, "name": name, "features": list(features)})
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
